//! The connections of a session: a bounded number, in which useless ones make way.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tracing::debug;

use crate::net::{self, PeerStream};
use piecework_core::Moment;
use piecework_swarm::admission::{Occupant, Shares, who_makes_way};

/// The places for connections, and who has them.
pub(super) struct Places {
    shares: Shares,
    taken: Arc<Mutex<PlaceTable>>,
}

#[derive(Default)]
struct PlaceTable {
    next: u64,
    seats: HashMap<u64, Seat, foldhash::fast::FixedState>,
}

struct Seat {
    ip: IpAddr,
    connected_at: Moment,
    activity: Arc<Activity>,
    stream: Weak<PeerStream>,
}

/// What has been transferred over a connection.
#[derive(Default)]
struct Activity {
    has_spoken: AtomicBool,
    /// Nanoseconds since the session's start plus one; 0 for never.
    used_at: AtomicU64,
}

/// A place, given back when dropped. It may have been lost before: then the connection was closed,
/// and its torrent will hear of it.
pub(super) struct Place {
    number: u64,
    taken: Arc<Mutex<PlaceTable>>,
    activity: Arc<Activity>,
}

impl Places {
    pub(crate) fn new(shares: Shares) -> Self {
        Self { shares, taken: Arc::default() }
    }

    /// Takes one of `most` places for `stream`, which goes to `ip`. If all are taken, a useless
    /// connection may have to make way and is closed. Returns `None` if none does.
    pub(crate) fn take(
        &self,
        now: Moment,
        most: usize,
        ip: IpAddr,
        stream: &Arc<PeerStream>,
    ) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.seats.len() >= most {
            let occupants = taken.seats.iter().map(|(number, seat)| seat.occupant(*number));
            let number = who_makes_way(now, self.shares, ip, occupants)?;
            let seat = taken.seats.remove(&number);
            if let Some(seat) = seat {
                debug!(closed = %seat.ip, newcomer = %ip, "a useless connection was closed for a newcomer");
                if let Some(stream) = seat.stream.upgrade() {
                    net::hang_up(&stream);
                }
            }
            // The bound may have been lowered meanwhile.
            if taken.seats.len() >= most {
                return None;
            }
        }
        let number = taken.next;
        taken.next += 1;
        let activity = Arc::<Activity>::default();
        let seat = Seat {
            ip,
            connected_at: now,
            activity: Arc::clone(&activity),
            stream: Arc::downgrade(stream),
        };
        taken.seats.insert(number, seat);
        drop(taken);
        Some(Place { number, taken: Arc::clone(&self.taken), activity })
    }

    /// Returns whether [`Places::take`] would find a place now.
    pub(crate) fn has_one(&self, now: Moment, most: usize, ip: IpAddr) -> bool {
        let taken = self.taken.lock();
        let occupants = || taken.seats.iter().map(|(number, seat)| seat.occupant(*number));
        taken.seats.len() < most
            || taken.seats.len() == most
                && who_makes_way(now, self.shares, ip, occupants()).is_some()
    }

    /// Returns how many are taken.
    pub(crate) fn len(&self) -> usize {
        self.taken.lock().seats.len()
    }
}

impl Seat {
    fn occupant(&self, key: u64) -> Occupant<u64> {
        let used_at = self.activity.used_at.load(Ordering::Relaxed).checked_sub(1);
        Occupant {
            key,
            ip: self.ip,
            connected_at: self.connected_at,
            used_at: used_at.map(|nanos| Moment::from_start(Duration::from_nanos(nanos))),
            has_spoken: self.activity.has_spoken.load(Ordering::Relaxed),
        }
    }
}

impl Place {
    /// Notes that the peer has sent something.
    pub(crate) fn spoke(&self) {
        self.activity.has_spoken.store(true, Ordering::Relaxed);
    }

    /// Notes that a requested block was transferred.
    pub(crate) fn used(&self, now: Moment) {
        let nanos = u64::try_from(now.since_start().as_nanos()).unwrap_or(u64::MAX - 1);
        self.activity.used_at.store(nanos + 1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.lock().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    /// Both ends of a connection.
    async fn pair() -> (Arc<PeerStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (Arc::new(PeerStream::plain(accepted)), dialled)
    }

    #[tokio::test]
    async fn a_useless_connection_is_closed_for_a_newcomer_and_a_used_one_is_not() {
        let places = Places::new(Shares { public: 8, local: 64 });
        let [one, two] = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap());
        let mut held = Vec::new();
        for _ in 0..3 {
            let (ours, theirs) = pair().await;
            let place = places.take(at(0), 3, one, &ours).unwrap();
            held.push((place, ours, theirs));
        }
        held[0].0.used(at(1));
        held[0].0.spoke();
        held[1].0.spoke();
        let (stream, _theirs) = pair().await;
        let place = places.take(at(1), 3, two, &stream).unwrap();
        assert_eq!(places.len(), 3);
        // The third has sent nothing.
        held[2].2.readable().await.unwrap();
        assert_eq!(held[2].2.try_read(&mut [0]).unwrap(), 0);
        let (second, _theirs) = pair().await;
        held[1].0.used(at(1));
        assert!(places.take(at(1), 3, two, &second).is_none());
        drop(held.remove(2));
        assert_eq!(places.len(), 3, "it had lost its place before");
        drop((held, place));
        assert_eq!(places.len(), 0);
    }
}
