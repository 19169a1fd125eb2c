//! Limits: Transmission keeps a figure and, apart from it, whether it holds; the daemon keeps a
//! figure or none. The figure of a limit that does not hold is remembered here.

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use super::memory::Figures;
use piecework_api::SeedLimit;
use piecework_core::SaturatingFrom;

/// Bytes a second as kilobytes a second, to the nearest.
pub(super) fn kilobytes(rate: u64) -> u64 {
    rate.saturating_add(500) / 1_000
}

/// A limit of `rate` bytes a second that holds. Nothing at all is written as 0 by Transmission,
/// which means no limit to the daemon: a byte a second is as good as nothing.
pub(super) fn holding(rate: u64) -> u64 {
    rate.max(1)
}

/// The figure of a rate limit in kB/s: what holds, or else what is remembered under `key`.
pub(super) fn rate(limit: Option<u64>, figures: &Figures, key: &str) -> u64 {
    limit.map_or_else(|| figures.whole(key, DEFAULT_RATE), kilobytes)
}

/// A new rate limit: from its figure under `figure` and its switch under `switch`, whichever the
/// request has. `None`: it stays as it is. `Some(None)`: it holds no longer.
pub(super) fn change_rate(
    given: &Arguments,
    (figure, switch): (&'static str, &'static str),
    now: Option<u64>,
    figures: &mut Figures,
) -> Result<Option<Option<u64>>, Fault> {
    let (rate, on) = (given.rate(figure)?, given.flag(switch)?);
    if let Some(rate) = rate {
        figures.keep(figure, kilobytes(rate) as f64);
    } else if let Some(now) = now {
        figures.keep(figure, kilobytes(now) as f64);
    }
    Ok(match (on.unwrap_or(now.is_some()), rate, now) {
        (true, Some(rate), _) => Some(Some(holding(rate))),
        (true, None, Some(_)) => None,
        (true, None, None) => {
            Some(Some(holding(figures.whole(figure, DEFAULT_RATE).saturating_mul(1_000))))
        }
        (false, _, Some(_)) => Some(None),
        (false, _, None) => None,
    })
}

/// A number that counts only while its switch is on: of torrents in a queue, of minutes, a ratio.
/// `now` and the outcome as Transmission counts; the same rules as of [`change_rate`].
pub(super) fn change_number(
    given: &Arguments,
    (figure, switch): (&'static str, &'static str),
    now: Option<f64>,
    default: f64,
    figures: &mut Figures,
) -> Result<Option<Option<f64>>, Fault> {
    let (number, on) = (given.number(figure)?, given.flag(switch)?);
    if let Some(number) = number.or(now) {
        figures.keep(figure, number);
    }
    Ok(match (on.unwrap_or(now.is_some()), number, now) {
        (true, Some(number), _) => Some(Some(number)),
        (true, None, Some(_)) => None,
        (true, None, None) => Some(Some(figures.get(figure, default))),
        (false, _, Some(_)) => Some(None),
        (false, _, None) => None,
    })
}

/// How a torrent's limit of seeding is called, counted and begun with.
pub(super) struct Seeding {
    figure: &'static str,
    mode: &'static str,
    default: f64,
}

/// The ratio of sent to received.
pub(super) const RATIO: Seeding =
    Seeding { figure: "seed_ratio_limit", mode: "seed_ratio_mode", default: DEFAULT_RATIO };

/// Minutes without a byte sent.
pub(super) const IDLE: Seeding =
    Seeding { figure: "seed_idle_limit", mode: "seed_idle_mode", default: DEFAULT_IDLE };

/// A figure of seeding as Transmission counts it.
pub(super) trait Figure: Copy {
    fn shown(self) -> f64;
    fn from_shown(shown: f64) -> Self;
}

/// Ratios are fractions.
impl Figure for f64 {
    fn shown(self) -> f64 {
        self
    }

    fn from_shown(shown: f64) -> Self {
        shown
    }
}

/// Seconds, which Transmission counts in minutes.
impl Figure for u64 {
    fn shown(self) -> f64 {
        self.div_ceil(60) as f64
    }

    fn from_shown(shown: f64) -> Self {
        // From the float to the integer the cast saturates.
        u64::saturating_from(shown * 60.0)
    }
}

impl Seeding {
    /// The figure, whether it holds or is only remembered. Minutes are whole.
    pub(super) fn figure<T: Figure>(
        &self,
        limit: &SeedLimit<T>,
        figures: &Figures,
    ) -> serde_json::Value {
        let shown = match limit {
            SeedLimit::At(figure) => figure.shown(),
            SeedLimit::Session | SeedLimit::Never => figures.get(self.figure, self.default),
        };
        if self.figure == IDLE.figure { u64::saturating_from(shown).into() } else { shown.into() }
    }

    /// The limit that the request asks for, if it asks for one.
    pub(super) fn change<T: Figure>(
        &self,
        given: &Arguments,
        now: SeedLimit<T>,
        figures: &mut Figures,
    ) -> Result<Option<SeedLimit<T>>, Fault> {
        let (shown, wished) = (given.number(self.figure)?, given.whole(self.mode)?);
        let held = match now {
            SeedLimit::At(figure) => Some(figure.shown()),
            SeedLimit::Session | SeedLimit::Never => None,
        };
        if let Some(shown) = shown.or(held) {
            figures.keep(self.figure, shown);
        }
        let at = || SeedLimit::At(T::from_shown(figures.get(self.figure, self.default)));
        match wished.unwrap_or_else(|| mode(&now).into()) {
            0 => Ok(wished.map(|_| SeedLimit::Session)),
            1 => Ok((shown.is_some() || held.is_none()).then(at)),
            2 => Ok(wished.map(|_| SeedLimit::Never)),
            other => {
                let detail = format!("`{}` must be 0, 1 or 2, not `{other}`", self.mode);
                Err(Fault::new(Code::InvalidParams, detail))
            }
        }
    }
}

/// Whose limit holds: 0: the session's, 1: the torrent's own, 2: none.
pub(super) fn mode<T>(limit: &SeedLimit<T>) -> u8 {
    match limit {
        SeedLimit::Session => 0,
        SeedLimit::At(_) => 1,
        SeedLimit::Never => 2,
    }
}

/// kB/s that Transmission begins with.
pub(super) const DEFAULT_RATE: u64 = 100;

/// The ratio that Transmission begins with.
pub(super) const DEFAULT_RATIO: f64 = 2.0;

/// The minutes that Transmission begins with.
pub(super) const DEFAULT_IDLE: f64 = 30.0;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().unwrap().clone())
    }

    const KEYS: (&str, &str) = ("upload_limit", "upload_limited");

    #[test]
    fn a_rate_limit_is_remembered_while_it_is_off() {
        let mut figures = Figures::default();
        let mut change = |value, now| change_rate(&arguments(value), KEYS, now, &mut figures);
        assert_eq!(change(json!({"upload_limit": 7}), None), Ok(None), "set, not switched on");
        assert_eq!(change(json!({"upload_limited": true}), None), Ok(Some(Some(7_000))));
        assert_eq!(change(json!({"upload_limited": false}), Some(9_000)), Ok(Some(None)));
        assert_eq!(change(json!({"upload_limited": true}), None), Ok(Some(Some(9_000))));
        assert_eq!(change(json!({"upload_limit": 5}), Some(9_000)), Ok(Some(Some(5_000))));
        assert_eq!(change(json!({"upload_limited": true}), Some(5_000)), Ok(None));
        assert_eq!(change(json!({}), Some(5_000)), Ok(None));
        assert_eq!(change(json!({}), None), Ok(None));
        let both = json!({"upload_limit": 0, "upload_limited": true});
        assert_eq!(change(both, None), Ok(Some(Some(1))), "nothing is not no limit");
        // As a float it is rounded up, to what is more than 2^64 bytes.
        let most = u64::MAX / 1_000;
        assert_eq!(change(json!({"upload_limit": most}), None), Ok(None));
        let most = change(json!({"upload_limited": true}), None).unwrap().unwrap().unwrap();
        assert!(most >= u64::MAX / 2, "{most}: more than can be counted is as much as can");
        assert_eq!(rate(Some(1), &figures, "upload_limit"), 0);
        assert_eq!(rate(Some(1_500), &figures, "upload_limit"), 2);
    }

    #[test]
    fn a_seeding_limit_has_three_modes_and_remembers_its_figure() {
        let mut figures = Figures::default();
        let mut change =
            |value, now: SeedLimit<u64>| IDLE.change(&arguments(value), now, &mut figures);
        let (at, session, never) = (SeedLimit::At, SeedLimit::Session, SeedLimit::Never);
        assert_eq!(change(json!({}), session), Ok(None));
        assert_eq!(change(json!({}), at(60)), Ok(None));
        assert_eq!(change(json!({"seed_idle_limit": 5}), session), Ok(None));
        assert_eq!(change(json!({"seed_idle_mode": 1}), session), Ok(Some(at(300))));
        assert_eq!(change(json!({"seed_idle_limit": 6}), at(300)), Ok(Some(at(360))));
        assert_eq!(change(json!({"seed_idle_mode": 2}), at(360)), Ok(Some(never)));
        assert_eq!(change(json!({"seed_idle_mode": 0}), never), Ok(Some(session)));
        assert_eq!(
            change(json!({"seed_idle_limit": 1, "seed_idle_mode": 1}), never),
            Ok(Some(at(60)))
        );
        assert!(change(json!({"seed_idle_mode": 3}), never).is_err());
        assert_eq!(IDLE.figure(&never, &figures), json!(1));
        assert_eq!(RATIO.figure(&SeedLimit::At(1.5), &figures), json!(1.5));
        assert_eq!(RATIO.figure(&SeedLimit::<f64>::Session, &figures), json!(2.0));
    }
}
