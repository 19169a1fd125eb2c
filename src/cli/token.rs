//! The owner's token. A daemon writes it to files that only its user can read, and tools find it
//! there.
//!
//! It is valid for one run of a daemon. While the daemon runs, nobody else can listen on its port.
//! A token that a tool sends to a later listener is worthless.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use piecework_core::Secret;
use piecework_storage::write_whole;

use super::format::shown;
use super::{CliError, Config, Env};

/// A token and the files that contain it. They are removed when this is dropped.
#[derive(Debug)]
pub(super) struct TokenFiles {
    token: Secret,
    files: Vec<PathBuf>,
}

/// Generates a token of 256 random bits.
///
/// # Errors If the system provides no random numbers.
pub(super) fn generate() -> Result<Secret, CliError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        CliError::failed(format_args!("the system gives no random numbers: {error}")).because(error)
    })?;
    Ok(Secret::from(data_encoding::HEXLOWER.encode(&bytes)))
}

impl TokenFiles {
    /// Writes `token` for the tools of a daemon whose control has `port`: next to its state, and in
    /// the user's runtime folder. Warns of a file that cannot be written.
    pub(super) fn write(env: &Env, config: &Config, port: u16, token: Secret) -> Self {
        let own = env.var("RUNTIME_DIRECTORY").map(|folder| PathBuf::from(folder).join(name(port)));
        let by_port = own.or_else(|| folders(env).into_iter().next().map(|f| f.join(name(port))));
        let mut files = Vec::new();
        for path in std::iter::once(beside_state(env, config)).chain(by_port) {
            match write(&path, &token) {
                Ok(()) => files.push(path),
                Err(error) => tracing::warn!(
                    "the owner's token cannot be kept in `{}`, where tools look for it: {error}",
                    shown(&path)
                ),
            }
        }
        Self { token, files }
    }
}

impl Drop for TokenFiles {
    fn drop(&mut self) {
        for path in &self.files {
            // Another daemon may have written its own token there.
            let ours = read_file(path).is_ok_and(|token| token == self.token);
            if ours && let Err(error) = fs::remove_file(path) {
                tracing::debug!(%error, "`{}` stays behind", shown(path));
            }
        }
    }
}

/// Returns the token of the daemon on this machine whose control has `port`, if this user may read
/// it.
pub(super) fn find(env: &Env, config: &Config, port: u16) -> Option<Secret> {
    files(env, config, port).find_map(|path| read_file(&path).ok())
}

/// Returns the files that [`find`] tries, in order.
pub(super) fn files(env: &Env, config: &Config, port: u16) -> impl Iterator<Item = PathBuf> {
    let by_port = folders(env).into_iter().chain([PathBuf::from(SYSTEM_FOLDER)]);
    let files = by_port.map(move |folder| folder.join(name(port)));
    // If the configuration names another port, the file next to the state belongs to another
    // daemon.
    let beside = (config.daemon.control.port() == port).then(|| beside_state(env, config));
    files.chain(beside)
}

fn write(path: &Path, token: &Secret) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let about = fs::symlink_metadata(folder)?;
        let is_ours = about.uid() == rustix::process::geteuid().as_raw();
        // Another user could replace our file.
        if about.is_symlink() || !is_ours || about.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write to its folder"));
        }
    }
    write_whole(path, format!("{}\n", token.expose()).as_bytes(), 0o600)
}

/// Reads the token in a file. Only this user, or for root the daemon's user, may have been able to
/// write or read it.
fn read_file(path: &Path) -> io::Result<Secret> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file =
        fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let about = file.metadata()?;
    let user = rustix::process::geteuid();
    let is_safe = about.is_file()
        && (about.uid() == user.as_raw() || user.is_root())
        && about.mode() & 0o077 == 0;
    if !is_safe {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(io::ErrorKind::InvalidData.into()),
        token => Ok(Secret::from(token)),
    }
}

/// Returns folders that belong to this user alone, the best first.
fn folders(env: &Env) -> Vec<PathBuf> {
    let absolute = |key| env.var(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = absolute("XDG_RUNTIME_DIR");
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let user = rustix::process::geteuid().as_raw();
    // The last resort. Another user could create it first, which `write` notices.
    let last = PathBuf::from(format!("/tmp/piecework-{user}"));
    let named = runtime.into_iter().chain(state).map(|folder| folder.join("piecework"));
    named.chain([last]).collect()
}

fn beside_state(env: &Env, config: &Config) -> PathBuf {
    env.path(&config.daemon.state).with_extension(OsStr::new("token"))
}

fn name(port: u16) -> String {
    format!("control-{port}.token")
}

/// The folder in which a daemon under systemd writes it, for root.
const SYSTEM_FOLDER: &str = "/run/piecework";

/// Maximum bytes of a file to read.
const MAX_FILE: u64 = 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::Output;
    use super::*;

    /// Returns a program in `dir`, with a runtime folder below it.
    fn env(dir: &Path) -> Env {
        let (out, _) = Output::captured();
        let env = Env::new("test", Vec::<String>::new(), dir, out.clone(), out);
        env.with_var("XDG_RUNTIME_DIR", dir.join("run").to_str().unwrap())
    }

    #[test]
    fn tools_find_the_token_by_the_port_without_being_told() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let runtime = dir.path().join("run");
        let at = |cwd: &Path| env(cwd).with_var("XDG_RUNTIME_DIR", runtime.to_str().unwrap());
        let mut config = Config::default();
        config.daemon.state = "one/daemon.sqlite".into();
        let token = generate().unwrap();
        assert_eq!(token.expose().len(), 64);
        let files = TokenFiles::write(&at(dir.path()), &config, 5001, token.clone());
        // The tool knows neither the daemon's folder nor its configuration.
        let tool = at(elsewhere.path());
        assert_eq!(find(&tool, &Config::default(), 5001), Some(token.clone()));
        assert_eq!(find(&tool, &Config::default(), 5002), None);
        for path in ["run/piecework/control-5001.token", "one/daemon.token"] {
            let mode = fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{path}");
        }
        let mode = fs::metadata(runtime.join("piecework")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        drop(files);
        assert_eq!(find(&tool, &Config::default(), 5001), None);
        assert!(!dir.path().join("one/daemon.token").exists());
    }

    #[test]
    fn the_token_lies_beside_the_state_too() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        let token = generate().unwrap();
        let port = config.daemon.control.port();
        let _files = TokenFiles::write(&env(dir.path()), &config, port, token.clone());
        fs::remove_dir_all(dir.path().join("run")).unwrap();
        assert_eq!(find(&env(dir.path()), &config, port), Some(token));
        assert_eq!(find(&env(dir.path()), &config, 1), None);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_a_link_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        write(&path, &Secret::from("x")).unwrap();
        assert!(read_file(&path).is_ok());
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read_file(&link).is_err());
        for mode in [0o644, 0o640, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(read_file(&path).is_err(), "{mode:o}");
        }
    }

    #[test]
    fn the_token_of_another_daemon_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        let first = TokenFiles::write(&env(dir.path()), &config, 1, Secret::from("first"));
        let _second = TokenFiles::write(&env(dir.path()), &config, 2, Secret::from("second"));
        drop(first);
        let port = config.daemon.control.port();
        assert_eq!(find(&env(dir.path()), &config, port), Some(Secret::from("second")));
    }
}
