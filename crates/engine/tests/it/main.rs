//! Sessions over real sockets on loopback.

mod content;
mod dht;
mod encryption;
mod exchange;
mod liars;
mod lifecycle;
mod local_discovery;
mod metadata;
mod peers;
mod places;
mod resume;
mod scale;
mod trackers;
mod transfer;
mod waiting;
