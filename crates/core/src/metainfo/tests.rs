use proptest::prelude::*;
use sha1::{Digest, Sha1};

use crate::bencode::BencodeError;

use super::bytes::HASH_LEN;
use super::*;
use crate::{InfoHash, PieceIndex, Sha1Hash};

// Torrents are written here by hand, value by value, so that they may be wrong in any way.

fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [format!("{}:", text.len()).as_bytes(), text].concat()
}

fn int(value: i128) -> Vec<u8> {
    format!("i{value}e").into_bytes()
}

fn list(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = vec![b'l'];
    items.into_iter().for_each(|item| out.extend(item));
    out.push(b'e');
    out
}

#[derive(Clone, Default)]
struct Dict(std::collections::BTreeMap<Vec<u8>, Vec<u8>>);

impl Dict {
    fn set(mut self, key: &str, value: Vec<u8>) -> Self {
        self.0.insert(key.into(), value);
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.0.remove(key.as_bytes());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![b'd'];
        for (key, value) in &self.0 {
            out.extend(string(key));
            out.extend(value);
        }
        out.push(b'e');
        out
    }
}

fn single() -> Dict {
    Dict::default()
        .set("name", string("a.iso"))
        .set("piece length", int(16_384))
        .set("length", int(20_000))
        .set("pieces", string([7; 40]))
}

fn file(path: &[&str], len: i128) -> Vec<u8> {
    let path = list(path.iter().map(string));
    Dict::default().set("length", int(len)).set("path", path).bytes()
}

fn folder(files: impl IntoIterator<Item = Vec<u8>>, pieces: usize) -> Dict {
    single()
        .without("length")
        .set("name", string("set"))
        .set("files", list(files))
        .set("pieces", string(vec![7; pieces * 20]))
}

fn torrent(info: &Dict) -> Vec<u8> {
    Dict::default().set("info", info.bytes()).bytes()
}

fn parse(info: &Dict) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&torrent(info), &ParseLimits::default())
}

#[test]
fn a_single_file_torrent_is_read() {
    let bytes = torrent(&single());
    let torrent = Metainfo::parse(&bytes, &ParseLimits::default()).unwrap();
    let info = torrent.info();
    assert_eq!(info.name(), "a.iso");
    assert!(info.is_single_file() && !info.is_private());
    assert_eq!((info.geometry().pieces(), info.geometry().total_len()), (2, 20_000));
    assert_eq!(info.files().entries()[0].relative_path().to_str(), Some("a.iso"));
    assert_eq!(torrent.bytes().unwrap().piece_hash(PieceIndex(1)), Some(Sha1Hash([7; 20])));
    assert_eq!(torrent.bytes().unwrap().piece_hash(PieceIndex(2)), None);
    assert_eq!(torrent.bytes().unwrap().as_ref(), bytes);
    assert_eq!(torrent.bytes().unwrap().info(), single().bytes());
    assert!(torrent.trackers().is_empty());
}

#[test]
fn a_folder_torrent_is_read() {
    let files = [file(&["b", "c.txt"], 10), file(&["empty"], 0), file(&["a"], 16_384)];
    let torrent = parse(&folder(files, 2)).unwrap();
    let entries = torrent.info().files().entries();
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["set/b/c.txt", "set/empty", "set/a"]);
    assert_eq!(entries[2].span(), 10..16_394);
    assert!(!torrent.info().is_single_file());
}

#[test]
fn the_info_hash_covers_unknown_and_unsorted_keys_as_received() {
    let mut info = single().set("x-unknown", list([int(1)])).bytes();
    // `zz` before `length` is out of order.
    info.splice(1..1, [string("zz"), string("kept")].concat());
    let bytes = [b"d4:info", &info[..], b"e"].concat();
    let torrent = Metainfo::parse(&bytes, &ParseLimits::default()).unwrap();
    assert_eq!(torrent.info_hash(), InfoHash(Sha1::digest(&info).into()));
    assert_eq!(torrent.bytes().unwrap().info(), info);
}

#[test]
fn no_content_is_a_torrent_of_no_pieces() {
    let info = single().set("length", int(0)).set("pieces", string(""));
    let torrent = parse(&info).unwrap();
    assert_eq!(torrent.info().geometry().pieces(), 0);
    assert_eq!(torrent.bytes().unwrap().piece_hash(PieceIndex(0)), None);
    assert_eq!(torrent.info().files().slices(0..u64::MAX).count(), 0);
}

#[test]
fn private_is_read() {
    assert!(parse(&single().set("private", int(1))).unwrap().info().is_private());
    assert!(!parse(&single().set("private", int(0))).unwrap().info().is_private());
}

#[test]
fn tiers_stand_in_for_announce() {
    let outer = Dict::default().set("info", single().bytes()).set("announce", string("http://a"));
    let read = |outer: &Dict| {
        let torrent = Metainfo::parse(&outer.bytes(), &ParseLimits::default()).unwrap();
        torrent.trackers().to_vec()
    };
    assert_eq!(read(&outer), [["http://a"]]);
    let tiers = list([
        list([string("udp://b"), string("http://c"), string(""), string(b"\xff")]),
        list([]),
        list([string("http://d"), int(3)]),
    ]);
    let tiered = outer.clone().set("announce-list", tiers);
    assert_eq!(read(&tiered), [vec!["udp://b", "http://c"], vec!["http://d"]]);
    // Nothing in it is usable, so `announce` is used.
    assert_eq!(read(&outer.set("announce-list", list([list([])]))), [["http://a"]]);
}

#[test]
fn more_trackers_than_the_limit_are_left_out() {
    let tiers =
        list([list((0..60).map(|_| string("http://a"))), list((0..99_999).map(|_| string("u")))]);
    let outer = Dict::default().set("info", single().bytes()).set("announce-list", tiers);
    let torrent = Metainfo::parse(&outer.bytes(), &ParseLimits::default()).unwrap();
    assert_eq!(torrent.trackers().iter().map(Vec::len).collect::<Vec<_>>(), [60, 40]);
}

#[test]
fn what_the_maker_says_is_read_and_oddities_in_it_are_forgiven() {
    let outer = Dict::default()
        .set("info", single().bytes())
        .set("comment", string("hi"))
        .set("created by", string(b"x\xff"))
        .set("creation date", string("yesterday"));
    let torrent = Metainfo::parse(&outer.bytes(), &ParseLimits::default()).unwrap();
    assert_eq!(torrent.comment(), Some("hi"));
    assert_eq!(torrent.created_by(), Some("x\u{fffd}"));
    assert_eq!(torrent.creation_date(), None);
}

#[test]
fn utf8_names_win_over_names_that_are_not() {
    let path = |key: &str, name: &[u8]| {
        Dict::default().set("length", int(0)).set(key, list([string(name)]))
    };
    let both = path("path", b"\xa4").set("path.utf-8", list([string("語")]));
    let info =
        folder([both.bytes()], 0).set("name", string(b"\xa4")).set("name.utf-8", string("名"));
    let torrent = parse(&info).unwrap();
    assert_eq!(torrent.info().files().entries()[0].path.as_str(), "名/語");

    // A name that is not UTF-8, or empty, is not used.
    let both = path("path", b"a").set("path.utf-8", list([string(b"\xa4")]));
    for other in [int(7), string("")] {
        let info = folder([both.bytes()], 0).set("name.utf-8", other);
        assert_eq!(parse(&info).unwrap().info().files().entries()[0].path.as_str(), "set/a");
    }
}

#[test]
fn padding_files_are_kept_and_flagged() {
    let pad = |len| {
        let path = list([string(".pad"), string("6374")]);
        Dict::default().set("length", int(len)).set("path", path).set("attr", string("p")).bytes()
    };
    // Several with one name are usual, because they are never written.
    let torrent =
        parse(&folder([file(&["a"], 10), pad(6_374), file(&["b"], 5), pad(6_374)], 1)).unwrap();
    let flags: Vec<_> = torrent.info().files().entries().iter().map(|e| e.padding).collect();
    assert_eq!(flags, [false, true, false, true]);
}

#[test]
fn version_two_torrents_are_refused_by_name() {
    let info =
        single().without("pieces").without("length").set("file tree", Dict::default().bytes());
    assert!(matches!(parse(&info), Err(MetainfoError::VersionTwoOnly)));
}

#[test]
fn truncated_torrent_is_refused() {
    let bytes = torrent(&single());
    for cut in 0..bytes.len() {
        assert!(Metainfo::parse(&bytes[..cut], &ParseLimits::default()).is_err());
    }
}

#[test]
fn what_is_no_torrent_is_refused() {
    for bytes in [&b"de"[..], b"le", b"i1e", b"4:info", b"d4:infoi1ee", b"d4:infolee"] {
        let fault = Metainfo::parse(bytes, &ParseLimits::default()).unwrap_err();
        assert!(matches!(fault, MetainfoError::NotATorrent), "{fault}");
    }
}

#[test]
fn missing_and_mistyped_keys_are_refused() {
    for key in ["name", "pieces", "piece length"] {
        let fault = parse(&single().without(key)).unwrap_err();
        assert_eq!(fault.to_string(), format!("the torrent has no `{key}`"));
    }
    for key in ["name", "pieces", "piece length", "length"] {
        assert!(parse(&single().set(key, list([]))).is_err(), "{key}");
    }
    for files in [int(1), list([int(1)]), list([list([])]), list([Dict::default().bytes()])] {
        assert!(parse(&single().without("length").set("files", files)).is_err());
    }
}

#[test]
fn line_1_files_count_where_there_is_a_length_too_and_one_of_both_is_needed() {
    let both = folder([file(&["a"], 1)], 1).set("length", int(5));
    let torrent = parse(&both).unwrap();
    assert_eq!(
        (torrent.info().is_single_file(), torrent.info().geometry().total_len()),
        (false, 1)
    );
    assert!(torrent.notices().unwrap()[0].contains("both `length` and `files`"));
    let no_list = single().set("files", list([]));
    assert!(parse(&no_list).unwrap().info().is_single_file());
    let neither = single().without("length");
    assert!(matches!(parse(&neither), Err(MetainfoError::NeitherLengthNorFiles)));
    assert!(matches!(parse(&folder([], 0)), Err(MetainfoError::NoFiles)));
}

#[test]
fn a_path_without_parts_or_of_too_many_is_refused() {
    let refused = |parts: &[&str]| match parse(&folder([file(parts, 0)], 0)) {
        Err(MetainfoError::Path { fault, .. }) => fault,
        other => panic!("{parts:?} gave {other:?}"),
    };
    assert_eq!(refused(&[]), PathFault::NoComponents);
    // The name of the torrent is the hundredth component.
    assert_eq!(refused(&["d"; 100]), PathFault::TooDeep { limit: 100 });
    assert_eq!(refused(&["d"; 100_000]), PathFault::TooDeep { limit: 100 });
    assert!(parse(&folder([file(&["d"; 99], 0)], 0)).is_ok());
}

#[test]
fn names_that_would_be_read_as_others_are_not_made() {
    let long = "ü".repeat(128);
    let refused = |name: &str| {
        let files = vec![(vec![name.to_owned()], 0)];
        match MetainfoBuilder::folder("set", files).files() {
            Err(MetainfoError::Path { fault, .. }) => fault,
            other => panic!("{name:?} gave {other:?}"),
        }
    };
    for (name, fault) in [
        ("..", PathFault::DotComponent),
        (".", PathFault::DotComponent),
        ("", PathFault::EmptyComponent),
        ("/etc", PathFault::Absolute),
        ("a/b", PathFault::Separator),
        ("..\\x", PathFault::Separator),
        ("\\x", PathFault::Separator),
        ("a\0b", PathFault::Nul),
        ("a\u{10ffe9}", PathFault::NotUtf8),
        (&long, PathFault::TooLong { len: 256, limit: 255 }),
    ] {
        assert_eq!(refused(name), fault, "{name:?}");
    }
    let fault = MetainfoBuilder::single_file("\x1b[2J/", 0).files().unwrap_err().to_string();
    assert!(fault.starts_with("the path `\\x1b[2J/` is refused:"), "{fault}");
    let fault = MetainfoBuilder::single_file("x".repeat(100_000), 0).files().unwrap_err();
    assert!(fault.to_string().len() < 400);

    let path = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let folder = |paths: &[&str]| {
        let files = paths.iter().map(|text| (path(text), 0)).collect();
        MetainfoBuilder::folder("set", files).files().map_err(|fault| fault.to_string())
    };
    assert_eq!(folder(&["a", "b", "a"]).unwrap_err(), "the file `set/a` is listed twice");
    assert_eq!(
        folder(&["a/b", "a b", "a"]).unwrap_err(),
        "`set/a` is a file, but `set/a/b` would be inside it"
    );
    assert!(folder(&["README", "readme", "Z", "z/x", "a\\x2d.mount", "e\u{301}", "é"]).is_ok());
}

#[test]
fn piece_length_zero_is_refused() {
    for bad in [0, -1, 536_870_913, i64::MAX.into(), i64::MIN.into()] {
        let fault = parse(&single().set("piece length", int(bad))).unwrap_err();
        assert!(matches!(fault, MetainfoError::PieceLength { .. }), "{bad}: {fault}");
    }
}

#[test]
fn piece_length_not_matching_the_hash_count_is_refused() {
    for hashes in [0, 19, 20, 39, 41, 60] {
        let fault = parse(&single().set("pieces", string(vec![7; hashes]))).unwrap_err();
        assert!(matches!(fault, MetainfoError::HashCount { wanted: 40, .. }));
    }
    assert!(parse(&single().set("piece length", int(32_768))).is_err());
}

#[test]
fn more_pieces_than_the_limit_are_refused() {
    let limits = ParseLimits { pieces: 1, ..ParseLimits::default() };
    let fault = Metainfo::parse(&torrent(&single()), &limits).unwrap_err();
    assert!(matches!(fault, MetainfoError::TooManyPieces { pieces: 2, limit: 1 }));
    let info = single().set("length", int(i64::MAX.into())).set("piece length", int(1));
    assert!(matches!(parse(&info), Err(MetainfoError::TooManyPieces { .. })));
}

#[test]
fn negative_file_length_is_refused() {
    let fault = parse(&folder([file(&["a"], -1)], 0)).unwrap_err();
    assert_eq!(fault.to_string(), "the file `set/a` has the impossible length `-1`");
    assert!(parse(&single().set("length", int(i64::MIN.into()))).is_err());
}

#[test]
fn total_over_i64_is_refused() {
    let files = [file(&["a"], i64::MAX.into()), file(&["b"], 1)];
    assert!(matches!(parse(&folder(files, 0)), Err(MetainfoError::TotalLength)));
    // Beyond 64 bits for one file alone, the scanner refuses it.
    assert!(parse(&folder([file(&["a"], 1 << 63)], 0)).is_err());
}

#[test]
fn three_million_files_are_refused() {
    let mut info = b"d5:filesl".to_vec();
    for number in 0..3_000_000 {
        info.extend(format!("d6:lengthi0e4:pathl7:{number:07}ee").bytes());
    }
    info.extend(b"e4:name3:set12:piece lengthi16384e6:pieces0:e");
    let bytes = [b"d4:info", &info[..], b"e"].concat();
    let limits = ParseLimits { bytes: 10_485_760, ..ParseLimits::default() };
    let fault = Metainfo::parse(&bytes, &limits).unwrap_err();
    assert!(matches!(fault, MetainfoError::TooLong { limit: 10_485_760, .. }));

    // Taken by its size, it is refused by the number of its values, before any is decoded.
    let limits = ParseLimits { bytes: usize::MAX, ..ParseLimits::default() };
    let fault = Metainfo::parse(&bytes, &limits).unwrap_err();
    assert!(matches!(fault, MetainfoError::Bencode(BencodeError::TooManyTokens { .. })), "{fault}");
}

#[test]
fn more_files_than_the_limit_are_refused() {
    let limits = ParseLimits { files: 2, ..ParseLimits::default() };
    let files = || [file(&["a"], 0), file(&["b"], 0), file(&["c"], 0)];
    let parse = |info: &Dict| Metainfo::parse(&torrent(info), &limits);
    assert!(matches!(
        parse(&folder(files(), 0)),
        Err(MetainfoError::TooManyFiles { files: 3, limit: 2 })
    ));
    assert!(parse(&folder(files().into_iter().take(2), 0)).is_ok());
}

#[test]
fn piece_lengths_are_chosen_for_one_to_two_thousand_pieces() {
    assert_eq!(choose_piece_len(0), 16 << 10);
    assert_eq!(choose_piece_len(1 << 20), 16 << 10);
    assert_eq!(choose_piece_len(1 << 30), 1 << 20);
    assert_eq!(choose_piece_len(u64::MAX), 64 << 20);
    for total in (0..110).map(|step| (20 << 20) + step * (1_u64 << 30)) {
        let pieces = total.div_ceil(choose_piece_len(total).into());
        assert!((1_000..=2_000).contains(&pieces), "{total}: {pieces}");
    }
    for good in [16 << 10, 1 << 20, 64 << 20] {
        assert!(check_piece_len(good).is_ok());
    }
    for bad in [0, 1, 8 << 10, 3 << 14, 128 << 20] {
        assert!(check_piece_len(bad).is_err());
    }
}

fn two_files() -> MetainfoBuilder {
    let files = vec![(vec!["b".to_owned()], 5), (vec!["a".to_owned(), "z".to_owned()], 16_384)];
    MetainfoBuilder::folder("set", files)
}

#[test]
fn what_is_made_is_canonical_and_reads_back() {
    let trackers = vec![vec!["http://a".to_owned()], vec![], vec!["udp://b".to_owned()]];
    let made = two_files()
        .private(true)
        .trackers(trackers)
        .comment("c")
        .created_by("me")
        .creation_date(1_700_000_000)
        .build(vec![9; 40])
        .unwrap();
    let expected = "d8:announce8:http://a13:announce-listll8:http://ael7:udp://bee7:comment1:c\
        10:created by2:me13:creation datei1700000000e4:infod5:filesl\
        d6:lengthi16384e4:pathl1:a1:zeed6:lengthi5e4:pathl1:beee\
        4:name3:set12:piece lengthi16384e6:pieces40:";
    let expected = [expected.as_bytes(), &[9; 40], b"7:privatei1eee"].concat();
    assert_eq!(made.bytes().unwrap().as_ref(), expected);
    assert_eq!(made.trackers(), [["http://a"], ["udp://b"]]);
    assert_eq!(made.creation_date(), Some(1_700_000_000));
    assert!(made.info().is_private());
    assert_eq!(made.info().files(), &two_files().files().unwrap());
    assert_eq!(made.info().geometry(), two_files().geometry().unwrap());
}

#[test]
fn one_tracker_is_written_as_announce_alone() {
    let made = MetainfoBuilder::single_file("a", 0)
        .trackers(vec![vec!["http://a".to_owned()]])
        .build(Vec::new())
        .unwrap();
    let expected =
        b"d8:announce8:http://a4:infod6:lengthi0e4:name1:a12:piece lengthi16384e6:pieces0:ee";
    assert_eq!(made.bytes().unwrap().as_ref(), expected);
    assert_eq!(made.trackers(), [["http://a"]]);
}

#[test]
fn what_would_be_refused_is_not_made() {
    assert!(two_files().build(vec![9; 20]).is_err());
    assert!(two_files().piece_len(1 << 10).build(vec![9; 400]).is_err());
    assert!(two_files().piece_len(1 << 10).geometry().is_err());
    assert!(MetainfoBuilder::single_file("..", 0).files().is_err());
    assert!(MetainfoBuilder::folder("set", Vec::new()).files().is_err());
    assert!(MetainfoBuilder::single_file("a", u64::MAX).files().is_err());
    // 60 GiB in pieces of 16 KiB have more bytes of hashes than a torrent may have.
    let many = MetainfoBuilder::single_file("a", 60 << 30).piece_len(16 << 10);
    assert!(matches!(many.geometry(), Err(MetainfoError::TooManyPieces { .. })));
}

fn name() -> impl Strategy<Value = String> {
    "[a-cA-Cü语 .]{1,4}".prop_filter("dots", |name| name != "." && name != "..")
}

proptest! {
    #[test]
    fn any_folder_that_is_made_reads_back(
        files in prop::collection::btree_map(prop::collection::vec(name(), 1..4), 0_u64..50_000, 1..20),
        top in name(),
        private: bool,
        step in 0_u64..60_000,
    ) {
        let total: u64 = files.values().sum();
        let builder = MetainfoBuilder::folder(&top, files.into_iter().collect()).private(private);
        let hashes = vec![1; builder.geometry().unwrap().pieces() as usize * HASH_LEN];
        // Names that collide are refused; all others must be parsed again unchanged.
        let Ok(map) = builder.files() else { return Ok(()) };
        let made = builder.build(hashes).unwrap();
        prop_assert_eq!(made.info().name(), top);
        prop_assert_eq!(made.info().is_private(), private);
        prop_assert_eq!(made.info().files(), &map);
        prop_assert!(crate::bencode::scan(made.bytes().unwrap().as_ref(), &Default::default()).unwrap().is_canonical());

        // Consecutive spans cover the content: each byte once, and in the right file.
        let mut at = 0;
        let mut covered = 0;
        while at < total {
            let span = at..at + step.max(1);
            for slice in map.slices(span.clone()) {
                let entry = &map.entries()[slice.file];
                prop_assert!(slice.len > 0 && slice.offset + slice.len <= entry.len);
                prop_assert_eq!(entry.offset + slice.offset, covered);
                covered += slice.len;
            }
            prop_assert_eq!(covered, span.end.min(total));
            at = span.end;
        }
        prop_assert_eq!(map.slices(total..u64::MAX).count(), 0);
    }

    #[test]
    fn arbitrary_changes_never_panic(at in any::<prop::sample::Index>(), byte: u8, info: bool) {
        let mut bytes = torrent(&if info { single() } else { folder([file(&["a", "b"], 5)], 1) });
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(torrent) = Metainfo::parse(&bytes, &ParseLimits::default()) {
            prop_assert!(bytes.starts_with(&torrent.bytes().unwrap()));
        }
    }
}

#[test]
fn a_tebibyte_in_pieces_of_2_mib_is_taken_of_anybody_and_two_million_pieces_are_taken() {
    let hashes = |pieces: u64| vec![7; pieces as usize * 20];
    let tebibyte = MetainfoBuilder::single_file("disk.img", 1 << 40).piece_len(2 << 20);
    let torrent = tebibyte.build(hashes(1 << 19)).unwrap();
    // 524,288 hashes of 20 bytes; trackers take 16 MiB of anybody.
    assert!(torrent.bytes().unwrap().len() < 11 << 20);
    let pieces = 2_000_000;
    let many = MetainfoBuilder::single_file("disk.img", pieces * 16_384).piece_len(16_384);
    let torrent = many.build(hashes(pieces)).unwrap();
    assert_eq!(torrent.info().geometry().pieces(), 2_000_000);
    let more = MetainfoBuilder::single_file("disk.img", pieces * 16_384 + 1).piece_len(16_384);
    let refused = more.check().unwrap_err().to_string();
    assert!(refused.contains("`2000001`") && refused.contains("`2000000`"), "{refused}");
}

#[test]
fn half_a_million_files_are_taken_and_more_are_refused_with_their_number() {
    let files = |count: usize| {
        let path = |n: usize| vec![format!("{}", n / 1_000), format!("{n}.dat")];
        (0..count).map(|n| (path(n), u64::from(n == 0))).collect::<Vec<_>>()
    };
    let limit = ParseLimits::default().files;
    assert_eq!(limit, 500_000);
    let torrent = MetainfoBuilder::folder("many", files(limit)).build(vec![7; 20]).unwrap();
    assert_eq!(torrent.info().files().entries().len(), limit);
    let more = MetainfoBuilder::folder("many", files(limit + 1));
    let refused = more.check().unwrap_err().to_string();
    assert!(refused.contains("`500001`") && refused.contains("`500000`"), "{refused}");
    // Bytes from elsewhere are refused with the same error.
    let bytes = MetainfoBuilder::folder("some", files(12)).build(vec![7; 20]).unwrap();
    let few = ParseLimits { files: 11, ..ParseLimits::default() };
    let refused = Metainfo::parse(&bytes.bytes().unwrap(), &few).unwrap_err().to_string();
    assert!(refused.contains("`12` files") && refused.contains("`11`"), "{refused}");
}

#[test]
fn how_long_a_torrent_would_be_is_known_before_anything_is_hashed() {
    for (pieces, name) in [(0, "a"), (1, "b"), (7, "name"), (60, "a longer name"), (600, "x")] {
        let builder = || MetainfoBuilder::single_file(name, pieces * 16_384).piece_len(16_384);
        let hashes = vec![7; pieces as usize * 20];
        let len = builder().build(hashes.clone()).unwrap().bytes().unwrap().len();
        let within = |bytes| ParseLimits { bytes, ..ParseLimits::default() };
        assert_eq!(u64::from(builder().limits(within(len)).check().unwrap().pieces()), pieces);
        builder().limits(within(len)).build(hashes).unwrap();
        let refused = builder().limits(within(len - 1)).check().unwrap_err();
        // The hashes alone may be what is too long.
        let is_named = matches!(refused, MetainfoError::TooLong { len: it, .. } if it == len);
        assert!(is_named || matches!(refused, MetainfoError::TooManyPieces { .. }), "{refused}");
    }
}

#[test]
fn a_torrent_is_made_of_metadata_and_trackers() {
    let made = MetainfoBuilder::single_file("a", 20).build(vec![7; 20]).unwrap();
    let (bytes, info_hash) = (made.bytes().unwrap(), made.info_hash());
    let tiers = [vec!["http://a/announce".to_owned()], vec!["udp://b:1".to_owned()]];
    for trackers in [&tiers[..], &[]] {
        let of_info =
            |info: &[u8], hash| Metainfo::of_info(info, hash, trackers, &ParseLimits::default());
        let torrent = of_info(bytes.info(), info_hash).unwrap().unwrap();
        assert_eq!((torrent.info_hash(), torrent.trackers()), (info_hash, trackers));
        assert!(torrent.notices().unwrap().is_empty());
        assert!(of_info(&bytes.info()[1..], info_hash).unwrap().is_none());
        // The hash is right, and it is not a torrent.
        let text = b"4:text";
        let hash = InfoHash(Sha1::digest(text).into());
        assert!(of_info(text, hash).is_err());
    }
}
