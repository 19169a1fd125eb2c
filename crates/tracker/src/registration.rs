//! Registering, fetching and removing torrents of the catalogue, and who may do so.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::access_log::{AccessLog, AccessRecord};
use super::catalogue::{
    AddOutcome, AddTorrentError, Catalogue, NewEntry, ObserveError, parse_limits,
};
use super::catalogue_torrent::CatalogueTorrent;
use super::config::TrackerConfig;
use super::feeds::Feeds;
use super::observation::Observation;
use super::operator::OperatorToken;
use super::persistence::Persistence;
use super::refusal::CatalogueRefusal;
use super::store::{StoreError, unix_now};
use super::swarms::Swarms;
use super::tokens::{TokenDigest, os_random};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, network_of};
use piecework_journal::RequestEvent;
use piecework_proto::announce::catalogue::MAX_UPLOAD_LEN;
use piecework_proto::announce::catalogue::{RegisterOptions, Registered};

/// Changes the catalogue together with everything that depends on it.
pub(super) struct Registration {
    pub(super) config: Arc<TrackerConfig>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) swarms: Arc<Swarms>,
    pub(super) persistence: Arc<Persistence>,
    pub(super) log: Arc<AccessLog>,
    pub(super) feeds: Arc<Feeds>,
    pub(super) observation: Arc<Observation>,
    /// The token that may remove any torrent.
    pub(super) operator: Option<OperatorToken>,
}

impl Registration {
    /// Adds a torrent to the catalogue. Returns whether it is new there. Blocks.
    pub(super) fn register(
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
        self.log.note_http(from, RequestEvent::Register, info_hash, outcome);
        registered
    }

    /// Logs a request for a name that is not in the catalogue.
    pub(super) fn not_found(&self, from: SocketAddr, name: &str) {
        let end = name.floor_char_boundary(MAX_NAME_LOGGED);
        let outcome = Err("no file of that name is known to this tracker".to_owned());
        let record = AccessRecord::http(from, RequestEvent::Lookup, None, outcome);
        self.log.push(record, Some(name[..end].into()), false);
    }

    /// Returns a torrent's `.torrent` file. Blocks.
    pub(super) fn fetch(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
    ) -> Result<Bytes, CatalogueRefusal> {
        let entry = self.catalogue.get(info_hash).ok_or(CatalogueRefusal::Unknown(info_hash));
        let bytes = entry.and_then(|entry| Ok(self.catalogue.bytes(&entry)?));
        let outcome = bytes.as_ref().map(|_| ()).map_err(ToString::to_string);
        self.log.note_http(from, RequestEvent::Fetch, Some(info_hash), outcome);
        bytes
    }

    /// Removes a torrent from the catalogue if `token` is its token or the operator's. With the operator's token also
    /// removes a torrent that is not in the catalogue. Blocks.
    pub(super) fn remove(
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
        // If it was refused, this depends on the torrent that is still there.
        let unlisted = match &found {
            Ok(Some(entry)) => entry.unlisted,
            Ok(None) | Err(_) => self.log.is_unlisted(info_hash),
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
        let name = name.or_else(|| self.log.name_of(info_hash));
        self.log.push(
            AccessRecord::http(from, RequestEvent::Remove, Some(info_hash), said),
            name,
            unlisted,
        );
        outcome
    }

    /// Removes a torrent from the catalogue. Blocks.
    ///
    /// # Errors
    /// If the database cannot be written. The torrent stays.
    pub(super) fn take_out(&self, entry: &CatalogueTorrent) -> Result<(), StoreError> {
        let info_hash = entry.info_hash;
        let store = self.persistence.store();
        // Done before it leaves the catalogue, so that there is no moment at which this is not known.
        if entry.unlisted {
            self.log.remember_unlisted(info_hash);
        }
        self.catalogue.remove(info_hash, || match &store {
            Some(store) => store.remove(info_hash),
            None => Ok(()),
        })?;
        self.swarms.uncatalogue(info_hash);
        self.observation.leave(info_hash);
        if !entry.unlisted {
            self.feeds.removed(info_hash);
        }
        Ok(())
    }

    /// Removes a torrent that is not in the catalogue, with its peers. Returns whether there was one.
    pub(super) fn forget(&self, info_hash: InfoHash) -> bool {
        self.swarms.forget(info_hash)
    }

    /// Returns whether `token` is the operator's.
    pub(super) fn is_operator(&self, token: Option<&str>) -> bool {
        let given = TokenDigest::of(token.unwrap_or(""));
        self.operator.as_ref().is_some_and(|operator| operator.is(&given))
    }

    /// Sets whether the observer may connect to a torrent's peers, if `token` is valid. Blocks.
    pub(super) fn set_observe(
        &self,
        info_hash: InfoHash,
        token: Option<&str>,
        observe: bool,
    ) -> Result<(), CatalogueRefusal> {
        let entry = self.with_token(info_hash, token)?;
        Ok(self.set_observe_of(&entry, observe)?)
    }

    /// Sets whether the observer may connect to a torrent's peers, for the operator. Blocks.
    pub(super) fn set_observe_of(
        &self,
        entry: &CatalogueTorrent,
        observe: bool,
    ) -> Result<(), ObserveError> {
        let info_hash = entry.info_hash;
        let store = self.persistence.store();
        let downloads = self.swarms.counts(info_hash).downloaded;
        self.catalogue.set_observe(entry, observe, downloads, |row| match &store {
            Some(store) => store.put(row),
            None => Ok(()),
        })?;
        self.swarms.with(info_hash, |registry| registry.set_observe(info_hash, observe));
        if !observe {
            self.observation.leave(info_hash);
        }
        Ok(())
    }

    /// Returns a torrent's entry if `token` is its token or the operator's.
    fn with_token(
        &self,
        info_hash: InfoHash,
        token: Option<&str>,
    ) -> Result<Arc<CatalogueTorrent>, CatalogueRefusal> {
        let entry = self.catalogue.get(info_hash).ok_or(CatalogueRefusal::Unknown(info_hash))?;
        let given = TokenDigest::of(token.unwrap_or(""));
        let is_its = entry.token.is_some_and(|known| TokenDigest(known).is_same(&given));
        if is_its || self.is_operator(token) {
            Ok(entry)
        } else {
            Err(CatalogueRefusal::WrongToken)
        }
    }

    fn add(
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
        let store = self.persistence.store();
        let bounds = self.config.bounds(unix_now());
        let mut made_way = 0;
        let added = loop {
            let added = self.catalogue.add(&new, &bounds, |row| match &store {
                Some(store) => store.put(row),
                None => Ok(()),
            });
            match added {
                Err(AddTorrentError::MakesWay(entry)) if made_way < MAKE_WAY => {
                    made_way += 1;
                    tracing::info!(info_hash = %entry.info_hash, "removing a torrent from the full catalogue to make room");
                    self.take_out(&entry).map_err(CatalogueRefusal::NotRemoved)?;
                }
                added => break added,
            }
        };
        match added {
            Ok(AddOutcome::New(entry)) => {
                self.swarms.catalogue(&entry, 0);
                if !entry.unlisted {
                    self.log.forget_unlisted(entry.info_hash);
                }
                Ok((registered(&entry, Some(token)), true))
            }
            Ok(AddOutcome::Known(entry)) => Ok((registered(&entry, None), false)),
            Err(
                error @ (AddTorrentError::Full
                | AddTorrentError::TooMany { .. }
                | AddTorrentError::MakesWay(_)),
            ) => Err(CatalogueRefusal::Full(error)),
            Err(error) => Err(CatalogueRefusal::NotKept(error)),
        }
    }
}

fn registered(entry: &CatalogueTorrent, token: Option<String>) -> Registered {
    Registered { info_hash: entry.info_hash, name: entry.name.to_string(), token }
}

/// The maximum number of torrents that are removed to make room for one, which may be larger than each of them.
const MAKE_WAY: usize = 64;

/// The maximum length of an unknown name in the log: the longest that a file name may have.
const MAX_NAME_LOGGED: usize = 255;
