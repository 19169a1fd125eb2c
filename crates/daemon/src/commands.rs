//! What changes a daemon and its torrents, a part for each kind of request.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::DaemonConfig;
use super::add::TorrentAdder;
use super::add_fetched::FetchedInstaller;
use super::change::TorrentEditor;
use super::install::TorrentInstaller;
use super::link_follower::LinkFollower;
use super::provisional::ProvisionalTorrents;
use super::publish::Publisher;
use super::registration::Registrar;
use super::relocate::Relocator;
use super::remove::Remover;
use super::run::RunControl;
use super::services::Services;
use super::settings::SettingsEditor;
use super::share::Sharer;
use super::share_request::ShareRequests;
use super::shutdown::Shutdown;
use super::watch_folder::WatchFolder;

/// The parts of a daemon that change something.
pub(super) struct Commands {
    pub adder: Arc<TorrentAdder>,
    pub links: Arc<LinkFollower>,
    pub sharer: Arc<Sharer>,
    pub registrar: Arc<Registrar>,
    pub remover: Remover,
    pub run: RunControl,
    pub editor: TorrentEditor,
    pub relocator: Arc<Relocator>,
    pub settings: SettingsEditor,
    pub watch_folder: Arc<WatchFolder>,
    pub shutdown: Shutdown,
}

impl Commands {
    pub(crate) fn new(config: &DaemonConfig, services: &Services) -> Self {
        let Services { torrents, session, folders, trackers, store, queue, .. } = services;
        let installer = Arc::new(TorrentInstaller {
            torrents: torrents.clone(),
            loader: services.loader.clone(),
            store: store.clone(),
            hooks: services.hooks.clone(),
            folder: config.torrents.clone(),
        });
        let fetched = Arc::new(FetchedInstaller {
            folders: folders.clone(),
            trackers: trackers.clone(),
            installer: installer.clone(),
            raw_names: config.session.raw_names,
        });
        let links = Arc::new(links(config, services, fetched.clone()));
        let adder = Arc::new(TorrentAdder {
            torrents: torrents.clone(),
            folders: folders.clone(),
            fetcher: services.fetcher.clone(),
            fetched,
            links: links.clone(),
        });
        let registrar = Arc::new(Registrar::new(torrents.clone(), services.torrent_folder.clone()));
        let sharer = Arc::new(sharer(config, services, installer, registrar.clone()));
        let run = RunControl {
            torrents: torrents.clone(),
            queue: queue.clone(),
            loader: services.loader.clone(),
            store: store.clone(),
            sharer: sharer.clone(),
            links: links.clone(),
            folder: config.torrents.clone(),
        };
        let watch_folder = Arc::new(WatchFolder::new(torrents.clone(), adder.clone()));
        let settings = SettingsEditor {
            torrents: torrents.clone(),
            session: session.clone(),
            store: store.clone(),
            folders: folders.clone(),
            trackers: trackers.clone(),
            block_list: services.block_list.clone(),
            watch_folder: watch_folder.clone(),
            changing: AsyncMutex::new(()),
        };
        let (remover, editor) = (remover(config, services), editor(services));
        let relocator = Arc::new(Relocator {
            torrents: torrents.clone(),
            folders: folders.clone(),
            store: store.clone(),
        });
        let shutdown = shutdown(services);
        Self {
            adder,
            links,
            sharer,
            registrar,
            remover,
            run,
            editor,
            relocator,
            settings,
            watch_folder,
            shutdown,
        }
    }
}

fn sharer(
    config: &DaemonConfig,
    services: &Services,
    installer: Arc<TorrentInstaller>,
    registrar: Arc<Registrar>,
) -> Sharer {
    let torrents = &services.torrents;
    let requests = Arc::new(ShareRequests {
        folders: services.folders.clone(),
        trackers: services.trackers.clone(),
    });
    let provisional = Arc::new(provisional(config, services));
    let publisher = Publisher {
        torrents: torrents.clone(),
        requests: requests.clone(),
        registrar,
        installer,
        provisional: provisional.clone(),
    };
    Sharer {
        torrents: torrents.clone(),
        requests,
        fetcher: services.fetcher.clone(),
        publisher,
        provisional,
        folder: config.torrents.clone(),
        hashing: Arc::default(),
    }
}

fn links(
    config: &DaemonConfig,
    services: &Services,
    installer: Arc<FetchedInstaller>,
) -> LinkFollower {
    LinkFollower {
        torrents: services.torrents.clone(),
        fetcher: services.fetcher.clone(),
        installer,
        provisional: provisional(config, services),
        places: LinkFollower::places(),
    }
}

fn provisional(config: &DaemonConfig, services: &Services) -> ProvisionalTorrents {
    ProvisionalTorrents { torrents: services.torrents.clone(), folder: config.torrents.clone() }
}

fn remover(config: &DaemonConfig, services: &Services) -> Remover {
    Remover {
        torrents: services.torrents.clone(),
        session: services.session.clone(),
        folders: services.folders.clone(),
        folder: config.torrents.clone(),
    }
}

fn editor(services: &Services) -> TorrentEditor {
    TorrentEditor {
        torrents: services.torrents.clone(),
        trackers: services.trackers.clone(),
        queue: services.queue.clone(),
    }
}

fn shutdown(services: &Services) -> Shutdown {
    Shutdown {
        torrents: services.torrents.clone(),
        session: services.session.clone(),
        queue: services.queue.clone(),
        store: services.store.clone(),
        log: services.log.clone(),
        tasks: Mutex::default(),
    }
}
