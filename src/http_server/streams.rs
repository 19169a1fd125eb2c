//! How many streams of events there are, in all and to each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::network_of;

/// The streams that are open.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    most_per_ip: usize,
    open: Mutex<Open>,
}

/// A stream's place, given back when dropped.
#[derive(Debug)]
pub struct StreamPlace {
    streams: Arc<Streams>,
    ip: IpAddr,
}

/// There is no place for another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyStreams {
    /// Over all addresses.
    #[error("there are too many streams of events, `{0}` at most: end one")]
    InAll(usize),
    /// To the one that asks.
    #[error("your address has too many streams of events, `{0}` at most: end one")]
    ToOne(usize),
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl Streams {
    /// None yet, and never more than `most`; no more than `most_per_ip` to one IPv4 address or IPv6
    /// /64. Loopback is not counted: proxies come from there.
    pub fn new(most: usize, most_per_ip: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_ip, open: Mutex::default() })
    }

    /// A place for a stream to `ip`.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<StreamPlace, TooManyStreams> {
        let ip = network_of(ip);
        let mut open = self.open.lock();
        if open.all >= self.most {
            return Err(TooManyStreams::InAll(self.most));
        }
        let here = open.by_ip.get(&ip).copied().unwrap_or(0);
        if here >= self.most_per_ip && !ip.is_loopback() {
            return Err(TooManyStreams::ToOne(self.most_per_ip));
        }
        open.by_ip.insert(ip, here + 1);
        open.all += 1;
        Ok(StreamPlace { streams: Arc::clone(self), ip })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        open.all -= 1;
        if let Some(here) = open.by_ip.get_mut(&self.ip) {
            *here -= 1;
            if *here == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

/// Streams to one address at most, in daemon and tracker. A page has one.
pub const STREAMS_PER_IP: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_bounded_by_address_and_in_all_and_given_back() {
        let streams = Streams::new(4, 2);
        let take = |ip: &str| streams.take(ip.parse().unwrap());
        let first = take("192.0.2.1").unwrap();
        let second = take("::ffff:192.0.2.1").unwrap();
        let refusal = take("192.0.2.1").unwrap_err();
        assert_eq!(refusal, TooManyStreams::ToOne(2));
        assert!(refusal.to_string().contains("`2` at most"), "{refusal}");
        drop(first);
        let third = take("192.0.2.1").unwrap();
        let here = [take("127.0.0.1").unwrap(), take("127.0.0.1").unwrap()];
        assert_eq!(take("127.0.0.1").unwrap_err(), TooManyStreams::InAll(4));
        drop((second, third, here));
        let open = streams.open.lock();
        assert!(open.all == 0 && open.by_ip.is_empty());
    }
}
