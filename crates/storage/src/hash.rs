//! SHA-1 for torrents: of one stream, and of many messages together.
//!
//! All hashing in this crate goes through here, so that the method is chosen in one place. BEP 3
//! demands SHA-1; it does not protect against anyone who can choose the content.

use std::sync::OnceLock;

use piecework_core::printable;
use sha_lanes::{Level, hash_many};

/// The SHA-1 of a stream that arrives in parts.
pub(super) use sha_lanes::Stream as Hasher;

/// A SHA-1 digest.
pub(super) use sha_lanes::Digest as Digest20;

/// Returns the SHA-1 of each of several messages, in order.
pub(super) fn digest_each<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Vec<Digest20> {
    let messages: Vec<[&[u8]; 1]> = messages.into_iter().map(|message| [message]).collect();
    hash_many(level(), &messages)
}

/// Returns how this process hashes several messages: as the environment variable [`VARIABLE`] says,
/// otherwise the fastest way.
pub(super) fn level() -> Level {
    static CHOSEN: OnceLock<Level> = OnceLock::new();
    *CHOSEN.get_or_init(|| match chosen_name().as_deref().and_then(level_named) {
        None => default_level(),
        Some(Ok(level)) => level,
        Some(Err(notice)) => {
            tracing::warn!("{notice}");
            default_level()
        }
    })
}

/// Returns what is wrong with the environment variable that chooses the method, if anything: a
/// sentence for the user. For programs without a log, in which it would appear.
pub fn hashing_notice() -> Option<String> {
    chosen_name().as_deref().and_then(level_named).and_then(Result::err)
}

fn chosen_name() -> Option<String> {
    // A value that is not UTF-8 is not a level.
    std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned())
}

/// Returns the level called `name`, or why it is not available; `None` if no level was chosen.
fn level_named(name: &str) -> Option<Result<Level, String>> {
    if name.is_empty() {
        return None;
    }
    Some(Level::named(name).ok_or_else(|| {
        let known: Vec<&str> = Level::available().map(Level::name).collect();
        format!(
            "`{VARIABLE}` is `{}`, but this machine has only `{}`: going on with `{}`",
            printable(name),
            known.join("`, `"),
            default_level().name(),
        )
    }))
}

fn default_level() -> Level {
    // Vector code without optimisation is slower than the crate, which is optimised in every
    // profile.
    if cfg!(debug_assertions) { Level::scalar() } else { Level::best() }
}

/// The variable contains a [`Level::name`].
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
        assert_eq!(level_named("scalar"), Some(Ok(Level::scalar())));
        assert_eq!(level_named(""), None);
        let notice = level_named("avx9000\x1b").unwrap().unwrap_err();
        let choice = format!("going on with `{}`", default_level().name());
        assert!(notice.contains("`avx9000\\x1b`") && notice.ends_with(&choice), "{notice}");
        assert!(notice.contains("`scalar`"), "{notice}");
    }
}
