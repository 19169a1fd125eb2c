//! Server-sent events (HTML standard, section 9.2): the answer that carries them, the comment that
//! keeps its connection alive, and the end of one that nobody reads. What is told is the business of
//! who tells it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use super::Lasting;

/// What a stream of events is told through. The stream ends when this is dropped.
#[derive(Debug)]
pub struct Teller {
    told: mpsc::Sender<Bytes>,
    /// Bytes that the connection has taken.
    taken: Arc<AtomicU64>,
    lasting: Lasting,
}

/// The client of a stream has left, or was hung up on because it does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left;

/// An answer that tells what its teller says, and keeps its connection for that long.
pub fn event_stream(lasting: Lasting) -> (Teller, Response) {
    lasting.keep();
    let (told, heard) = mpsc::channel(1);
    let taken = Arc::<AtomicU64>::default();
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    let stream = Stream { heard, rest: Bytes::new(), taken: Arc::clone(&taken) };
    (Teller { told, taken, lasting }, (head, Body::new(stream)).into_response())
}

/// When to send [`BEAT`]: for the first time after one pause.
pub fn heartbeat() -> Interval {
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// A comment, which listeners pass over.
pub const BEAT: &str = ": still here\n\n";

impl Teller {
    /// Tells `chunk`, which may be empty, once there is room for it. Of what was told before, 512
    /// KiB have to be read every 30 s, or all there is: else the connection is closed.
    pub async fn tell(&self, chunk: impl Into<Bytes>) -> Result<(), Left> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return Ok(());
        }
        let mut before = self.taken.load(Ordering::Relaxed);
        let mut told = pin!(self.told.send(chunk));
        loop {
            match timeout(READ_WITHIN, told.as_mut()).await {
                Ok(told) => return told.map_err(|_| Left),
                Err(_) => {
                    let taken = self.taken.load(Ordering::Relaxed);
                    if taken - before < READ_AT_LEAST {
                        self.lasting.close();
                        return Err(Left);
                    }
                    before = taken;
                }
            }
        }
    }

    /// Waits until the client has left.
    pub async fn left(&self) {
        self.told.closed().await;
    }
}

impl Drop for Teller {
    /// Whoever does not read the end of a stream has the usual time for it.
    fn drop(&mut self) {
        self.lasting.release();
    }
}

/// A body of what is told.
struct Stream {
    heard: mpsc::Receiver<Bytes>,
    /// What was heard and not yet taken.
    rest: Bytes,
    taken: Arc<AtomicU64>,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            match std::task::ready!(self.heard.poll_recv(context)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(None),
            }
        }
        let size = self.rest.len().min(FRAME);
        let frame = self.rest.split_to(size);
        self.taken.fetch_add(size as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}

/// Pause after which a comment is sent, so that a connection that is gone is noticed, and proxies
/// do not close one that is quiet.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Who does not read this many bytes of what waits for them within this time does not want them: a
/// tracker's map may have 22 MB, and is not kept for nobody. It is 17 KiB/s.
const READ_AT_LEAST: u64 = 512 * 1024;
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Bytes given to the connection at a time, so that it shows how much of a long event was read.
const FRAME: usize = 64 * 1024;
