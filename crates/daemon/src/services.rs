//! The parts of a daemon that commands and views share.

use std::sync::Arc;

use super::DaemonConfig;
use super::allowed_folders::AllowedFolders;
use super::block_list_file::BlockListFile;
use super::fetch::TorrentFetcher;
use super::givers::{JournalQueries, OwnerCache};
use super::hooks::Hooks;
use super::loader::TorrentLoader;
use super::queue_driver::QueueDriver;
use super::settings_store::SettingsStore;
use super::status::DaemonStatus;
use super::torrent_folder::TorrentFolder;
use super::torrents::Torrents;
use super::trackers::TrackerPolicy;
use piecework_engine::Session;
use piecework_journal::PieceLog;

/// The parts of a daemon that others are built on.
pub(super) struct Services {
    pub torrents: Arc<Torrents>,
    pub session: Session,
    pub log: Arc<PieceLog>,
    pub folders: Arc<AllowedFolders>,
    pub trackers: Arc<TrackerPolicy>,
    pub store: Arc<SettingsStore>,
    pub hooks: Arc<Hooks>,
    pub block_list: Arc<BlockListFile>,
    pub torrent_folder: Arc<TorrentFolder>,
    pub journal: Arc<JournalQueries>,
    pub status: Arc<DaemonStatus>,
    pub queue: Arc<QueueDriver>,
    pub loader: Arc<TorrentLoader>,
    pub fetcher: Arc<TorrentFetcher>,
}

impl Services {
    pub(crate) fn new(
        config: &DaemonConfig,
        torrents: Arc<Torrents>,
        session: Session,
        log: Arc<PieceLog>,
    ) -> Self {
        let folders = Arc::new(AllowedFolders::new(config, torrents.clone()));
        let trackers = Arc::new(TrackerPolicy::new(config, torrents.clone()));
        let store = Arc::new(SettingsStore::new(torrents.clone(), session.clone()));
        let hooks = Arc::new(Hooks::new(torrents.clone()));
        let block_list = Arc::new(BlockListFile::new(config, torrents.clone(), session.clone()));
        let torrent_folder =
            TorrentFolder { torrents: torrents.clone(), folder: config.torrents.clone() };
        let journal = Arc::new(JournalQueries {
            torrents: torrents.clone(),
            log: log.clone(),
            owners: OwnerCache::default(),
        });
        let status = DaemonStatus {
            torrents: torrents.clone(),
            session: session.clone(),
            store: store.clone(),
            log: log.clone(),
        };
        let queue = QueueDriver::new(
            torrents.clone(),
            session.clone(),
            store.clone(),
            hooks.clone(),
            journal.clone(),
        );
        let loader =
            TorrentLoader::new(config, torrents.clone(), session.clone(), trackers.clone());
        let fetcher = TorrentFetcher::new(trackers.clone(), session.clone());
        Self {
            torrents,
            session,
            log,
            folders,
            trackers,
            store,
            hooks,
            block_list,
            torrent_folder: Arc::new(torrent_folder),
            journal,
            status: Arc::new(status),
            queue: Arc::new(queue),
            loader: Arc::new(loader),
            fetcher: Arc::new(fetcher),
        }
    }
}
