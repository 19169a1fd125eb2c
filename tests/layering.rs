//! Checks what Cargo cannot see: code that decides uses no sockets, files, threads, clock, ambient
//! randomness, or maps of random order. The same rules apply to test code.
//!
//! The manifests say which crate may use which. They are compared with the table in
//! ARCHITECTURE.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders in which everything is pure. Time and random numbers are arguments there.
const PURE: &[&str] = &[
    "crates/sha-lanes/src",
    "crates/core/src",
    "crates/proto/src",
    "crates/swarm/src",
    "crates/registry/src",
    "crates/dht/src",
    "crates/sim/src",
    "crates/daemon/src/queue",
    "crates/daemon/src/block_list",
];

/// Beginnings of paths that pure code may not use, and the reasons.
const IMPURE: &[(&[&str], &str)] = &[
    (&["tokio"], "an async runtime"),
    (&["socket2"], "sockets"),
    (&["rustix"], "system calls"),
    (&["reqwest"], "an HTTP client"),
    (&["hyper"], "an HTTP server"),
    (&["hyper_util"], "an HTTP server"),
    (&["axum"], "an HTTP server"),
    (&["rusqlite"], "a database"),
    (&["jiff"], "the wall clock"),
    (&["rand"], "ambient randomness"),
    (&["fastrand"], "ambient randomness"),
    (&["std", "net", "TcpStream"], "sockets"),
    (&["std", "net", "TcpListener"], "sockets"),
    (&["std", "net", "UdpSocket"], "sockets"),
    (&["std", "os", "unix", "net"], "sockets"),
    (&["std", "fs"], "files"),
    (&["std", "thread"], "threads"),
    (&["std", "time", "Instant"], "the clock"),
    (&["std", "time", "SystemTime"], "the wall clock"),
    (&["std", "collections", "HashMap"], "a map of random order"),
    (&["std", "collections", "HashSet"], "a set of random order"),
    (&["std", "collections", "hash_map"], "a map of random order"),
    (&["std", "collections", "hash_set"], "a set of random order"),
    (&["std", "hash", "RandomState"], "ambient randomness"),
];

/// The only file that wraps a source of randomness.
const CHANCE: (&str, &str) = ("crates/core/src/rng.rs", "fastrand");

/// Traits whose objects pure code may use. They belong to the standard library and do what their
/// names say, except the last one: a torrent's bytes are read again from its file when they are
/// needed, which the session does on a thread that may block.
const OBJECTS: &[&str] =
    &["Fn", "FnMut", "FnOnce", "Iterator", "Display", "Error", "TorrentSource"];

#[test]
fn what_decides_is_pure() {
    let mut faults = Vec::new();
    for folder in PURE {
        let files = sources(&root().join(folder));
        assert!(!files.is_empty(), "`{folder}` has no sources");
        for file in files {
            let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            faults.extend(check(&name, &fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Each crate is in ARCHITECTURE.md's table and uses only crates above it.
#[test]
fn crates_stand_in_the_table_in_the_order_of_their_dependencies() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let order = parse_table(&text);
    let mut crates = vec![("piecework".to_owned(), root().join("Cargo.toml"))];
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        crates.push((name.trim_matches('"').to_owned(), manifest));
    }
    let mut names: Vec<&String> = crates.iter().map(|(name, _)| name).collect();
    let mut listed: Vec<&String> = order.iter().collect();
    names.sort();
    listed.sort();
    assert_eq!(names, listed, "crates, and the table of ARCHITECTURE.md");
    let place = |name: &str| order.iter().position(|other| other == name);
    for (name, manifest) in &crates {
        let text = fs::read_to_string(manifest).unwrap();
        let package = text.find("[package]").unwrap();
        let begin = package + text[package..].find("[dependencies]").unwrap();
        // Tests may use any crate.
        let used = text[begin..].split("[dev-dependencies]").next().unwrap().lines();
        let used = used.filter_map(|line| line.strip_suffix(".workspace = true"));
        for used in used.filter(|used| place(used).is_some()) {
            assert!(place(used) < place(name), "`{name}` uses `{used}`, which stands below it");
        }
    }
}

#[test]
fn offending_sources_are_caught() {
    let offences = [
        ("use tokio::io::AsyncRead;", "an async runtime"),
        ("async fn f(s: &mut tokio::net::TcpStream) {}", "an async runtime"),
        ("use std::{io, net::{IpAddr, TcpStream}};", "sockets"),
        ("use std::net::*;", "sockets"),
        ("use std::net; fn f(s: net::UdpSocket) {}", "sockets"),
        ("fn f() { ::std::fs::read(\"x\"); }", "files"),
        ("use std::fs;", "files"),
        ("fn f() { std::thread::sleep(d) }", "threads"),
        ("let now = std::time::Instant::now();", "the clock"),
        ("use std::time::{Duration, SystemTime as T};", "the wall clock"),
        ("use std::collections::{BTreeMap, HashMap};", "random order"),
        ("use std::collections as c; type S = c::HashSet<u8>;", "random order"),
        ("let x = fastrand::u8(..);", "ambient randomness"),
        ("fn f(source: &dyn Storage) {}", "`dyn Storage`"),
        ("struct S(Box<dyn std::io::Read>);", "`dyn Read`"),
        ("struct S(Arc<dyn Send + Clock>);", "`dyn Send`"),
    ];
    for (text, wanted) in offences {
        let faults = check("crates/swarm/src/peer.rs", text);
        assert!(
            faults.iter().any(|fault| fault.contains(wanted)),
            "`{text}` should be caught as: {wanted}; got {faults:?}"
        );
    }
    let two = check("crates/swarm/src/lib.rs", "//\nuse std::fs;\nuse tokio::x;\n");
    assert_eq!(two.len(), 2);
    assert!(two[0].starts_with("crates/swarm/src/lib.rs:2: "), "{two:?}");
}

#[test]
fn innocent_sources_pass() {
    let innocents = [
        "use piecework_core::{Moment, Rng}; use crate::event::X; use super::super::wire;",
        "// use std::fs;\n/* std::fs /* */ tokio::x */ //! std::fs::read",
        r####"let s = "std::fs"; let r = r#"tokio::x "std::fs::x"#;"####,
        r"let c = '\''; let q = '\u{22}'; let d = '/'; fn f<'a>(x: &'a u8) {}",
        "use std::time::Duration; use std::net::{IpAddr, SocketAddr};",
        "use hashbrown::HashMap; let m: HashMap<u8, u8>;",
        "use std::collections::{BTreeMap, VecDeque}; let fs = 1; x.thread;",
        "fn f(glyphs: &mut dyn Iterator<Item = u8>, of: &dyn Fn(u8) -> u8) {}",
        "type E = Box<dyn std::error::Error>;",
    ];
    for text in innocents {
        let faults = check("crates/swarm/src/peer.rs", text);
        assert!(faults.is_empty(), "`{text}`: {faults:?}");
    }
    assert!(check(CHANCE.0, "use fastrand::Rng;").is_empty());
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the crates in rows such as ``| `piecework-core` | ... |``, in order.
fn parse_table(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("| `") else { continue };
        let Some((name, _)) = rest.split_once("` |") else { continue };
        if name.starts_with("piecework") || name == "sha-lanes" {
            assert!(!names.iter().any(|other| other == name), "`{name}` stands there twice");
            names.push(name.to_owned());
        }
    }
    assert!(names.len() > 10, "ARCHITECTURE.md has no table of crates: {names:?}");
    names
}

/// Returns the violations in `text`, the content of `file`, as sentences.
fn check(file: &str, text: &str) -> Vec<String> {
    let at = |line: usize| format!("{file}:{line}: ");
    let mut faults = Vec::new();
    for found in named_paths(text) {
        let path = found.segments.join("::");
        let allowed = file == CHANCE.0 && found.segments[0] == CHANCE.1;
        if let Some(what) = impurity(&found.segments).filter(|_| !allowed) {
            faults.push(format!("{}`{path}`: pure code must not use {what}", at(found.line)));
        }
    }
    let tokens = lex(text);
    for (place, (line, _)) in tokens.iter().enumerate().filter(|(_, (_, token))| token == "dyn") {
        let path = tokens[place + 1..].iter().map(|(_, token)| token.as_str());
        let path = path.take_while(|token| is_word(token) || *token == "::");
        let Some(last) = path.last() else { continue };
        if !OBJECTS.contains(&last) {
            faults.push(format!("{}`dyn {last}` may hide what is not pure", at(*line)));
        }
    }
    faults
}

fn impurity(path: &[String]) -> Option<&'static str> {
    let glob = path.last().is_some_and(|last| last == "*");
    let named = &path[..path.len() - usize::from(glob)];
    let hit = IMPURE.iter().find(|(impure, _)| {
        let begins = named.len() >= impure.len() && named.iter().zip(*impure).all(|(a, b)| a == b);
        let globbed =
            glob && named.len() < impure.len() && named.iter().zip(*impure).all(|(a, b)| a == b);
        begins || globbed
    });
    hit.map(|(_, what)| *what)
}

/// A path in a source.
struct Named {
    line: usize,
    segments: Vec<String>,
}

/// Returns every path of two or more segments and every import in `text`. Groups are expanded, and
/// imported names replace their first segment.
fn named_paths(text: &str) -> Vec<Named> {
    let tokens = lex(text);
    let mut found = Vec::new();
    let mut imports: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = &tokens[at];
        match token.as_str() {
            "use" => {
                let mut leaves = Vec::new();
                at += 1;
                use_tree(&tokens, &mut at, &mut Vec::new(), &mut leaves);
                for (line, segments, alias) in leaves {
                    imports.insert(alias, segments.clone());
                    found.push(Named { line, segments });
                }
            }
            word if is_word(word) => {
                let mut segments = vec![word.to_owned()];
                let field = at > 0 && tokens[at - 1].1 == ".";
                at += 1;
                while at + 1 < tokens.len() && tokens[at].1 == "::" && is_word(&tokens[at + 1].1) {
                    segments.push(tokens[at + 1].1.clone());
                    at += 2;
                }
                if segments.len() > 1 && !field {
                    if let Some(import) = imports.get(&segments[0]) {
                        segments.splice(0..1, import.iter().cloned());
                    }
                    found.push(Named { line: *line, segments });
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// Parses one tree of a `use` from token `at`: its paths with the names that they get here.
fn use_tree(
    tokens: &[(usize, String)],
    at: &mut usize,
    prefix: &mut Vec<String>,
    leaves: &mut Vec<(usize, Vec<String>, String)>,
) {
    let depth = prefix.len();
    let mut line = 0;
    while let Some((here, token)) = tokens.get(*at) {
        line = *here;
        match token.as_str() {
            "::" => *at += 1,
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|(_, token)| token != "}") {
                    use_tree(tokens, at, prefix, leaves);
                    if tokens.get(*at).is_some_and(|(_, token)| token == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                prefix.truncate(depth);
                return;
            }
            "as" => {
                let alias = tokens.get(*at + 1).map_or(String::new(), |(_, token)| token.clone());
                *at += 2;
                leaves.push((line, prefix.clone(), alias));
                prefix.truncate(depth);
                return;
            }
            // The module itself, unless the path begins with it.
            "self" if !prefix.is_empty() && prefix.len() == depth => *at += 1,
            token if is_word(token) || token == "*" => {
                prefix.push(token.to_owned());
                *at += 1;
            }
            _ => break,
        }
    }
    if let Some(alias) = prefix.last().cloned() {
        leaves.push((line, prefix.clone(), alias));
    }
    prefix.truncate(depth);
    // Skip tokens that are not part of a tree.
    if tokens.get(*at).is_some_and(|(_, token)| !matches!(token.as_str(), "," | "}" | ";")) {
        *at += 1;
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Returns the words and marks of a Rust source with their lines, without comments, strings,
/// characters and lifetimes.
fn lex(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut tokens: Vec<(usize, String)> = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        match chars[at] {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut depth = 0;
                while at < chars.len() {
                    match (chars[at], peek(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => at = end_of_string(&chars, at),
            '\'' if peek(at + 1) == '\\' || peek(at + 2) == '\'' => {
                at += if peek(at + 1) == '\\' { 3 } else { 2 };
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' => {
                at += 1;
                while peek(at).is_alphanumeric() || peek(at) == '_' {
                    at += 1;
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                while peek(at).is_alphanumeric() || peek(at) == '_' {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if raw && peek(at + hashes) == '"' {
                    let close: Vec<char> =
                        std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    at += hashes + 1;
                    while at < chars.len() && !chars[at..].starts_with(&close) {
                        at += 1;
                    }
                    at += close.len();
                } else if matches!(word.as_str(), "b" | "c") && peek(at) == '"' {
                    at = end_of_string(&chars, at);
                } else if !(word == "b" && peek(at) == '\'') {
                    tokens.push((line, word));
                }
            }
            ':' if peek(at + 1) == ':' => {
                at += 2;
                tokens.push((line, "::".to_owned()));
            }
            c => {
                at += 1;
                if !c.is_whitespace() {
                    tokens.push((line, c.to_string()));
                }
            }
        }
        let end = at.min(chars.len());
        line += chars[start..end].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Returns the position after the string that begins at `at`.
fn end_of_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}
