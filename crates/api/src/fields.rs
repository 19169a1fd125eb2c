//! Single fields of the daemon's answers, for requests that select some of them.

use serde_json::Result;

use super::{Torrent, TorrentDetail};

macro_rules! fields {
    ($type:ty: $($name:ident)*) => {
        impl $type {
            /// The names of its fields in JSON.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Appends the JSON of the field `name`. Returns whether there is such a field.
            ///
            /// # Errors
            /// If it cannot be written as JSON.
            pub fn write_field(&self, name: &str, out: &mut Vec<u8>) -> Result<bool> {
                match name {
                    $(stringify!($name) => serde_json::to_writer(out, &self.$name)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

fields! { Torrent:
    info_hash id name state error folder bytes bytes_have bytes_wanted bytes_wanted_have pieces
    pieces_have piece_length files private downloaded uploaded corrupt download_rate upload_rate
    peers seeds peers_giving peers_taking eta ratio check_progress metadata_progress limit_reached stalled
    queue_position added_at started_at done_at active_at seconds_downloading seconds_seeding settings
}

fields! { TorrentDetail:
    comment created_by created_at torrent_file magnet availability file_list trackers waiting
}
