//! Layer 3: sockets to peers: dial, accept, per-peer receive and send loops, rate limits.
//!
//! A connection is a [`Link`]: two small loops over one stream. The receive loop turns bytes into
//! [`Incoming`] batches, blocks going from the socket straight into block buffers; the send loop
//! drains an outbox of control messages and of blocks to upload, which it reads in runs and writes
//! with one vectored call. Neither decides anything.

mod dial;
#[cfg(test)]
mod fake;
mod limiter;
mod link;
mod outbox;
mod receiver;
mod sender;
mod source_address;
mod stream;

pub use dial::{Accepted, HandshakeError, Listener, accept, check_interface, dial, greet};
pub use limiter::Limiter;
pub use link::{Input, Inputs, Link, LinkOptions};
pub use outbox::{Outbox, OutboxFull};
pub use receiver::{Incoming, ReceiveError, Receiver};
pub use sender::{BlockSource, ReadFuture, SourceError};
pub use source_address::source_address;
pub use stream::Stream;
