//! A tracker over real sockets on loopback.

mod observer;
mod service;
mod swarm;
