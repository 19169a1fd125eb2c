//! Starting a daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::background::blocking;
use super::commands::Commands;
use super::engine_settings::session_config;
use super::keeper::StateKeeper;
use super::recorder::Recorder;
use super::restore::Restorer;
use super::services::Services;
use super::settings_store::restore_settings;
use super::stored_state::{StoredState, open};
use super::table::TorrentTable;
use super::torrents::Torrents;
use super::{DaemonConfig, DaemonError, StartError};
use piecework_engine::{Session, SessionConfig};
use piecework_journal::{Journal, PieceLog};

/// Starts a daemon.
pub(super) async fn start(config: DaemonConfig) -> Result<(Services, Commands), StartError> {
    let StoredState { state, loaded, found, unmade } = {
        let config = config.clone();
        blocking(move || open(&config)).await??
    };
    let mut table = TorrentTable::new(config.settings.clone());
    let earlier = restore_settings(&mut table, loaded.settings.as_deref());
    for notice in loaded.notice.iter().chain(&unmade) {
        table.notice(notice.clone());
    }
    table.totals.starts += 1;

    let log = Arc::new(open_log(&config, &mut table).await);
    let session = Session::start(SessionConfig {
        observer: Some(Arc::new(Recorder::new(log.clone()))),
        keeper: Some(Arc::new(StateKeeper::new(state.clone()))),
        announce_secret: earlier.announce_secret,
        ..session_config(&config, &table.settings)
    })?;
    session.restore_mounts(earlier.mounts);
    // Subscribed before there is any torrent, so that no change is missed.
    let changes = session.changes();
    let torrents = Arc::new(Torrents::new(table, state));
    let services = Services::new(&config, torrents.clone(), session, log);
    let commands = Commands::new(&config, &services);
    let uses_block_list = torrents.table().settings.block_list;
    if uses_block_list && let Err(error) = services.block_list.read(false).await {
        torrents.table().notice(error.to_string());
    }
    let restorer = Restorer {
        torrents: torrents.clone(),
        loader: services.loader.clone(),
        sharer: commands.sharer.clone(),
        links: commands.links.clone(),
        relocator: commands.relocator.clone(),
    };
    restorer.restore(found).await;
    // The number of starts is among the sums.
    match services.store.keep().await {
        // A notice reports this as long as it lasts, and the write is retried.
        Err(error) if error.is_unwritable() => {}
        kept => kept?,
    }
    let queue = tokio::spawn(services.queue.clone().watch(changes));
    let watch_folder = tokio::spawn(commands.watch_folder.clone().run());
    let registrar = tokio::spawn(commands.registrar.clone().run());
    let folder = unmade.map(|notice| tokio::spawn(make_folder(config.torrents, torrents, notice)));
    let tasks = [queue, watch_folder, registrar].into_iter().chain(folder);
    commands.shutdown.tasks.lock().extend(tasks);
    Ok((services, commands))
}

/// Creates the folder of `.torrent` files as soon as its disk allows that, and then withdraws `notice`.
async fn make_folder(folder: PathBuf, torrents: Arc<Torrents>, notice: String) {
    loop {
        tokio::time::sleep(MAKE_AGAIN).await;
        let folder = folder.clone();
        if let Ok(Ok(())) = blocking(move || std::fs::create_dir_all(folder)).await {
            return torrents.table().withdraw(&notice);
        }
    }
}

/// Time between two attempts to create the folder of `.torrent` files.
const MAKE_AGAIN: Duration = Duration::from_secs(5);

/// Opens the log of pieces, with a journal if one is configured. The daemon starts even if the journal cannot
/// be opened.
async fn open_log(config: &DaemonConfig, table: &mut TorrentTable) -> PieceLog {
    let Some(options) = config.journal.clone() else { return PieceLog::new(config.log_records) };
    let opened = blocking(move || Journal::open(&options)).await;
    match opened.and_then(|opened| opened.map_err(DaemonError::from)) {
        Ok(journal) => {
            if let Some(notice) = journal.notice() {
                table.notice(notice.to_owned());
            }
            PieceLog::with_journal(Arc::new(journal), false)
        }
        Err(error) => {
            table.notice(format!("{error}; responses are remembered in memory only"));
            PieceLog::new(config.log_records)
        }
    }
}
