//! Where an existing torrent is announced.

use super::TrackerUrl;
use piecework_core::printable;

/// The trackers for a torrent that somebody else made, and whether it may be registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnouncePlan {
    /// Where to announce, in tiers: the torrent's own trackers first.
    pub tiers: Vec<Vec<String>>,
    /// Whether it may be registered with the named trackers.
    pub register: bool,
}

/// Trackers in addition to a torrent's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedTrackers<'a> {
    /// The trackers, by tier (BEP 12).
    pub tiers: &'a [Vec<TrackerUrl>],
    /// Whether a user named them for this torrent, as opposed to the configuration.
    pub explicit: bool,
    /// Whether the user explicitly allowed to publish a private torrent there.
    pub publish_private: bool,
}

/// The refusal to announce a private torrent to a tracker that it does not name (BEP 27).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{}` is private, so it is announced to its own trackers only, and `{}` is not one of them",
    printable(.torrent), printable(.tracker)
)]
pub struct PrivateTorrent {
    /// The torrent's name.
    pub torrent: String,
    /// The tracker that was named.
    pub tracker: String,
}

impl AnnouncePlan {
    /// Returns where to announce the torrent called `name`, whose own trackers are `own`.
    ///
    /// | torrent | trackers named | announced to | registered |
    /// |---|---|---|---|
    /// | not private | by anybody | its own and those | yes |
    /// | private | in the configuration | its own | no |
    /// | private | by a user, all its own | its own | no |
    /// | private | by a user, another | refused | |
    /// | private | by a user, to publish it there | its own and those | yes |
    ///
    /// Private torrents are not registered, because a catalogue serves the `.torrent`, and with it any pass key in
    /// the URLs of its trackers.
    ///
    /// # Errors
    /// If a private torrent would be announced to a tracker that it does not name.
    pub fn of(
        name: &str,
        own: &[Vec<String>],
        private: bool,
        named: NamedTrackers<'_>,
    ) -> Result<Self, PrivateTorrent> {
        let own_places: Vec<_> =
            own.iter().flatten().filter_map(|url| Some(place(&url.parse().ok()?))).collect();
        let is_own = |url: &TrackerUrl| own_places.contains(&place(url));
        let publishes = !private || named.explicit && named.publish_private;
        let mut others = named.tiers.iter().flatten().filter(|url| !is_own(url));
        if let Some(other) = others.next()
            && !publishes
            && named.explicit
        {
            let (torrent, tracker) = (name.to_owned(), other.as_str().to_owned());
            return Err(PrivateTorrent { torrent, tracker });
        }
        let mut tiers: Vec<Vec<String>> = own.to_vec();
        if publishes {
            for tier in named.tiers {
                let others = tier.iter().filter(|url| !is_own(url));
                let others: Vec<String> = others.map(|url| url.as_str().to_owned()).collect();
                if !others.is_empty() {
                    tiers.push(others);
                }
            }
        }
        Ok(Self { tiers, register: publishes })
    }
}

/// Returns the part of a URL that identifies the tracker.
fn place(url: &TrackerUrl) -> (String, u16) {
    (url.host(), url.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "http://tracker.example:6969/announce?passkey=secret";
    const OTHER: &str = "http://10.0.0.1:8000/announce";

    fn plan(
        private: bool,
        explicit: bool,
        publish_private: bool,
        named: &[&str],
    ) -> Option<(usize, bool)> {
        let tiers = [named.iter().map(|url| url.parse().unwrap()).collect()];
        let named = NamedTrackers { tiers: &tiers, explicit, publish_private };
        let own = [vec![OWN.to_owned()]];
        let plan = AnnouncePlan::of("x", &own, private, named).ok()?;
        assert_eq!(plan.tiers[0], own[0], "its own trackers are always announced to");
        Some((plan.tiers.len(), plan.register))
    }

    #[test]
    fn an_open_torrent_is_announced_to_its_own_trackers_and_the_named_ones() {
        for explicit in [false, true] {
            assert_eq!(plan(false, explicit, false, &[OTHER]), Some((2, true)));
        }
        // The same tracker by another protocol is not a second one.
        assert_eq!(plan(false, true, false, &["udp://tracker.example:6969"]), Some((1, true)));
    }

    #[test]
    fn a_private_torrent_goes_nowhere_else_unless_told_so_in_as_many_words() {
        assert_eq!(plan(true, false, false, &[OTHER]), Some((1, false)));
        assert_eq!(plan(true, true, false, &[OTHER]), None);
        assert_eq!(plan(true, true, false, &["udp://tracker.example:6969"]), Some((1, false)));
        assert_eq!(plan(true, true, true, &[OTHER]), Some((2, true)));
        // The word counts for trackers that a user names, not for the configured one.
        assert_eq!(plan(true, false, true, &[OTHER]), Some((1, false)));
    }

    #[test]
    fn the_refusal_names_the_torrent_and_the_tracker() {
        let tiers = [vec![OTHER.parse().unwrap()]];
        let named = NamedTrackers { tiers: &tiers, explicit: true, publish_private: false };
        let shown = AnnouncePlan::of("x", &[], true, named).unwrap_err().to_string();
        assert!(shown.contains(OTHER) && shown.contains("`x`"), "{shown}");
    }
}
