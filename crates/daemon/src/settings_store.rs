//! The settings and sums of the daemon, as they are kept in the state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::table::{TorrentTable, Totals};
use super::torrents::Torrents;
use crate::state::StateError;
use piecework_api::SettingsChange;
use piecework_core::printable;
use piecework_engine::Session;

/// The record of the daemon's settings in the state.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct DaemonRecord {
    /// By key, what was changed while a daemon ran.
    changed: serde_json::Map<String, serde_json::Value>,
    totals: Totals,
    /// Folders of torrents, and the mount points of their file systems.
    mounts: BTreeMap<String, String>,
    /// What the session's announce keys are made from, so that trackers know the daemon again after
    /// a restart or kill.
    announce_secret: Option<[u8; 32]>,
}

/// What the session needs from the last run.
#[derive(Default)]
pub(super) struct SessionRecord {
    /// The disks on which the folders of torrents lay.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    pub announce_secret: Option<[u8; 32]>,
}

/// Writes the settings and sums of the daemon.
pub(super) struct SettingsStore {
    torrents: Arc<Torrents>,
    session: Session,
    started: Instant,
}

impl SettingsStore {
    pub(crate) fn new(torrents: Arc<Torrents>, session: Session) -> Self {
        Self { torrents, session, started: Instant::now() }
    }

    /// Returns the seconds since the daemon started.
    pub(crate) fn uptime(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Writes the settings and sums. They are on the disk when this returns.
    pub(crate) async fn keep(&self) -> Result<(), StateError> {
        let text = self.text(&self.torrents.table());
        self.torrents.state.set_settings(text).await
    }

    /// Returns the settings and sums as they are kept.
    pub(crate) fn text(&self, table: &TorrentTable) -> String {
        let mut totals = table.totals;
        totals.seconds += self.uptime();
        let mut known = self.session.mounts();
        if !known.is_empty() {
            let roots: BTreeSet<PathBuf> = table.entries.values().map(|it| it.root()).collect();
            known.retain(|root, _| roots.contains(root));
        }
        let text = |path: PathBuf| path.into_os_string().into_string().ok();
        // A path that is not UTF-8 is learned again after a restart.
        let mounts = known.into_iter().filter_map(|(a, b)| Some((text(a)?, text(b)?))).collect();
        let record = DaemonRecord {
            changed: table.changed.clone(),
            totals,
            mounts,
            announce_secret: Some(self.session.announce_secret()),
        };
        // Strings, numbers and lists can always be serialized.
        serde_json::to_string(&record).unwrap_or_default()
    }

    /// Writes on which disks the folders of torrents lie, if that has changed.
    pub(crate) async fn keep_mounts(&self) {
        if self.session.take_mounts_changed()
            && let Err(error) = self.keep().await
        {
            tracing::warn!(%error, "after a restart a missing disk may not be noticed");
        }
    }
}

/// Applies changes of earlier runs to the settings in `table`. Returns what the session needs from the last
/// run.
pub(super) fn restore_settings(table: &mut TorrentTable, text: Option<&str>) -> SessionRecord {
    let Some(text) = text else { return SessionRecord::default() };
    let record: DaemonRecord = match serde_json::from_str(text) {
        Ok(record) => record,
        Err(error) => {
            table.notice(format!("the saved settings cannot be read: {error}"));
            return SessionRecord::default();
        }
    };
    table.totals = record.totals;
    for (key, value) in record.changed {
        let one = SettingsChange([(key.clone(), value.clone())].into_iter().collect());
        match one.apply(&table.settings) {
            Ok(settings) => {
                table.settings = settings;
                table.changed.insert(key, value);
            }
            Err(error) => {
                table.notice(format!("the saved setting `{}` is ignored: {error}", printable(&key)))
            }
        }
    }
    let mounts = record.mounts.into_iter().map(|(root, mount)| (root.into(), mount.into()));
    SessionRecord { mounts: mounts.collect(), announce_secret: record.announce_secret }
}
