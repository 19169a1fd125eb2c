//! The answer to an announce: which peers it contains.

use std::net::SocketAddr;

use piecework_core::{Moment, PeerId, Rng};

use super::answers::{AnnounceAnswer, HandedPeer, PeerQuery};
use super::peers::{Family, Packed, Tick, tick_of, ticks};
use super::registry::Registry;
use super::select::{PeerLists, PeerPosition, Selection, SelectionPass};

impl Registry {
    /// Fills the empty `answer` to an announce. `asker` is the position of the announcing peer if it is listed.
    #[expect(clippy::too_many_arguments, reason = "the parameters of an announce")]
    pub(super) fn answer(
        &mut self,
        slot: usize,
        now: Moment,
        rng: &mut Rng,
        asker: Option<PeerPosition>,
        asker_complete: bool,
        want: PeerQuery,
        answer: &mut AnnounceAnswer,
    ) {
        let tick = tick_of(now);
        self.halve(slot, tick);
        self.choose(slot, tick, rng, asker, asker_complete, want, &mut answer.peers);
        let torrent = &mut self.torrents[slot];
        (answer.complete, answer.incomplete) = torrent.counts();
        if let Some(ledger) = &mut torrent.ledger {
            answer.catalogued = true;
            answer.first_in_second = ledger.is_first_in_second(now);
        }
        if want.ids {
            answer.ids.extend(answer.peers.iter().map(|peer| self.peer_id(slot, peer.addr)));
        }
    }

    /// Selects peers for an answer, adds them to `handed`, and counts them as handed out.
    #[expect(clippy::too_many_arguments, reason = "the parameters of an announce")]
    fn choose(
        &mut self,
        slot: usize,
        tick: Tick,
        rng: &mut Rng,
        asker: Option<PeerPosition>,
        asker_complete: bool,
        want: PeerQuery,
        handed: &mut Vec<HandedPeer>,
    ) {
        let alive_since = self.alive_since(tick);
        let balanced = self.config.selection == Selection::Balanced;
        let other = asker.and_then(|asker| self.torrents[slot].other_place(asker, &self.hasher));
        let torrent = &mut self.torrents[slot];
        let lists =
            PeerLists { v4: want.v4.then_some(&torrent.v4), v6: want.v6.then_some(&*torrent.v6) };
        let candidates = &mut self.candidates;
        let mut seeds = 0;
        // Peers that may be gone are better than none: perhaps the tracker itself cannot reach anybody.
        for lost in [false, true] {
            let mut look = SelectionPass {
                complete: false,
                balanced: false,
                except: [asker, other],
                alive_since,
                count: want.count,
                lost,
            };
            candidates.look(lists, &look, rng);
            let kept = candidates.put_aside(want.count);
            // A seed needs nothing from another seed.
            let count = if asker_complete { 0 } else { want.count - kept };
            look = SelectionPass { complete: true, balanced, count, ..look };
            seeds = candidates.look(lists, &look, rng).len();
            if seeds + candidates.aside().len() > 0 {
                break;
            }
        }
        let chosen = candidates.found().iter().chain(candidates.aside()).take(want.count);
        handed.reserve(want.count.min(seeds + candidates.aside().len()));
        for (at, (_, place)) in chosen.enumerate() {
            let addr = match *place {
                PeerPosition::V4(at) => assign(torrent.v4.get_mut(at as usize)),
                PeerPosition::V6(at) => assign(torrent.v6.get_mut(at as usize)),
            };
            if let Some(ledger) = &mut torrent.ledger {
                ledger.assign(addr);
            }
            handed.push(HandedPeer { addr, complete: at < seeds });
        }
    }

    pub(super) fn peer_id(&self, slot: usize, addr: SocketAddr) -> Option<PeerId> {
        let ledger = self.torrents[slot].ledger.as_ref();
        let known = ledger.and_then(|ledger| ledger.get(addr)?.peer_id);
        known.or_else(|| self.ids.get(slot, addr))
    }

    /// Halves a torrent's recent handout counts, once for each half-life that has passed.
    fn halve(&mut self, slot: usize, tick: Tick) {
        let half_life = ticks(self.config.half_life).max(1);
        let torrent = &mut self.torrents[slot];
        let times = (tick.0.saturating_sub(torrent.halved_at.0)) / half_life;
        if times == 0 {
            return;
        }
        torrent.halved_at = Tick(torrent.halved_at.0 + times * half_life);
        torrent.v4.halve(times);
        torrent.v6.halve(times);
        if let Some(ledger) = &mut torrent.ledger {
            ledger.halve(times);
        }
    }
}

fn assign<A: Family>(peer: &mut Packed<A>) -> SocketAddr {
    peer.recent = peer.recent.saturating_add(1);
    peer.addr()
}
