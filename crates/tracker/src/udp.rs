//! Announces and scrapes over UDP (BEP 15).
//!
//! Each worker is a thread with a socket of its own, which blocks while nothing comes. So a datagram costs two system
//! calls, and no more than one switch of threads. Workers share the torrents, each of which is behind the lock of its
//! shard, and what is counted once in a batch.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::announce_log_limit::{AnnounceLogLimit, LogCandidate};
use super::announces::AnnounceOrigin;
use super::connection_id::ConnectionIds;
use super::datagrams::{Datagrams, Inbox, Outbox, ReceivedDatagram};
use super::service::Service;
use piecework_core::{InfoHash, Moment};
use piecework_journal::{RequestEvent, Via};
use piecework_proto::announce::Announce;
use piecework_proto::announce::udp::{self, Family, Header, MAX_REQUEST_LEN, RequestView};
use piecework_registry::{AnnounceAnswer, PeerQuery};

/// The threads that answer datagrams. Dropping them makes them stop.
pub(super) struct UdpWorkers {
    sockets: Arc<[Datagrams]>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpWorkers {
    /// Starts a thread for each socket.
    ///
    /// # Errors
    /// If the system has no room for a thread.
    pub(super) fn start(
        sockets: Vec<Datagrams>,
        service: &Arc<Service>,
        ids: ConnectionIds,
        seed: u64,
    ) -> io::Result<Self> {
        let (ids, count) = (Arc::new(ids), sockets.len());
        let mut workers =
            Self { sockets: sockets.into(), stop: Arc::default(), threads: Vec::new() };
        for number in 0..count {
            let (sockets, stop) = (Arc::clone(&workers.sockets), Arc::clone(&workers.stop));
            let (service, ids) = (Arc::clone(service), Arc::clone(&ids));
            let gate = AnnounceLogLimit::new(2 * count, seed);
            let thread = std::thread::Builder::new().name(format!("udp-{number}"));
            workers.threads.push(thread.spawn(move || {
                let answer = AnnounceAnswer::default();
                let mut worker = Worker { service, ids, gate, answer, counts: Counts::default() };
                worker.serve(&sockets[number], &stop);
            })?);
        }
        Ok(workers)
    }

    /// Returns the number of threads.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Makes the threads stop, and waits for them.
    pub(super) fn join(mut self) {
        self.stop();
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread that answers datagrams failed");
            }
        }
    }

    /// Makes the threads stop after the datagrams that they are answering.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.sockets.iter().for_each(Datagrams::close);
    }
}

impl Drop for UdpWorkers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a thread has for itself.
struct Worker {
    service: Arc<Service>,
    ids: Arc<ConnectionIds>,
    gate: AnnounceLogLimit,
    answer: AnnounceAnswer,
    counts: Counts,
}

/// What is counted in a batch.
#[derive(Default)]
struct Counts {
    announces: u64,
    scrapes: u64,
    rejected: u64,
}

impl Worker {
    /// Answers datagrams until `stop` is set.
    fn serve(&mut self, socket: &Datagrams, stop: &AtomicBool) {
        // One byte more than the limit shows that a datagram was longer.
        let (mut inbox, mut outbox) = (Inbox::new(MAX_REQUEST_LEN + 1), Outbox::new());
        loop {
            let received = socket.receive(&mut inbox);
            if stop.load(Ordering::Acquire) {
                return;
            }
            if let Err(error) = received {
                // An earlier answer could not be delivered (ICMP). The socket itself works.
                tracing::debug!(%error, "receiving a datagram failed");
                std::thread::yield_now();
                continue;
            }
            self.answer_all(&inbox, &mut outbox);
            // Before the answers, so that who has got one finds it counted.
            self.tell_counts();
            socket.send(&mut outbox);
        }
    }

    fn answer_all(&mut self, inbox: &Inbox, outbox: &mut Outbox) {
        let now = self.service.clock.now();
        for (datagram, request) in inbox.iter() {
            // A panic while handling one datagram must not stop the service for all others.
            let handled = catch_unwind(AssertUnwindSafe(|| {
                outbox.answer(&request, |out| self.handle(now, datagram, &request, out));
            }));
            if handled.is_err() {
                tracing::error!("a datagram could not be handled");
            }
        }
    }

    /// Appends the answer to a datagram, and returns whether there is one. For a sender without a valid connection id
    /// nothing is stored, and the answer is no longer than the request, so that the tracker does not amplify a flood.
    fn handle(
        &mut self,
        now: Moment,
        datagram: &[u8],
        request: &ReceivedDatagram,
        out: &mut Vec<u8>,
    ) -> bool {
        let ip = request.from.ip().to_canonical();
        // A packet from port 0 cannot be answered.
        let Some(header) = Header::peek(datagram).filter(|_| request.from.port() != 0) else {
            return self.reject();
        };
        let transaction = header.transaction;
        let known = self.ids.is_valid(now, ip, header.connection_id);
        match RequestView::decode(datagram) {
            Ok((_, RequestView::Connect)) => {
                udp::encode_connected(transaction, self.ids.issue(now, ip), out);
            }
            Ok(_) if !known => {
                self.reject();
                // 8 bytes and these 25 are less than the 36 of the shortest scrape.
                udp::encode_error(transaction, "connection id not valid", out);
            }
            Ok((_, RequestView::Announce(announce))) => {
                let asker = AnnounceOrigin { now, ip, reached: request.to, via: Via::Udp };
                self.announce(asker, &announce, transaction, out);
            }
            Ok((_, RequestView::Scrape(hashes))) => {
                self.counts.scrapes += 1;
                // An unknown torrent has no peers. The order must be kept.
                let swarms = &self.service.swarms;
                let counts = hashes.iter().map(|hash| swarms.counts(InfoHash(*hash)));
                udp::encode_counts(transaction, counts, out);
            }
            Err(error) if known => {
                let message = error.to_string();
                udp::encode_error(transaction, &message, out);
                let from = SocketAddr::new(ip, request.from.port());
                self.log_refused(now, from, header, message);
            }
            Err(_) => return self.reject(),
        }
        true
    }

    fn announce(
        &mut self,
        asker: AnnounceOrigin,
        announce: &Announce,
        transaction: u32,
        out: &mut Vec<u8>,
    ) {
        self.counts.announces += 1;
        let family = Family::of(asker.ip);
        let most = match family {
            Family::V4 => MAX_PEERS_V4,
            Family::V6 => MAX_PEERS_V6,
        };
        let (v4, v6) = (family == Family::V4, family == Family::V6);
        let limit = PeerQuery { v4, v6, ..PeerQuery::any(most) };
        let Self { service, gate, answer, .. } = self;
        let is_logged = |candidate: &LogCandidate| gate.admits(candidate);
        match service.announces.announce_into(asker, announce, limit, answer, is_logged) {
            Ok(interval) => {
                let counts = (answer.complete, answer.incomplete);
                let peers = answer.peers.iter().map(|peer| peer.addr);
                udp::encode_peers(transaction, interval, counts, peers, family, out);
            }
            Err(refusal) => udp::encode_error(transaction, &refusal.to_string(), out),
        }
    }

    /// Logs a request that makes no sense, of a client with a valid connection id.
    fn log_refused(&mut self, now: Moment, from: SocketAddr, header: Header, message: String) {
        let event = match header.is_scrape() {
            true => RequestEvent::Scrape,
            false => RequestEvent::Announce,
        };
        let candidate = LogCandidate { now, ip: from.ip(), catalogued: false, telling: true };
        match self.gate.admits(&candidate) {
            true => self.service.log.refused(from, event, None, Via::Udp, message),
            false => self.service.log.not_noted(true),
        }
    }

    /// Counts a datagram that gets no answer. Returns `false`.
    fn reject(&mut self) -> bool {
        self.counts.rejected += 1;
        false
    }

    /// Adds what was counted to the counters that all workers share.
    fn tell_counts(&mut self) {
        let Counts { announces, scrapes, rejected } = std::mem::take(&mut self.counts);
        let shared = &self.service.counters;
        for (counter, count) in [
            (&shared.announces_udp, announces),
            (&shared.scrapes, scrapes),
            (&shared.udp_rejected, rejected),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.service.log.left_out(self.gate.take_left_out());
    }
}

/// 20 + 200 × 6 bytes fit the 1,472 that an Ethernet packet leaves.
const MAX_PEERS_V4: usize = 200;

/// 20 + 66 × 18 bytes fit the 1,232 that every IPv6 packet may have (1,280 with its headers).
const MAX_PEERS_V6: usize = 66;
