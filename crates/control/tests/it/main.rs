//! A daemon's interfaces over real sockets on loopback.

mod control;
mod metrics;
mod refusals;
mod security;
mod transmission_rpc;
