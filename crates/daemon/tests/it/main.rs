//! A daemon over real sockets on loopback, and its interfaces.

mod chaos;
mod faults;
mod files;
mod links;
mod owners;
mod stopping;
mod torrents;
