//! Answers that are made while they are read: server-sent events (HTML standard, section 9.2) with
//! the comment that keeps their connection alive, and long answers in parts. What is told is the
//! business of who tells it.

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
    let (teller, body) = channel(lasting, None);
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (teller, (head, body).into_response())
}

/// An answer of unknown length whose parts are told one by one, each of some 64 KiB, so that no more
/// of it is kept than that. It ends when the teller is dropped.
///
/// # Errors
/// If too many answers wait to be read.
pub fn answer_in_parts(
    lasting: Lasting,
    content_type: &'static str,
) -> Result<(Teller, Response), TooManyAnswers> {
    // One part waits, another is in the connection's buffer.
    let place = lasting.take(2 * FRAME)?;
    let (teller, body) = channel(lasting, place);
    Ok((teller, ([(CONTENT_TYPE, content_type)], body).into_response()))
}

fn channel(lasting: Lasting, place: Option<AnswerPlace>) -> (Teller, Body) {
    let (told, heard) = mpsc::channel(1);
    let taken = Arc::<AtomicU64>::default();
    let stream = Stream { heard, rest: Bytes::new(), taken: Arc::clone(&taken), _place: place };
    (Teller { told, taken, lasting }, Body::new(stream))
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
    _place: Option<AnswerPlace>,
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
