//! When pieces came, and from whom.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{JournalError, Reader};
use piecework_api::{Series, Timeline};
use piecework_core::InfoHash;

impl Reader {
    /// When pieces came, in `buckets` parts of the time from the first to the last: by the 200
    /// givers that gave most, and by all others together.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn timeline(&self, torrent: InfoHash, buckets: u32) -> Result<Timeline, JournalError> {
        let mut line = Timeline { from: 0, to: 0, seconds: 0.0, others: 0, series: Vec::new() };
        let Some(id) = self.torrent(torrent)? else { return Ok(line) };
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
        let (Some(from), Some(to)) = (times().min(), times().max()) else { return Ok(line) };
        let span = (to - from + 1).max(buckets);
        // Chosen before there is a row of buckets for each: those of 10,000 givers took 100 MB.
        let mut largest: Vec<(i64, u64)> = sums.into_iter().collect();
        largest.sort_unstable_by_key(|(peer, bytes)| (Reverse(*bytes), *peer));
        line.others = largest.len().saturating_sub(NAMED) as u32;
        largest.truncate(NAMED);
        let of = |giver: i64| Series {
            giver,
            pieces: vec![0; buckets as usize],
            bytes: vec![0; buckets as usize],
        };
        let mut named: BTreeMap<i64, Series> =
            largest.into_iter().map(|(peer, _)| (peer, of(peer))).collect();
        let mut others = of(Series::OTHERS);
        for (time, peer, bytes) in came {
            let bucket = ((time - from) * buckets / span) as usize;
            let series = named.get_mut(&peer).unwrap_or(&mut others);
            series.pieces[bucket] += 1;
            series.bytes[bucket] += bytes;
        }
        line.from = from / 1_000;
        line.to = to / 1_000;
        line.seconds = span as f64 / buckets as f64 / 1e3;
        line.series = named.into_values().collect();
        if line.others > 0 {
            line.series.push(others);
        }
        Ok(line)
    }
}

/// Givers that have a row of their own: with 1,000 buckets an answer has 1 to 2 MB. Nobody tells so
/// many colours apart.
const NAMED: usize = 200;
