//! Layer 3: a torrent on disk: layout, verify, write, read; and the hash service.

mod beneath;
mod error;
mod handles;
mod hash;

pub use error::{Operation, StorageError};
pub use handles::FileHandles;
