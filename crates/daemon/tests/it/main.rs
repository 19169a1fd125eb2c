//! A daemon over real sockets on loopback, and its interfaces.

mod chaos;
mod files;
mod owners;
mod stopping;
mod torrents;
