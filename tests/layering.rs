//! Holds the sources against the layer table in ARCHITECTURE.md.
//!
//! A module may name (`use crate::x`, a path in an expression, a way up through `super`) only
//! modules of lower layers and itself. Layers 0 to 2 are pure: no sockets, files, threads, clock,
//! ambient randomness, or maps of random order. Test code is held to the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each module.
type Table = BTreeMap<String, u32>;

const PURE_LAYERS: std::ops::RangeInclusive<u32> = 0..=2;

/// What no pure layer may name, by how the path begins; and why.
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

/// The one file in which a source of chance is wrapped.
const CHANCE: (&str, &str) = ("base/rng.rs", "fastrand");

#[test]
fn every_source_keeps_to_its_layer() {
    let table = table();
    let mut faults = Vec::new();
    let mut checked = 0;
    for file in sources(&root().join("src")) {
        let below = file.strip_prefix(root().join("src")).unwrap();
        if matches!(below.to_str(), Some("lib.rs" | "main.rs")) || below.starts_with("bin") {
            continue;
        }
        faults.extend(check(below, &fs::read_to_string(&file).unwrap(), &table));
        checked += 1;
    }
    assert!(checked >= table.len(), "only {checked} files were found");
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn modules_and_table_name_each_other() {
    let mut modules: Vec<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !matches!(name.as_str(), "lib" | "main" | "bin"))
        .collect();
    modules.sort();
    assert_eq!(modules, table().into_keys().collect::<Vec<_>>());
}

#[test]
fn the_crate_documentation_has_the_same_table() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let docs: String =
        text.lines().filter_map(|line| line.strip_prefix("//! ")).flat_map(|l| [l, "\n"]).collect();
    assert_eq!(parse_table(&docs), table());
}

#[test]
fn offending_sources_are_caught() {
    let offences = [
        ("swarm/mod.rs", "use crate::net::PeerLink;", "`net` is on layer 3"),
        ("swarm/mod.rs", "use crate::{base::Moment, net};", "`net` is on layer 3"),
        ("swarm/mod.rs", "use {crate::{session::{self as s, X}}};", "`session` is on layer 4"),
        ("swarm/mod.rs", "use super::storage::Store;", "`storage` is on layer 3"),
        ("swarm/picker.rs", "use super::super::net;", "`net` is on layer 3"),
        ("swarm/picker.rs", "mod a { use super::super::super::net::X; }", "`net` is on layer 3"),
        ("swarm/picker.rs", "fn f() -> crate::net::X { todo() }", "`net` is on layer 3"),
        ("swarm/picker.rs", "fn f() { x::<'a', crate::net::X>() }", "`net` is on layer 3"),
        ("swarm/picker.rs", "#[cfg(test)] mod t { use crate::sim::W; }", "`sim` is on layer 5"),
        ("swarm/mod.rs", "use crate::registry::Registry;", "same layer"),
        ("net/mod.rs", "use crate::storage::Store;", "same layer"),
        ("base/mod.rs", "use crate::metainfo::Info;", "`metainfo` is on layer 1"),
        ("swarm/mod.rs", "use crate::*;", "names the whole crate"),
        ("swarm/mod.rs", "use crate::nowhere::X;", "not in the table"),
        ("nowhere/mod.rs", "", "not in the table"),
        ("wire/mod.rs", "use tokio::io::AsyncRead;", "an async runtime"),
        ("wire/mod.rs", "async fn f(s: &mut tokio::net::TcpStream) {}", "an async runtime"),
        ("wire/mod.rs", "use std::{io, net::{IpAddr, TcpStream}};", "sockets"),
        ("wire/mod.rs", "use std::net::*;", "sockets"),
        ("wire/mod.rs", "use std::net; fn f(s: net::UdpSocket) {}", "sockets"),
        ("base/mod.rs", "fn f() { ::std::fs::read(\"x\"); }", "files"),
        ("base/mod.rs", "use std::fs;", "files"),
        ("base/mod.rs", "fn f() { std::thread::sleep(d) }", "threads"),
        ("announcer/mod.rs", "let now = std::time::Instant::now();", "the clock"),
        ("announcer/mod.rs", "use std::time::{Duration, SystemTime as T};", "the wall clock"),
        ("registry/mod.rs", "use std::collections::{BTreeMap, HashMap};", "random order"),
        ("registry/mod.rs", "use std::collections as c; type S = c::HashSet<u8>;", "random order"),
        ("swarm/mod.rs", "let x = fastrand::u8(..);", "ambient randomness"),
        ("base/ids.rs", "let x = fastrand::u8(..);", "ambient randomness"),
    ];
    for (file, text, wanted) in offences {
        let faults = check(Path::new(file), text, &table());
        assert!(
            faults.iter().any(|fault| fault.contains(wanted)),
            "{file}: `{text}` should be caught as: {wanted}; got {faults:?}"
        );
    }
    let two = check(Path::new("swarm/mod.rs"), "//\nuse crate::net;\nuse tokio::x;\n", &table());
    assert_eq!(two.len(), 2);
    assert!(two[0].starts_with("src/swarm/mod.rs:2: "), "{two:?}");
}

#[test]
fn innocent_sources_pass() {
    let innocents = [
        ("swarm/mod.rs", "use crate::{base::{Moment, Rng}, wire}; use crate::swarm::event::X;"),
        ("swarm/picker.rs", "use super::event::Event; pub(crate) fn f() {}"),
        ("swarm/picker.rs", "mod tests { use super::*; use super::super::event; }"),
        (
            "swarm/picker.rs",
            "// use crate::net;\n/* crate::net /* */ tokio::x */ //! std::fs::read",
        ),
        ("swarm/picker.rs", r####"let s = "crate::net"; let r = r#"tokio::x "std::fs::x"#;"####),
        ("swarm/picker.rs", r"let c = '\''; let q = '\u{22}'; let d = '/'; fn f<'a>(x: &'a u8) {}"),
        ("swarm/picker.rs", "use std::time::Duration; use std::net::{IpAddr, SocketAddr};"),
        ("registry/mod.rs", "use hashbrown::HashMap; let m: HashMap<u8, u8>;"),
        ("registry/mod.rs", "use std::collections::{BTreeMap, VecDeque}; let fs = 1; x.thread;"),
        ("base/rng.rs", "use fastrand::Rng;"),
        ("net/mod.rs", "use tokio::net::TcpStream; use crate::wire; use std::time::Instant;"),
        ("cli/mod.rs", "use crate::session::Session; use std::fs;"),
    ];
    for (file, text) in innocents {
        let faults = check(Path::new(file), text, &table());
        assert!(faults.is_empty(), "{file}: `{text}`: {faults:?}");
    }
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

fn table() -> Table {
    let table = parse_table(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    assert!(table.len() > 10, "ARCHITECTURE.md has no layer table: {table:?}");
    table
}

/// Rows such as ``| 0 | `base/` | ... |``: a number, then one module or several, in backticks.
fn parse_table(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().split('|').map(str::trim).collect();
        let ["", layer, modules, ..] = cells[..] else { continue };
        let Ok(layer) = layer.parse() else { continue };
        for module in modules.split('`').skip(1).step_by(2) {
            let module = module.trim_end_matches('/');
            if !module.contains(['*', '.']) && module != "bin" {
                assert!(table.insert(module.to_owned(), layer).is_none(), "`{module}` twice");
            }
        }
    }
    table
}

/// What is wrong with `text`, the content of `file` below `src`: a sentence each.
fn check(file: &Path, text: &str, table: &Table) -> Vec<String> {
    let mut module_path: Vec<&str> =
        file.components().map(|part| part.as_os_str().to_str().unwrap()).collect();
    let stem = module_path.pop().unwrap().trim_end_matches(".rs");
    if stem != "mod" {
        module_path.push(stem);
    }
    let module = module_path[0];
    let at = |line: usize| format!("src/{}:{line}: ", file.display());
    let Some(&layer) = table.get(module) else {
        return vec![format!("{}`{module}` is not in the table of ARCHITECTURE.md", at(1))];
    };
    let mut faults = Vec::new();
    for found in named_paths(text, &module_path) {
        let path = found.segments.join("::");
        let mut fault = |what: String| faults.push(format!("{}`{path}`: {what}", at(found.line)));
        if found.segments[0] == "crate" {
            match found.segments.get(1).map(String::as_str) {
                None => {}
                Some("*" | "self") => fault("names the whole crate".into()),
                Some(other) if other == module => {}
                Some(other) => match table.get(other) {
                    None => fault(format!("`{other}` is not in the table of ARCHITECTURE.md")),
                    Some(other_layer) if *other_layer == layer => {
                        fault(format!("`{module}` and `{other}` are on the same layer, {layer}"));
                    }
                    Some(other_layer) if *other_layer > layer => fault(format!(
                        "`{other}` is on layer {other_layer}, `{module}` on layer {layer}"
                    )),
                    Some(_) => {}
                },
            }
        } else if PURE_LAYERS.contains(&layer) {
            let allowed = file == Path::new(CHANCE.0) && found.segments[0] == CHANCE.1;
            if let Some(what) = impurity(&found.segments).filter(|_| !allowed) {
                fault(format!("layer {layer} must not use {what}"));
            }
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

/// A path in a source, from the crate's root or an extern crate's.
struct Named {
    line: usize,
    segments: Vec<String>,
}

/// Every path of two segments and more and every import in `text`: groups taken apart, `super`
/// and `self` resolved, and names that were imported put in place of their first segment.
fn named_paths(text: &str, module_path: &[&str]) -> Vec<Named> {
    let tokens = lex(text);
    let mut found = Vec::new();
    let mut imports: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // For every open brace, whether it is an inline module's.
    let mut braces: Vec<bool> = Vec::new();
    let mut inline: Vec<String> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = &tokens[at];
        match token.as_str() {
            "{" => {
                let module = at >= 2 && tokens[at - 2].1 == "mod";
                if module {
                    inline.push(tokens[at - 1].1.clone());
                }
                braces.push(module);
                at += 1;
            }
            "}" => {
                if braces.pop() == Some(true) {
                    inline.pop();
                }
                at += 1;
            }
            "use" => {
                let mut leaves = Vec::new();
                at += 1;
                use_tree(&tokens, &mut at, &mut Vec::new(), &mut leaves);
                for (line, segments, alias) in leaves {
                    let segments = resolve(segments, module_path, &inline);
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
                    let segments = resolve(segments, module_path, &inline);
                    found.push(Named { line: *line, segments });
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// Reads one tree of a `use` from token `at`: its paths with the names they get here.
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
    // Whatever is no part of a tree must not hold the reader up.
    if tokens.get(*at).is_some_and(|(_, token)| !matches!(token.as_str(), "," | "}" | ";")) {
        *at += 1;
    }
}

/// `segments` from the crate's root, if they begin with `super` or `self`.
fn resolve(segments: Vec<String>, module_path: &[&str], inline: &[String]) -> Vec<String> {
    let up = segments.iter().skip_while(|s| *s == "self").take_while(|s| *s == "super").count();
    let lead = segments.iter().take_while(|s| matches!(s.as_str(), "self" | "super")).count();
    if lead == 0 {
        return segments;
    }
    let mut path = vec!["crate".to_owned()];
    path.extend(module_path.iter().map(|part| (*part).to_owned()));
    path.extend(inline.iter().cloned());
    path.truncate((path.len() - up.min(path.len() - 1)).max(1));
    path.extend(segments.into_iter().skip(lead));
    path
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The words and marks of a Rust source with their lines; comments, strings, characters and
/// lifetimes left out.
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

/// Behind the string that begins at `at`.
fn end_of_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}
