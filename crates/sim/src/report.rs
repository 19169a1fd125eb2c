//! Reports of runs.

use piecework_core::SaturatingFrom;
use serde::Serialize;

/// What happened in a run. Times are seconds of virtual time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The name of the scenario.
    pub scenario: String,
    /// The seed of the run.
    pub seed: u64,
    /// How many peers came with nothing.
    pub leechers: usize,
    /// How many of these hold everything.
    pub completed: usize,
    /// When the last one held everything. `None` if some do not.
    pub makespan: Option<f64>,
    /// The minimum time that is possible. `None` without a seed.
    pub bound: Option<f64>,
    /// How many times longer than the bound it took.
    pub makespan_to_bound: Option<f64>,
    /// The mean of the leechers' times, divided by the bound.
    pub mean_to_bound: Option<f64>,
    /// Times from arrival to completion.
    pub completion: Option<Spread>,
    /// How many copies of the content seeds sent.
    pub copies_from_seeds: f64,
    /// Bytes that all peers sent, divided by the bytes that leechers lacked.
    pub copies_sent_each: f64,
    /// Received bytes that were of no use (duplicate, late, or wrong), divided by the bytes that leechers
    /// lacked.
    pub wasted: f64,
    /// The fraction of the time up to the last completion in which the uplinks were sending, weighted by
    /// their rate.
    pub uplink_use: f64,
    /// What the uplinks of present peers did up to then, and why they did nothing. From samples.
    pub uplinks: UplinkShares,
    /// When leechers together held everything. `None` if they did not.
    pub all_given: Option<f64>,
    /// How many connections were closed for sending wrong data.
    pub bans: usize,
    /// The reports of the groups of the scenario.
    pub groups: Vec<GroupReport>,
    /// How many events were handled.
    pub events: u64,
}

/// Shares of the time of all uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UplinkShares {
    /// Sending what the receiver needed.
    pub useful: f64,
    /// Sending what was of no use: duplicate, late, or wrong.
    pub in_vain: f64,
    /// Idle: those who asked cannot take more.
    pub blocked: f64,
    /// Idle: the peer holds nothing yet.
    pub empty: f64,
    /// Idle: no neighbour lacks anything that the peer holds.
    pub unneeded: f64,
    /// Idle: only neighbours without a slot lack something.
    pub no_slot: f64,
    /// Idle: those that lack something have requested all of it from others.
    pub elsewhere: f64,
    /// Idle: those that lack something have requested it from nobody.
    pub unrequested: f64,
}

impl UplinkShares {
    /// Returns each share with a short description.
    pub fn by_cause(&self) -> [(&'static str, f64); 8] {
        [
            ("sending what is needed", self.useful),
            ("sending in vain", self.in_vain),
            ("idle: receivers are slower", self.blocked),
            ("idle: holds nothing yet", self.empty),
            ("idle: nobody needs it", self.unneeded),
            ("idle: those in need have no slot", self.no_slot),
            ("idle: requested from others", self.elsewhere),
            ("idle: requested from nobody", self.unrequested),
        ]
    }
}

/// What happened to the peers of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupReport {
    /// The name of the group.
    pub name: String,
    /// The number of peers.
    pub peers: usize,
    /// How many hold everything.
    pub completed: usize,
    /// Times from arrival to completion. `None` for seeds, or if no peer completed.
    pub completion: Option<Spread>,
    /// How many copies of the content each sent, on average.
    pub copies_sent: f64,
    /// The fraction of the time in which their uplinks were sending.
    pub uplink_use: f64,
}

/// The distribution of values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean of all values.
    pub mean: f64,
    /// Half of them are at most this.
    pub p50: f64,
    /// 99 of a hundred are at most this.
    pub p99: f64,
    /// The greatest value.
    pub last: f64,
}

impl Spread {
    /// Returns the distribution of `values`, or `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = *values.last()?;
        let at = |part: f64| {
            values[usize::saturating_from((values.len() as f64 * part).ceil()).max(1) - 1]
        };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Some(Self { mean, p50: at(0.5), p99: at(0.99), last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occur() {
        let spread = Spread::of((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!((spread.p50, spread.p99, spread.last), (100.0, 198.0, 200.0));
        assert_eq!(spread.mean, 100.5);
        assert_eq!(Spread::of(vec![3.0]).unwrap().p50, 3.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
