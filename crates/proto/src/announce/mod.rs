//! Announce and scrape over HTTP and UDP, for client and server (BEP 3, 7, 15, 23, 24, 31, 41, 48), and the types
//! of the catalogue. No I/O.

pub mod catalogue;
pub mod http;
pub mod udp;

mod error;
mod magnet;
mod model;
mod plan;
mod query;
mod reach;
mod target;

pub use error::AnnounceError;
pub use magnet::{Magnet, MagnetError};
pub use model::{
    Announce, AnnounceEvent, AnnounceReply, MAX_NAMED_PEERS, MAX_PEERS, PeerName, PeerNameError,
    Refusal, Retry, Scrape, ScrapeEntry, ScrapeReply,
};
pub use plan::{AnnouncePlan, NamedTrackers, PrivateTorrent};
pub use reach::{Provenance, Reach};
pub use target::{
    CatalogueUrl, Scheme, TrackerTarget, TrackerUrl, TrackerUrlError, TrackerUrls, unusable,
};
