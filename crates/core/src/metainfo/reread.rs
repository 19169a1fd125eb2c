//! Parts of a torrent that need its bytes, which may have to be read again.

use super::bytes::TorrentBytes;
use super::error::MetainfoError;
use super::limits::ParseLimits;
use super::torrent::Metainfo;

impl Metainfo {
    /// Returns sentences that say what was ignored or repaired, if anything. Blocks if there is
    /// something: the bytes may have to be read again.
    ///
    /// # Errors
    /// If the bytes cannot be read again.
    pub fn notices(&self) -> Result<Vec<String>, MetainfoError> {
        if !self.is_odd {
            return Ok(Vec::new());
        }
        let (_, report) = Self::parse_reported(&self.bytes()?, &ParseLimits::default())?;
        Ok(report.notices())
    }

    /// Returns the bytes that were parsed. Blocks if they were dropped and have to be read again.
    ///
    /// # Errors
    /// If the bytes cannot be read again, or belong to another torrent now.
    pub fn bytes(&self) -> Result<TorrentBytes, MetainfoError> {
        let source = match self.bytes.held() {
            Ok(held) => return Ok(held),
            // Bytes without a source are never dropped.
            Err(source) => source.ok_or(MetainfoError::NotInMemory)?,
        };
        // Not under the lock: reading may take long, and threads that do not need the bytes must
        // not wait.
        let torrent = source.read(self.info().name()).map_err(MetainfoError::Unreadable)?;
        let again = Self::parse(&torrent, &ParseLimits::default())?;
        if again.info_hash() != self.info_hash() {
            let (wanted, got) = (self.info_hash(), again.info_hash());
            return Err(MetainfoError::Replaced { wanted, got });
        }
        let bytes = again.bytes()?;
        self.bytes.keep(&bytes);
        Ok(bytes)
    }
}
