//! Limits on streams of events, in all and to each address.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Senders;
use super::shares::{NoPlace, SharedPlaces};

/// The open streams.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    most_per_ip: usize,
    shares: Mutex<SharedPlaces>,
}

/// The place of a stream. Dropping it releases the place.
#[derive(Debug)]
pub struct StreamPlace {
    streams: Arc<Streams>,
    peer: SocketAddr,
}

/// There is no place for another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyStreams {
    /// The overall limit is reached.
    #[error("there are too many streams of events, `{0}` at most: end one")]
    InAll(usize),
    /// The limit for the client's address is reached.
    #[error("your address has too many streams of events, `{0}` at most: end one")]
    ToOne(usize),
}

impl Streams {
    /// Returns limits of `most` streams in all and `most_per_ip` to one IPv4 address or IPv6 /64. Loopback may have
    /// three quarters of all instead, and each user of this machine half of these.
    pub fn new(most: usize, most_per_ip: usize) -> Arc<Self> {
        let shares = Mutex::new(SharedPlaces::new(most, most_per_ip));
        Arc::new(Self { most, most_per_ip, shares })
    }

    /// Takes a place for a stream to `peer`.
    ///
    /// # Errors
    /// If there is no place.
    pub fn take(self: &Arc<Self>, peer: SocketAddr) -> Result<StreamPlace, TooManyStreams> {
        let mut shares = self.shares.lock();
        shares.take(peer, Senders::now).map_err(|refusal| match refusal {
            NoPlace::InAll => TooManyStreams::InAll(self.most),
            NoPlace::ToOne if peer.ip().to_canonical().is_loopback() => {
                TooManyStreams::ToOne(shares.each_user())
            }
            NoPlace::ToOne => TooManyStreams::ToOne(self.most_per_ip),
        })?;
        drop(shares);
        Ok(StreamPlace { streams: Arc::clone(self), peer })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.streams.shares.lock().give_back(self.peer);
    }
}

/// The maximum number of streams to one address, in daemon and tracker. A page has one.
pub const STREAMS_PER_IP: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_bounded_by_address_and_in_all_and_given_back() {
        let streams = Streams::new(4, 2);
        let take = |addr: &str| streams.take(addr.parse().unwrap());
        let first = take("192.0.2.1:1").unwrap();
        let second = take("[::ffff:192.0.2.1]:2").unwrap();
        let refusal = take("192.0.2.1:3").unwrap_err();
        assert_eq!(refusal, TooManyStreams::ToOne(2));
        assert!(refusal.to_string().contains("`2` at most"), "{refusal}");
        drop(first);
        let third = take("192.0.2.1:4").unwrap();
        let others = [take("127.0.0.1:5").unwrap(), take("192.0.2.2:1").unwrap()];
        assert_eq!(take("192.0.2.3:6").unwrap_err(), TooManyStreams::InAll(4));
        drop((second, third, others));
        assert_eq!(streams.shares.lock().taken(), 0);
    }
}
