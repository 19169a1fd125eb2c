//! Finds out which peer sent a wrong block.
//!
//! If one peer gave a wrong piece alone, that peer is guilty. A wrong piece from several peers proves
//! nothing yet: the digest and sender of every block are kept, and the piece is fetched once more from one
//! peer alone. Once the piece is right, the peers whose blocks had other digests are guilty, and only they.
//! For a peer that gave a wrong piece alone, this shows afterwards which block it was.

use piecework_core::SaturatingFrom;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{BlockDigest, PeerIdentity};
use piecework_core::{Moment, PeerId, PieceIndex, Sha1Hash};

/// What is known against the peers of a torrent: which ones sent wrong blocks, are suspects, or are
/// refused.
#[derive(Debug, Default, PartialEq)]
pub struct Blame {
    trials: BTreeMap<PieceIndex, Vec<SuspectBlock>>,
    suspect_blocks: usize,
    /// Peers that had a part in wrong pieces, and in how many.
    suspects: BTreeMap<Suspect, u32>,
    bans: Bans,
}

/// Which peers are refused. Only what is proven counts. An address that we dialled is banned for good. An
/// IP address that several wrong pieces came from is refused for a time that grows with each piece. A peer
/// id is only a claim, so it is refused for a short time, so that a broken peer that connects again and
/// again does not spoil its address for others.
#[derive(Debug, Default, PartialEq)]
struct Bans {
    addrs: BTreeSet<SocketAddr>,
    ids: BTreeMap<(IpAddr, PeerId), Refusal>,
    ips: BTreeMap<IpAddr, Refusal>,
    /// Connections that are counted already: blocks that they sent before they were closed may be checked
    /// later.
    counted: BTreeSet<Suspect>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Refusal {
    wrong_pieces: u32,
    until: Moment,
}

/// A block of a piece that failed its hash check.
#[derive(Debug, PartialEq)]
struct SuspectBlock {
    index: u32,
    digest: BlockDigest,
    /// The hash of the piece with this block.
    hash: Sha1Hash,
    who: Arc<PeerIdentity>,
    /// The peer gave all of that piece, so it is guilty whichever block it was.
    is_known: bool,
}

/// A piece that failed its hash check: block `n` came from `who[giver_of[n]]` and has the digest
/// `digests[n]`.
#[derive(Debug)]
pub(super) struct CorruptPiece<'a> {
    pub(super) piece: PieceIndex,
    pub(super) hash: Sha1Hash,
    pub(super) who: &'a [Arc<PeerIdentity>],
    pub(super) giver_of: &'a [u32],
    pub(super) digests: &'a [BlockDigest],
}

/// A peer that is known to have sent a wrong block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) who: Arc<PeerIdentity>,
    pub(super) evidence: Difference,
    /// Its guilt was known before.
    pub(super) is_known: bool,
}

/// A block that was sent wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    /// Its number in the piece.
    pub(super) index: u32,
    /// The hash of the piece with this block.
    pub(super) hash: Sha1Hash,
    pub(super) sent: BlockDigest,
    pub(super) right: BlockDigest,
}

impl Blame {
    /// Handles a wrong piece. Returns the guilty peer if it is clear at once.
    pub(super) fn corrupt(&mut self, wrong: &CorruptPiece<'_>) -> Option<Arc<PeerIdentity>> {
        let CorruptPiece { piece, hash, who, giver_of, digests } = *wrong;
        let only = match who {
            [only] => Some(Arc::clone(only)),
            _ => None,
        };
        let suspects = if only.is_some() { &[] } else { who };
        for who in suspects {
            let key = suspect_key(who);
            if self.suspects.len() < MAX_SUSPECTS || self.suspects.contains_key(&key) {
                *self.suspects.entry(key).or_default() += 1;
            }
        }
        // What only adds evidence must not take the room of what finds the guilty peer.
        let most = if only.is_some() { MAX_SUSPECT_BLOCKS / 2 } else { MAX_SUSPECT_BLOCKS };
        if only.is_some() && self.suspect_blocks + digests.len() > most {
            return only;
        }
        let suspect_blocks = self.trials.entry(piece).or_default();
        for (index, (giver, digest)) in giver_of.iter().zip(digests).enumerate() {
            if self.suspect_blocks == most {
                break;
            }
            let Some(who) = who.get(*giver as usize) else { continue };
            suspect_blocks.push(SuspectBlock {
                index: u32::saturating_from(index),
                digest: *digest,
                hash,
                who: Arc::clone(who),
                is_known: only.is_some(),
            });
            self.suspect_blocks += 1;
        }
        only
    }

    /// Returns whether the piece was wrong before and it is not known because of whom, so that one peer
    /// must give it alone.
    pub(super) fn is_tried(&self, piece: PieceIndex) -> bool {
        let trial = self.trials.get(&piece);
        trial.is_some_and(|trial| trial.is_empty() || trial.iter().any(|block| !block.is_known))
    }

    /// Returns whether the digests of the piece's blocks are of use.
    pub(super) fn wants_digests(&self, piece: PieceIndex) -> bool {
        self.trials.contains_key(&piece)
    }

    /// Handles a right piece whose blocks have these digests. Returns each peer that sent a different block
    /// for it before, once.
    pub(super) fn verified(&mut self, piece: PieceIndex, digests: &[BlockDigest]) -> Vec<Verdict> {
        let Some(suspect_blocks) = self.trials.remove(&piece) else { return Vec::new() };
        self.suspect_blocks -= suspect_blocks.len();
        // A peer that gave a wrong piece together with others first and alone later was found out then.
        let known: BTreeSet<_> = suspect_blocks
            .iter()
            .filter(|block| block.is_known)
            .map(|block| suspect_key(&block.who))
            .collect();
        let mut guilty: Vec<Verdict> = Vec::new();
        let mut cleared: Vec<Arc<PeerIdentity>> = Vec::new();
        for block in suspect_blocks {
            let Some(digest) = digests.get(block.index as usize) else { continue };
            let list_has =
                |list: &[Arc<PeerIdentity>]| list.iter().any(|who| same(who, &block.who));
            let SuspectBlock { index, digest: sent, hash, is_known, .. } = block;
            if *digest == sent {
                if !is_known && !list_has(&cleared) {
                    cleared.push(block.who);
                }
            } else if !guilty.iter().any(|known| same(&known.who, &block.who)) {
                let evidence = Difference { index, hash, sent, right: *digest };
                let is_known = known.contains(&suspect_key(&block.who));
                guilty.push(Verdict { who: block.who, evidence, is_known });
            }
        }
        for who in cleared {
            // Once may be bad luck. A peer that had a part in two wrong pieces stays a suspect.
            if let Some(1) = self.suspects.get(&suspect_key(&who)) {
                self.suspects.remove(&suspect_key(&who));
            }
        }
        guilty
    }

    /// Returns whether the peer had a part in a wrong piece.
    pub(super) fn is_suspect(&self, who: &PeerIdentity) -> bool {
        self.suspects.contains_key(&suspect_key(who))
    }

    /// Bans a peer that has sent a wrong piece.
    pub(super) fn ban(&mut self, now: Moment, who: &PeerIdentity) {
        let connection = suspect_key(who);
        self.suspects.remove(&connection);
        let bans = &mut self.bans;
        if bans.counted.len() == MAX_BANS {
            bans.counted.pop_first();
        }
        if !bans.counted.insert(connection) {
            return;
        }
        if who.is_dialled() {
            if bans.addrs.len() == MAX_BANS {
                bans.addrs.pop_first();
            }
            bans.addrs.insert(canonical(who.addr));
        }
        let ip = who.addr.ip().to_canonical();
        let of_id = refuse(&mut bans.ids, (ip, who.id), now);
        of_id.until = now + ID_REFUSED * doubled(of_id.wrong_pieces - 1);
        let of_ip = refuse(&mut bans.ips, ip, now);
        if of_ip.wrong_pieces >= WRONG_PIECES_OF_AN_IP && !ip.is_loopback() {
            of_ip.until = now + IP_REFUSED * doubled(of_ip.wrong_pieces - WRONG_PIECES_OF_AN_IP);
        }
    }

    /// Returns whether a peer that we dialled at this address has sent a wrong piece.
    pub(super) fn is_banned_addr(&self, addr: SocketAddr) -> bool {
        self.bans.addrs.contains(&canonical(addr))
    }

    /// Returns whether an incoming connection from that address, of a peer with that id, is refused.
    pub(super) fn is_refused(&self, now: Moment, addr: SocketAddr, id: PeerId) -> bool {
        let ip = addr.ip().to_canonical();
        let of_id = self.bans.ids.get(&(ip, id));
        of_id.is_some_and(|refusal| now < refusal.until) || self.refused_until(now, ip).is_some()
    }

    /// Returns until when peers of that IP address are refused if they have not proven good. Many peers may
    /// share an address, but not many bad ones. The loopback address is never refused, because all peers of
    /// one machine share it.
    pub(super) fn refused_until(&self, now: Moment, ip: IpAddr) -> Option<Moment> {
        let refusal = self.bans.ips.get(&ip.to_canonical())?;
        Some(refusal.until).filter(|until| now < *until)
    }
}

/// Counts a wrong piece. Makes room by removing what is refused no longer, or for the shortest time.
fn refuse<K: Ord + Copy>(refusals: &mut BTreeMap<K, Refusal>, key: K, now: Moment) -> &mut Refusal {
    if refusals.len() >= MAX_BANS && !refusals.contains_key(&key) {
        let least = refusals.iter().min_by_key(|(_, refusal)| refusal.until);
        if let Some(least) = least.map(|(key, _)| *key) {
            refusals.remove(&least);
        }
    }
    let refusal = refusals.entry(key).or_insert(Refusal { wrong_pieces: 0, until: now });
    refusal.wrong_pieces = refusal.wrong_pieces.saturating_add(1);
    refusal
}

/// Returns the factor for that many doublings, at most 64.
fn doubled(times: u32) -> u32 {
    1 << times.min(6)
}

/// A connection. A peer that copies another's peer id has a different address.
type Suspect = (SocketAddr, PeerId);

fn suspect_key(who: &PeerIdentity) -> Suspect {
    (canonical(who.addr), who.id)
}

fn same(a: &PeerIdentity, b: &PeerIdentity) -> bool {
    suspect_key(a) == suspect_key(b)
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// After this many wrong pieces from separate connections, the IP address they came from is refused.
const WRONG_PIECES_OF_AN_IP: u32 = 3;

/// How long an IP address is refused then. Twice as long with each further wrong piece, up to an hour. Not
/// for good, since others may use it.
const IP_REFUSED: Duration = Duration::from_secs(60);

/// The same for a peer id at an IP address after its first wrong piece.
const ID_REFUSED: Duration = Duration::from_secs(60);

/// Maximum number of blocks of wrong pieces, 64 bytes each: 16 pieces of 64 MiB. Without them a piece is
/// still fetched from one peer alone, which is then found out if it is the bad one.
const MAX_SUSPECT_BLOCKS: usize = 65_536;

/// Maximum number of suspects.
const MAX_SUSPECTS: usize = 4_096;

/// Maximum number of bans of each kind.
const MAX_BANS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Arc<PeerIdentity> {
        peer_at(&format!("10.0.0.{number}:{number}"), number)
    }

    fn peer_at(addr: &str, number: u8) -> Arc<PeerIdentity> {
        let id = PeerId([number; 20]);
        let addr = addr.parse().unwrap();
        Arc::new(PeerIdentity { addr, listens_at: None, id, client: String::new() })
    }

    fn digests(bytes: &[u8]) -> Vec<BlockDigest> {
        bytes.iter().map(|byte| BlockDigest([*byte; 20])).collect()
    }

    const PIECE: PieceIndex = PieceIndex(7);
    const HASH: Sha1Hash = Sha1Hash([9; 20]);

    fn corrupt(
        blame: &mut Blame,
        piece: PieceIndex,
        who: &[Arc<PeerIdentity>],
        giver_of: &[u32],
        blocks: &[u8],
    ) -> Option<Arc<PeerIdentity>> {
        let digests = &digests(blocks)[..];
        blame.corrupt(&CorruptPiece { piece, hash: HASH, who, giver_of, digests })
    }

    #[test]
    fn who_gave_a_wrong_piece_alone_is_guilty_at_once() {
        let mut blame = Blame::default();
        let guilty = corrupt(&mut blame, PIECE, &[peer(1)], &[0, 0], b"aX");
        assert_eq!(guilty, Some(peer(1)));
        // No trial is needed, but it is found out which block it was.
        assert!(!blame.is_tried(PIECE) && blame.wants_digests(PIECE));
        let [Verdict { who, evidence, is_known: true }] =
            &blame.verified(PIECE, &digests(b"ab"))[..]
        else {
            panic!()
        };
        assert_eq!((who, evidence.index), (&peer(1), 1));
        assert_eq!((evidence.sent, evidence.right), (digests(b"X")[0], digests(b"b")[0]));
        assert_eq!(evidence.hash, HASH);
    }

    #[test]
    fn only_the_sender_of_the_wrong_block_is_named() {
        let mut blame = Blame::default();
        let who = [peer(1), peer(2), peer(3)];
        assert_eq!(corrupt(&mut blame, PIECE, &who, &[0, 1, 2, 1], b"abXd"), None);
        assert!(blame.is_tried(PIECE) && blame.is_suspect(&peer(1)));
        let guilty = blame.verified(PIECE, &digests(b"abcd"));
        assert_eq!(guilty.len(), 1);
        assert_eq!((&guilty[0].who, guilty[0].evidence.index), (&peer(3), 2));
        assert!(!guilty[0].is_known);
        assert!(!blame.is_tried(PIECE) && !blame.is_suspect(&peer(1)));
    }

    #[test]
    fn several_failures_are_all_remembered() {
        let mut blame = Blame::default();
        corrupt(&mut blame, PIECE, &[peer(1), peer(2)], &[0, 1], b"Xb");
        corrupt(&mut blame, PIECE, &[peer(3), peer(2)], &[1, 0], b"aY");
        let guilty = blame.verified(PIECE, &digests(b"ab"));
        let named: Vec<_> = guilty.iter().map(|g| (g.who.id.0[0], g.evidence.index)).collect();
        assert_eq!(named, [(1, 0), (3, 1)]);
    }

    #[test]
    fn who_gave_a_wrong_piece_with_others_and_then_alone_is_found_out_once() {
        let mut blame = Blame::default();
        corrupt(&mut blame, PIECE, &[peer(1), peer(2)], &[0, 1], b"Xb");
        assert_eq!(corrupt(&mut blame, PIECE, &[peer(1)], &[0, 0], b"Xb"), Some(peer(1)));
        let guilty = blame.verified(PIECE, &digests(b"ab"));
        let named: Vec<_> = guilty.iter().map(|g| (g.who.id.0[0], g.is_known)).collect();
        assert_eq!(named, [(1, true)]);
    }

    #[test]
    fn twice_suspect_stays_suspect() {
        let mut blame = Blame::default();
        for piece in 0..2 {
            corrupt(&mut blame, PieceIndex(piece), &[peer(1), peer(2)], &[0, 1], b"Xb");
        }
        blame.verified(PieceIndex(0), &digests(b"ab"));
        blame.verified(PieceIndex(1), &digests(b"ab"));
        assert!(blame.is_suspect(&peer(2)));
    }

    fn at(secs: u64) -> Moment {
        Moment::START + Duration::from_secs(secs)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A peer that we dialled.
    fn dialled(text: &str, number: u8) -> PeerIdentity {
        PeerIdentity { listens_at: Some(addr(text)), ..(*peer_at(text, number)).clone() }
    }

    #[test]
    fn an_address_that_we_dialled_is_banned_for_good_and_no_other() {
        let mut blame = Blame::default();
        blame.ban(at(0), &dialled("10.0.0.1:6881", 1));
        assert!(blame.is_banned_addr(addr("10.0.0.1:6881")));
        assert!(blame.is_banned_addr(addr("[::ffff:10.0.0.1]:6881")));
        assert!(!blame.is_banned_addr(addr("10.0.0.1:6882")));
        // A peer that claims to listen there, and came from elsewhere, spoils nobody's address.
        let liar = PeerIdentity {
            listens_at: Some(addr("10.0.0.1:6882")),
            ..(*peer_at("10.0.0.1:50000", 2)).clone()
        };
        blame.ban(at(0), &liar);
        assert!(!blame.is_banned_addr(addr("10.0.0.1:6882")));
        assert!(!blame.is_banned_addr(addr("10.0.0.1:50000")));
    }

    #[test]
    fn a_name_is_refused_for_a_while_and_longer_each_time() {
        let mut blame = Blame::default();
        let bad = peer_at("10.0.0.1:5000", 1);
        blame.ban(at(0), &bad);
        for from in ["10.0.0.1:7777", "[::ffff:10.0.0.1]:7777"] {
            assert!(blame.is_refused(at(59), addr(from), bad.id));
            assert!(!blame.is_refused(at(60), addr(from), bad.id));
            assert!(!blame.is_refused(at(0), addr(from), PeerId([2; 20])));
        }
        // More of what it had sent is checked.
        blame.ban(at(60), &bad);
        assert!(!blame.is_refused(at(60), bad.addr, bad.id));
        blame.ban(at(100), &peer_at("10.0.0.1:5001", 1));
        assert!(blame.is_refused(at(219), bad.addr, bad.id));
        assert!(!blame.is_refused(at(220), bad.addr, bad.id));
    }

    #[test]
    fn an_ip_address_is_refused_after_several_wrong_pieces_and_longer_each_time() {
        let mut blame = Blame::default();
        let (other, ip) = (PeerId([99; 20]), addr("10.0.0.1:1").ip());
        for number in 1..=2 {
            blame.ban(at(0), &peer_at("10.0.0.1:5000", number));
        }
        assert!(!blame.is_refused(at(0), addr("10.0.0.1:1"), other));
        blame.ban(at(0), &peer_at("10.0.0.1:5000", 3));
        assert!(blame.is_refused(at(59), addr("10.0.0.1:1"), other));
        assert!(!blame.is_refused(at(60), addr("10.0.0.1:1"), other));
        assert_eq!(blame.refused_until(at(60), ip), None);
        for number in 4..100 {
            blame.ban(at(60), &peer_at("10.0.0.1:5000", number));
        }
        assert_eq!(blame.refused_until(at(60), ip), Some(at(60 + 64 * 60)));
    }

    #[test]
    fn loopback_is_never_refused_as_a_whole() {
        let mut blame = Blame::default();
        for number in 1..20 {
            blame.ban(at(0), &peer_at("127.0.0.1:5000", number));
        }
        assert!(!blame.is_refused(at(0), addr("127.0.0.1:1"), PeerId([99; 20])));
    }

    #[test]
    fn bans_are_bounded() {
        let mut blame = Blame::default();
        for number in 0..10_000u32 {
            let ip = IpAddr::V4((0x0a00_0000 + number).into());
            let text = SocketAddr::new(ip, 1).to_string();
            blame.ban(at(u64::from(number)), &dialled(&text, 1));
        }
        let Bans { addrs, ids, ips, counted } = &blame.bans;
        assert_eq!([addrs.len(), ids.len(), ips.len(), counted.len()], [MAX_BANS; 4]);
    }

    #[test]
    fn evidence_is_bounded() {
        let mut blame = Blame::default();
        let giver_of: Vec<u32> = (0..4096).map(|n| n % 2).collect();
        for piece in 0..100 {
            corrupt(&mut blame, PieceIndex(piece), &[peer(1)], &giver_of, &[0; 4096]);
        }
        assert!(blame.suspect_blocks <= MAX_SUSPECT_BLOCKS / 2);
        for piece in 100..200 {
            let two = [peer(1), peer(2)];
            corrupt(&mut blame, PieceIndex(piece), &two, &giver_of, &[0; 4096]);
        }
        assert_eq!(blame.suspect_blocks, MAX_SUSPECT_BLOCKS);
    }
}
