//! The side that opens the connection.

use piecework_core::SaturatingFrom;
use piecework_core::{InfoHash, Rng};

use super::key_exchange::SharedSecret;
use super::{
    Agreement, Ciphers, EncryptionError, KeyPair, LONGEST_PAD, Method, Methods, PUBLIC_KEY_LEN,
    Rc4, VC, ciphers, find_mark, length, pad, secret_mark, torrent_mark, veil,
};

/// The handshake of the side that opens the connection.
#[derive(Debug)]
pub struct Initiator {
    info_hash: InfoHash,
    methods: Methods,
    /// The first message.
    first: Vec<u8>,
    rng: Rng,
    /// Received bytes that are not used yet.
    came: Vec<u8>,
    state: InitiatorState,
}

#[derive(Debug)]
enum InitiatorState {
    /// Waits for the responder's public key.
    Key(KeyPair),
    /// Waits for the verification constant, after padding. `incoming` is at its first byte.
    Mark { incoming: Rc4, outgoing: Rc4 },
    /// Waits for the chosen method and the length of another padding.
    Choice { incoming: Rc4, outgoing: Rc4 },
    /// Waits for `left` bytes of padding.
    Padding { incoming: Rc4, outgoing: Rc4, method: Method, left: usize },
    /// The handshake has failed or ended.
    Over,
}

impl Initiator {
    /// Begins a handshake for the torrent `info_hash`. Appends the bytes to send at once to `out`. `first` is the
    /// first message over the connection, the BitTorrent handshake.
    pub fn new(
        info_hash: InfoHash,
        methods: Methods,
        first: &[u8],
        keys: KeyPair,
        mut rng: Rng,
        out: &mut Vec<u8>,
    ) -> Self {
        out.extend_from_slice(keys.public());
        pad(out, &mut rng);
        let (first, state) = (first.to_vec(), InitiatorState::Key(keys));
        Self { info_hash, methods, first, rng, came: Vec::new(), state }
    }

    /// Handles received bytes and appends the bytes to send to `out`. Returns the agreement when the handshake is
    /// done; must not be called again after that.
    ///
    /// # Errors
    /// If the bytes are not a handshake, or no method is allowed. The connection has to be closed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Agreement>, EncryptionError> {
        self.came.extend_from_slice(bytes);
        loop {
            let state = std::mem::replace(&mut self.state, InitiatorState::Over);
            match self.step(state, out)? {
                InitiatorStep::Wait(state) => {
                    self.state = state;
                    return Ok(None);
                }
                InitiatorStep::On(state) => self.state = state,
                InitiatorStep::Done(agreement) => return Ok(Some(agreement)),
            }
        }
    }

    fn step(
        &mut self,
        state: InitiatorState,
        out: &mut Vec<u8>,
    ) -> Result<InitiatorStep, EncryptionError> {
        use InitiatorStep::{Done, On, Wait};
        Ok(match state {
            InitiatorState::Key(keys) => {
                let Some(theirs) = self.came.first_chunk::<PUBLIC_KEY_LEN>() else {
                    return Ok(Wait(InitiatorState::Key(keys)));
                };
                let secret = keys.share(theirs)?;
                self.came.drain(..PUBLIC_KEY_LEN);
                let [mut outgoing, incoming] = ciphers(&secret, self.info_hash);
                self.identify(&secret, &mut outgoing, out);
                On(InitiatorState::Mark { incoming, outgoing })
            }
            InitiatorState::Mark { mut incoming, outgoing } => {
                // Eight zeros, encrypted with its stream.
                let mut mark = VC;
                incoming.clone().apply(&mut mark);
                let Some(end) = find_mark(&self.came, &mark)? else {
                    return Ok(Wait(InitiatorState::Mark { incoming, outgoing }));
                };
                self.came.drain(..end);
                incoming.skip(VC.len());
                On(InitiatorState::Choice { incoming, outgoing })
            }
            InitiatorState::Choice { mut incoming, outgoing } => {
                let Some(choice) = self.came.first_chunk::<6>() else {
                    return Ok(Wait(InitiatorState::Choice { incoming, outgoing }));
                };
                let mut choice = *choice;
                self.came.drain(..choice.len());
                incoming.apply(&mut choice);
                let [a, b, c, d, pad @ ..] = choice;
                let bits = u32::from_be_bytes([a, b, c, d]);
                let chosen = |method: &Method| bits == method.bit();
                let method = [Method::Plaintext, Method::Rc4].into_iter().find(chosen);
                let method = method.filter(|method| self.methods.contains(*method));
                let method = method.ok_or(EncryptionError::NoMethod(bits))?;
                let left = length(pad, LONGEST_PAD)?;
                On(InitiatorState::Padding { incoming, outgoing, method, left })
            }
            InitiatorState::Padding { mut incoming, outgoing, method, left } => {
                if self.came.len() < left {
                    return Ok(Wait(InitiatorState::Padding { incoming, outgoing, method, left }));
                }
                self.came.drain(..left);
                incoming.skip(left);
                let mut early = std::mem::take(&mut self.came);
                let ciphers = match method {
                    Method::Plaintext => None,
                    Method::Rc4 => {
                        incoming.apply(&mut early);
                        Some(Ciphers { incoming, outgoing })
                    }
                };
                Done(Agreement { info_hash: self.info_hash, method, ciphers, early })
            }
            InitiatorState::Over => Wait(InitiatorState::Over),
        })
    }

    /// Appends the torrent's mark and the first message.
    fn identify(&mut self, secret: &SharedSecret, outgoing: &mut Rc4, out: &mut Vec<u8>) {
        out.extend_from_slice(&secret_mark(secret));
        out.extend_from_slice(&veil(torrent_mark(self.info_hash), secret));
        let hidden = out.len();
        out.extend_from_slice(&VC);
        out.extend_from_slice(&self.methods.0.to_be_bytes());
        let pad_len_at = out.len();
        out.extend_from_slice(&[0; 2]);
        pad(out, &mut self.rng);
        // At most 512.
        let pad_len = u16::saturating_from(out.len() - pad_len_at - 2);
        out[pad_len_at..pad_len_at + 2].copy_from_slice(&pad_len.to_be_bytes());
        // A handshake has 68 bytes.
        out.extend_from_slice(&u16::saturating_from(self.first.len()).to_be_bytes());
        out.append(&mut self.first);
        outgoing.apply(&mut out[hidden..]);
    }
}

enum InitiatorStep {
    /// More bytes are needed.
    Wait(InitiatorState),
    On(InitiatorState),
    Done(Agreement),
}
