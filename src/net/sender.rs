//! From the outbox to the socket: one read and one vectored write for a run of blocks.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::base::Geometry;
use crate::wire::{self, PIECE_HEADER_LEN};

use super::outbox::{Outbox, Run};
use super::{Limiter, Stream};

/// Where the bytes of blocks come from. The swarm has made sure that they are verified.
pub trait BlockSource: Send + Sync + 'static {
    /// Fills `into` from `offset` in the content if that needs no waiting for a disk; says
    /// whether it did.
    fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError>;

    /// Fills `into` from `offset` on a thread that may wait, and gives it back.
    fn read(&self, offset: u64, into: Vec<u8>) -> ReadFuture;
}

/// A read under way.
pub type ReadFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, SourceError>> + Send>>;

/// The content could not be read: a fault of the torrent, not of the peer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Why sending ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Source(#[from] SourceError),
}

/// What one turn of the loop did.
pub(super) enum Sent {
    /// Blocks, payload bytes.
    Blocks(u32, u64),
    /// Messages only, or nothing.
    Other,
    /// The outbox is closed and empty.
    Finished,
}

pub(super) struct Sender<S> {
    stream: Arc<S>,
    outbox: Arc<Outbox>,
    source: Arc<dyn BlockSource>,
    geometry: Geometry,
    limiter: Limiter,
    /// Bytes of the run being sent; given up while there is nothing to send.
    buffer: Vec<u8>,
    /// Blocks to send at a time: grows while the peer takes them fast.
    run_blocks: usize,
}

impl<S: Stream> Sender<S> {
    pub(super) fn new(
        stream: Arc<S>,
        outbox: Arc<Outbox>,
        source: Arc<dyn BlockSource>,
        geometry: Geometry,
        limiter: Limiter,
    ) -> Self {
        Self {
            stream,
            outbox,
            source,
            geometry,
            limiter,
            buffer: Vec::new(),
            run_blocks: RUN_BLOCKS_FIRST,
        }
    }

    /// Sends what there is, or waits until there is something.
    pub(super) async fn turn(&mut self) -> Result<Sent, SendError> {
        let chunk = self.limiter.chunk();
        let work = self.outbox.take(self.run_blocks, chunk);
        if work.run.is_empty() {
            if !work.control.is_empty() {
                self.write(&mut [IoSlice::new(&work.control)]).await?;
                return Ok(Sent::Other);
            }
            if work.closing {
                return Ok(Sent::Finished);
            }
            self.buffer = Vec::new();
            self.outbox.wait().await;
            return Ok(Sent::Other);
        }
        let bytes: u64 = work.run.iter().map(|block| u64::from(block.len)).sum();
        let mut control = &work.control[..];
        if chunk != u64::MAX {
            // Messages do not wait for the rate limit.
            self.write(&mut [IoSlice::new(control)]).await?;
            control = &[];
            self.limiter.take(bytes).await;
        }
        self.load(&work.run, bytes as usize).await?;
        let start = Instant::now();
        self.write_run(control, &work.run).await?;
        self.adapt(start.elapsed(), work.run.len());
        Ok(Sent::Blocks(work.run.len() as u32, bytes))
    }

    async fn load(&mut self, run: &Run, bytes: usize) -> Result<(), SourceError> {
        let Some(first) = run.first() else { return Ok(()) };
        let offset = self.geometry.block_span(*first).start;
        // `resize` writes zeros only where the buffer grows, which it does a few times in all.
        self.buffer.resize(bytes, 0);
        if !self.source.try_read(offset, &mut self.buffer)? {
            let buffer = std::mem::take(&mut self.buffer);
            self.buffer = self.source.read(offset, buffer).await?;
        }
        Ok(())
    }

    async fn write_run(&self, control: &[u8], run: &Run) -> io::Result<()> {
        let headers: SmallVec<[[u8; PIECE_HEADER_LEN]; RUN_BLOCKS_MOST]> =
            run.iter().map(|block| wire::piece_header(*block)).collect();
        let mut slices = SmallVec::<[IoSlice<'_>; 2 * RUN_BLOCKS_MOST + 1]>::new();
        slices.push(IoSlice::new(control));
        let mut rest = &self.buffer[..];
        for (header, block) in headers.iter().zip(run) {
            let (payload, behind) = rest.split_at(block.len as usize);
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(payload));
            rest = behind;
        }
        self.write(&mut slices).await
    }

    async fn write(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.stream.try_write(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A peer that takes a run within some milliseconds gets longer ones; a slow one shorter, so
    /// that it holds little memory and its cancels come in time.
    fn adapt(&mut self, took: Duration, sent: usize) {
        if took < RUN_QUICK && sent == self.run_blocks {
            self.run_blocks = (self.run_blocks * 2).min(RUN_BLOCKS_MOST);
        } else if took > RUN_SLOW {
            self.run_blocks = (self.run_blocks / 2).max(1);
        }
    }
}

/// 64 KiB to begin with.
const RUN_BLOCKS_FIRST: usize = 4;
/// 512 KiB: reading and writing that much at a time costs half of what 16 KiB at a time does.
const RUN_BLOCKS_MOST: usize = 32;
const RUN_QUICK: Duration = Duration::from_millis(20);
const RUN_SLOW: Duration = Duration::from_millis(200);
