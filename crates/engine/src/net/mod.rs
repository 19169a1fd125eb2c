//! Sockets to peers: dial, accept, per-peer receive and send loops, rate limits.
//!
//! A connection is a [`Link`]: two small loops over one stream. The receive loop turns bytes into
//! [`Incoming`] batches, blocks going from the socket straight into block buffers; the send loop
//! drains an outbox of control messages and of blocks to upload, which it reads in runs and writes
//! with one vectored call. Neither decides anything.
//!
//! A peer's memory is bounded whatever it sends and whether it reads or not: blocks that are not
//! owed are thrown away as they come (`receiver`), a batch has at most 32 KiB of messages and one
//! more, messages that wait to be sent at most 64 KiB (`outbox`), and a run of blocks 128 KiB, or
//! 512 KiB out of a share of all links (`runs`). An encrypted connection keeps 32 KiB more of what its
//! peer does not read, and 2 KiB of its ciphers (`stream`).

mod dial;
#[cfg(test)]
mod fake;
mod limiter;
mod link;
mod outbox;
mod receiver;
mod runs;
mod sender;
mod source_address;
mod stream;

pub use dial::{
    Accepted, DialOptions, HandshakeError, Torrents, accept, check_interface, dial, greet,
    greet_encrypted, hang_up, listen, udp, write_all,
};
pub use limiter::Limiter;
pub use link::{Input, Inputs, Link, LinkEnd, LinkOptions};
pub use outbox::{Outbox, OutboxFull};
pub use receiver::{Batch, Claim, Incoming, ReceiveError, Receiver};
pub use runs::RunMemory;
pub use sender::{BlockSource, ReadFuture, SourceError, TorrentFuture};
pub use source_address::{neighbouring_address, source_address};
pub use stream::{PeerStream, Stream};
