//! Announces and scrapes, for all protocols.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::access_log::{AccessLog, AccessRecord};
use super::addresses::{local_ip_towards, may_name};
use super::announce_log_limit::{AnnounceLogLimit, LogCandidate};
use super::config::TrackerConfig;
use super::counters::TrackerCounters;
use super::swarms::Swarms;
use piecework_core::{InfoHash, Moment, is_of_one_machine};
use piecework_journal::{HandedList, RequestEvent, Via};
use piecework_proto::announce::{Announce, AnnounceEvent, AnnounceReply, ScrapeEntry};
use piecework_registry::{AnnounceAnswer, PeerQuery, Refusal};

/// Answers announces and scrapes.
pub(super) struct Announces {
    pub(super) config: Arc<TrackerConfig>,
    pub(super) swarms: Arc<Swarms>,
    pub(super) log: Arc<AccessLog>,
    pub(super) counters: Arc<TrackerCounters>,
    /// The gate of what comes over HTTP.
    pub(super) gate: Mutex<AnnounceLogLimit>,
}

/// The origin of an announce.
#[derive(Clone, Copy)]
pub(super) struct AnnounceOrigin {
    pub now: Moment,
    /// The address of the client.
    pub ip: IpAddr,
    /// The local address that received the request, if known.
    pub reached: Option<IpAddr>,
    pub via: Via,
}

impl Announces {
    /// Handles an announce over HTTP and returns the answer, which has peers within `limit`.
    pub(super) fn announce(
        &self,
        asker: AnnounceOrigin,
        announce: &Announce,
        limit: PeerQuery,
    ) -> Result<AnnounceReply, Refusal> {
        self.counters.announces_http.fetch_add(1, Ordering::Relaxed);
        let mut answer = AnnounceAnswer::default();
        let is_logged = |candidate: &LogCandidate| {
            let mut gate = self.gate.lock();
            let is_logged = gate.admits(candidate);
            self.log.left_out(gate.take_left_out());
            is_logged
        };
        let interval = self.announce_into(asker, announce, limit, &mut answer, is_logged)?;
        Ok(AnnounceReply {
            min_interval: Some(self.config.min_interval),
            complete: answer.complete,
            incomplete: answer.incomplete,
            peers: answer.peers.iter().map(|peer| peer.addr).collect(),
            peer_ids: answer.ids,
            external_ip: Some(asker.ip.to_canonical()),
            ..AnnounceReply::new(interval)
        })
    }

    /// Handles an announce and returns the interval. Fills `answer` with peers within `limit`. Allocates no memory
    /// if the announce is not logged.
    pub(super) fn announce_into(
        &self,
        asker: AnnounceOrigin,
        announce: &Announce,
        limit: PeerQuery,
        answer: &mut AnnounceAnswer,
        is_logged: impl FnOnce(&LogCandidate) -> bool,
    ) -> Result<Duration, Refusal> {
        let told = announce.ip.filter(|ip| {
            self.config.trust_ip_parameter && is_of_one_machine(*ip) && may_name(asker.ip, *ip)
        });
        let ip = told.unwrap_or(asker.ip).to_canonical();
        let wanted = announce.num_want.map_or(self.config.num_want, |want| want as usize);
        let count = wanted.min(self.config.max_num_want).min(limit.count);
        let want = PeerQuery { count, ..limit };
        let (outcome, peers) = self.swarms.announce(asker.now, ip, announce, want, answer);
        let peer = SocketAddr::new(ip, announce.port);
        self.reach_loopback(peer, asker.reached, answer);
        let candidate = LogCandidate {
            now: asker.now,
            ip,
            catalogued: answer.catalogued,
            telling: announce.event != AnnounceEvent::None || outcome.is_err(),
        };
        if is_logged(&candidate) {
            self.log.note(AccessRecord {
                peer,
                peer_id: Some(announce.peer_id),
                event: match announce.event {
                    AnnounceEvent::None => RequestEvent::Announce,
                    AnnounceEvent::Started => RequestEvent::Started,
                    AnnounceEvent::Stopped => RequestEvent::Stopped,
                    AnnounceEvent::Completed => RequestEvent::Completed,
                },
                info_hash: Some(announce.info_hash),
                handed: HandedList::new(&answer.peers),
                outcome: outcome.as_ref().map(|_| ()).map_err(ToString::to_string),
                seeks: announce.event == AnnounceEvent::Started && announce.left != 0 && count > 0,
                via: asker.via,
            });
        } else {
            self.log.not_noted(outcome.is_err());
            // A logged one does the same.
            if answer.first_in_second {
                self.log.announced(announce.info_hash);
            }
        }
        outcome?;
        Ok(match asker.via {
            Via::Udp if announce.left == 0 && answer.incomplete == 0 => {
                self.config.lone_seed_interval(peers)
            }
            Via::Udp | Via::Http => self.config.interval,
        })
    }

    /// Returns the counts of torrents; `None` for a torrent that is not known.
    pub(super) fn scrape(&self, hashes: &[InfoHash]) -> Vec<(InfoHash, Option<ScrapeEntry>)> {
        self.counters.scrapes.fetch_add(1, Ordering::Relaxed);
        hashes.iter().map(|hash| (*hash, self.swarms.scrape(*hash))).collect()
    }

    /// Replaces loopback addresses in the answer to a remote client by the address at which it reaches this machine.
    fn reach_loopback(
        &self,
        asking: SocketAddr,
        reached: Option<IpAddr>,
        answer: &mut AnnounceAnswer,
    ) {
        let AnnounceAnswer { peers, ids, .. } = answer;
        if asking.ip().is_loopback() || !peers.iter().any(|peer| peer.addr.ip().is_loopback()) {
            return;
        }
        let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
        let here = self
            .config
            .external_ip
            .or(reached.map(|ip| ip.to_canonical()).filter(usable))
            .or_else(|| local_ip_towards(asking.ip()).filter(usable));
        for peer in peers.iter_mut().filter(|peer| peer.addr.ip().is_loopback()) {
            if let Some(ip) = here.filter(|ip| ip.is_ipv4() == peer.addr.is_ipv4()) {
                peer.addr.set_ip(ip);
            }
        }
        // A peer that announces over loopback and over another local address is included once.
        let mut seen = HashSet::new();
        let mut is_kept =
            |addr: SocketAddr| !addr.ip().is_loopback() && addr != asking && seen.insert(addr);
        let kept: Vec<bool> = peers.iter().map(|peer| is_kept(peer.addr)).collect();
        let (mut of_peers, mut of_ids) = (kept.iter(), kept.iter());
        peers.retain(|_| of_peers.next() == Some(&true));
        ids.retain(|_| of_ids.next() == Some(&true));
    }
}
