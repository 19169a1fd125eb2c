//! The events that the daemon sends to listeners.

use serde::{Deserialize, Serialize};

use super::{NewPieces, Settings, Torrent};
use piecework_core::InfoHash;

/// A change, as `GET /events` streams it. The variant's name is the event's name, and its content
/// is the event's data. A listener first gets [`Event::Torrent`] for every existing torrent, then
/// [`Event::Ready`], then changes, at most a few a second for each torrent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event", content = "data")]
pub enum Event {
    /// A torrent exists or has changed. Contains its current state.
    Torrent(Box<Torrent>),
    /// A torrent was removed.
    Removed(InfoHash),
    /// A download has everything that is wanted.
    Done(InfoHash),
    /// New pieces of the selected torrent, and who gave them.
    Pieces(Box<NewPieces>),
    /// The settings have changed. Contains all of them.
    Settings(Box<Settings>),
    /// The notices have changed, as in [`Overview::notices`](super::Overview::notices). Not sent at
    /// the start if there are none.
    Notices(Vec<String>),
    /// All existing torrents have been sent. From here on, events are changes.
    Ready,
    /// The daemon ends.
    Bye,
}
