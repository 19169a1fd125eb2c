//! Magnet links: obtaining the `.torrent` that a link names. It comes from the catalogue of a Piecework tracker,
//! from a web address in the link, or from peers (BEP 9).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::background::blocking;
use super::catalogue::CatalogueTracker;
use super::reason::Reason;
use super::torrent_source::{FetchedTorrent, download, is_near, parse};
use super::trackers::TrackerPolicy;
use super::{Caller, DaemonError};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, Scope, printable};
use piecework_engine::tracker_client::{self, UnknownPeer};
use piecework_engine::{MetadataRequest, Session};
use piecework_proto::announce::Magnet;
use piecework_swarm::{HeardAddress, PeerSource};

/// Why a link leads to no torrent now.
#[derive(Debug)]
pub(super) struct UnfollowedLink {
    pub error: DaemonError,
    /// Why the metadata is not here yet, if somebody may provide it later.
    pub not_yet: Option<String>,
}

impl From<DaemonError> for UnfollowedLink {
    fn from(error: DaemonError) -> Self {
        Self { error, not_yet: None }
    }
}

/// Returns the link in `text`.
///
/// # Errors
/// If it is not a magnet link.
pub(super) fn parsed(text: &str) -> Result<Magnet, DaemonError> {
    Magnet::parse(text).map_err(|error| DaemonError::invalid(Reason::of(error)))
}

/// Returns the torrent that the link `text` names. Asks the catalogue of the tracker `named`, or of the
/// configured one, first, then those of the link's trackers, then its web addresses, then peers. `progress` gets the
/// bytes of metadata that peers gave, and of how many.
///
/// # Errors
/// If it is not a magnet link, or nobody provides the torrent.
pub(super) async fn resolve(
    policy: &TrackerPolicy,
    session: &Session,
    text: &str,
    named: Option<&str>,
    caller: Caller,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<FetchedTorrent, UnfollowedLink> {
    let link = parsed(text)?;
    let mut trackers = Vec::new();
    match policy.named(named, caller) {
        Ok(tracker) => trackers.push(tracker),
        Err(error) if named.is_some() => return Err(error.into()),
        // Others are asked.
        Err(_) => {}
    }
    let others = link.tracker_names();
    let others =
        others.iter().filter_map(|name| CatalogueTracker::named_by(caller.provenance(), name).ok());
    trackers.extend(others.take(MOST_TRACKERS));
    let asked = tokio::time::timeout(PATIENCE, first_of(trackers, link.info_hash)).await;
    let mut faults = match asked {
        Ok(Ok((tracker, metainfo, scope))) => {
            let found = FetchedTorrent::new(Arc::new(metainfo), Some(tracker), is_near(scope));
            return Ok(FetchedTorrent { magnet: Some(link), ..found });
        }
        Ok(Err(faults)) => faults,
        Err(_) => vec![DaemonError::upstream("its trackers did not answer in time")],
    };
    for source in &link.sources {
        match at_source(source, link.info_hash, caller).await {
            Ok((metainfo, scope)) => {
                let found = FetchedTorrent::new(metainfo, None, is_near(scope));
                return Ok(FetchedTorrent { magnet: Some(link), ..found });
            }
            Err(error) => faults.push(error),
        }
    }
    match from_peers(session, &link, progress).await {
        Ok((found, mut warnings)) => {
            let mut link = link;
            link.unused.append(&mut warnings);
            Ok(FetchedTorrent { magnet: Some(link), ..found })
        }
        Err(error) => {
            let leads_somewhere = error.is_some();
            faults.extend(error);
            let why = reasons(&faults);
            let not_yet = leads_somewhere.then(|| format!("its metadata is not here yet: {why}"));
            Err(UnfollowedLink { error: DaemonError::not_found(nobody(&link, &why)), not_yet })
        }
    }
}

/// Returns the torrent from its peers, and what is to be said about those of the link. The error is `None` if the
/// link leads to nobody.
async fn from_peers(
    session: &Session,
    link: &Magnet,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<(FetchedTorrent, Vec<String>), Option<DaemonError>> {
    let (peers, unknown) = tracker_client::look_up_known_peers(&link.peers).await;
    if peers.is_empty() && link.trackers.is_empty() && session.dht_figures().is_none() {
        return Err(None);
    }
    let request = MetadataRequest {
        info_hash: link.info_hash,
        trackers: link.trackers.clone(),
        more_trackers: Vec::new(),
        peers: peers.into_iter().map(in_link).collect(),
        patience: Some(PEER_PATIENCE),
    };
    let fetching = session.fetch_metadata(request, |now| {
        progress(now.received.into(), now.claimed.into());
    });
    let fetched = match tokio::time::timeout(ALL_PEERS, fetching).await {
        Ok(fetched) => fetched.map_err(|error| Some(DaemonError::upstream(Reason::of(error))))?,
        Err(_) => {
            return Err(Some(DaemonError::upstream("its peers did not give its metadata in time")));
        }
    };
    let found = FetchedTorrent::new(Arc::new(fetched.metainfo), None, false);
    let warnings = unknown.iter().map(UnknownPeer::to_string).collect();
    Ok((FetchedTorrent { peers: fetched.peers, ..found }, warnings))
}

/// Returns an address that a magnet link names.
pub(super) fn in_link(addr: SocketAddr) -> HeardAddress {
    HeardAddress { addr, source: PeerSource::Magnet }
}

async fn at_source(
    url: &str,
    info_hash: InfoHash,
    caller: Caller,
) -> Result<(Arc<Metainfo>, Scope), DaemonError> {
    let (bytes, scope) = download(url, caller).await?;
    let metainfo = blocking(move || parse(&bytes)).await??;
    if metainfo.info_hash() != info_hash {
        let (url, other) = (printable(url), metainfo.info_hash());
        return Err(DaemonError::upstream(format!("`{url}` gave another torrent: `{other}`")));
    }
    Ok((metainfo, scope))
}

/// Returns the answer of the first of `trackers` that has the torrent. They are asked one after the other;
/// the next one is asked without waiting long for the one before. If none has it, returns each of their
/// errors.
async fn first_of(
    trackers: Vec<CatalogueTracker>,
    info_hash: InfoHash,
) -> Result<(CatalogueTracker, Metainfo, Scope), Vec<DaemonError>> {
    let mut waiting = trackers.into_iter();
    let mut asked = JoinSet::new();
    let mut faults = Vec::new();
    loop {
        if asked.len() < AT_ONCE
            && let Some(tracker) = waiting.next()
        {
            asked.spawn(async move {
                let found = tracker.find(&info_hash.to_string()).await;
                (tracker, found)
            });
        }
        let may_ask = asked.len() < AT_ONCE && waiting.len() > 0;
        tokio::select! {
            ended = asked.join_next() => match ended {
                Some(Ok((tracker, Ok((metainfo, scope))))) => {
                    return Ok((tracker, metainfo, scope));
                }
                Some(Ok((_, Err(error)))) => faults.push(error),
                Some(Err(broken)) => faults.push(DaemonError::upstream(Reason::of(broken))),
                None => return Err(faults),
            },
            () = tokio::time::sleep(NEXT_AFTER), if may_ask => {}
        }
    }
}

/// Returns the errors of those who were asked, in one sentence.
fn reasons(faults: &[DaemonError]) -> String {
    // Trackers often return the same error.
    let mut seen = HashSet::new();
    let mut faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    faults.retain(|fault| seen.insert(fault.clone()));
    match faults.len() {
        0 => "it names no tracker that can be asked, and none is configured".to_owned(),
        more if more > MOST_FAULTS => {
            format!("{}; and {} more", faults[..MOST_FAULTS].join("; "), more - MOST_FAULTS)
        }
        _ => faults.join("; "),
    }
}

/// Returns why a link leads to no torrent, and what would help.
fn nobody(link: &Magnet, why: &str) -> String {
    let name = link.name.as_deref().map_or_else(
        || format!("`{}`", link.info_hash),
        |name| {
            let name: String = printable(name).chars().take(MAX_NAME).collect();
            format!("`{name}` ({})", link.info_hash)
        },
    );
    format!(
        "the magnet link of {name} leads to no .torrent: {why}. Name a tracker that has it in its \
         catalogue, or a peer that has it (`x.pe`), or give the .torrent file"
    )
}

/// Maximum number of trackers of a link that are asked.
const MOST_TRACKERS: usize = 20;

/// Number of trackers that are asked at the same time: each may send a `.torrent` of maximum length.
const AT_ONCE: usize = 2;

/// Time after which the next tracker is asked as well.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// Time for all trackers of a link.
const PATIENCE: Duration = Duration::from_secs(45);

/// Time in which some peer must give something, and time for all of the metadata: others wait for the place.
const PEER_PATIENCE: Duration = Duration::from_secs(30);
const ALL_PEERS: Duration = Duration::from_secs(120);

/// Limits of what an error shows.
const MOST_FAULTS: usize = 4;
const MAX_NAME: usize = 80;
