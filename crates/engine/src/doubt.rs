//! Held pieces that may not be on the disk any more.

use std::collections::BTreeMap;

use super::TorrentError;
use piecework_core::metainfo::Metainfo;
use piecework_core::{Bitfield, Fingerprint, Geometry, PieceIndex, Rng, printable_bytes};

/// Files that may not hold any more what they held, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Whether each file is an unfinished download of ours. What is wrong in such a file is fetched
    /// again. A finished file is not written to: somebody may have changed it on purpose.
    pub files: BTreeMap<usize, bool>,
    /// How the doubt arose: a sentence without a full stop.
    pub why: String,
}

/// The result of a check of files in doubt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything is right.
    Right,
    /// Pieces that are wrong are fetched again.
    Again(String),
    /// The torrent stops.
    Stop(TorrentError),
}

impl Doubt {
    /// Adds another doubt to this one.
    pub(crate) fn merge(&mut self, other: Self) {
        for (file, ours) in other.files {
            *self.files.entry(file).or_insert(true) &= ours;
        }
    }

    /// Returns the pieces that lie in its files, at least in part.
    pub(crate) fn pieces(&self, metainfo: &Metainfo) -> Bitfield {
        let (geometry, entries) = (metainfo.info().geometry(), metainfo.info().files().entries());
        let mut pieces = Bitfield::empty(geometry.pieces());
        for entry in self.files.keys().filter_map(|file| entries.get(*file)) {
            for piece in geometry.pieces_of(entry.span()) {
                pieces.insert(PieceIndex(piece));
            }
        }
        pieces
    }

    /// Returns the verdict when the held pieces `checked` were hashed and those in `right` are
    /// right.
    pub(crate) fn verdict(
        &self,
        metainfo: &Metainfo,
        checked: &Bitfield,
        right: &Bitfield,
    ) -> Verdict {
        let wrong = minus(checked, right);
        if wrong.count() == 0 {
            return Verdict::Right;
        }
        let (bad, all) = (wrong.count(), checked.count());
        let mut files = wrong.iter().flat_map(|piece| files_of(metainfo, piece));
        if files.any(|file| self.files.get(&file) == Some(&false)) {
            return Verdict::Stop(TorrentError::Damaged {
                why: self.why.clone(),
                wrong: bad,
                checked: all,
            });
        }
        Verdict::Again(format!(
            "{}: `{bad}` of the `{all}` pieces that it held are not right and are downloaded again",
            self.why
        ))
    }
}

/// Returns the files that a piece lies in, without padding.
pub(super) fn files_of(metainfo: &Metainfo, piece: PieceIndex) -> impl Iterator<Item = usize> + '_ {
    let geometry = metainfo.info().geometry();
    let start = geometry.piece_offset(piece);
    let files = metainfo.info().files();
    let slices = files.slices(start..start + u64::from(geometry.piece_size(piece)));
    slices.map(|slice| slice.file).filter(|file| !files.entries()[*file].padding)
}

/// Returns whether all pieces of the file are in `have`.
pub(super) fn is_whole(metainfo: &Metainfo, have: &Bitfield, file: usize) -> bool {
    let entry = &metainfo.info().files().entries()[file];
    let mut pieces = metainfo.info().geometry().pieces_of(entry.span()).map(PieceIndex);
    pieces.all(|piece| have.contains(piece))
}

/// Returns what is in `all` and not in `less`.
pub(super) fn minus(all: &Bitfield, less: &Bitfield) -> Bitfield {
    let mut rest = all.clone();
    for piece in less.iter() {
        rest.remove(piece);
    }
    rest
}

/// Returns what is in both.
pub(super) fn common(a: &Bitfield, b: &Bitfield) -> Bitfield {
    let mut both = Bitfield::empty(a.len());
    for piece in a.iter().filter(|piece| b.contains(*piece)) {
        both.insert(piece);
    }
    both
}

/// Picks pieces of `doubtful` from each file at random, at least one: enough to hit one if a fair
/// part of them is wrong, and so few that a start after a crash takes no longer.
pub(super) fn sample(metainfo: &Metainfo, doubtful: &Bitfield, rng: &mut Rng) -> Bitfield {
    let geometry = metainfo.info().geometry();
    let mut chosen = Bitfield::empty(geometry.pieces());
    let mut left = SAMPLE_OF_ALL;
    for entry in metainfo.info().files().entries().iter().filter(|entry| !entry.padding) {
        let pieces = geometry.pieces_of(entry.span()).map(PieceIndex);
        let pieces: Vec<_> = pieces.filter(|piece| doubtful.contains(*piece)).collect();
        let bytes = SAMPLE_OF_A_FILE.min(left);
        let picked = pick(&geometry, pieces, bytes, rng);
        left = left.saturating_sub(picked.len() as u64 * u64::from(geometry.piece_len()));
        for piece in picked {
            chosen.insert(piece);
        }
    }
    chosen
}

/// Picks some of `pieces` at random, `bytes` bytes of them, but at least one.
pub(super) fn pick(
    geometry: &Geometry,
    mut pieces: Vec<PieceIndex>,
    bytes: u64,
    rng: &mut Rng,
) -> Vec<PieceIndex> {
    let most = (bytes / u64::from(geometry.piece_len())).max(1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if pieces.len() > most {
        rng.shuffle(&mut pieces);
        pieces.truncate(most);
        pieces.sort_unstable();
    }
    pieces
}

/// Marks the files with a piece in `unproven` as unsure.
pub(super) fn mark_unsure(
    metainfo: &Metainfo,
    files: &mut [Option<Fingerprint>],
    unproven: &Bitfield,
) {
    for piece in unproven.iter() {
        for file in files_of(metainfo, piece) {
            if let Some(Some(print)) = files.get_mut(file) {
                *print = Fingerprint::UNSURE;
            }
        }
    }
}

/// Returns a sentence that begins with the path of a file.
pub(super) fn about(path: &std::path::Path, what: &str) -> String {
    format!("`{}` {what}", printable_bytes(path.as_os_str().as_encoded_bytes()))
}

/// Bytes that are hashed of a file that was being written when a process died: 0.1 s on a usual
/// machine.
const SAMPLE_OF_A_FILE: u64 = 32 << 20;

/// The same for all files of a torrent, beside one piece of each.
const SAMPLE_OF_ALL: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::metainfo::MetainfoBuilder;

    const PIECE: u64 = 16 << 10;

    /// Files of two and a half pieces, half a piece, and two pieces.
    fn torrent() -> Metainfo {
        let file = |name: &str, len| (vec![name.to_owned()], len);
        let files = vec![file("a", PIECE * 5 / 2), file("b", PIECE / 2), file("c", PIECE * 2)];
        let builder = MetainfoBuilder::folder("folder", files).piece_len(PIECE as u32);
        builder.build(vec![0; 5 * 20]).unwrap()
    }

    fn bits(set: &[u32]) -> Bitfield {
        let mut bits = Bitfield::empty(5);
        for piece in set {
            bits.insert(PieceIndex(*piece));
        }
        bits
    }

    #[test]
    fn a_finished_file_that_was_changed_stops_the_torrent_and_one_of_ours_is_fetched_again() {
        let torrent = torrent();
        let doubt =
            |ours| Doubt { files: BTreeMap::from([(0, ours)]), why: "`a` was changed".to_owned() };
        let checked = doubt(false).pieces(&torrent);
        assert_eq!(checked, bits(&[0, 1, 2]));
        let verdict = |ours, right: &[u32]| doubt(ours).verdict(&torrent, &checked, &bits(right));
        assert_eq!(verdict(false, &[0, 1, 2]), Verdict::Right);
        let Verdict::Stop(error) = verdict(false, &[0]) else { panic!("it goes on") };
        let sentence = error.to_string();
        assert!(sentence.starts_with("`a` was changed: `2` of its `3` pieces"), "{sentence}");
        assert!(sentence.contains("have the torrent checked"), "{sentence}");
        assert!(matches!(verdict(true, &[0]), Verdict::Again(_)));
        // If one doubt says that a file is not ours alone, it is not.
        let mut both = doubt(true);
        both.merge(doubt(false));
        assert!(matches!(both.verdict(&torrent, &checked, &bits(&[0])), Verdict::Stop(_)));
    }

    #[test]
    fn of_each_file_at_least_one_piece_is_sampled_and_all_of_a_small_one() {
        let torrent = torrent();
        let mut rng = Rng::from_seed(1);
        assert_eq!(sample(&torrent, &bits(&[0, 1, 4]), &mut rng), bits(&[0, 1, 4]));
        let geometry = torrent.info().geometry();
        let all: Vec<PieceIndex> = (0..5).map(PieceIndex).collect();
        assert_eq!(pick(&geometry, all.clone(), 0, &mut rng).len(), 1);
        assert_eq!(pick(&geometry, all.clone(), 3 * PIECE, &mut rng).len(), 3);
        assert_eq!(pick(&geometry, all.clone(), 9 * PIECE, &mut rng), all);
        assert!(pick(&geometry, Vec::new(), 9 * PIECE, &mut rng).is_empty());
    }

    #[test]
    fn files_with_a_piece_that_nobody_proved_are_kept_as_unsure() {
        let torrent = torrent();
        let print = Some(Fingerprint { len: 7, mtime_ns: 7 });
        let mut files = vec![print, print, None];
        mark_unsure(&torrent, &mut files, &bits(&[2, 4]));
        assert_eq!(files, [Some(Fingerprint::UNSURE), Some(Fingerprint::UNSURE), None]);
        let mut files = vec![print; 3];
        mark_unsure(&torrent, &mut files, &bits(&[0]));
        assert_eq!(files, [Some(Fingerprint::UNSURE), print, print]);
    }
}
