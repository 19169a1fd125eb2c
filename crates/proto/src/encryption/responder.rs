//! The side that accepts the connection.

use piecework_core::{InfoHash, Rng};

use super::key_exchange::SharedSecret;
use super::{
    Agreement, Ciphers, EncryptionError, KeyPair, LONGEST_PAD, Method, Methods, PUBLIC_KEY_LEN,
    Rc4, VC, ciphers, find_mark, length, pad, secret_mark, veil,
};

/// The handshake of the side that accepts the connection.
#[derive(Debug)]
pub struct Responder {
    methods: Methods,
    rng: Rng,
    /// Received bytes that are not used yet.
    came: Vec<u8>,
    state: ResponderState,
}

#[derive(Debug)]
enum ResponderState {
    /// Waits for the initiator's public key.
    Key(KeyPair),
    /// Waits for the mark of the shared secret, after padding.
    Mark(Box<SharedSecret>),
    /// Waits for the hidden mark of the torrent.
    Torrent(Box<SharedSecret>),
    /// Waits for the offered methods.
    Offer(KnownTorrent),
    /// Waits for `left` bytes of padding and the length of the first message.
    Padding { known: KnownTorrent, method: Method, left: usize },
    /// Waits for the first message, which has `left` bytes.
    First { known: KnownTorrent, method: Method, left: usize },
    /// The handshake has failed or ended.
    Over,
}

/// The torrent and its ciphers.
#[derive(Debug)]
struct KnownTorrent {
    info_hash: InfoHash,
    incoming: Rc4,
    outgoing: Rc4,
}

impl Responder {
    /// Returns a responder that allows `methods`. It chooses the cheapest of those that the peer offers as well.
    pub fn new(methods: Methods, keys: KeyPair, rng: Rng) -> Self {
        Self { methods, rng, came: Vec::new(), state: ResponderState::Key(keys) }
    }

    /// Handles received bytes and appends the bytes to send to `out`. `find` returns the torrent of a
    /// [`torrent_mark`](super::torrent_mark). Returns the agreement when the handshake is done; must not be called
    /// again after that.
    ///
    /// # Errors
    /// If the bytes are not a handshake, the torrent is unknown, or no method is allowed. The connection has to be
    /// closed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        find: impl Fn(&[u8; 20]) -> Option<InfoHash>,
    ) -> Result<Option<Agreement>, EncryptionError> {
        self.came.extend_from_slice(bytes);
        loop {
            let state = std::mem::replace(&mut self.state, ResponderState::Over);
            match self.step(state, out, &find)? {
                ResponderStep::Wait(state) => {
                    self.state = state;
                    return Ok(None);
                }
                ResponderStep::On(state) => self.state = state,
                ResponderStep::Done(agreement) => return Ok(Some(agreement)),
            }
        }
    }

    fn step(
        &mut self,
        state: ResponderState,
        out: &mut Vec<u8>,
        find: impl Fn(&[u8; 20]) -> Option<InfoHash>,
    ) -> Result<ResponderStep, EncryptionError> {
        use ResponderStep::{Done, On, Wait};
        Ok(match state {
            ResponderState::Key(keys) => {
                let Some(theirs) = self.came.first_chunk::<PUBLIC_KEY_LEN>() else {
                    return Ok(Wait(ResponderState::Key(keys)));
                };
                out.extend_from_slice(keys.public());
                pad(out, &mut self.rng);
                let secret = keys.share(theirs)?;
                self.came.drain(..PUBLIC_KEY_LEN);
                On(ResponderState::Mark(Box::new(secret)))
            }
            ResponderState::Mark(secret) => {
                let Some(end) = find_mark(&self.came, &secret_mark(&secret))? else {
                    return Ok(Wait(ResponderState::Mark(secret)));
                };
                self.came.drain(..end);
                On(ResponderState::Torrent(secret))
            }
            ResponderState::Torrent(secret) => {
                let Some(hidden) = self.take::<20>() else {
                    return Ok(Wait(ResponderState::Torrent(secret)));
                };
                let mark = veil(hidden, &secret);
                let info_hash = find(&mark).ok_or(EncryptionError::UnknownTorrent)?;
                let [incoming, outgoing] = ciphers(&secret, info_hash);
                On(ResponderState::Offer(KnownTorrent { info_hash, incoming, outgoing }))
            }
            ResponderState::Offer(mut known) => {
                let Some(mut offer) = self.take::<14>() else {
                    return Ok(Wait(ResponderState::Offer(known)));
                };
                known.incoming.apply(&mut offer);
                let [vc @ .., a, b, c, d, pad_0, pad_1] = offer;
                if vc != VC {
                    return Err(EncryptionError::NotVerified);
                }
                let bits = u32::from_be_bytes([a, b, c, d]);
                let method = self.methods.choose(Methods::from_bits(bits));
                let method = method.ok_or(EncryptionError::NoMethod(bits))?;
                let left = length([pad_0, pad_1], LONGEST_PAD)?;
                On(ResponderState::Padding { known, method, left })
            }
            ResponderState::Padding { mut known, method, left } => {
                if self.came.len() < left + 2 {
                    return Ok(Wait(ResponderState::Padding { known, method, left }));
                }
                self.came.drain(..left);
                known.incoming.skip(left);
                let mut len = [self.came[0], self.came[1]];
                self.came.drain(..2);
                known.incoming.apply(&mut len);
                let left = length(len, LONGEST_FIRST)?;
                On(ResponderState::First { known, method, left })
            }
            ResponderState::First { known, method, left } => {
                if self.came.len() < left {
                    return Ok(Wait(ResponderState::First { known, method, left }));
                }
                Done(self.agree(known, method, left, out))
            }
            ResponderState::Over => Wait(ResponderState::Over),
        })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.came.first_chunk::<N>()?;
        self.came.drain(..N);
        Some(taken)
    }

    /// Sends the chosen method to the peer. Its first message of `len` bytes has arrived.
    fn agree(
        &mut self,
        known: KnownTorrent,
        method: Method,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Agreement {
        let KnownTorrent { info_hash, mut incoming, mut outgoing } = known;
        let hidden = out.len();
        out.extend_from_slice(&VC);
        out.extend_from_slice(&method.bit().to_be_bytes());
        // No padding: the length of what follows hides nothing anyway.
        out.extend_from_slice(&[0; 2]);
        outgoing.apply(&mut out[hidden..]);
        let mut early = std::mem::take(&mut self.came);
        let ciphers = match method {
            Method::Plaintext => {
                // The first message is encrypted with any method.
                incoming.apply(&mut early[..len]);
                None
            }
            Method::Rc4 => {
                incoming.apply(&mut early);
                Some(Ciphers { incoming, outgoing })
            }
        };
        Agreement { info_hash, method, ciphers, early }
    }
}

enum ResponderStep {
    /// More bytes are needed.
    Wait(ResponderState),
    On(ResponderState),
    Done(Agreement),
}

/// The maximum length of the first message. Clients send their BitTorrent handshake of 68 bytes in it.
const LONGEST_FIRST: usize = 1 << 10;
