//! The source of answers: a journal file, or a daemon.

use std::net::SocketAddr;
use std::path::Path;

use piecework_api::client::{ApiError, LogQuery};
use piecework_api::{BadPiece, Givers, LogEntry, PieceState, PieceStory};
use piecework_core::{InfoHash, printable};
use piecework_daemon::journal_view;
use piecework_journal::{Filter, JournalError, JournalOptions, PieceEventKind, Reader};

use super::super::format::shown;
use super::super::pick::{ambiguous, meant_by};
use super::super::remote::Remote;
use super::super::{CliError, Env};

/// The source of answers.
pub(super) enum Source<'a> {
    /// A journal. Its owner may be writing to it at the same time.
    File(Reader),
    /// A daemon.
    Daemon(&'a Remote),
}

/// A torrent that the source knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedTorrent {
    pub info_hash: InfoHash,
    /// Its name, unescaped.
    pub name: String,
    /// Bytes of content; 0 if that is not known.
    pub size: u64,
    /// Bytes in a piece; 0 if that is not known.
    pub piece_length: u32,
}

impl<'a> Source<'a> {
    /// Returns the journal in `file`, or else the daemon. If no daemon runs and none was named,
    /// returns the journal that `torrent-peer` keeps.
    pub(super) async fn find(
        env: &Env,
        remote: &'a Remote,
        file: Option<&Path>,
    ) -> Result<Self, CliError> {
        if let Some(file) = file {
            return Ok(Self::File(Reader::open(&env.path(file)).map_err(fault)?));
        }
        match remote.client().alive().await {
            Ok(_) => Ok(Self::Daemon(remote)),
            Err(error @ ApiError::NotRunning { .. }) if !remote.is_named() => {
                let peer = &remote.config().peer;
                let path = JournalOptions::place(&peer.journal, &peer.torrents);
                let path = path.map(|path| env.path(path)).filter(|path| path.exists());
                let Some(path) = path else {
                    let none = remote.fault(&error);
                    return Err(CliError::no_daemon(format_args!(
                        "{none}; and there is no journal in `{}`: name one with --journal",
                        shown(&peer.torrents)
                    )));
                };
                Ok(Self::File(Reader::open(&path).map_err(fault)?))
            }
            Err(error) => Err(remote.fault(&error)),
        }
    }

    /// Returns the journal, if it is a tracker's.
    pub(super) fn of_tracker(&self) -> Result<Option<&Reader>, CliError> {
        match self {
            Self::File(reader) if reader.is_trackers().map_err(fault)? => Ok(Some(reader)),
            _ => Ok(None),
        }
    }

    /// Returns all torrents that it knows.
    pub(super) async fn torrents(&self) -> Result<Vec<LoggedTorrent>, CliError> {
        match self {
            Self::File(reader) => {
                let torrents = reader.torrents().map_err(fault)?;
                let known = |row: piecework_journal::TorrentRow| LoggedTorrent {
                    info_hash: row.info_hash,
                    name: row.name,
                    size: row.size,
                    piece_length: row.piece_length,
                };
                Ok(torrents.into_iter().map(known).collect())
            }
            Self::Daemon(remote) => {
                let known = |torrent: piecework_api::Torrent| LoggedTorrent {
                    info_hash: torrent.info_hash,
                    name: torrent.name,
                    size: torrent.bytes,
                    piece_length: torrent.piece_length,
                };
                Ok(remote.torrents().await?.into_iter().map(known).collect())
            }
        }
    }

    /// Returns the one among `torrents` that `text` names.
    pub(super) fn pick<'b>(
        &self,
        torrents: &'b [LoggedTorrent],
        text: &str,
    ) -> Result<&'b LoggedTorrent, CliError> {
        let meant = meant_by(text, torrents, |torrent| (torrent.info_hash, &torrent.name));
        match meant[..] {
            [one] => Ok(one),
            [] => {
                let whose = match self {
                    Self::File(_) => "the journal",
                    Self::Daemon(_) => "the daemon",
                };
                Err(CliError::failed(format_args!(
                    "{whose} has no torrent `{}`: torrent-log without a name lists them",
                    printable(text)
                )))
            }
            _ => Err(ambiguous(
                text,
                meant.iter().map(|torrent| (torrent.info_hash, &*torrent.name, 0)),
            )),
        }
    }

    pub(super) async fn givers(&self, torrent: &LoggedTorrent) -> Result<Givers, CliError> {
        match self {
            Self::File(reader) => {
                let givers = reader.givers(torrent.info_hash).map_err(fault)?;
                let takers = reader.takers(torrent.info_hash).map_err(fault)?;
                Ok(Givers {
                    givers: givers.into_iter().map(journal_view::giver).collect(),
                    takers: takers.into_iter().map(journal_view::taker).collect(),
                    by_piece: Vec::new(),
                    lost: reader.lost(torrent.info_hash).map_err(fault)?,
                    waiting: 0,
                })
            }
            Self::Daemon(remote) => {
                let asked = remote.client().givers(torrent.info_hash).await;
                asked.map_err(|error| remote.fault(&error))
            }
        }
    }

    pub(super) async fn story(
        &self,
        torrent: &LoggedTorrent,
        piece: u32,
    ) -> Result<PieceStory, CliError> {
        match self {
            Self::File(reader) => {
                let story = reader.story(torrent.info_hash, piece).map_err(fault)?;
                // A file knows only the past: a piece that was verified was held.
                let is_held = story.iter().any(|event| {
                    matches!(event.kind, PieceEventKind::Given | PieceEventKind::Sent)
                });
                let state = if is_held { PieceState::Held } else { PieceState::Missing };
                let story = story.into_iter().map(journal_view::story_entry).collect();
                Ok(PieceStory { piece, state, story })
            }
            Self::Daemon(remote) => {
                let asked = remote.client().story(torrent.info_hash, piece).await;
                asked.map_err(|error| remote.fault(&error))
            }
        }
    }

    pub(super) async fn bad(&self, torrent: &LoggedTorrent) -> Result<Vec<BadPiece>, CliError> {
        match self {
            Self::File(reader) => {
                let wrong = reader.wrong_pieces(torrent.info_hash).map_err(fault)?;
                Ok(wrong.into_iter().map(journal_view::bad_piece).collect())
            }
            Self::Daemon(remote) => {
                let asked = remote.client().bad(torrent.info_hash).await;
                asked.map_err(|error| remote.fault(&error))
            }
        }
    }

    /// Returns responses: those after `after` if it is given, else the last ones. `since` is in
    /// seconds since 1970.
    pub(super) async fn log(
        &self,
        torrent: &LoggedTorrent,
        peer: Option<SocketAddr>,
        since: Option<i64>,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<LogEntry>, CliError> {
        match self {
            Self::File(reader) => {
                let filter = Filter {
                    torrent: Some(torrent.info_hash),
                    peer,
                    since: since.map(|seconds| seconds.saturating_mul(1_000)),
                    after,
                    run: None,
                };
                let rows = reader.log(&filter, limit).map_err(fault)?;
                Ok(rows.into_iter().map(journal_view::log_entry).collect())
            }
            Self::Daemon(remote) => {
                let query = LogQuery { limit, after, peer, since };
                let asked = remote.client().log_where(torrent.info_hash, &query).await;
                asked.map_err(|error| remote.fault(&error))
            }
        }
    }
}

/// Returns the error for a journal file that cannot be read.
pub(super) fn fault(error: JournalError) -> CliError {
    CliError::failed(error)
}

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        fault(error)
    }
}
