//! Changing the daemon's settings.

use super::alter::parse_tiers;
use super::book::Entry;
use super::inner::{Inner, blocking};
use super::{Caller, DaemonError, roots};
use piecework_api::{Settings, SettingsChange};

impl Inner {
    /// Changes what was chosen for the daemon.
    pub async fn change_settings(
        &self,
        change: SettingsChange,
        caller: Caller,
    ) -> Result<Settings, DaemonError> {
        let _one_at_a_time = self.setting.lock().await;
        self.is_open()?;
        let before = self.book.lock().settings.clone();
        if let Some(key) = change.0.keys().find(|key| key.starts_with("on_")) {
            return Err(DaemonError::Forbidden(format!(
                "`{}` names a program to run, so it is set in the configuration file only",
                piecework_core::printable(key)
            )));
        }
        let after = change.apply(&before).map_err(DaemonError::Invalid)?;
        check_daemon(&after)?;
        let mut folders = Vec::new();
        if after.downloads != before.downloads {
            folders.push(after.downloads.clone());
        }
        folders.extend(
            after.watch_folder.clone().filter(|_| after.watch_folder != before.watch_folder),
        );
        let roots = self.output_roots();
        blocking(move || {
            folders.iter().try_for_each(|folder| roots::check(folder, &roots, caller).map(drop))
        })
        .await??;
        let old = {
            let mut book = self.book.lock();
            book.settings = after.clone();
            let old = book.changed.clone();
            book.changed.extend(change.0);
            old
        };
        let mut done = self.keep_settings().await.map_err(DaemonError::from);
        if done.is_ok() && after.block_list != before.block_list {
            done = self.read_block_list(true).await.map(drop);
        }
        if let Err(error) = done {
            {
                let mut book = self.book.lock();
                (book.settings, book.changed) = (before, old);
            }
            if let Err(error) = self.keep_settings().await {
                tracing::warn!(%error, "settings that were not taken may be kept all the same");
            }
            return Err(error);
        }
        self.book.lock().review = true;
        self.apply(&after);
        if after.default_trackers != before.default_trackers {
            self.retrack().await;
        }
        self.rewatch.notify_one();
        self.ears.settings();
        self.wake.notify_one();
        Ok(after)
    }

    /// Gives every torrent the trackers that all have now.
    async fn retrack(&self) {
        let all: Vec<_> = {
            let book = self.book.lock();
            let live = |entry: &Entry| Some((entry.handle()?.clone(), entry.kept.clone()));
            book.torrents.values().filter_map(|entry| live(entry)).collect()
        };
        for (handle, kept) in all {
            if !handle.metainfo().info().is_private() {
                handle.set_trackers(self.tiers(handle.metainfo(), &kept)).await;
            }
        }
    }
}

/// Refuses settings that make no sense.
pub(super) fn check_daemon(settings: &Settings) -> Result<(), DaemonError> {
    let invalid = |why: String| Err(DaemonError::Invalid(why));
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
            "`{}` is no ending of a file name: 32 bytes at most, no separators",
            piecework_core::printable(suffix)
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
