//! What a peer's messages say about its holdings.

use piecework_core::{Bitfield, BitfieldError, PieceIndex};
use piecework_proto::wire::Message;

/// News about a peer's holdings from a connection to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HoldingsUpdate {
    /// The peer holds every piece.
    Everything,
    /// The peer holds exactly these pieces.
    Only(Bitfield),
    /// The peer holds these pieces and possibly others.
    Also(Bitfield),
    /// The peer also holds this piece.
    Piece(PieceIndex),
}

/// Follows the messages of one connection after the handshake.
#[derive(Debug)]
pub struct ObservedBitfield {
    pieces: u32,
    /// Whether the peer's initial holdings are known.
    begun: bool,
}

/// A peer sent an invalid message about its holdings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservedBitfieldError {
    /// The bitfield is invalid.
    #[error("{0}")]
    BadBitfield(#[from] BitfieldError),
    /// The peer claims a piece that does not exist.
    #[error("it says that it holds piece `{0}`, which does not exist")]
    NoSuchPiece(
        /// The claimed piece.
        u32,
    ),
}

impl ObservedBitfield {
    /// Returns the state of a new connection for a torrent of `pieces` pieces.
    pub fn new(pieces: u32) -> Self {
        Self { pieces, begun: false }
    }

    /// Appends to `seen` what a message says about holdings.
    ///
    /// # Errors
    /// If the message is invalid. The connection should be closed.
    pub fn take(
        &mut self,
        message: &Message,
        seen: &mut Vec<HoldingsUpdate>,
    ) -> Result<(), ObservedBitfieldError> {
        match message {
            Message::Bitfield(bits) => {
                let bits = Bitfield::from_wire(bits, self.pieces)?;
                // aria2 sends further bitfields in place of many HAVEs; they only add pieces.
                seen.push(if self.begun {
                    HoldingsUpdate::Also(bits)
                } else {
                    HoldingsUpdate::Only(bits)
                });
                self.begun = true;
            }
            Message::HaveAll => {
                seen.push(HoldingsUpdate::Everything);
                self.begun = true;
            }
            Message::Have(piece) if piece.0 >= self.pieces => {
                return Err(ObservedBitfieldError::NoSuchPiece(piece.0));
            }
            Message::Have(piece) => {
                self.begin(seen);
                seen.push(HoldingsUpdate::Piece(PieceIndex(piece.0)));
            }
            // A bitfield would have come before these messages. There was none: the peer holds nothing.
            Message::HaveNone
            | Message::Choke
            | Message::Unchoke
            | Message::Interested
            | Message::NotInterested
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Suggest(_)
            | Message::Reject(_)
            | Message::AllowedFast(_) => self.begin(seen),
            // These may come before the bitfield.
            Message::KeepAlive
            | Message::Port(_)
            | Message::Extended { .. }
            | Message::Unknown { .. } => {}
        }
        Ok(())
    }

    /// Ends the wait for the initial bitfield. A peer that holds nothing need not send one (BEP 3).
    pub fn begin(&mut self, seen: &mut Vec<HoldingsUpdate>) {
        if !self.begun {
            self.begun = true;
            seen.push(HoldingsUpdate::Only(Bitfield::empty(self.pieces)));
        }
    }

    /// Returns whether the peer's initial holdings are known.
    pub fn has_begun(&self) -> bool {
        self.begun
    }
}
