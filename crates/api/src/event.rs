//! What the daemon tells those who listen.

use serde::{Deserialize, Serialize};

use super::{NewPieces, Settings, Torrent};
use piecework_core::InfoHash;

/// A change, as `GET /events` streams it: the variant's name is the event's name, what it holds is
/// its data. A listener first gets [`Event::Torrent`] for every torrent there is, then
/// [`Event::Ready`], then changes, a few a second for each torrent at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event", content = "data")]
pub enum Event {
    /// A torrent is there or has changed: all of it, as it is now.
    Torrent(Box<Torrent>),
    /// A torrent is gone.
    Removed(InfoHash),
    /// A download has everything that is wanted.
    Done(InfoHash),
    /// New pieces of the one torrent that is listened to, and who gave them.
    Pieces(Box<NewPieces>),
    /// The settings are these now.
    Settings(Box<Settings>),
    /// What people should know is this now, as in [`Overview::notices`](super::Overview::notices);
    /// not told while it is nothing.
    Notices(Vec<String>),
    /// All that there was has been told; from here on it is changes.
    Ready,
    /// The daemon ends.
    Bye,
}
