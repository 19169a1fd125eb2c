//! Piecework trackers: their catalogue, and registering torrents in it.

use std::ops::Deref;
use std::path::Path;

use super::reason::Reason;
use super::{DaemonError, torrent_files};
use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, Scope, printable, printable_path};
use piecework_engine::tracker_client::{
    Catalogue, CatalogueError, Listing, LookupError, NamedTracker, catalogue_of,
};
use piecework_proto::announce::catalogue::{CatalogueEntry, RegisterOptions, Registered};
use piecework_proto::announce::{CatalogueUrl, Provenance, TrackerTarget, TrackerUrl};

/// A tracker that has a catalogue, as people name it.
#[derive(Debug)]
pub(super) struct CatalogueTracker {
    named: NamedTracker,
    catalogue: Catalogue,
}

impl CatalogueTracker {
    /// Returns the tracker that the user names `name`.
    ///
    /// # Errors
    /// If `name` is no tracker, or the tracker has no catalogue.
    pub(crate) fn named(name: &str) -> Result<Self, DaemonError> {
        Self::named_by(Provenance::Named, name)
    }

    /// Returns the tracker that somebody names `name`; `provenance` says who.
    ///
    /// # Errors
    /// As [`CatalogueTracker::named`].
    pub(crate) fn named_by(provenance: Provenance, name: &str) -> Result<Self, DaemonError> {
        let named = NamedTracker::parse(provenance, name)
            .map_err(|error| DaemonError::invalid(Reason::of(error)))?;
        let catalogue = named.catalogue().cloned().map_err(|error| {
            let sentence = format!(
                "the tracker `{}` has no catalogue, because {error}: name it as IP:PORT",
                named.shown
            );
            DaemonError::upstream(Reason::with_cause(sentence, error))
        })?;
        Ok(Self { named, catalogue })
    }

    /// Returns where to announce, and who named it.
    pub(crate) fn into_tiers(self) -> (Vec<Vec<TrackerUrl>>, Provenance) {
        (self.named.tiers, self.named.provenance)
    }

    /// Returns its torrents as they arrive; with `name`, only those of that name.
    pub(crate) async fn list(self, name: Option<&str>) -> Result<CatalogueRows, DaemonError> {
        let listing = self.in_time(self.catalogue.listing(name)).await?;
        Ok(CatalogueRows { tracker: self, listing })
    }

    /// Returns the torrent of this name or info-hash, and the scope of the address that it came
    /// from.
    ///
    /// # Errors
    /// If there is no such torrent or several have that name, or the tracker does not answer.
    pub(crate) async fn find(&self, name: &str) -> Result<(Metainfo, Scope), DaemonError> {
        let name = name.trim();
        let info_hash = match name.parse::<InfoHash>() {
            Ok(info_hash) => info_hash,
            Err(_) => self.in_all(self.find_by_name(name)).await?,
        };
        let (bytes, scope) = self.in_time(self.catalogue.fetch_from(info_hash)).await?;
        let metainfo = Metainfo::parse(&bytes, &ParseLimits::default()).map_err(|error| {
            let sentence = format!("the tracker `{}` gave a bad file: {error}", self.shown);
            DaemonError::upstream(Reason::with_cause(sentence, error))
        })?;
        if metainfo.info_hash() != info_hash {
            return Err(DaemonError::upstream(format!(
                "the tracker `{}` gave a bad file: it is the torrent `{}`",
                self.shown,
                metainfo.info_hash()
            )));
        }
        Ok((metainfo, scope))
    }

    /// Returns the only torrent of this name.
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
            [] => Err(DaemonError::not_found(format!(
                "the tracker `{}` knows no torrent named `{}`",
                self.shown,
                printable(name)
            ))),
            _ => {
                let hashes: Vec<String> = hashes.iter().map(ToString::to_string).collect();
                Err(DaemonError::conflict(format!(
                    "the tracker `{}` has `{count}` torrents named `{}`; say which by its \
                     info-hash: {}",
                    self.shown,
                    printable(name),
                    hashes.join(", ")
                )))
            }
        }
    }

    /// Registers a torrent in the catalogue; `torrent` is its `.torrent`.
    ///
    /// # Errors
    /// [`DaemonError::Upstream`] if the tracker is absent; later it may be there.
    pub(crate) async fn register(
        &self,
        torrent: &[u8],
        options: RegisterOptions,
    ) -> Result<Registered, DaemonError> {
        self.named.register(torrent, options).await.map_err(|error| {
            let is_absence = error.is_absence();
            match self.lookup_fault(error) {
                DaemonError::Upstream(reason) if !is_absence => DaemonError::Conflict(reason),
                error => error,
            }
        })
    }

    /// Removes a torrent from the catalogue, with the token that is kept beside its `.torrent` in
    /// `file`.
    pub(crate) async fn unregister(
        &self,
        info_hash: InfoHash,
        file: &Path,
    ) -> Result<(), DaemonError> {
        let path = torrent_files::token_path(file);
        let token = std::fs::read_to_string(&path).map_err(|error| {
            let sentence = format!(
                "the token to take it out of the tracker's catalogue cannot be read from `{}`: \
                 {error}",
                printable_path(&path)
            );
            DaemonError::not_found(Reason::with_cause(sentence, error))
        })?;
        self.remove(info_hash, &token).await
    }

    /// Removes a torrent from the catalogue, with the token that was returned when it was
    /// registered.
    pub(crate) async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), DaemonError> {
        match self.in_time(self.catalogue.remove(info_hash, token.trim())).await {
            // It is not in the catalogue any more.
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

    /// Runs `work`, which may send several requests, within the time limit of one.
    async fn in_all<T>(
        &self,
        work: impl Future<Output = Result<T, DaemonError>>,
    ) -> Result<T, DaemonError> {
        self.named.in_time(work).await.unwrap_or_else(|error| Err(self.lookup_fault(error)))
    }

    fn lookup_fault(&self, error: LookupError) -> DaemonError {
        match error {
            LookupError::Catalogue(error) => self.fault(error),
            LookupError::NoCatalogue | LookupError::TimedOut => {
                let sentence = format!("asking the tracker `{}` failed: {error}", self.shown);
                DaemonError::upstream(Reason::with_cause(sentence, error))
            }
        }
    }

    /// Converts an error of its catalogue.
    fn fault(&self, error: CatalogueError) -> DaemonError {
        match error {
            CatalogueError::NotFound(_) => DaemonError::not_found(Reason::of(error)),
            CatalogueError::Outside { .. } => DaemonError::forbidden(Reason::of(error)),
            CatalogueError::Refused { status: 400..500, .. } => {
                let sentence = format!("the tracker `{}`: {error}", self.shown);
                DaemonError::conflict(Reason::with_cause(sentence, error))
            }
            error => {
                let sentence = format!("asking the tracker `{}` failed: {error}", self.shown);
                DaemonError::upstream(Reason::with_cause(sentence, error))
            }
        }
    }
}

/// The torrents of a tracker, as they arrive.
#[derive(Debug)]
pub struct CatalogueRows {
    tracker: CatalogueTracker,
    listing: Listing,
}

impl CatalogueRows {
    /// Returns the tracker as it was named, safe to show.
    pub fn tracker(&self) -> &str {
        &self.tracker.shown
    }

    /// Returns the next torrent; `None` after the last one.
    ///
    /// # Errors
    /// If the connection breaks or the answer is invalid.
    pub async fn next(&mut self) -> Result<Option<CatalogueEntry>, DaemonError> {
        self.listing.next().await.map_err(|error| self.tracker.fault(error))
    }
}

/// Returns the base address of the catalogue of the tracker that the user names `name`.
pub(super) fn base_of(name: &str) -> Option<String> {
    TrackerTarget::parse(name).ok()?.catalogue
}

/// Returns the catalogue that holdings are reported to: that of the configured tracker if the torrent is
/// announced there, or that of a tracker in a torrent that Piecework made.
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

impl Deref for CatalogueTracker {
    type Target = NamedTracker;

    fn deref(&self) -> &NamedTracker {
        &self.named
    }
}

/// Maximum number of torrents of one name that an error lists.
const MOST_NAMED: usize = 8;
