//! The ledger of one catalogued torrent: for each peer its id and key, its holdings and how they are known, and how
//! often it was handed out.
//!
//! A peer that announces over IPv4 and IPv6 (BEP 7) is one peer with two addresses if it uses the same id and key at
//! both. An id alone is no proof, because every handshake contains it.

mod addresses;
mod announces;
mod facts;
mod identities;
mod table;

pub(crate) use addresses::AnnounceClaim;
pub(crate) use facts::PeerFacts;
pub use facts::Pulse;
pub(crate) use identities::IdentityMatch;
pub(crate) use table::Ledger;
pub use table::Load;
