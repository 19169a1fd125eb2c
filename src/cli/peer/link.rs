//! Where `torrent-peer` finds the torrent of a magnet link: in a catalogue, in the torrents folder, or at peers.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use piecework_core::metainfo::Metainfo;
use piecework_engine::tracker_client::look_up_known_peers;
use piecework_engine::{FetchedMetadata, MetadataRequest};
use piecework_proto::announce::Magnet;
use piecework_swarm::{HeardAddress, PeerSource};

use super::super::exit_deadline::ExitDeadline;
use super::super::{CliError, Env, Exit, PeerConfig};
use super::node::{Node, NodeOptions};
use super::query::{TorrentQuery, find, find_or_kept};
use super::tracker::Tracker;

/// What is needed to follow a link.
pub(super) struct LinkContext<'a> {
    pub env: &'a Env,
    pub config: &'a PeerConfig,
    pub options: &'a NodeOptions,
    /// The link, as a query.
    pub wanted: &'a TorrentQuery,
    pub tracker: Option<&'a Tracker>,
    /// Peers that the user or the link named.
    pub peers: Vec<HeardAddress>,
    /// Wait without a time limit.
    pub wait: bool,
}

/// A torrent, and what was found with it.
pub(super) struct Found {
    pub metainfo: Metainfo,
    pub tracker: Option<Tracker>,
    /// The node that asked peers for it.
    pub node: Option<Node>,
    /// Addresses where peers may be.
    pub peers: Vec<HeardAddress>,
}

impl Found {
    pub(super) fn without_peers((metainfo, tracker): (Metainfo, Option<Tracker>)) -> Self {
        Self { metainfo, tracker, node: None, peers: Vec::new() }
    }
}

/// Returns the torrent of a link. Peers are asked for it if no catalogue has it.
///
/// # Errors
/// If nobody has it in time.
pub(super) async fn follow(
    link: &Magnet,
    context: LinkContext<'_>,
    exit_deadline: &ExitDeadline,
) -> Result<Found, CliError> {
    let LinkContext { env, config, options, wanted, tracker, peers, wait } = context;
    let error = match find_or_kept(env, config, wanted, tracker, false).await {
        Ok(found) => return Ok(Found::without_peers(found)),
        Err(error) => error,
    };
    let patience = (!wait).then_some(config.nobody_timeout);
    let Some(request) = metadata_request(link, tracker, peers, (patience, config.dht)) else {
        // Only the catalogue can get to know it.
        return match wait {
            true => Ok(Found::without_peers(find(env, wanted, tracker, true).await?)),
            false => Err(error),
        };
    };
    env.stderr().line(asking_peers(link))?;
    let mut node = Node::start(env, config, options)?;
    let fetched = tokio::select! {
        fetched = node.fetch_metadata(request) => fetched,
        // Somebody may register it meanwhile.
        found = find(env, wanted, tracker, true), if wait => match found {
            Ok(found) => return Ok(Found { node: Some(node), ..Found::without_peers(found) }),
            Err(fault) => Some(Err(fault.into())),
        },
    };
    match fetched {
        Some(Ok(FetchedMetadata { metainfo, peers })) => {
            Ok(Found { metainfo, tracker: tracker.cloned(), node: Some(node), peers })
        }
        Some(Err(fault)) => {
            node.leave(exit_deadline).await;
            Err(found_nowhere(&error, fault))
        }
        None => Err(CliError::silent(match node.leave(exit_deadline).await {
            Exit::Fine => Exit::Interrupted,
            exit => exit,
        })),
    }
}

/// Returns the torrent of a link, as [`follow`] does, for a node that is at work. `None` if the node is to end.
///
/// # Errors
/// If nobody has it in time.
pub(super) async fn follow_with(
    node: &mut Node,
    link: &Magnet,
    context: LinkContext<'_>,
) -> Result<Option<Found>, CliError> {
    let LinkContext { env, config, wanted, tracker, peers, .. } = context;
    let searching = find_or_kept(env, config, wanted, tracker, false);
    let Some(found) = node.unless_ended(searching).await else { return Ok(None) };
    let error = match found {
        Ok(found) => return Ok(Some(Found::without_peers(found))),
        Err(error) => error,
    };
    let Some(request) =
        metadata_request(link, tracker, peers, (Some(config.nobody_timeout), config.dht))
    else {
        return Err(error);
    };
    node.screen().notice(asking_peers(link));
    match node.fetch_metadata(request).await {
        Some(Ok(FetchedMetadata { metainfo, peers })) => {
            Ok(Some(Found { metainfo, tracker: tracker.cloned(), node: None, peers }))
        }
        Some(Err(fault)) => Err(found_nowhere(&error, fault)),
        None => Ok(None),
    }
}

/// Returns the addresses of the peers that a link names. `notice` gets a sentence for each that is not known.
///
/// # Errors
/// If `notice` fails.
pub(super) async fn peers_of(
    link: &Magnet,
    mut notice: impl FnMut(&dyn Display) -> io::Result<()>,
) -> io::Result<Vec<HeardAddress>> {
    let (known, unknown) = look_up_known_peers(&link.peers).await;
    unknown.iter().try_for_each(|error| notice(error))?;
    let heard = |addr| HeardAddress { addr, source: PeerSource::Magnet };
    Ok(known.into_iter().map(heard).collect())
}

/// Says which parts of a link are not used.
///
/// # Errors
/// If `notice` fails.
pub(super) fn say_what_is_unused(
    link: &Magnet,
    mut notice: impl FnMut(&dyn Display) -> io::Result<()>,
) -> io::Result<()> {
    link.unused.iter().try_for_each(|text| notice(text))?;
    match link.wanted_files() {
        Some(files) => notice(&format_args!(
            "the link chooses the files {files}; torrent-peer gets all of them, torrent-leech only these"
        )),
        None => Ok(()),
    }
}

fn asking_peers(link: &Magnet) -> String {
    format!("no catalogue has `{}`; asking peers for its metadata", link.info_hash)
}

/// Returns the error of a torrent that neither a catalogue nor a peer has.
fn found_nowhere(catalogue: &CliError, peers: CliError) -> CliError {
    CliError::failed(format_args!("{catalogue}; {peers}")).because(peers)
}

/// Returns what peers are asked for. `None` if the link leads to nobody.
fn metadata_request(
    link: &Magnet,
    tracker: Option<&Tracker>,
    peers: Vec<HeardAddress>,
    (patience, has_dht): (Option<Duration>, bool),
) -> Option<MetadataRequest> {
    let named_trackers = || tracker.into_iter().flat_map(|tracker| tracker.tiers.iter().flatten());
    let leads_somewhere = has_dht || !peers.is_empty() || !link.trackers.is_empty();
    leads_somewhere.then(|| MetadataRequest {
        info_hash: link.info_hash,
        // One that the user names too may be in our own network.
        trackers: link
            .trackers
            .iter()
            .map(|url| url.clone().named_among(named_trackers()))
            .collect(),
        more_trackers: named_trackers()
            .filter(|url| !link.trackers.contains(url))
            .cloned()
            .collect(),
        peers,
        patience,
    })
}
