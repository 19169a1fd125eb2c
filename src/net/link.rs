//! A connection to a peer, at work.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::base::{BlockPool, Geometry};
use crate::swarm::PeerKey;
use crate::wire::{DecodeLimits, Message};

use super::receiver::ReceiveError;
use super::sender::{SendError, Sender, Sent};
use super::{BlockSource, Incoming, Limiter, Outbox, Receiver, SourceError, Stream};

/// Two loops over one stream. Dropping it ends both: the receive loop at once, the send loop when
/// the messages that wait are out or [`LAST_WORDS`] have passed.
pub struct Link {
    outbox: Arc<Outbox>,
    receive_loop: AbortHandle,
}

/// What the loops of a link work with.
pub struct LinkOptions {
    /// Whose link it is.
    pub peer: PeerKey,
    /// How the torrent is cut.
    pub geometry: Geometry,
    /// Where received blocks go.
    pub pool: BlockPool,
    /// Where sent blocks come from.
    pub source: Arc<dyn BlockSource>,
    /// Limit of payload sent.
    pub upload: Limiter,
    /// Limit of bytes received.
    pub download: Limiter,
    /// Where everything is told.
    pub inputs: Inputs,
}

/// What a link tells its torrent.
#[derive(Debug)]
pub enum Input {
    /// The peer sent these, in order.
    Received {
        /// Who.
        peer: PeerKey,
        /// What; not empty.
        items: Vec<Incoming>,
    },
    /// Blocks went out.
    Uploaded {
        /// To whom.
        peer: PeerKey,
        /// How many.
        blocks: u32,
        /// Payload bytes.
        bytes: u64,
    },
    /// The link is at its end. May come twice.
    Closed {
        /// Whose.
        peer: PeerKey,
        /// A sentence.
        reason: String,
    },
    /// Our own content could not be read.
    Unreadable {
        /// For whom it was read.
        peer: PeerKey,
        /// What the storage said.
        error: SourceError,
    },
}

/// Bounded: a torrent that cannot keep up stops its peers' receive loops, and so TCP stops the
/// peers.
pub type Inputs = mpsc::Sender<Input>;

impl Link {
    /// Starts both loops on the current runtime.
    pub fn start<S: Stream>(stream: S, options: LinkOptions) -> Self {
        let stream = Arc::new(stream);
        let outbox = Arc::new(Outbox::default());
        let LinkOptions { peer, geometry, pool, source, upload, download, inputs } = options;
        let receiver = Receiver::new(pool, DecodeLimits::new(geometry.pieces()));
        let receive_loop = tokio::spawn(receive_loop(
            Arc::clone(&stream),
            receiver,
            Arc::clone(&outbox),
            download,
            peer,
            inputs.clone(),
        ));
        let sender = Sender::new(stream, Arc::clone(&outbox), source, geometry, upload);
        tokio::spawn(send_loop(sender, Arc::clone(&outbox), peer, inputs));
        Self { outbox, receive_loop: receive_loop.abort_handle() }
    }

    /// What waits to be sent.
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
        let mut items = Vec::new();
        let read = receive(&*stream, &mut receiver, &outbox, &limiter, &mut items).await;
        if !items.is_empty() && inputs.send(Input::Received { peer, items }).await.is_err() {
            return;
        }
        if let Err(end) = read {
            break end;
        }
    };
    // A torrent that is gone need not be told.
    let _ = inputs.send(Input::Closed { peer, reason: end.to_string() }).await;
}

/// Reads as long as there is something, up to [`BATCH_BYTES`].
async fn receive<S: Stream>(
    stream: &S,
    receiver: &mut Receiver,
    outbox: &Outbox,
    limiter: &Limiter,
    items: &mut Vec<Incoming>,
) -> Result<(), ReceiveError> {
    let mut bytes = 0;
    while bytes < BATCH_BYTES {
        let seen = items.len();
        let read = receiver.fill(outbox.outstanding(), |slices| stream.try_read(slices), items);
        match read {
            Ok(read) => bytes += read,
            Err(ReceiveError::Io(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(ReceiveError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                if !items.is_empty() || bytes > 0 {
                    break;
                }
                if outbox.outstanding() == 0 {
                    receiver.rest();
                }
                stream.readable().await?;
            }
            Err(e) => return Err(e),
        }
        settle(outbox, &items[seen..]);
    }
    limiter.take(bytes as u64).await;
    Ok(())
}

fn settle(outbox: &Outbox, items: &[Incoming]) {
    let mut came = 0;
    for item in items {
        match item {
            Incoming::Block { .. } | Incoming::Message(Message::Reject(_)) => came += 1,
            Incoming::Message(Message::Choke) => outbox.settle_all(),
            Incoming::Message(_) => {}
        }
    }
    if came > 0 {
        outbox.settle(came);
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
            Ok(Sent::Blocks(blocks, bytes)) => {
                if inputs.send(Input::Uploaded { peer, blocks, bytes }).await.is_err() {
                    return;
                }
            }
            Ok(Sent::Other) => {}
            Ok(Sent::Finished) => return,
            Err(SendError::Source(error)) => {
                let _ = inputs.send(Input::Unreadable { peer, error }).await;
                return;
            }
            Err(SendError::Io(error)) => break error,
        }
    };
    let _ = inputs.send(Input::Closed { peer, reason: SendError::Io(end).to_string() }).await;
}

/// Ends [`LAST_WORDS`] after the outbox was closed.
async fn overdue(outbox: &Outbox) {
    outbox.closed().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// How long a closed link may take to send what waits.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes read before the torrent hears of them: enough that it wakes once for many blocks, small
/// enough that requests are refilled in time.
const BATCH_BYTES: usize = 512 << 10;
