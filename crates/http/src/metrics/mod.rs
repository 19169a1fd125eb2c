//! Metrics for Prometheus: the families, the text format, and the metrics of the process.
//!
//! [`families`] lists every family once; tests compare `docs/metrics.md` and the dashboard with it. A [`Exposition`]
//! writes the text format, version 0.0.4.

pub mod families;
mod process;

use std::fmt::Write;

pub use process::process;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value only grows until the program restarts.
    Counter,
    /// The value goes up and down.
    Gauge,
}

/// The metrics with one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The name, which includes the unit.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: Kind,
    /// The name of its label, if it has one. Labels have few values, which the code lists; no value comes from
    /// outside.
    pub label: Option<&'static str>,
    /// A description in one line.
    pub help: &'static str,
}

/// Builds an answer in the text format.
///
/// ```
/// use piecework_http::metrics::{Exposition, families};
///
/// let mut page = Exposition::default();
/// page.one(&families::PEERS, 3_u32);
/// page.each(&families::ANNOUNCES, [("answered", 7_u32), ("failed", 0)]);
/// assert!(page.finish().ends_with("piecework_announces_total{outcome=\"failed\"} 0\n"));
/// ```
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A value. Beyond 2^53 the last digits are lost, because Prometheus has only floating-point numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value(f64);

impl Exposition {
    /// Writes a family without a label.
    pub fn one(&mut self, family: &Family, value: impl Into<Value>) {
        debug_assert_eq!(family.label, None, "{} has a label", family.name);
        self.head(family);
        self.sample(family.name, None, value.into());
    }

    /// Writes a family with a label: each of its values once.
    pub fn each<V: Into<Value>>(
        &mut self,
        family: &Family,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        debug_assert!(family.label.is_some(), "{} has no label", family.name);
        self.head(family);
        let label = family.label.unwrap_or("label");
        for (of, value) in values {
            self.sample(family.name, Some((label, of)), value.into());
        }
    }

    /// Returns the text.
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, family: &Family) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let Family { name, help, .. } = family;
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {}", escaped(help, false));
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, label: Option<(&str, &str)>, Value(value): Value) {
        self.text.push_str(name);
        if let Some((label, of)) = label {
            let _ = write!(self.text, "{{{label}=\"{}\"}}", escaped(of, true));
        }
        let _ = match value {
            value if value.is_nan() => writeln!(self.text, " NaN"),
            value if value.is_infinite() => {
                writeln!(self.text, " {}Inf", if value > 0.0 { '+' } else { '-' })
            }
            value => writeln!(self.text, " {value}"),
        };
    }
}

macro_rules! values {
    ($($of:ty),*) => {
        $(impl From<$of> for Value {
            fn from(value: $of) -> Self {
                Self(value as f64)
            }
        })*
    };
}

values!(f64, u64, u32, usize);

impl From<std::time::Duration> for Value {
    fn from(time: std::time::Duration) -> Self {
        Self(time.as_secs_f64())
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Family =
        Family { name: "a_bytes", kind: Kind::Gauge, label: None, help: "Back\\slash,\nnew line." };
    const LABELLED: Family = Family {
        name: "b_total",
        kind: Kind::Counter,
        label: Some("of"),
        help: "With \"quotes\".",
    };

    #[test]
    fn a_page_is_in_the_text_format() {
        let mut page = Exposition::default();
        page.one(&PLAIN, 0.25);
        page.each(&LABELLED, [("x", 1_u64 << 40), ("say \"\\\n\"", 0)]);
        assert_eq!(
            page.finish(),
            "# HELP a_bytes Back\\\\slash,\\nnew line.\n\
             # TYPE a_bytes gauge\n\
             a_bytes 0.25\n\
             # HELP b_total With \"quotes\".\n\
             # TYPE b_total counter\n\
             b_total{of=\"x\"} 1099511627776\n\
             b_total{of=\"say \\\"\\\\\\n\\\"\"} 0\n"
        );
    }

    #[test]
    fn values_that_are_no_numbers_have_their_words() {
        let mut page = Exposition::default();
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, 1e21];
        page.each(&LABELLED, values.map(|value| ("x", value)));
        let text = page.finish();
        let said: Vec<&str> = text.lines().skip(2).filter_map(|l| l.split(' ').nth(1)).collect();
        assert_eq!(said, ["NaN", "+Inf", "-Inf", "-0.5", "1000000000000000000000"]);
    }
}
