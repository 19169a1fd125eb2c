//! SHA-1 as torrents need it: of one stream, and of many messages side by side.
//!
//! Everything in `storage` that hashes goes through here, so that it is decided in one place how.
//! SHA-1 is what BEP 3 asks for; it is not used against anyone who could choose the content.

use std::sync::OnceLock;

use crate::base::printable;
use crate::sha1_lanes::{Level, hash_many};

/// SHA-1 of a stream that comes in parts.
pub(super) use crate::sha1_lanes::Stream as Hasher;

/// A SHA-1 digest.
pub(super) use crate::sha1_lanes::Digest as Digest20;

/// SHA-1 of each of several messages, in order.
pub(super) fn digest_each<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Vec<Digest20> {
    let messages: Vec<[&[u8]; 1]> = messages.into_iter().map(|message| [message]).collect();
    hash_many(level(), &messages)
}

/// How this process hashes several messages: as the environment variable [`VARIABLE`] says, or
/// else the fastest way there is.
pub(super) fn level() -> Level {
    static CHOSEN: OnceLock<Level> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let named = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        named.map_or_else(default_level, |name| level_named(&name))
    })
}

fn level_named(name: &str) -> Level {
    Level::named(name).unwrap_or_else(|| {
        let level = default_level();
        let known: Vec<&str> = Level::available().map(Level::name).collect();
        tracing::warn!(
            "`{VARIABLE}` is `{}`, but this machine has only `{}`: going on with `{}`",
            printable(name),
            known.join("`, `"),
            level.name(),
        );
        level
    })
}

fn default_level() -> Level {
    // Vector code that is not optimised is slower than the crate, which is so in every profile.
    if cfg!(debug_assertions) { Level::scalar() } else { Level::best() }
}

/// Takes a [`Level::name`].
const VARIABLE: &str = "PIECEWORK_SHA1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_its_digest_in_order() {
        // FIPS 180-1, appendix A.
        const ABC: Digest20 = [
            0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50,
            0xc2, 0x6c, 0x9c, 0xd0, 0xd8, 0x9d,
        ];
        let digests = digest_each([&b"abc"[..], b"", b"abc"]);
        assert_eq!((digests[0], digests[2]), (ABC, ABC));
        assert_eq!(digests[1], Hasher::default().finish());
    }

    #[test]
    fn an_unknown_level_is_no_reason_to_stop() {
        assert_eq!(level_named("scalar"), Level::scalar());
        assert_eq!(level_named("avx9000"), default_level());
    }
}
