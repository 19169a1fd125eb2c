//! Piecework: a BitTorrent network whose members can always answer which pieces are in whose
//! hands, and who gave them.
//!
//! The module map, lowest layer first; arrows point down only (`tests/layering.rs` holds every
//! `use crate::…` against the table in ARCHITECTURE.md).
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | 0 | [`base`] | shared values, each with its own type |
//! | 0 | [`bencode`] | bounded scanner that keeps raw spans; serde on top |
//! | 0 | [`heap`] | advice to the allocator of programs that run for months |
//! | 0 | [`sha1_lanes`] | SHA-1 of many messages at once |
//! | 1 | [`admission`] | who gets a place when connections are short |
//! | 1 | [`metainfo`] | `.torrent` bytes to a validated torrent, and making one |
//! | 1 | [`wire`] | peer bytes to messages and back |
//! | 1 | [`announce`] | announce and scrape, HTTP and UDP form, both directions |
//! | 1 | [`api`] | what the daemon and its clients say to each other: the native API's JSON |
//! | 1 | [`block_list`] | addresses one does not want to talk to |
//! | 1 | [`budget`] | How much of one memory each of many downloads may have for pieces |
//! | 2 | [`swarm`] | every decision of one torrent, no I/O |
//! | 2 | [`announcer`] | when to announce to which tracker |
//! | 2 | [`queue`] | which torrents of many run, and for how long |
//! | 2 | [`registry`] | the state of a tracker |
//! | 3 | [`storage`] | a torrent's files on disk; the hash service |
//! | 3 | [`net`] | sockets to peers |
//! | 3 | [`metrics`] | figures for Prometheus |
//! | 3 | [`journal`] | the record of who gave what, who asked what |
//! | 3 | [`state`] | what survives a restart, in SQLite |
//! | 3 | [`tracker_client`] | announces and our catalogue over HTTP and UDP |
//! | 3 | [`http_server`] | HTTP connections, accepted within bounds |
//! | 3 | [`web`] | the web pages and the headers they are served with |
//! | 3 | [`api_client`] | the native API as typed calls, its events as a stream |
//! | 4 | [`session`] | owns the swarms: the engine's public API |
//! | 4 | [`tracker`] | serves one registry over HTTP, UDP and the console |
//! | 5 | [`sim`] | a whole swarm on one machine |
//! | 5 | [`daemon`] | many torrents in the background, kept over restarts |
//! | 6 | [`control`] | the ways into the daemon over HTTP |
//! | 7 | [`cli`] | the programs' arguments, bars, tables and exit codes |

pub mod admission;
pub mod announce;
pub mod announcer;
pub mod api;
pub mod api_client;
pub mod base;
pub mod bencode;
pub mod block_list;
pub mod budget;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod heap;
pub mod http_server;
pub mod journal;
pub mod metainfo;
pub mod metrics;
pub mod net;
pub mod queue;
pub mod registry;
pub mod session;
pub mod sha1_lanes;
pub mod sim;
pub mod state;
pub mod storage;
pub mod swarm;
pub mod tracker;
pub mod tracker_client;
pub mod web;
pub mod wire;
