//! The daemon's settings in the engine's terms.

use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonConfig;
use piecework_api::{Choke, Encryption, Settings, TorrentSettings};
use piecework_core::Priority;
use piecework_core::metainfo::Metainfo;
use piecework_engine::{Session, SessionConfig, TorrentOptions};
use piecework_proto::encryption::EncryptionPolicy;
use piecework_storage::AllowedRoots;
use piecework_swarm::ChokePolicy;

/// Returns the configuration that a session is started with.
pub(super) fn session_config(config: &DaemonConfig, settings: &Settings) -> SessionConfig {
    let (upload_limit, download_limit) = rate_limits(settings);
    SessionConfig {
        choke: choke(settings.choke),
        encryption: encryption_policy(settings.encryption),
        upload_slots: settings.upload_slots as usize,
        max_peers_per_torrent: settings.max_peers_per_torrent as usize,
        max_connections: settings.max_connections as usize,
        upload_limit,
        download_limit,
        keep_to: keep_to(config),
        ..config.session.clone()
    }
}

/// Returns the folders below which links are never followed, even if they appear later.
pub(super) fn keep_to(config: &DaemonConfig) -> Arc<Vec<PathBuf>> {
    let downloads = std::iter::once(&config.settings.downloads);
    let roots = downloads.chain(&config.download_roots).cloned().collect();
    Arc::new(AllowedRoots::new(roots).roots().to_vec())
}

fn choke(choke: Choke) -> ChokePolicy {
    match choke {
        Choke::TitForTat => ChokePolicy::TitForTat,
        Choke::Closed => ChokePolicy::Closed,
    }
}

/// Returns the engine's policy for a setting.
pub fn encryption_policy(encryption: Encryption) -> EncryptionPolicy {
    match encryption {
        Encryption::Plain => EncryptionPolicy::Plain,
        Encryption::Allow => EncryptionPolicy::Allow,
        Encryption::Prefer => EncryptionPolicy::Prefer,
        Encryption::Require => EncryptionPolicy::Require,
    }
}

/// Applies the limits of `settings` to the session.
pub(super) fn apply(session: &Session, settings: &Settings) {
    let (upload, download) = rate_limits(settings);
    session.set_limits(upload, download);
    session.set_bounds(
        settings.max_connections as usize,
        settings.max_peers_per_torrent as usize,
        settings.upload_slots as usize,
        choke(settings.choke),
        encryption_policy(settings.encryption),
    );
}

/// Returns the current rate limits for upload and download in bytes a second. None is 0.
pub(super) fn rate_limits(settings: &Settings) -> (Option<u64>, Option<u64>) {
    let (upload, download) = if settings.alt.on {
        (Some(settings.alt.upload), Some(settings.alt.download))
    } else {
        (settings.upload_limit, settings.download_limit)
    };
    (upload.filter(|limit| *limit > 0), download.filter(|limit| *limit > 0))
}

/// Returns the engine's options for the settings of a torrent.
pub(super) fn torrent_options(metainfo: &Metainfo, chosen: &TorrentSettings) -> TorrentOptions {
    let mut files = Vec::new();
    if !chosen.files.is_empty() {
        let mut shown = chosen.files.iter().copied();
        let of = |padding: bool| match padding {
            true => Priority::Normal,
            false => shown.next().unwrap_or_default(),
        };
        files = metainfo.info().files().entries().iter().map(|file| file.padding).map(of).collect();
    }
    TorrentOptions {
        upload_limit: chosen.upload_limit,
        download_limit: chosen.download_limit,
        session_limits: chosen.session_limits,
        max_peers: chosen.max_peers.map(|most| most as usize),
        files,
        sequential: chosen.sequential,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_api::AltLimits;

    #[test]
    fn a_rate_limit_of_nothing_is_no_limit() {
        let alt = AltLimits { on: true, upload: 0, download: 7, ..AltLimits::default() };
        let mut settings =
            Settings { upload_limit: Some(5), download_limit: Some(0), alt, ..Settings::default() };
        assert_eq!(rate_limits(&settings), (None, Some(7)));
        settings.alt.on = false;
        assert_eq!(rate_limits(&settings), (Some(5), None));
    }
}
