//! What a peer's messages tell about what it holds.

use piecework_core::{Bitfield, BitfieldError, PieceIndex};
use piecework_proto::wire::Message;

/// What a peer showed to who is connected to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It holds everything.
    Everything,
    /// It holds these, and nothing else.
    Only(Bitfield),
    /// It holds these, whatever it holds besides.
    Also(Bitfield),
    /// It holds this one too.
    Piece(PieceIndex),
}

/// One connection's messages, from behind the handshake on.
#[derive(Debug)]
pub struct Sight {
    pieces: u32,
    /// It is known what the peer held at the beginning.
    begun: bool,
}

/// A peer sent what makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SightError {
    /// A bitfield that is none.
    #[error("{0}")]
    BadBitfield(#[from] BitfieldError),
    /// A piece that there is not.
    #[error("it says that it holds piece `{0}`, which does not exist")]
    NoSuchPiece(
        /// Which.
        u32,
    ),
}

impl Sight {
    /// Of a torrent of so many pieces.
    pub fn new(pieces: u32) -> Self {
        Self { pieces, begun: false }
    }

    /// Appends to `seen` what a message shows.
    ///
    /// # Errors
    /// If it makes no sense: the peer is to be hung up on.
    pub fn take(&mut self, message: &Message, seen: &mut Vec<Seen>) -> Result<(), SightError> {
        match message {
            Message::Bitfield(bits) => {
                let bits = Bitfield::from_wire(bits, self.pieces)?;
                // aria2 sends another one in place of many HAVEs, and it only adds.
                seen.push(if self.begun { Seen::Also(bits) } else { Seen::Only(bits) });
                self.begun = true;
            }
            Message::HaveAll => {
                seen.push(Seen::Everything);
                self.begun = true;
            }
            Message::Have(piece) if piece.0 >= self.pieces => {
                return Err(SightError::NoSuchPiece(piece.0));
            }
            Message::Have(piece) => {
                self.begin(seen);
                seen.push(Seen::Piece(PieceIndex(piece.0)));
            }
            // These come behind a bitfield, so there is none: it holds nothing.
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
            // These may come before it.
            Message::KeepAlive
            | Message::Port(_)
            | Message::Extended { .. }
            | Message::Unknown { .. } => {}
        }
        Ok(())
    }

    /// It has said nothing for a while: a peer that holds nothing need not say so (BEP 3).
    pub fn begin(&mut self, seen: &mut Vec<Seen>) {
        if !self.begun {
            self.begun = true;
            seen.push(Seen::Only(Bitfield::empty(self.pieces)));
        }
    }

    /// Whether it is known what the peer held at the beginning.
    pub fn has_begun(&self) -> bool {
        self.begun
    }
}
