//! Finds the torrent that a text names.

use piecework_api::Torrent;
use piecework_core::{InfoHash, Table, printable};
use piecework_proto::announce::Magnet;

use super::CliError;
use super::format::{Paint, counted, size, table_text};

/// Returns the torrent that `text` names by its info-hash, its name, or at least the first four
/// digits of its info-hash.
///
/// # Errors If no torrent matches, or if several do; the error lists them.
pub(super) fn pick<'a>(torrents: &'a [Torrent], text: &str) -> Result<&'a Torrent, CliError> {
    let meant = meant_by(text, torrents, |torrent| (torrent.info_hash, &torrent.name));
    match meant[..] {
        [one] => Ok(one),
        [] => Err(CliError::failed(format_args!(
            "the daemon has no torrent `{}`: torrent-status lists them",
            printable(text)
        ))),
        _ => {
            let rows =
                meant.iter().map(|torrent| (torrent.info_hash, &*torrent.name, torrent.bytes));
            Err(ambiguous(text, rows))
        }
    }
}

/// Returns the torrents that `texts` name, or all of them. Each appears once.
///
/// # Errors
/// As [`pick`].
pub(super) fn pick_all<'a>(
    torrents: &'a [Torrent],
    texts: &[String],
    all: bool,
) -> Result<Vec<&'a Torrent>, CliError> {
    if all {
        return Ok(torrents.iter().collect());
    }
    let mut out: Vec<&Torrent> = Vec::new();
    for text in texts {
        let torrent = pick(torrents, text)?;
        if out.iter().all(|chosen| chosen.info_hash != torrent.info_hash) {
            out.push(torrent);
        }
    }
    Ok(out)
}

/// Returns the torrents among `all` that `text` names. `of` returns the info-hash and name of a
/// torrent.
pub(super) fn meant_by<'a, T>(
    text: &str,
    all: &'a [T],
    of: impl Fn(&'a T) -> (InfoHash, &'a str),
) -> Vec<&'a T> {
    let by = |is: &dyn Fn(InfoHash, &str) -> bool| -> Vec<&'a T> {
        let chosen = all.iter().filter(|one| {
            let (info_hash, name) = of(one);
            is(info_hash, name)
        });
        chosen.collect()
    };
    if let Some(wanted) = info_hash(text) {
        let same = by(&|info_hash, _| info_hash == wanted);
        if !same.is_empty() {
            return same;
        }
    }
    let named = by(&|_, name| name == text);
    if !named.is_empty() {
        return named;
    }
    let Some(digits) = first_digits(text) else { return Vec::new() };
    by(&|info_hash, _| info_hash.to_string().starts_with(&digits))
}

/// Returns the info-hash in `text`, which is an info-hash or a magnet link.
pub(super) fn info_hash(text: &str) -> Option<InfoHash> {
    let link = || Some(Magnet::parse(text).ok()?.info_hash);
    text.parse().ok().or_else(link)
}

/// Returns `text` in lower case if it may be the first digits of an info-hash.
pub(super) fn first_digits(text: &str) -> Option<String> {
    let digits = text.to_ascii_lowercase();
    let is_some = digits.len() >= LEAST_DIGITS && digits.bytes().all(|it| it.is_ascii_hexdigit());
    is_some.then_some(digits)
}

/// Returns the error for a `text` that matches several torrents.
pub(super) fn ambiguous<'a>(
    text: &str,
    candidates: impl ExactSizeIterator<Item = (InfoHash, &'a str, u64)>,
) -> CliError {
    let several = candidates.len() as u64;
    let rows = candidates.take(MOST_CANDIDATES).map(|(info_hash, name, bytes)| {
        vec![info_hash.to_string(), size(bytes), printable(name).into_owned()]
    });
    // Info-hashes are shown whole, because the user has to choose one.
    let rows = Table::new(["info-hash", "size", "name"]).right(&[1]).rows(rows);
    let rows = table_text(&rows, usize::MAX, Paint::new(false));
    CliError::failed(format_args!(
        "`{}` matches {}: name one by its info-hash\n{rows}",
        printable(text),
        counted(several, "torrent"),
    ))
}

/// The least number of digits that may name an info-hash. Shorter ones are more often words.
const LEAST_DIGITS: usize = 4;

/// The largest number of candidates to list.
const MOST_CANDIDATES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str) -> Vec<usize> {
        let hash = |first: u8, second: u8| {
            let mut hash = [0; 20];
            (hash[0], hash[1]) = (first, second);
            InfoHash(hash)
        };
        let all = [
            (hash(0xab, 0xcd), "one", 0),
            (hash(0xab, 0xce), "two", 1),
            (hash(0x12, 0x34), "same", 2),
            (hash(0x12, 0x35), "same", 3),
            (hash(0xff, 0xff), "abcd", 4),
        ];
        meant_by(text, &all, |one| (one.0, one.1)).iter().map(|one| one.2).collect()
    }

    #[test]
    fn a_name_goes_above_the_digits_of_another() {
        assert_eq!(meant("one"), [0]);
        assert_eq!(meant("abcd"), [4]);
        assert_eq!(meant("abcd0"), [0]);
        assert_eq!(meant("ABCE"), [1]);
        assert_eq!(meant("same"), [2, 3]);
        let link = |hash: [u8; 20]| format!("magnet:?xt=urn:btih:{}&dn=two", InfoHash(hash));
        let mut hash = [0; 20];
        (hash[0], hash[1]) = (0xab, 0xcd);
        assert_eq!(meant(&link(hash)), [0]);
        assert_eq!(meant(&link([9; 20])), [] as [usize; 0]);
        assert_eq!(meant(&InfoHash([0xff; 20]).to_string()), [] as [usize; 0]);
    }

    #[test]
    fn few_digits_and_other_words_mean_nothing() {
        for text in ["", "ab", "abc", "on", "abcg", "ONE"] {
            assert!(meant(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn several_are_listed_without_what_a_terminal_would_obey() {
        let rows = [(InfoHash([1; 20]), "a\x1bb", 1024), (InfoHash([2; 20]), "a\x1bb", 1)];
        let text = ambiguous("a\x1bb", rows.into_iter()).to_string();
        assert!(text.starts_with("`a\\x1bb` matches 2 torrents"), "{text}");
        assert!(text.contains(&InfoHash([2; 20]).to_string()) && !text.contains('\x1b'), "{text}");
    }
}
