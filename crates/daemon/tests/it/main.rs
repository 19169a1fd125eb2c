//! A daemon over real sockets on loopback, and its interfaces.

mod chaos;
mod control;
mod files;
mod metrics;
mod owners;
mod refusals;
mod security;
mod stopping;
mod torrents;
mod transmission_rpc;
