//! What waits to be sent to one peer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::base::BlockRef;
use crate::wire::{self, Message};

/// The queue between a torrent and one connection's send loop: encoded control messages, which go
/// first, and blocks to upload. The torrent never waits for it and the send loop never waits for
/// the torrent.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    closed: Notify,
    /// Blocks the peer owes us, as far as known here: a hint for the receive loop, how many block
    /// buffers to hold ready.
    outstanding: AtomicU32,
}

/// The peer does not take what it is sent, and too much has piled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not take what it is sent")]
pub struct OutboxFull;

/// What the send loop took.
pub(super) struct Work {
    /// Encoded messages.
    pub control: BytesMut,
    /// Blocks that follow each other in the content.
    pub run: Run,
    /// Nothing will come any more.
    pub closing: bool,
}

/// Blocks that follow each other in the content.
pub(super) type Run = SmallVec<[BlockRef; 32]>;

#[derive(Default)]
struct State {
    control: BytesMut,
    uploads: VecDeque<BlockRef>,
    closing: bool,
}

impl Outbox {
    /// Queues a message; it goes out after [`Outbox::flush`].
    ///
    /// # Errors
    /// If [`CONTROL_LIMIT`] bytes wait already.
    pub fn send(&self, message: &Message) -> Result<(), OutboxFull> {
        match message {
            Message::Request(_) => self.owe(1),
            Message::Cancel(_) => self.settle(1),
            _ => {}
        }
        let mut state = self.state.lock();
        if state.control.len() > CONTROL_LIMIT {
            return Err(OutboxFull);
        }
        wire::encode(message, &mut state.control);
        Ok(())
    }

    /// Queues a block behind those that wait; it goes out after [`Outbox::flush`].
    pub fn upload(&self, block: BlockRef) {
        self.state.lock().uploads.push_back(block);
    }

    /// Takes a block out of the queue. Says whether it was still there.
    pub fn cancel(&self, block: BlockRef) -> bool {
        let mut state = self.state.lock();
        let place = state.uploads.iter().position(|waiting| *waiting == block);
        place.is_some_and(|place| state.uploads.remove(place).is_some())
    }

    /// Wakes the send loop.
    pub fn flush(&self) {
        self.wake.notify_one();
    }

    /// Sends the messages that wait, no more blocks, and then ends the send loop.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.uploads.clear();
        drop(state);
        self.wake.notify_one();
        self.closed.notify_waiters();
    }

    /// Waits for [`Outbox::close`].
    pub(super) async fn closed(&self) {
        let closed = self.closed.notified();
        if !self.state.lock().closing {
            closed.await;
        }
    }

    /// Blocks the peer owes us, a hint.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed) as usize
    }

    /// `blocks` came, or will not come.
    pub fn settle(&self, blocks: u32) {
        // The hint may go wrong by races with cancels; it must not wrap.
        let less = |owed: u32| Some(owed.saturating_sub(blocks));
        let _ = self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Nothing is owed any more: the peer choked us.
    pub fn settle_all(&self) {
        self.outstanding.store(0, Ordering::Relaxed);
    }

    /// Takes all messages, and blocks that follow each other, at most `blocks` of them and
    /// `bytes` bytes (but one in any case).
    pub(super) fn take(&self, blocks: usize, bytes: u64) -> Work {
        let mut state = self.state.lock();
        let run = state.run(blocks, bytes);
        state.uploads.drain(..run.len());
        Work { control: state.control.split(), run, closing: state.closing }
    }

    /// Takes all messages, and no block.
    pub(super) fn take_control(&self) -> Work {
        let mut state = self.state.lock();
        Work { control: state.control.split(), run: Run::new(), closing: state.closing }
    }

    /// Bytes of the blocks that [`Outbox::take`] would give now.
    pub(super) fn next_bytes(&self, blocks: usize, bytes: u64) -> u64 {
        self.state.lock().run(blocks, bytes).iter().map(|block| u64::from(block.len)).sum()
    }

    /// Waits for [`Outbox::flush`] or [`Outbox::close`]; at once if either came since last time.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }

    fn owe(&self, blocks: u32) {
        self.outstanding.fetch_add(blocks, Ordering::Relaxed);
    }
}

impl State {
    /// The blocks to go next.
    fn run(&self, blocks: usize, bytes: u64) -> Run {
        let mut run = Run::new();
        let mut taken = 0;
        for next in self.uploads.iter().take(blocks) {
            let follows = run.last().is_none_or(|last: &BlockRef| {
                last.piece == next.piece && last.begin.wrapping_add(last.len) == next.begin
            });
            taken += u64::from(next.len);
            if !follows || (taken > bytes && !run.is_empty()) {
                break;
            }
            run.push(*next);
        }
        run
    }
}

/// Bytes of control messages that may wait for one peer: a bitfield of the largest torrent taken
/// (2 M pieces, 256 KiB) and some 80,000 HAVEs.
const CONTROL_LIMIT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PieceIndex;

    fn block(piece: u32, begin: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(piece), begin, len: 16_384 }
    }

    #[test]
    fn blocks_go_out_in_runs_that_follow_each_other() {
        let outbox = Outbox::default();
        for b in [block(0, 0), block(0, 16_384), block(0, 49_152), block(1, 0)] {
            outbox.upload(b);
        }
        assert_eq!(outbox.take(8, u64::MAX).run[..], [block(0, 0), block(0, 16_384)]);
        assert_eq!(outbox.take(8, u64::MAX).run[..], [block(0, 49_152)]);
        assert!(outbox.cancel(block(1, 0)));
        assert!(!outbox.cancel(block(1, 0)));
        assert!(outbox.take(8, u64::MAX).run.is_empty());
    }

    #[test]
    fn runs_keep_to_their_limits() {
        let outbox = Outbox::default();
        (0..4).for_each(|i| outbox.upload(block(0, i * 16_384)));
        assert_eq!(outbox.take(1, u64::MAX).run.len(), 1);
        assert_eq!(outbox.take(8, 1).run.len(), 1);
        assert_eq!(outbox.take(8, 40_000).run.len(), 2);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        let outbox = Outbox::default();
        let have = Message::Have(PieceIndex(1));
        let sent = (0..CONTROL_LIMIT).take_while(|_| outbox.send(&have).is_ok()).count();
        assert!(sent < CONTROL_LIMIT / 8);
    }

    #[test]
    fn the_hint_of_what_is_owed_never_wraps() {
        let outbox = Outbox::default();
        outbox.send(&Message::Request(block(0, 0))).unwrap();
        outbox.settle(5);
        assert_eq!(outbox.outstanding(), 0);
    }
}
