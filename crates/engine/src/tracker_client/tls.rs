//! TLS settings, made once for the whole process.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Returns the TLS settings of HTTP clients. The system's root certificates are read when this is
/// first called, which takes some milliseconds and about 100 KiB. Each copy refers to the same
/// certificates.
pub(super) fn settings() -> ClientConfig {
    static SETTINGS: OnceLock<ClientConfig> = OnceLock::new();
    SETTINGS.get_or_init(read).clone()
}

fn read() -> ClientConfig {
    let fresh = rustls::crypto::ring::default_provider();
    let provider = match CryptoProvider::get_default() {
        Some(provider) => Arc::clone(provider),
        None => {
            // An error says that another thread was faster. Its provider will do.
            let _ = fresh.clone().install_default();
            Arc::new(fresh)
        }
    };
    let builder = ClientConfig::builder();
    let mut settings = match Verifier::new(provider) {
        Ok(verifier) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) => {
            // A bare container has no root certificates. Plain HTTP still works there, and HTTPS
            // fails when it is tried.
            tracing::debug!(%error, "no root certificates, so no HTTPS");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    settings
}
