//! A connection to a peer, at work.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use piecework_core::{BLOCK_LEN, BlockPool, Geometry, PieceIndex};
use piecework_proto::wire::{DecodeLimits, Message};
use piecework_swarm::PeerKey;

use super::outbox::Debtor;
use super::receiver::{Batch, ReceiveError};
use super::sender::{SendError, SendOutcome, Sender, SentPieces};
use super::{BlockSource, Incoming, Limiter, Outbox, Receiver, RunMemory, SourceError, Stream};

/// Two loops over one stream. Dropping it ends both: the receive loop at once, the send loop when
/// the queued messages are sent or [`LAST_WORDS`] have passed.
pub struct Link {
    outbox: Arc<Outbox>,
    receive_loop: AbortHandle,
}

/// What the loops of a link work with.
pub struct LinkOptions {
    /// The peer's key in its torrent.
    pub peer: PeerKey,
    /// The torrent's geometry.
    pub geometry: Geometry,
    /// Where received blocks go.
    pub pool: BlockPool,
    /// Where sent blocks come from.
    pub source: Arc<dyn BlockSource>,
    /// Memory for long runs of blocks to send, shared by all links.
    pub runs: RunMemory,
    /// Limit of payload sent.
    pub upload: Limiter,
    /// Limit of bytes received.
    pub download: Limiter,
    /// Where the link sends its events.
    pub inputs: Inputs,
}

/// An event of a link.
#[derive(Debug)]
pub enum Input {
    /// The peer has sent these items.
    Received {
        /// The peer's key.
        peer: PeerKey,
        /// The items in order; at least one.
        items: Vec<Incoming>,
    },
    /// Blocks were sent.
    Uploaded {
        /// The peer's key.
        peer: PeerKey,
        /// Number of blocks.
        blocks: u32,
        /// Payload bytes.
        bytes: u64,
        /// The same by piece: index, blocks, bytes.
        pieces: SmallVec<[(PieceIndex, u32, u32); 1]>,
    },
    /// The link has ended. This may come twice.
    Closed {
        /// The peer's key.
        peer: PeerKey,
        /// The reason.
        end: LinkEnd,
    },
    /// Our own content could not be read.
    Unreadable {
        /// The key of the peer that it was read for.
        peer: PeerKey,
        /// The error of the storage.
        error: SourceError,
    },
}

/// Why a link has ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// Receiving ended.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// Sending failed.
    #[error("the connection broke: {0}")]
    Send(#[source] io::Error),
}

/// The channel from links to their torrent. It is bounded: a torrent that cannot keep up stops its
/// peers' receive loops, and so TCP stops the peers. Each [`Input`] is bounded in bytes
/// ([`Batch`]), and so is what waits.
pub type Inputs = mpsc::Sender<Input>;

impl Link {
    /// Starts both loops on the current runtime.
    pub fn start<S: Stream>(stream: Arc<S>, options: LinkOptions) -> Self {
        let LinkOptions { peer, geometry, pool, source, runs, upload, download, inputs } = options;
        let outbox = Arc::new(Outbox::new(geometry.pieces()));
        let receiver = Receiver::new(pool, DecodeLimits::new(geometry.pieces()));
        let receive_loop = tokio::spawn(receive_loop(
            Arc::clone(&stream),
            receiver,
            Arc::clone(&outbox),
            download,
            peer,
            inputs.clone(),
        ));
        let sender = Sender::new(stream, Arc::clone(&outbox), source, geometry, runs, upload);
        tokio::spawn(send_loop(sender, Arc::clone(&outbox), peer, inputs));
        Self { outbox, receive_loop: receive_loop.abort_handle() }
    }

    /// Returns the queue of what is to be sent.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.receive_loop.abort();
        self.outbox.close();
    }
}

async fn receive_loop<S: Stream>(
    stream: Arc<S>,
    mut receiver: Receiver,
    outbox: Arc<Outbox>,
    limiter: Limiter,
    peer: PeerKey,
    inputs: Inputs,
) {
    let end = loop {
        let mut batch = Batch::default();
        let read = receive(&*stream, &mut receiver, &outbox, limiter.chunk(), &mut batch).await;
        if !batch.is_empty() {
            let items = batch.into_items();
            if inputs.send(Input::Received { peer, items }).await.is_err() {
                return;
            }
        }
        match read {
            // What has come is handed on: only the next bytes wait.
            Ok(bytes) => limiter.take(bytes as u64).await,
            Err(end) => break end,
        }
    };
    // A torrent that is gone need not be told.
    let _ = inputs.send(Input::Closed { peer, end: LinkEnd::Receive(end) }).await;
}

/// Reads as long as there is something and the batch is not full, up to [`BATCH_BYTES`] and the
/// `chunk` that the rate limit allows at a time. Returns the number of bytes.
async fn receive<S: Stream>(
    stream: &S,
    receiver: &mut Receiver,
    outbox: &Outbox,
    chunk: u64,
    batch: &mut Batch,
) -> Result<usize, ReceiveError> {
    let most = usize::try_from(chunk).unwrap_or(usize::MAX).min(BATCH_BYTES);
    let blocks = (most / BLOCK_LEN as usize).max(1);
    let mut bytes = 0;
    while bytes < most && !batch.is_full() {
        let seen = batch.items().len();
        let expected = outbox.outstanding().min(blocks);
        match fill(stream, receiver, outbox, expected, batch) {
            Ok(read) => bytes += read,
            Err(ReceiveError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(ReceiveError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                if bytes > 0 || !batch.is_empty() {
                    break;
                }
                wait(stream, receiver, outbox).await?;
            }
            Err(e) => return Err(e),
        }
        settle(outbox, &batch.items()[seen..]);
    }
    Ok(bytes)
}

/// Reads once. The list of what the peer owes is locked only from the first block of the read on.
fn fill<S: Stream>(
    stream: &S,
    receiver: &mut Receiver,
    outbox: &Outbox,
    expected: usize,
    batch: &mut Batch,
) -> Result<usize, ReceiveError> {
    let mut debtor: Option<Debtor<'_>> = None;
    let claim = |block| debtor.get_or_insert_with(|| outbox.debtor()).claim(block);
    receiver.fill(expected, |slices| stream.try_read(slices), claim, batch)
}

/// Waits until there is something to read. A quiet peer costs no buffers, even if it owes us
/// blocks: it may never send them.
async fn wait<S: Stream>(
    stream: &S,
    receiver: &mut Receiver,
    outbox: &Outbox,
) -> Result<(), ReceiveError> {
    if outbox.outstanding() > 0
        && let Ok(ready) = tokio::time::timeout(LULL, stream.readable()).await
    {
        return Ok(ready?);
    }
    receiver.rest();
    Ok(stream.readable().await?)
}

/// Notes what the peer will not send.
fn settle(outbox: &Outbox, items: &[Incoming]) {
    for item in items {
        match item {
            Incoming::Message(Message::Reject(block)) => outbox.debtor().refused(*block),
            Incoming::Message(Message::Choke) => outbox.debtor().choked(),
            Incoming::Message(_) | Incoming::Block { .. } | Incoming::Unasked { .. } => {}
        }
    }
}

async fn send_loop<S: Stream>(
    mut sender: Sender<S>,
    outbox: Arc<Outbox>,
    peer: PeerKey,
    inputs: Inputs,
) {
    let end = loop {
        let turn = tokio::select! {
            turn = sender.turn() => turn,
            () = overdue(&outbox) => return,
        };
        match turn {
            Ok(SendOutcome::Blocks(pieces)) => {
                if inputs.send(uploaded(peer, pieces)).await.is_err() {
                    return;
                }
            }
            Ok(SendOutcome::Other) => {}
            Ok(SendOutcome::Finished) => return,
            Err(SendError::Source(error)) => {
                let _ = inputs.send(Input::Unreadable { peer, error }).await;
                return;
            }
            Err(SendError::Io(error)) => break error,
        }
    };
    let _ = inputs.send(Input::Closed { peer, end: LinkEnd::Send(end) }).await;
}

fn uploaded(peer: PeerKey, pieces: SentPieces) -> Input {
    let blocks = pieces.iter().map(|(_, blocks, _)| *blocks).sum();
    let bytes = pieces.iter().map(|(_, _, bytes)| u64::from(*bytes)).sum();
    Input::Uploaded { peer, blocks, bytes, pieces }
}

/// Ends [`LAST_WORDS`] after the outbox was closed.
async fn overdue(outbox: &Outbox) {
    outbox.closed().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// Time for a closed link to send what is queued.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes read before the torrent hears of them: enough that it wakes once for many blocks, few
/// enough that requests are refilled in time.
const BATCH_BYTES: usize = 512 << 10;

/// Time without a byte after which a peer counts as quiet.
const LULL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::ReadFuture;
    use super::super::fake::FakeStream;
    use super::*;
    use piecework_core::{BlockRef, PieceIndex};
    use piecework_proto::wire;

    struct Nothing;

    impl BlockSource for Nothing {
        fn try_read(&self, _: u64, _: &mut [u8]) -> Result<bool, SourceError> {
            Err(SourceError::Ended)
        }

        fn read(&self, _: u64, into: Vec<u8>) -> ReadFuture {
            Box::pin(async { Ok(into) })
        }
    }

    fn link(
        stream: &FakeStream,
        pool: &BlockPool,
        limit: Option<u64>,
    ) -> (Link, mpsc::Receiver<Input>) {
        let (inputs, heard) = mpsc::channel(4);
        let options = LinkOptions {
            peer: PeerKey(7),
            geometry: Geometry::new(1 << 20, 1 << 20).unwrap(),
            pool: pool.clone(),
            source: Arc::new(Nothing),
            runs: RunMemory::new(0),
            upload: Limiter::new(None),
            download: Limiter::new(limit),
            inputs,
        };
        (Link::start(Arc::new(stream.clone()), options), heard)
    }

    fn block(index: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(0), begin: index * BLOCK_LEN, len: BLOCK_LEN }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_is_told_at_once_and_only_the_next_waits_for_the_rate_limit() {
        let (stream, pool) = (FakeStream::default(), BlockPool::new(64));
        let (link, mut heard) = link(&stream, &pool, Some(1_000));
        let blocks: Vec<BlockRef> = (0..16).map(block).collect();
        for block in &blocks {
            link.outbox().send(&Message::Request(*block)).unwrap();
        }
        let start = tokio::time::Instant::now();
        for block in &blocks {
            stream.send(&wire::piece_header(*block));
            stream.send(&vec![1; BLOCK_LEN as usize]);
        }
        let Some(Input::Received { items, .. }) = heard.recv().await else { panic!() };
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(items.len() <= 2, "{} blocks at once", items.len());
        assert!(stream.unread() > 12 * BLOCK_LEN as usize);
        // The first is granted before anything is owed.
        let Some(Input::Received { .. }) = heard.recv().await else { panic!() };
        let Some(Input::Received { .. }) = heard.recv().await else { panic!() };
        assert!(start.elapsed() > Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_owes_blocks_and_is_quiet_holds_no_buffers() {
        let (stream, pool) = (FakeStream::default(), BlockPool::new(64));
        let (link, mut heard) = link(&stream, &pool, None);
        for index in 0..16 {
            link.outbox().send(&Message::Request(block(index))).unwrap();
        }
        stream.send(&wire::piece_header(block(0)));
        stream.send(&vec![1; BLOCK_LEN as usize]);
        let Some(Input::Received { items, .. }) = heard.recv().await else { panic!() };
        drop(items);
        tokio::time::sleep(2 * LULL).await;
        assert_eq!(pool.spare(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_small_messages_comes_in_small_batches() {
        // Whether it owes us blocks or not: then they are read into block buffers.
        for owed in [0, 16] {
            let (stream, pool) = (FakeStream::default(), BlockPool::new(64));
            let (link, mut heard) = link(&stream, &pool, None);
            for index in 0..owed {
                link.outbox().send(&Message::Request(block(index))).unwrap();
            }
            stream.send(&[0; 400_000]);
            let mut seen = 0;
            while seen < 100_000 {
                let Some(Input::Received { items, .. }) = heard.recv().await else { panic!() };
                assert!(items.len() <= 1_000, "{} at once", items.len());
                seen += items.len();
            }
        }
    }
}
