//! What of a torrent needs its bytes, which may have to be read again.

use super::bytes::TorrentBytes;
use super::error::MetainfoError;
use super::limits::ParseLimits;
use super::torrent::Metainfo;

impl Metainfo {
    /// Sentences that say what was passed over or repaired, if anything was. Blocks: then the bytes are
    /// read again.
    ///
    /// # Errors
    /// [`MetainfoError::Unreadable`] if they cannot be read.
    pub fn notices(&self) -> Result<Vec<String>, MetainfoError> {
        if !self.is_odd {
            return Ok(Vec::new());
        }
        let (_, report) = Self::parse_reported(&self.bytes()?, &ParseLimits::default())?;
        Ok(report.notices())
    }

    /// The bytes that were parsed, read again if they were let go of: then this blocks.
    ///
    /// # Errors
    /// [`MetainfoError::Unreadable`] if they cannot be read again.
    pub fn bytes(&self) -> Result<TorrentBytes, MetainfoError> {
        let source = match self.bytes.held() {
            Ok(held) => return Ok(held),
            // What has no source is never let go of.
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
