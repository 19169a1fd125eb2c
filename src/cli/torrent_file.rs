//! `.torrent` files as the programs read and write them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::announce::catalogue::MAX_TORRENT_LEN;
use crate::base::base64;
use crate::daemon::write_whole;
use crate::metainfo::{Metainfo, ParseLimits, TorrentBytes};

use super::CliError;
use super::format::{shown, size};

/// The torrent in the file `path`, which people know as `named`.
///
/// # Errors
/// If it cannot be read, is too large, or is no torrent.
pub fn read(path: &Path, named: &Path) -> Result<Metainfo, CliError> {
    let name = shown(named);
    let cannot = |error: std::io::Error| {
        CliError::failed(format_args!("the torrent file `{name}` cannot be read: {error}"))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    let limit = MAX_TORRENT_LEN as u64;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(CliError::failed(format_args!(
            "`{name}` is larger than the {} that a torrent file may have",
            size(limit)
        )));
    }
    Metainfo::parse(&bytes, &ParseLimits::default())
        .map_err(|error| CliError::failed(format_args!("`{name}`: {error}")))
}

/// The torrent in the file `path` as the daemon's API takes it.
///
/// # Errors
/// As [`read`].
pub fn read_encoded(path: &Path, named: &Path) -> Result<String, CliError> {
    encode(&read(path, named)?)
}

/// A torrent as the daemon's API takes it.
///
/// # Errors
/// If its bytes were let go of and cannot be read again.
pub fn encode(metainfo: &Metainfo) -> Result<String, CliError> {
    Ok(base64::encode(&bytes_of(metainfo)?))
}

fn bytes_of(metainfo: &Metainfo) -> Result<TorrentBytes, CliError> {
    metainfo.bytes().map_err(CliError::failed)
}

/// Writes the torrent to `path`, which people know as `named`: whole, or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, named: &Path, metainfo: &Metainfo) -> Result<(), CliError> {
    write_whole(path, &bytes_of(metainfo)?, 0o666).map_err(|error| {
        CliError::failed(format_args!("`{}` cannot be written: {error}", shown(named)))
    })
}

/// Writes `bytes` to `path`, readable for nobody else.
///
/// # Errors
/// If it cannot be written.
pub fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    write_whole(path, bytes, 0o600)
}
