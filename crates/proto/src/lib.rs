//! Codecs of the BitTorrent protocols, without I/O.
//!
//! [`wire`] is what peers say to each other, [`announce`] what peers and trackers do.

#![warn(missing_docs)]

pub mod announce;
pub mod wire;
