//! The sections and keys that a configuration may have. The shipped `config.toml` has all of them
//! and serves as the list.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use piecework_core::printable;

/// An unknown or misplaced section or key of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MisplacedKey {
    /// The byte position in the text.
    pub at: usize,
    /// What is wrong, as a part of a sentence.
    pub what: String,
}

/// Returns the first section or key of `text` that is unknown or belongs elsewhere. Text that is
/// not TOML has none.
pub(super) fn misplaced(text: &str) -> Option<MisplacedKey> {
    let known = &shipped();
    let whole = DeTable::parse(text).ok()?;
    let mut found = Vec::new();
    for (key, value) in whole.get_ref() {
        let name = key.get_ref().as_ref();
        let at = |span: Range<usize>| span.start;
        match (table_of(value), known.get(name)) {
            (Some(table), Some(_)) => found.extend(table.iter().filter_map(|(key, _)| {
                let what = wrong_key(key.get_ref(), name, known)?;
                Some(MisplacedKey { at: at(key.span()), what })
            })),
            (Some(_), None) => {
                found.push(MisplacedKey { at: at(key.span()), what: wrong_section(name, known) });
            }
            (None, _) => {
                found.push(MisplacedKey { at: at(key.span()), what: outside(name, known) });
            }
        }
    }
    found.into_iter().min_by_key(|misplaced| misplaced.at)
}

/// Returns whether a `config.toml` in the working directory is ours and not another program's. It
/// is ours if it has one of our sections, a misspelt one, or several of our keys.
pub(super) fn is_ours(text: &str) -> bool {
    let known = &shipped();
    if text.lines().map(str::trim).any(|line| known.keys().any(|name| line == format!("[{name}]")))
    {
        return true;
    }
    let Ok(whole) = DeTable::parse(text) else { return false };
    let is_key = |key: &str| known.values().any(|keys| keys.contains(&key));
    let mut keys = 0;
    for (name, value) in whole.get_ref() {
        let name = name.get_ref().as_ref();
        let Some(table) = table_of(value) else {
            keys += usize::from(is_telling(name) && is_key(name));
            continue;
        };
        if known.contains_key(name) {
            return true;
        }
        let ours = table.keys().filter(|key| is_key(key.get_ref())).count();
        if ours > 0 && nearest(name, known.keys().copied()).is_some() {
            return true;
        }
        keys +=
            table.keys().filter(|key| is_telling(key.get_ref()) && is_key(key.get_ref())).count();
    }
    keys >= 2
}

/// Returns whether other programs are unlikely to have this key.
fn is_telling(key: &str) -> bool {
    key.contains('_') && !key.starts_with("log_")
}

fn table_of<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

type KnownKeys = BTreeMap<&'static str, Vec<&'static str>>;

/// Returns the sections of the shipped configuration with their keys. Keys whose default depends on
/// the machine are commented out there.
fn shipped() -> KnownKeys {
    let mut known = KnownKeys::new();
    let mut section = "";
    for line in include_str!("../../config.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        if !key.is_empty() && key.bytes().all(is_key) {
            known.entry(section).or_default().push(key);
        }
    }
    known
}

fn wrong_key(key: &str, section: &str, known: &KnownKeys) -> Option<String> {
    let own = known.get(section)?;
    if own.contains(&key) {
        return None;
    }
    let shown = printable(key);
    let elsewhere = sections_with(key, known);
    if !elsewhere.is_empty() {
        return Some(format!("`{shown}` belongs in section {elsewhere}, not in [{section}]"));
    }
    Some(match nearest(key, own.iter().copied()) {
        Some(near) => {
            format!("there is no key `{shown}` in section [{section}]: did you mean `{near}`?")
        }
        None => format!("there is no key `{shown}` in section [{section}]"),
    })
}

fn wrong_section(name: &str, known: &KnownKeys) -> String {
    let shown = printable(name);
    match nearest(name, known.keys().copied()) {
        Some(near) => format!("there is no section [{shown}]: did you mean [{near}]?"),
        None => {
            let all: Vec<String> = known.keys().map(|name| format!("[{name}]")).collect();
            format!("there is no section [{shown}], only {}", all.join(", "))
        }
    }
}

fn outside(key: &str, known: &KnownKeys) -> String {
    let shown = printable(key);
    match sections_with(key, known) {
        sections if sections.is_empty() => {
            format!("there is no key `{shown}`, and keys belong in sections such as [peer]")
        }
        sections => format!("`{shown}` is not in a section: it belongs in {sections}"),
    }
}

/// Returns the sections that have `key`, such as `[peer] or [daemon]`, or an empty text.
fn sections_with(key: &str, known: &KnownKeys) -> String {
    let having = known.iter().filter(|(_, keys)| keys.contains(&key));
    having.map(|(name, _)| format!("[{name}]")).collect::<Vec<_>>().join(" or ")
}

/// Returns the one of `words` that `word` may be a misspelling of. At most two letters differ, and
/// fewer than half of them.
fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    if word.len() > MAX_WORD {
        return None;
    }
    let near = words.map(|other| (distance(word.as_bytes(), other.as_bytes()), other));
    let near = near.filter(|(distance, _)| *distance <= 2 && distance * 2 < word.len());
    near.min().map(|(_, other)| other)
}

/// Returns the number of letters to insert, delete or change to turn one into the other
/// (Levenshtein distance).
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, beside) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != beside);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// Longer words are not compared with keys.
const MAX_WORD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_configuration_has_only_its_own_keys() {
        let text = include_str!("../../config.toml");
        assert_eq!(misplaced(text), None);
        let known = shipped();
        assert_eq!(known.keys().copied().collect::<Vec<_>>(), ["daemon", "peer", "tracker"]);
        assert!(known["peer"].contains(&"downloads") && known["daemon"].contains(&"state"));
    }

    #[test]
    fn line_15_an_unknown_section_is_an_error_that_names_the_one_that_is_meant() {
        let what = |text: &str| misplaced(text).unwrap().what;
        assert_eq!(
            what("[demon]\nlisten = 1\n"),
            "there is no section [demon]: did you mean [daemon]?"
        );
        assert_eq!(what("[Peer]\n"), "there is no section [Peer]: did you mean [peer]?");
        let seeding = "there is no section [seeding], only [daemon], [peer], [tracker]";
        assert_eq!(what("[peer]\n[seeding]\n"), seeding);
        assert!(what("[\"a\\u001bb\"]\n").contains("[a\\x1bb]"));
        assert_eq!(misplaced("[peer]\nlisten = \"x\"\n[daemon]\n[tracker]\n"), None);
        assert_eq!(misplaced("no toml"), None);
    }

    #[test]
    fn line_15_a_key_in_the_wrong_section_names_the_right_one() {
        let what = |text: &str| misplaced(text).unwrap();
        let wrong = what("[peer]\n\n[daemon]\ndownloads = \"x\"\n");
        assert_eq!(wrong.what, "`downloads` belongs in section [peer], not in [daemon]");
        assert_eq!(wrong.at, 17);
        let wrong = what("[tracker]\nseed_ratio = 2\n").what;
        assert_eq!(wrong, "`seed_ratio` belongs in section [daemon], not in [tracker]");
        let wrong = what("listen = \"x\"\n[peer]\n").what;
        assert_eq!(wrong, "`listen` is not in a section: it belongs in [peer] or [tracker]");
        let wrong = what("[peer]\ninterval = \"1m\"\nslots = 3\n").what;
        assert_eq!(wrong, "`interval` belongs in section [tracker], not in [peer]");
        let wrong = what("[peer]\nupload_slot = 3\n").what;
        assert_eq!(
            wrong,
            "there is no key `upload_slot` in section [peer]: did you mean `upload_slots`?"
        );
        assert_eq!(what("[peer.x]\n").what, "there is no key `x` in section [peer]");
        assert!(what("slots = 3\n").what.starts_with("there is no key `slots`"));
    }

    #[test]
    fn a_file_of_another_program_is_told_from_one_with_a_slip_of_the_pen() {
        for ours in [
            "[peer]\n",
            "  [tracker]\nlisten = [\n",
            "peer = {}\n",
            "[demon]\nlisten = \"x\"\n",
            "[seeding]\nseed_ratio = 2\nseed_time = \"1h\"\n",
            "upload_limit = 1\nupload_slots = 2\n",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "",
            "title = \"a blog\"\n",
            "[user]\nname = \"x\"\n",
            "[server]\nlisten = \"x\"\nlog_level = \"info\"\nlog_file = \"x\"\nmax_connections = 5\n",
            "broken [",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
