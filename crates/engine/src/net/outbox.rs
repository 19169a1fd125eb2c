//! What is queued to be sent to one peer, and the blocks that it owes us.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use tokio::sync::Notify;

use piecework_core::{Bitfield, BlockRef, PieceIndex};
use piecework_proto::wire::{self, Message};

use super::receiver::Claim;

/// The queue between a torrent and one connection's send loop: encoded control messages, which go
/// first, and blocks to upload. Neither the torrent nor the send loop waits for the other.
///
/// It also lists the blocks that were requested, so that the receive loop keeps no others.
pub struct Outbox {
    state: Mutex<OutboxContent>,
    wake: Notify,
    closed: Notify,
    /// Length of [`Debts::owed`], for the receive loop: how many block buffers to hold ready.
    outstanding: AtomicUsize,
    pieces: u32,
}

/// The peer does not read what it is sent, and too much has piled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not read the messages sent to it")]
pub struct OutboxFull;

/// What the send loop has taken.
pub(super) struct SendWork {
    /// Encoded messages.
    pub control: BytesMut,
    /// Blocks that are contiguous in the content.
    pub run: BlockRun,
    /// A piece of the metadata, with the peer's number of the extension. Then there are no blocks.
    pub metadata: Option<(u8, u32)>,
    /// Whether nothing more will come.
    pub closing: bool,
}

/// Blocks that are contiguous in the content.
pub(super) type BlockRun = SmallVec<[BlockRef; 32]>;

/// The blocks that a peer owes. They are locked as long as this lives.
pub(super) struct Debtor<'a> {
    state: MutexGuard<'a, OutboxContent>,
    outstanding: &'a AtomicUsize,
}

#[derive(Default)]
struct OutboxContent {
    control: BytesMut,
    /// Bytes of control messages that the send loop last took and may still be writing.
    in_hand: usize,
    /// HAVE messages for a peer that reads slowly: one bit each instead of nine bytes.
    haves: Option<Bitfield>,
    uploads: VecDeque<BlockRef>,
    /// Requested pieces of the metadata, each with the peer's number of the extension.
    metadata: VecDeque<(u8, u32)>,
    closing: bool,
    debts: Debts,
}

#[derive(Default)]
struct Debts {
    /// Requests that were sent and not answered, in order. Peers answer in order, so a block is
    /// mostly the first one.
    owed: VecDeque<BlockRef>,
    /// Requests that were cancelled and not answered: the answer may be on its way.
    late: VecDeque<BlockRef>,
}

impl Outbox {
    /// Returns an empty outbox for a peer of a torrent of `pieces` pieces.
    pub fn new(pieces: u32) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            closed: Notify::new(),
            outstanding: AtomicUsize::new(0),
            pieces,
        }
    }

    /// Queues a message, which is sent after [`Outbox::flush`].
    ///
    /// # Errors
    /// If [`CONTROL_LIMIT`] bytes and a bitfield are queued already. HAVE messages never fail:
    /// those that the peer has not read are kept as a bitfield.
    pub fn send(&self, message: &Message) -> Result<(), OutboxFull> {
        let mut state = self.state.lock();
        let waiting = state.control.len() + state.in_hand;
        if let Message::Have(piece) = message
            && (waiting >= HAVES_LIMIT || state.haves.is_some())
        {
            state.haves.get_or_insert_with(|| Bitfield::empty(self.pieces)).insert(*piece);
            return Ok(());
        }
        if waiting > CONTROL_LIMIT + self.pieces as usize / 8 {
            return Err(OutboxFull);
        }
        match message {
            Message::Request(block) => state.debts.asked(*block),
            Message::Cancel(block) => state.debts.cancelled(*block),
            _ => {}
        }
        self.outstanding.store(state.debts.owed.len(), Ordering::Relaxed);
        wire::encode(message, &mut state.control);
        Ok(())
    }

    /// Queues a block after the others. It is sent after [`Outbox::flush`].
    pub fn upload(&self, block: BlockRef) {
        self.state.lock().uploads.push_back(block);
    }

    /// Queues a piece of the metadata, to be sent in a message with the number `id`. Returns `false` if too many wait.
    pub fn give_metadata(&self, id: u8, piece: u32) -> bool {
        let mut state = self.state.lock();
        let has_room = state.metadata.len() < METADATA_WAITING;
        if has_room {
            state.metadata.push_back((id, piece));
        }
        has_room
    }

    /// Removes a block from the queue. Returns whether it was still there.
    pub fn cancel(&self, block: BlockRef) -> bool {
        let mut state = self.state.lock();
        let place = state.uploads.iter().position(|waiting| *waiting == block);
        place.is_some_and(|place| state.uploads.remove(place).is_some())
    }

    /// Wakes the send loop.
    pub fn flush(&self) {
        self.wake.notify_one();
    }

    /// Sends the queued messages, drops the blocks, and then ends the send loop.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.uploads.clear();
        state.metadata.clear();
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

    /// Returns the number of blocks that the peer owes us.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Locks the list of blocks that the peer owes.
    pub(super) fn debtor(&self) -> Debtor<'_> {
        Debtor { state: self.state.lock(), outstanding: &self.outstanding }
    }

    /// Takes all messages, and contiguous blocks: at most `blocks` of them and `bytes` bytes, but
    /// at least one. A piece of the metadata comes before blocks.
    pub(super) fn take(&self, blocks: usize, bytes: u64) -> SendWork {
        let mut state = self.state.lock();
        let metadata = state.metadata.pop_front();
        let run = if metadata.is_none() { state.run(blocks, bytes) } else { BlockRun::new() };
        state.uploads.drain(..run.len());
        SendWork { control: state.take_control(), run, metadata, closing: state.closing }
    }

    /// Takes all messages, but no blocks.
    pub(super) fn take_control(&self) -> SendWork {
        let mut state = self.state.lock();
        let control = state.take_control();
        SendWork { control, run: BlockRun::new(), metadata: None, closing: state.closing }
    }

    /// Returns the bytes of the blocks that [`Outbox::take`] would return now.
    pub(super) fn next_bytes(&self, blocks: usize, bytes: u64) -> u64 {
        self.state.lock().run(blocks, bytes).iter().map(|block| u64::from(block.len)).sum()
    }

    /// Waits for [`Outbox::flush`] or [`Outbox::close`]. Returns at once if either was called since
    /// the last time.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }
}

impl Debtor<'_> {
    /// Takes a block that has come off the list. Returns whether it was on it.
    pub(super) fn claim(&mut self, block: BlockRef) -> Claim {
        let debts = &mut self.state.debts;
        if take(&mut debts.owed, block) {
            return Claim::Owed;
        }
        if take(&mut debts.late, block) { Claim::Late } else { Claim::Unasked }
    }

    /// Takes in that the peer rejects a block.
    pub(super) fn refused(&mut self, block: BlockRef) {
        self.claim(block);
    }

    /// Takes in that the peer chokes us. A peer with BEP 6 may still send what it owes; others
    /// forget it.
    pub(super) fn choked(&mut self) {
        let debts = &mut self.state.debts;
        for block in std::mem::take(&mut debts.owed) {
            debts.is_late(block);
        }
    }
}

impl Drop for Debtor<'_> {
    fn drop(&mut self) {
        self.outstanding.store(self.state.debts.owed.len(), Ordering::Relaxed);
    }
}

impl Debts {
    fn asked(&mut self, block: BlockRef) {
        if self.owed.len() >= OWED_MOST
            && let Some(oldest) = self.owed.pop_front()
        {
            self.is_late(oldest);
        }
        self.owed.push_back(block);
    }

    fn cancelled(&mut self, block: BlockRef) {
        if take(&mut self.owed, block) {
            self.is_late(block);
        }
    }

    fn is_late(&mut self, block: BlockRef) {
        if self.late.len() >= LATE_MOST {
            self.late.pop_front();
        }
        self.late.push_back(block);
    }
}

impl OutboxContent {
    /// Returns the blocks to be sent next.
    fn run(&self, blocks: usize, bytes: u64) -> BlockRun {
        let mut run = BlockRun::new();
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

    /// Takes all messages or, if there are none, some of the HAVE messages that were put off.
    fn take_control(&mut self) -> BytesMut {
        if self.control.is_empty()
            && let Some(mut haves) = self.haves.take()
        {
            let next: Vec<PieceIndex> = haves.iter().take(HAVES_AT_ONCE).collect();
            for piece in next {
                haves.remove(piece);
                wire::encode(&Message::Have(piece), &mut self.control);
            }
            self.haves = Some(haves).filter(|haves| haves.count() > 0);
        }
        self.in_hand = self.control.len();
        self.control.split()
    }
}

fn take(blocks: &mut VecDeque<BlockRef>, block: BlockRef) -> bool {
    let at = blocks.iter().position(|other| *other == block);
    at.is_some_and(|at| blocks.remove(at).is_some())
}

/// Bytes of control messages that may be queued for one peer, besides a bitfield: 1,000 requests,
/// their cancels and as many rejections have 51 KiB.
const CONTROL_LIMIT: usize = 64 << 10;

/// Pieces of the metadata that may be queued for one peer. They are read when they are sent.
const METADATA_WAITING: usize = 64;

/// From here on HAVE messages are kept as bits, and so many bytes of them are sent at a time.
const HAVES_LIMIT: usize = 16 << 10;
const HAVES_AT_ONCE: usize = 1_000;

/// Requests noted at most. A swarm has 500 under way with a peer.
const OWED_MOST: usize = 2_048;
const LATE_MOST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn block(piece: u32, begin: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(piece), begin, len: 16_384 }
    }

    fn outbox() -> Outbox {
        Outbox::new(10_000)
    }

    #[test]
    fn blocks_go_out_in_runs_that_follow_each_other() {
        let outbox = outbox();
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
        let outbox = outbox();
        (0..4).for_each(|i| outbox.upload(block(0, i * 16_384)));
        assert_eq!(outbox.take(1, u64::MAX).run.len(), 1);
        assert_eq!(outbox.take(8, 1).run.len(), 1);
        assert_eq!(outbox.take(8, 40_000).run.len(), 2);
    }

    #[test]
    fn a_peer_that_reads_no_answers_is_given_up_at_64_kib() {
        let outbox = outbox();
        let reject = Message::Reject(block(0, 0));
        let send = || (0..CONTROL_LIMIT).take_while(|_| outbox.send(&reject).is_ok()).count();
        let queued = send();
        assert!(queued * 17 <= CONTROL_LIMIT + 10_000 / 8 + 17, "{queued} refusals");
        // What the send loop has in its hands counts too.
        let work = outbox.take_control();
        assert_eq!(work.control.len(), queued * 17);
        assert_eq!(send(), 0);
        assert!(outbox.take_control().control.is_empty());
        assert_eq!(send(), queued);
    }

    #[test]
    fn haves_for_a_slow_reader_cost_a_bit_each_and_all_come_in_the_end() {
        let outbox = outbox();
        for _ in 0..3 {
            for piece in 0..10_000 {
                outbox.send(&Message::Have(PieceIndex(piece))).unwrap();
            }
            assert!(outbox.state.lock().control.len() < HAVES_LIMIT + 9);
        }
        let limits = wire::DecodeLimits::new(10_000);
        let mut seen = Bitfield::empty(10_000);
        loop {
            let control = outbox.take_control().control;
            if control.is_empty() {
                break;
            }
            for have in control.chunks(9) {
                match wire::decode(have, &limits).unwrap() {
                    wire::Decoded::Message { message: Message::Have(piece), consumed: 9 } => {
                        seen.insert(piece);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(seen.is_full());
        // It has caught up: one at a time again, at once.
        outbox.send(&Message::Have(PieceIndex(7))).unwrap();
        assert_eq!(outbox.take_control().control.len(), 9);
    }

    #[test]
    fn a_block_is_owed_once_for_each_request_and_late_after_a_cancel() {
        let outbox = outbox();
        for b in [block(0, 0), block(0, 16_384), block(0, 0)] {
            outbox.send(&Message::Request(b)).unwrap();
        }
        assert_eq!(outbox.outstanding(), 3);
        let claim = |block| outbox.debtor().claim(block);
        assert_eq!(claim(block(0, 16_384)), Claim::Owed);
        assert_eq!(claim(block(0, 16_384)), Claim::Unasked);
        assert_eq!(claim(BlockRef { len: 0, ..block(0, 0) }), Claim::Unasked);
        assert_eq!(claim(BlockRef { len: 16_383, ..block(0, 0) }), Claim::Unasked);
        outbox.send(&Message::Cancel(block(0, 0))).unwrap();
        assert_eq!(outbox.outstanding(), 1);
        assert_eq!(claim(block(0, 0)), Claim::Owed);
        assert_eq!(claim(block(0, 0)), Claim::Late);
        assert_eq!(claim(block(0, 0)), Claim::Unasked);
    }

    #[test]
    fn after_a_choke_what_is_owed_may_come_late() {
        let outbox = outbox();
        outbox.send(&Message::Request(block(0, 0))).unwrap();
        outbox.send(&Message::Request(block(1, 0))).unwrap();
        outbox.debtor().choked();
        assert_eq!(outbox.outstanding(), 0);
        outbox.debtor().refused(block(1, 0));
        assert_eq!(outbox.debtor().claim(block(0, 0)), Claim::Late);
        assert_eq!(outbox.debtor().claim(block(1, 0)), Claim::Unasked);
    }

    #[test]
    fn what_is_noted_of_a_peer_that_never_answers_is_bounded() {
        let outbox = outbox();
        for begin in 0..10_000 {
            outbox.send(&Message::Request(block(0, begin))).unwrap();
            outbox.take_control();
            outbox.take_control();
        }
        let state = outbox.state.lock();
        assert_eq!((state.debts.owed.len(), state.debts.late.len()), (OWED_MOST, LATE_MOST));
    }
}
