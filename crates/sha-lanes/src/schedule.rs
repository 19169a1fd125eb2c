//! Assigns messages to lanes.

use std::{array, slice};

use sha1::block_api::compress;

use super::level::{Kind, Level};
use super::stream::Stream;
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2, avx512, sha};
use super::{Block, Digest, State};

/// Returns the SHA-1 of each of `messages`, in order. Each message is a list of consecutive slices.
///
/// Fastest if slices are multiples of 64 bytes and messages have about the same length; correct for
/// any.
pub fn hash_many<'a, P: AsRef<[&'a [u8]]>>(level: Level, messages: &[P]) -> Vec<Digest> {
    let mut streams = vec![Stream::default(); messages.len()];
    update_many(level, &mut streams, messages);
    streams.iter_mut().map(Stream::finish).collect()
}

/// Appends to each of `streams` the next part of its message: the slices at its index in `parts`.
///
/// # Panics
/// If the numbers of `parts` and `streams` differ.
pub fn update_many<'a, P: AsRef<[&'a [u8]]>>(level: Level, streams: &mut [Stream], parts: &[P]) {
    assert_eq!(streams.len(), parts.len(), "each stream takes one list of slices");
    let lanes = streams.iter_mut().zip(parts).filter_map(|(stream, parts)| {
        let mut lane = Lane { stream, parts: parts.as_ref().iter(), blocks: &[] };
        lane.refill().then_some(lane)
    });
    let mut left = in_lanes(level, lanes, level.enough());
    if let Some(pairs) = level.for_few() {
        left = in_lanes(pairs, left, pairs.enough());
    }
    left.into_iter().for_each(Lane::finish_alone);
}

/// A message that is being hashed.
struct Lane<'s, 'a> {
    stream: &'s mut Stream,
    parts: slice::Iter<'s, &'a [u8]>,
    /// The next blocks. Empty only between steps.
    blocks: &'a [Block],
}

impl Lane<'_, '_> {
    /// Takes parts until there is a whole block. Returns `false` if none is left.
    fn refill(&mut self) -> bool {
        while self.blocks.is_empty() {
            let Some(part) = self.parts.next() else { return false };
            self.blocks = self.stream.absorb(part);
        }
        true
    }

    fn finish_alone(mut self) {
        while self.refill() {
            compress(&mut self.stream.state, self.blocks);
            self.blocks = &[];
        }
    }
}

/// Hashes `waiting` in `N` lanes with `compress`, as long as at least `enough` of them are busy.
/// Returns the messages that are not finished.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there is one level only"))]
fn side_by_side<'s, 'a, const N: usize>(
    waiting: impl IntoIterator<Item = Lane<'s, 'a>>,
    enough: usize,
    compress: impl Fn(&mut [State; N], [&[Block]; N]),
) -> Vec<Lane<'s, 'a>> {
    let mut waiting = waiting.into_iter();
    let mut busy: Vec<_> = waiting.by_ref().take(N).collect();
    while busy.len() >= enough.max(1) {
        // A lane without a message repeats the first lane's. Its result is ignored.
        let of = |lane: usize| &busy[if lane < busy.len() { lane } else { 0 }];
        let mut states = array::from_fn(|lane| of(lane).stream.state);
        let blocks = array::from_fn(|lane| of(lane).blocks);
        let step = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        compress(&mut states, blocks);
        for (lane, state) in busy.iter_mut().zip(states) {
            lane.stream.state = state;
            lane.blocks = &lane.blocks[step..];
        }
        busy.retain_mut(Lane::refill);
        busy.extend(waiting.by_ref().take(N - busy.len()));
    }
    busy
}

/// Hashes `waiting` as `level` says, as long as at least `enough` lanes are busy. Returns the
/// messages that are not finished.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no lanes there"))]
fn in_lanes<'s, 'a>(
    level: Level,
    waiting: impl IntoIterator<Item = Lane<'s, 'a>>,
    enough: usize,
) -> Vec<Lane<'s, 'a>> {
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => side_by_side(waiting, enough, |states, blocks| {
            // SAFETY: a `Level` of this kind exists only if the processor has AVX-512F and BW.
            unsafe { avx512::compress(states, blocks) }
        }),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => side_by_side(waiting, enough, |states, blocks| {
            // SAFETY: a `Level` of this kind exists only if the processor has AVX2.
            unsafe { avx2::compress(states, blocks) }
        }),
        #[cfg(target_arch = "x86_64")]
        Kind::Sha => side_by_side(waiting, enough, |states, blocks| {
            // SAFETY: a `Level` of this kind exists only if the processor has SHA, SSSE3 and
            // SSE4.1.
            unsafe { sha::compress(states, blocks) }
        }),
        Kind::Scalar => waiting.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also with fewer busy lanes than any machine's `enough` lets happen.
    #[test]
    fn lanes_without_a_message_do_no_harm() {
        let content: Vec<u8> = (0..6_400).map(|n| (n % 251) as u8).collect();
        for level in Level::available() {
            for count in 1..=20 {
                let mut streams = vec![Stream::default(); count];
                let parts: Vec<[&[u8]; 1]> =
                    (0..count).map(|n| [&content[n * 13..n * 13 + 640 * (1 + n % 9)]]).collect();
                let lanes = streams.iter_mut().zip(&parts).map(|(stream, parts)| {
                    let mut lane = Lane { stream, parts: parts.iter(), blocks: &[] };
                    assert!(lane.refill());
                    lane
                });
                let left = in_lanes(level, lanes, 1);
                assert!(left.is_empty() || level == Level::scalar());
                left.into_iter().for_each(Lane::finish_alone);
                let got: Vec<Digest> = streams.iter_mut().map(Stream::finish).collect();
                assert_eq!(got, hash_many(Level::scalar(), &parts), "{level:?}, {count} messages");
            }
        }
    }
}
