//! The ways into the daemon over HTTP: the native API (`docs/api.md`) and Transmission's
//! RPC, behind one guard.

// `as` may cut bits off silently: `SaturatingFrom` and `try_from` say what happens to them.
#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)
)]

mod answer;
mod config;
mod error;
mod events;
mod figures;
mod guard;
mod listing;
mod receive;
mod routes;
mod transmission;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    //! What `fuzz/` calls; not part of the API.

    /// Answers `body`, a request in either of Transmission's dialects, and reads its arguments as
    /// every method would.
    ///
    /// # Panics
    /// If the answer is not JSON, or a request gets no answer that should have one.
    pub fn rpc(body: &[u8]) {
        crate::transmission::fuzzing::rpc(body);
    }
}

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use piecework_daemon::Daemon;
use piecework_http::{
    self as http_server, Connections, Entrance, EntranceError, Limits, PlainHttp, TlsError,
};

pub use config::ControlConfig;
pub use error::ControlError;

use guard::{Guard, GuardConfig, Surface};
use receive::Bodies;
use routes::Context;

/// The running ways into a daemon. Dropping it closes them at once.
#[derive(Debug)]
pub struct Control {
    addrs: Vec<SocketAddr>,
    rpc_addr: Option<SocketAddr>,
    has_tls: bool,
    asked: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Control {
    /// Serves `daemon` on the current tokio runtime.
    ///
    /// # Errors
    /// If the configuration would let strangers in, or an address cannot be listened on.
    pub async fn start(config: ControlConfig, daemon: Daemon) -> Result<Self, ControlError> {
        config.check()?;
        let entrance = entrance(&config).await?;
        let has_tls = entrance.has_tls();
        let mut listeners = Vec::new();
        for addr in &config.listen {
            listeners.push(bind("the control", *addr).await?);
        }
        let rpc_listener = match config.rpc_listen {
            Some(addr) => Some(bind("Transmission RPC", addr).await?),
            None => None,
        };
        let (ask, asked) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let guard = &Guard::new(GuardConfig::new(
            &config.host_names,
            config.password.as_ref(),
            config.token.as_ref(),
            config.open_on_loopback,
        ));
        let bodies = Bodies::new();
        let rpc = transmission::router(
            daemon.clone(),
            ask.clone(),
            config.body_timeout,
            Arc::clone(&bodies),
        );
        let native = routes::router(Context::new(daemon, &config, ask, stopped.clone(), bodies));
        let native = native.merge(transmission::page::here());
        let native =
            guard.protect(native, Surface::Native).merge(guard.protect(rpc.clone(), Surface::Rpc));
        let page = transmission::page::elsewhere(listeners.first().map(|(_, addr)| *addr));
        let rpc = guard.protect(rpc.merge(page).fallback(routes::nothing_here), Surface::Rpc);
        let connections = Connections::new(Limits {
            max_connections: config.max_connections,
            max_connections_per_ip: config.max_connections_per_ip,
            header_timeout: config.header_timeout,
            request_timeout: MAX_ANSWER_TIME,
        });
        let serve = |(listener, _), router| {
            let connections = Arc::clone(&connections);
            let (entrance, stopped) = (entrance.clone(), stopped.clone());
            tokio::spawn(http_server::serve(
                listener,
                entrance,
                connections,
                router,
                answer::timed_out,
                stopped,
            ))
        };
        let addrs = listeners.iter().map(|(_, addr)| *addr).collect();
        let rpc_addr = rpc_listener.as_ref().map(|(_, addr)| *addr);
        let mut tasks: Vec<_> =
            listeners.into_iter().map(|listener| serve(listener, native.clone())).collect();
        tasks.extend(rpc_listener.map(|listener| serve(listener, rpc)));
        Ok(Self { addrs, rpc_addr, has_tls, asked, stop, tasks })
    }

    /// `https` if there is a certificate, `http` if not.
    pub fn scheme(&self) -> &'static str {
        if self.has_tls { "https" } else { "http" }
    }

    /// Where the native API is served, in the order of the configuration.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Where Transmission's RPC is served besides.
    pub fn rpc_addr(&self) -> Option<SocketAddr> {
        self.rpc_addr
    }

    /// Waits until somebody asks the daemon to end: `POST /shutdown`, or Transmission's
    /// `session_close`.
    pub async fn shutdown_asked(&self) {
        let mut asked = self.asked.clone();
        let nobody_left = asked.wait_for(|asked| *asked).await.is_err();
        if nobody_left {
            std::future::pending::<()>().await;
        }
    }

    /// Stops listening, ends streams of events, and lets requests under way end: two seconds at
    /// most.
    pub async fn shutdown(mut self) {
        // Nobody listens if all tasks have ended.
        let _ = self.stop.send(true);
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a listener of the control ended badly");
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// How HTTP comes in. A password must not travel in the open where it need not.
async fn entrance(config: &ControlConfig) -> Result<Entrance, EntranceError> {
    let (certificate, key) = (config.certificate.clone(), config.certificate_key.clone());
    let proxies = config.proxies.clone();
    let named = certificate.clone();
    let open = move || Entrance::open(certificate, key, &proxies, PlainHttp::ThisMachine);
    tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| {
        let (path, error) = (named.unwrap_or_default(), io::Error::other(error));
        Err(TlsError::Read { path, error }.into())
    })
}

async fn bind(
    what: &'static str,
    addr: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ControlError> {
    let fault = |error| ControlError::Listen { what, addr, error };
    let listener = TcpListener::bind(addr).await.map_err(fault)?;
    let chosen = listener.local_addr().map_err(fault)?;
    Ok((listener, chosen))
}

/// How long an answer may take: sharing hashes a whole disk before it answers. What is received has
/// times of its own.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(24 * 60 * 60);
