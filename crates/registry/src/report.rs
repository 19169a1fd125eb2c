//! Reports of holdings.

use std::net::SocketAddr;

use piecework_core::{AnnounceKey, Bitfield, InfoHash, Moment};

use super::answers::{Refusal, Reporter};
use super::guesses::{Guesses, is_guessable};
use super::holdings::{Holdings, HoldingsSource};
use super::ledger::Ledger;
use super::peers::Reachability;
use super::registry::Registry;

impl Registry {
    /// Records which pieces a peer reports to hold.
    ///
    /// # Errors
    /// If the torrent is not catalogued, the peer has not announced, the key differs from the announced one, or the
    /// bytes are not a bitfield of the torrent. A peer is identified by address and port, or by its key if it
    /// announced over another address. From a network that sent too many wrong keys, short keys are refused without
    /// a comparison.
    pub fn report(
        &mut self,
        now: Moment,
        info_hash: InfoHash,
        reporter: Reporter,
        bitfield: &[u8],
    ) -> Result<(), Refusal> {
        let slot = self.find(info_hash).ok_or(Refusal::NotCatalogued)?;
        let ledger = self.torrents[slot].ledger.as_mut().ok_or(Refusal::NotCatalogued)?;
        let from = SocketAddr::new(reporter.ip.to_canonical(), reporter.port);
        // A peer that was taken over from before the torrent was catalogued has not announced a key yet.
        let addr = match ledger.get(from).filter(|facts| facts.peer_id.is_some()) {
            Some(facts) => {
                if let Some(known) = facts.key {
                    let told = reporter.key.ok_or(Refusal::WrongKey)?;
                    if !self.guesses.admits(now, from.ip(), known, told) {
                        let too_many = self.guesses.are_too_many(now, from.ip());
                        return Err(match too_many && is_guessable(known, told) {
                            true => Refusal::TooManyKeys,
                            false => Refusal::WrongKey,
                        });
                    }
                }
                from
            }
            None => {
                let told = reporter.key.ok_or(Refusal::UnknownPeer(from))?;
                find_by_key(ledger, &mut self.guesses, now, from, told)
                    .ok_or(Refusal::UnknownPeer(from))?
            }
        };
        if let Some(key) = reporter.key {
            ledger.showed_key(now, addr, key);
        }
        let held = Holdings::of(Bitfield::from_wire(bitfield, ledger.pieces)?);
        let reported = Some(HoldingsSource::Reported);
        let is_new = ledger.get(addr).is_some_and(|facts| facts.source != reported);
        self.tell(now, slot, addr, held, HoldingsSource::Reported)?;
        let torrent = &mut self.torrents[slot];
        if let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher)
            && let Some(reachability) = match torrent.reachability(place) {
                Reachability::Unchecked => Some(Reachability::Seen),
                Reachability::Lost => Some(Reachability::Refused),
                Reachability::Seen | Reachability::Refused => None,
            }
        {
            torrent.set_reachability(place, reachability, &self.hasher);
        }
        if is_new {
            // The observer need not visit a peer that reports by itself.
            self.observer_events.announced(torrent, addr, None);
        }
        Ok(())
    }
}

/// Returns the address of the peer that announces the port of `from` with `key` at another address, if there is
/// exactly one.
fn find_by_key(
    ledger: &Ledger,
    guesses: &mut Guesses,
    now: Moment,
    from: SocketAddr,
    key: AnnounceKey,
) -> Option<SocketAddr> {
    let too_many = guesses.are_too_many(now, from.ip());
    let (mut found, mut guessed) = (Vec::new(), false);
    for (addr, known) in ledger.keys_at_port(from.port()) {
        let guessable = is_guessable(known, key);
        if too_many && guessable {
            continue;
        }
        guessed |= guessable;
        if known.is_same(key) {
            found.push(addr);
        }
    }
    if found.is_empty() && guessed {
        guesses.add(now, from.ip());
    }
    match found[..] {
        [addr] => Some(addr),
        // None, or several that cannot be distinguished.
        _ => None,
    }
}
