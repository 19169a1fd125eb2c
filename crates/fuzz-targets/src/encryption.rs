//! Encrypted handshakes: both sides, with their bytes cut and changed as the input says.

use piecework_core::SaturatingFrom;
use piecework_core::{InfoHash, Rng};
use piecework_proto::encryption::{
    Agreement, EncryptionError, Initiator, KeyPair, Method, Methods, Responder, torrent_mark,
};

use crate::input::Input;

pub(crate) fn handshake(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let info_hash = InfoHash([7; 20]);
    let find = |mark: &[u8; 20]| (*mark == torrent_mark(info_hash)).then_some(info_hash);
    let first = input.take(usize::from(input.clone().byte()) % 80).to_vec();
    let seed = u64::from(input.below(4));
    let methods = [Methods::RC4, Methods::ANY];
    let [ours, theirs] = [methods[input.below(2) as usize], methods[input.below(2) as usize]];

    let (mut to_them, mut to_us) = (Vec::new(), Vec::new());
    let rng = Rng::from_seed(seed);
    let mut us = Initiator::new(info_hash, ours, &first, KeyPair::new([3; 20]), rng, &mut to_them);
    let mut them = Responder::new(theirs, KeyPair::new([5; 20]), Rng::from_seed(seed + 1));
    let (mut we_end, mut they_end) = (None, None);
    let mut is_honest = true;
    for _ in 0..MOST_TURNS {
        if they_end.is_none() && !to_them.is_empty() {
            let part = portion(&mut to_them, &mut input, &mut is_honest);
            they_end = them.receive(&part, &mut to_us, find).transpose();
        }
        if we_end.is_none() && !to_us.is_empty() {
            let part = portion(&mut to_us, &mut input, &mut is_honest);
            we_end = us.receive(&part, &mut to_them).transpose();
        }
        if we_end.is_some() && they_end.is_some() || to_us.is_empty() && to_them.is_empty() {
            break;
        }
    }
    if is_honest {
        let agreed = |end: Option<Result<Agreement, EncryptionError>>| {
            end.expect("an honest handshake ends").expect("and well")
        };
        agree(agreed(we_end), agreed(they_end), &first);
    }
}

fn agree(ours: Agreement, theirs: Agreement, first: &[u8]) {
    assert_eq!((ours.info_hash, ours.method), (theirs.info_hash, theirs.method));
    assert_eq!(theirs.early, first);
    assert_eq!(ours.ciphers.is_some(), ours.method == Method::Rc4);
    let (Some(mut ours), Some(mut theirs)) = (ours.ciphers, theirs.ciphers) else { return };
    let mut said = *b"what is said next";
    ours.outgoing.apply(&mut said);
    theirs.incoming.apply(&mut said);
    assert_eq!(&said, b"what is said next");
}

/// Takes some of the bytes under way, and perhaps changes them.
fn portion(way: &mut Vec<u8>, input: &mut Input<'_>, is_honest: &mut bool) -> Vec<u8> {
    // With no decisions left, all of them are taken at once.
    let len = if input.is_empty() { way.len() } else { 1 + usize::from(input.byte()) * 4 };
    let mut part: Vec<u8> = way.drain(..len.min(way.len())).collect();
    if input.below(8) == 1 {
        let at = input.below(u32::saturating_from(part.len())) as usize;
        let change = input.byte();
        part[at] ^= change;
        *is_honest &= change == 0;
    }
    part
}

const MOST_TURNS: usize = 3_000;
