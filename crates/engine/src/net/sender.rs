//! From the outbox to the socket: one read and one vectored write for a run of blocks.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::time::Instant;

use piecework_core::metainfo::TorrentBytes;
use piecework_core::{BLOCK_LEN, BlockRef, Geometry, PieceIndex};
use piecework_proto::wire::{self, Message, MetadataMessage, PIECE_HEADER_LEN};
use piecework_storage::StorageError;

use super::outbox::Outbox;
use super::runs::{RunGrant, RunMemory};
use super::{Limiter, Stream};

/// The source of blocks to send. The swarm has made sure that they are verified.
pub trait BlockSource: Send + Sync + 'static {
    /// Fills `into` from `offset` in the content if that needs no waiting for a disk. Returns
    /// whether it did.
    fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError>;

    /// Fills `into` from `offset` on a thread that may block, and returns it.
    fn read(&self, offset: u64, into: Vec<u8>) -> ReadFuture;

    /// Returns the torrent, whose metadata is sent. `None` if it cannot be read.
    fn torrent(&self) -> TorrentFuture {
        Box::pin(std::future::ready(None))
    }
}

/// A read that is under way.
pub type ReadFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, SourceError>> + Send>>;

/// The bytes of a torrent, which may have to be read.
pub type TorrentFuture = Pin<Box<dyn Future<Output = Option<TorrentBytes>> + Send>>;

/// The content could not be read: a fault of the torrent, not of the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The session ends, and nothing is read any more.
    #[error("the session is shutting down")]
    Ended,
}

/// Why sending ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Source(#[from] SourceError),
}

/// What was sent of some pieces: index, blocks, bytes. Most often one.
pub(super) type SentPieces = SmallVec<[(PieceIndex, u32, u32); 1]>;

/// The result of one turn of the loop.
pub(super) enum SendOutcome {
    /// Blocks were sent: by piece the index, number of blocks, and bytes.
    Blocks(SentPieces),
    /// Only messages were sent, or nothing.
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
    /// Bytes of the run being sent. Freed while there is nothing to send.
    buffer: Vec<u8>,
    /// Blocks to send at a time. It grows while the peer takes them fast.
    run_blocks: usize,
    runs: RunMemory,
    /// Memory granted for a buffer that is longer than what is free for everybody.
    grant: Option<RunGrant>,
}

impl<S: Stream> Sender<S> {
    pub(super) fn new(
        stream: Arc<S>,
        outbox: Arc<Outbox>,
        source: Arc<dyn BlockSource>,
        geometry: Geometry,
        runs: RunMemory,
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
            runs,
            grant: None,
        }
    }

    /// Sends what there is, or waits until there is something.
    pub(super) async fn turn(&mut self) -> Result<SendOutcome, SendError> {
        let chunk = self.limiter.chunk();
        let limited = chunk != u64::MAX;
        let blocks = self.run_most();
        let mut paid = 0;
        if limited {
            paid = self.outbox.next_bytes(blocks, chunk);
            if paid > 0 {
                self.pay(paid).await?;
            }
        }
        let work = self.outbox.take(blocks, if limited { paid } else { chunk });
        let bytes: u64 = work.run.iter().map(|block| u64::from(block.len)).sum();
        if bytes != paid && limited {
            // Blocks were cancelled meanwhile, or came.
            self.limiter.settle(paid, bytes);
        }
        if let Some((id, piece)) = work.metadata {
            self.write(&mut [IoSlice::new(&work.control)]).await?;
            self.give_metadata(id, piece).await?;
            return Ok(SendOutcome::Other);
        }
        if work.run.is_empty() {
            if !work.control.is_empty() {
                self.write(&mut [IoSlice::new(&work.control)]).await?;
                return Ok(SendOutcome::Other);
            }
            if work.closing {
                return Ok(SendOutcome::Finished);
            }
            self.wait().await;
            return Ok(SendOutcome::Other);
        }
        self.load(&work.run).await?;
        let start = Instant::now();
        self.write_run(&work.control, &work.run).await?;
        self.adapt(start.elapsed(), work.run.len());
        Ok(SendOutcome::Blocks(by_piece(&work.run)))
    }

    /// Returns how many blocks the next run may have.
    fn run_most(&mut self) -> usize {
        const FREE: usize = RunMemory::FREE / BLOCK_LEN as usize;
        if self.run_blocks <= FREE {
            return self.run_blocks;
        }
        if self.grant.is_none() {
            self.grant = self.runs.take(RUN_BLOCKS_MOST * BLOCK_LEN as usize);
        }
        if self.grant.is_some() { self.run_blocks } else { FREE }
    }

    fn drop_buffer(&mut self) {
        self.buffer = Vec::new();
        self.grant = None;
    }

    /// Waits until `bytes` of blocks may be sent. Messages are sent meanwhile, and the blocks stay
    /// where they can be cancelled.
    async fn pay(&self, bytes: u64) -> io::Result<()> {
        let take = self.limiter.take(bytes);
        tokio::pin!(take);
        let mut paid = false;
        loop {
            let work = self.outbox.take_control();
            if !work.control.is_empty() {
                let mut slices = [IoSlice::new(&work.control)];
                let write = self.write(&mut slices);
                tokio::pin!(write);
                loop {
                    tokio::select! {
                        written = &mut write => break written?,
                        // A peer that takes nothing must not keep the others from their turn.
                        () = &mut take, if !paid => paid = true,
                    }
                }
            }
            if paid || work.closing {
                return Ok(());
            }
            tokio::select! {
                () = &mut take => paid = true,
                () = self.outbox.wait() => {}
            }
        }
    }

    /// Sends a piece of the metadata, or a rejection if it cannot be read.
    async fn give_metadata(&self, id: u8, piece: u32) -> io::Result<()> {
        let torrent = self.source.torrent().await;
        let data = torrent.and_then(|torrent| MetadataMessage::data(torrent.info(), piece));
        let payload = data.unwrap_or(MetadataMessage::Reject { piece }).encode();
        self.pay(payload.len() as u64).await?;
        let mut message = BytesMut::new();
        wire::encode(&Message::Extended { id, payload }, &mut message);
        self.write(&mut [IoSlice::new(&message)]).await
    }

    /// Waits until there is something. Frees the buffer if that takes long.
    async fn wait(&mut self) {
        if !self.buffer.is_empty() {
            if tokio::time::timeout(LULL, self.outbox.wait()).await.is_ok() {
                return;
            }
            self.drop_buffer();
        }
        self.outbox.wait().await;
    }

    /// Reads the blocks of `run` to the front of the buffer.
    async fn load(&mut self, run: &[BlockRef]) -> Result<(), SourceError> {
        let Some(first) = run.first() else { return Ok(()) };
        let offset = self.geometry.block_span(*first).start;
        let bytes = run.iter().map(|block| block.len as usize).sum();
        if self.buffer.len() < bytes {
            // It only grows: each time it does costs zeros.
            self.buffer.resize(bytes, 0);
        }
        if !self.source.try_read(offset, &mut self.buffer[..bytes])? {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.truncate(bytes);
            self.buffer = self.source.read(offset, buffer).await?;
        }
        Ok(())
    }

    /// Writes `control`, then the blocks of `run`, which are in the buffer. If the peer stops
    /// taking them, the buffer is freed, and what is left is sent block by block.
    async fn write_run(&mut self, control: &[u8], run: &[BlockRef]) -> Result<(), SendError> {
        let headers: SmallVec<[[u8; PIECE_HEADER_LEN]; RUN_BLOCKS_MOST]> =
            run.iter().map(|block| wire::piece_header(*block)).collect();
        let all =
            control.len() + run.iter().map(|b| PIECE_HEADER_LEN + b.len as usize).sum::<usize>();
        let left = self.write_quickly(control, &headers, run, all).await?;
        if left == 0 {
            return Ok(());
        }
        self.drop_buffer();
        self.run_blocks = 1;
        let mut written = all - left;
        let behind = control.get(written..).unwrap_or_default();
        self.write(&mut [IoSlice::new(behind)]).await?;
        written = written.saturating_sub(control.len());
        for (header, block) in headers.iter().zip(run) {
            let whole = PIECE_HEADER_LEN + block.len as usize;
            if written < whole {
                self.stream.writable().await?;
                self.load(std::slice::from_ref(block)).await?;
                let payload = &self.buffer[..block.len as usize];
                let mut slices = [IoSlice::new(header), IoSlice::new(payload)];
                let mut slices = &mut slices[..];
                IoSlice::advance_slices(&mut slices, written);
                self.write(slices).await?;
            }
            written = written.saturating_sub(whole);
        }
        Ok(())
    }

    /// Writes as long as the peer takes something, [`RUN_SLOWEST`] at most. Returns what is left of
    /// `left` bytes.
    async fn write_quickly(
        &self,
        control: &[u8],
        headers: &[[u8; PIECE_HEADER_LEN]],
        run: &[BlockRef],
        mut left: usize,
    ) -> io::Result<usize> {
        let mut slices = SmallVec::<[IoSlice<'_>; 2 * RUN_BLOCKS_MOST + 1]>::new();
        slices.push(IoSlice::new(control));
        let mut rest = &self.buffer[..];
        for (header, block) in headers.iter().zip(run) {
            let (payload, behind) = rest.split_at(block.len as usize);
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(payload));
            rest = behind;
        }
        let mut slices = &mut slices[..];
        let mut end = None;
        while left > 0 {
            if let Some(written) = self.write_some(slices)? {
                left -= written;
                IoSlice::advance_slices(&mut slices, written);
                continue;
            }
            let now = Instant::now();
            let end = *end.get_or_insert(now + RUN_SLOWEST);
            let lull = LULL.min(end.saturating_duration_since(now));
            match tokio::time::timeout(lull, self.stream.writable()).await {
                Ok(ready) => ready?,
                Err(_) => break,
            }
        }
        Ok(left)
    }

    async fn write(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.write_some(slices)? {
                Some(written) => IoSlice::advance_slices(&mut slices, written),
                None => self.stream.writable().await?,
            }
        }
        Ok(())
    }

    /// Writes what fits; `None` if nothing does.
    fn write_some(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.try_write(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(Some(written)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// A peer that takes a run within some milliseconds gets longer ones. A slow one gets shorter
    /// ones, so that it holds little memory and its cancels come in time.
    fn adapt(&mut self, took: Duration, sent: usize) {
        if took < RUN_QUICK && sent == self.run_blocks {
            self.run_blocks = (self.run_blocks * 2).min(RUN_BLOCKS_MOST);
        } else if took > RUN_SLOW {
            self.run_blocks = (self.run_blocks / 2).max(1);
        }
    }
}

/// Returns the blocks and bytes of each piece in a run.
fn by_piece(run: &[BlockRef]) -> SentPieces {
    let mut pieces = SentPieces::new();
    for block in run {
        match pieces.last_mut() {
            Some((piece, blocks, bytes)) if *piece == block.piece => {
                *blocks += 1;
                *bytes += block.len;
            }
            _ => pieces.push((block.piece, 1, block.len)),
        }
    }
    pieces
}

/// 64 KiB at first.
const RUN_BLOCKS_FIRST: usize = 4;
/// 512 KiB: reading and writing that much at a time costs half of what 16 KiB at a time does.
const RUN_BLOCKS_MOST: usize = 32;
const RUN_QUICK: Duration = Duration::from_millis(20);
const RUN_SLOW: Duration = Duration::from_millis(200);
/// Time without anything to send after which the buffer is freed: there may be a thousand peers.
const LULL: Duration = Duration::from_secs(1);
/// A run is not held for longer. What is left of it is read again block by block, so that a peer
/// that takes some bytes now and then holds one block.
const RUN_SLOWEST: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::fake::FakeStream;
    use super::*;
    use piecework_proto::wire::Message;

    /// Content in which every byte says where it stands.
    struct Pattern;

    fn at(offset: u64) -> u8 {
        (offset / 7 % 251) as u8
    }

    impl BlockSource for Pattern {
        fn try_read(&self, offset: u64, into: &mut [u8]) -> Result<bool, SourceError> {
            (offset..).zip(into).for_each(|(offset, byte)| *byte = at(offset));
            Ok(true)
        }

        fn read(&self, _: u64, into: Vec<u8>) -> ReadFuture {
            Box::pin(async { Ok(into) })
        }
    }

    fn block(index: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(0), begin: index * BLOCK_LEN, len: BLOCK_LEN }
    }

    fn sender(limit: Option<u64>) -> (Sender<FakeStream>, FakeStream, Arc<Outbox>, Limiter) {
        let (stream, outbox) = (FakeStream::default(), Arc::new(Outbox::new(1)));
        let geometry = Geometry::new(1 << 20, 1 << 20).unwrap();
        let limiter = Limiter::new(limit);
        let sender = Sender::new(
            Arc::new(stream.clone()),
            Arc::clone(&outbox),
            Arc::new(Pattern),
            geometry,
            RunMemory::new(0),
            limiter.clone(),
        );
        (sender, stream, outbox, limiter)
    }

    fn wire_of(message: &Message) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        wire::encode(message, &mut bytes);
        bytes.to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_holds_no_large_buffer_and_gets_every_byte() {
        let have = Message::Have(PieceIndex(9));
        let mut expected = wire_of(&have);
        for index in 0..4 {
            expected.extend_from_slice(&wire::piece_header(block(index)));
            let start = u64::from(index * BLOCK_LEN);
            expected.extend((start..start + u64::from(BLOCK_LEN)).map(at));
        }
        // Stalls inside the message, a header, a block, and between blocks.
        for first in [3, 9 + 5, 9 + 13 + 100, 9 + 13 + BLOCK_LEN as usize, 40_000] {
            let (mut sender, stream, outbox, _) = sender(None);
            outbox.send(&have).unwrap();
            (0..4).for_each(|index| outbox.upload(block(index)));
            stream.take(first);
            let reader = stream.clone();
            let sending = async {
                let sent = sender.turn().await.unwrap();
                assert!(matches!(sent, SendOutcome::Blocks(pieces) if pieces[0].1 == 4));
                sender
            };
            let reading = async {
                reader.until_written(|bytes| bytes.len() == first).await;
                tokio::time::sleep(2 * LULL).await;
                for _ in 0..100 {
                    reader.take(1_000);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let (sender, ()) = tokio::join!(sending, reading);
            assert!(stream.written() == expected, "stalled after {first} bytes");
            assert!(sender.buffer.capacity() <= BLOCK_LEN as usize);
            assert_eq!(sender.run_blocks, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_byte_now_and_then_holds_one_block() {
        let (mut sender, stream, outbox, _) = sender(None);
        (0..4).for_each(|index| outbox.upload(block(index)));
        stream.take(1);
        let reader = stream.clone();
        let dripping = async {
            for _ in 0..1_000_000 {
                tokio::time::sleep(LULL / 2).await;
                reader.take(1);
            }
        };
        tokio::select! {
            _ = sender.turn() => panic!("64 KiB cannot be out"),
            () = dripping => {}
            () = tokio::time::sleep(2 * RUN_SLOWEST) => {}
        }
        assert!(sender.buffer.capacity() <= BLOCK_LEN as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn runs_of_a_fast_peer_are_long_as_far_as_there_is_memory_for_them() {
        for (memory, most) in [(0, RunMemory::FREE), (1 << 20, 512 << 10)] {
            let (mut sender, stream, outbox, _) = sender(None);
            sender.runs = RunMemory::new(memory);
            stream.take(usize::MAX / 2);
            let mut longest = 0;
            for _ in 0..8 {
                (0..32).for_each(|index| outbox.upload(block(index)));
                for _ in 0..32 {
                    let Ok(SendOutcome::Blocks(_)) = sender.turn().await else { panic!() };
                    longest = longest.max(sender.buffer.len());
                    if outbox.next_bytes(1, u64::MAX) == 0 {
                        break;
                    }
                }
            }
            assert_eq!(longest, most);
            sender.drop_buffer();
            assert!(sender.runs.take(RunMemory::FREE + memory).is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_do_not_wait_for_the_rate_limit_and_blocks_that_do_can_be_cancelled() {
        let (mut sender, stream, outbox, limiter) = sender(Some(1));
        limiter.take(1 << 20).await;
        stream.take(1 << 20);
        outbox.upload(block(0));
        let start = Instant::now();
        let have = Message::Have(PieceIndex(9));
        let telling = async {
            tokio::task::yield_now().await;
            outbox.send(&have).unwrap();
            outbox.flush();
            stream.until_written(|bytes| !bytes.is_empty()).await;
            assert!(outbox.cancel(block(0)));
            limiter.set(None);
        };
        let sending = async { while sender.turn().await.is_ok() {} };
        tokio::select! {
            () = sending => panic!("it ended"),
            () = telling => {}
        }
        assert_eq!(stream.written(), wire_of(&have));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_does_not_keep_others_from_their_share() {
        let (mut sender, _stream, outbox, limiter) = sender(Some(1_000));
        limiter.take(1_000).await;
        outbox.upload(block(0));
        let stuck = async {
            let _ = sender.turn().await;
        };
        let others = async {
            tokio::task::yield_now().await;
            // Now it waits for the rate, and then this message for the peer.
            outbox.send(&Message::Unchoke).unwrap();
            outbox.flush();
            tokio::task::yield_now().await;
            limiter.take(1_000).await;
        };
        tokio::select! {
            () = stuck => panic!("nothing could be sent"),
            () = others => {}
        }
    }
}
