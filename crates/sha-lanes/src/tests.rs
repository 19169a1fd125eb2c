use proptest::prelude::*;
use sha1::Digest as _;

use super::*;

/// Returns every level of this machine, and prints those it lacks.
fn levels() -> Vec<Level> {
    for name in ["avx512", "sha", "avx2", "scalar"] {
        if Level::named(name).is_none() {
            eprintln!("note: this machine has no `{name}`, so it is not tested");
        }
    }
    Level::available().collect()
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut next = chance(seed);
    (0..len).map(|_| next() as u8).collect()
}

/// A linear congruential generator (Knuth's constants): numbers below 2^31.
fn chance(mut seed: u64) -> impl FnMut() -> usize {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    }
}

fn expected(message: &[u8]) -> Digest {
    sha1::Sha1::digest(message).into()
}

/// Compares each level with the crate, with each of `messages` as one slice.
#[track_caller]
fn agree(messages: &[&[u8]]) {
    let wanted: Vec<Digest> = messages.iter().map(|message| expected(message)).collect();
    let whole: Vec<[&[u8]; 1]> = messages.iter().map(|message| [*message]).collect();
    for level in levels() {
        assert!(hash_many(level, &whole) == wanted, "{level:?}, {} messages", messages.len());
    }
}

/// Cuts `message` at the positions in `cuts`.
fn cut<'a>(message: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
    at.extend([0, message.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &message[ends[0]..ends[1]]).collect()
}

#[test]
fn the_examples_of_the_standard_come_out() {
    // FIPS 180-1, appendices A and B.
    let abc = [
        0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50, 0xc2,
        0x6c, 0x9c, 0xd0, 0xd8, 0x9d,
    ];
    let two_blocks = [
        0x84, 0x98, 0x3e, 0x44, 0x1c, 0x3b, 0xd2, 0x6e, 0xba, 0xae, 0x4a, 0xa1, 0xf9, 0x51, 0x29,
        0xe5, 0xe5, 0x46, 0x70, 0xf1,
    ];
    let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for level in levels() {
        let messages = [[&b"abc"[..]], [&long[..]]];
        assert_eq!(hash_many(level, &messages), [abc, two_blocks]);
    }
}

#[test]
fn no_messages_have_no_digests() {
    for level in levels() {
        assert!(hash_many::<[&[u8]; 0]>(level, &[]).is_empty());
        update_many::<[&[u8]; 0]>(level, &mut [], &[]);
    }
}

#[test]
fn messages_without_slices_are_empty_messages() {
    for level in levels() {
        assert_eq!(hash_many::<[&[u8]; 0]>(level, &[[]; 20]), [expected(b""); 20]);
        assert_eq!(hash_many(level, &[[&b""[..]; 3]; 20]), [expected(b""); 20]);
    }
}

#[test]
fn every_length_to_a_thousand_agrees_alone() {
    let content = bytes(1, 1000);
    (0..=1000).for_each(|len| agree(&[&content[..len]]));
}

#[test]
fn every_length_to_a_thousand_agrees_among_others() {
    let content = bytes(2, 2000);
    // Growing, shrinking and mixed lengths; at odd addresses, each with other content.
    let up: Vec<&[u8]> = (0..=1000).map(|len| &content[len..2 * len]).collect();
    let down: Vec<&[u8]> = up.iter().rev().copied().collect();
    let mixed: Vec<&[u8]> = (0..=1000).map(|n| up[n * 389 % 1001]).collect();
    [up, down, mixed].iter().for_each(|messages| agree(messages));
}

#[test]
fn any_number_of_messages_agrees() {
    let content = bytes(3, 1040);
    for count in 1..=40 {
        let messages: Vec<&[u8]> = (0..count).map(|n| &content[n..n + 1000]).collect();
        agree(&messages);
    }
}

#[test]
fn long_messages_of_many_lengths_agree() {
    let content = bytes(4, 60_000);
    let mut next = chance(5);
    for count in [3, 8, 16, 23] {
        let messages: Vec<&[u8]> = (0..count)
            .map(|_| {
                let start = next() % 1_000;
                &content[start..start + next() % 59_000]
            })
            .collect();
        agree(&messages);
    }
}

#[test]
fn one_long_message_among_short_ones_is_finished() {
    let content = bytes(6, 30_000);
    let mut messages: Vec<&[u8]> = (0..30).map(|n| &content[..n * 10]).collect();
    messages.insert(5, &content);
    agree(&messages);
}

#[test]
fn names_lead_back_to_their_levels() {
    for level in levels() {
        assert_eq!(Level::named(level.name()), Some(level));
        assert!(level.width() >= 1 && level.gains_from() >= 2);
        assert!(level.enough() <= level.width().max(2));
    }
    assert_eq!(Level::named("sse9"), None);
    assert_eq!(Level::available().last(), Some(Level::scalar()));
    assert_eq!(Level::available().next(), Some(Level::best()));
}

#[test]
fn a_finished_stream_begins_anew() {
    let mut stream = Stream::default();
    stream.update(&[7; 100]);
    stream.finish();
    assert_eq!(stream.finish(), expected(b""));
}

#[test]
#[should_panic(expected = "each stream takes one list of slices")]
fn streams_and_parts_must_match() {
    update_many(Level::scalar(), &mut [], &[[&b""[..]]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_cut_anywhere_agree(
        messages in prop::collection::vec(
            (0_usize..3_000, prop::collection::vec(any::<prop::sample::Index>(), 0..12)),
            0..40,
        ),
    ) {
        let content: Vec<Vec<u8>> =
            (7..).zip(&messages).map(|(seed, (len, _))| bytes(seed, *len)).collect();
        let wanted: Vec<Digest> = content.iter().map(|message| expected(message)).collect();
        let cut: Vec<Vec<&[u8]>> =
            content.iter().zip(&messages).map(|(message, (_, cuts))| cut(message, cuts)).collect();
        for level in levels() {
            prop_assert!(hash_many(level, &cut) == wanted, "{:?}", level);
        }
    }

    #[test]
    fn streams_go_on_from_call_to_call(
        messages in prop::collection::vec(0_usize..3_000, 1..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        alone in any::<u8>(),
    ) {
        let content: Vec<Vec<u8>> =
            (7..).zip(&messages).map(|(seed, len)| bytes(seed, *len)).collect();
        let wanted: Vec<Digest> = content.iter().map(|message| expected(message)).collect();
        let cut: Vec<Vec<&[u8]>> = content.iter().map(|message| cut(message, &cuts)).collect();
        for level in levels() {
            let mut streams = vec![Stream::default(); content.len()];
            for turn in 0..cut[0].len() {
                // Sometimes by themselves.
                if alone >> turn & 1 == 1 {
                    streams.iter_mut().zip(&cut).for_each(|(stream, cut)| stream.update(cut[turn]));
                } else {
                    let parts: Vec<[&[u8]; 1]> = cut.iter().map(|cut| [cut[turn]]).collect();
                    update_many(level, &mut streams, &parts);
                }
            }
            let got: Vec<Digest> = streams.iter_mut().map(Stream::finish).collect();
            prop_assert!(got == wanted, "{:?}", level);
        }
    }
}
