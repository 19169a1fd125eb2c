//! `torrent-create`, `torrent-show` and `torrent-verify`, as users run them.

mod support;

use std::fs;
use std::path::Path;

use piecework::cli::{Exit, create, show, verify};
use piecework_core::metainfo::{Metainfo, ParseLimits};
use support::{bytes, run};

fn folder(dir: &Path) {
    let root = dir.join("data");
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("a.bin"), bytes(70_000, 1)).unwrap();
    fs::write(root.join("deep/er/b.bin"), bytes(40_000, 2)).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("Füße 文件"), b"text").unwrap();
}

#[test]
fn a_folder_is_made_into_a_torrent_shown_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let args = ["data", "--piece-length", "16KiB", "--tracker", "10.0.0.1:8000", "--comment", "c"];
    let made = run(create::main, dir.path(), &args).fine();
    assert!(made.stdout.starts_with("data.torrent: 107.4 KiB, 7 pieces of 16.0 KiB"), "{made:?}");
    let shown = run(show::main, dir.path(), &["data.torrent"]).fine().stdout;
    for part in
        ["udp://10.0.0.1:8000/announce", "http://10.0.0.1:8000/announce", "Piecework", "Füße 文件"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    let verified = run(verify::main, dir.path(), &["data.torrent", "--data", "."]).fine();
    assert_eq!(verified.stdout, "whole data: 7 pieces, 107.4 KiB\n");
    run(verify::main, dir.path(), &["data.torrent", "--data", "data"]).fine();
    run(verify::main, &dir.path().join("data"), &["../data.torrent", "--data", "."]).fine();
}

#[test]
fn json_says_all_that_the_text_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), bytes(16_385, 3)).unwrap();
    let args = ["one", "--private", "--piece-length", "16384", "-o", "sub/x.torrent"];
    run(create::main, dir.path(), &args).fine();
    let text = run(show::main, dir.path(), &["sub/x.torrent", "--json"]).fine().stdout;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["name"], "one");
    assert_eq!((&json["pieces"], &json["private"]), (&2.into(), &true.into()));
    assert_eq!(json["files"], serde_json::json!([{ "path": "one", "size": 16_385 }]));
    assert_eq!(json["trackers"], serde_json::json!([]));
    assert_eq!(json["info_hash"].as_str().unwrap().len(), 40);
}

#[test]
fn damaged_missing_and_long_files_are_named_with_their_pieces() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    run(create::main, dir.path(), &["data", "--piece-length", "16KiB"]).fine();
    let a = dir.path().join("data/a.bin");
    let mut content = fs::read(&a).unwrap();
    content[20_000] ^= 1;
    fs::write(&a, &content).unwrap();
    fs::remove_file(dir.path().join("data/empty")).unwrap();
    fs::write(dir.path().join("data/Füße 文件"), b"text and more").unwrap();
    let ran = run(verify::main, dir.path(), &["data.torrent", "--data", "."]);
    assert!(ran.stdout.contains("damaged data/a.bin, piece 1\n"), "{ran:?}");
    assert!(ran.stdout.contains("missing data/empty\n"), "{ran:?}");
    assert!(ran.stdout.contains("damaged data/Füße 文件: 13 bytes instead of 4\n"), "{ran:?}");
    let sentence = ran.failed();
    assert_eq!(sentence, "`data` is not complete: 1 of 7 pieces wrong or missing, 3 of 4 files");
}

#[test]
fn data_that_is_not_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), b"1").unwrap();
    fs::write(dir.path().join("other"), b"2").unwrap();
    run(create::main, dir.path(), &["one"]).fine();
    let gone = run(verify::main, dir.path(), &["one.torrent", "--data", "nowhere"]).failed();
    assert!(gone.contains("`nowhere`"), "{gone}");
    let other = run(verify::main, dir.path(), &["one.torrent", "--data", "other"]).failed();
    assert!(other.contains("neither `one` nor a folder"), "{other}");
}

#[test]
fn a_bad_torrent_file_gets_one_sentence_and_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let deep = vec![b'l'; 10_000_000];
    let cases: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("text", b"this is no torrent\x1b[31m"),
        ("truncated", b"d8:announce3:abc"),
        ("trailing", b"d4:infodeeX"),
        ("deep", &deep),
        ("huge-length", b"d4:info99999999999999999999:x"),
        ("no-info", b"d8:announce3:abce"),
    ];
    for (name, content) in cases {
        fs::write(dir.path().join(name), content).unwrap();
        let sentence = run(show::main, dir.path(), &[name]).failed();
        assert!(sentence.contains(&format!("`{name}`")), "{sentence}");
        run(verify::main, dir.path(), &[name, "--data", "."]).failed();
    }
    let sentence = run(show::main, dir.path(), &["none"]).failed();
    assert!(sentence.contains("`none`"), "{sentence}");
    fs::File::create(dir.path().join("large")).unwrap().set_len(101 << 20).unwrap();
    let sentence = run(show::main, dir.path(), &["large"]).failed();
    assert!(sentence.contains("larger than the 100.0 MiB"), "{sentence}");
}

#[test]
fn a_name_with_control_characters_is_escaped_in_every_output() {
    let dir = tempfile::tempdir().unwrap();
    let name = "evil\x1b[2J\u{202e}";
    fs::write(dir.path().join(name), b"x").unwrap();
    // `run` itself checks the output for escapes.
    let args = [name, "-o", "e.torrent", "--comment", "\x1b]0;title\x07"];
    run(create::main, dir.path(), &args).fine();
    let shown = run(show::main, dir.path(), &["e.torrent"]).fine().stdout;
    assert!(shown.contains("evil\\x1b[2J\\u{202e}"), "{shown}");
    run(show::main, dir.path(), &["e.torrent", "--json"]).fine();
    run(verify::main, dir.path(), &["e.torrent", "--data", "."]).fine();
    fs::write(dir.path().join(name), b"y").unwrap();
    run(verify::main, dir.path(), &["e.torrent", "--data", "."]).failed();
    run(create::main, dir.path(), &["no\x1bne"]).failed();
}

#[test]
fn what_is_no_torrent_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), b"the only copy").unwrap();
    let sentence = run(create::main, dir.path(), &["one", "-o", "one"]).failed();
    assert!(sentence.contains("not overwritten"), "{sentence}");
    assert_eq!(fs::read(dir.path().join("one")).unwrap(), b"the only copy");
    run(create::main, dir.path(), &["one"]).fine();
    run(create::main, dir.path(), &["one"]).fine();
}

#[test]
fn another_torrent_is_overwritten_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), bytes(40_000, 1)).unwrap();
    fs::write(dir.path().join("two"), bytes(40_000, 2)).unwrap();
    run(create::main, dir.path(), &["one"]).fine();
    let first = fs::read(dir.path().join("one.torrent")).unwrap();
    for args in [
        &["two", "--output", "one.torrent"][..],
        &["one", "--tracker", "10.0.0.1:1"],
        &["one", "--name", "two"],
    ] {
        fs::write(dir.path().join("two.torrent"), &first).unwrap();
        let sentence = run(create::main, dir.path(), args).failed();
        assert!(sentence.contains("so it is not overwritten"), "{sentence}");
        assert!(sentence.contains("--force"), "{sentence}");
        for name in ["one.torrent", "two.torrent"] {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), first, "{args:?}");
        }
    }
    // The same torrent may be made again.
    run(create::main, dir.path(), &["one", "--comment", "again"]).fine();
    run(create::main, dir.path(), &["two", "--output", "one.torrent", "--force"]).fine();
    assert_ne!(fs::read(dir.path().join("one.torrent")).unwrap(), first);
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_has_an_example() {
    let dir = tempfile::tempdir().unwrap();
    for program in [create::main, show::main, verify::main] {
        assert_eq!(run(program, dir.path(), &[]).exit, Exit::Usage);
        let help = run(program, dir.path(), &["--help"]).fine().stdout;
        assert!(help.contains("Example: torrent-"), "{help}");
        assert!(run(program, dir.path(), &["--version"]).fine().stdout.contains("0.1"));
    }
    for length in ["0", "1000", "8KiB", "128MiB", "1MB", "x", "99999999999999999999"] {
        let ran = run(create::main, dir.path(), &["p", "--piece-length", length]);
        assert_eq!(ran.exit, Exit::Usage, "{length}");
    }
    let ran = run(create::main, dir.path(), &["p", "--tracker", "nonsense"]);
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.stderr.contains("`nonsense`"), "{ran:?}");
}

#[test]
fn empty_files_and_empty_folders() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("nothing"), b"").unwrap();
    run(create::main, dir.path(), &["nothing"]).fine();
    run(verify::main, dir.path(), &["nothing.torrent", "--data", "."]).fine();
    fs::create_dir(dir.path().join("void")).unwrap();
    let sentence = run(create::main, dir.path(), &["void"]).failed();
    assert!(sentence.contains("without any files"), "{sentence}");
}

/// Whole programs, because the environment belongs to the process.
#[test]
fn a_torrent_is_the_same_however_it_is_hashed_and_what_cannot_be_is_said() {
    use std::process::Command;

    use sha_lanes::Level;

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("one"), bytes(700_001, 4)).unwrap();
    let program = |program, level: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let ran = command.args(args).current_dir(dir.path()).env("PIECEWORK_SHA1", level).output();
        let ran = ran.unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    let make = |level: &str| {
        let args = ["one", "--piece-length", "16KiB", "-o", "x.torrent"];
        let said = program(env!("CARGO_BIN_EXE_torrent-create"), level, &args);
        let parse = |bytes: &[u8]| Metainfo::parse(bytes, &ParseLimits::default()).unwrap();
        (parse(&fs::read(dir.path().join("x.torrent")).unwrap()).info_hash(), said)
    };
    let (expected, _) = make("scalar");
    for level in Level::available() {
        let (info_hash, said) = make(level.name());
        assert_eq!(info_hash, expected, "{level:?}");
        assert!(!said.contains("warning"), "{said}");
    }
    let verify = ["x.torrent", "--data", "."];
    let said = [make("avx9000").1, program(env!("CARGO_BIN_EXE_torrent-verify"), "sha9", &verify)];
    for (said, name) in said.iter().zip(["avx9000", "sha9"]) {
        let warning = format!("warning: `PIECEWORK_SHA1` is `{name}`, but this machine has only `");
        assert_eq!(said.matches(&warning).count(), 1, "{said}");
    }
    assert_eq!(make("avx9000").0, expected);
}

#[test]
fn names_that_do_harm_are_shown_as_they_are_and_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made/-s\u{1b}");
    fs::create_dir_all(&made).unwrap();
    fs::write(made.join("a\nb"), bytes(20_000, 1)).unwrap();
    fs::write(made.join("usual"), bytes(20_000, 2)).unwrap();
    let args = ["made/-s\u{1b}", "--piece-length", "16KiB", "-o", "x.torrent"];
    run(create::main, dir.path(), &args).fine();
    let text = run(show::main, dir.path(), &["x.torrent"]).fine().stdout;
    assert!(text.contains("-s\\x1b/a\\x0ab") && text.contains("%2Ds%1B/a%0Ab"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let text = run(show::main, dir.path(), &["x.torrent", "--json"]).fine().stdout;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["files"][0]["path"], "-s\u{1b}/a\nb");
    assert_eq!(json["files"][0]["on_disk"], "%2Ds%1B/a%0Ab");
    assert_eq!(json["files"][1]["on_disk"], "%2Ds%1B/usual");
    // The data is verified under either name.
    run(verify::main, dir.path(), &["x.torrent", "--data", "made"]).fine();
    fs::create_dir_all(dir.path().join("got/%2Ds%1B")).unwrap();
    fs::copy(made.join("a\nb"), dir.path().join("got/%2Ds%1B/a%0Ab")).unwrap();
    fs::copy(made.join("usual"), dir.path().join("got/%2Ds%1B/usual")).unwrap();
    run(verify::main, dir.path(), &["x.torrent", "--data", "got"]).fine();
    run(verify::main, dir.path(), &["x.torrent", "--data", "got/%2Ds%1B"]).fine();
}

/// Issue 13, line 1.
#[test]
fn repaired_names_are_shown_beside_what_the_torrent_says() {
    let dir = tempfile::tempdir().unwrap();
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torrents");
    let show = |name: &str| {
        let path = format!("{cases}/{name}.torrent");
        let text = run(show::main, dir.path(), &[&path]).fine().stdout;
        let json = run(show::main, dir.path(), &[&path, "--json"]).fine().stdout;
        (text, serde_json::from_str::<serde_json::Value>(&json).unwrap())
    };
    let (text, json) = show("01-gbk-name-only");
    assert!(text.contains("测试文件.bin") && text.contains("read as GBK"), "{text}");
    assert_eq!(json["name"], "测试文件.bin");
    assert!(json["name_in_torrent"].as_str().unwrap().starts_with("\\xb2"), "{json}");
    let (text, json) = show("08-same-path-twice");
    assert!(text.contains("folder/a.1.txt") && text.contains("in the torrent"), "{text}");
    assert_eq!(json["files"][1]["in_torrent"], "folder/a.txt");
    assert_eq!(json["files"][0]["in_torrent"], serde_json::Value::Null);
    let (text, _) = show("49-symlink");
    assert!(text.contains("the symbolic link `folder/link.txt` to `a.txt` is left out"), "{text}");
    // All of them open, and torrents that need no repair do not mention one.
    for case in fs::read_dir(cases).unwrap() {
        let name = case.unwrap().file_name().into_string().unwrap();
        let (text, json) = show(name.strip_suffix(".torrent").unwrap());
        let is_repaired = !name.starts_with("06") && !name.starts_with("31");
        let is_repaired = is_repaired && !name.starts_with("47") && !name.starts_with("a-");
        assert_eq!(text.contains("notices"), is_repaired, "{name}: {text}");
        assert_eq!(json["notices"].is_array(), is_repaired, "{name}");
    }
}

#[test]
fn line_11_what_is_not_used_of_a_torrent_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("w"), bytes(20_000, 5)).unwrap();
    run(create::main, dir.path(), &["w"]).fine();
    let torrent = fs::read(dir.path().join("w.torrent")).unwrap();
    let keys = &torrent[1..torrent.len() - 1];
    let more = b"5:nodesll1:ai1eee8:url-list14:http://x.org/fe";
    let torrent = [b"d8:announce11:wss://w.org", keys, more].concat();
    fs::write(dir.path().join("u.torrent"), torrent).unwrap();
    let shown = run(show::main, dir.path(), &["u.torrent"]).fine().stdout;
    assert!(shown.contains("web seeds are not supported: its `1`"), "{shown}");
    assert!(shown.contains("nodes of the DHT (`nodes`) are not used"), "{shown}");
    assert!(shown.contains("`wss://w.org` is not used"), "{shown}");
}

#[test]
fn line_11_programs_that_need_a_torrent_say_what_a_magnet_link_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let link = format!("magnet:?xt=urn:btih:{}&dn=a%1Bb&tr=wss://w.org", "ab".repeat(20));
    let sentence = run(verify::main, dir.path(), &[&link, "--data", "."]).failed();
    assert!(sentence.contains("magnet link") && sentence.contains("torrent-leech"), "{sentence}");
    let shown = run(show::main, dir.path(), &[&link]).fine().stdout;
    for part in ["a\\x1bb", &"ab".repeat(20), "`wss://w.org` is not used", "torrent-leech"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = run(show::main, dir.path(), &[&link, "--json"]).fine().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["info_hash"], "ab".repeat(20));
    assert_eq!(run(show::main, dir.path(), &["magnet:?dn=x"]).exit, Exit::Usage);
}

#[test]
fn a_torrent_is_shown_as_a_magnet_link() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a b.bin"), "content").unwrap();
    let tracker = "http://tracker.example:6969/announce";
    let made = ["a b.bin", "--tracker", tracker, "--output", "x.torrent"];
    run(create::main, dir.path(), &made).fine();
    let link = run(show::main, dir.path(), &["--magnet", "x.torrent"]).fine().stdout;
    let end = "&dn=a%20b.bin&tr=http%3A%2F%2Ftracker.example%3A6969%2Fannounce\n";
    assert!(link.starts_with("magnet:?xt=urn:btih:") && link.ends_with(end), "{link}");
    // A link is printed as it was understood.
    let chosen = format!("{}&so=2-4,0&so=3", link.trim());
    let again = run(show::main, dir.path(), &["--magnet", &chosen]).fine().stdout;
    assert!(again.contains("&so=0,2-4&"), "{again}");
    let shown = run(show::main, dir.path(), &[&chosen]).fine().stdout;
    assert!(shown.contains("1,3-5") && shown.contains(tracker), "{shown}");
    let json = run(show::main, dir.path(), &["--magnet", "--json", "x.torrent"]).fine().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["magnet"], link.trim());
}

#[test]
fn line_11_every_command_of_the_table_for_newcomers_is_one() {
    use piecework::cli::{daemon, leech, log, peer, remove, seed, set, status, test};

    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coming-from.md"));
    let text = text.unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split(" | ").nth(1));
    let commands = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut known = 0;
    for command in commands.filter(|command| command.starts_with("torrent-")) {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        let program = match name {
            "torrent-create" => create::main,
            "torrent-daemon" => daemon::main,
            "torrent-leech" => leech::main,
            "torrent-log" => log::main,
            "torrent-peer" => peer::main,
            "torrent-remove" => remove::main,
            "torrent-seed" => seed::main,
            "torrent-set" => set::main,
            "torrent-show" => show::main,
            "torrent-status" => status::main,
            "torrent-test" => test::main,
            "torrent-verify" => verify::main,
            other => panic!("there is no program `{other}`"),
        };
        let mut words: Vec<&str> =
            rest.split(' ').filter(|word| ["get", "share"].contains(word)).collect();
        words.push("--help");
        let help = run(program, Path::new("/"), &words).fine().stdout;
        for flag in rest.split(' ').filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "`{command}`: there is no {flag}");
        }
        known += 1;
    }
    assert!(known > 30, "{known} commands were found");
}
