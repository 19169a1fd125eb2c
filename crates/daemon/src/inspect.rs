//! What a torrent holds, before it is added.

use super::add::{Found, shown_files, source_of};
use super::inner::{Inner, blocking};
use super::{Caller, DaemonError};
use piecework_api::{InspectRequest, Inspected};

impl Inner {
    /// Gets the torrent that `caller` names and says what is in it. Nothing of it is kept.
    pub async fn inspect(
        &self,
        request: InspectRequest,
        caller: Caller,
    ) -> Result<Inspected, DaemonError> {
        self.is_open()?;
        let Found { metainfo, .. } = self.obtain(source_of(request.source)?, caller).await?;
        let here = self.duplicate(metainfo.info_hash()).is_some();
        blocking(move || {
            let info = metainfo.info();
            let entries = info.files().entries().iter().filter(|file| !file.padding);
            let first = entries.take(Inspected::MOST_FILES);
            Ok(Inspected {
                info_hash: metainfo.info_hash(),
                name: info.name().to_owned(),
                bytes: info.geometry().total_len(),
                private: info.is_private(),
                comment: metainfo.comment().map(str::to_owned),
                here,
                files: shown_files(&metainfo),
                file_list: first.map(|file| (file.path.as_str().to_owned(), file.len)).collect(),
                warnings: metainfo
                    .notices()
                    .map_err(|error| DaemonError::Invalid(error.to_string()))?,
            })
        })
        .await?
    }
}
