//! Settings and requests of the API in the queue's terms.

use crate::queue::{Schedule, SeedLimits, Shift};
use piecework_api::{AltLimits, QueueMove, Settings, TorrentSettings};

/// Returns the limits that hold for a torrent: its own choice goes before the daemon's.
pub(super) fn seed_limits(torrent: &TorrentSettings, session: &Settings) -> SeedLimits {
    SeedLimits {
        ratio: torrent.seed_ratio.or_session(session.seed_ratio),
        time: torrent.seed_time.or_session(session.seed_time),
        idle: torrent.seed_idle.or_session(session.seed_idle),
    }
}

/// Returns when the second pair of rate limits holds; `None` if the clock has no say.
pub(super) fn schedule(alt: &AltLimits) -> Option<Schedule> {
    alt.scheduled.then(|| Schedule::new(alt.begin, alt.end, alt.days))
}

/// Returns where a request moves torrents to.
pub(super) fn shift(to: QueueMove) -> Shift {
    match to {
        QueueMove::Top => Shift::Top,
        QueueMove::Up => Shift::Up,
        QueueMove::Down => Shift::Down,
        QueueMove::Bottom => Shift::Bottom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Seeded;
    use piecework_api::SeedLimit;

    #[test]
    fn by_default_nothing_ends_the_seeding_and_no_clock_has_a_say() {
        let limits = seed_limits(&TorrentSettings::default(), &Settings::default());
        assert_eq!(limits, SeedLimits::default());
        assert_eq!(schedule(&AltLimits::default()), None);
    }

    #[test]
    fn a_torrents_own_choice_goes_before_the_daemons() {
        let session = Settings { seed_ratio: Some(1.0), seed_time: Some(5), ..Settings::default() };
        let torrent = TorrentSettings {
            seed_ratio: SeedLimit::At(2.0),
            seed_time: SeedLimit::Never,
            ..TorrentSettings::default()
        };
        let limits = seed_limits(&torrent, &session);
        assert_eq!(limits, SeedLimits { ratio: Some(2.0), time: None, idle: None });
        let seeded =
            |uploaded| Seeded { uploaded, downloaded: 10, seconds: 9, ..Seeded::default() };
        assert!(!limits.reached(&seeded(19)) && limits.reached(&seeded(20)));
    }
}
