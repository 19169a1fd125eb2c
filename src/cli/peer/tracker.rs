//! The tracker that a peer uses: a named one, or one in this process.

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

/// A named tracker, and its catalogue if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Tracker(NamedTracker);

/// The result of an attempt to register.
#[derive(Debug)]
pub(crate) enum Registration {
    /// It is in the catalogue.
    Done(Registered),
    /// This tracker has no catalogue or refuses us, with the reason.
    Refused(String),
    /// The tracker does not answer now, with the reason.
    Absent(String),
}

/// Why a request to the catalogue failed.
#[derive(Debug)]
pub enum LookupError {
    /// The tracker does not answer now, or does not know the torrent yet. A later request may
    /// succeed.
    NotYet(CliError),
    /// A later request would fail too.
    Failed(CliError),
}

impl Tracker {
    /// Returns the tracker with the address `name`.
    ///
    /// # Errors If that is not the address of a tracker.
    pub(crate) fn named(name: &str) -> Result<Self, CliError> {
        NamedTracker::parse(Provenance::Named, name).map(Self).map_err(CliError::usage_by)
    }

    /// Returns whether only programs on this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        let is_local = |url: &TrackerUrl| {
            let host = url.host();
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        };
        self.tiers.iter().flatten().all(is_local)
    }

    /// Returns the torrents of the catalogue or, with `name`, those of that name.
    ///
    /// # Errors If there is no catalogue, or it does not answer.
    pub(crate) async fn list(
        &self,
        name: Option<&str>,
    ) -> Result<Vec<CatalogueEntry>, LookupError> {
        let catalogue = self.catalogue().map_err(|error| self.fault(error))?;
        self.in_time(catalogue.list(name)).await
    }

    /// Returns the torrent `info_hash`.
    ///
    /// # Errors If the tracker does not know it, does not answer, or returns something else.
    pub(crate) async fn fetch(&self, info_hash: InfoHash) -> Result<Metainfo, LookupError> {
        let catalogue = self.catalogue().map_err(|error| self.fault(error))?;
        let bytes = self.in_time(catalogue.fetch(info_hash)).await?;
        let metainfo = Metainfo::parse(&bytes, &ParseLimits::default()).map_err(|error| {
            CliError::failed(format_args!("the tracker `{}` gave a bad file: {error}", self.shown))
                .because(error)
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

    /// Registers a torrent in the catalogue.
    pub(crate) async fn register(
        &self,
        metainfo: &Metainfo,
        options: RegisterOptions,
    ) -> Registration {
        match metainfo.bytes() {
            Ok(torrent) => Registration::of(self.0.register(&torrent, options).await),
            Err(error) => Registration::Refused(error.to_string()),
        }
    }

    /// The same, repeated until the tracker answers.
    pub(crate) async fn register_later(
        &self,
        metainfo: &Metainfo,
        options: RegisterOptions,
    ) -> Registration {
        match metainfo.bytes() {
            Ok(torrent) => Registration::of(self.0.register_later(&torrent, options).await),
            Err(error) => Registration::Refused(error.to_string()),
        }
    }

    /// Removes a torrent from the catalogue.
    ///
    /// # Errors If the tracker refuses or does not answer.
    pub(crate) async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), LookupError> {
        self.0.remove(info_hash, token).await.map_err(|error| self.fault(error))
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, CatalogueError>>,
    ) -> Result<T, LookupError> {
        let answered = self.0.in_time(work).await;
        answered.and_then(|answer| Ok(answer?)).map_err(|error| self.fault(error))
    }

    /// Returns the error for a failed request to the catalogue.
    fn fault(&self, error: UnansweredLookup) -> LookupError {
        if let UnansweredLookup::NoCatalogue = error {
            return LookupError::Failed(CliError::failed(format_args!(
                "the tracker `{}` is reached over UDP only, so its catalogue cannot be asked: name \
                 it as IP:PORT, or give the .torrent file",
                self.shown
            )));
        }
        // Somebody may register it soon.
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

impl Registration {
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

/// Returns the catalogue with which a torrent that we made was registered.
pub(crate) fn catalogue_of(metainfo: &Metainfo) -> Option<CatalogueUrl> {
    let urls: Vec<TrackerUrl> =
        metainfo.trackers().iter().flatten().filter_map(|url| url.parse().ok()).collect();
    tracker_client::catalogue_of(metainfo, &urls)
}

/// Returns the state of a tracker as one line.
pub(crate) fn describe(status: &TrackerStatus) -> String {
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

/// Returns the address by which other machines most likely reach `listening`.
pub(crate) fn likely_address(listening: SocketAddr) -> SocketAddr {
    if listening.ip().is_unspecified() {
        SocketAddr::new(lan_ip(), listening.port())
    } else {
        listening
    }
}

/// Returns this machine's address towards the internet, else in a neighbouring network, else
/// loopback.
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
