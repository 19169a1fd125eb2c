use proptest::prelude::*;

use super::*;
use piecework_core::{InfoHash, Rng};

const TORRENT: InfoHash = InfoHash([7; 20]);

fn keys(seed: u64) -> KeyPair {
    let mut rng = Rng::from_seed(seed);
    KeyPair::new(std::array::from_fn(|_| rng.next_u64() as u8))
}

fn find(mark: &[u8; 20]) -> Option<InfoHash> {
    (*mark == torrent_mark(TORRENT)).then_some(TORRENT)
}

fn sha1(bytes: &[u8]) -> String {
    hash(&[bytes]).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one side is still to receive, in portions.
#[derive(Default)]
struct Pipe(Vec<u8>);

impl Pipe {
    fn portion(&mut self, len: usize) -> Vec<u8> {
        let len = len.clamp(1, self.0.len().max(1)).min(self.0.len());
        self.0.drain(..len).collect()
    }
}

struct Ends {
    initiator: Agreement,
    responder: Agreement,
    /// What is still on its way to each.
    to_initiator: Vec<u8>,
    to_responder: Vec<u8>,
}

/// A handshake between the two, whose bytes come in portions of the lengths given.
fn handshake(
    offer: Methods,
    allow: Methods,
    first: &[u8],
    portions: &[usize],
    seed: u64,
) -> Result<Ends, EncryptionError> {
    let (mut to_responder, mut to_initiator) = (Pipe::default(), Pipe::default());
    let rng = |number| Rng::from_seed(seed.wrapping_add(number));
    let mut initiator =
        Initiator::new(TORRENT, offer, first, keys(seed ^ 1), rng(1), &mut to_responder.0);
    let mut responder = Responder::new(allow, keys(seed ^ 2), rng(2));
    let (mut ours, mut theirs) = (None, None);
    let mut lengths = portions.iter().copied().cycle();
    for _ in 0..20_000 {
        let bytes = to_responder.portion(lengths.next().unwrap());
        if theirs.is_none() {
            theirs = responder.receive(&bytes, &mut to_initiator.0, find)?;
        }
        let bytes = to_initiator.portion(lengths.next().unwrap());
        if ours.is_none() {
            ours = initiator.receive(&bytes, &mut to_responder.0)?;
        }
        if ours.is_some() && theirs.is_some() {
            break;
        }
    }
    Ok(Ends {
        initiator: ours.expect("it ends"),
        responder: theirs.expect("it ends"),
        to_initiator: to_initiator.0,
        to_responder: to_responder.0,
    })
}

#[test]
fn the_cipher_gives_the_published_stream() {
    // RFC 6229, 40-bit key 0x0102030405, at offsets 0 and 1,024.
    let mut cipher = Rc4::new(&[1, 2, 3, 4, 5]);
    let mut stream = [0; 16];
    cipher.clone().apply(&mut stream);
    assert_eq!(u128::from_be_bytes(stream), 0xb239_6305_f03d_c027_ccc3_524a_0a11_18a8);
    cipher.skip(1_024);
    let mut stream = [0; 16];
    cipher.apply(&mut stream);
    assert_eq!(u128::from_be_bytes(stream), 0x30ab_bcc7_c20b_0160_9f23_ee2d_5f6b_b7df);
}

#[test]
fn keys_and_secrets_are_those_of_an_independent_computation() {
    let ours = KeyPair::new(std::array::from_fn(|at| at as u8 + 1));
    let theirs = KeyPair::new([0xff; 20]);
    assert_eq!(sha1(ours.public()), "9fa4c50e31ec4635ddb9ef30405e9db341313ed2");
    let (our_key, their_key) = (*ours.public(), *theirs.public());
    let (one, other) = (ours.share(&their_key).unwrap(), theirs.share(&our_key).unwrap());
    assert_eq!(sha1(&one.0), "96a8069789bdafca594032670943bbfa7de17de6");
    assert_eq!(one.0, other.0);
}

#[test]
fn keys_that_make_the_secret_known_to_all_are_refused() {
    let prime: [u8; 96] = std::array::from_fn(|at| match at {
        0..8 => 0xff,
        _ => {
            const TAIL: &str = "c90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
                020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
                4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563";
            let digits = &TAIL[2 * (at - 8)..2 * (at - 8) + 2];
            u8::from_str_radix(digits, 16).unwrap()
        }
    });
    let with_last = |change: i32| {
        let mut key = prime;
        key[95] = (i32::from(key[95]) + change) as u8;
        key
    };
    let small = |last| std::array::from_fn(|at| if at == 95 { last } else { 0 });
    for weak in [small(0), small(1), prime, with_last(-1), with_last(1)] {
        assert!(matches!(keys(1).share(&weak), Err(EncryptionError::WeakKey)));
    }
    for fine in [small(2), with_last(-2), [0xff; 96]] {
        assert!(keys(1).share(&fine).is_ok());
    }
}

#[test]
fn the_cheapest_method_that_both_allow_is_chosen() {
    for (offer, allow, method) in [
        (Methods::ANY, Methods::ANY, Some(Method::Plaintext)),
        (Methods::RC4, Methods::ANY, Some(Method::Rc4)),
        (Methods::ANY, Methods::RC4, Some(Method::Rc4)),
        (Methods::from_bits(0xff01), Methods::ANY, Some(Method::Plaintext)),
        (Methods::from_bits(1), Methods::RC4, None),
        (Methods::from_bits(0xf0), Methods::ANY, None),
    ] {
        let ends = handshake(offer, allow, b"hello", &[4_096], 3);
        let chosen = ends.as_ref().ok().map(|ends| (ends.initiator.method, ends.responder.method));
        assert_eq!(chosen, method.map(|method| (method, method)), "{offer:?} {allow:?}");
        if method.is_none() {
            assert!(matches!(ends, Err(EncryptionError::NoMethod(_))));
        }
    }
}

#[test]
fn nonsense_is_refused_as_soon_as_it_is_seen() {
    let mut out = Vec::new();
    let mut responder = Responder::new(Methods::ANY, keys(1), Rng::from_seed(1));
    let garbage: Vec<u8> = (0..627).map(|at| (at * 7 % 251) as u8).collect();
    assert!(responder.receive(&garbage, &mut out, find).unwrap().is_none());
    // 96 bytes of a key, 512 of padding, 20 of a mark: now it must be there.
    assert_eq!(responder.receive(&[1], &mut out, find).unwrap_err(), EncryptionError::NoMark);
    assert!((96..=96 + 512).contains(&out.len()));

    let mut out = Vec::new();
    let mut initiator =
        Initiator::new(TORRENT, Methods::ANY, b"", keys(1), Rng::from_seed(1), &mut out);
    assert!(initiator.receive(&garbage[..615], &mut out).unwrap().is_none());
    let refused = initiator.receive(&[1], &mut out).unwrap_err();
    assert_eq!(refused, EncryptionError::NoMark);
}

#[test]
fn a_torrent_that_is_not_there_is_told_apart_from_nonsense() {
    let mut first = Vec::new();
    let other = InfoHash([8; 20]);
    let mut initiator =
        Initiator::new(other, Methods::ANY, b"", keys(1), Rng::from_seed(1), &mut first);
    let mut responder = Responder::new(Methods::ANY, keys(2), Rng::from_seed(2));
    let mut answer = Vec::new();
    assert!(responder.receive(&first, &mut answer, find).unwrap().is_none());
    let mut second = Vec::new();
    assert!(initiator.receive(&answer, &mut second).unwrap().is_none());
    let refused = responder.receive(&second, &mut Vec::new(), find).unwrap_err();
    assert_eq!(refused, EncryptionError::UnknownTorrent);
}

/// What an initiator sends whose hidden part is `hidden`, sealed with the right keys.
fn offer(hidden: &[u8]) -> Result<Option<Agreement>, EncryptionError> {
    let mut responder = Responder::new(Methods::ANY, keys(2), Rng::from_seed(2));
    let (ours, mut answer) = (keys(1), Vec::new());
    let mut bytes = ours.public().to_vec();
    assert!(responder.receive(&bytes, &mut answer, find).unwrap().is_none());
    let secret = ours.share(answer.first_chunk().unwrap()).unwrap();
    bytes.clear();
    bytes.extend_from_slice(&secret_mark(&secret));
    bytes.extend_from_slice(&veil(torrent_mark(TORRENT), &secret));
    let mut hidden = hidden.to_vec();
    ciphers(&secret, TORRENT)[0].apply(&mut hidden);
    bytes.extend_from_slice(&hidden);
    responder.receive(&bytes, &mut answer, find)
}

#[test]
fn lengths_and_constants_of_an_offer_are_held_to_their_bounds() {
    let vc_wrong = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0][..], &[0; 2]].concat();
    assert_eq!(offer(&vc_wrong).unwrap_err(), EncryptionError::NotVerified);
    let pad_long = [&VC[..], &[0, 0, 0, 3], &513u16.to_be_bytes()].concat();
    assert_eq!(offer(&pad_long).unwrap_err(), EncryptionError::TooLong(513));
    let first_long = [&VC[..], &[0, 0, 0, 3], &[0, 0], &1_025u16.to_be_bytes()].concat();
    assert_eq!(offer(&first_long).unwrap_err(), EncryptionError::TooLong(1_025));
    let whole = [&VC[..], &[0, 0, 0, 3], &512u16.to_be_bytes(), &[9; 512], &[0, 2], b"hi"].concat();
    let agreement = offer(&whole).unwrap().unwrap();
    assert_eq!((agreement.early.as_slice(), agreement.method), (&b"hi"[..], Method::Plaintext));
    assert!(offer(&whole[..whole.len() - 1]).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the bytes are cut, both sides agree, hear what was said, and understand each other.
    #[test]
    fn both_sides_understand_each_other_however_the_bytes_are_cut(
        rc4: bool,
        first in proptest::collection::vec(any::<u8>(), 0..200),
        portions in proptest::collection::vec(1usize..700, 1..8),
        seed: u64,
    ) {
        let methods = if rc4 { Methods::RC4 } else { Methods::ANY };
        let ends = handshake(methods, Methods::ANY, &first, &portions, seed).unwrap();
        let Ends { mut initiator, mut responder, to_initiator, to_responder } = ends;
        prop_assert_eq!(&responder.early, &first);
        prop_assert_eq!((initiator.info_hash, responder.info_hash), (TORRENT, TORRENT));
        prop_assert!(initiator.early.is_empty());
        prop_assert!(to_initiator.is_empty() && to_responder.is_empty());
        prop_assert_eq!(initiator.ciphers.is_some(), rc4);
        prop_assert_eq!(responder.ciphers.is_some(), rc4);
        if let (Some(a), Some(b)) = (&mut initiator.ciphers, &mut responder.ciphers) {
            let mut bytes = *b"over there";
            a.outgoing.apply(&mut bytes);
            prop_assert_ne!(&bytes, b"over there");
            b.incoming.apply(&mut bytes);
            prop_assert_eq!(&bytes, b"over there");
            b.outgoing.apply(&mut bytes);
            a.incoming.apply(&mut bytes);
            prop_assert_eq!(&bytes, b"over there");
        }
    }

    /// No bytes make either side panic or keep more than its bound.
    #[test]
    fn arbitrary_bytes_are_refused_or_waited_on(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..8),
    ) {
        let mut out = Vec::new();
        let mut responder = Responder::new(Methods::ANY, keys(5), Rng::from_seed(5));
        let mut initiator =
            Initiator::new(TORRENT, Methods::ANY, b"x", keys(6), Rng::from_seed(6), &mut out);
        let mut over = false;
        for chunk in &chunks {
            over |= responder.receive(chunk, &mut out, find).is_err();
            if over {
                break;
            }
        }
        for chunk in &chunks {
            if initiator.receive(chunk, &mut out).is_err() {
                break;
            }
        }
        let came: usize = chunks.iter().map(Vec::len).sum();
        prop_assert!(over || came < 628);
    }
}
