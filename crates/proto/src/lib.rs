//! Codecs of the BitTorrent protocols, without I/O.
//!
//! ```
//! use piecework_core::PieceIndex;
//! use piecework_proto::wire::{DecodeLimits, Decoded, Message, decode, encode};
//!
//! let mut bytes = Vec::new();
//! encode(&Message::Have(PieceIndex(7)), &mut bytes);
//! // The first half is not a complete message yet.
//! let limits = DecodeLimits::new(100);
//! assert_eq!(decode(&bytes[..6], &limits)?, Decoded::Incomplete { need: 9 });
//! let message = Message::Have(PieceIndex(7));
//! assert_eq!(decode(&bytes, &limits)?, Decoded::Message { message, consumed: 9 });
//! # Ok::<(), piecework_proto::wire::WireError>(())
//! ```
//!
//! [`wire`] is the protocol between peers, [`encryption`] hides it, and [`announce`] is the protocol between peers
//! and trackers. [`local`] is how peers announce themselves on a local network.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

pub mod announce;
pub mod encryption;
pub mod local;
pub mod wire;
