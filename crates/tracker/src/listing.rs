//! Entries of the catalogue in the form of lists.

use super::catalogue_torrent::CatalogueTorrent;
use super::swarms::Swarms;
use piecework_proto::announce::catalogue::CatalogueEntry;

/// Returns a torrent in the form of lists.
pub(super) fn listed(swarms: &Swarms, entry: &CatalogueTorrent) -> CatalogueEntry {
    let counts = swarms.counts(entry.info_hash);
    CatalogueEntry {
        info_hash: entry.info_hash,
        name: entry.name.to_string(),
        size: entry.size,
        pieces: entry.pieces,
        piece_length: entry.piece_length,
        files: entry.files,
        private: entry.private,
        description: entry.description.clone(),
        complete: counts.complete,
        incomplete: counts.incomplete,
        registered_at: entry.registered_at,
    }
}
