//! Which parts of a file are data and which are holes.

use piecework_core::SaturatingFrom;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Returns the next range of data from byte `at` on. If the file system cannot tell, everything is
/// data.
pub(super) fn next_data(file: &std::fs::File, at: u64) -> Result<Option<(u64, u64)>, Errno> {
    let from = match seek(file, SeekFrom::Data(at)) {
        Ok(from) => from,
        // There is only a hole up to the end.
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            let len = u64::saturating_from(rustix::fs::fstat(file)?.st_size);
            return Ok((at < len).then_some((at, len)));
        }
        Err(errno) => return Err(errno),
    };
    match seek(file, SeekFrom::Hole(from)) {
        // The file was truncated between the two calls and has no more data.
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
        // Guarantees progress, whatever the file system says.
        Ok(to) => Ok(Some((from, to.max(from + 1)))),
    }
}
