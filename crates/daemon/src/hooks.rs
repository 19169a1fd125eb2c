//! Programs that are run when something happens to a torrent.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::torrents::Torrents;
use piecework_api::Torrent;
use piecework_core::InfoHash;

/// The event that a program is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Added,
    Done,
    Seeded,
}

/// Runs programs, a few at a time.
pub(super) struct Hooks {
    torrents: Arc<Torrents>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Hooks {
    pub(crate) fn new(torrents: Arc<Torrents>) -> Self {
        let (running, waiting) = (Semaphore::new(RUNNING), Semaphore::new(WAITING));
        Self { torrents, running: Arc::new(running), waiting: Arc::new(waiting) }
    }

    /// Runs the program for `hook`, if one is set, without waiting for it.
    pub(crate) fn run(&self, hook: Hook, info_hash: InfoHash) {
        let (program, torrent, tiers) = {
            let table = self.torrents.table();
            let program = match hook {
                Hook::Added => &table.settings.on_added,
                Hook::Done => &table.settings.on_done,
                Hook::Seeded => &table.settings.on_seeded,
            };
            let Some(program) = program.clone().filter(|program| !program.is_empty()) else {
                return;
            };
            let Some(torrent) = table.show(info_hash) else { return };
            let own = table.entries.get(&info_hash).and_then(|entry| entry.metainfo());
            let tiers = torrent.settings.trackers.clone();
            let tiers = tiers.or_else(|| own.map(|own| own.trackers().to_vec()));
            (program, torrent, tiers.unwrap_or_default())
        };
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            tracing::warn!(program, "not run: `{WAITING}` runs wait already");
            return;
        };
        let running = Arc::clone(&self.running);
        let variables = variables(&torrent, &tiers);
        tokio::spawn(async move {
            // Nobody closes the semaphore.
            let _turn = running.acquire_owned().await;
            drop(place);
            run_program(&program, variables, &torrent).await;
        });
    }
}

async fn run_program(program: &str, variables: Vec<(&'static str, OsString)>, torrent: &Torrent) {
    let name = piecework_core::printable(&torrent.name);
    let mut command = tokio::process::Command::new(program);
    command
        .envs(variables)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::error!(program, %error, "the program could not be run for `{name}`");
            return;
        }
    };
    match tokio::time::timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => {
            tracing::info!(program, "the program ran for `{name}`");
        }
        Ok(Ok(status)) => tracing::warn!(program, %status, "the program failed for `{name}`"),
        Ok(Err(error)) => {
            tracing::warn!(program, %error, "how the program ended for `{name}` is not known");
        }
        Err(_) => {
            tracing::warn!(program, "the program ran longer than {LIMIT:?} for `{name}`: ended");
            // It may just have ended.
            let _ = child.kill().await;
        }
    }
}

/// Returns the environment variables of the program: Piecework's names, and those of Transmission, so that
/// scripts for it work.
fn variables(torrent: &Torrent, tiers: &[Vec<String>]) -> Vec<(&'static str, OsString)> {
    let hash = torrent.info_hash.to_string();
    let labels = torrent.settings.labels.join(",");
    let folder = torrent.folder.clone().into_os_string();
    let trackers: Vec<&str> = tiers.iter().flatten().map(String::as_str).collect();
    let local = jiff::Zoned::now().strftime("%a %b %e %T %Y").to_string();
    let all: [(&'static str, OsString); 15] = [
        ("TORRENT_NAME", torrent.name.as_str().into()),
        ("TORRENT_HASH", hash.as_str().into()),
        ("TORRENT_DIR", folder.clone()),
        ("TORRENT_ID", torrent.id.to_string().into()),
        ("TORRENT_LABELS", labels.as_str().into()),
        ("TORRENT_BYTES", torrent.bytes.to_string().into()),
        ("TR_APP_VERSION", env!("CARGO_PKG_VERSION").into()),
        ("TR_TIME_LOCALTIME", local.into()),
        ("TR_TORRENT_BYTES_DOWNLOADED", torrent.downloaded.to_string().into()),
        ("TR_TORRENT_DIR", folder),
        ("TR_TORRENT_HASH", hash.into()),
        ("TR_TORRENT_ID", torrent.id.to_string().into()),
        ("TR_TORRENT_LABELS", labels.into()),
        ("TR_TORRENT_NAME", torrent.name.as_str().into()),
        ("TR_TORRENT_TRACKERS", trackers.join(",").into()),
    ];
    // With a NUL byte in a variable the program would not start.
    let without_nul = |value: &OsString| !value.as_encoded_bytes().contains(&0);
    all.into_iter().filter(|(_, value)| without_nul(value)).collect()
}

/// Number of programs that run at the same time.
const RUNNING: usize = 4;

/// Maximum number of runs that wait or are about to start.
const WAITING: usize = 10_000;

/// Maximum time a program may take. One that moves a large download across disks needs many minutes.
const LIMIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    #[test]
    fn every_variable_is_documented() {
        let documented = include_str!("../../../docs/hooks.md");
        let source = include_str!("hooks.rs");
        let named = |line: &'static str| line.trim().strip_prefix("(\"T")?.split('"').next();
        let names: Vec<String> =
            source.lines().filter_map(named).map(|rest| format!("T{rest}")).collect();
        assert_eq!(names.len(), 15, "{names:?}");
        for name in names {
            assert!(documented.contains(&format!("`{name}`")), "{name}");
        }
    }
}
