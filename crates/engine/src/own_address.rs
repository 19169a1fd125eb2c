//! Notices when this host gets another address, so that trackers can be told.

use std::net::IpAddr;

use crate::net;
use piecework_proto::announce::udp::Family;

/// The addresses from which this host last reached others.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl OwnAddresses {
    /// Looks at the system's routes. Returns whether an address has replaced another. A network
    /// that is gone changes nothing: nobody could be told.
    pub(crate) fn update(&mut self) -> bool {
        let v4 = replaces(&mut self.v4, net::source_address(Family::V4));
        let v6 = replaces(&mut self.v6, net::source_address(Family::V6));
        v4 || v6
    }
}

/// Notes `now` as the known address. Returns whether it differs from the one before.
fn replaces(known: &mut Option<IpAddr>, now: Option<IpAddr>) -> bool {
    let Some(now) = now else { return false };
    known.replace(now).is_some_and(|before| before != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_as_changed_when_another_takes_its_place() {
        let (one, two) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        let mut known = None;
        assert!(!replaces(&mut known, one), "the first one is no change");
        assert!(!replaces(&mut known, one));
        assert!(!replaces(&mut known, None), "without a network nobody can be told");
        assert!(!replaces(&mut known, one), "it came back as it was");
        assert!(replaces(&mut known, two));
        assert!(!replaces(&mut known, two));
    }
}
