//! Server-sent events (HTML standard, section 9.2): the answer that carries them, and the comment
//! that keeps its connection alive. What is told is the business of who tells it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// An answer that tells what comes in, until the sender is gone.
pub fn event_stream(heard: mpsc::Receiver<Bytes>) -> Response {
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (head, Body::new(Stream(heard))).into_response()
}

/// When to send [`BEAT`]: for the first time after one pause.
pub fn heartbeat() -> Interval {
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// A comment, which listeners pass over.
pub const BEAT: &str = ": still here\n\n";

/// A body of what comes.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Pause after which a comment is sent, so that a connection that is gone is noticed, and proxies
/// do not close one that is quiet.
const HEARTBEAT: Duration = Duration::from_secs(15);
