//! Gives the metadata of the torrent to peers that have only a magnet link (BEP 9).

use bytes::Bytes;

use super::{Action, PeerFault, PeerKey, Swarm};
use piecework_proto::wire::{METADATA_PIECE_LEN, Message, MetadataMessage};

impl Swarm {
    /// Handles a `ut_metadata` message. We request nothing by this extension, so a piece is a fault.
    pub(super) fn on_metadata(&mut self, key: PeerKey, payload: &Bytes) -> Result<(), PeerFault> {
        let message = MetadataMessage::decode(payload).map_err(|_| PeerFault::BadMetadata)?;
        let piece = match message {
            Some(MetadataMessage::Request { piece }) => piece,
            Some(MetadataMessage::Data { .. }) => return Err(PeerFault::BadMetadata),
            Some(MetadataMessage::Reject { .. }) | None => return Ok(()),
        };
        let (Some(peer), Some(size)) = (self.peers.get_mut(&key), self.config.metadata_size) else {
            return Ok(());
        };
        // Without a number of its own, it could not understand an answer.
        let Some(id) = peer.metadata_id else { return Ok(()) };
        peer.metadata_asked = peer.metadata_asked.saturating_add(1);
        let pieces = size.div_ceil(METADATA_PIECE_LEN);
        if piece < pieces && peer.metadata_asked <= pieces.saturating_mul(ROUNDS) {
            self.actions.push_back(Action::GiveMetadata { peer: key, id, piece });
        } else {
            let payload = MetadataMessage::Reject { piece }.encode();
            self.send(key, Message::Extended { id, payload });
        }
        Ok(())
    }
}

/// How often a connection gets the whole metadata. A peer that was sent a wrong piece by another requests all of them
/// again.
const ROUNDS: u32 = 4;
