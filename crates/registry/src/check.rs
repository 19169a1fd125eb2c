//! Invariants that hold between two calls.

use super::registry::Registry;

impl Registry {
    /// Panics if the parts contradict each other.
    #[doc(hidden)]
    pub fn check(&self) {
        let mut peers = 0;
        let mut held = 0;
        assert_eq!(self.by_hash.len(), self.torrents.len());
        self.openers.check(self.torrents.iter().filter_map(|(_, torrent)| torrent.opener));
        for (slot, torrent) in &self.torrents {
            assert_eq!(self.find(torrent.info_hash), Some(slot));
            torrent.v4.check(&self.hasher);
            torrent.v6.check(&self.hasher);
            let here = torrent.v4.len() + torrent.v6.len();
            let v4 = torrent.v4.iter().map(|(peer, _)| peer.seen);
            let mut seen = v4.chain(torrent.v6.iter().map(|(peer, _)| peer.seen));
            assert!(seen.all(|seen| seen >= torrent.oldest));
            peers += here;
            match &torrent.ledger {
                Some(ledger) => {
                    ledger.check();
                    let mut counts = (0, 0);
                    let v4 = torrent.v4.iter().map(|(peer, all)| (peer.addr(), all));
                    let v6 = torrent.v6.iter().map(|(peer, all)| (peer.addr(), all));
                    for (addr, all) in v4.chain(v6) {
                        if !ledger.is_second(addr) {
                            *if all { &mut counts.0 } else { &mut counts.1 } += 1;
                        }
                        if ledger.other(addr).is_some() {
                            assert_eq!(ledger.get(addr).unwrap().complete, all);
                        }
                    }
                    assert_eq!(torrent.counts(), counts);
                    assert!(ledger.len() <= here);
                    held += ledger.held_bytes();
                }
                None => assert!(here > 0, "an idle torrent is forgotten"),
            }
        }
        assert_eq!((peers, held), (self.peers, self.held_bytes));
        for (slot, addr) in self.ids.iter() {
            assert!(self.torrents[slot].find(addr.ip(), addr.port(), &self.hasher).is_some());
        }
    }
}
