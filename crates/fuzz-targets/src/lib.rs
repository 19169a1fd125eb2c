//! The functions that the fuzzers in `fuzz/` call, one for each decoder and each state machine.
//!
//! Each takes bytes and panics if they lead to a wrong result. `cargo fuzz` (nightly) looks for such bytes.
//! `tests/corpus.rs` replays `fuzz/corpus/` with the stable compiler in every run of the tests.
//!
//! ```
//! let bencode = piecework_fuzz_targets::TARGETS.iter().find(|target| target.name == "bencode");
//! (bencode.unwrap().run)(b"d3:cow3:mooe");
//! ```

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod announce;
mod bencode;
#[cfg(feature = "daemon")]
mod daemon;
mod dht;
mod encryption;
mod input;
mod lifecycle;
mod metadata_fetch;
mod metainfo;
mod registry;
mod swarm;
mod wire;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its program in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]),
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    Target { name: "announce_http_reply", run: announce::http_reply },
    Target { name: "announce_http_request", run: announce::http_request },
    Target { name: "announce_udp_reply", run: announce::udp_reply },
    Target { name: "announce_udp_request", run: announce::udp_request },
    Target { name: "bencode", run: bencode::scan },
    #[cfg(feature = "daemon")]
    Target { name: "block_list", run: daemon::block_list },
    Target { name: "dht", run: dht::events },
    Target { name: "dht_packet", run: dht::packet },
    Target { name: "encryption", run: encryption::handshake },
    Target { name: "exchange_message", run: wire::exchange_message },
    Target { name: "extended", run: wire::extended },
    #[cfg(feature = "daemon")]
    Target { name: "http_response", run: daemon::http_response },
    Target { name: "lifecycle", run: lifecycle::events },
    Target { name: "links", run: announce::links },
    Target { name: "local_announce", run: wire::local_announce },
    Target { name: "metainfo", run: metainfo::parse },
    Target { name: "metadata_fetch", run: metadata_fetch::events },
    Target { name: "metadata_message", run: wire::metadata_message },
    #[cfg(feature = "daemon")]
    Target { name: "native_json", run: daemon::native_json },
    Target { name: "registry", run: registry::events },
    #[cfg(feature = "daemon")]
    Target { name: "resume", run: daemon::resume },
    #[cfg(feature = "daemon")]
    Target { name: "rpc_json", run: daemon::rpc_json },
    #[cfg(feature = "daemon")]
    Target { name: "sse", run: daemon::sse },
    Target { name: "swarm", run: swarm::events },
    Target { name: "wire", run: wire::messages },
];

/// Runs the target called `name`.
///
/// # Panics
/// If there is no such target, or if it finds a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target `{name}`")).run)(bytes);
}
