//! Layer 3: a torrent on disk: layout, verify, write, read; and the hash service.

mod beneath;
mod error;
mod files;
mod handles;
mod hash;
mod store;

pub use error::{Operation, StorageError};
pub use handles::FileHandles;
pub use store::{Store, StoreMode};
