//! Messages to the service manager: systemd's `sd_notify(3)`, one datagram for each.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::Env;

/// The service manager that started this program, if one did.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Returns the one named by `NOTIFY_SOCKET`. It expects messages as often as `WATCHDOG_USEC`
    /// says. One that cannot be reached counts as none, because it reports that itself.
    pub(super) fn from_env(env: &Env) -> Self {
        let socket = env.var("NOTIFY_SOCKET").and_then(|name| {
            open(name)
                .inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        let watchdog = socket.as_ref().and_then(|_| watchdog(env));
        Self { socket, watchdog }
    }

    /// Says that the program is ready.
    pub(super) fn ready(&self, status: &str) {
        // A line break would begin another message.
        let status = status.replace('\n', " ");
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// Says that the program is about to end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=leaving the network");
    }

    /// Says that the program is alive.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Returns how often to call [`Supervisor::alive`]: twice within the watchdog's timeout. `None`
    /// without a watchdog.
    pub(super) fn beat(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    fn tell(&self, message: &str) {
        if let Some((socket, addr)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), addr)
        {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let addr = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(name.as_bytes()))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that has stopped reading must not block this program.
    socket.set_nonblocking(true)?;
    Ok((socket, addr))
}

/// Returns the watchdog's timeout, if it applies to this process.
fn watchdog(env: &Env) -> Option<Duration> {
    let ours = env
        .var("WATCHDOG_PID")
        .is_none_or(|pid| pid.parse().is_ok_and(|pid: u32| pid == std::process::id()));
    let micros: u64 = env.var("WATCHDOG_USEC")?.parse().ok()?;
    (ours && micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::super::Output;
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        let (out, _) = Output::captured();
        let env = Env::new("test", Vec::<String>::new(), "/".as_ref(), out.clone(), out);
        vars.iter().fold(env, |env, (key, value)| env.with_var(key, value))
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_by_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let told = Supervisor::from_env(&env(&[("NOTIFY_SOCKET", path.to_str().unwrap())]));
        told.ready("two\nlines");
        let pid = std::process::id();
        assert_eq!(next(&manager), format!("READY=1\nMAINPID={pid}\nSTATUS=two lines"));
        told.alive();
        assert_eq!(next(&manager), "WATCHDOG=1");
        told.stopping();
        assert!(next(&manager).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn the_manager_hears_by_an_abstract_name() {
        let name = format!("piecework-notify-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&addr).unwrap();
        let told = Supervisor::from_env(&env(&[("NOTIFY_SOCKET", &format!("@{name}"))]));
        told.alive();
        assert_eq!(next(&manager), "WATCHDOG=1");
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        let none = Supervisor::from_env(&env(&[("WATCHDOG_USEC", "1000000")]));
        assert_eq!(none.beat(), None);
        none.ready("");
        let gone = Supervisor::from_env(&env(&[("NOTIFY_SOCKET", "/nowhere/at/all")]));
        gone.ready("");
        Supervisor::from_env(&env(&[("NOTIFY_SOCKET", &"x".repeat(200))])).stopping();
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        let beat = |pid: &str, micros: &str| {
            let vars = [("NOTIFY_SOCKET", "@x"), ("WATCHDOG_PID", pid), ("WATCHDOG_USEC", micros)];
            Supervisor::from_env(&env(&vars)).beat()
        };
        let pid = std::process::id().to_string();
        assert_eq!(beat(&pid, "2000000"), Some(Duration::from_secs(1)));
        assert_eq!(beat("", "2000000"), Some(Duration::from_secs(1)), "an empty one names nobody");
        assert_eq!(beat("1", "2000000"), None);
        assert_eq!(beat(&pid, "0"), None);
        assert_eq!(beat(&pid, "soon"), None);
    }
}
