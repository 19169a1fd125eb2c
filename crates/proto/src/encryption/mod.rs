//! Message Stream Encryption, the handshake and cipher that hide BitTorrent from networks
//! that throttle it (also called protocol encryption, PE).
//!
//! It is obfuscation: an observer who knows the info-hash can read everything, and nobody is
//! authenticated. The two sides agree on a secret with Diffie-Hellman, prove that they mean the same
//! torrent, and choose between RC4 for the whole connection and plaintext after the handshake.
//!
//! [`Initiator`] and [`Responder`] are state machines: they take the bytes that came, give the bytes
//! to send, and end with an [`Agreement`]. They take time and memory within fixed bounds: at most
//! 1.1 KiB is kept while a side looks for the other's mark, and one [`KeyPair`] is used once.
//!
//! ```text
//! A → B   Ya, PadA
//! B → A   Yb, PadB
//! A → B   HASH("req1", S), HASH("req2", SKEY) ⊕ HASH("req3", S),
//!         RC4(VC, methods, len(PadC), PadC, len(IA)), RC4(IA)
//! B → A   RC4(VC, method, len(PadD), PadD), then the chosen method
//! ```
//!
//! S is the shared secret, padded to 96 bytes; SKEY the info-hash; VC eight zeros; IA what A says
//! first, its BitTorrent handshake. Source: the specification in Vuze's wiki, "Message Stream
//! Encryption", with what libtorrent and Transmission accept.

mod initiator;
mod key_exchange;
mod rc4;
mod responder;
#[cfg(test)]
mod tests;

use sha1::{Digest, Sha1};

use piecework_core::{InfoHash, Rng};

pub use initiator::Initiator;
pub use key_exchange::{KeyPair, PUBLIC_KEY_LEN, PrivateKey};
pub use rc4::Rc4;
pub use responder::Responder;

use key_exchange::SharedSecret;

/// What a connection may use after the handshake, as bits of `crypto_provide`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Methods(u32);

/// What a connection uses after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Only the handshake is hidden.
    Plaintext,
    /// Everything is.
    Rc4,
}

/// Which connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum EncryptionPolicy {
    /// None: encrypted handshakes are not answered.
    Plain,
    /// Those that the peer wants encrypted. A peer is dialled plainly first, and again with an
    /// encrypted handshake if it refuses that.
    #[default]
    Allow,
    /// The handshakes of all whom we dial, unless they refuse that; what follows a handshake is in
    /// plaintext if both sides allow it.
    Prefer,
    /// All, from the first byte to the last.
    Require,
}

/// What both sides have agreed on.
#[derive(Debug)]
pub struct Agreement {
    /// The torrent.
    pub info_hash: InfoHash,
    /// How the connection goes on.
    pub method: Method,
    /// Decrypts what the peer sends and encrypts what it is sent; `None` with
    /// [`Method::Plaintext`].
    pub ciphers: Option<Ciphers>,
    /// What the peer has already said, decrypted.
    pub early: Vec<u8>,
}

/// Both directions of a connection.
#[derive(Debug)]
pub struct Ciphers {
    /// For what the peer sends.
    pub incoming: Rc4,
    /// For what it is sent.
    pub outgoing: Rc4,
}

/// What came was not the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EncryptionError {
    /// The public key gives a secret that anybody knows.
    #[error("its public key is one of those that make the secret known to all")]
    WeakKey,
    /// The mark that ends the padding did not come where it must.
    #[error("it does not speak the encrypted handshake")]
    NoMark,
    /// It means a torrent that we do not have.
    #[error("it asked for a torrent that is not ours")]
    UnknownTorrent,
    /// Its verification constant is not zero: it means another torrent, or talks nonsense.
    #[error("it does not prove that it knows the torrent")]
    NotVerified,
    /// A padding or first message of this many bytes.
    #[error("it announces {0} bytes where fewer are allowed")]
    TooLong(u16),
    /// It offers or chooses no method that we allow.
    #[error("it offers no method that is allowed here (bits `{0:#x}`)")]
    NoMethod(u32),
}

impl Methods {
    /// RC4 alone.
    pub const RC4: Self = Self(2);
    /// Plaintext after the handshake, or RC4.
    pub const ANY: Self = Self(3);

    /// The methods of a `crypto_provide` field; unknown bits count for nothing.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ANY.0)
    }

    fn contains(self, method: Method) -> bool {
        self.0 & method.bit() != 0
    }

    /// The cheapest method that both allow.
    fn choose(self, offered: Self) -> Option<Method> {
        let both = |method: &Method| self.contains(*method) && offered.contains(*method);
        [Method::Plaintext, Method::Rc4].into_iter().find(both)
    }
}

impl Method {
    fn bit(self) -> u32 {
        match self {
            Self::Plaintext => 1,
            Self::Rc4 => 2,
        }
    }
}

impl EncryptionPolicy {
    /// The methods that an encrypted handshake may end with, `None` if there is to be none.
    pub fn methods(self) -> Option<Methods> {
        match self {
            Self::Plain => None,
            Self::Allow | Self::Prefer => Some(Methods::ANY),
            Self::Require => Some(Methods::RC4),
        }
    }

    /// Whether a connection may be plain.
    pub fn allows_plain(self) -> bool {
        self != Self::Require
    }
}

/// The hash by which an initiator names the torrent: `HASH("req2", SKEY)`, before it is hidden.
pub fn torrent_mark(info_hash: InfoHash) -> [u8; 20] {
    hash(&[b"req2", &info_hash.0])
}

/// The two streams of a connection, as the initiator names them, both past their first 1,024
/// bytes, which tell too much of the key.
fn ciphers(secret: &SharedSecret, info_hash: InfoHash) -> [Rc4; 2] {
    [b"keyA", b"keyB"].map(|name| {
        let mut cipher = Rc4::new(&hash(&[name, &secret.0, &info_hash.0]));
        cipher.skip(1_024);
        cipher
    })
}

fn secret_mark(secret: &SharedSecret) -> [u8; 20] {
    hash(&[b"req1", &secret.0])
}

/// Hides a torrent's mark, or uncovers it.
fn veil(mark: [u8; 20], secret: &SharedSecret) -> [u8; 20] {
    let cover = hash(&[b"req3", &secret.0]);
    std::array::from_fn(|at| mark[at] ^ cover[at])
}

fn hash(parts: &[&[u8]]) -> [u8; 20] {
    let mut sha1 = Sha1::new();
    parts.iter().for_each(|part| sha1.update(part));
    sha1.finalize().into()
}

/// Appends padding of random length and content.
fn pad(out: &mut Vec<u8>, rng: &mut Rng) {
    let len = rng.below(LONGEST_PAD as u64 + 1) as usize;
    out.extend((0..len).map(|_| rng.next_u64() as u8));
}

/// Looks for `mark` behind at most [`LONGEST_PAD`] bytes of padding. Gives where it ends, `None` if
/// it may still come.
fn find_mark(bytes: &[u8], mark: &[u8]) -> Result<Option<usize>, EncryptionError> {
    let searched = &bytes[..bytes.len().min(LONGEST_PAD + mark.len())];
    if let Some(at) = searched.windows(mark.len()).position(|window| window == mark) {
        return Ok(Some(at + mark.len()));
    }
    if searched.len() == LONGEST_PAD + mark.len() { Err(EncryptionError::NoMark) } else { Ok(None) }
}

/// The length of a padding or first message, at most `most`.
fn length(bytes: [u8; 2], most: usize) -> Result<usize, EncryptionError> {
    let len = u16::from_be_bytes(bytes);
    if usize::from(len) > most { Err(EncryptionError::TooLong(len)) } else { Ok(len.into()) }
}

/// The specification's bound for each padding.
const LONGEST_PAD: usize = 512;

/// The verification constant.
const VC: [u8; 8] = [0; 8];
