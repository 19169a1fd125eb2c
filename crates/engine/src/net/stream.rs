//! The connection that a link runs over.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::net::TcpStream;

use piecework_proto::encryption::{Agreement, Ciphers, Method, Rc4};

/// A byte stream to a peer: anything that can wait for readiness and move vectored bytes can carry
/// a link.
pub trait Stream: Send + Sync + 'static {
    /// Waits until a read may succeed.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until a write may succeed.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads what is there. Fails with `WouldBlock` if nothing is there; returns 0 at the end.
    fn try_read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Writes what fits. Fails with `WouldBlock` if nothing does. What was not written comes first
    /// in the next call.
    fn try_write(&self, from: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Stream for TcpStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        TcpStream::readable(self)
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        TcpStream::writable(self)
    }

    fn try_read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.try_read_vectored(into)
    }

    fn try_write(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(from)
    }
}

/// A TCP connection to a peer, encrypted or not.
#[derive(Debug)]
pub struct PeerStream {
    tcp: TcpStream,
    /// `None` for a connection that was plain from its first byte.
    layer: Option<Box<Layer>>,
}

/// The state of a connection after an encrypted handshake.
#[derive(Debug)]
struct Layer {
    method: Method,
    /// Whether there is something in `early`.
    has_early: AtomicBool,
    /// What came together with the handshake, decrypted.
    early: Mutex<Vec<u8>>,
    incoming: Option<Mutex<Rc4>>,
    outgoing: Option<Mutex<Outgoing>>,
}

#[derive(Debug)]
struct Outgoing {
    cipher: Rc4,
    /// Encrypted bytes that the socket has not taken. The same bytes come first in the next call.
    sealed: Vec<u8>,
}

impl PeerStream {
    /// Returns a connection that is not encrypted.
    pub fn plain(tcp: TcpStream) -> Self {
        Self { tcp, layer: None }
    }

    /// Returns a connection after an encrypted handshake.
    pub fn agreed(tcp: TcpStream, agreement: Agreement) -> Self {
        let Agreement { method, ciphers, early, .. } = agreement;
        let (incoming, outgoing) = match ciphers {
            None => (None, None),
            Some(Ciphers { incoming, outgoing: cipher }) => {
                let outgoing = Outgoing { cipher, sealed: Vec::new() };
                (Some(Mutex::new(incoming)), Some(Mutex::new(outgoing)))
            }
        };
        let has_early = AtomicBool::new(!early.is_empty());
        let early = Mutex::new(early);
        Self { tcp, layer: Some(Box::new(Layer { method, has_early, early, incoming, outgoing })) }
    }

    /// Returns the socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Returns the method that an encrypted handshake agreed on; `None` if there was none.
    pub fn method(&self) -> Option<Method> {
        self.layer.as_ref().map(|layer| layer.method)
    }
}

#[cfg(test)]
impl PeerStream {
    /// Returns how many bytes are kept for a peer that does not read.
    pub(super) fn kept_bytes(&self) -> usize {
        let outgoing = self.layer.as_ref().and_then(|layer| layer.outgoing.as_ref());
        outgoing.map_or(0, |outgoing| outgoing.lock().sealed.capacity())
    }
}

impl Layer {
    /// Returns what came early, as far as it fits.
    fn take_early(&self, into: &mut [IoSliceMut<'_>]) -> usize {
        let mut early = self.early.lock();
        let mut taken = 0;
        for slice in into {
            let now = slice.len().min(early.len() - taken);
            slice[..now].copy_from_slice(&early[taken..taken + now]);
            taken += now;
        }
        early.drain(..taken);
        if early.is_empty() {
            *early = Vec::new();
            self.has_early.store(false, Ordering::Release);
        }
        taken
    }
}

impl Outgoing {
    /// Encrypts some of `from` and writes it. Returns how many bytes were written.
    fn write(&mut self, from: &[IoSlice<'_>], tcp: &TcpStream) -> io::Result<usize> {
        if self.sealed.is_empty() {
            for slice in from {
                let room = SEALED_AT_ONCE - self.sealed.len();
                self.sealed.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            self.cipher.apply(&mut self.sealed);
        }
        let written = tcp.try_write(&self.sealed)?;
        if written == self.sealed.len() {
            // An idle connection keeps no buffer.
            self.sealed = Vec::new();
        } else {
            self.sealed.drain(..written);
        }
        Ok(written)
    }
}

impl Stream for PeerStream {
    async fn readable(&self) -> io::Result<()> {
        match &self.layer {
            Some(layer) if layer.has_early.load(Ordering::Acquire) => Ok(()),
            _ => self.tcp.readable().await,
        }
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.tcp.writable()
    }

    fn try_read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(layer) = &self.layer else { return self.tcp.try_read_vectored(into) };
        if layer.has_early.load(Ordering::Acquire) {
            return Ok(layer.take_early(into));
        }
        let read = self.tcp.try_read_vectored(into)?;
        if let Some(cipher) = &layer.incoming {
            let (mut cipher, mut left) = (cipher.lock(), read);
            for slice in into {
                let now = slice.len().min(left);
                cipher.apply(&mut slice[..now]);
                left -= now;
            }
        }
        Ok(read)
    }

    fn try_write(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.layer.as_ref().and_then(|layer| layer.outgoing.as_ref()) {
            None => self.tcp.try_write_vectored(from),
            Some(outgoing) => outgoing.lock().write(from, &self.tcp),
        }
    }
}

/// Bytes that are encrypted at a time. They fit the processor core's own cache beside their source,
/// and are what a connection keeps for a peer that does not read.
const SEALED_AT_ONCE: usize = 32 << 10;
