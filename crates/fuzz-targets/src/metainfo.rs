//! The target of `.torrent` files.

use std::collections::BTreeSet;
use std::path::Component;

use piecework_core::is_harmless;
use piecework_core::metainfo::{Metainfo, ParseLimits, original_name, safe_name, torrent_len};

/// Parses, and checks what all code assumes about a parsed torrent.
pub(crate) fn parse(bytes: &[u8]) {
    let limits = ParseLimits {
        bytes: 1 << 20,
        pieces: 10_000,
        files: 1_000,
        path_depth: 20,
        name_len: 255,
        tokens: 10_000,
    };
    let reported = Metainfo::parse_reported(bytes, &limits);
    let torrent = match Metainfo::parse(bytes, &limits) {
        Ok(torrent) => torrent,
        Err(error) => {
            assert!(reported.is_err(), "a report changes nothing: {error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let (same, report) = reported.expect("a report changes nothing");
    assert_eq!(same.info_hash(), torrent.info_hash());
    report.notices().iter().for_each(|notice| assert!(!notice.is_empty()));
    torrent.notices().expect("its bytes are here");

    let (files, geometry) = (torrent.info().files(), torrent.info().geometry());
    assert_eq!(files.total_len(), geometry.total_len());
    let held = torrent.bytes().expect("its bytes are here");
    assert_eq!(held.piece_hashes().len(), 20 * geometry.pieces() as usize);
    let mut next = 0;
    let mut paths = BTreeSet::new();
    for file in files.entries() {
        assert_eq!(file.span().start, next, "files follow each other");
        next = file.span().end;
        if file.padding {
            continue;
        }
        let path = file.relative_path();
        assert!(path.is_relative());
        for part in path.components() {
            assert!(matches!(part, Component::Normal(_)), "{path:?} leaves its folder");
        }
        assert!(paths.insert(path), "two files at one place");
    }
    assert_eq!(next, files.total_len());
    let sliced: u64 = files.slices(0..files.total_len()).map(|slice| slice.len).sum();
    assert_eq!(sliced, files.total_len());

    let safe = safe_name(torrent.info().name());
    assert!(safe.chars().all(is_harmless), "{safe:?}");
    // A name that was too long is cut.
    assert!(safe.contains("%~") || original_name(&safe) == torrent.info().name(), "{safe:?}");
    let found = torrent_len(bytes, torrent.info_hash()).expect("memory can be read");
    assert!(found.is_none_or(|len| len <= bytes.len() as u64));
}
