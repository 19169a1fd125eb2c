//! A checkpoint as one blob. Most torrents are complete and have few files, so most blobs are short.
//!
//! ```text
//! version          u8     1
//! flags            u8     bit 0: writing; bits 1 and 2: pieces held, 0 none, 1 all, 2 as bits; bits 3
//!                         and 4: pieces to be checked, 0 if no check went on, else the same plus 1
//! pieces, files    u32    counts
//! taken_at_ns      i64
//! downloaded       u64
//! uploaded         u64
//! have             ⌈pieces / 8⌉ bytes as on the wire, if as bits
//! unchecked        the same
//! present          ⌈files / 8⌉ bytes, the first file in the highest bit of the first byte
//! fingerprints     u64 length and i64 time for each file that is present
//! sum              first 8 bytes of the SHA-1 of the info-hash and all before
//! ```
//!
//! All numbers are little-endian. The checksum is needed because SQLite has none: a flipped bit on the disk
//! would otherwise be a piece that we claim to hold, never fetch and never check.

use piecework_core::SaturatingFrom;
use sha1::{Digest, Sha1};

use piecework_core::{Bitfield, Checkpoint, Fingerprint, InfoHash};

/// Returns the packed form of `checkpoint` of the torrent `info_hash`.
pub(super) fn pack(info_hash: InfoHash, checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { have, files, writing, unchecked, taken_at_ns, downloaded, uploaded } =
        checkpoint;
    let held = form(have);
    let open = unchecked.as_ref().map_or(0, |unchecked| form(unchecked) + 1);
    let present = files.iter().flatten().count();
    let bits: &[u8] = if held == BITS { have.as_wire() } else { &[] };
    let open_bits = unchecked.as_ref().filter(|_| open == BITS + 1);
    let open_bits: &[u8] = open_bits.map_or(&[], Bitfield::as_wire);
    let sets = bits.len() + open_bits.len();
    let mut packed =
        Vec::with_capacity(HEAD + sets + files.len().div_ceil(8) + present * FILE + SUM);
    packed.extend([VERSION, u8::from(*writing) | held << 1 | open << 3]);
    packed.extend(have.len().to_le_bytes());
    // A torrent's files come from a list of bounded length: metainfo knows no more than 2³².
    packed.extend(u32::saturating_from(files.len()).to_le_bytes());
    packed.extend(taken_at_ns.to_le_bytes());
    packed.extend(downloaded.to_le_bytes());
    packed.extend(uploaded.to_le_bytes());
    packed.extend(bits);
    packed.extend(open_bits);
    for eight in files.chunks(8) {
        let set = eight.iter().enumerate().filter(|(_, file)| file.is_some());
        packed.push(set.fold(0, |byte, (at, _)| byte | 0x80 >> at));
    }
    for file in files.iter().flatten() {
        packed.extend(file.len.to_le_bytes());
        packed.extend(file.mtime_ns.to_le_bytes());
    }
    let sum = sum(info_hash, &packed);
    packed.extend(sum);
    packed
}

/// Returns the checkpoint of the torrent `info_hash` in `packed`; `None` if it is not exactly what [`pack`]
/// would have written.
pub(super) fn unpack(info_hash: InfoHash, packed: &[u8]) -> Option<Checkpoint> {
    let (body, stored) = packed.split_last_chunk::<SUM>()?;
    if sum(info_hash, body) != *stored {
        return None;
    }
    let mut rest = body;
    let [version, flags] = take(&mut rest)?;
    if version != VERSION || flags >> 5 != 0 {
        return None;
    }
    let pieces = u32::from_le_bytes(take(&mut rest)?);
    let files = u32::from_le_bytes(take(&mut rest)?) as usize;
    let taken_at_ns = i64::from_le_bytes(take(&mut rest)?);
    let downloaded = u64::from_le_bytes(take(&mut rest)?);
    let uploaded = u64::from_le_bytes(take(&mut rest)?);
    let have = take_set(&mut rest, flags >> 1 & 0b11, pieces)?;
    let unchecked = match flags >> 3 {
        0 => None,
        form => Some(take_set(&mut rest, form - 1, pieces)?),
    };
    let (present, mut rest) = rest.split_at_checked(files.div_ceil(8))?;
    let ones: u32 = present.iter().map(|byte| byte.count_ones()).sum();
    if rest.len() != ones as usize * FILE {
        return None;
    }
    let files = (0..files)
        .map(|at| {
            if present[at / 8] & 0x80 >> (at % 8) == 0 {
                return Some(None);
            }
            let len = u64::from_le_bytes(take(&mut rest)?);
            let mtime_ns = i64::from_le_bytes(take(&mut rest)?);
            Some(Some(Fingerprint { len, mtime_ns }))
        })
        .collect::<Option<_>>()?;
    // Bits after the last file would leave bytes over.
    let writing = flags & 1 == 1;
    let checkpoint =
        Checkpoint { have, files, writing, unchecked, taken_at_ns, downloaded, uploaded };
    rest.is_empty().then_some(checkpoint)
}

/// How a set of pieces is written.
fn form(set: &Bitfield) -> u8 {
    match set.count() {
        0 => NONE,
        _ if set.is_full() => ALL,
        _ => BITS,
    }
}

fn take_set(rest: &mut &[u8], form: u8, pieces: u32) -> Option<Bitfield> {
    match form {
        NONE => Some(Bitfield::empty(pieces)),
        ALL => Some(Bitfield::full(pieces)),
        BITS => {
            let (bits, behind) = rest.split_at_checked((pieces as usize).div_ceil(8))?;
            *rest = behind;
            Bitfield::from_wire(bits, pieces).ok()
        }
        _ => None,
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

pub(super) fn sum(info_hash: InfoHash, body: &[u8]) -> [u8; SUM] {
    let digest: [u8; 20] =
        Sha1::new().chain_update(info_hash.0).chain_update(body).finalize().into();
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest[..SUM]);
    sum
}

const VERSION: u8 = 1;

const NONE: u8 = 0;
const ALL: u8 = 1;
const BITS: u8 = 2;

/// Bytes before the pieces: version and flags, two counts, three numbers.
const HEAD: usize = 2 + 2 * 4 + 3 * 8;

/// Bytes of a fingerprint.
const FILE: usize = 16;

/// Bytes of the checksum: damage goes unnoticed once in 2⁶⁴ times.
const SUM: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use piecework_core::PieceIndex;

    const HASH: InfoHash = InfoHash([7; 20]);

    /// Pieces to be checked: none, all, those that are not held, or every third.
    fn open(have: &Bitfield, kind: u32) -> Bitfield {
        let mut open = Bitfield::empty(have.len());
        for piece in (0..have.len()).map(PieceIndex) {
            let is_open = match kind {
                0 => false,
                1 => true,
                2 => !have.contains(piece),
                _ => piece.0 % 3 == 0,
            };
            if is_open {
                open.insert(piece);
            }
        }
        open
    }

    fn checkpoints() -> impl Strategy<Value = Checkpoint> {
        let have = prop_oneof![
            (0..100u32).prop_map(Bitfield::empty),
            (0..100u32).prop_map(Bitfield::full),
            prop::collection::vec(any::<bool>(), 0..100).prop_map(|held| {
                let mut have = Bitfield::empty(held.len() as u32);
                for (at, _) in held.iter().enumerate().filter(|(_, held)| **held) {
                    have.insert(PieceIndex(at as u32));
                }
                have
            }),
        ];
        let file = any::<(u64, i64)>().prop_map(|(len, mtime_ns)| Fingerprint { len, mtime_ns });
        let files = prop::collection::vec(prop::option::of(file), 0..40);
        let unchecked = prop::option::of(0..4u32);
        (have, files, (any::<bool>(), unchecked), any::<i64>(), any::<(u64, u64)>()).prop_map(
            |(have, files, (writing, unchecked), taken_at_ns, (downloaded, uploaded))| Checkpoint {
                unchecked: unchecked.map(|kind| open(&have, kind)),
                have,
                files,
                writing,
                taken_at_ns,
                downloaded,
                uploaded,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(checkpoint in checkpoints()) {
            let packed = pack(HASH, &checkpoint);
            prop_assert_eq!(unpack(HASH, &packed), Some(checkpoint));
        }

        #[test]
        fn any_flipped_bit_is_noticed(checkpoint in checkpoints(), at in any::<prop::sample::Index>()) {
            let mut packed = pack(HASH, &checkpoint);
            let bit = at.index(packed.len() * 8);
            packed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(unpack(HASH, &packed), None);
        }

        #[test]
        fn any_other_length_is_noticed(checkpoint in checkpoints(), at in any::<prop::sample::Index>()) {
            let mut packed = pack(HASH, &checkpoint);
            prop_assert_eq!(unpack(HASH, &packed[..at.index(packed.len())]), None);
            packed.push(0);
            prop_assert_eq!(unpack(HASH, &packed), None);
        }

        #[test]
        fn any_body_of_right_sum_is_read_or_refused(mut body in prop::collection::vec(any::<u8>(), 0..200)) {
            // Small counts, so that many a body gets past the first checks.
            for (at, byte) in body.iter_mut().enumerate().take(10) {
                *byte = if [0, 1, 2, 6].contains(&at) { *byte % 8 } else { 0 };
            }
            if let Some(first) = body.first_mut() {
                *first = VERSION;
            }
            let sum = sum(HASH, &body);
            body.extend(sum);
            if let Some(checkpoint) = unpack(HASH, &body) {
                prop_assert_eq!(unpack(HASH, &pack(HASH, &checkpoint)), Some(checkpoint));
            }
        }
    }

    #[test]
    fn of_another_torrent_is_refused() {
        let checkpoint = complete(1, 1);
        let packed = pack(HASH, &checkpoint);
        assert_eq!(unpack(InfoHash([8; 20]), &packed), None);
    }

    #[test]
    fn a_complete_torrent_of_one_file_takes_59_bytes() {
        assert_eq!(pack(HASH, &complete(100_000, 1)).len(), HEAD + 1 + FILE + SUM);
    }

    fn complete(pieces: u32, files: usize) -> Checkpoint {
        Checkpoint {
            have: Bitfield::full(pieces),
            files: vec![Some(Fingerprint { len: 1, mtime_ns: 2 }); files],
            writing: false,
            unchecked: None,
            taken_at_ns: 3,
            downloaded: 4,
            uploaded: 5,
        }
    }
}
