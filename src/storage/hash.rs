//! SHA-1 as torrents need it: of one stream, and of many messages side by side.
//!
//! Everything in `storage` that hashes goes through here, so that an implementation that works on
//! several messages at once can take the place of this one. SHA-1 is what BEP 3 asks for; it is
//! not used against anyone who could choose the content.

use sha1::{Digest, Sha1};

/// A SHA-1 digest.
pub(super) type Digest20 = [u8; 20];

/// SHA-1 of a stream that comes in parts.
#[derive(Clone, Default)]
pub(super) struct Hasher(Sha1);

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of what has come; the hasher begins anew.
    pub fn finish(&mut self) -> Digest20 {
        self.0.finalize_reset().into()
    }
}

/// SHA-1 of one message that lies in parts.
pub(super) fn digest_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest20 {
    let mut hasher = Hasher::default();
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finish()
}

/// SHA-1 of each of several messages, in order.
pub(super) fn digest_each<'a>(
    messages: impl IntoIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Digest20> {
    messages.into_iter().map(|message| Sha1::digest(message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-1, appendix A.
    const ABC: Digest20 = [
        0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50, 0xc2,
        0x6c, 0x9c, 0xd0, 0xd8, 0x9d,
    ];

    #[test]
    fn one_stream_many_parts_and_many_messages_agree() {
        assert_eq!(digest_of([&b"a"[..], b"", b"bc"]), ABC);
        assert_eq!(digest_each([&b"abc"[..], b"abc"]).collect::<Vec<_>>(), [ABC, ABC]);
        let mut hasher = Hasher::default();
        hasher.update(b"other");
        hasher.finish();
        hasher.update(b"abc");
        assert_eq!(hasher.finish(), ABC);
    }
}
