//! Layer 1: what peers say to each other over a stream (BEP 3, fast extension BEP 6, extension
//! protocol BEP 10), between bytes and types. Incremental and bounded; no I/O.

mod message;

pub use message::Message;
