//! What a tracker answered goes into its request log, with what public logs may tell of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::super::catalogue::Entry;
use super::Service;
use piecework_core::{InfoHash, PeerId};
use piecework_journal::{HandedList, RequestEvent, RequestRecord, Via};

/// What is known of a request when it is answered.
pub(super) struct Note {
    pub(super) peer: SocketAddr,
    pub(super) peer_id: Option<PeerId>,
    pub(super) event: RequestEvent,
    pub(super) info_hash: Option<InfoHash>,
    pub(super) handed: HandedList,
    pub(super) outcome: Result<(), String>,
    /// It asks for peers, and is no use without them.
    pub(super) seeks: bool,
    pub(super) via: Via,
}

impl Note {
    pub(super) fn http(
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        outcome: Result<(), String>,
    ) -> Self {
        Self {
            peer: SocketAddr::new(from.ip().to_canonical(), from.port()),
            peer_id: None,
            event,
            info_hash,
            handed: HandedList::default(),
            outcome,
            seeks: false,
            via: Via::Http,
        }
    }
}

impl Service {
    /// Whether no public log is to tell of a torrent: it is unlisted, or was when it was removed.
    pub(crate) fn is_unlisted(&self, info_hash: InfoHash) -> bool {
        self.was_unlisted(info_hash, self.catalogue.get(info_hash).as_deref())
    }

    /// Writes a request into the log that was refused before it was looked at any further.
    pub(crate) fn refused(
        &self,
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        via: Via,
        reason: String,
    ) {
        let mut note = Note::http(from, event, info_hash, Err(reason));
        note.via = via;
        self.note(note);
    }

    pub(super) fn note_http(
        &self,
        from: SocketAddr,
        event: RequestEvent,
        info_hash: Option<InfoHash>,
        outcome: Result<(), String>,
    ) {
        self.note(Note::http(from, event, info_hash, outcome));
    }

    pub(super) fn note(&self, note: Note) {
        let entry = note.info_hash.and_then(|hash| self.catalogue.get(hash));
        let is_announce = matches!(
            note.event,
            RequestEvent::Announce | RequestEvent::Started | RequestEvent::Completed
        );
        if let Some(entry) = entry.as_ref().filter(|_| is_announce && note.outcome.is_ok()) {
            entry.announced();
        }
        let unlisted = note.info_hash.is_some_and(|hash| self.was_unlisted(hash, entry.as_deref()));
        self.push(note, entry.map(|entry| Arc::clone(&entry.name)), unlisted);
    }

    pub(super) fn push(&self, note: Note, name: Option<Arc<str>>, unlisted: bool) {
        if note.outcome.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        // Answered, but whoever asked can get nothing of it.
        let found_nobody = note.seeks && note.handed.is_empty();
        let outcome = match note.outcome {
            Ok(()) if found_nobody => Err("nobody else has any of it".to_owned()),
            outcome => outcome,
        };
        self.log.push(RequestRecord {
            time: SystemTime::now(),
            peer: note.peer,
            peer_id: note.peer_id,
            event: note.event,
            info_hash: note.info_hash,
            name,
            handed: note.handed,
            outcome: outcome.map_err(Into::into),
            via: note.via,
            unlisted,
        });
    }

    pub(super) fn was_unlisted(&self, info_hash: InfoHash, entry: Option<&Entry>) -> bool {
        entry.map_or_else(
            || self.removed_unlisted.read().contains(info_hash),
            |entry| entry.unlisted,
        )
    }

    pub(super) fn name_of(&self, info_hash: InfoHash) -> Option<Arc<str>> {
        self.catalogue.get(info_hash).map(|entry| Arc::clone(&entry.name))
    }
}
