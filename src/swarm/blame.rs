//! Who sent the wrong block.
//!
//! A piece that one peer gave alone and that is wrong, is its fault. A wrong piece from several
//! peers says nothing yet: the digest and sender of every block are kept, and the piece is fetched
//! once more, from one peer alone. When it is right at last, whoever's block had another digest is
//! guilty, and only they. For who gave a wrong piece alone the same tells afterwards which block it
//! was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{BlockDigest, PeerIdentity};
use crate::base::{PeerId, PieceIndex, Sha1Hash};

#[derive(Debug, Default)]
pub(super) struct Blame {
    trials: BTreeMap<PieceIndex, Vec<Exhibit>>,
    exhibits: usize,
    /// Peers that had a part in wrong pieces, and in how many.
    suspects: BTreeMap<(IpAddr, PeerId), u32>,
    bans: Bans,
}

/// Who may not come back.
#[derive(Debug, Default)]
struct Bans {
    ids: BTreeSet<(IpAddr, PeerId)>,
    addrs: BTreeSet<SocketAddr>,
    /// Banned identities of each address.
    ips: BTreeMap<IpAddr, u32>,
}

/// A block of a piece that came out wrong.
#[derive(Debug)]
struct Exhibit {
    index: u32,
    digest: BlockDigest,
    /// The hash of the piece that it came in.
    hash: Sha1Hash,
    who: Arc<PeerIdentity>,
    /// It gave all of that piece, and so is guilty whichever block it was.
    is_known: bool,
}

/// A piece that came out wrong: block `n` came from `who[giver_of[n]]` and has the digest
/// `digests[n]`.
#[derive(Debug)]
pub(super) struct Wrong<'a> {
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
    /// The hash of the piece that it came in.
    pub(super) hash: Sha1Hash,
    pub(super) sent: BlockDigest,
    pub(super) right: BlockDigest,
}

impl Blame {
    /// A piece is wrong. Names the guilty one if that is clear at once.
    pub(super) fn corrupt(&mut self, wrong: &Wrong<'_>) -> Option<Arc<PeerIdentity>> {
        let Wrong { piece, hash, who, giver_of, digests } = *wrong;
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
        // What only adds to the evidence must not take the room of what finds the guilty.
        let most = if only.is_some() { MAX_EXHIBITS / 2 } else { MAX_EXHIBITS };
        if only.is_some() && self.exhibits + digests.len() > most {
            return only;
        }
        let exhibits = self.trials.entry(piece).or_default();
        for (index, (giver, digest)) in giver_of.iter().zip(digests).enumerate() {
            if self.exhibits == most {
                break;
            }
            let Some(who) = who.get(*giver as usize) else { continue };
            exhibits.push(Exhibit {
                index: index as u32,
                digest: *digest,
                hash,
                who: Arc::clone(who),
                is_known: only.is_some(),
            });
            self.exhibits += 1;
        }
        only
    }

    /// Whether the piece came out wrong before and it is not known by whom, so that one peer is to
    /// give it alone.
    pub(super) fn is_tried(&self, piece: PieceIndex) -> bool {
        let trial = self.trials.get(&piece);
        trial.is_some_and(|trial| trial.is_empty() || trial.iter().any(|exhibit| !exhibit.is_known))
    }

    /// Whether the digests of the piece's blocks would tell anything.
    pub(super) fn wants_digests(&self, piece: PieceIndex) -> bool {
        self.trials.contains_key(&piece)
    }

    /// A piece is right and its blocks have these digests. Names everyone who sent another block
    /// for it before, once.
    pub(super) fn verified(&mut self, piece: PieceIndex, digests: &[BlockDigest]) -> Vec<Verdict> {
        let Some(exhibits) = self.trials.remove(&piece) else { return Vec::new() };
        self.exhibits -= exhibits.len();
        // Who gave a wrong piece together with others first and alone later was found out then.
        let known: BTreeSet<_> = exhibits
            .iter()
            .filter(|exhibit| exhibit.is_known)
            .map(|exhibit| suspect_key(&exhibit.who))
            .collect();
        let mut guilty: Vec<Verdict> = Vec::new();
        let mut cleared: Vec<Arc<PeerIdentity>> = Vec::new();
        for exhibit in exhibits {
            let Some(digest) = digests.get(exhibit.index as usize) else { continue };
            let list_has =
                |list: &[Arc<PeerIdentity>]| list.iter().any(|who| same(who, &exhibit.who));
            let Exhibit { index, digest: sent, hash, is_known, .. } = exhibit;
            if *digest == sent {
                if !is_known && !list_has(&cleared) {
                    cleared.push(exhibit.who);
                }
            } else if !guilty.iter().any(|known| same(&known.who, &exhibit.who)) {
                let evidence = Difference { index, hash, sent, right: *digest };
                let is_known = known.contains(&suspect_key(&exhibit.who));
                guilty.push(Verdict { who: exhibit.who, evidence, is_known });
            }
        }
        for who in cleared {
            // Once may be bad luck. Who had a part in two wrong pieces stays suspect.
            if let Some(1) = self.suspects.get(&suspect_key(&who)) {
                self.suspects.remove(&suspect_key(&who));
            }
        }
        guilty
    }

    /// Whether the peer had a part in a piece that came out wrong.
    pub(super) fn is_suspect(&self, who: &PeerIdentity) -> bool {
        self.suspects.contains_key(&suspect_key(who))
    }

    /// Bans a peer, and the address it listens at if that is known.
    pub(super) fn ban(&mut self, who: &PeerIdentity, listens_at: Option<SocketAddr>) {
        let (ip, id) = suspect_key(who);
        self.suspects.remove(&(ip, id));
        let bans = &mut self.bans;
        if bans.ids.len() == MAX_BANS {
            bans.ids.pop_first();
        }
        if bans.ids.insert((ip, id)) && (bans.ips.len() < MAX_BANS || bans.ips.contains_key(&ip)) {
            *bans.ips.entry(ip).or_default() += 1;
        }
        if let Some(addr) = listens_at {
            if bans.addrs.len() == MAX_BANS {
                bans.addrs.pop_first();
            }
            bans.addrs.insert(canonical(addr));
        }
    }

    /// Whether the address may not be dialled.
    pub(super) fn is_banned_addr(&self, addr: SocketAddr) -> bool {
        let addr = canonical(addr);
        self.bans.addrs.contains(&addr) || self.is_banned_ip(addr.ip())
    }

    /// Whether a peer of that name may not connect from that address.
    pub(super) fn is_banned_peer(&self, addr: SocketAddr, id: PeerId) -> bool {
        let ip = addr.ip().to_canonical();
        self.bans.ids.contains(&(ip, id)) || self.is_banned_ip(ip)
    }

    /// Many peers may share an address, but not many bad ones. All of one machine's do share the
    /// loopback address.
    fn is_banned_ip(&self, ip: IpAddr) -> bool {
        !ip.is_loopback() && self.bans.ips.get(&ip).is_some_and(|count| *count >= BANS_FOR_AN_IP)
    }
}

fn suspect_key(who: &PeerIdentity) -> (IpAddr, PeerId) {
    (who.addr.ip().to_canonical(), who.id)
}

fn same(a: &PeerIdentity, b: &PeerIdentity) -> bool {
    suspect_key(a) == suspect_key(b)
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Banned identities after which their whole address is.
const BANS_FOR_AN_IP: u32 = 3;

/// Blocks of wrong pieces remembered, 64 bytes each: 16 pieces of 64 MiB. Without them a piece is
/// still fetched from one peer alone, which is then found out if it is the bad one.
const MAX_EXHIBITS: usize = 65_536;

/// Suspects remembered.
const MAX_SUSPECTS: usize = 4_096;

/// Bans remembered of each kind.
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
        blame.corrupt(&Wrong { piece, hash: HASH, who, giver_of, digests })
    }

    #[test]
    fn who_gave_a_wrong_piece_alone_is_guilty_at_once() {
        let mut blame = Blame::default();
        let guilty = corrupt(&mut blame, PIECE, &[peer(1)], &[0, 0], b"aX");
        assert_eq!(guilty, Some(peer(1)));
        // Nobody has to prove anything, but which block it was is found out.
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

    #[test]
    fn bans_name_peer_and_address_and_at_last_the_whole_host() {
        let mut blame = Blame::default();
        let bad = peer_at("10.0.0.1:5000", 1);
        blame.ban(&bad, Some("10.0.0.1:6881".parse().unwrap()));
        assert!(blame.is_banned_peer("10.0.0.1:7777".parse().unwrap(), bad.id));
        assert!(blame.is_banned_peer("[::ffff:10.0.0.1]:7777".parse().unwrap(), bad.id));
        assert!(blame.is_banned_addr("10.0.0.1:6881".parse().unwrap()));
        assert!(!blame.is_banned_addr("10.0.0.1:6882".parse().unwrap()));
        assert!(!blame.is_banned_peer(bad.addr, PeerId([2; 20])));
        blame.ban(&peer_at("10.0.0.1:5000", 2), None);
        blame.ban(&peer_at("10.0.0.1:5000", 2), None);
        assert!(!blame.is_banned_peer(bad.addr, PeerId([4; 20])));
        blame.ban(&peer_at("10.0.0.1:5000", 3), None);
        assert!(blame.is_banned_peer(bad.addr, PeerId([4; 20])));
        assert!(blame.is_banned_addr("10.0.0.1:6882".parse().unwrap()));
    }

    #[test]
    fn loopback_is_never_banned_as_a_whole() {
        let mut blame = Blame::default();
        for number in 1..20 {
            blame.ban(&peer_at("127.0.0.1:5000", number), None);
        }
        assert!(!blame.is_banned_peer("127.0.0.1:1".parse().unwrap(), PeerId([99; 20])));
    }

    #[test]
    fn evidence_is_bounded() {
        let mut blame = Blame::default();
        let giver_of: Vec<u32> = (0..4096).map(|n| n % 2).collect();
        for piece in 0..100 {
            corrupt(&mut blame, PieceIndex(piece), &[peer(1)], &giver_of, &[0; 4096]);
        }
        assert!(blame.exhibits <= MAX_EXHIBITS / 2);
        for piece in 100..200 {
            let two = [peer(1), peer(2)];
            corrupt(&mut blame, PieceIndex(piece), &two, &giver_of, &[0; 4096]);
        }
        assert_eq!(blame.exhibits, MAX_EXHIBITS);
    }
}
