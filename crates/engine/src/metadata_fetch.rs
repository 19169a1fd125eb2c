//! Fetches the metadata of a torrent of which only the info-hash is known, and drives its state machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use crate::net::{self, Accepted};
use crate::tracker_client::{TrackerClient, TrackerError};
use piecework_core::metainfo::{Metainfo, MetainfoError, ParseLimits};
use piecework_core::{InfoHash, Moment};
use piecework_proto::announce::{Announce, AnnounceReply, Provenance, TrackerUrl};
use piecework_proto::wire::{Handshake, MAX_EXTENDED_HANDSHAKE_LEN, MetadataMessage};
use piecework_swarm::announcer::{AnnounceFailure, AnnounceTask, Announcer, HostState};
use piecework_swarm::metadata::{MetadataAction, MetadataEvent, MetadataFetch, MetadataProgress};
use piecework_swarm::{Direction, HeardAddress, PeerKey, PeerSource};

use super::Session;
use super::means::Means;
use super::metadata_inputs::{CheckFault, FetchInput, PeerSaid};
use super::metadata_peer::{self, Greeting};
use super::places::Place;

/// What is known of a torrent before its metadata.
#[derive(Debug, Clone)]
pub struct MetadataRequest {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Trackers that may know peers. They are kept in the torrent.
    pub trackers: Vec<TrackerUrl>,
    /// Further trackers that may know peers. They are not kept in the torrent.
    pub more_trackers: Vec<TrackerUrl>,
    /// Peers that are known already.
    pub peers: Vec<HeardAddress>,
    /// How long to look for peers that give something. Also ends when no tracker knows anybody. `None` for no limit.
    pub patience: Option<Duration>,
}

/// Metadata that was fetched from peers.
#[derive(Debug)]
pub struct FetchedMetadata {
    /// The torrent, with the trackers of the request.
    pub metainfo: Metainfo,
    /// Addresses where peers may be.
    pub peers: Vec<HeardAddress>,
}

/// Why metadata was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// No peer gave it in time.
    #[error("no peer gave its metadata: {0}")]
    NoPeer(
        /// What was tried.
        &'static str,
    ),
    /// The metadata is right, but not that of a torrent that can be used.
    #[error("its metadata cannot be used: {0}")]
    Unusable(#[from] MetainfoError),
    /// The session was shut down.
    #[error("the session has ended")]
    Ended,
}

impl Session {
    /// Fetches the metadata of a torrent from peers. Dropping the future ends it. `progress` is called when something
    /// has arrived.
    ///
    /// # Errors
    /// If nobody gives it in time, or it is not usable.
    pub async fn fetch_metadata(
        &self,
        request: MetadataRequest,
        progress: impl Fn(MetadataProgress) + Send,
    ) -> Result<FetchedMetadata, MetadataError> {
        if self.parts.torrents.lock().ended {
            return Err(MetadataError::Ended);
        }
        let trackers = self.parts.discovery.scheduler.trackers.clone();
        let (means, fetches) = (Arc::clone(&self.parts.means), Arc::clone(&self.parts.fetches));
        let (inputs, heard) = mpsc::channel(INPUTS_WAITING);
        let listed = fetches.list(request.info_hash, inputs.clone());
        let dht = self.parts.dht.get();
        if let Some(dht) = dht {
            dht.find_for_fetch(request.info_hash, inputs.clone());
        }
        let mut driver = MetadataFetcher::new(means, trackers, request, inputs);
        driver.is_looking = dht.is_some();
        let result = driver.run(heard, progress).await;
        drop(listed);
        result
    }
}

/// The driver of one fetch.
struct MetadataFetcher {
    means: Arc<Means>,
    client: TrackerClient,
    request: MetadataRequest,
    fetch: MetadataFetch,
    announcer: Announcer,
    inputs: mpsc::Sender<FetchInput>,
    peers: BTreeMap<PeerKey, FetchConnection>,
    next_peer: u32,
    /// Everything that runs for the fetch. Dropping it ends all.
    tasks: JoinSet<()>,
    announcing: usize,
    dialing: usize,
    /// The first look-up in the DHT has not ended.
    is_looking: bool,
    /// Nobody gave anything since then.
    idle_since: Moment,
    received: u32,
}

struct FetchConnection {
    requests: mpsc::Sender<(u8, MetadataMessage)>,
    task: AbortHandle,
    _place: Place,
}

impl Drop for FetchConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MetadataFetcher {
    fn new(
        means: Arc<Means>,
        client: TrackerClient,
        mut request: MetadataRequest,
        inputs: mpsc::Sender<FetchInput>,
    ) -> Self {
        let now = means.now();
        if means.config.private_trackers {
            // As for the trackers of a `.torrent`.
            for url in
                request.trackers.iter_mut().filter(|url| url.provenance() == Provenance::Foreign)
            {
                *url = url.clone().named_by(Provenance::Nearby);
            }
        }
        let all = request.trackers.iter().chain(&request.more_trackers);
        let tiers = all.map(|tracker| vec![tracker.clone()]).collect();
        let announcer = Announcer::new(tiers, means.config.tier_policy, means.rng());
        let mut fetch = MetadataFetch::new(means.rng(), now);
        for HeardAddress { addr, source } in &request.peers {
            let addrs = vec![*addr];
            fetch.handle(now, MetadataEvent::Candidates { source: *source, addrs });
        }
        Self {
            means,
            client,
            request,
            fetch,
            announcer,
            inputs,
            peers: BTreeMap::new(),
            next_peer: 0,
            tasks: JoinSet::new(),
            announcing: 0,
            dialing: 0,
            is_looking: false,
            idle_since: now,
            received: 0,
        }
    }

    async fn run(
        mut self,
        mut heard: mpsc::Receiver<FetchInput>,
        progress: impl Fn(MetadataProgress),
    ) -> Result<FetchedMetadata, MetadataError> {
        loop {
            self.announce();
            self.act();
            let shown = self.fetch.progress();
            if shown.received != self.received {
                self.received = shown.received;
                self.idle_since = self.means.now();
                progress(shown);
            }
            let patience = self.end_of_patience()?;
            let deadlines = [self.fetch.deadline(), self.announcer.deadline(), patience];
            let deadline = deadlines.into_iter().flatten().min();
            let clock = self.means.clock.clone();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = heard.recv() => {
                    let Some(input) = input else { return Err(MetadataError::Ended) };
                    if let Some(metainfo) = self.on_input(input)? {
                        let peers = self.fetch.addresses();
                        return Ok(FetchedMetadata { metainfo, peers });
                    }
                }
                // Only to forget tasks that have ended: they say what they found by themselves.
                Some(_) = self.tasks.join_next() => {}
                () = sleep => self.fetch.handle(self.means.now(), MetadataEvent::Timeout),
            }
        }
    }

    /// Returns when the patience of whoever asked ends.
    ///
    /// # Errors
    /// If it has ended, or there is nobody to ask.
    fn end_of_patience(&self) -> Result<Option<Moment>, MetadataError> {
        let Some(patience) = self.request.patience else { return Ok(None) };
        let is_alone = self.peers.is_empty() && self.dialing == 0 && self.announcing == 0;
        if is_alone
            && !self.is_looking
            && !self.announcer.statuses().iter().any(|tracker| tracker.peers > 0)
        {
            return Err(MetadataError::NoPeer("nobody who may have it can be reached"));
        }
        let end = self.idle_since + patience;
        if end <= self.means.now() {
            return Err(MetadataError::NoPeer("peers did not answer in time"));
        }
        Ok(Some(end))
    }

    fn on_input(&mut self, input: FetchInput) -> Result<Option<Metainfo>, MetadataError> {
        let now = self.means.now();
        match input {
            FetchInput::Connected(accepted, direction) => self.connected(*accepted, direction),
            FetchInput::DialFailed { addr, is_prevented, hung_up } => {
                self.dialing = self.dialing.saturating_sub(1);
                self.fetch.handle(
                    now,
                    match is_prevented {
                        true => MetadataEvent::DialPrevented { addr },
                        false => MetadataEvent::DialFailed { addr, hung_up },
                    },
                );
            }
            FetchInput::Peer(peer, said) => self.on_said(peer, said),
            FetchInput::Announced(tracker, outcome) => self.announced(&tracker, outcome),
            FetchInput::Found(source, addrs) => {
                self.fetch.handle(now, MetadataEvent::Candidates { source, addrs });
            }
            FetchInput::LookedUp => self.is_looking = false,
            FetchInput::Ended => return Err(MetadataError::Ended),
            FetchInput::Checked(_, Err(CheckFault::Unusable(error))) => return Err(error.into()),
            FetchInput::Checked(check, outcome) => {
                let right = outcome.is_ok();
                self.fetch.handle(now, MetadataEvent::Checked { check, right });
                return Ok(outcome.ok());
            }
        }
        Ok(None)
    }

    fn on_said(&mut self, peer: PeerKey, said: PeerSaid) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let event = match said {
            PeerSaid::Handshake { extension, size } => {
                MetadataEvent::Handshake { peer, extension, size }
            }
            PeerSaid::Metadata(message) => MetadataEvent::Message { peer, message },
            PeerSaid::Nonsense => MetadataEvent::Misbehaved { peer },
            PeerSaid::Closed => {
                self.peers.remove(&peer);
                MetadataEvent::Disconnected { peer }
            }
        };
        self.fetch.handle(self.means.now(), event);
    }

    fn connected(&mut self, accepted: Accepted, direction: Direction) {
        if direction == Direction::Outgoing {
            self.dialing = self.dialing.saturating_sub(1);
        }
        let Accepted { stream, addr, theirs } = accepted;
        let (now, stream) = (self.means.now(), Arc::new(stream));
        let place = self.means.connections.take_place(now, addr.ip(), &stream);
        let Some(place) = place.filter(|_| theirs.peer_id != self.means.identity.peer_id) else {
            if direction == Direction::Outgoing {
                self.fetch.handle(now, MetadataEvent::DialPrevented { addr });
            }
            return;
        };
        let peer = PeerKey(self.next_peer);
        self.next_peer += 1;
        let (requests, to_send) = mpsc::channel(REQUESTS_WAITING);
        let greeting = Greeting {
            client: self.means.identity.peer_id.client_name(),
            listen_port: self.means.identity.listen_port,
            their_ip: addr.ip(),
            fast: theirs.fast(),
        };
        let extended = theirs.extended();
        let inputs = self.inputs.clone();
        let task = self.tasks.spawn(async move {
            metadata_peer::converse(stream, greeting, to_send, (peer, &inputs)).await;
            // A fetch that has ended need not know.
            let _ = inputs.send(FetchInput::Peer(peer, PeerSaid::Closed)).await;
        });
        self.peers.insert(peer, FetchConnection { requests, task, _place: place });
        self.fetch.handle(now, MetadataEvent::Connected { peer, addr, direction, extended });
    }

    fn act(&mut self) {
        while let Some(action) = self.fetch.poll() {
            match action {
                MetadataAction::Dial { addr } => self.dial(addr),
                MetadataAction::Disconnect { peer, fault } => {
                    debug!(?peer, %fault, "dropped a peer that was asked for metadata");
                    self.peers.remove(&peer);
                }
                MetadataAction::Request { peer, id, piece } => {
                    let Some(connection) = self.peers.get(&peer) else { continue };
                    let request = (id, MetadataMessage::Request { piece });
                    // It does not read. What it is asked for is late soon, and then it is dropped.
                    let _ = connection.requests.try_send(request);
                }
                MetadataAction::Check { check, bytes } => self.check(check, bytes),
            }
        }
    }

    fn check(&mut self, check: u32, info: Vec<u8>) {
        let (inputs, info_hash) = (self.inputs.clone(), self.request.info_hash);
        let trackers: Vec<String> =
            self.request.trackers.iter().map(|tracker| tracker.as_str().to_owned()).collect();
        self.tasks.spawn(async move {
            let checked = tokio::task::spawn_blocking(move || {
                let tiers: Vec<Vec<String>> = trackers.into_iter().map(|url| vec![url]).collect();
                let limits = ParseLimits::default();
                match Metainfo::of_info(&info, info_hash, &tiers, &limits) {
                    Ok(Some(metainfo)) => Ok(metainfo),
                    Ok(None) => Err(CheckFault::WrongHash),
                    Err(error) => Err(CheckFault::Unusable(error)),
                }
            });
            let outcome = checked.await.unwrap_or(Err(CheckFault::WrongHash));
            let _ = inputs.send(FetchInput::Checked(check, outcome)).await;
        });
    }

    fn dial(&mut self, addr: SocketAddr) {
        let (means, inputs) = (Arc::clone(&self.means), self.inputs.clone());
        let ours = Handshake::ours(self.request.info_hash, means.identity.peer_id);
        self.dialing += 1;
        self.tasks.spawn(async move {
            let is_full = !means.connections.has_place(means.now(), addr.ip());
            let prevented = FetchInput::DialFailed { addr, is_prevented: true, hung_up: false };
            // Closed only with the session.
            let permit = means.connections.dialing.acquire().await;
            if is_full || means.connections.is_blocked(addr.ip()) || permit.is_err() {
                let _ = inputs.send(prevented).await;
                return;
            }
            let config = &means.config;
            let options = net::DialOptions {
                interface: config.interface.as_deref(),
                encryption: means.connections.bounds.lock().encryption,
                connect_timeout: config.connect_timeout,
                handshake_timeout: config.handshake_timeout,
            };
            let input = match net::dial(addr, &ours, options).await {
                Ok(accepted) => FetchInput::Connected(Box::new(accepted), Direction::Outgoing),
                Err(error) => {
                    debug!(%addr, %error, "a dial failed");
                    FetchInput::DialFailed {
                        addr,
                        is_prevented: false,
                        hung_up: error.is_hang_up(),
                    }
                }
            };
            let _ = inputs.send(input).await;
        });
    }

    fn announce(&mut self) {
        let now = self.means.now();
        let mut due = Vec::new();
        for _ in 0..self.request.trackers.len() + self.request.more_trackers.len() {
            let mut line = |tracker: &TrackerUrl| {
                due.push(tracker.clone());
                HostState::InLine
            };
            if !self.announcer.line_up(now, &mut line) {
                break;
            }
        }
        for tracker in due {
            let Some(task) = self.announcer.turn(now, |other| *other == tracker) else { continue };
            self.announcing += 1;
            let (client, inputs) = (self.client.clone(), self.inputs.clone());
            let announce = self.announce_of(&task);
            self.tasks.spawn(async move {
                let outcome = client.announce(&task.tracker, &announce).await;
                let _ = inputs.send(FetchInput::Announced(task.tracker, outcome)).await;
            });
        }
    }

    fn announce_of(&self, task: &AnnounceTask) -> Announce {
        let identity = &self.means.identity;
        Announce {
            info_hash: self.request.info_hash,
            peer_id: identity.peer_id,
            port: identity.announced_port(),
            uploaded: 0,
            downloaded: 0,
            // Not known, and 0 would be a seed.
            left: MAX_EXTENDED_HANDSHAKE_LEN.into(),
            event: task.event,
            num_want: None,
            key: Some(identity.announce_key(self.request.info_hash)),
            ip: None,
            compact: true,
            no_peer_id: true,
            tracker_id: task.tracker_id.clone(),
        }
    }

    fn announced(&mut self, tracker: &TrackerUrl, outcome: Result<AnnounceReply, TrackerError>) {
        let now = self.means.now();
        self.announcing = self.announcing.saturating_sub(1);
        match outcome {
            Ok(reply) => {
                self.announcer.on_reply(now, tracker, &reply);
                let event =
                    MetadataEvent::Candidates { source: PeerSource::Tracker, addrs: reply.peers };
                self.fetch.handle(now, event);
            }
            Err(error) => {
                let failure = AnnounceFailure {
                    reason: error.to_string(),
                    refused: error.is_refusal(),
                    retry: error.retry(),
                };
                self.announcer.on_failure(now, tracker, failure);
            }
        }
    }
}

/// Inputs that may wait. A piece of metadata has 16 KiB, so these have 1 MiB.
const INPUTS_WAITING: usize = 64;

/// Requests that may wait for one peer: more than it is asked for at a time.
const REQUESTS_WAITING: usize = 8;
