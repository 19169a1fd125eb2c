//! The operator's token, which may remove any torrent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::tokens::{TokenDigest, os_random};
use piecework_core::printable_path;

/// The digest of the operator's token.
#[derive(Debug, Clone)]
pub(super) struct OperatorToken(TokenDigest);

/// Why the operator has no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperatorTokenError {
    #[error("the operator's token cannot be kept in `{}`: {error}", printable_path(.path))]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error(
        "the operator's token in `{}` is not used, because others may read or write it: `chmod 600` it",
        printable_path(.path)
    )]
    Open { path: PathBuf },
    #[error(
        "the operator's token in `{}` is not used, because its first line has less than `{SHORTEST}` bytes",
        printable_path(.path)
    )]
    Short { path: PathBuf },
}

impl OperatorToken {
    /// Reads the token from its file, or writes a new one. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read or created, others than its owner may access it, or the token is too short.
    pub(super) fn open(path: &Path) -> Result<Self, OperatorTokenError> {
        let path = path.to_owned();
        let opened = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path),
            opened => opened.and_then(|file| read(&file)),
        };
        match opened {
            Ok((mode, _)) if mode & 0o077 != 0 => Err(OperatorTokenError::Open { path }),
            Ok((_, token)) if token.len() < SHORTEST => Err(OperatorTokenError::Short { path }),
            Ok((_, token)) => Ok(Self(TokenDigest::of(&token))),
            Err(error) => Err(OperatorTokenError::Io { path, error }),
        }
    }

    /// Returns whether `token` is the operator's token.
    pub(super) fn is(&self, token: &TokenDigest) -> bool {
        self.0.is_same(token)
    }
}

/// Returns the mode of the file and its token.
fn read(file: &File) -> io::Result<(u32, String)> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    let token = text.lines().next().unwrap_or("").trim().to_owned();
    Ok((file.metadata()?.mode(), token))
}

fn create(path: &Path) -> io::Result<(u32, String)> {
    let secret: [u8; 16] = os_random()?;
    let token = data_encoding::HEXLOWER.encode(&secret);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = writeln!(file, "{token}").and_then(|()| file.sync_all());
    // A partly written token must not be used at the next start.
    written.inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok((file.metadata()?.mode(), token))
}

/// The minimum length of a token in bytes.
const SHORTEST: usize = 16;

/// The number of bytes read from the file.
const LONGEST: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = OperatorToken::open(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = OperatorToken::open(&path).unwrap();
        let token = TokenDigest::of(text.trim());
        assert!(made.is(&token) && again.is(&token) && !again.is(&TokenDigest::of("")));
    }

    #[test]
    fn a_token_that_others_can_read_or_guess_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "0123456789abcdef\nmore\n").unwrap();
        for mode in [0o644, 0o640, 0o602, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = OperatorToken::open(&path).unwrap_err();
            assert!(matches!(refused, OperatorTokenError::Open { .. }), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(OperatorToken::open(&path).unwrap().is(&TokenDigest::of("0123456789abcdef")));
        fs::write(&path, "secret\n").unwrap();
        let refused = OperatorToken::open(&path).unwrap_err();
        assert!(matches!(refused, OperatorTokenError::Short { .. }));
    }
}
