//! Codecs of the BitTorrent protocols, without I/O.
//!
//! ```
//! use piecework_core::PieceIndex;
//! use piecework_proto::wire::{DecodeLimits, Decoded, Message, decode, encode};
//!
//! let mut bytes = Vec::new();
//! encode(&Message::Have(PieceIndex(7)), &mut bytes);
//! // Half of it is not a message yet; all of it is.
//! let limits = DecodeLimits::new(100);
//! assert_eq!(decode(&bytes[..6], &limits)?, Decoded::Incomplete { need: 9 });
//! let message = Message::Have(PieceIndex(7));
//! assert_eq!(decode(&bytes, &limits)?, Decoded::Message { message, consumed: 9 });
//! # Ok::<(), piecework_proto::wire::WireError>(())
//! ```
//!
//! [`wire`] is what peers say to each other, [`encryption`] how they hide it, [`announce`] what peers
//! and trackers say.

#![warn(missing_docs)]

pub mod announce;
pub mod encryption;
pub mod wire;
