//! Formatting and parsing of quantities for people.

use piecework_core::SaturatingFrom;
use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

pub use piecework_core::figures::{count, counted, seconds, size};
use piecework_core::{Table, columns, cut_end, cut_middle, printable};

/// Colours, or no colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Creates it with or without colours.
    pub const fn new(on: bool) -> Self {
        Self { on }
    }

    /// Returns whether there are colours.
    pub fn is_on(self) -> bool {
        self.on
    }

    /// For the most important part of a line.
    pub fn bold(self, text: impl Display) -> String {
        self.sgr(1, text)
    }

    /// For details.
    pub fn dim(self, text: impl Display) -> String {
        self.sgr(2, text)
    }

    /// For errors.
    pub fn red(self, text: impl Display) -> String {
        self.sgr(31, text)
    }

    /// For success.
    pub fn green(self, text: impl Display) -> String {
        self.sgr(32, text)
    }

    /// For warnings.
    pub fn yellow(self, text: impl Display) -> String {
        self.sgr(33, text)
    }

    /// For activity.
    pub fn cyan(self, text: impl Display) -> String {
        self.sgr(36, text)
    }

    fn sgr(self, code: u8, text: impl Display) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Formats bytes a second with a binary unit: `1.5 MiB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(u64::saturating_from(bytes_per_second.max(0.0))))
}

/// Formats a short time: `840 µs`, `12.3 ms`, `4.56 s`, and from a minute on like [`seconds`].
pub fn short_time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        t if t < 0.001 => format!("{} µs", duration.as_micros()),
        t if t < 1.0 => format!("{:.1} ms", t * 1e3),
        t if t < 60.0 => format!("{t:.2} s"),
        _ => seconds(duration),
    }
}

/// Returns `part` of `whole` in per cent, rounded down so that 100 means all. Nothing of nothing is
/// 100.
pub fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 100 } else { u64::saturating_from(u128::from(part) * 100 / u128::from(whole)) }
}

/// Returns a bar of `width` columns, filled by `done` of `total`. It is empty while `total` is not
/// known.
fn bar(done: u64, total: u64, width: usize, paint: Paint) -> String {
    let filled = match total {
        0 => 0,
        total => (u128::from(done.min(total)) * width as u128 / u128::from(total)) as usize,
    };
    format!("{}{}", paint.cyan("━".repeat(filled)), paint.dim("─".repeat(width - filled)))
}

/// Returns JSON text for a terminal. What [`printable`] would escape is written as `\\uXXXX`, which
/// means the same inside JSON strings.
pub fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let mut one = [0; 4];
        let text = c.encode_utf8(&mut one);
        if c == '\n' || matches!(printable(text), Cow::Borrowed(_)) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Returns a path in a form that is safe to display.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

/// Parses bytes: `262144`, `256KiB`, `1 MiB`, `10MB`.
///
/// # Errors Returns a sentence that says which values are accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.trim().parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| {
        format!(
            "`{}` is not a size: write bytes or a unit, as in 262144 or 256KiB",
            printable(text)
        )
    })
}

/// Parses bytes a second: `10MiB` or `10MiB/s`. `0` and `none` mean no limit.
///
/// # Errors Returns a sentence that says which values are accepted.
pub fn parse_rate(text: &str) -> Result<RateLimit, String> {
    let text = text.trim();
    if text == "none" {
        return Ok(RateLimit(None));
    }
    let bytes = parse_size(text.strip_suffix("/s").unwrap_or(text)).map_err(|_| {
        format!(
            "`{}` is not a rate: write bytes a second, as in 10MiB or 500KiB/s",
            printable(text)
        )
    })?;
    Ok(RateLimit((bytes > 0).then_some(bytes)))
}

/// Parses a duration: `10m`, `1h 30m`.
///
/// # Errors Returns a sentence that says which values are accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        format!("`{}` is not a time: write for instance 90s, 10m or 1h", printable(text))
    })
}

/// The maximum bytes a second, if there is a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RateLimit(pub Option<u64>);

/// Returns the lines of `table` in `width` columns, with a dim head.
pub fn table_text(table: &Table, width: usize, paint: Paint) -> String {
    let lines = table.lines(width);
    let rows = lines.rows.into_iter().flatten();
    std::iter::once(paint.dim(lines.head)).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Returns a line that shows progress: the name, a bar, the per cent, and the first of `tails` that
/// leaves room for these. It takes fewer than `width` columns.
pub fn bar_line(
    name: &str,
    done: u64,
    total: u64,
    tails: &[String],
    width: usize,
    paint: Paint,
) -> String {
    let room = width.saturating_sub(1);
    let name = printable(name);
    let percent = format!("{:>3}%", if total == 0 { 0 } else { percent(done, total) });
    let least_name = columns(&name).min(LEAST_NAME);
    // One space on either side of the bar, and two before what follows.
    let fixed = percent.len() + 2;
    let behind = |tail: &str| if tail.is_empty() { 0 } else { columns(tail) + 2 };
    let fits = |tail: &&String| least_name + fixed + LEAST_BAR + behind(tail) <= room;
    let tail = tails.iter().find(fits).map_or("", String::as_str);
    let free = room.saturating_sub(fixed + behind(tail));
    let name = cut_middle(&name, free.saturating_sub(LEAST_BAR).clamp(1, MOST_NAME)).into_owned();
    let bar = bar(done, total, free.saturating_sub(columns(&name)).min(MOST_BAR), paint);
    let gap = if tail.is_empty() { "" } else { "  " };
    let line = format!("{} {bar} {percent}{gap}{tail}", paint.bold(name));
    cut_end(&line, room).into_owned()
}

/// Least and most columns of a name in front of a bar.
const LEAST_NAME: usize = 12;
const MOST_NAME: usize = 40;
/// Least and most columns of a bar. A shorter one says nothing, a longer one no more.
const LEAST_BAR: usize = 10;
const MOST_BAR: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_have_binary_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(4 << 30), "4.0 GiB");
        assert_eq!(rate(1024.0 * 1024.0), "1.0 MiB/s");
        assert_eq!(rate(-1.0), "0 B/s");
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(counted(1, "piece"), "1 piece");
        assert_eq!(counted(2_000, "piece"), "2,000 pieces");
    }

    #[test]
    fn times_are_as_fine_as_they_are_short() {
        assert_eq!(short_time(Duration::from_micros(840)), "840 µs");
        assert_eq!(short_time(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(short_time(Duration::from_millis(4_560)), "4.56 s");
        assert_eq!(short_time(Duration::from_secs(65)), "1m 5s");
        assert_eq!(seconds(Duration::from_millis(65_900)), "1m 5s");
    }

    #[test]
    fn a_hundred_per_cent_means_all() {
        assert_eq!(percent(999_999, 1_000_000), 99);
        assert_eq!(percent(5, 5), 100);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn sizes_are_read_in_bytes_and_units() {
        assert_eq!(parse_size("262144"), Ok(262_144));
        assert_eq!(parse_size("256KiB"), Ok(262_144));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("1 MiB"), Ok(1 << 20));
        assert!(parse_size("many\x1b").unwrap_err().contains("`many\\x1b`"));
        assert!(parse_size("-1").is_err());
    }

    #[test]
    fn rates_are_read_with_and_without_their_time() {
        assert_eq!(parse_rate("10MiB"), Ok(RateLimit(Some(10 << 20))));
        assert_eq!(parse_rate("10MiB/s"), Ok(RateLimit(Some(10 << 20))));
        assert_eq!(parse_rate("0"), Ok(RateLimit(None)));
        assert_eq!(parse_rate("none"), Ok(RateLimit(None)));
        assert!(parse_rate("fast").is_err());
    }

    #[test]
    fn json_for_terminals_means_the_same() {
        let name = "a\u{202e}\u{9b}\x7f\x1b文\"";
        let text = printable_json(&serde_json::to_string_pretty(&[name]).unwrap());
        assert!(!text.contains(['\u{202e}', '\u{9b}', '\x7f', '\x1b']), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [name]);
    }

    #[test]
    fn a_bar_remains_beside_any_name() {
        let names =
            ["a", "name".repeat(60).leak(), "文件".repeat(40).leak(), "שלום לכם".repeat(9).leak()];
        let tails =
            ["1,234/8,000 pieces  110.2 MiB/s  ETA 1h 12m  12 peers", "110.2 MiB/s  ETA 1h 12m"];
        let tails = tails.map(str::to_owned);
        for name in names {
            for width in [60, 80, 120, 200] {
                for paint in [Paint::new(false), Paint::new(true)] {
                    let line = bar_line(name, 37, 100, &tails, width, paint);
                    assert!(columns(&line) < width, "{width}: {line}");
                    assert!(line.contains("━━━") && line.contains(" 37%  "), "{width}: {line}");
                    assert!(line.contains("ETA 1h 12m"), "{width}: {line}");
                }
            }
            for width in 0..60 {
                let line = bar_line(name, 37, 100, &tails, width, Paint::new(false));
                assert!(columns(&line) <= width.saturating_sub(1), "{width}: {line}");
            }
        }
        let line = bar_line("linux-6.12.1-amd64-DVD-1.iso", 1, 2, &[], 40, Paint::new(false));
        assert_eq!(line, "linux-6.12.…4-DVD-1.iso ━━━━━─────  50%");
        assert!(
            bar_line("a", 0, 0, &[], 40, Paint::new(false)).ends_with("─   0%"),
            "not known yet"
        );
    }
}
