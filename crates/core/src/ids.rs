//! Identities of twenty bytes: info-hash, piece hash, peer id.

use crate::SaturatingFrom;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Rng;

/// The SHA-1 of the `info` dictionary of a torrent, exactly as received (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

/// A SHA-1 digest of content: of a piece or a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha1Hash(pub [u8; 20]);

/// The id that a peer chose for itself (BEP 3; naming convention in BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

/// The text is not forty hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not forty hexadecimal digits")]
pub struct HexError(pub String);

impl PeerId {
    /// The prefix of our peer ids (BEP 20, Azureus style): client `PW`, version 0.1.0.0.
    pub const PREFIX: &'static [u8; 8] = b"-PW0100-";

    /// The prefix of the peer ids with which our tracker observes: client `PK`.
    pub const TRACKER_PREFIX: &'static [u8; 8] = b"-PK0100-";

    /// Generates a peer id: our prefix and twelve random letters or digits.
    pub fn generate(rng: &mut Rng) -> Self {
        Self::with_prefix(Self::PREFIX, rng)
    }

    /// Generates a peer id for a tracker that observes.
    pub fn generate_tracker(rng: &mut Rng) -> Self {
        Self::with_prefix(Self::TRACKER_PREFIX, rng)
    }

    /// Returns whether it is the id of a tracker that observes, which never requests anything.
    pub fn is_tracker(&self) -> bool {
        self.0.starts_with(b"-PK")
    }

    fn with_prefix(prefix: &[u8; 8], rng: &mut Rng) -> Self {
        const ALPHABET: &[u8; 62] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut id = [0; 20];
        id[..8].copy_from_slice(prefix);
        for byte in &mut id[8..] {
            *byte = ALPHABET[usize::saturating_from(rng.below(ALPHABET.len() as u64))];
        }
        Self(id)
    }

    /// Returns the name and version of the client as far as the id tells them (BEP 20), such as
    /// `Transmission 3.0.0`. Otherwise returns the printable form of the id.
    pub fn client_name(&self) -> String {
        let id = &self.0;
        let azureus = id[0] == b'-'
            && id[7] == b'-'
            && id[1..3].iter().all(u8::is_ascii_alphanumeric)
            && id[3..7].iter().all(u8::is_ascii_alphanumeric);
        if azureus {
            let code = [id[1], id[2]];
            let version = &id[3..7];
            let name = AZUREUS_CODES.iter().find(|(known, _)| **known == code).map_or_else(
                || String::from_utf8_lossy(&code).into_owned(),
                |(_, name)| (*name).to_owned(),
            );
            if &code == b"TR" {
                // Transmission 3 writes the major version, two digits for the minor version, and a
                // channel letter: `300Z`. Transmission 4 writes one digit for each part: `4040`.
                if version[0] < b'4' {
                    let minor = String::from_utf8_lossy(&version[1..3]).into_owned();
                    return format!("{name} {}.{minor}", version[0] as char);
                }
            }
            let digits: Vec<String> = version.iter().map(|b| version_digit(*b)).collect();
            let shown = if digits[3] == "0" { 3 } else { 4 };
            return format!("{name} {}", digits[..shown].join("."));
        }
        if id[0] == b'A' && id[1] == b'2' && id[2] == b'-' {
            // aria2: `A2-1-36-0-` and random bytes.
            let version: Vec<String> = id[3..]
                .split(|b| *b == b'-')
                .take(3)
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect();
            let plain = version
                .iter()
                .all(|p| !p.is_empty() && p.len() <= 3 && p.bytes().all(|b| b.is_ascii_digit()));
            if plain {
                return format!("aria2 {}", version.join("."));
            }
        }
        super::printable_bytes(&id[..8])
    }
}

impl FromStr for InfoHash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        parse_hex(text).map(Self)
    }
}

impl FromStr for Sha1Hash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for Sha1Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::printable_bytes(&self.0))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({self})")
    }
}

impl fmt::Debug for Sha1Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha1Hash({self})")
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl Serialize for InfoHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InfoHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn version_digit(byte: u8) -> String {
    match byte {
        b'0'..=b'9' => (byte - b'0').to_string(),
        b'A'..=b'Z' => (byte - b'A' + 10).to_string(),
        b'a'..=b'z' => (byte - b'a' + 36).to_string(),
        _ => "?".to_owned(),
    }
}

fn parse_hex(text: &str) -> Result<[u8; 20], HexError> {
    let fault = || HexError(super::printable(&text.chars().take(64).collect::<String>()).into());
    let digits = text.as_bytes();
    if digits.len() != 40 {
        return Err(fault());
    }
    let mut out = [0; 20];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16).ok_or_else(fault)?;
        let low = (pair[1] as char).to_digit(16).ok_or_else(fault)?;
        *byte = u8::saturating_from(high * 16 + low);
    }
    Ok(out)
}

fn write_hex(bytes: &[u8; 20], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// BEP 20 codes of common clients.
const AZUREUS_CODES: &[(&[u8; 2], &str)] = &[
    (b"PW", "Piecework"),
    (b"PK", "Piecework tracker"),
    (b"TR", "Transmission"),
    (b"LT", "libtorrent"),
    (b"lt", "rTorrent"),
    (b"qB", "qBittorrent"),
    (b"rQ", "rqbit"),
    (b"DE", "Deluge"),
    (b"UT", "uTorrent"),
    (b"UM", "uTorrent Mac"),
    (b"AZ", "Vuze"),
    (b"BI", "BiglyBT"),
    (b"GT", "anacrolix"),
    (b"KT", "KTorrent"),
    (b"WW", "WebTorrent"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_other_text() {
        let text = "0123456789abcdef0123456789ABCDEF01234567";
        let hash: InfoHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text.to_lowercase());
        assert!("0123".parse::<InfoHash>().is_err());
        assert!("zz23456789abcdef0123456789ABCDEF01234567".parse::<InfoHash>().is_err());
    }

    #[test]
    fn clients_are_named_by_their_peer_id() {
        let name = |id: &[u8; 20]| PeerId(*id).client_name();
        assert_eq!(name(b"-TR3000-abcdefghijkl"), "Transmission 3.00");
        assert_eq!(name(b"-LT2110-abcdefghijkl"), "libtorrent 2.1.1");
        assert_eq!(name(b"A2-1-36-0-abcdefghij"), "aria2 1.36.0");
        assert_eq!(name(b"-PW0100-abcdefghijkl"), "Piecework 0.1.0");
        assert_eq!(name(b"\x1b[2Jevil!abcdefghijk"), "\\x1b[2Jevil");
    }

    #[test]
    fn generated_ids_carry_our_prefix_and_differ() {
        let mut rng = Rng::from_seed(7);
        let (a, b) = (PeerId::generate(&mut rng), PeerId::generate(&mut rng));
        assert!(a.0.starts_with(PeerId::PREFIX));
        assert_ne!(a, b);
    }
}
