//! The places of configuration files, and of the files and folders that programs keep.
//!
//! There are three layouts. The first one that applies is used:
//!
//! - a service (`STATE_DIRECTORY` is set, or there is no home and the working directory is `/`): all in its
//!   folder, `/var/lib/piecework` by default, with the configuration in `/etc/piecework`;
//! - a user with a home: the folders of the XDG base directory specification;
//! - neither: all in the working directory.
//!
//! In each layout, folders `torrents` and `downloads` of the working directory are used if they
//! exist.

use std::fs;
use std::path::{Path, PathBuf};

use super::Env;

/// The default places, used unless the configuration, the environment or the command line names
/// others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DefaultPaths {
    /// Configuration files, in search order.
    pub configs: Vec<PathBuf>,
    /// Folder for `.torrent` files of peers and daemon.
    pub torrents: PathBuf,
    /// Folder for downloads.
    pub downloads: PathBuf,
    /// State of the daemon. Its journal is next to it.
    pub daemon_state: PathBuf,
    /// Folder for the `.torrent` files of the tracker's catalogue.
    pub tracker_torrents: PathBuf,
    /// State of the tracker. Its journal is next to it.
    pub tracker_state: PathBuf,
}

impl DefaultPaths {
    /// Returns the places of this run.
    pub(super) fn find(env: &Env) -> Self {
        let home = home(env);
        let service = match listed(env, "STATE_DIRECTORY") {
            Some(folder) => Some(folder),
            // Folders in the root of the file system are never wanted.
            None if home.is_none() && env.cwd() == Path::new("/") => Some(SERVICE_STATE.into()),
            None => None,
        };
        let mut places = match (&service, &home) {
            (Some(folder), _) => Self::flat(folder),
            (None, Some(home)) => Self::of_user(env, home),
            (None, None) => Self::flat(Path::new("")),
        };
        let is_other = |name: &str, usual: &Path| {
            let here = env.path(name);
            let same = || fs::canonicalize(&here).ok() == fs::canonicalize(env.path(usual)).ok();
            here.is_dir() && !same()
        };
        if is_other(TORRENTS, &places.torrents) {
            let Self { torrents, daemon_state, tracker_torrents, tracker_state, .. } =
                Self::flat(Path::new(""));
            places = Self { torrents, daemon_state, tracker_torrents, tracker_state, ..places };
        }
        if is_other(DOWNLOADS, &places.downloads) {
            places.downloads = DOWNLOADS.into();
        }
        let user = absolute(env, "XDG_CONFIG_HOME").or(home.map(|home| home.join(".config")));
        let user = user.map(|folder| folder.join(OWN_FOLDER));
        let folders = [user, listed(env, "CONFIGURATION_DIRECTORY"), Some(SERVICE_CONFIG.into())];
        let mut configs = vec![PathBuf::from(CONFIG)];
        for folder in folders.into_iter().flatten() {
            let file = folder.join(CONFIG);
            if !configs.contains(&file) {
                configs.push(file);
            }
        }
        Self { configs, ..places }
    }

    /// Everything in one folder.
    fn flat(folder: &Path) -> Self {
        let torrents = folder.join(TORRENTS);
        Self {
            configs: Vec::new(),
            downloads: folder.join(DOWNLOADS),
            daemon_state: torrents.join(DAEMON_STATE),
            tracker_torrents: torrents.clone(),
            tracker_state: torrents.join(TRACKER_STATE),
            torrents,
        }
    }

    /// Uses the XDG base directories. The tracker has its own folder, because it lists what is in
    /// it, and not everything that its user shares is for everybody.
    fn of_user(env: &Env, home: &Path) -> Self {
        let folder = |key, usual: &str| {
            absolute(env, key).unwrap_or_else(|| home.join(usual)).join(OWN_FOLDER)
        };
        let data = folder("XDG_DATA_HOME", ".local/share");
        let state = folder("XDG_STATE_HOME", ".local/state");
        Self {
            configs: Vec::new(),
            torrents: data.join(TORRENTS),
            downloads: download_folder(env, home),
            daemon_state: state.join(DAEMON_STATE),
            tracker_torrents: data.join("tracker"),
            tracker_state: state.join(TRACKER_STATE),
        }
    }
}

/// Returns the user's home. `None` if there is none, or only the placeholder of users without a
/// home.
pub(super) fn home(env: &Env) -> Option<PathBuf> {
    absolute(env, "HOME").filter(|home| home.parent().is_some() && home.is_dir())
}

/// Returns the desktop's folder for downloads (`xdg-user-dirs`).
fn download_folder(env: &Env, home: &Path) -> PathBuf {
    let config = absolute(env, "XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    // If the file does not exist or cannot be read, the folder has its usual name.
    let text = fs::read_to_string(config.join("user-dirs.dirs")).unwrap_or_default();
    absolute(env, "XDG_DOWNLOAD_DIR")
        .or_else(|| user_dir(&text, "XDG_DOWNLOAD_DIR", home))
        .unwrap_or_else(|| home.join("Downloads"))
}

/// Returns the value of `key` in `user-dirs.dirs`. Lines are like
/// `XDG_DOWNLOAD_DIR="$HOME/Downloads"`, and the last one counts. The home itself means that there
/// is no such folder.
fn user_dir(text: &str, key: &str, home: &Path) -> Option<PathBuf> {
    let value = |line: &str| {
        let value = line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let path = match value.strip_prefix("$HOME") {
            Some(rest) => home.join(rest.trim_start_matches('/')),
            None => PathBuf::from(value),
        };
        path.is_absolute().then_some(path)
    };
    text.lines().filter_map(value).next_back().filter(|path| path != home)
}

/// Returns an absolute path from the environment. Relative ones are not valid (XDG base
/// directories).
fn absolute(env: &Env, key: &str) -> Option<PathBuf> {
    env.var(key).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Returns the first of the folders that systemd names, separated by colons.
fn listed(env: &Env, key: &str) -> Option<PathBuf> {
    let first = env.var(key)?.split(':').next()?;
    Some(PathBuf::from(first)).filter(|path| path.is_absolute())
}

const CONFIG: &str = "config.toml";
const TORRENTS: &str = "torrents";
const DOWNLOADS: &str = "downloads";
const DAEMON_STATE: &str = "daemon.sqlite";
const TRACKER_STATE: &str = "tracker.sqlite";

/// The name of our folder in each of the XDG base directories.
const OWN_FOLDER: &str = "piecework";

/// The folder in which services keep everything.
const SERVICE_STATE: &str = "/var/lib/piecework";

/// The configuration folder of services, and of users without their own configuration.
const SERVICE_CONFIG: &str = "/etc/piecework";

#[cfg(test)]
mod tests {
    use super::super::Output;
    use super::*;

    fn env(cwd: &Path, vars: &[(&str, &Path)]) -> Env {
        let (out, _) = Output::captured();
        let env = Env::new("test", Vec::<String>::new(), cwd, out.clone(), out);
        vars.iter().fold(env, |env, (key, value)| env.with_var(key, value.to_str().unwrap()))
    }

    #[test]
    fn line_15_a_user_has_a_home_by_the_xdg_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (home, work) = (dir.path().join("home"), dir.path().join("work"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&work).unwrap();
        let places = DefaultPaths::find(&env(&work, &[("HOME", &home)]));
        let expected = DefaultPaths {
            configs: vec![
                "config.toml".into(),
                home.join(".config/piecework/config.toml"),
                "/etc/piecework/config.toml".into(),
            ],
            torrents: home.join(".local/share/piecework/torrents"),
            downloads: home.join("Downloads"),
            daemon_state: home.join(".local/state/piecework/daemon.sqlite"),
            tracker_torrents: home.join(".local/share/piecework/tracker"),
            tracker_state: home.join(".local/state/piecework/tracker.sqlite"),
        };
        assert_eq!(places, expected);

        let [config, data, state] = ["c", "d", "s"].map(|name| dir.path().join(name));
        fs::create_dir(&config).unwrap();
        let dirs = "# of a German desktop\nXDG_DOWNLOAD_DIR=\"$HOME/Geladenes\"\n";
        fs::write(config.join("user-dirs.dirs"), dirs).unwrap();
        let vars = [
            ("HOME", &*home),
            ("XDG_CONFIG_HOME", &config),
            ("XDG_DATA_HOME", &data),
            ("XDG_STATE_HOME", &state),
        ];
        let places = DefaultPaths::find(&env(&work, &vars));
        assert_eq!(places.configs[1], config.join("piecework/config.toml"));
        assert_eq!(places.torrents, data.join("piecework/torrents"));
        assert_eq!(places.daemon_state, state.join("piecework/daemon.sqlite"));
        assert_eq!(places.downloads, home.join("Geladenes"));
        // Relative paths are to be ignored.
        let vars = [("HOME", &*home), ("XDG_DATA_HOME", Path::new("data"))];
        assert_eq!(DefaultPaths::find(&env(&work, &vars)), expected);
    }

    #[test]
    fn line_15_folders_of_the_working_directory_are_used_where_they_exist() {
        let dir = tempfile::tempdir().unwrap();
        let (home, work) = (dir.path().join("home"), dir.path().join("work"));
        fs::create_dir_all(work.join("torrents")).unwrap();
        fs::create_dir(&home).unwrap();
        let places = || DefaultPaths::find(&env(&work, &[("HOME", &home)]));
        assert_eq!(places().torrents, Path::new("torrents"));
        assert_eq!(places().daemon_state, Path::new("torrents/daemon.sqlite"));
        assert_eq!(places().tracker_state, Path::new("torrents/tracker.sqlite"));
        assert_eq!(places().downloads, home.join("Downloads"));
        fs::create_dir(work.join("downloads")).unwrap();
        assert_eq!(places().downloads, Path::new("downloads"));
        // Whoever works in the fixed folder itself does not have it change its state.
        let data = home.join(".local/share/piecework");
        fs::create_dir_all(data.join("torrents")).unwrap();
        let inside = DefaultPaths::find(&env(&data, &[("HOME", &home)]));
        assert_eq!(inside.daemon_state, home.join(".local/state/piecework/daemon.sqlite"));
    }

    #[test]
    fn line_15_a_service_has_its_folder_and_who_has_no_home_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("var");
        fs::create_dir_all(state.join("torrents")).unwrap();
        let vars = [("HOME", Path::new("/")), ("STATE_DIRECTORY", &state)];
        let places = DefaultPaths::find(&env(&state, &vars));
        assert_eq!(places.torrents, state.join("torrents"));
        assert_eq!(places.daemon_state, state.join("torrents/daemon.sqlite"));
        assert_eq!(places.downloads, state.join("downloads"));
        let etc = dir.path().join("etc");
        let vars = [("STATE_DIRECTORY", &*state), ("CONFIGURATION_DIRECTORY", &etc)];
        assert_eq!(DefaultPaths::find(&env(&state, &vars)).configs[1], etc.join("config.toml"));
        let root = DefaultPaths::find(&env(Path::new("/"), &[]));
        assert_eq!(root.torrents, Path::new("/var/lib/piecework/torrents"));
        for nowhere in ["/", "/no/such/home", "relative"] {
            let places = DefaultPaths::find(&env(dir.path(), &[("HOME", Path::new(nowhere))]));
            assert_eq!(places.torrents, Path::new("torrents"), "{nowhere}");
            assert_eq!(places.daemon_state, Path::new("torrents/daemon.sqlite"), "{nowhere}");
        }
    }

    #[test]
    fn the_desktop_says_where_downloads_go() {
        let home = Path::new("/home/me");
        let dir = |text| user_dir(text, "XDG_DOWNLOAD_DIR", home);
        assert_eq!(dir(""), None);
        assert_eq!(dir("XDG_DOWNLOAD_DIR=\"/srv/dl\""), Some("/srv/dl".into()));
        assert_eq!(dir("XDG_DOWNLOAD_DIR = \"$HOME/a b\"\n"), Some("/home/me/a b".into()));
        assert_eq!(dir("XDG_DOWNLOAD_DIR=\"$HOME/\""), None, "there is none");
        for odd in ["XDG_DOWNLOAD_DIR=dl", "XDG_DOWNLOAD_DIR=\"dl\"", "#XDG_DOWNLOAD_DIR=\"/x\""] {
            assert_eq!(dir(odd), None, "{odd}");
        }
    }
}
