//! Trackers of our own kind: their catalogue, and what we have registered there.

use std::ops::Deref;
use std::path::Path;

use super::{DaemonError, files};
use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, Scope, printable};
use piecework_engine::tracker_client::{
    Catalogue, CatalogueError, Listing, LookupError, NamedTracker, catalogue_of,
};
use piecework_proto::announce::catalogue::{CatalogueEntry, RegisterOptions, Registered};
use piecework_proto::announce::{CatalogueUrl, Provenance, TrackerTarget, TrackerUrl};

/// A tracker as people name it, which has a catalogue.
#[derive(Debug)]
pub(super) struct Tracker {
    named: NamedTracker,
    catalogue: Catalogue,
}

impl Tracker {
    /// The tracker people call `name`.
    ///
    /// # Errors
    /// If that is none, or one that has no catalogue.
    pub fn named(name: &str) -> Result<Self, DaemonError> {
        Self::named_by(Provenance::Named, name)
    }

    /// The tracker that somebody else than the user calls `name`.
    ///
    /// # Errors
    /// As [`Tracker::named`].
    pub fn named_by(provenance: Provenance, name: &str) -> Result<Self, DaemonError> {
        let named = NamedTracker::parse(provenance, name)
            .map_err(|error| DaemonError::Invalid(error.to_string()))?;
        let catalogue = named.catalogue().cloned().map_err(|error| {
            DaemonError::Upstream(format!(
                "the tracker `{}` has no catalogue, because {error}: name it as IP:PORT",
                named.shown
            ))
        })?;
        Ok(Self { named, catalogue })
    }

    /// Returns where to announce, and who named it.
    pub fn into_tiers(self) -> (Vec<Vec<TrackerUrl>>, Provenance) {
        (self.named.tiers, self.named.provenance)
    }

    /// Its torrents as it gives them; with `name`, those of that name.
    pub async fn list(self, name: Option<&str>) -> Result<CatalogueRows, DaemonError> {
        let listing = self.in_time(self.catalogue.listing(name)).await?;
        Ok(CatalogueRows { tracker: self, listing })
    }

    /// The torrent of this name or info-hash, and the scope of the address it came from.
    ///
    /// # Errors
    /// If there is none or there are several, or the tracker does not answer.
    pub async fn find(&self, name: &str) -> Result<(Metainfo, Scope), DaemonError> {
        let name = name.trim();
        let info_hash = match name.parse::<InfoHash>() {
            Ok(info_hash) => info_hash,
            Err(_) => self.in_all(self.find_by_name(name)).await?,
        };
        let (bytes, scope) = self.in_time(self.catalogue.fetch_from(info_hash)).await?;
        let bad = |why: String| {
            DaemonError::Upstream(format!("the tracker `{}` gave a bad file: {why}", self.shown))
        };
        let metainfo = Metainfo::parse(&bytes, &ParseLimits::default())
            .map_err(|error| bad(error.to_string()))?;
        if metainfo.info_hash() != info_hash {
            return Err(bad(format!("it is the torrent `{}`", metainfo.info_hash())));
        }
        Ok((metainfo, scope))
    }

    /// The only torrent of this name.
    async fn find_by_name(&self, name: &str) -> Result<InfoHash, DaemonError> {
        let listing = self.catalogue.listing(Some(name)).await;
        let mut listing = listing.map_err(|error| self.fault(error))?;
        let (mut hashes, mut count) = (Vec::new(), 0_usize);
        while let Some(entry) = listing.next().await.map_err(|error| self.fault(error))? {
            count += 1;
            if hashes.len() < MOST_NAMED {
                hashes.push(entry.info_hash);
            }
        }
        match hashes[..] {
            [one] => Ok(one),
            [] => Err(DaemonError::NotFound(format!(
                "the tracker `{}` knows no torrent named `{}`",
                self.shown,
                printable(name)
            ))),
            _ => {
                let hashes: Vec<String> = hashes.iter().map(ToString::to_string).collect();
                Err(DaemonError::Conflict(format!(
                    "the tracker `{}` has `{count}` torrents named `{}`; say which by its \
                     info-hash: {}",
                    self.shown,
                    printable(name),
                    hashes.join(", ")
                )))
            }
        }
    }

    /// Puts a torrent, the bytes of a `.torrent`, into the catalogue.
    ///
    /// # Errors
    /// [`DaemonError::Upstream`] if the tracker is absent; later it may be there.
    pub async fn register(
        &self,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<Registered, DaemonError> {
        self.named.register(torrent, options).await.map_err(|error| {
            let is_absence = error.is_absence();
            match self.lookup_fault(error) {
                DaemonError::Upstream(sentence) if !is_absence => DaemonError::Conflict(sentence),
                error => error,
            }
        })
    }

    /// Takes out the torrent whose `.torrent` here is `file`, by the token kept beside it.
    pub async fn unregister(&self, info_hash: InfoHash, file: &Path) -> Result<(), DaemonError> {
        let path = files::token_path(file);
        let token = std::fs::read_to_string(&path).map_err(|error| {
            DaemonError::NotFound(format!(
                "the token to take it out of the tracker's catalogue cannot be read from `{}`: \
                 {error}",
                super::roots::shown(&path)
            ))
        })?;
        self.remove(info_hash, &token).await
    }

    /// Takes out a torrent by the token that registering it gave.
    pub async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), DaemonError> {
        match self.in_time(self.catalogue.remove(info_hash, token.trim())).await {
            // Out it is.
            Err(DaemonError::NotFound(_)) => Ok(()),
            result => result,
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, CatalogueError>>,
    ) -> Result<T, DaemonError> {
        self.in_all(async { work.await.map_err(|error| self.fault(error)) }).await
    }

    /// Gives several questions the time of one.
    async fn in_all<T>(
        &self,
        work: impl Future<Output = Result<T, DaemonError>>,
    ) -> Result<T, DaemonError> {
        self.named.in_time(work).await.unwrap_or_else(|error| Err(self.lookup_fault(error)))
    }

    fn lookup_fault(&self, error: LookupError) -> DaemonError {
        match error {
            LookupError::Catalogue(error) => self.fault(error),
            LookupError::NoCatalogue | LookupError::TimedOut => DaemonError::Upstream(format!(
                "asking the tracker `{}` failed: {error}",
                self.shown
            )),
        }
    }

    /// What a fault of its catalogue means here.
    fn fault(&self, error: CatalogueError) -> DaemonError {
        match error {
            CatalogueError::NotFound(_) => DaemonError::NotFound(error.to_string()),
            CatalogueError::Outside { .. } => DaemonError::Forbidden(error.to_string()),
            CatalogueError::Refused { status: 400..500, .. } => {
                DaemonError::Conflict(format!("the tracker `{}`: {error}", self.shown))
            }
            error => DaemonError::Upstream(format!(
                "asking the tracker `{}` failed: {error}",
                self.shown
            )),
        }
    }
}

/// The torrents that a tracker has, as they come from it.
#[derive(Debug)]
pub struct CatalogueRows {
    tracker: Tracker,
    listing: Listing,
}

impl CatalogueRows {
    /// The tracker as it was named, safe to show.
    pub fn tracker(&self) -> &str {
        &self.tracker.shown
    }

    /// The next torrent; `None` behind the last one.
    ///
    /// # Errors
    /// If the tracker does not go on or what it says makes no sense.
    pub async fn next(&mut self) -> Result<Option<CatalogueEntry>, DaemonError> {
        self.listing.next().await.map_err(|error| self.tracker.fault(error))
    }
}

/// The base address of the catalogue of the tracker people call `name`.
pub(super) fn base_of(name: &str) -> Option<String> {
    TrackerTarget::parse(name).ok()?.catalogue
}

/// The catalogue that wants to hear of the torrent's pieces: that of the configured tracker if it is announced to, or that of a tracker in a torrent of our own making.
pub(super) fn of_torrent(
    metainfo: &Metainfo,
    tiers: &[Vec<TrackerUrl>],
    configured: Option<&str>,
) -> Option<CatalogueUrl> {
    let target = configured.and_then(|name| TrackerTarget::parse(name).ok());
    if let Some(target) = target
        && target.tiers.iter().flatten().any(|url| tiers.iter().flatten().any(|own| own == url))
    {
        return target.catalogue.map(CatalogueUrl::named);
    }
    catalogue_of(metainfo, tiers.iter().flatten())
}

impl Deref for Tracker {
    type Target = NamedTracker;

    fn deref(&self) -> &NamedTracker {
        &self.named
    }
}

/// Torrents of one name that are told of.
const MOST_NAMED: usize = 8;
