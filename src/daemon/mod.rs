//! Layer 5: the daemon: many torrents over a [`Session`](crate::session::Session), kept over
//! restarts, queued, limited, watched. It knows no HTTP; `control` serves it, a test drives it
//! directly.

mod config;
mod error;
mod facade;

pub use config::DaemonConfig;
pub use error::{DaemonError, StartError};
pub use facade::{AddSource, Daemon, Listener, NewTorrent};
