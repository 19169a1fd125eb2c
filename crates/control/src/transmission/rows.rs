//! The torrents of an answer, written one by one, and long lists of one element by element.

use serde::Serialize;
use serde_json::Value;

use super::core::{Rpc, unix_now};
use super::fields::{Field, Files, Needs, Seen, View};
use super::protocol::{RowSource, Spelling};
use piecework_core::InfoHash;
use piecework_daemon::DaemonError;
use piecework_http::{Left, PartWriter};

/// What is told of which torrents.
pub(super) struct Rows {
    pub(super) rpc: Rpc,
    pub(super) fields: Vec<&'static Field>,
    /// Each row is a list of values, and the first one of the fields' names.
    pub(super) table: bool,
    pub(super) hashes: Vec<InfoHash>,
}

impl RowSource for Rows {
    async fn write(self, out: &mut PartWriter, spelling: Spelling) -> Result<(), Left> {
        let mut is_first = true;
        if self.table {
            let names: Vec<&str> =
                self.fields.iter().map(|field| spelling.name(field.name)).collect();
            out.json(&names).await?;
            is_first = false;
        }
        for info_hash in &self.hashes {
            match self.row(*info_hash, out, spelling, is_first).await {
                Ok(written) => is_first &= !written,
                Err(RowError::Left) => return Err(Left),
                // It went while we looked.
                Err(RowError::Daemon(DaemonError::Unknown(_))) => {}
                Err(RowError::Daemon(error)) => {
                    tracing::debug!(%error, "a torrent is left out of an answer");
                }
            }
        }
        Ok(())
    }
}

/// Why a row is not written.
enum RowError {
    Left,
    Daemon(DaemonError),
}

impl Rows {
    /// Writes one torrent; says whether it is there.
    async fn row(
        &self,
        info_hash: InfoHash,
        out: &mut PartWriter,
        spelling: Spelling,
        is_first: bool,
    ) -> Result<bool, RowError> {
        let daemon = self.rpc.daemon();
        let Some(torrent) = daemon.torrent(info_hash) else { return Ok(false) };
        let needs = Needs::of(&self.fields);
        let detail = match needs.detail {
            true => Some(daemon.detail_without_files(info_hash).await?),
            false => None,
        };
        let files = if needs.files { Some(daemon.files(info_hash).await?) } else { None };
        let peers = if needs.peers { Some(daemon.peers(info_hash).await?) } else { None };
        let pieces = if needs.pieces { Some(daemon.pieces(info_hash).await?) } else { None };
        let session = daemon.settings();
        let memory = self.rpc.remembered(info_hash);
        let list_files = files.as_ref().map(|files| move || Box::new(files.iter(0)) as Files<'_>);
        let view = View {
            seen: Seen { torrent: &torrent, session: &session, memory: &memory, now: unix_now() },
            detail: detail.as_ref(),
            files: list_files.as_ref().map(|list| list as _),
            peers: peers.as_deref(),
            pieces: pieces.as_ref(),
        };
        if !is_first {
            out.write(",").await?;
        }
        out.write(if self.table { "[" } else { "{" }).await?;
        for (index, field) in self.fields.iter().enumerate() {
            if index > 0 {
                out.write(",").await?;
            }
            if !self.table {
                out.json(&spelling.name(field.name)).await?;
                out.write(":").await?;
            }
            match field.elements(&view) {
                Some(elements) => {
                    out.write("[").await?;
                    out.elements(elements.map(|value| Element { value, spelling })).await?;
                    out.write("]").await?;
                }
                None => {
                    let value = field.value(&view);
                    let element = Element { value, spelling };
                    match self.table {
                        true => out.json(&element).await?,
                        false => out.json(&spelling.of(&element.value)).await?,
                    }
                }
            }
        }
        out.write(if self.table { "]" } else { "}" }).await?;
        Ok(true)
    }
}

/// An element of a list.
struct Element {
    value: Value,
    spelling: Spelling,
}

impl Serialize for Element {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spelling.element(&self.value, serializer)
    }
}

impl From<Left> for RowError {
    fn from(_: Left) -> Self {
        Self::Left
    }
}

impl From<DaemonError> for RowError {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(error)
    }
}
