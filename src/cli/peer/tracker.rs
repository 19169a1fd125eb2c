//! The tracker a peer works with: one that was named, or one in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, printable};
use piecework_engine::net;
use piecework_engine::tracker_client::{
    self, CatalogueError, LookupError as UnansweredLookup, NamedTracker,
};
use piecework_proto::announce::catalogue::{CatalogueEntry, RegisterOptions, Registered};
use piecework_proto::announce::udp::Family;
use piecework_proto::announce::{CatalogueUrl, Provenance, TrackerUrl};
use piecework_swarm::announcer::{TrackerState, TrackerStatus};

use super::super::CliError;
use super::super::format::counted;

/// A tracker as it was named, and the catalogue it may have.
#[derive(Debug, Clone)]
pub struct Tracker(NamedTracker);

/// How an attempt to register ended.
#[derive(Debug)]
pub enum Registering {
    /// It is in the catalogue.
    Done(Registered),
    /// This tracker has no catalogue, or does not let us in: why.
    Refused(String),
    /// It is not there now: why.
    Absent(String),
}

/// Why a question to the catalogue had no answer.
#[derive(Debug)]
pub enum LookupError {
    /// The tracker is not there now, or does not know it yet: later it may be otherwise.
    NotYet(CliError),
    /// Waiting does not help.
    Failed(CliError),
}

impl Tracker {
    /// The tracker people call `name`.
    ///
    /// # Errors
    /// If that is no tracker's address.
    pub fn named(name: &str) -> Result<Self, CliError> {
        NamedTracker::parse(Provenance::Named, name).map(Self).map_err(CliError::usage)
    }

    /// Whether only programs on this machine reach it.
    pub fn is_local(&self) -> bool {
        let is_local = |url: &TrackerUrl| {
            let host = url.host();
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        };
        self.tiers.iter().flatten().all(is_local)
    }

    /// Torrents of the catalogue; with `name`, those of that name.
    ///
    /// # Errors
    /// If there is no catalogue or it cannot be asked.
    pub async fn list(&self, name: Option<&str>) -> Result<Vec<CatalogueEntry>, LookupError> {
        let catalogue = self.catalogue().map_err(|error| self.fault(error))?;
        self.in_time(catalogue.list(name)).await
    }

    /// The torrent `info_hash`.
    ///
    /// # Errors
    /// If the tracker does not know it, cannot be asked, or gives something else.
    pub async fn fetch(&self, info_hash: InfoHash) -> Result<Metainfo, LookupError> {
        let catalogue = self.catalogue().map_err(|error| self.fault(error))?;
        let bytes = self.in_time(catalogue.fetch(info_hash)).await?;
        let metainfo = Metainfo::parse(&bytes, &ParseLimits::default()).map_err(|error| {
            CliError::failed(format_args!("the tracker `{}` gave a bad file: {error}", self.shown))
        })?;
        if metainfo.info_hash() != info_hash {
            return Err(CliError::failed(format_args!(
                "the tracker `{}` gave another torrent than was asked for: {}",
                self.shown,
                metainfo.info_hash()
            ))
            .into());
        }
        Ok(metainfo)
    }

    /// Puts a torrent into the catalogue.
    pub async fn register(&self, metainfo: &Metainfo, options: RegisterOptions) -> Registering {
        match metainfo.bytes() {
            Ok(torrent) => Registering::of(self.0.register(&torrent, options).await),
            Err(error) => Registering::Refused(error.to_string()),
        }
    }

    /// The same as soon as the tracker is there, which may be after many attempts.
    pub async fn register_later(
        &self,
        metainfo: &Metainfo,
        options: RegisterOptions,
    ) -> Registering {
        match metainfo.bytes() {
            Ok(torrent) => Registering::of(self.0.register_later(&torrent, options).await),
            Err(error) => Registering::Refused(error.to_string()),
        }
    }

    /// Takes a torrent out of the catalogue.
    ///
    /// # Errors
    /// If it does not let us, or cannot be asked.
    pub async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), LookupError> {
        self.0.remove(info_hash, token).await.map_err(|error| self.fault(error))
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, CatalogueError>>,
    ) -> Result<T, LookupError> {
        let answered = self.0.in_time(work).await;
        answered.and_then(|answer| Ok(answer?)).map_err(|error| self.fault(error))
    }

    /// What a fault of its catalogue means here.
    fn fault(&self, error: UnansweredLookup) -> LookupError {
        if let UnansweredLookup::NoCatalogue = error {
            return LookupError::Failed(CliError::failed(format_args!(
                "the tracker `{}` is reached over UDP only, so its catalogue cannot be asked: name \
                 it as IP:PORT, or give the .torrent file",
                self.shown
            )));
        }
        // Somebody may be about to share it.
        let is_unknown = matches!(error, UnansweredLookup::Catalogue(CatalogueError::NotFound(_)));
        let sentence = format_args!("asking the tracker `{}` failed: {error}", self.shown);
        match error.is_absence() || is_unknown {
            true => LookupError::NotYet(CliError::failed(sentence)),
            false => LookupError::Failed(CliError::failed(sentence)),
        }
    }
}

impl Deref for Tracker {
    type Target = NamedTracker;

    fn deref(&self) -> &NamedTracker {
        &self.0
    }
}

impl Registering {
    fn of(outcome: Result<Registered, UnansweredLookup>) -> Self {
        match outcome {
            Ok(registered) => Self::Done(registered),
            Err(error) if error.is_absence() => Self::Absent(error.to_string()),
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

impl From<CliError> for LookupError {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

impl From<LookupError> for CliError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NotYet(error) | LookupError::Failed(error) => error,
        }
    }
}

/// The catalogue that a torrent of our own making was registered with.
pub fn catalogue_of(metainfo: &Metainfo) -> Option<CatalogueUrl> {
    let urls: Vec<TrackerUrl> =
        metainfo.trackers().iter().flatten().filter_map(|url| url.parse().ok()).collect();
    tracker_client::catalogue_of(metainfo, &urls)
}

/// How things stand with a tracker, in a line.
pub fn describe(status: &TrackerStatus) -> String {
    let mut text = format!("{}: ", status.url);
    match (&status.last_error, status.state) {
        (Some(error), _) => text.push_str(&printable(error)),
        (None, TrackerState::Idle) => text.push_str("not asked yet"),
        (None, TrackerState::Announcing) => text.push_str("asked, no answer yet"),
        (None, TrackerState::Failed) => text.push_str("failed"),
        (None, TrackerState::Stopped) => text.push_str("left"),
        (None, TrackerState::Working) => text.push_str("working"),
    }
    if let (Some(seeds), Some(leechers)) = (status.seeds, status.leechers) {
        let seeds = counted(seeds.into(), "seed");
        text.push_str(&format!(", {seeds}, {}", counted(leechers.into(), "leecher")));
    }
    if let Some(warning) = &status.warning {
        text.push_str(&format!(", says: {}", printable(warning)));
    }
    text
}

/// The address by which other machines most likely reach `listening`.
pub fn likely_address(listening: SocketAddr) -> SocketAddr {
    if listening.ip().is_unspecified() {
        SocketAddr::new(lan_ip(), listening.port())
    } else {
        listening
    }
}

/// This host's address towards the rest of the world, else in a network beside it; loopback if there
/// is neither.
fn lan_ip() -> IpAddr {
    let ip = net::source_address(Family::V4).or_else(net::neighbouring_address);
    ip.unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_on_this_machine_are_no_good_to_others() {
        let is_local = |name| Tracker::named(name).unwrap().is_local();
        assert!(is_local("127.0.0.1:8000") && is_local("[::1]:8000") && is_local("localhost:80"));
        assert!(is_local("http://127.0.0.2:8000/announce"));
        assert!(!is_local("192.0.2.7:8000") && !is_local("tracker.example:8000"));
    }

    #[tokio::test]
    async fn waiting_may_help_where_a_tracker_is_down_and_not_where_it_has_no_catalogue() {
        // Nothing listens on port 1.
        let down = Tracker::named("127.0.0.1:1").unwrap();
        assert!(matches!(down.list(None).await, Err(LookupError::NotYet(_))));
        let udp = Tracker::named("udp://127.0.0.1:1").unwrap();
        assert!(matches!(udp.list(None).await, Err(LookupError::Failed(_))));
    }
}
