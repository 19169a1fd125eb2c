//! Announces and scrapes over UDP (BEP 15).

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::announces::AnnounceOrigin;
use super::connection_id::ConnectionIds;
use super::datagrams::{Datagrams, ReceivedDatagram};
use super::service::Service;
use piecework_journal::{RequestEvent, Via};
use piecework_proto::announce::udp::{Family, Header, MAX_REQUEST_LEN, Request, Response};
use piecework_registry::PeerQuery;

/// Answers datagrams until `stop` changes.
pub(super) async fn serve(
    socket: Datagrams,
    service: Arc<Service>,
    ids: ConnectionIds,
    mut stop: watch::Receiver<bool>,
) {
    let udp = Udp { service, ids };
    // One byte more than the limit shows that a datagram was longer.
    let mut datagram = vec![0; MAX_REQUEST_LEN + 1];
    let mut answer = Vec::with_capacity(2_048);
    loop {
        let received = tokio::select! {
            received = socket.receive(&mut datagram) => received,
            _ = stop.changed() => return,
        };
        let ReceivedDatagram { len, from, to } = match received {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer could not be delivered (ICMP). The socket itself works.
                tracing::debug!(%error, "receiving a datagram failed");
                tokio::task::yield_now().await;
                continue;
            }
        };
        answer.clear();
        // A panic while handling one datagram must not stop the service for all others.
        let handled = catch_unwind(AssertUnwindSafe(|| {
            udp.handle(&datagram[..len], from, to, &mut answer);
        }));
        if handled.is_err() {
            tracing::error!("a datagram could not be handled");
            continue;
        }
        if !answer.is_empty()
            && let Err(error) = socket.send(&answer, from, to).await
        {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }
}

struct Udp {
    service: Arc<Service>,
    ids: ConnectionIds,
}

impl Udp {
    /// Appends the answer, if any, to a datagram that came to the local address `to`. For a sender without a valid
    /// connection id nothing is stored, and the answer is no longer than the request, so that the tracker does not
    /// amplify a flood.
    fn handle(&self, datagram: &[u8], from: SocketAddr, to: Option<IpAddr>, answer: &mut Vec<u8>) {
        let ip = from.ip().to_canonical();
        let family = Family::of(ip);
        let now = self.service.clock.now();
        // A packet from port 0 cannot be answered.
        let Some(header) = Header::peek(datagram).filter(|_| from.port() != 0) else {
            return self.reject();
        };
        let known = self.ids.is_valid(now, ip, header.connection_id);
        let response = match Request::decode(datagram) {
            Ok(Request::Connect { transaction }) => {
                let connection_id = self.ids.issue(now, ip);
                Response::Connect { transaction, connection_id }
            }
            Ok(request) if !known => {
                self.reject();
                // 8 bytes and these 25 are less than the 36 of the shortest scrape.
                let message = "connection id not valid".to_owned();
                Response::Error { transaction: request.transaction(), message }
            }
            Ok(Request::Announce { transaction, announce, .. }) => {
                let most = match family {
                    Family::V4 => MAX_PEERS_V4,
                    Family::V6 => MAX_PEERS_V6,
                };
                let (v4, v6) = (family == Family::V4, family == Family::V6);
                let limit = PeerQuery { v4, v6, ..PeerQuery::any(most) };
                let asker = AnnounceOrigin { ip, reached: to, via: Via::Udp };
                match self.service.announces.announce(asker, &announce, limit) {
                    Ok(reply) => Response::Announce { transaction, reply },
                    Err(refusal) => Response::Error { transaction, message: refusal.to_string() },
                }
            }
            Ok(Request::Scrape { transaction, hashes, .. }) => {
                // An unknown torrent has no peers. The order must be kept.
                let counts = self.service.announces.scrape(&hashes);
                let entries = counts.into_iter().map(|(_, entry)| entry.unwrap_or_default());
                Response::Scrape { transaction, entries: entries.collect() }
            }
            Err(error) if known => {
                let message = error.to_string();
                let event = match header.is_scrape() {
                    true => RequestEvent::Scrape,
                    false => RequestEvent::Announce,
                };
                let from = SocketAddr::new(ip, from.port());
                self.service.log.refused(from, event, None, Via::Udp, message.clone());
                Response::Error { transaction: header.transaction, message }
            }
            Err(_) => return self.reject(),
        };
        response.encode(family, answer);
    }

    fn reject(&self) {
        self.service.counters.udp_rejected.fetch_add(1, Ordering::Relaxed);
    }
}

/// 20 + 200 × 6 bytes fit the 1,472 that an Ethernet packet leaves.
const MAX_PEERS_V4: usize = 200;

/// 20 + 66 × 18 bytes fit the 1,232 that every IPv6 packet may have (1,280 with its headers).
const MAX_PEERS_V6: usize = 66;
