//! Answers that are produced while the client reads them: server-sent events (HTML standard, section 9.2) with the
//! comment that keeps their connection alive, and long answers in parts.

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
use super::answers::{AnswerPlace, FRAME, READ_AT_LEAST, READ_WITHIN, TooManyAnswers};

/// The sending side of a stream. The stream ends when this is dropped.
#[derive(Debug)]
pub struct Teller {
    told: mpsc::Sender<Bytes>,
    /// The number of bytes that the connection has taken.
    taken: Arc<AtomicU64>,
    lasting: Lasting,
}

/// The client of a stream has left, or was disconnected because it does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left;

/// Returns a stream of events and its sending side. The stream keeps its connection open.
pub fn event_stream(lasting: Lasting) -> (Teller, Response) {
    lasting.keep();
    let (teller, body) = channel(lasting, None);
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (teller, (head, body).into_response())
}

/// Returns an answer of unknown length and its sending side. The parts should have about 64 KiB each; no more than
/// that is buffered. The answer ends when the sending side is dropped.
///
/// # Errors
/// If too many answers wait to be read.
pub fn answer_in_parts(
    lasting: Lasting,
    content_type: &'static str,
) -> Result<(Teller, Response), TooManyAnswers> {
    // One part waits, and another is in the connection's buffer.
    let place = lasting.take(2 * FRAME)?;
    let (teller, body) = channel(lasting, place);
    Ok((teller, ([(CONTENT_TYPE, content_type)], body).into_response()))
}

fn channel(lasting: Lasting, place: Option<AnswerPlace>) -> (Teller, Body) {
    let (told, heard) = mpsc::channel(1);
    let taken = Arc::<AtomicU64>::default();
    let stream = StreamBody { heard, rest: Bytes::new(), taken: Arc::clone(&taken), _place: place };
    (Teller { told, taken, lasting }, Body::new(stream))
}

/// Returns the interval for sending [`BEAT`]. The first tick comes after one pause.
pub fn heartbeat() -> Interval {
    let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// A comment, which clients ignore.
pub const BEAT: &str = ": still here\n\n";

impl Teller {
    /// Sends `chunk`, which may be empty, once there is room for it. The client has to read 512 KiB of earlier
    /// data, or all of it, every 30 s; otherwise the connection is closed.
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
    /// A client has the usual time to read the end of a stream.
    fn drop(&mut self) {
        self.lasting.release();
    }
}

/// The body of a stream.
struct StreamBody {
    heard: mpsc::Receiver<Bytes>,
    /// Data that was received and not yet taken.
    rest: Bytes,
    taken: Arc<AtomicU64>,
    _place: Option<AnswerPlace>,
}

impl HttpBody for StreamBody {
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

/// The pause after which a comment is sent, so that a lost connection is noticed and proxies do not close a quiet
/// one.
const HEARTBEAT: Duration = Duration::from_secs(15);
