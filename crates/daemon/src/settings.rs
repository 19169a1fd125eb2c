//! Changing the daemon's settings.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::allowed_folders::{AllowedFolders, check_output};
use super::background::blocking;
use super::block_list_file::BlockListFile;
use super::checks::parse_tiers;
use super::reason::Reason;
use super::settings_store::SettingsStore;
use super::torrents::Torrents;
use super::trackers::TrackerPolicy;
use super::watch_folder::WatchFolder;
use super::{Caller, DaemonError, engine_settings};
use piecework_api::{Settings, SettingsChange};
use piecework_core::printable;
use piecework_engine::Session;

/// Changes the daemon's settings.
pub(super) struct SettingsEditor {
    pub torrents: Arc<Torrents>,
    pub session: Session,
    pub store: Arc<SettingsStore>,
    pub folders: Arc<AllowedFolders>,
    pub trackers: Arc<TrackerPolicy>,
    pub block_list: Arc<BlockListFile>,
    pub watch_folder: Arc<WatchFolder>,
    /// Only one request at a time changes the settings.
    pub changing: Mutex<()>,
}

impl SettingsEditor {
    /// Refuses changes by guests that concern files, programs or other machines. They may change
    /// limits and the queue, as remotes for Transmission do.
    pub(crate) fn check_caller(
        &self,
        caller: Caller,
        change: &SettingsChange,
    ) -> Result<(), DaemonError> {
        let downloads = self.folders.configured_downloads();
        check(caller, change, &self.torrents.table().settings, downloads)
    }

    /// Changes the settings.
    pub(crate) async fn change(
        &self,
        change: SettingsChange,
        caller: Caller,
    ) -> Result<Settings, DaemonError> {
        let _one_at_a_time = self.changing.lock().await;
        self.torrents.check_open()?;
        let before = self.torrents.table().settings.clone();
        if let Some(key) = change.0.keys().find(|key| key.starts_with("on_")) {
            return Err(DaemonError::forbidden(format!(
                "`{}` names a program to run, so it is set in the configuration file only",
                printable(key)
            )));
        }
        let after =
            change.apply(&before).map_err(|error| DaemonError::invalid(Reason::of(error)))?;
        check_daemon(&after)?;
        let mut folders = Vec::new();
        if after.downloads != before.downloads {
            folders.push(after.downloads.clone());
        }
        folders.extend(
            after.watch_folder.clone().filter(|_| after.watch_folder != before.watch_folder),
        );
        let roots = self.folders.output_roots();
        blocking(move || {
            folders.iter().try_for_each(|folder| check_output(folder, &roots, caller).map(drop))
        })
        .await??;
        let old = {
            let mut table = self.torrents.table();
            table.settings = after.clone();
            let old = table.changed.clone();
            table.changed.extend(change.0);
            old
        };
        let mut done = self.store.keep().await.map_err(DaemonError::from);
        if done.is_ok() && after.block_list != before.block_list {
            done = self.block_list.read(true).await.map(drop);
        }
        if let Err(error) = done {
            {
                let mut table = self.torrents.table();
                (table.settings, table.changed) = (before, old);
            }
            if let Err(error) = self.store.keep().await {
                tracing::warn!(%error, "refused settings may be in the state nevertheless");
            }
            return Err(error);
        }
        self.torrents.table().review = true;
        engine_settings::apply(&self.session, &after);
        if after.default_trackers != before.default_trackers {
            self.trackers.update_all().await;
        }
        self.watch_folder.settings_changed();
        self.torrents.events.settings();
        self.torrents.wake.notify_one();
        Ok(after)
    }
}

/// Refuses invalid settings.
pub(super) fn check_daemon(settings: &Settings) -> Result<(), DaemonError> {
    let invalid = |why: String| Err(DaemonError::invalid(why));
    let counts = [
        ("max_connections", settings.max_connections),
        ("max_peers_per_torrent", settings.max_peers_per_torrent),
        ("upload_slots", settings.upload_slots),
    ];
    if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return invalid(format!("`{key}` must be 1 or more"));
    }
    if let Some(ratio) = settings.seed_ratio
        && !(ratio.is_finite() && ratio >= 0.0)
    {
        return invalid(format!("the ratio `{ratio}` is not 0 or more"));
    }
    let suffix = &settings.incomplete_suffix;
    if suffix.len() > 32 || suffix.contains(['/', '\\', '\0']) {
        return invalid(format!(
            "`{}` is not a valid suffix: it may have 32 bytes and no separators",
            printable(suffix)
        ));
    }
    if settings.alt.begin >= 1440 || settings.alt.end >= 1440 || settings.alt.days > 127 {
        return invalid(
            "`alt`: times are minutes after midnight, below 1440; days are a sum up to 127"
                .to_owned(),
        );
    }
    parse_tiers(settings.default_trackers.clone()).map(drop)
}

/// `downloads` is the configured folder. Guests may choose another one beneath it. Links are checked later,
/// as for everybody.
fn check(
    caller: Caller,
    change: &SettingsChange,
    now: &Settings,
    downloads: &Path,
) -> Result<(), DaemonError> {
    // Strings, numbers and lists can always be serialized.
    let now = serde_json::to_value(now).unwrap_or_default();
    // Some remotes send back all settings that they received.
    let mut changed = change.0.iter().filter(|(key, value)| now.get(key) != Some(value));
    changed.try_for_each(|(key, value)| match (key.as_str(), value.as_str()) {
        ("downloads", Some(folder)) if Path::new(folder).starts_with(downloads) => Ok(()),
        ("downloads", Some(folder)) => {
            caller.must_own(format!("having downloads go to `{}`", printable(folder)))
        }
        (key, _) if GUEST_SETTINGS.contains(&key) => Ok(()),
        (key, _) => caller.must_own(format!("changing `{}`", printable(key))),
    })
}

const GUEST_SETTINGS: [&str; 16] = [
    "active_downloads",
    "active_seeds",
    "alt",
    "choke",
    "download_limit",
    "encryption",
    "max_connections",
    "max_peers_per_torrent",
    "seed_idle",
    "seed_ratio",
    "seed_time",
    "sequential",
    "stalled_after",
    "start_added",
    "upload_limit",
    "upload_slots",
];

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn guests_change_limits_and_nothing_that_names_a_file_a_program_or_an_address() {
        let all = serde_json::to_value(Settings::default()).unwrap();
        let all = all.as_object().unwrap();
        let allowed = |caller, key: &String| {
            let change = SettingsChange([(key.clone(), "other".into())].into_iter().collect());
            check(caller, &change, &Settings::default(), Path::new("/srv")).is_ok()
        };
        let refused: Vec<&str> =
            all.keys().filter(|key| !allowed(Caller::Guest, key)).map(String::as_str).collect();
        let wanted = [
            "block_list",
            "default_trackers",
            "downloads",
            "incomplete_suffix",
            "on_added",
            "on_done",
            "on_seeded",
            "watch_delete",
            "watch_folder",
        ];
        assert_eq!(refused, wanted);
        assert!(all.keys().all(|key| allowed(Caller::Owner, key)));
        assert!(GUEST_SETTINGS.iter().all(|key| all.contains_key(*key)));
        let same = SettingsChange(all.clone());
        let guest = |change: &SettingsChange| {
            check(Caller::Guest, change, &Settings::default(), Path::new("/srv")).is_ok()
        };
        assert!(guest(&same), "nothing is changed");
        let to = |folder: &str| {
            SettingsChange([("downloads".to_owned(), folder.into())].into_iter().collect())
        };
        assert!(guest(&to("/srv/new")) && !guest(&to("/srv2")) && !guest(&to("/etc")));
    }
}
