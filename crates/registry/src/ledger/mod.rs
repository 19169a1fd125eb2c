//! What is known about the peers of one catalogued torrent beyond their address: who they say
//! they are, what they hold and where that is known from, and how often they were handed out.
//!
//! A peer that announces over IPv4 and IPv6 (BEP 7) is one peer with two addresses if it shows the same
//! id and key at both. An id alone is no proof: it stands in every handshake.

mod addresses;
mod announces;
mod facts;
mod identities;
mod table;

pub(crate) use addresses::Said;
pub(crate) use facts::Facts;
pub use facts::Pulse;
pub(crate) use identities::Kin;
pub use table::Assigned;
pub(crate) use table::Ledger;
