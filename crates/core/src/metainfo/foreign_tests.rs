//! Torrents of other programs: what is ignored, what is repaired, and that the info-hash stays the
//! same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sha1::{Digest, Sha1};

use super::*;
use crate::{InfoHash, is_harmless};

fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [format!("{}:", text.len()).as_bytes(), text].concat()
}

/// Returns the `info` of a folder with files of one byte each, given by their path components.
fn folder<P: AsRef<[u8]>>(name: &[u8], files: &[&[P]]) -> Vec<u8> {
    let mut info = b"d5:filesl".to_vec();
    for parts in files {
        info.extend(b"d6:lengthi1e4:pathl");
        parts.iter().for_each(|part| info.extend(string(part)));
        info.extend(b"ee");
    }
    info.extend(b"e4:name");
    info.extend(string(name));
    info.extend(b"12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae");
    info
}

fn around(info: &[u8]) -> Vec<u8> {
    [b"d4:info", info, b"e"].concat()
}

fn read(bytes: &[u8]) -> (Metainfo, ParseReport) {
    Metainfo::parse_reported(bytes, &ParseLimits::default()).unwrap()
}

fn paths(torrent: &Metainfo) -> Vec<&str> {
    torrent.info().files().entries().iter().map(|entry| entry.path.as_str()).collect()
}

fn repaired(parts: &[&[u8]]) -> String {
    let (torrent, _) = read(&around(&folder(b"set", &[parts])));
    paths(&torrent)[0].strip_prefix("set/").unwrap().to_owned()
}

/// Parses a torrent of `tests/torrents` and compares its info-hash with that of its own bytes.
macro_rules! case {
    ($name:literal) => {{
        let bytes = include_bytes!(concat!("../../../../tests/torrents/", $name, ".torrent"));
        let (torrent, report) = read(bytes);
        let at = bytes.windows(6).position(|it| it == b"4:info").unwrap() + 6;
        let (info, end) = crate::bencode::scan_prefix(&bytes[at..], &Default::default())
            .map_or_else(
                |_| (bytes[at..].strip_suffix(b"e").unwrap(), 0),
                |(scan, end)| (scan.bytes(), end),
            );
        assert!(end <= info.len());
        assert_eq!(torrent.info_hash(), InfoHash(Sha1::digest(info).into()));
        (torrent, report)
    }};
}

#[test]
fn case_01_a_gbk_name_is_read_and_the_info_hash_stays() {
    let (torrent, report) = case!("01-gbk-name-only");
    assert_eq!(paths(&torrent), ["测试文件.bin"]);
    assert_eq!(report.encoding, Some("GBK"));
    assert_eq!(report.name.as_deref(), Some("\\xb2\\xe2\\xca\\xd4\\xceļ\\xfe.bin"));
}

#[test]
fn case_06_names_that_differ_in_case_only_stay() {
    let (torrent, report) = case!("06-case-only");
    assert_eq!(paths(&torrent), ["folder/ReadMe.txt", "folder/readme.txt"]);
    assert_eq!(report, ParseReport::default());
}

#[test]
fn case_08_the_second_of_two_equal_paths_gets_a_number() {
    let (torrent, report) = case!("08-same-path-twice");
    assert_eq!(paths(&torrent), ["folder/a.txt", "folder/a.1.txt"]);
    assert_eq!(report.paths, [(1, "folder/a.txt".to_owned())].into());
}

#[test]
fn case_14_an_empty_part_is_left_out() {
    let (torrent, report) = case!("14-empty-component");
    assert_eq!(paths(&torrent), ["folder/a.txt"]);
    assert_eq!(report.paths, [(0, "folder//a.txt".to_owned())].into());
}

#[test]
fn case_19_bytes_behind_the_torrent_are_ignored() {
    let (torrent, report) = case!("19-trailing-newline");
    assert_eq!(report.trailing, 1);
    // They are not passed on.
    assert_eq!(torrent.bytes().unwrap().last(), Some(&b'e'));
    Metainfo::parse(&torrent.bytes().unwrap(), &ParseLimits::default()).unwrap();
}

#[test]
fn case_26_of_a_key_that_occurs_twice_the_first_value_is_used() {
    let (torrent, report) = case!("26-duplicate-root-key");
    assert_eq!(torrent.trackers(), [["http://127.0.0.1:9/announce"]]);
    assert_eq!(report.notices(), ["the key `announce` occurs twice; its first value is used"]);
}

#[test]
fn case_28_leading_zeros_are_taken_outside_info() {
    let (torrent, report) = case!("28-leading-zero-int");
    assert_eq!(torrent.creation_date(), Some(123_456));
    assert_eq!(report.odd_numbers, 1);
}

#[test]
fn case_31_a_private_of_text_is_private() {
    let (torrent, _) = case!("31-private-string");
    assert!(torrent.info().is_private());
}

#[test]
fn case_47_padding_without_a_path_is_padding() {
    let (torrent, report) = case!("47-pad-no-path");
    assert_eq!(paths(&torrent), ["folder/a.txt", "folder/.pad/15384", "folder/b.txt"]);
    assert!(torrent.info().files().entries()[1].padding);
    assert!(report.paths.is_empty());
}

#[test]
fn case_49_a_link_is_left_out_with_a_notice() {
    let (torrent, report) = case!("49-symlink");
    let files: Vec<_> =
        torrent.info().files().entries().iter().map(|it| (it.len, it.padding)).collect();
    assert_eq!(files, [(1_000, false), (0, true)]);
    assert_eq!(report.notices(), ["the symbolic link `folder/link.txt` to `a.txt` is left out"]);
}

#[test]
fn case_55_a_long_name_is_cut_at_a_character_and_keeps_its_ending() {
    let (torrent, report) = case!("55-name-300-bytes-cjk");
    let name = torrent.info().name();
    assert!((230..=255).contains(&name.len()), "{}", name.len());
    assert!(name.starts_with("文文文") && name.ends_with("文.bin"), "{name}");
    assert!(report.name.is_some());
}

#[test]
fn case_a_an_attr_that_is_a_number_does_not_matter() {
    let (torrent, report) = case!("a-attr-int");
    assert_eq!(paths(&torrent), ["folder/a.txt"]);
    assert_eq!(report, ParseReport::default());
}

#[test]
fn parts_of_paths_are_made_file_names() {
    let table: &[(&[&[u8]], &str)] = &[
        (&[b".."], "_"),
        (&[b"..", b"..", b"x"], "_/_/x"),
        (&[b".", b"x"], "_/x"),
        (&[b"/etc/passwd"], "etcpasswd"),
        (&[b"a/b", b"c"], "ab/c"),
        (&[b"./."], "_"),
        (&[b"./.\\x"], "..x"),
        (&[b"/", b"x"], "x"),
        (&[b"", b""], "_"),
        (&[b"..\\..\\x"], "....x"),
        (&[b"\\server\\x"], "serverx"),
        (&[b"C:\\x"], "C:x"),
        (&[b"..\\"], "_"),
        (&[b"system-x\\x2dy.mount"], "system-x\\x2dy.mount"),
        (&[b"a\0b"], "a_b"),
        (&["a\u{10ffe9}".as_bytes()], "a_"),
        (&[b"\x1b[2J"], "\u{1b}[2J"),
    ];
    for (parts, path) in table {
        assert_eq!(repaired(parts), *path, "{parts:?}");
    }
}

#[test]
fn names_in_other_encodings_are_read_by_a_guess_or_by_what_the_torrent_says() {
    let latin: &[u8] = b"Caf\xe9 M\xfcller - Stra\xdfe.txt";
    let cyrillic: &[u8] = b"\xcf\xf0\xe8\xe2\xe5\xf2 \xec\xe8\xf0.txt";
    assert_eq!(repaired(&[latin]), "Café Müller - Straße.txt");
    assert_eq!(repaired(&[cyrillic]), "Привет мир.txt");
    assert_eq!(repaired(&[b"\xc3\xbc", b"ok"]), "ü/ok");
    // Cut inside a character, not in another encoding.
    assert_eq!(repaired(&[b"\xe6\x96\x87\xe6\x96\x87\xe6\x96"]), "文文_");

    let info = folder(b"\xcf\xf0\xe8", &[&[b"a"]]);
    for said in ["8:encoding12:windows-1251", "8:codepagei1251e", "8:encoding6:CP1251"] {
        let bytes = [b"d", said.as_bytes(), b"4:info", &info, b"e"].concat();
        assert_eq!(read(&bytes).0.info().name(), "При", "{said}");
    }
    // The label is wrong or not an encoding, so the encoding is guessed, and there is some name.
    for said in ["8:encoding5:UTF-8", "8:encoding1:x", "8:encodingle", "8:codepagei-7e"] {
        let bytes = [b"d", said.as_bytes(), b"4:info", &info, b"e"].concat();
        assert!(!read(&bytes).0.info().name().is_empty(), "{said}");
    }
}

#[test]
fn a_torrent_without_a_usable_name_is_called_by_its_info_hash() {
    for name in [&b""[..], b"/", b"//"] {
        let (torrent, _) = read(&around(&folder(name, &[&[b"a"]])));
        assert_eq!(torrent.info().name(), torrent.info_hash().to_string());
    }
}

#[test]
fn files_in_each_others_way_get_numbers_and_the_first_keeps_its_name() {
    let files: &[&[&[u8]]] = &[
        &[b"a.txt"],
        &[b"a.txt"],
        &[b"a.1.txt"],
        &[b"d"],
        &[b"d", b"x"],
        &[b"d.1", b"y"],
        &[b"", b"a.txt"],
        &[b".hidden"],
        &[b".hidden"],
        &[b"D"],
    ];
    let (torrent, _) = read(&around(&folder(b"t", files)));
    let expected = [
        "t/a.txt",
        "t/a.2.txt",
        "t/a.1.txt",
        "t/d.2",
        "t/d/x",
        "t/d.1/y",
        "t/a.3.txt",
        "t/.hidden",
        "t/.hidden.1",
        "t/D",
    ];
    assert_eq!(paths(&torrent), expected);
}

#[test]
fn where_case_is_folded_files_that_differ_in_case_only_have_other_names() {
    let files: &[&[&[u8]]] =
        &[&[b"README"], &[b"readme"], &[b"Z"], &[b"z", b"x"], &["é".as_bytes()], &["É".as_bytes()]];
    let (torrent, _) = read(&around(&folder(b"t", files)));
    let others = torrent.info().files().distinct_where_case_is_folded();
    let others: Vec<_> = others.iter().map(|(file, path)| (*file, path.as_str())).collect();
    assert_eq!(others, [(1, "t/readme.1"), (2, "t/Z.1"), (5, "t/É.1")]);
}

#[test]
fn tens_of_thousands_of_equal_paths_are_told_apart() {
    let one = b"d6:lengthi0e4:pathl5:a.txtee".to_vec();
    let long = [b"d6:lengthi0e4:pathl", &string("l".repeat(1_000))[..], b"ee"].concat();
    let count = 50_000;
    let info = [
        b"d5:filesl",
        &one.repeat(count)[..],
        &long.repeat(1_000),
        b"e4:name1:t12:piece lengthi16384e6:pieces0:e",
    ]
    .concat();
    let torrent = Metainfo::parse(&around(&info), &ParseLimits::default()).unwrap();
    let paths = paths(&torrent);
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), count + 1_000);
    assert_eq!(paths[count - 1], format!("t/a.{}.txt", count - 1));
}

#[test]
fn what_does_not_matter_may_be_of_any_type() {
    let info = folder(b"set", &[&[b"a"]]);
    for extra in [
        "7:comment",
        "10:created by",
        "13:creation date",
        "8:announce",
        "13:announce-list",
        "8:url-list",
        "5:nodes",
        "8:encoding",
        "9:publisher",
    ] {
        for value in ["i1e", "2:xx", "le", "de", "li1ee", "d1:ai1ee", "i99999999999999999999e"] {
            let bytes =
                [b"d", extra.as_bytes(), value.as_bytes(), b"4:info", &info[..], b"e"].concat();
            read(&bytes);
        }
    }
    for extra in ["4:attr", "6:md5sum", "5:mtime", "4:sha1", "10:path.utf-8", "10:name.utf-8"] {
        for value in ["i1e", "2:xx", "le", "de", "li1ee"] {
            let info = format!(
                "d5:filesld{extra}{value}6:lengthi1e4:pathl1:aeee4:name3:set{extra}{value}\
                 12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae"
            );
            let (torrent, _) = read(&around(info.as_bytes()));
            assert!(!paths(&torrent)[0].is_empty(), "{extra} {value}");
        }
    }
    // A flat list of trackers.
    let bytes = [b"d13:announce-listl8:http://a7:udp://be4:info", &info[..], b"e"].concat();
    assert_eq!(read(&bytes).0.trackers(), [["http://a"], ["udp://b"]]);
}

#[test]
fn what_matters_is_of_its_type() {
    let whole = "d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    read(&around(whole.as_bytes()));
    for (from, to) in [
        ("6:lengthi1e", "6:length1:1"),
        ("6:lengthi1e", "6:lengthi01e"),
        ("6:lengthi1e", "6:lengthle"),
        ("6:lengthi1e", ""),
        ("4:name1:a", "4:namei1e"),
        ("4:name1:a", ""),
        ("12:piece lengthi16384e", "12:piece length5:16384"),
        ("12:piece lengthi16384e", "12:piece lengthi016384e"),
        ("20:aaaaaaaaaaaaaaaaaaaa", "i1e"),
        ("20:aaaaaaaaaaaaaaaaaaaa", "020:aaaaaaaaaaaaaaaaaaaa"),
        ("6:lengthi1e", "5:filesl1:ae"),
        ("6:lengthi1e", "5:filesld6:lengthi1eee"),
        ("6:lengthi1e", "5:filesld6:lengthi1e4:path1:aee"),
        ("6:lengthi1e", "5:filesld6:lengthi1e4:pathli1eeee"),
        ("6:lengthi1e", "5:filesld4:pathl1:aeee"),
    ] {
        let info = whole.replacen(from, to, 1);
        let parsed = Metainfo::parse(&around(info.as_bytes()), &ParseLimits::default());
        assert!(parsed.is_err(), "{info}");
    }
    let fault =
        Metainfo::parse(&around(whole.replace("i1e", "i01e").as_bytes()), &ParseLimits::default());
    assert_eq!(
        fault.unwrap_err().to_string(),
        "the torrent is malformed: the integer at byte `16` is not canonical bencode"
    );
}

#[test]
fn private_of_any_type_is_private_unless_it_says_no() {
    for (value, is_private) in [
        ("i1e", true),
        ("i0e", false),
        ("1:1", true),
        ("1:0", false),
        ("0:", false),
        ("3:yes", true),
        ("le", true),
        ("i-1e", true),
    ] {
        let info = format!(
            "d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa\
             7:private{value}e"
        );
        let (torrent, _) = read(&around(info.as_bytes()));
        assert_eq!(torrent.info().is_private(), is_private, "{value}");
    }
}

#[test]
fn a_link_has_no_bytes_and_bits_of_executables_are_read() {
    let info = "d5:filesld4:attr1:l6:lengthi900e4:pathl4:linke12:symlink pathl2:..3:etcee\
                d4:attr2:xh6:lengthi1e4:pathl3:runeee4:name1:t12:piece lengthi16384e\
                6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    let (torrent, report) = read(&around(info.as_bytes()));
    let entries = torrent.info().files().entries();
    assert_eq!((entries[0].len, entries[0].padding), (0, true));
    assert!(entries[1].executable && !entries[1].padding && entries[1].offset == 0);
    assert_eq!(report.links, [("t/link".to_owned(), "../etc".to_owned())]);
}

#[test]
fn the_first_info_is_the_one_that_counts() {
    let (one, two) = (folder(b"one", &[&[b"a"]]), folder(b"two", &[&[b"a"]]));
    let bytes = [b"d4:info", &one[..], b"4:info", &two, b"e"].concat();
    let (torrent, report) = read(&bytes);
    assert_eq!(torrent.info_hash(), InfoHash(Sha1::digest(&one).into()));
    assert_eq!(report.duplicate_keys, ["info"]);
    let doubled = String::from_utf8(one).unwrap().replace("4:name3:one", "4:name3:one4:name3:two");
    let (torrent, report) = read(&around(doubled.as_bytes()));
    assert_eq!(
        (torrent.info().name(), &report.duplicate_keys[..]),
        ("one", &["info/name".to_owned()][..])
    );
    assert_eq!(torrent.info_hash(), InfoHash(Sha1::digest(doubled.as_bytes()).into()));
}

fn names() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let name = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        "[./\\\\a\u{0}\u{10ffe9}ü文-]{0,6}".prop_map(String::into_bytes),
        "[aA](\\.[1b])?".prop_map(String::into_bytes),
        prop::collection::vec(prop::sample::select(&b"a\xe9\xff./\x1b\\"[..]), 200..400),
    ];
    prop::collection::vec(name, 1..4)
}

proptest! {
    #[test]
    fn any_bytes_as_names_give_unique_safe_and_stable_paths(
        top in prop::collection::vec(any::<u8>(), 0..8),
        files in prop::collection::vec(names(), 1..12),
    ) {
        let files: Vec<_> = files.iter().map(Vec::as_slice).collect();
        let info = folder(&top, &files);
        let bytes = around(&info);
        let torrent = Metainfo::parse(&bytes, &ParseLimits::default()).unwrap();
        prop_assert_eq!(torrent.info_hash(), InfoHash(Sha1::digest(&info).into()));
        let again = Metainfo::parse(&bytes, &ParseLimits::default()).unwrap();
        prop_assert_eq!(torrent.info().files(), again.info().files());

        let on_disk = torrent.info().files().safe_names();
        let mut seen = BTreeSet::new();
        let mut folders = BTreeSet::new();
        for (file, entry) in torrent.info().files().entries().iter().enumerate() {
            let path = &entry.path;
            prop_assert_eq!(path.first(), torrent.info().name());
            for part in path.iter() {
                prop_assert!(!matches!(part, "" | "." | ".."), "{:?}", path);
                prop_assert!(!part.contains(['/', '\0']) && part.len() <= 255, "{:?}", path);
                let up = part.split('\\').any(|it| it == "..");
                prop_assert!(!up && !part.starts_with('\\'), "{:?}", path);
            }
            let own: Vec<String> = path.iter().map(str::to_owned).collect();
            let names = on_disk.get(&file).unwrap_or(&own);
            for name in names {
                prop_assert!(name.chars().all(is_harmless) && name.len() <= 255, "{:?}", name);
            }
            folders.extend((1..names.len()).map(|deep| names[..deep].to_vec()));
            prop_assert!(seen.insert(names.clone()), "{:?}", names);
        }
        prop_assert!(seen.is_disjoint(&folders));
    }
}

#[test]
fn line_11_web_seeds_and_nodes_are_told_to_be_unused() {
    let info = folder(b"set", &[&[b"a"]]);
    for (before, behind, web_seeds, nodes) in [
        ("", "8:url-list10:http://x/ae", 1, 0),
        ("", "8:url-listl1:a1:bee", 2, 0),
        ("9:httpseedsl1:ae", "5:nodesll1:ai1eel1:bi1eee8:url-list0:e", 1, 2),
        ("", "5:nodes0:8:url-listlee", 0, 0),
        ("", "e", 0, 0),
    ] {
        let bytes = [b"d", before.as_bytes(), b"4:info", &info, behind.as_bytes()].concat();
        let (torrent, report) = read(&bytes);
        assert_eq!((report.web_seeds, report.nodes), (web_seeds, nodes), "{behind}");
        let told = torrent.notices().unwrap().join("\n");
        assert_eq!(told.contains("web seeds"), web_seeds > 0, "{told}");
        assert_eq!(told.contains("DHT"), nodes > 0, "{told}");
    }
}

#[test]
fn line_19_web_seeds_nodes_and_the_source_are_told() {
    let info =
        b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa6:source3:ABCe";
    let torrent = |before: &str, behind: &str| {
        let bytes = [b"d", before.as_bytes(), b"4:info", &info[..], behind.as_bytes()].concat();
        read(&bytes).0.other_sources().unwrap()
    };
    let plain = torrent("", "e");
    assert_eq!((plain.web_seeds.len(), plain.nodes.len()), (0, 0));
    assert_eq!(plain.source.as_deref(), Some("ABC"));
    let one = torrent("", "8:url-list10:http://x/ae");
    assert_eq!(one.web_seeds, ["http://x/a"]);
    // Invalid nodes are ignored, and what would harm a terminal is escaped.
    let all = torrent(
        "9:httpseedsl1:hi7ee",
        "5:nodesll1:ai1eel3:::1i2eel1:beli3ee1:ce8:url-listl4:\x1b[2J0:ee",
    );
    assert_eq!(all.web_seeds, ["\\x1b[2J", "h"]);
    assert_eq!(all.nodes, ["a:1", "[::1]:2"]);
    let many = format!("8:url-listl{}ee", "1:x".repeat(500));
    assert_eq!(torrent("", &many).web_seeds.len(), crate::metainfo::OtherSources::MOST);
}
