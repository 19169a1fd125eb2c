//! The values that all other crates share. Each has a type of its own, so that no two indices can be
//! mixed up. No I/O, no clock, no ambient randomness.
//!
//! ```
//! use piecework_core::PieceIndex;
//! use piecework_core::metainfo::{Metainfo, MetainfoBuilder, ParseLimits};
//!
//! // A file of two pieces, whose hashes somebody has computed.
//! let made = MetainfoBuilder::single_file("linux.iso", 20_000).piece_len(16_384).build(vec![7; 40])?;
//! let bytes = made.bytes()?;
//! let read = Metainfo::parse(&bytes, &ParseLimits::default())?;
//! assert_eq!(read.info_hash(), made.info_hash());
//! assert_eq!(read.info().name(), "linux.iso");
//! assert_eq!(read.info().geometry().piece_size(PieceIndex(1)), 20_000 - 16_384);
//! # Ok::<(), piecework_core::metainfo::MetainfoError>(())
//! ```

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]
#![warn(missing_docs)]

pub mod bencode;
pub mod metainfo;

pub mod base64;
pub mod figures;

mod addresses;
mod announce_key;
mod bitfield;
mod boxed_default;
mod buffer;
mod byte_marks;
mod checkpoint;
mod columns;
mod geometry;
mod ids;
mod interned;
mod log_rate_limit;
mod moment;
mod page;
mod priority;
mod rng;
mod saturating;
mod secret;
mod table;
mod text;
mod unwritable;

pub use addresses::{Scope, is_dialable, is_of_one_machine, may_be_named, network_of, scope_of};
pub use announce_key::AnnounceKey;
pub use bitfield::{Bitfield, BitfieldError};
pub use boxed_default::{BoxedDefault, SharedDefault};
pub use buffer::{BlockBuf, BlockPool};
pub use byte_marks::{has_byte_marks, marked_byte, name_of_text, text_of_name};
pub use checkpoint::{Checkpoint, Fingerprint};
pub use columns::{columns, cut_end, cut_middle, explained, padded, wrapped};
pub use geometry::{BLOCK_LEN, BlockRef, Geometry, GeometryError, PieceIndex};
pub use ids::{HexError, InfoHash, PeerId, Sha1Hash};
pub use interned::{Interned, Interner};
pub use log_rate_limit::LogRateLimit;
pub use moment::Moment;
pub use page::Page;
pub use priority::Priority;
pub use rng::Rng;
pub use saturating::{SaturatingFrom, low_half};
pub use secret::Secret;
pub use table::{Table, TableLines};
pub use text::{is_harmless, printable, printable_bytes, printable_path};
pub use unwritable::Unwritable;
