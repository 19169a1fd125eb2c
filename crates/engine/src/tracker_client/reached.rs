//! Checks the addresses that a name leads to against those that a request may go to.

use std::net::{IpAddr, SocketAddr};

use piecework_core::{Scope, printable, scope_of};
use piecework_proto::announce::Reach;

/// A host has an address that the request may not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` leads to `{ip}`, {}",
    printable(.host),
    match scope_of(*.ip) {
        Scope::Loopback => {
            "which is this machine: a torrent, a redirect or a request without the owner's token \
             may ask nothing but a tracker at `/announce` there"
        }
        Scope::Private => {
            "which is in a private network: a torrent, a redirect or a request without the owner's \
             token may not lead there; name the tracker yourself, with `--tracker` or `tracker` in \
             config.toml, or set `private_trackers = true` in its section [peer]"
        }
        Scope::LinkLocal => "a link-local address, where only you may send requests: name it yourself",
        Scope::Special | Scope::Global => "which is not the address of a server",
    }
)]
pub struct Outside {
    /// The name, or the address itself.
    pub host: String,
    /// The first such address.
    pub ip: IpAddr,
}

/// Checks whether all of `addrs`, which `host` leads to, are within `reach`.
///
/// # Errors
/// The first that is not.
pub(super) fn check(host: &str, addrs: &[SocketAddr], reach: Reach) -> Result<(), Outside> {
    let outside = addrs.iter().map(SocketAddr::ip).find(|ip| !reach.includes(scope_of(*ip)));
    match outside {
        Some(ip) => Err(Outside { host: host.chars().take(MAX_SHOWN).collect(), ip }),
        None => Ok(()),
    }
}

/// Characters of a host's name that a sentence shows.
const MAX_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_outside_is_enough() {
        let addrs = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|addr| addr.parse().unwrap()).collect()
        };
        let rebinding = addrs("8.8.8.8:80 [::ffff:10.0.0.1]:80");
        let outside = check("evil.example", &rebinding, Reach::GLOBAL).unwrap_err();
        assert_eq!(outside.ip, rebinding[1].ip());
        assert!(outside.to_string().contains("`evil.example` leads to `::ffff:10.0.0.1`"));
        assert_eq!(check("evil.example", &rebinding, Reach::ALL), Ok(()));
        assert_eq!(check("good.example", &addrs("8.8.8.8:80"), Reach::GLOBAL), Ok(()));
    }
}
