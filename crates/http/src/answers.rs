//! Answers under way: limits on their bytes, in all and for each network, and detection of clients that do not read.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Lasting;
use piecework_core::network_of;

/// The answers that are under way.
///
/// If there is no room for another answer, the connections whose clients have not read anything for the longest time
/// are closed. If all clients are reading, the new answer is refused.
#[derive(Debug)]
pub(super) struct Answers {
    /// The maximum number of bytes, in all and to one network. A single answer may be longer.
    most: usize,
    most_per_network: usize,
    under_way: Mutex<PendingAnswers>,
}

#[derive(Debug, Default)]
struct PendingAnswers {
    bytes: usize,
    by_network: HashMap<IpAddr, usize>,
    answers: BTreeMap<u64, PendingAnswer>,
    next: u64,
}

#[derive(Debug)]
struct PendingAnswer {
    network: IpAddr,
    bytes: usize,
    progress: Arc<ReadProgress>,
    lasting: Lasting,
}

/// Room for one answer. Dropping it releases the room.
#[derive(Debug)]
pub(super) struct AnswerPlace {
    answers: Arc<Answers>,
    number: u64,
}

/// There is no room for another answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many answers wait to be read: read the pending answers, or try again in a moment")]
pub struct TooManyAnswers;

/// The reading progress of a connection's client.
#[derive(Debug)]
pub(super) struct ReadProgress {
    start: Instant,
    /// The number of bytes that the system has accepted.
    written: AtomicU64,
    /// Since when there has been data to write without a break, and when data was last written, in milliseconds after
    /// `start`. 0 if there is nothing to write.
    busy_since: AtomicU64,
    moved_at: AtomicU64,
}

/// A connection whose progress is recorded.
#[derive(Debug)]
pub(super) struct WatchedConnection<I> {
    io: I,
    progress: Arc<ReadProgress>,
}

/// A body that is passed to its connection in frames and keeps its room until all of it is written.
struct FramedBody {
    body: Body,
    /// Data from the body that the connection has not taken yet.
    rest: Bytes,
    _place: AnswerPlace,
}

impl Answers {
    pub(super) fn new() -> Arc<Self> {
        Self::with_room(MOST_BYTES, MOST_BYTES_PER_NETWORK)
    }

    fn with_room(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_network, under_way: Mutex::default() })
    }

    /// Returns how many bytes of answers wait to be read.
    pub(super) fn bytes(&self) -> usize {
        self.under_way.lock().bytes
    }

    /// Takes room for an answer of `bytes` bytes over the connection of `lasting`.
    ///
    /// # Errors
    /// If there is no room, and all other answers are being read.
    pub(super) fn take(
        self: &Arc<Self>,
        ip: IpAddr,
        bytes: usize,
        progress: &Arc<ReadProgress>,
        lasting: &Lasting,
    ) -> Result<AnswerPlace, TooManyAnswers> {
        let network = network_of(ip);
        let mut under_way = self.under_way.lock();
        loop {
            let here = under_way.by_network.get(&network).copied().unwrap_or(0);
            let no_room_here = here > 0 && here + bytes > self.most_per_network;
            let no_room = under_way.bytes > 0 && under_way.bytes + bytes > self.most;
            if !no_room_here && !no_room {
                break;
            }
            let unread = under_way
                .answers
                .iter()
                .filter(|(_, answer)| !no_room_here || answer.network == network)
                .map(|(number, answer)| (answer.progress.stalled(), *number))
                .max()
                .filter(|(stalled, _)| *stalled >= STALLED);
            let (_, number) = unread.ok_or(TooManyAnswers)?;
            if let Some(answer) = under_way.remove(number) {
                tracing::debug!(%network, bytes = answer.bytes, "closing an unread answer to make room");
                answer.lasting.close();
            }
        }
        let number = under_way.next;
        under_way.next += 1;
        under_way.bytes += bytes;
        *under_way.by_network.entry(network).or_default() += bytes;
        let answer = PendingAnswer {
            network,
            bytes,
            progress: Arc::clone(progress),
            lasting: lasting.clone(),
        };
        under_way.answers.insert(number, answer);
        Ok(AnswerPlace { answers: Arc::clone(self), number })
    }

    /// Takes room for `response`, if it has a large body in memory. Without room, returns another response that
    /// says so.
    pub(super) fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        progress: &Arc<ReadProgress>,
        lasting: &Lasting,
        response: Response,
    ) -> Response {
        let (head, body) = response.into_parts();
        let size = body.size_hint().exact().unwrap_or(0);
        if size <= SMALL {
            return Response::from_parts(head, body);
        }
        match self.take(ip, usize::try_from(size).unwrap_or(usize::MAX), progress, lasting) {
            Ok(place) => {
                let framed = FramedBody { body, rest: Bytes::new(), _place: place };
                Response::from_parts(head, Body::new(framed))
            }
            Err(refusal) => refusal.into_response(),
        }
    }
}

impl PendingAnswers {
    fn remove(&mut self, number: u64) -> Option<PendingAnswer> {
        let answer = self.answers.remove(&number)?;
        self.bytes -= answer.bytes;
        if let Some(here) = self.by_network.get_mut(&answer.network) {
            *here -= answer.bytes;
            if *here == 0 {
                self.by_network.remove(&answer.network);
            }
        }
        Some(answer)
    }
}

impl Drop for AnswerPlace {
    fn drop(&mut self) {
        self.answers.under_way.lock().remove(self.number);
    }
}

impl IntoResponse for TooManyAnswers {
    fn into_response(self) -> Response {
        let head = [(CONTENT_TYPE, "application/json"), (RETRY_AFTER, "2")];
        let body = format!("{{\"error\":\"{self}\"}}");
        (StatusCode::SERVICE_UNAVAILABLE, head, body).into_response()
    }
}

impl ReadProgress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            written: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            moved_at: AtomicU64::new(0),
        })
    }

    /// Waits until the client stalls: until less than 512 KiB were written in 30 s although there was always data to
    /// write.
    pub(super) async fn unread(&self) {
        loop {
            let before = self.written.load(Ordering::Relaxed);
            tokio::time::sleep(READ_WITHIN).await;
            let read = self.written.load(Ordering::Relaxed) - before;
            if read < READ_AT_LEAST && self.busy_for() >= READ_WITHIN {
                return;
            }
        }
    }

    /// Returns for how long nothing was written although there was data to write.
    fn stalled(&self) -> Duration {
        let since_move = self.now().saturating_sub(self.moved_at.load(Ordering::Relaxed));
        self.busy_for().min(Duration::from_millis(since_move))
    }

    fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.now().saturating_sub(since)),
        }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        let now = self.now();
        if self.busy_since.load(Ordering::Relaxed) == 0 {
            self.busy_since.store(now, Ordering::Relaxed);
        }
        if let Poll::Ready(Ok(written)) = written {
            self.written.fetch_add(*written as u64, Ordering::Relaxed);
            self.moved_at.store(now, Ordering::Relaxed);
        }
    }

    /// Returns the milliseconds after `start`, but never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl<I> WatchedConnection<I> {
    pub(super) fn new(io: I, progress: Arc<ReadProgress>) -> Self {
        Self { io, progress }
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WatchedConnection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WatchedConnection<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.progress.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.progress.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        if flushed.is_ready() {
            // Called when all earlier data is written.
            self.progress.busy_since.store(0, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl HttpBody for FramedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let size = self.rest.len().min(FRAME);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(left) => SizeHint::with_exact(left + self.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}

/// The maximum number of bytes of answers under way, and of those to one network: two of the longest, which are lists
/// and logs. Longer, unbounded answers are sent in parts while the client reads.
const MOST_BYTES: usize = 192 << 20;
const MOST_BYTES_PER_NETWORK: usize = 48 << 20;

/// Answers up to this size are not counted, because the connection takes them whole.
const SMALL: u64 = 64 * 1024;

/// The number of bytes passed to the connection at a time, so that the progress of a long answer is visible.
pub(super) const FRAME: usize = 64 * 1024;

/// A client that does not read this many bytes within this time does not want the answer. This is 17 KiB/s.
pub(super) const READ_AT_LEAST: u64 = 512 * 1024;
pub(super) const READ_WITHIN: Duration = Duration::from_secs(30);

/// An answer of which nothing was read for this time is closed if others need room.
const STALLED: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn stuck() -> Arc<ReadProgress> {
        let progress = ReadProgress::new();
        progress.note(&Poll::Pending);
        progress
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_bounded_by_network_and_in_all_and_given_back() {
        let answers = Answers::with_room(100, 60);
        let (progress, lasting) = (ReadProgress::new(), Lasting::default());
        let take = |ip, bytes| answers.take(ip, bytes, &progress, &lasting);
        let first = take(IP, 40).unwrap();
        assert_eq!(take(IP, 30).unwrap_err(), TooManyAnswers);
        let second = take(IP, 20).unwrap();
        assert_eq!(take(OTHER, 50).unwrap_err(), TooManyAnswers, "100 are all");
        let third = take(OTHER, 40).unwrap();
        assert_eq!(answers.bytes(), 100);
        drop((first, second, third));
        let under_way = answers.under_way.lock();
        assert!(under_way.bytes == 0 && under_way.by_network.is_empty());
        drop(under_way);
        assert!(take(IP, 1_000).is_ok(), "one alone may be longer");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_that_was_not_read_for_the_longest_makes_way() {
        let answers = Answers::with_room(100, 60);
        let lasting: Vec<Lasting> = (0..3).map(|_| Lasting::default()).collect();
        let older = stuck();
        let first = answers.take(IP, 30, &older, &lasting[0]).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let read = stuck();
        let second = answers.take(IP, 30, &read, &lasting[1]).unwrap();
        let refused = answers.take(IP, 30, &ReadProgress::new(), &lasting[2]);
        assert!(refused.is_err(), "nobody has waited for long");
        tokio::time::advance(Duration::from_secs(5)).await;
        read.note(&Poll::Ready(Ok(1)));
        let third = answers.take(IP, 30, &ReadProgress::new(), &lasting[2]).unwrap();
        lasting[0].closed().await;
        assert_eq!(answers.bytes(), 60);
        drop(first);
        assert_eq!(answers.bytes(), 60, "its room was given away already");
        drop((second, third));
        assert_eq!(answers.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_all_there_is_reads_enough() {
        let progress = ReadProgress::new();
        let unread = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { progress.unread().await }
        });
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(29)).await;
            progress.note(&Poll::Ready(Ok(10)));
            progress.busy_since.store(0, Ordering::Relaxed);
        }
        // Something that comes late in a span of time has a whole one.
        progress.note(&Poll::Pending);
        tokio::time::sleep(READ_WITHIN - Duration::from_secs(1)).await;
        assert!(!unread.is_finished());
        tokio::time::sleep(READ_WITHIN + Duration::from_secs(2)).await;
        assert!(unread.is_finished());
    }
}
