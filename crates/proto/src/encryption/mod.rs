//! Message Stream Encryption, the handshake and cipher that hide BitTorrent from networks that throttle it (also
//! called protocol encryption, PE).
//!
//! It is obfuscation: an observer who knows the info-hash can read everything, and nobody is authenticated. The two
//! sides agree on a secret with Diffie-Hellman, prove that they mean the same torrent, and choose between RC4 for
//! the whole connection and plaintext after the handshake.
//!
//! [`Initiator`] and [`Responder`] are state machines: they take the received bytes, return the bytes to send, and
//! end with an [`Agreement`]. Their time and memory are bounded: a side keeps at most 1.1 KiB while it looks for
//! the other's mark, and each [`KeyPair`] is used once.
//!
//! ```text
//! A → B   Ya, PadA
//! B → A   Yb, PadB
//! A → B   HASH("req1", S), HASH("req2", SKEY) ⊕ HASH("req3", S),
//!         RC4(VC, methods, len(PadC), PadC, len(IA)), RC4(IA)
//! B → A   RC4(VC, method, len(PadD), PadD), then the chosen method
//! ```
//!
//! S is the shared secret, padded to 96 bytes; SKEY is the info-hash; VC is eight zeros; IA is A's first message,
//! its BitTorrent handshake. Source: the specification in Vuze's wiki, "Message Stream Encryption", with what
//! libtorrent and Transmission accept.

mod initiator;
mod key_exchange;
mod rc4;
mod responder;
#[cfg(test)]
mod tests;

use piecework_core::SaturatingFrom;
use sha1::{Digest, Sha1};

use piecework_core::{InfoHash, Rng};

pub use initiator::Initiator;
pub use key_exchange::{KeyPair, PUBLIC_KEY_LEN, PrivateKey};
pub use rc4::Rc4;
pub use responder::Responder;

use key_exchange::SharedSecret;

/// The methods that a connection may use after the handshake, as bits of `crypto_provide`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Methods(u32);

/// The method that a connection uses after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Only the handshake is encrypted.
    Plaintext,
    /// Everything is encrypted.
    Rc4,
}

/// Which connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum EncryptionPolicy {
    /// None. Encrypted handshakes are not answered.
    Plain,
    /// Those for which the peer wants encryption. Outgoing connections try a plain handshake first, and then an
    /// encrypted one if the peer refuses.
    #[default]
    Allow,
    /// The handshakes of outgoing connections, unless the peer refuses. After the handshake plaintext is used if
    /// both sides allow it.
    Prefer,
    /// All connections, from the first byte to the last.
    Require,
}

/// The result of a handshake.
#[derive(Debug)]
pub struct Agreement {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The method after the handshake.
    pub method: Method,
    /// The ciphers of both directions; `None` with [`Method::Plaintext`].
    pub ciphers: Option<Ciphers>,
    /// Bytes that the peer has already sent after the handshake, decrypted.
    pub early: Vec<u8>,
}

/// The ciphers of both directions of a connection.
#[derive(Debug)]
pub struct Ciphers {
    /// Decrypts bytes from the peer.
    pub incoming: Rc4,
    /// Encrypts bytes to the peer.
    pub outgoing: Rc4,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EncryptionError {
    /// With this public key anybody would know the secret.
    #[error("its public key would make the secret known to anybody")]
    WeakKey,
    /// The mark that ends the padding did not come in time.
    #[error("it does not speak the encrypted handshake")]
    NoMark,
    /// The torrent is unknown.
    #[error("it asked for an unknown torrent")]
    UnknownTorrent,
    /// The verification constant is not zero: the peer means another torrent or does not follow the protocol.
    #[error("it does not prove that it knows the torrent")]
    NotVerified,
    /// A padding or first message is too long.
    #[error("it announces {0} bytes where fewer are allowed")]
    TooLong(u16),
    /// The peer offers or chooses no allowed method.
    #[error("it offers no method that is allowed here (bits `{0:#x}`)")]
    NoMethod(u32),
}

impl Methods {
    /// Only RC4.
    pub const RC4: Self = Self(2);
    /// Plaintext after the handshake, or RC4.
    pub const ANY: Self = Self(3);

    /// Returns the methods in a `crypto_provide` field. Unknown bits are ignored.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ANY.0)
    }

    fn contains(self, method: Method) -> bool {
        self.0 & method.bit() != 0
    }

    /// Returns the cheapest method that both allow.
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
    /// Returns the allowed methods of an encrypted handshake; `None` if such handshakes are not allowed.
    pub fn methods(self) -> Option<Methods> {
        match self {
            Self::Plain => None,
            Self::Allow | Self::Prefer => Some(Methods::ANY),
            Self::Require => Some(Methods::RC4),
        }
    }

    /// Returns whether a connection may be plain.
    pub fn allows_plain(self) -> bool {
        self != Self::Require
    }
}

/// Returns the hash with which an initiator names the torrent: `HASH("req2", SKEY)`, before it is hidden.
pub fn torrent_mark(info_hash: InfoHash) -> [u8; 20] {
    hash(&[b"req2", &info_hash.0])
}

/// Returns the two streams of a connection, from the initiator and to it. Their first 1,024 bytes, which reveal too
/// much of the key, are skipped.
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

/// Hides or reveals a torrent's mark.
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
    let len = usize::saturating_from(rng.below(LONGEST_PAD as u64 + 1));
    out.extend((0..len).map(|_| rng.next_u64().to_le_bytes()[0]));
}

/// Looks for `mark` after at most [`LONGEST_PAD`] bytes of padding. Returns where it ends; `None` if it may still
/// come.
fn find_mark(bytes: &[u8], mark: &[u8]) -> Result<Option<usize>, EncryptionError> {
    let searched = &bytes[..bytes.len().min(LONGEST_PAD + mark.len())];
    if let Some(at) = searched.windows(mark.len()).position(|window| window == mark) {
        return Ok(Some(at + mark.len()));
    }
    if searched.len() == LONGEST_PAD + mark.len() { Err(EncryptionError::NoMark) } else { Ok(None) }
}

/// Parses the length of a padding or first message, which may be at most `most`.
fn length(bytes: [u8; 2], most: usize) -> Result<usize, EncryptionError> {
    let len = u16::from_be_bytes(bytes);
    if usize::from(len) > most { Err(EncryptionError::TooLong(len)) } else { Ok(len.into()) }
}

/// The specification's limit for each padding.
const LONGEST_PAD: usize = 512;

/// The verification constant.
const VC: [u8; 8] = [0; 8];
