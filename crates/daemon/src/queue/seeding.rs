//! When a torrent has seeded enough.

/// What ends the seeding of one torrent; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SeedLimits {
    /// Bytes sent divided by bytes received, or by the content's size if nothing was received.
    pub ratio: Option<f64>,
    /// Seconds of seeding.
    pub time: Option<u64>,
    /// Seconds without sending a byte.
    pub idle: Option<u64>,
}

/// How much a torrent has seeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seeded {
    /// Bytes sent.
    pub uploaded: u64,
    /// Bytes received.
    pub downloaded: u64,
    /// Bytes held.
    pub bytes_have: u64,
    /// Seconds of seeding.
    pub seconds: u64,
    /// Seconds since payload was last transferred, or since it began to seed.
    pub idle: u64,
}

impl SeedLimits {
    /// Returns whether there is any limit.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Returns whether a limit is reached.
    pub fn reached(&self, seeded: &Seeded) -> bool {
        self.ratio.is_some_and(|limit| seeded.ratio() >= limit)
            || self.time.is_some_and(|limit| seeded.seconds >= limit)
            || self.idle.is_some_and(|limit| seeded.idle >= limit)
    }

    /// Returns the seconds until a limit may be reached although nothing is transferred; `None` if
    /// never.
    pub fn due_in(&self, seeded: &Seeded) -> Option<u64> {
        let time = self.time.map(|limit| limit.saturating_sub(seeded.seconds));
        let idle = self.idle.map(|limit| limit.saturating_sub(seeded.idle));
        time.into_iter().chain(idle).min()
    }
}

impl Seeded {
    /// Returns bytes sent divided by bytes received, or by bytes held if nothing was received; 0 if
    /// there are none.
    pub fn ratio(&self) -> f64 {
        let against = if self.downloaded > 0 { self.downloaded } else { self.bytes_have };
        if against == 0 { 0.0 } else { self.uploaded as f64 / against as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_nothing_ends_it() {
        let limits = SeedLimits::default();
        let much =
            Seeded { uploaded: u64::MAX, seconds: u64::MAX, idle: u64::MAX, ..Seeded::default() };
        assert!(!limits.any() && !limits.reached(&much) && limits.due_in(&much).is_none());
    }

    #[test]
    fn what_was_never_received_counts_by_its_size() {
        let seeded = Seeded { uploaded: 30, bytes_have: 20, ..Seeded::default() };
        assert_eq!(seeded.ratio(), 1.5);
        assert_eq!(Seeded::default().ratio(), 0.0);
    }

    #[test]
    fn the_sooner_of_time_and_idleness_counts() {
        let limits = SeedLimits { ratio: None, time: Some(100), idle: Some(30) };
        let seeded = Seeded { seconds: 80, idle: 5, ..Seeded::default() };
        assert_eq!(limits.due_in(&seeded), Some(20));
        assert_eq!(limits.due_in(&Seeded { idle: 31, ..seeded }), Some(0));
        assert!(limits.reached(&Seeded { idle: 31, ..seeded }));
    }
}
