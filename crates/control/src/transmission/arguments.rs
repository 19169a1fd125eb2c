//! A request's parameters, read with their types. What is left out or `null` is not there; what is
//! of another type is refused by name.

use piecework_core::SaturatingFrom;
use serde_json::{Map, Value};

use super::fault::{Code, Fault};
use piecework_core::printable;

/// The parameters of one request, in today's spelling.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// What stands under `key`, whatever it is.
    pub(super) fn raw(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// All that is there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let present = self.0.iter().filter(|(_, value)| !value.is_null());
        present.map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Fault> {
        self.read(key, "a string", Value::as_str)
    }

    /// Yes or no. Clients also write 1, 0, 1.0, 0.0, `"true"` and `"false"`, which Transmission takes.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        self.read(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => text.parse().ok(),
            value => match whole(value) {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
        })
    }

    /// A whole number, also where it is written with a fraction of nothing.
    pub(super) fn whole(&self, key: &str) -> Result<Option<i64>, Fault> {
        self.read(key, "a whole number", whole)
    }

    /// A number that fits `T`: no negative one, and none too large. A fraction is cut off, because
    /// clients compute what they send (peers, minutes, places) without rounding it.
    pub(super) fn count<T: TryFrom<i64>>(&self, key: &str) -> Result<Option<T>, Fault> {
        self.read(key, "a number in its range", |value| T::try_from(truncated(value)?).ok())
    }

    /// A number that is not negative, also as text, which Transmission takes here.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Fault> {
        self.read(key, "a number from 0", |value| {
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
            (number.is_finite() && number >= 0.0).then_some(number)
        })
    }

    /// Kilobytes a second, of 1,000 bytes, as bytes a second. Flood divides bytes by 1,024, so there may be
    /// a fraction; the rate is that to the byte.
    pub(super) fn rate(&self, key: &str) -> Result<Option<u64>, Fault> {
        self.read(key, "a number of kB/s", |value| match whole(value) {
            Some(kilobytes) => u64::try_from(kilobytes).ok()?.checked_mul(1_000),
            None => {
                let bytes = (value.as_f64()? * 1_000.0).round();
                // In this range the cast cannot change the number.
                (0.0..EXACT).contains(&bytes).then_some(u64::saturating_from(bytes))
            }
        })
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&[Value]>, Fault> {
        self.read(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Fault> {
        self.read(key, "a list of strings", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// Indices of files.
    pub(super) fn indices(&self, key: &str) -> Result<Option<Vec<u32>>, Fault> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let indices = list.iter().map(|value| {
            let index = whole(value).ok_or_else(|| wrong(key, "a list of numbers", value))?;
            u32::try_from(index).map_err(|_| Fault::from(Code::FileIndex))
        });
        indices.collect::<Result<_, _>>().map(Some)
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| wrong(key, wanted, value))
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        // Every such number is exact as an `f64`, so the cast cannot change it.
        (number.fract() == 0.0 && number.abs() < EXACT).then_some(i64::saturating_from(number))
    })
}

/// A number without its fraction.
fn truncated(value: &Value) -> Option<i64> {
    whole(value).or_else(|| {
        let number = value.as_f64()?.trunc();
        (number.abs() < EXACT).then_some(i64::saturating_from(number))
    })
}

fn wrong(key: &str, wanted: &str, value: &Value) -> Fault {
    let shown: String = value.to_string().chars().take(SHOWN).collect();
    Fault::new(
        Code::InvalidParams,
        format!("`{key}` must be {wanted}, not `{}`", printable(&shown)),
    )
}

/// Whole numbers below 2⁵³ are exact as an `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Characters of a wrong value that its error repeats: enough to know it by.
const SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_left_out_or_null_is_not_there() {
        let given = arguments(json!({"a": null}));
        assert_eq!(given.text("a"), Ok(None));
        assert_eq!(given.flag("b"), Ok(None));
        assert_eq!(given.iter().count(), 0);
    }

    #[test]
    fn numbers_and_flags_are_read_as_clients_write_them() {
        let given = arguments(json!({"a": 2.0, "b": 1, "c": 1.5, "d": -1, "e": true, "f": 1e300}));
        assert_eq!(given.whole("a"), Ok(Some(2)));
        assert_eq!(given.flag("b"), Ok(Some(true)));
        assert_eq!(given.flag("e"), Ok(Some(true)));
        assert_eq!(given.number("c"), Ok(Some(1.5)));
        assert_eq!(given.rate("a"), Ok(Some(2_000)));
        assert_eq!(given.rate("c"), Ok(Some(1_500)));
        assert_eq!(given.count::<u32>("c"), Ok(Some(1)));
        assert!(given.whole("c").is_err());
        assert!(given.whole("f").is_err());
        assert!(given.count::<u32>("d").is_err());
        assert!(given.number("d").is_err());
        assert!(given.rate("d").is_err());
        assert!(given.flag("a").is_err());
        assert!(given.rate("f").is_err());
        assert!(given.count::<u32>("f").is_err());
    }

    #[test]
    fn line_17_numbers_may_have_fractions_and_be_written_as_transmission_takes_them() {
        // 1,000,000 bytes a second, as Flood sends them.
        let given = arguments(json!({
            "rate": 976.5625, "tiny": 0.0004, "ratio": "1.5", "not": "x", "nan": "NaN",
            "yes": "true", "no": "false", "on": 1.0, "off": 0.0, "half": 0.5, "minutes": 30.9,
            "below": -0.5,
        }));
        assert_eq!(given.rate("rate"), Ok(Some(976_563)));
        assert_eq!(given.rate("tiny"), Ok(Some(0)));
        assert_eq!(given.number("ratio"), Ok(Some(1.5)));
        assert!(given.number("not").is_err());
        assert!(given.number("nan").is_err());
        let flags = ["yes", "no", "on", "off"].map(|key| given.flag(key).unwrap().unwrap());
        assert_eq!(flags, [true, false, true, false]);
        assert!(given.flag("half").is_err() && given.flag("not").is_err());
        assert_eq!(given.count::<u16>("minutes"), Ok(Some(30)));
        assert!(given.rate("below").is_err());
        assert_eq!(given.count::<u32>("below"), Ok(Some(0)));
    }

    #[test]
    fn wrong_types_are_refused_by_name() {
        let given = arguments(
            json!({"labels": ["a", 1], "files_wanted": [-1], "path": "\u{1b}[2J".repeat(100)}),
        );
        let fault = given.texts("labels").unwrap_err();
        assert!(fault.detail.unwrap().contains("`labels`"));
        assert_eq!(given.indices("files_wanted").unwrap_err().code, Code::FileIndex);
        let detail = given.flag("path").unwrap_err().detail.unwrap();
        assert!(detail.len() < 200 && !detail.contains('\u{1b}'), "{detail}");
    }
}
