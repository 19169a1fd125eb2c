//! Who asks the daemon for something, and what only its owner may have done.

use std::path::Path;

use super::DaemonError;
use super::inner::Inner;
use super::roots::shown;
use piecework_api::{Settings, SettingsChange};
use piecework_core::printable;
use piecework_proto::announce::Provenance;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The owner at the daemon's machine, by the token that only the daemon's user can read there.
    /// May name any folder: that user can write to it anyway.
    Local,
    /// Whoever proved to be the owner otherwise; also the program itself. Reaches what lies in the
    /// folders that the configuration allows.
    Owner,
    /// Anybody else who reaches the daemon, such as other users of its machine. A guest may have
    /// torrents added, started, stopped and removed, but reaches no file outside the downloads
    /// folder, and no setting that names a file, a program or an address.
    Guest,
}

impl Caller {
    /// What an address counts as that this caller names.
    pub fn provenance(self) -> Provenance {
        match self {
            Self::Local | Self::Owner => Provenance::Named,
            Self::Guest => Provenance::Foreign,
        }
    }

    /// Returns whether the owner asks, from wherever.
    pub fn is_owner(self) -> bool {
        self != Self::Guest
    }

    /// Returns an error that begins with `what` unless the owner asks.
    ///
    /// # Errors
    /// [`DaemonError::OwnerOnly`] with `what`, the beginning of a sentence.
    pub fn must_own(self, what: impl Into<String>) -> Result<(), DaemonError> {
        match self {
            Self::Local | Self::Owner => Ok(()),
            Self::Guest => Err(DaemonError::OwnerOnly(what.into())),
        }
    }
}

impl Inner {
    /// Refuses guests a folder that is not the downloads folder or beneath it. `folder` was checked
    /// for links before.
    pub fn check_reach(&self, caller: Caller, folder: &Path) -> Result<(), DaemonError> {
        // The one the owner chose last, and the configured one, beneath which guests may choose.
        let chosen = self.book.lock().settings.downloads.clone();
        if folder.starts_with(&chosen) || folder.starts_with(&self.config.settings.downloads) {
            return Ok(());
        }
        caller.must_own(format!(
            "reaching `{}`, which is outside the downloads folder,",
            shown(folder)
        ))
    }

    /// Refuses guests a change of what reaches files, programs or other machines. Limits and the
    /// queue are left to them, as remotes for Transmission set these.
    pub fn check_settings(
        &self,
        caller: Caller,
        change: &SettingsChange,
    ) -> Result<(), DaemonError> {
        check(caller, change, &self.book.lock().settings, &self.config.settings.downloads)
    }
}

/// `downloads` is the configured folder, beneath which guests may choose another one. Whether links
/// lead out of it is looked at later, as for everybody.
fn check(
    caller: Caller,
    change: &SettingsChange,
    now: &Settings,
    downloads: &Path,
) -> Result<(), DaemonError> {
    // Nothing in it can fail: strings, numbers and lists.
    let now = serde_json::to_value(now).unwrap_or_default();
    // Some remotes send back what they were told.
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
