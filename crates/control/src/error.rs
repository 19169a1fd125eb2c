//! Why a daemon cannot be served.

use std::io;
use std::net::SocketAddr;

use piecework_core::printable;
use piecework_http::EntranceError;

/// Why the daemon cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address cannot be listened on.
    #[error("cannot listen for {what} on `{addr}`: {error}")]
    Listen {
        /// What was to be served there.
        what: &'static str,
        /// The address that was to be listened on.
        addr: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// HTTPS or the proxies cannot be served as they are configured.
    #[error(transparent)]
    Entrance(#[from] EntranceError),
    /// Everybody could do as they like.
    #[error(
        "other machines can reach `{0}`, so it needs a password: put one into a file and name that \
         as `password_file` in section [daemon] of config.toml, or set the environment variable \
         PIECEWORK_PASSWORD; or listen on 127.0.0.1"
    )]
    NoPassword(
        /// The address that other machines reach.
        SocketAddr,
    ),
    /// The password is no protection.
    #[error("the password is empty: write one, or none at all")]
    EmptyPassword,
    /// A name of the allow-list is none.
    #[error(
        "`{}` in `host_names` is not a host's name: write it without port, scheme and `*`",
        printable(.0)
    )]
    HostName(
        /// The host name as it was configured.
        String,
    ),
}
