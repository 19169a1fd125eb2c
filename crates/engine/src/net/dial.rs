//! From an address to a stream after its handshake, in both directions.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use piecework_core::{InfoHash, Rng};
use piecework_listener::Listener;
use piecework_proto::encryption::{
    Agreement, EncryptionError, EncryptionPolicy, Initiator, KeyPair, Methods, PUBLIC_KEY_LEN,
    Responder,
};
use piecework_proto::wire::{Handshake, WireError};

use super::{Limiter, PeerStream, Stream};

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: PeerStream,
    /// The other end.
    pub addr: SocketAddr,
    /// The handshake of the other end.
    pub theirs: Handshake,
}

/// Why a connection or its handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Nobody is there, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It did not connect or answer in time.
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    /// It accepted the connection and closed it at our handshake.
    #[error("it accepts a connection and closes it at our handshake")]
    HungUp,
    /// It closed the connection.
    #[error("it closed the connection before the handshake")]
    Closed,
    /// Something else than BitTorrent is there.
    #[error("it does not speak the peer protocol: {0}")]
    Wire(#[from] WireError),
    /// What came is not an encrypted handshake, or one that is not allowed.
    #[error("no encrypted connection: {0}")]
    Encryption(#[from] EncryptionError),
    /// The connection is plain where only encrypted ones are allowed.
    #[error("its connection is not encrypted, but `encryption = \"require\"` is set")]
    NotEncrypted,
    /// It wants a torrent that we do not have, or another than we want.
    #[error("it wants torrent `{0}`, which we do not have")]
    WrongInfoHash(InfoHash),
}

impl HandshakeError {
    /// Returns whether the peer accepted the connection and closed it at our handshake.
    pub fn is_hang_up(&self) -> bool {
        matches!(self, Self::HungUp)
    }
}

/// How to dial a peer.
#[derive(Debug, Clone, Copy)]
pub struct DialOptions<'a> {
    /// The name of the network interface to dial over, if it has to be one.
    pub interface: Option<&'a str>,
    /// Whether the connection is encrypted.
    pub encryption: EncryptionPolicy,
    /// Time for the connection.
    pub connect_timeout: Duration,
    /// Time for each handshake.
    pub handshake_timeout: Duration,
}

/// The torrents that a peer which dials us may ask for.
pub trait Torrents: Send + Sync {
    /// Returns our handshake for a torrent; `None` if we do not have it or it accepts no
    /// connections.
    fn handshake(&self, info_hash: InfoHash) -> Option<Handshake>;

    /// Returns the torrent of a [`torrent_mark`](piecework_proto::encryption::torrent_mark).
    fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash>;
}

/// Listens on `addr`, on the network interface of that name alone if there is one. An IPv6 address
/// takes IPv6 only, so that both families can have the same port.
///
/// # Errors
/// If the address or the interface cannot be used.
pub fn listen(addr: SocketAddr, interface: Option<&str>) -> io::Result<Listener> {
    let socket = socket(addr, interface)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::new(TcpListener::from_std(socket.into())?, "peer"))
}

/// Opens a UDP socket at `addr`, on the network interface of that name alone if there is one.
///
/// # Errors
/// If the address or the interface cannot be used.
pub fn udp(addr: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

/// Connects to `addr` and exchanges handshakes. Where the policy leaves a choice, a peer that
/// closes the connection at one kind of handshake is dialled again with the other kind, because
/// what was sent cannot be taken back.
///
/// # Errors
/// If the connection or the handshake takes too long or fails, or the other side has another
/// torrent. After two attempts the error is the second one's.
pub async fn dial(
    addr: SocketAddr,
    ours: &Handshake,
    options: DialOptions<'_>,
) -> Result<Accepted, HandshakeError> {
    let attempts = match (options.encryption, options.encryption.methods()) {
        (_, None) => [Some(None), None],
        (EncryptionPolicy::Require, methods) => [Some(methods), None],
        (EncryptionPolicy::Prefer, methods) => [Some(methods), Some(None)],
        (_, methods) => [Some(None), Some(methods)],
    };
    let mut outcome = Err(HandshakeError::Closed);
    for methods in attempts.into_iter().flatten() {
        let tcp = connect(addr, options).await?;
        outcome = match methods {
            None => greet(&tcp, ours, options.handshake_timeout).await.map(|theirs| Accepted {
                stream: PeerStream::plain(tcp),
                addr,
                theirs,
            }),
            Some(methods) => greet_encrypted(tcp, ours, methods, options.handshake_timeout)
                .await
                .map(|(stream, theirs)| Accepted { stream, addr, theirs }),
        };
        if !outcome.as_ref().is_err_and(is_refusal) {
            break;
        }
    }
    outcome
}

async fn connect(addr: SocketAddr, options: DialOptions<'_>) -> Result<TcpStream, HandshakeError> {
    let connect = async {
        let socket = socket(addr, options.interface)?;
        socket.set_nonblocking(true)?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    within(options.connect_timeout, connect).await
}

/// Returns whether a handshake failed in the way it does when the peer wants another kind of
/// handshake.
fn is_refusal(error: &HandshakeError) -> bool {
    match error {
        HandshakeError::HungUp | HandshakeError::Wire(_) | HandshakeError::Encryption(_) => true,
        HandshakeError::Io(_)
        | HandshakeError::Closed
        | HandshakeError::TimedOut(_)
        | HandshakeError::NotEncrypted
        | HandshakeError::WrongInfoHash(_) => false,
    }
}

/// Exchanges handshakes over a plain connection that we made.
///
/// # Errors
/// If that takes too long or fails, or the other side has another torrent.
pub async fn greet<S: Stream>(
    stream: &S,
    ours: &Handshake,
    handshake_timeout: Duration,
) -> Result<Handshake, HandshakeError> {
    let exchange = async {
        write_all(stream, &ours.encode()).await?;
        hear(stream, ours.info_hash, handshake_timeout).await
    };
    within(handshake_timeout, exchange).await.map_err(at_our_handshake)
}

/// Exchanges handshakes over a connection that we made. The encrypted handshake comes first, and
/// may end with one of `methods`.
///
/// # Errors
/// If that takes too long or fails, or the other side has another torrent.
pub async fn greet_encrypted(
    tcp: TcpStream,
    ours: &Handshake,
    methods: Methods,
    handshake_timeout: Duration,
) -> Result<(PeerStream, Handshake), HandshakeError> {
    let exchange = async {
        let (keys, rng) = keys()?;
        let (first, mut out) = (ours.encode(), Vec::new());
        let mut side = Initiator::new(ours.info_hash, methods, &first, keys, rng, &mut out);
        write_all(&tcp, &out).await?;
        let agreement = agree(&tcp, &[], |bytes, out| side.receive(bytes, out)).await?;
        let stream = PeerStream::agreed(tcp, agreement);
        let theirs = hear(&stream, ours.info_hash, handshake_timeout).await?;
        Ok((stream, theirs))
    };
    within(handshake_timeout, exchange).await.map_err(at_our_handshake)
}

/// Exchanges handshakes with a peer that dialled us, after the encrypted handshake if it begins
/// with one. The first byte must come within [`FIRST_BYTE`], and so must the key of an encrypted
/// handshake: the dialler speaks first. `exchanges` bounds how many keys are computed for strangers
/// a second.
///
/// # Errors
/// If it takes too long or fails, or we do not have the torrent.
pub async fn accept(
    tcp: TcpStream,
    addr: SocketAddr,
    encryption: EncryptionPolicy,
    handshake_timeout: Duration,
    torrents: &impl Torrents,
    exchanges: &Limiter,
) -> Result<Accepted, HandshakeError> {
    within(handshake_timeout, async {
        tcp.set_nodelay(true)?;
        let mut came = Came::default();
        let read = came.read(&tcp, FIRST_BYTE.min(handshake_timeout)).await;
        let (stream, theirs) = match (read, encryption.methods()) {
            (Ok(_), _) if !encryption.allows_plain() => return Err(HandshakeError::NotEncrypted),
            (Ok(theirs), _) => (PeerStream::plain(tcp), theirs),
            (Err(HandshakeError::Wire(_)), Some(methods)) => {
                let first = FIRST_BYTE.min(handshake_timeout);
                let begun = within(first, read_key(&tcp, came.bytes())).await?;
                exchanges.take(1).await;
                let (keys, rng) = keys()?;
                let mut side = Responder::new(methods, keys, rng);
                let find = |mark: &[u8; 20]| torrents.marked(mark);
                let receive = |bytes: &[u8], out: &mut Vec<u8>| side.receive(bytes, out, find);
                let agreement = agree(&tcp, &begun, receive).await?;
                let info_hash = agreement.info_hash;
                let stream = PeerStream::agreed(tcp, agreement);
                let theirs = hear(&stream, info_hash, handshake_timeout).await?;
                (stream, theirs)
            }
            (Err(error), _) => return Err(error),
        };
        let ours = torrents
            .handshake(theirs.info_hash)
            .ok_or(HandshakeError::WrongInfoHash(theirs.info_hash))?;
        write_all(&stream, &ours.encode()).await?;
        Ok(Accepted { stream, addr, theirs })
    })
    .await
}

/// Runs an encrypted handshake to its end. `came` was read of it already.
async fn agree(
    tcp: &TcpStream,
    came: &[u8],
    mut receive: impl FnMut(&[u8], &mut Vec<u8>) -> Result<Option<Agreement>, EncryptionError>,
) -> Result<Agreement, HandshakeError> {
    let (mut bytes, mut out) = ([0; 1024], Vec::new());
    let mut done = receive(came, &mut out)?;
    loop {
        write_all(tcp, &out).await?;
        out.clear();
        if let Some(agreement) = done {
            return Ok(agreement);
        }
        let read = read_some(tcp, &mut bytes).await?;
        done = receive(&bytes[..read], &mut out)?;
    }
}

/// Reads on after `came` until the public key of an encrypted handshake is there.
async fn read_key(tcp: &TcpStream, came: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let (mut begun, mut bytes) = (came.to_vec(), [0; 1024]);
    while begun.len() < PUBLIC_KEY_LEN {
        let read = read_some(tcp, &mut bytes).await?;
        begun.extend_from_slice(&bytes[..read]);
    }
    Ok(begun)
}

/// Returns keys for one encrypted handshake, and random numbers for its padding.
fn keys() -> io::Result<(KeyPair, Rng)> {
    let mut bytes = [0; 28];
    getrandom::fill(&mut bytes)?;
    let (mut private, mut seed) = ([0; 20], [0; 8]);
    private.copy_from_slice(&bytes[..20]);
    seed.copy_from_slice(&bytes[20..]);
    Ok((KeyPair::new(private), Rng::from_seed(u64::from_ne_bytes(seed))))
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(time, work).await.map_err(|_| HandshakeError::TimedOut(time))?
}

/// Returns the error of a connection that we made. Its end is the other side's answer to our
/// handshake, whether or not it has read what we sent.
fn at_our_handshake(error: HandshakeError) -> HandshakeError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match error {
        HandshakeError::Closed => HandshakeError::HungUp,
        HandshakeError::Io(error)
            if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) =>
        {
            HandshakeError::HungUp
        }
        error => error,
    }
}

/// Checks whether sockets can be bound to the network interface of that name.
///
/// # Errors
/// If there is none, or this process may not use it.
pub fn check_interface(interface: &str) -> io::Result<()> {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    socket(any, Some(interface)).map(drop)
}

fn socket(addr: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    Ok(socket)
}

/// Reads the other side's handshake, which must be for the torrent `info_hash`.
async fn hear<S: Stream>(
    stream: &S,
    info_hash: InfoHash,
    first_byte: Duration,
) -> Result<Handshake, HandshakeError> {
    let theirs = Came::default().read(stream, first_byte).await?;
    if theirs.info_hash != info_hash {
        return Err(HandshakeError::WrongInfoHash(theirs.info_hash));
    }
    Ok(theirs)
}

/// The part of a handshake that has been read.
struct Came {
    bytes: [u8; Handshake::LEN],
    have: usize,
}

impl Default for Came {
    fn default() -> Self {
        Self { bytes: [0; Handshake::LEN], have: 0 }
    }
}

impl Came {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.have]
    }

    /// Reads no byte beyond the handshake, and stops at the first byte that does not belong to one.
    /// The first byte must come within `first_byte`.
    async fn read<S: Stream>(
        &mut self,
        stream: &S,
        first_byte: Duration,
    ) -> Result<Handshake, HandshakeError> {
        let mut read = within(first_byte, read_some(stream, &mut self.bytes)).await?;
        loop {
            self.have += read;
            Handshake::check_prefix(self.bytes())?;
            if self.have == self.bytes.len() {
                return Ok(Handshake::decode(&self.bytes)?);
            }
            read = read_some(stream, &mut self.bytes[self.have..]).await?;
        }
    }
}

/// Reads what is there, and waits if there is nothing.
async fn read_some<S: Stream>(stream: &S, into: &mut [u8]) -> Result<usize, HandshakeError> {
    loop {
        match stream.try_read(&mut [IoSliceMut::new(into)]) {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(read) => return Ok(read),
            // A socket may seem readable and not be.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Writes all of `bytes`, as the stream takes them.
///
/// # Errors
/// If the stream fails, or takes nothing more.
pub async fn write_all<S: Stream>(stream: &S, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ends a connection from outside its link: both loops find it closed.
pub fn hang_up(stream: &PeerStream) {
    // Fails only if the other side has ended it already.
    let _ = SockRef::from(stream.tcp()).shutdown(Shutdown::Both);
}

/// Connections that the system holds until we accept them, within its own bound.
const BACKLOG: i32 = 4096;

/// Within this time a packet may be lost twice and sent again.
const FIRST_BYTE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::super::fake::FakeStream;
    use super::*;
    use piecework_core::PeerId;
    use piecework_proto::encryption::{Method, torrent_mark};

    const TORRENT: InfoHash = InfoHash([7; 20]);

    /// Has one torrent, or none.
    struct Has(Option<InfoHash>);

    impl Torrents for Has {
        fn handshake(&self, info_hash: InfoHash) -> Option<Handshake> {
            (self.0 == Some(info_hash)).then(|| Handshake::ours(info_hash, PeerId([2; 20])))
        }

        fn marked(&self, mark: &[u8; 20]) -> Option<InfoHash> {
            self.0.filter(|info_hash| torrent_mark(*info_hash) == *mark)
        }
    }

    /// Accepts connections until one comes behind its handshake, or as many as `most` have failed.
    async fn serve(
        listener: tokio::net::TcpListener,
        encryption: EncryptionPolicy,
        has: Option<InfoHash>,
        most: usize,
    ) -> Result<Accepted, Vec<HandshakeError>> {
        let mut errors = Vec::new();
        while errors.len() < most {
            let (tcp, addr) = listener.accept().await.unwrap();
            let (time, exchanges) = (Duration::from_secs(60), Limiter::new(None));
            match accept(tcp, addr, encryption, time, &Has(has), &exchanges).await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    fn options(encryption: EncryptionPolicy) -> DialOptions<'static> {
        let time = Duration::from_secs(60);
        DialOptions { interface: None, encryption, connect_timeout: time, handshake_timeout: time }
    }

    /// What becomes of a dial between two policies: what each says of the connection.
    async fn between(
        dials: EncryptionPolicy,
        accepts: EncryptionPolicy,
    ) -> (Result<Accepted, HandshakeError>, Result<Accepted, Vec<HandshakeError>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ours = Handshake::ours(TORRENT, PeerId([1; 20]));
        // As many as the dialler makes at most.
        let most =
            if matches!(dials, EncryptionPolicy::Allow | EncryptionPolicy::Prefer) { 2 } else { 1 };
        tokio::join!(
            dial(addr, &ours, options(dials)),
            serve(listener, accepts, Some(TORRENT), most),
        )
    }

    #[tokio::test]
    async fn every_pair_of_policies_meets_on_the_cheapest_connection_that_both_allow() {
        use EncryptionPolicy::{Allow, Plain, Prefer, Require};
        let plain = Some(None);
        let (hidden, rc4) = (Some(Some(Method::Plaintext)), Some(Some(Method::Rc4)));
        for (dials, accepts, expected) in [
            (Plain, Plain, plain),
            (Plain, Allow, plain),
            (Plain, Prefer, plain),
            (Plain, Require, None),
            (Allow, Plain, plain),
            (Allow, Allow, plain),
            (Allow, Prefer, plain),
            (Allow, Require, rc4),
            (Prefer, Plain, plain),
            (Prefer, Allow, hidden),
            (Prefer, Prefer, hidden),
            (Prefer, Require, rc4),
            (Require, Plain, None),
            (Require, Allow, rc4),
            (Require, Prefer, rc4),
            (Require, Require, rc4),
        ] {
            let (dialled, accepted) = between(dials, accepts).await;
            let dialled = dialled.ok();
            let methods = [dialled.as_ref(), accepted.as_ref().ok()]
                .map(|end| end.map(|accepted| accepted.stream.method()));
            assert_eq!(methods, [expected, expected], "{dials:?} dials {accepts:?}");
            if let (Some(dialled), Ok(accepted)) = (dialled, accepted) {
                assert_eq!(dialled.theirs.peer_id, PeerId([2; 20]));
                assert_eq!(accepted.theirs.peer_id, PeerId([1; 20]));
            }
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_over_an_encrypted_connection_however_slowly_they_are_read() {
        let (dialled, accepted) = between(EncryptionPolicy::Require, EncryptionPolicy::Allow).await;
        let (dialled, accepted) = (dialled.unwrap().stream, accepted.unwrap().stream);
        // More than both sockets hold, so that writes are cut anywhere.
        let sent: Vec<u8> = (0..8u32 << 20).map(|at| (at ^ (at >> 8)) as u8).collect();
        for (from, to) in [(&dialled, &accepted), (&accepted, &dialled)] {
            let read = async {
                let mut got = Vec::new();
                let (mut lens, mut bytes) =
                    ([13, 16_384, 9, 65_536].iter().cycle(), vec![0; 65_536]);
                while got.len() < sent.len() {
                    let len = *lens.next().unwrap();
                    let read = read_some(to, &mut bytes[..len]).await.unwrap();
                    got.extend_from_slice(&bytes[..read]);
                }
                got
            };
            let (written, got) = tokio::join!(write_all(from, &sent), read);
            written.unwrap();
            assert!(got == sent);
        }
        // Nothing is kept for a peer that has read all.
        assert_eq!([dialled.kept_bytes(), accepted.kept_bytes()], [0, 0]);
    }

    #[tokio::test]
    async fn what_comes_together_with_an_encrypted_handshake_is_not_lost() {
        for methods in [Methods::ANY, Methods::RC4] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let serving = tokio::spawn(serve(listener, EncryptionPolicy::Allow, Some(TORRENT), 1));
            let tcp = connect(addr, options(EncryptionPolicy::Allow)).await.unwrap();
            let ours = Handshake::ours(TORRENT, PeerId([1; 20]));
            let (pair, rng) = keys().unwrap();
            let mut out = Vec::new();
            // The handshake and more in its first message.
            let mut first = ours.encode().to_vec();
            first.extend_from_slice(b"and five words more");
            let mut side = Initiator::new(TORRENT, methods, &first, pair, rng, &mut out);
            write_all(&tcp, &out).await.unwrap();
            let agreement = agree(&tcp, &[], |bytes, out| side.receive(bytes, out)).await.unwrap();
            let stream = PeerStream::agreed(tcp, agreement);
            let theirs = hear(&stream, TORRENT, FIRST_BYTE).await.unwrap();
            assert_eq!(theirs.peer_id, PeerId([2; 20]));
            let accepted = serving.await.unwrap().unwrap();
            let mut bytes = [0; 64];
            let mut have = 0;
            while have < 19 {
                have += read_some(&accepted.stream, &mut bytes[have..]).await.unwrap();
            }
            assert_eq!(&bytes[..have], b"and five words more");
            write_all(&stream, b"over").await.unwrap();
            let read = read_some(&accepted.stream, &mut bytes).await.unwrap();
            assert_eq!(&bytes[..read], b"over");
        }
    }

    #[tokio::test]
    async fn an_encrypted_handshake_for_a_torrent_that_is_not_here_comes_to_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ours = Handshake::ours(TORRENT, PeerId([1; 20]));
        let (dialled, served) = tokio::join!(
            dial(addr, &ours, options(EncryptionPolicy::Require)),
            serve(listener, EncryptionPolicy::Allow, Some(InfoHash([8; 20])), 1),
        );
        assert!(is_refusal(&dialled.unwrap_err()));
        let errors = served.unwrap_err();
        assert!(matches!(
            errors[..],
            [HandshakeError::Encryption(EncryptionError::UnknownTorrent)]
        ));
    }

    #[tokio::test]
    async fn what_is_no_handshake_is_refused_at_its_first_wrong_byte_unless_it_may_be_a_key() {
        for encryption in [EncryptionPolicy::Plain, EncryptionPolicy::Allow] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let serving = tokio::spawn(serve(listener, encryption, Some(TORRENT), 1));
            let tcp = connect(addr, options(encryption)).await.unwrap();
            write_all(&tcp, b"GET / HTTP/1.1\r\n").await.unwrap();
            let errors = serving.await.unwrap().unwrap_err();
            match encryption {
                EncryptionPolicy::Plain => assert!(matches!(errors[..], [HandshakeError::Wire(_)])),
                _ => assert!(matches!(errors[..], [HandshakeError::TimedOut(FIRST_BYTE)])),
            }
        }
    }

    #[tokio::test]
    async fn nonsense_is_no_encrypted_handshake() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, EncryptionPolicy::Allow, Some(TORRENT), 1));
        let tcp = connect(addr, options(EncryptionPolicy::Plain)).await.unwrap();
        write_all(&tcp, &[b'x'; 96 + 512 + 20]).await.unwrap();
        let errors = serving.await.unwrap().unwrap_err();
        assert!(matches!(errors[..], [HandshakeError::Encryption(EncryptionError::NoMark)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_of_a_handshake_must_come_soon_and_the_others_have_more_time() {
        let start = tokio::time::Instant::now();
        let silent = Came::default().read(&FakeStream::default(), FIRST_BYTE).await;
        assert!(matches!(silent, Err(HandshakeError::TimedOut(FIRST_BYTE))));
        assert_eq!(start.elapsed(), FIRST_BYTE);
        let stream = FakeStream::default();
        let whole = Handshake::ours(TORRENT, PeerId([1; 20])).encode();
        stream.send(&whole[..1]);
        let late = async {
            tokio::time::sleep(2 * FIRST_BYTE).await;
            stream.send(&whole[1..]);
        };
        let mut came = Came::default();
        let (read, ()) = tokio::join!(came.read(&stream, FIRST_BYTE), late);
        assert_eq!(read.unwrap().encode(), whole);
    }
}
