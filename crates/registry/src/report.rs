//! What peers report of their holdings.

use std::net::SocketAddr;

use piecework_core::{AnnounceKey, Bitfield, InfoHash, Moment};

use super::answers::{Refusal, Reporter};
use super::guesses::{Guesses, is_guessable};
use super::held::{Held, HoldingsSource};
use super::ledger::Ledger;
use super::peers::Standing;
use super::registry::Registry;

impl Registry {
    /// Notes which pieces a peer says it holds.
    ///
    /// # Errors
    /// If the torrent is not catalogued, the peer has not announced, the key is another than the
    /// one announced, or the bytes are no bitfield of the torrent. A peer is known by address and
    /// port; one that announced over another address than it reports from, by its key. Where too many
    /// wrong keys came from, short ones are refused unseen.
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
        // One that was only taken in has said no key yet.
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
        let held = Held::of(Bitfield::from_wire(bitfield, ledger.pieces)?);
        let reported = Some(HoldingsSource::Reported);
        let is_new = ledger.get(addr).is_some_and(|facts| facts.source != reported);
        self.tell(now, slot, addr, held, HoldingsSource::Reported)?;
        let torrent = &mut self.torrents[slot];
        if let Some(place) = torrent.find(addr.ip(), addr.port(), &self.hasher)
            && let Some(standing) = match torrent.standing(place) {
                Standing::Unchecked => Some(Standing::Seen),
                Standing::Lost => Some(Standing::Refused),
                Standing::Seen | Standing::Refused => None,
            }
        {
            torrent.set_standing(place, standing, &self.hasher);
        }
        if is_new {
            // Who observes need not read from it what it tells by itself.
            self.sightings.announced(torrent, addr, None);
        }
        Ok(())
    }
}

/// The only peer that announces the port of `from` with `key`, though at another address.
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
        // None, or some that cannot be told apart.
        _ => None,
    }
}
