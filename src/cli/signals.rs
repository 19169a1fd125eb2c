//! Signals that a program handles itself.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;

/// Signals of some kinds. From its creation on they no longer end the process by themselves.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// Ctrl-C only.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub(super) fn interrupt() -> Result<Self, CliError> {
        Self::of(&[SignalKind::interrupt()])
    }

    /// SIGINT and SIGTERM, which ask a program to end.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub(super) fn end() -> Result<Self, CliError> {
        Self::of(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// SIGINT, SIGTERM and SIGHUP, for a program that ends with its terminal.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub(super) fn end_or_hangup() -> Result<Self, CliError> {
        Self::of(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])
    }

    /// SIGHUP, which a terminal sends when it closes. A daemon takes it as a request to reload.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub(super) fn hangup() -> Result<Self, CliError> {
        Self::of(&[SignalKind::hangup()])
    }

    fn of(kinds: &[SignalKind]) -> Result<Self, CliError> {
        let signals = kinds.iter().map(|kind| signal(*kind)).collect::<Result<_, _>>();
        signals.map(Self).map_err(|error| {
            CliError::failed(format_args!("signals cannot be received: {error}")).because(error)
        })
    }

    /// Waits for the next one. A signal that came before this call counts. Cancel-safe.
    pub(super) async fn next(&mut self) {
        // A stream ends only when the runtime does, and then nothing is left to wait for.
        let came = |signal: &mut Signal, context: &mut std::task::Context<'_>| {
            matches!(signal.poll_recv(context), Poll::Ready(Some(())))
        };
        poll_fn(|context| match self.0.iter_mut().any(|signal| came(signal, context)) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}
