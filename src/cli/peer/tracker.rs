//! The tracker a peer works with: one that was named, or one in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, printable};
use piecework_engine::net;
use piecework_engine::tracker_client::{Catalogue, CatalogueError, ClientOptions};
use piecework_proto::announce::catalogue::{CatalogueEntry, RegisterOptions, Registered};
use piecework_proto::announce::udp::Family;
use piecework_proto::announce::{CatalogueUrl, TrackerTarget, TrackerUrl};
use piecework_swarm::announcer::{TrackerState, TrackerStatus};

use super::super::CliError;
use super::super::format::counted;

/// A tracker as it was named, and the catalogue it may have.
#[derive(Debug, Clone)]
pub struct Tracker {
    /// As people name it, safe to show.
    pub shown: String,
    /// Where to announce, in tiers.
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// Base address of its catalogue.
    pub base: Option<String>,
    catalogue: Option<Catalogue>,
}

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
        let target = TrackerTarget::parse(name).map_err(CliError::usage)?;
        let catalogue = match &target.catalogue {
            Some(base) => Some(Catalogue::with_options(base, patience()).map_err(CliError::usage)?),
            None => None,
        };
        let shown = printable(name).into_owned();
        Ok(Self { shown, tiers: target.tiers, base: target.catalogue, catalogue })
    }

    /// Its tiers as a `.torrent` holds them.
    pub fn urls(&self) -> Vec<Vec<String>> {
        let text =
            |tier: &Vec<TrackerUrl>| tier.iter().map(|url| url.as_str().to_owned()).collect();
        self.tiers.iter().map(text).collect()
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
        let catalogue = self.catalogue()?;
        self.in_time(async { catalogue.list(name).await }).await
    }

    /// The torrent `info_hash`.
    ///
    /// # Errors
    /// If the tracker does not know it, cannot be asked, or gives something else.
    pub async fn fetch(&self, info_hash: InfoHash) -> Result<Metainfo, LookupError> {
        let catalogue = self.catalogue()?;
        let bytes = self.in_time(async { catalogue.fetch(info_hash).await }).await?;
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
        let Some(catalogue) = &self.catalogue else {
            return Registering::Refused("it is reached over UDP only".to_owned());
        };
        let torrent = match metainfo.bytes() {
            Ok(torrent) => torrent,
            Err(error) => return Registering::Refused(error.to_string()),
        };
        let work = catalogue.register(&torrent, options);
        match tokio::time::timeout(LOOKUP, work).await {
            Ok(Ok(registered)) => Registering::Done(registered),
            Ok(Err(
                error @ (CatalogueError::Unreachable { .. } | CatalogueError::Timeout { .. }),
            )) => Registering::Absent(error.to_string()),
            Ok(Err(error)) => Registering::Refused(error.to_string()),
            Err(_) => Registering::Absent("it did not answer in time".to_owned()),
        }
    }

    /// Takes a torrent out of the catalogue.
    ///
    /// # Errors
    /// If it does not let us, or cannot be asked.
    pub async fn remove(&self, info_hash: InfoHash, token: &str) -> Result<(), LookupError> {
        let catalogue = self.catalogue()?;
        self.in_time(async { catalogue.remove(info_hash, token).await }).await
    }

    fn catalogue(&self) -> Result<&Catalogue, CliError> {
        self.catalogue.as_ref().ok_or_else(|| {
            CliError::failed(format_args!(
                "the tracker `{}` is reached over UDP only, so its catalogue cannot be asked: name \
                 it as IP:PORT, or give the .torrent file",
                self.shown
            ))
        })
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, CatalogueError>>,
    ) -> Result<T, LookupError> {
        let failed = |why: &dyn std::fmt::Display| {
            CliError::failed(format_args!("asking the tracker `{}` failed: {why}", self.shown))
        };
        match tokio::time::timeout(LOOKUP, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(
                error @ (CatalogueError::Unreachable { .. }
                | CatalogueError::Timeout { .. }
                | CatalogueError::NotFound(_)),
            )) => Err(LookupError::NotYet(failed(&error))),
            Ok(Err(error)) => Err(LookupError::Failed(failed(&error))),
            Err(_) => Err(LookupError::NotYet(failed(&"it did not answer in time"))),
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

/// The base address of the catalogue that a torrent of our own making was registered with.
pub fn catalogue_of(metainfo: &Metainfo) -> Option<CatalogueUrl> {
    let ours = metainfo.created_by().is_some_and(|by| by.starts_with("Piecework "));
    let mut urls = metainfo.trackers().iter().flatten().filter(|_| ours);
    urls.find_map(|url| CatalogueUrl::of_tracker(&url.parse().ok()?))
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

fn patience() -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    }
}

/// Time for a question to the catalogue in all: whoever asks for what nobody has is to know within
/// 15 s.
const LOOKUP: Duration = Duration::from_secs(10);

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
