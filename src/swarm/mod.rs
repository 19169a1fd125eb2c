//! Layer 2: every decision of one torrent, and no I/O: whom to dial, what to ask whom for, whom to
//! serve, what to do with a block, who is to blame for a bad piece.
//!
//! A driver owns one [`Swarm`] and pumps it: it passes in what happened with
//! [`Swarm::handle`], then takes [`Swarm::poll`] until there is nothing left to do, then waits
//! until something happens or [`Swarm::deadline`] passes, and says so with [`Event::Timeout`].
//! Payload bytes never come here: the swarm sees descriptors of blocks and ids of buffers.

mod event;

pub use event::{
    Action, BlockDigest, BufferId, ChokePolicy, Direction, Event, Giver, PeerFault, PeerIdentity,
    PeerKey, PieceOutcome, Source, SwarmConfig,
};
