//! Which IP addresses a tracker's URL may lead to.
//!
//! URLs of trackers come from `.torrent` files and HTTP answers. Without a rule, their authors could make this
//! program send requests into its own network (server-side request forgery). The rule depends on who named the URL
//! ([`Provenance`]), on its form, and on the [`Scope`] of the IP address that its host resolves to.
//!
//! | named by | global | private | link-local | loopback | special |
//! |---|---|---|---|---|---|
//! | the user | yes | yes | yes | yes | yes |
//! | a `.torrent` that came from a tracker nearby | yes | at `…/announce` | no | at `/announce` | no |
//! | any other `.torrent` | yes | no | no | at `/announce` | no |
//! | a redirect of a request that the user named | yes | from there | from there | from there | no |
//! | any other redirect | yes | no | no | no | no |
//!
//! "At `/announce`" means that the path is exactly that, and "at `…/announce`" that its last segment is; in both
//! cases without a query, user name, or password. A UDP tracker's path is not sent, so it may also be empty. "From
//! there" means that the redirecting address has the same scope. The rule is a stricter form of libtorrent's
//! `ssrf_mitigation`, which allows private networks to every `.torrent`, and paths that only begin with
//! `/announce`.

use url::Url;

use piecework_core::Scope;

/// Who named a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Provenance {
    /// The user: in the configuration, on the command line, or over the API as the owner.
    Named,
    /// A `.torrent` that came from a tracker in a private network or on this machine.
    Nearby,
    /// Anybody else: a `.torrent`, an answer, or a request from somebody who is not the owner.
    #[default]
    Foreign,
}

/// The scopes that a request may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reach(u8);

impl Reach {
    /// Addresses of every scope.
    pub const ALL: Self = Self(0b1_1111);

    /// Only addresses that are reachable from the whole internet.
    pub const GLOBAL: Self = Self(1 << Scope::Global as u8);

    /// Returns the scopes that a request for `url` may go to.
    pub fn of(provenance: Provenance, url: &Url) -> Self {
        let mut reach = Self::GLOBAL;
        match provenance {
            Provenance::Named => return Self::ALL,
            Provenance::Nearby if is_announce(url, Depth::Any) => {
                reach = reach.and(Scope::Private);
            }
            Provenance::Nearby | Provenance::Foreign => {}
        }
        if is_announce(url, Depth::Top) { reach.and(Scope::Loopback) } else { reach }
    }

    /// Returns the scopes that a redirect from an address of scope `from` may lead to.
    pub fn of_redirect(provenance: Provenance, from: Scope) -> Self {
        match (provenance, from) {
            (Provenance::Named, Scope::Private | Scope::LinkLocal | Scope::Loopback) => {
                Self::GLOBAL.and(from)
            }
            _ => Self::GLOBAL,
        }
    }

    /// Returns whether the reach includes this scope.
    pub fn includes(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    const fn and(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }
}

/// How deep a path may be.
#[derive(Clone, Copy, PartialEq)]
enum Depth {
    Top,
    Any,
}

/// Returns whether `url` has only the parts of a plain tracker URL.
fn is_announce(url: &Url, depth: Depth) -> bool {
    let bare = url.query().is_none() && url.username().is_empty() && url.password().is_none();
    let path = match (url.scheme(), depth) {
        ("udp", _) => matches!(url.path(), "" | "/" | "/announce"),
        (_, Depth::Top) => url.path() == "/announce",
        // The server could interpret an escape or parameter as another path.
        (_, Depth::Any) => {
            url.path().ends_with("/announce") && !url.path().contains(['%', ';', '\\'])
        }
    };
    bare && path
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPES: [Scope; 5] =
        [Scope::Global, Scope::Private, Scope::LinkLocal, Scope::Loopback, Scope::Special];

    fn allowed(reach: Reach) -> String {
        SCOPES.map(|scope| if reach.includes(scope) { 'y' } else { '-' }).iter().collect()
    }

    fn of(provenance: Provenance, url: &str) -> String {
        allowed(Reach::of(provenance, &Url::parse(url).unwrap()))
    }

    #[test]
    fn what_the_user_names_may_lead_anywhere() {
        for url in
            ["http://h/announce", "http://h/admin/reboot?now=1", "udp://h:1/x", "http://u:p@h/"]
        {
            assert_eq!(of(Provenance::Named, url), "yyyyy", "{url}");
        }
    }

    #[test]
    fn a_torrent_from_a_tracker_nearby_may_lead_to_trackers_nearby() {
        let table = [
            ("http://h/announce", "yy-y-"),
            ("https://h:8443/key/announce", "yy---"),
            ("udp://h:1", "yy-y-"),
            ("udp://h:1/announce", "yy-y-"),
            ("http://h/announce?key=1", "y----"),
            ("http://h/admin/reboot", "y----"),
            ("http://h/announce/reboot", "y----"),
            ("http://h/reboot%3f/announce", "y----"),
            ("http://h/reboot;/announce", "y----"),
            ("http://admin:admin@h/announce", "y----"),
        ];
        for (url, wanted) in table {
            assert_eq!(of(Provenance::Nearby, url), wanted, "{url}");
        }
    }

    #[test]
    fn any_other_torrent_may_lead_to_the_internet_and_to_announce_on_this_machine() {
        let table = [
            ("http://h/announce", "y--y-"),
            ("http://h:5000/announce#top", "y--y-"),
            // The parser removes dot segments before this check.
            ("http://h/admin/../announce", "y--y-"),
            ("udp://h:1", "y--y-"),
            ("udp://h:1/", "y--y-"),
            ("udp://h:1/announce", "y--y-"),
            ("udp://h:1/x", "y----"),
            ("udp://h:1?x", "y----"),
            ("http://h/", "y----"),
            ("http://h/key/announce", "y----"),
            ("http://h/announce.php", "y----"),
            ("http://h/Announce", "y----"),
            ("http://h/announce/", "y----"),
            ("http://h//announce", "y----"),
            ("http://h/announce?", "y----"),
            ("http://h/announce?x=/announce", "y----"),
            ("http://h/admin/reboot?x=/announce", "y----"),
            ("http://h/admin/reboot#/announce", "y----"),
            ("http://h/%61nnounce", "y----"),
            ("http://h/admin%2freboot/announce", "y----"),
            ("http://user@h/announce", "y----"),
            ("http://:pass@h/announce", "y----"),
        ];
        for (url, wanted) in table {
            assert_eq!(of(Provenance::Foreign, url), wanted, "{url}");
        }
    }

    #[test]
    fn redirects_never_lead_further_in() {
        let table = [
            (Scope::Global, "y----"),
            (Scope::Private, "yy---"),
            (Scope::LinkLocal, "y-y--"),
            (Scope::Loopback, "y--y-"),
            (Scope::Special, "y----"),
        ];
        for (from, wanted) in table {
            assert_eq!(allowed(Reach::of_redirect(Provenance::Named, from)), wanted, "{from:?}");
            for other in [Provenance::Nearby, Provenance::Foreign] {
                assert_eq!(allowed(Reach::of_redirect(other, from)), "y----", "{from:?}");
            }
        }
    }
}
