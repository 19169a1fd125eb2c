//! Codecs of the BitTorrent protocols, without I/O.
//!
//! [`wire`] is what peers say to each other, [`encryption`] how they hide it, [`announce`] what peers
//! and trackers say.

#![warn(missing_docs)]

pub mod announce;
pub mod encryption;
pub mod wire;
