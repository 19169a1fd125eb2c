//! Events and actions of a fetch.

use std::net::SocketAddr;

use crate::candidates::ConnectionEnd;
use crate::{Direction, PeerKey, PeerSource};
use piecework_proto::wire::MetadataMessage;

/// An event, which the driver passes to [`MetadataFetch::handle`](super::MetadataFetch::handle).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataEvent {
    /// Addresses of possible peers.
    Candidates {
        /// Where the addresses come from.
        source: PeerSource,
        /// Any number.
        addrs: Vec<SocketAddr>,
    },
    /// A [`MetadataAction::Dial`] failed.
    DialFailed {
        /// The address that was dialled.
        addr: SocketAddr,
        /// The peer accepted the connection and closed it at our handshake.
        hung_up: bool,
    },
    /// A [`MetadataAction::Dial`] was not carried out because of a limit on our side.
    DialPrevented {
        /// The address that was to be dialled.
        addr: SocketAddr,
    },
    /// A connection has completed its handshake.
    Connected {
        /// The number of the connection from now on.
        peer: PeerKey,
        /// The address of the peer.
        addr: SocketAddr,
        /// Who dialled.
        direction: Direction,
        /// Both sides support the extension protocol (BEP 10).
        extended: bool,
    },
    /// The connection has ended. No more events of it follow.
    Disconnected {
        /// The connection that ended.
        peer: PeerKey,
    },
    /// The peer sent an extended handshake.
    Handshake {
        /// The peer that sent it.
        peer: PeerKey,
        /// Its number of `ut_metadata`, `None` if it does not name the extension.
        extension: Option<u8>,
        /// The length of the metadata, as it says.
        size: Option<u64>,
    },
    /// The peer sent a `ut_metadata` message.
    Message {
        /// The peer that sent it.
        peer: PeerKey,
        /// The message.
        message: MetadataMessage,
    },
    /// The peer sent what cannot be decoded.
    Misbehaved {
        /// The peer that sent it.
        peer: PeerKey,
    },
    /// A [`MetadataAction::Check`] is done.
    Checked {
        /// The number of the check.
        check: u32,
        /// The bytes have the hash that they must have, and are a torrent.
        right: bool,
    },
    /// Drop all peers and dial nobody.
    Pause,
    /// Continue after [`MetadataEvent::Pause`].
    Resume,
    /// The moment of [`MetadataFetch::deadline`](super::MetadataFetch::deadline) has come.
    Timeout,
}

/// An action for the driver to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataAction {
    /// Open a connection. Answered by [`MetadataEvent::Connected`], [`MetadataEvent::DialFailed`] or
    /// [`MetadataEvent::DialPrevented`].
    Dial {
        /// The address to dial.
        addr: SocketAddr,
    },
    /// Close a connection, which is forgotten already.
    Disconnect {
        /// The connection to close.
        peer: PeerKey,
        /// The reason.
        fault: MetadataFault,
    },
    /// Request a piece.
    Request {
        /// The peer to ask.
        peer: PeerKey,
        /// The peer's number of `ut_metadata`.
        id: u8,
        /// The piece.
        piece: u32,
    },
    /// Compare the hash of these bytes with the info-hash. Answered by [`MetadataEvent::Checked`].
    Check {
        /// The number of the check.
        check: u32,
        /// What may be the metadata.
        bytes: Vec<u8>,
    },
}

/// How much metadata is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetadataProgress {
    /// The number of bytes, not verified.
    pub received: u32,
    /// The length of the metadata as peers say; 0 if nobody has said.
    pub claimed: u32,
}

/// Why a peer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MetadataFault {
    /// All metadata that it gave alone has a wrong hash.
    #[error("its metadata is wrong")]
    Wrong,
    /// It names two lengths of the metadata.
    #[error("it names different lengths of the metadata")]
    OtherSize,
    /// The length that it names is above [`MAX_METADATA_LEN`](super::MAX_METADATA_LEN).
    #[error("it names a length of the metadata that is too large")]
    TooLong,
    /// A message cannot be decoded, or a piece has a wrong length.
    #[error("it sent a wrong message")]
    BadMessage,
    /// It sends pieces that were not requested.
    #[error("it sends metadata that was not requested")]
    Unasked,
    /// It rejects all requests.
    #[error("it rejects requests of metadata")]
    Refuses,
    /// It does not answer.
    #[error("it does not answer requests of metadata")]
    Silent,
    /// It has no metadata, or does not know the extension.
    #[error("it does not offer metadata")]
    NotOffered,
    /// There are enough connections.
    #[error("there is no place for it")]
    NoPlace,
    /// The metadata is here.
    #[error("the metadata is complete")]
    Done,
    /// The torrent is paused.
    #[error("the torrent is paused")]
    Paused,
}

impl MetadataFault {
    /// Returns what it means for the next dial.
    pub(super) fn end(self) -> ConnectionEnd {
        match self {
            Self::Wrong | Self::OtherSize | Self::TooLong => ConnectionEnd::Never,
            Self::BadMessage | Self::Unasked | Self::Refuses | Self::Silent | Self::NotOffered => {
                ConnectionEnd::Bad
            }
            Self::NoPlace => ConnectionEnd::Untimely,
            Self::Done | Self::Paused => ConnectionEnd::Normal,
        }
    }
}
