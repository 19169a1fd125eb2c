//! Layer 3: a torrent on disk: layout, verify, write, read; and the hash service.

mod beneath;
mod check;
mod create;
mod damage;
mod error;
mod files;
mod handles;
mod hash;
mod pool;
mod store;
mod sweep;

pub use check::{CheckProgress, check};
pub use create::{CreateError, CreateOptions, CreateProgress, Created, create};
pub use damage::{FileReport, file_reports, verify};
pub use error::{Operation, StorageError};
pub use handles::FileHandles;
pub use pool::{FinishPiece, Finished, HashPool};
pub use store::{Store, StoreMode};
