//! What the ways into a daemon are opened with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::error::ControlError;
use piecework_core::Secret;

/// Where to serve a daemon, to whom, and how much at a time.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Where the native API and Transmission's RPC are served. With port 0 the system chooses.
    pub listen: Vec<SocketAddr>,
    /// Where Transmission's RPC alone is served as well, for clients that know only its usual port.
    pub rpc_listen: Option<SocketAddr>,
    /// What everybody must send who does not send the token. Without one only loopback addresses
    /// may be listened on.
    pub password: Option<Secret>,
    /// The owner's token: whoever sends it may do everything. Without a token and a password
    /// whoever is let in may do everything.
    pub token: Option<Secret>,
    /// Without a password, let in everybody on this machine, as guests
    /// ([`Caller::Guest`](piecework_daemon::Caller::Guest)). Else the token is needed for everything.
    pub open_on_loopback: bool,
    /// Names, besides addresses and `localhost`, by which browsers may reach us: without port.
    pub host_names: Vec<String>,
    /// PEM file of the certificate for HTTPS; `None` takes plain HTTP only.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub certificate_key: Option<PathBuf>,
    /// Addresses and networks of proxies, whose word it is where a request comes from.
    pub proxies: Vec<String>,
    /// Connections at most, over all addresses.
    pub max_connections: usize,
    /// Connections from one IPv4 address or IPv6 /64 at most; see
    /// [`Limits`](piecework_http::Limits) for loopback.
    pub max_connections_per_ip: usize,
    /// Streams of events at most.
    pub max_event_streams: usize,
    /// Time for the head of a request; also how long a connection may idle.
    pub header_timeout: Duration,
    /// Time for the body of a request.
    pub body_timeout: Duration,
}

impl ControlConfig {
    /// Whether it keeps strangers out.
    pub(super) fn check(&self) -> Result<(), ControlError> {
        match &self.password {
            Some(password) if password.expose().is_empty() => {
                return Err(ControlError::EmptyPassword);
            }
            Some(_) => {}
            None => {
                let mut addrs = self.listen.iter().chain(&self.rpc_listen);
                let open = addrs.find(|addr| !addr.ip().to_canonical().is_loopback());
                if let Some(addr) = open {
                    return Err(ControlError::NoPassword(*addr));
                }
            }
        }
        let is_name = |name: &String| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            name.bytes().all(letter) && name.bytes().any(|byte| byte != b'.')
        };
        match self.host_names.iter().find(|name| !is_name(name)) {
            Some(name) => Err(ControlError::HostName(name.clone())),
            None => Ok(()),
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, 5000).into()],
            rpc_listen: Some((Ipv4Addr::LOCALHOST, 9091).into()),
            password: None,
            token: None,
            open_on_loopback: true,
            host_names: Vec::new(),
            certificate: None,
            certificate_key: None,
            proxies: Vec::new(),
            max_connections: 256,
            max_connections_per_ip: 64,
            max_event_streams: 64,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_reach_need_a_password() {
        for addr in ["0.0.0.0:5000", "192.0.2.1:5000", "[::]:5000", "[::ffff:192.0.2.1]:1"] {
            let listen = vec!["127.0.0.1:1".parse().unwrap(), addr.parse().unwrap()];
            let mut config = ControlConfig { listen, ..ControlConfig::default() };
            let sentence = config.check().unwrap_err().to_string();
            for part in [addr, "password_file", "PIECEWORK_PASSWORD"] {
                assert!(sentence.contains(part), "{sentence}");
            }
            config.password = Some(Secret::from(""));
            assert!(matches!(config.check(), Err(ControlError::EmptyPassword)));
            config.password = Some(Secret::from("x"));
            assert!(config.check().is_ok());
            let rpc_listen = Some(addr.parse().unwrap());
            let config = ControlConfig { rpc_listen, ..ControlConfig::default() };
            assert!(matches!(config.check(), Err(ControlError::NoPassword(_))));
        }
        for addr in ["127.0.0.1:5000", "127.8.8.8:1", "[::1]:5000", "[::ffff:127.0.0.1]:1"] {
            let listen = vec![addr.parse().unwrap()];
            assert!(ControlConfig { listen, ..ControlConfig::default() }.check().is_ok());
        }
    }

    #[test]
    fn names_that_could_never_be_asked_for_are_refused() {
        let with = |name: &str| ControlConfig {
            host_names: vec![name.to_owned()],
            ..ControlConfig::default()
        };
        assert!(with("seed-box.lan").check().is_ok());
        for name in ["", ".", "*", "*.lan", "seedbox:5000", "http://seedbox", "a b"] {
            assert!(matches!(with(name).check(), Err(ControlError::HostName(_))), "{name}");
        }
    }
}
