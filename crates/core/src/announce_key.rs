//! The key by which a tracker recognizes a peer.

use std::fmt;

use subtle::ConstantTimeEq;

/// A value that a peer sends to a tracker with each announce and shows to nobody else (BEP 7).
/// Announces with the same key come from the same peer. Compare keys with [`AnnounceKey::is_same`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnnounceKey {
    /// The number that most clients send. UDP has no room for another form (BEP 15).
    Short(u32),
    /// What our peers send over HTTP. It cannot be guessed. Its first four bytes are its short
    /// form.
    Long([u8; 16]),
}

impl AnnounceKey {
    /// Returns the form that a UDP announce carries.
    pub fn short(self) -> u32 {
        match self {
            Self::Short(key) => key,
            Self::Long([a, b, c, d, ..]) => u32::from_be_bytes([a, b, c, d]),
        }
    }

    /// Returns whether both keys belong to one peer. If one of them is short, the short form of the
    /// other is compared. The time does not depend on where they differ.
    pub fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Long(a), Self::Long(b)) => a.ct_eq(&b).into(),
            (a, b) => a.short().ct_eq(&b.short()).into(),
        }
    }

    /// Returns whether the key has more than the four bytes of the short form.
    pub fn is_long(self) -> bool {
        matches!(self, Self::Long(_))
    }
}

impl From<u32> for AnnounceKey {
    fn from(key: u32) -> Self {
        Self::Short(key)
    }
}

impl fmt::Display for AnnounceKey {
    /// Writes eight or thirty-two hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(key) => write!(f, "{key:08x}"),
            Self::Long(key) => key.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_key_is_the_beginning_of_a_long_one() {
        let long = AnnounceKey::Long(*b"0123456789abcdef");
        let other = AnnounceKey::Long(*b"0123456789abcdeg");
        let short = AnnounceKey::Short(0x3031_3233);
        assert!(long.is_same(long) && !long.is_same(other) && !other.is_same(long));
        assert!(short.is_same(long) && other.is_same(short) && short.is_same(short));
        assert!(!AnnounceKey::Short(1).is_same(long) && !long.is_same(AnnounceKey::Short(1)));
        assert_eq!(short.to_string(), "30313233");
        assert_eq!(long.to_string(), "30313233343536373839616263646566");
    }
}
