//! When pieces arrived, and from whom.

use piecework_core::SaturatingFrom;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Reader;
use crate::error::JournalError;
use crate::rows::{ArrivalSeries, Arrivals};
use piecework_core::InfoHash;

impl Reader {
    /// Returns when pieces arrived, in `buckets` parts of the time from the first to the last: from
    /// the 200 givers that gave most, and from all others together.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn arrivals(&self, torrent: InfoHash, buckets: u32) -> Result<Arrivals, JournalError> {
        let mut arrivals = Arrivals::default();
        let Some(id) = self.torrent(torrent)? else { return Ok(arrivals) };
        let buckets = i64::from(buckets.max(1));
        let mut came = Vec::new();
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        self.each_given(id, 0, |row| {
            if row.fate == 0 {
                came.push((row.time, row.peer, row.bytes));
                *sums.entry(row.peer).or_default() += row.bytes;
            }
        })?;
        let times = || came.iter().map(|(time, ..)| *time);
        let (Some(from), Some(to)) = (times().min(), times().max()) else { return Ok(arrivals) };
        let span = (to - from + 1).max(buckets);
        // The largest are chosen before buckets are allocated: those of 10,000 givers took 100 MB.
        let mut largest: Vec<(i64, u64)> = sums.into_iter().collect();
        largest.sort_unstable_by_key(|(peer, bytes)| (Reverse(*bytes), *peer));
        arrivals.unnamed = u32::saturating_from(largest.len().saturating_sub(NAMED));
        largest.truncate(NAMED);
        let of = |giver: Option<i64>| ArrivalSeries {
            giver,
            pieces: vec![0; usize::saturating_from(buckets)],
            bytes: vec![0; usize::saturating_from(buckets)],
        };
        let mut named: BTreeMap<i64, ArrivalSeries> =
            largest.into_iter().map(|(peer, _)| (peer, of(Some(peer)))).collect();
        let mut others = of(None);
        for (time, peer, bytes) in came {
            let bucket = usize::saturating_from((time - from) * buckets / span);
            let series = named.get_mut(&peer).unwrap_or(&mut others);
            series.pieces[bucket] += 1;
            series.bytes[bucket] += bytes;
        }
        (arrivals.from, arrivals.to) = (from, to);
        arrivals.bucket_secs = span as f64 / buckets as f64 / 1e3;
        arrivals.series = named.into_values().collect();
        if arrivals.unnamed > 0 {
            arrivals.series.push(others);
        }
        Ok(arrivals)
    }
}

/// Givers with a series of their own: with 1,000 buckets an answer has 1 to 2 MB. Nobody can tell
/// more colours apart.
const NAMED: usize = 200;
