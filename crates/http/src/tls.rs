//! TLS for a server. The certificate is reloaded when its files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use piecework_core::printable_path;

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's certificate first, then the intermediate certificates.
    pub certificate: PathBuf,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {error}", printable_path(.path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        error: io::Error,
    },
    /// A file does not contain the expected item.
    #[error("`{}` has no {what} in PEM form", printable_path(.path))]
    Nothing {
        /// The file.
        path: PathBuf,
        /// The expected item.
        what: &'static str,
    },
    /// Certificate and key do not match, or are not supported.
    #[error("the certificate `{}` cannot be used with the key `{}`: {error}", printable_path(.certificate), printable_path(.key))]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The reason.
        #[source]
        error: rustls::Error,
    },
    /// Only one of the two files is configured.
    #[error("`certificate` and `certificate_key` have to be set together")]
    OneOfTwo,
}

/// The certificate in use.
#[derive(Debug)]
pub struct ServerTls {
    files: CertificateFiles,
    current: Mutex<CurrentCertificate>,
}

#[derive(Debug)]
struct CurrentCertificate {
    config: Arc<ServerConfig>,
    /// The files at the last check, whether or not they could be used.
    stamps: Option<[FileStamp; 2]>,
}

/// The identity of a file's contents: device, inode, length, and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp(u64, u64, u64, i64, i64);

impl ServerTls {
    /// Reads certificate and key. Blocks.
    ///
    /// # Errors
    /// If a file is missing, or the two do not match.
    pub fn open(files: CertificateFiles) -> Result<Arc<Self>, TlsError> {
        let stamps = stamps(&files);
        let config = Arc::new(read(&files)?);
        Ok(Arc::new(Self { files, current: Mutex::new(CurrentCertificate { config, stamps }) }))
    }

    /// Returns the acceptor for connections with the present certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.lock().config))
    }

    /// Reloads the files if they have changed. If they cannot be used, for instance because one of them is not
    /// written yet, the old certificate stays, and they are checked again when they change. Blocks.
    pub fn look(&self) {
        let now = stamps(&self.files);
        let seen = std::mem::replace(&mut self.current.lock().stamps, now);
        if now.is_none() || now == seen {
            return;
        }
        match read(&self.files) {
            Ok(config) => {
                self.current.lock().config = Arc::new(config);
                tracing::info!(
                    "the certificate `{}` is read anew",
                    printable_path(&self.files.certificate)
                );
            }
            Err(error) => {
                tracing::warn!(%error, "the new certificate cannot be used; the old one stays in use")
            }
        }
    }
}

fn read(files: &CertificateFiles) -> Result<ServerConfig, TlsError> {
    let bytes = |path: &Path| {
        fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
    };
    let (certificate, key) = (bytes(&files.certificate)?, bytes(&files.key)?);
    let nothing = |path: &Path, what| TlsError::Nothing { path: path.to_owned(), what };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| nothing(&files.certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(nothing(&files.certificate, "certificate"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|_| nothing(&files.key, "private key"))?;
    let provider = match CryptoProvider::get_default() {
        Some(provider) => Arc::clone(provider),
        None => Arc::new(rustls::crypto::ring::default_provider()),
    };
    let unusable = |error| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        error,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Returns `None` while one of the files does not exist.
fn stamps(files: &CertificateFiles) -> Option<[FileStamp; 2]> {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        let (changed, nanos) = (metadata.ctime(), metadata.ctime_nsec());
        Some(FileStamp(metadata.dev(), metadata.ino(), metadata.len(), changed, nanos))
    };
    Some([stamp(&files.certificate)?, stamp(&files.key)?])
}
