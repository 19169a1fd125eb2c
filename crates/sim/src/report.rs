//! What a run came to.

use serde::Serialize;

/// What happened in a run. Times are seconds of virtual time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Peers that came with nothing.
    pub leechers: usize,
    /// Those of them that hold everything.
    pub completed: usize,
    /// When the last one held everything; `None` if some do not.
    pub makespan: Option<f64>,
    /// The least that is possible; `None` without a seed.
    pub bound: Option<f64>,
    /// How many times longer it took than that.
    pub makespan_to_bound: Option<f64>,
    /// The mean of the leechers' times, by the bound.
    pub mean_to_bound: Option<f64>,
    /// Times from arrival to completion.
    pub completion: Option<Spread>,
    /// Copies of the content that seeds sent.
    pub copies_from_seeds: f64,
    /// Bytes that all peers sent, by the bytes that leechers lacked.
    pub copies_sent_each: f64,
    /// Bytes that came and were of no use: twice, too late, or wrong; by the bytes that leechers lacked.
    pub wasted: f64,
    /// Part of the time up to the last completion in which the uplinks sent something, by their rate.
    pub uplink_use: f64,
    /// Connections closed for sending wrong data.
    pub bans: usize,
    /// The groups of the scenario.
    pub groups: Vec<GroupReport>,
    /// Events that were handled.
    pub events: u64,
}

/// What happened to peers that are alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupReport {
    /// Their name.
    pub name: String,
    /// How many they are.
    pub peers: usize,
    /// How many hold everything.
    pub completed: usize,
    /// Times from arrival to completion; `None` of seeds, or if nobody completed.
    pub completion: Option<Spread>,
    /// Copies of the content that each sent, in the mean.
    pub copies_sent: f64,
    /// Part of the time in which their uplinks sent something.
    pub uplink_use: f64,
}

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// Half of them are at most this.
    pub p50: f64,
    /// 99 of a hundred are at most this.
    pub p99: f64,
    /// The greatest.
    pub last: f64,
}

impl Spread {
    /// Of all `values`; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = *values.last()?;
        let at = |part: f64| values[((values.len() as f64 * part).ceil() as usize).max(1) - 1];
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
