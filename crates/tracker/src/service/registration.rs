//! The catalogue's side of a tracker: torrents come, are handed out, and go; tokens say who may.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::super::catalogue::{AddError, Added, Entry, NewEntry, ObserveError, parse_limits};
use super::super::store::{StoreError, unix_now};
use super::requests::Note;
use super::{CatalogueRefusal, Service, TokenDigest, os_random};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, network_of};
use piecework_journal::RequestEvent;
use piecework_proto::announce::catalogue::MAX_UPLOAD_LEN;
use piecework_proto::announce::catalogue::{RegisterOptions, Registered};

impl Service {
    /// Puts a torrent into the catalogue; says whether it is new there. Blocks.
    pub(crate) fn register(
        &self,
        from: SocketAddr,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<(Registered, bool), CatalogueRefusal> {
        let metainfo = Metainfo::parse(torrent, &parse_limits(torrent.len() > MAX_UPLOAD_LEN))
            .map_err(CatalogueRefusal::BadTorrent);
        let registered = metainfo.and_then(|metainfo| self.add(from, metainfo, options));
        let info_hash = registered.as_ref().ok().map(|(registered, _)| registered.info_hash);
        let outcome = registered.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.note_http(from, RequestEvent::Register, info_hash, outcome);
        registered
    }

    /// Somebody asked for a name that nothing in the catalogue has.
    pub(crate) fn not_found(&self, from: SocketAddr, name: &str) {
        let end = name.floor_char_boundary(MAX_NAME_LOGGED);
        let outcome = Err("no file of that name is known to this tracker".to_owned());
        let note = Note::http(from, RequestEvent::Lookup, None, outcome);
        self.push(note, Some(name[..end].into()), false);
    }

    /// A torrent's `.torrent`. Blocks.
    pub(crate) fn fetch(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
    ) -> Result<Bytes, CatalogueRefusal> {
        let entry = self.catalogue.get(info_hash).ok_or(CatalogueRefusal::Unknown(info_hash));
        let bytes = entry.and_then(|entry| Ok(self.catalogue.bytes(&entry)?));
        let outcome = bytes.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.note_http(from, RequestEvent::Fetch, Some(info_hash), outcome);
        bytes
    }

    /// Takes a torrent out of the catalogue, for who has its token or the operator's; for the
    /// operator also one that is not in it. Blocks.
    pub(crate) fn remove(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        token: Option<&str>,
    ) -> Result<(), CatalogueRefusal> {
        let found = match self.with_token(info_hash, token) {
            Ok(entry) => Ok(Some(entry)),
            Err(CatalogueRefusal::Unknown(_))
                if self.is_operator(token) && self.forget(info_hash) =>
            {
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        };
        let name =
            found.as_ref().ok().and_then(Option::as_ref).map(|entry| Arc::clone(&entry.name));
        // Refused, it is about what is there.
        let unlisted = match &found {
            Ok(Some(entry)) => entry.unlisted,
            Ok(None) | Err(_) => self.is_unlisted(info_hash),
        };
        let outcome = match found {
            Ok(Some(entry)) => self.take_out(&entry).map_err(CatalogueRefusal::NotRemoved),
            Ok(None) => Ok(()),
            Err(refusal) => Err(refusal),
        };
        let said = match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let name = name.or_else(|| self.name_of(info_hash));
        self.push(Note::http(from, RequestEvent::Remove, Some(info_hash), said), name, unlisted);
        outcome
    }

    /// Takes a torrent out of the catalogue. Blocks.
    ///
    /// # Errors
    /// Why it stays there.
    pub(crate) fn take_out(&self, entry: &Entry) -> Result<(), StoreError> {
        let info_hash = entry.info_hash;
        let store = self.store();
        // Before it is out of the catalogue: there is no moment at which nobody knows.
        if entry.unlisted {
            self.removed_unlisted.write().remember(info_hash);
        }
        self.catalogue.remove(info_hash, || match &store {
            Some(store) => store.remove(info_hash),
            None => Ok(()),
        })?;
        self.shard(info_hash).lock().registry.uncatalogue(info_hash);
        self.leave(info_hash);
        if !entry.unlisted {
            self.feeds.removed(info_hash);
        }
        Ok(())
    }

    /// Forgets a torrent that is not in the catalogue, and its peers. Returns whether there was one.
    pub(crate) fn forget(&self, info_hash: InfoHash) -> bool {
        self.with_registry(info_hash, |registry| registry.forget(info_hash))
    }

    /// Whether it is the operator's token.
    pub(crate) fn is_operator(&self, token: Option<&str>) -> bool {
        let given = TokenDigest::of(token.unwrap_or(""));
        self.operator.as_ref().is_some_and(|operator| operator.is(&given))
    }

    /// Says whether a torrent's peers may be connected to. Blocks.
    pub(crate) fn set_observe(
        &self,
        info_hash: InfoHash,
        token: Option<&str>,
        observe: bool,
    ) -> Result<(), CatalogueRefusal> {
        let entry = self.with_token(info_hash, token)?;
        Ok(self.set_observe_of(&entry, observe)?)
    }

    /// The same for who runs the tracker. Blocks.
    pub(crate) fn set_observe_of(&self, entry: &Entry, observe: bool) -> Result<(), ObserveError> {
        let info_hash = entry.info_hash;
        let store = self.store();
        let downloads = self.counts(info_hash).downloaded;
        self.catalogue.set_observe(entry, observe, downloads, |row| match &store {
            Some(store) => store.put(row),
            None => Ok(()),
        })?;
        self.with_registry(info_hash, |registry| registry.set_observe(info_hash, observe));
        if !observe {
            self.leave(info_hash);
        }
        Ok(())
    }

    /// Lets the observer, if there is one, leave a torrent.
    pub(super) fn leave(&self, info_hash: InfoHash) {
        if self.config.observe {
            self.no_longer_observed.lock().insert(info_hash);
        }
    }

    /// A torrent's entry, for who has the token that registering it gave.
    pub(super) fn with_token(
        &self,
        info_hash: InfoHash,
        token: Option<&str>,
    ) -> Result<Arc<Entry>, CatalogueRefusal> {
        let entry = self.catalogue.get(info_hash).ok_or(CatalogueRefusal::Unknown(info_hash))?;
        let given = TokenDigest::of(token.unwrap_or(""));
        let is_its = entry.token.is_some_and(|known| TokenDigest(known).is_same(&given));
        if is_its || self.is_operator(token) {
            Ok(entry)
        } else {
            Err(CatalogueRefusal::WrongToken)
        }
    }

    pub(super) fn add(
        &self,
        from: SocketAddr,
        metainfo: Metainfo,
        options: RegisterOptions,
    ) -> Result<(Registered, bool), CatalogueRefusal> {
        let secret: [u8; 16] = os_random().map_err(CatalogueRefusal::Random)?;
        let token = data_encoding::HEXLOWER.encode(&secret);
        let new = NewEntry {
            metainfo,
            name: options.name,
            description: options.description,
            unlisted: options.unlisted,
            observe: !options.unobserved,
            token: Some(TokenDigest::of(&token).0),
            registrar: Some(network_of(from.ip())),
        };
        let store = self.store();
        let bounds = self.config.bounds(unix_now());
        let mut made_way = 0;
        let added = loop {
            let added = self.catalogue.add(&new, &bounds, |row| match &store {
                Some(store) => store.put(row),
                None => Ok(()),
            });
            match added {
                Err(AddError::MakesWay(entry)) if made_way < MAKE_WAY => {
                    made_way += 1;
                    tracing::info!(info_hash = %entry.info_hash, "a torrent makes way in the catalogue");
                    self.take_out(&entry).map_err(CatalogueRefusal::NotRemoved)?;
                }
                added => break added,
            }
        };
        match added {
            Ok(Added::New(entry)) => {
                let now = self.clock.now();
                let mut shard = self.shard(entry.info_hash).lock();
                shard.registry.catalogue(now, entry.info_hash, entry.pieces, 0);
                shard.registry.set_observe(entry.info_hash, entry.is_observed());
                drop(shard);
                if !entry.unlisted {
                    self.removed_unlisted.write().forget(entry.info_hash);
                }
                Ok((registered(&entry, Some(token)), true))
            }
            Ok(Added::Known(entry)) => Ok((registered(&entry, None), false)),
            Err(error @ (AddError::Full | AddError::TooMany { .. } | AddError::MakesWay(_))) => {
                Err(CatalogueRefusal::Full(error))
            }
            Err(error) => Err(CatalogueRefusal::NotKept(error)),
        }
    }
}

fn registered(entry: &Entry, token: Option<String>) -> Registered {
    Registered { info_hash: entry.info_hash, name: entry.name.to_string(), token }
}

/// Torrents that make way for one at most: it may have more bytes than each of them.
const MAKE_WAY: usize = 64;

/// Bytes of a name nobody registered that the log keeps: as many as a file's name may have.
const MAX_NAME_LOGGED: usize = 255;
