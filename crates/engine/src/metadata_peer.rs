//! A connection to a peer of which only metadata is wanted. The number of pieces is not known, so nothing else that
//! the peer says can be understood.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::mpsc;

use crate::net::{PeerStream, Stream, write_all};
use piecework_core::printable;
use piecework_proto::wire::{
    self, DecodeLimits, Decoded, ExtendedHandshake, METADATA_EXTENSION, METADATA_ID, Message,
    MetadataMessage,
};
use piecework_swarm::PeerKey;

use super::metadata_inputs::{FetchInput, PeerSaid};

/// What a peer is told first.
pub(super) struct Greeting {
    pub client: String,
    pub listen_port: Option<u16>,
    pub their_ip: IpAddr,
    /// Both sides support BEP 6, which requires to say what we hold.
    pub fast: bool,
}

/// Talks to a peer until the connection ends, `to_send` is closed, or `heard` is closed.
pub(super) async fn converse(
    stream: Arc<PeerStream>,
    greeting: Greeting,
    mut to_send: mpsc::Receiver<(u8, MetadataMessage)>,
    (key, heard): (PeerKey, &mpsc::Sender<FetchInput>),
) {
    let mut conversation = Conversation::default();
    if write_all(&*stream, &greeting.encoded()).await.is_err() {
        return;
    }
    loop {
        let ended = tokio::select! {
            read = conversation.read(&stream) => match read {
                Ok(()) => conversation.hear_all(&stream, key, heard).await.is_err(),
                Err(_) => true,
            },
            request = to_send.recv() => match request {
                Some((id, message)) => write_all(&*stream, &encoded(id, &message)).await.is_err(),
                None => true,
            },
        };
        if ended {
            return;
        }
    }
}

/// What was received and not decoded.
#[derive(Default)]
struct Conversation {
    buffer: BytesMut,
    /// Bytes of the stream that come next and are not wanted.
    skip: usize,
    /// The peer's number of the extension.
    their_id: Option<u8>,
}

impl Conversation {
    /// Reads once.
    async fn read(&mut self, stream: &PeerStream) -> io::Result<()> {
        loop {
            stream.readable().await?;
            let mut chunk = [0; CHUNK];
            match stream.try_read(&mut [IoSliceMut::new(&mut chunk)]) {
                Ok(0) => return Err(closed()),
                Ok(read) => {
                    let skipped = self.skip.min(read);
                    self.skip -= skipped;
                    self.buffer.extend_from_slice(&chunk[skipped..read]);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Handles all messages that are whole.
    async fn hear_all(
        &mut self,
        stream: &PeerStream,
        key: PeerKey,
        heard: &mpsc::Sender<FetchInput>,
    ) -> io::Result<()> {
        while let Some(message) = self.next()? {
            let said = match message {
                Message::Extended { id: 0, payload } => self.handshake(&payload),
                Message::Extended { id: METADATA_ID, payload } => {
                    match MetadataMessage::decode(&payload) {
                        Ok(Some(MetadataMessage::Request { piece })) => {
                            // We have none either.
                            if let Some(id) = self.their_id {
                                let reject = MetadataMessage::Reject { piece };
                                write_all(stream, &encoded(id, &reject)).await?;
                            }
                            continue;
                        }
                        Ok(Some(message)) => PeerSaid::Metadata(message),
                        Ok(None) => continue,
                        Err(_) => PeerSaid::Nonsense,
                    }
                }
                _ => continue,
            };
            heard.send(FetchInput::Peer(key, said)).await.map_err(|_| closed())?;
        }
        Ok(())
    }

    fn handshake(&mut self, payload: &[u8]) -> PeerSaid {
        let Ok(handshake) = ExtendedHandshake::decode(payload) else { return PeerSaid::Nonsense };
        let extension = handshake.messages.get(METADATA_EXTENSION).copied();
        self.their_id = extension.or(self.their_id);
        PeerSaid::Handshake { extension, size: handshake.metadata_size }
    }

    /// Takes the next message, or skips what is not one that could be understood.
    fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let [a, b, c, d, BITFIELD, ..] = self.buffer[..] {
                let len = u32::from_be_bytes([a, b, c, d]);
                if len > MAX_BITFIELD {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                self.pass_over(4 + len as usize);
                continue;
            }
            let decoded = wire::decode(&self.buffer, &DecodeLimits::new(0));
            match decoded.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? {
                Decoded::Incomplete { .. } => return Ok(None),
                Decoded::Message { message, consumed } => {
                    drop(self.buffer.split_to(consumed));
                    return Ok(Some(message));
                }
                Decoded::Piece { block } => {
                    self.pass_over(wire::PIECE_HEADER_LEN + block.len as usize);
                }
                Decoded::Ignored { consumed, rest, .. } => self.pass_over(consumed + rest),
            }
        }
    }

    /// Skips so many bytes, which may not have been read yet.
    fn pass_over(&mut self, bytes: usize) {
        let here = bytes.min(self.buffer.len());
        drop(self.buffer.split_to(here));
        self.skip += bytes - here;
    }
}

impl Greeting {
    fn encoded(&self) -> BytesMut {
        let mut out = BytesMut::new();
        if self.fast {
            wire::encode(&Message::HaveNone, &mut out);
        }
        let handshake = ExtendedHandshake {
            messages: [(METADATA_EXTENSION.to_owned(), METADATA_ID)].into(),
            client: Some(printable(&self.client).into_owned()),
            listen_port: self.listen_port,
            your_ip: Some(self.their_ip.to_canonical()),
            ..ExtendedHandshake::default()
        };
        let payload = handshake.encode().into();
        wire::encode(&Message::Extended { id: 0, payload }, &mut out);
        out
    }
}

fn encoded(id: u8, message: &MetadataMessage) -> BytesMut {
    let mut out = BytesMut::new();
    wire::encode(&Message::Extended { id, payload: message.encode() }, &mut out);
    out
}

fn closed() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// The type of a bitfield. Its length depends on the number of pieces.
const BITFIELD: u8 = 5;

/// The maximum length of a bitfield: eight million pieces.
const MAX_BITFIELD: u32 = 1 << 20;

/// How much is read at a time.
const CHUNK: usize = 4 << 10;
