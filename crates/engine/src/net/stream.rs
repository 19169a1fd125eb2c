//! What a connection to a peer runs over.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};

use tokio::net::TcpStream;

/// A byte stream to a peer. TCP today; anything that can wait for readiness and move vectored
/// bytes can carry a link.
pub trait Stream: Send + Sync + 'static {
    /// Waits until a read may succeed.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until a write may succeed.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads what is there; `WouldBlock` if nothing is, 0 at the end.
    fn try_read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Writes what fits; `WouldBlock` if nothing does.
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
