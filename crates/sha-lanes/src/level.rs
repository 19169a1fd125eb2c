//! The instructions of the processor.

use std::fmt;

/// A way to hash several messages at once that this machine supports.
///
/// Values are only created after a check, so a holder may use the instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Level(Kind);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// 16 messages in 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 messages in 256-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 2 messages with the SHA-1 instructions.
    #[cfg(target_arch = "x86_64")]
    Sha,
    /// One message after the other, with the `sha1` crate.
    Scalar,
}

impl Level {
    /// Returns the fastest level of this machine.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self(Kind::Scalar))
    }

    /// Returns all levels of this machine, fastest first. [`Level::scalar`] is always the last.
    pub fn available() -> impl Iterator<Item = Self> {
        ALL.into_iter().filter(|kind| kind.is_available()).map(Self)
    }

    /// Returns the level called `name` ([`Level::name`]), if this machine supports it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().find(|level| level.name() == name)
    }

    /// Returns the level that hashes one message after the other.
    pub fn scalar() -> Self {
        Self(Kind::Scalar)
    }

    /// Returns the name of the level.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns how many messages are hashed at a time. Pass as many at once, or a multiple.
    pub fn width(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 8,
            #[cfg(target_arch = "x86_64")]
            Kind::Sha => 2,
            Kind::Scalar => 1,
        }
    }

    /// Returns from how many messages on it is faster to hash them together than one by one; more
    /// than [`Level::width`] if it never is.
    pub fn gains_from(self) -> usize {
        self.for_few().unwrap_or(self).enough()
    }

    /// Returns the level for too few messages for this one, if there is a better one than the
    /// crate's.
    pub(super) fn for_few(self) -> Option<Self> {
        match self.0 {
            Kind::Scalar => None,
            #[cfg(target_arch = "x86_64")]
            _ => Kind::Sha.is_available().then_some(Self(Kind::Sha)),
        }
    }

    /// Returns how many messages are needed for the lanes to be faster than pairs or, without SHA-1
    /// instructions, than one message after the other.
    ///
    /// A step of `width` lanes takes the same time however many of them are busy. Measured on a Zen
    /// 4 core (GB/s, messages in L2): 16 lanes 7.6, 8 lanes 4.1, pairs 3.3, one stream 1.9. So 16
    /// lanes take the time of 16 / 7.6 × 3.3 = 6.9 messages in pairs. A Zen 5 core, before its
    /// words were put in order among the rounds, did 9.4, 3.9, 3.9 and 2.2, and 1.1 without SHA-1
    /// instructions: there 8 lanes take the time of 8 / 3.9 × 3.9 = 8 messages in pairs (6.4 on Zen
    /// 4), and without the instructions 16 lanes that of 16 / 9.4 × 1.1 = 1.9 single ones, and 8
    /// lanes that of 2.3. Processors without the instructions are older and have slower lanes, so
    /// it is 3 there.
    pub(super) fn enough(self) -> usize {
        match (self.0, self.for_few()) {
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, Some(_)) => 7,
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, Some(_)) => 8,
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512 | Kind::Avx2, None) => 3,
            _ => 2,
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Sha => "sha",
            Self::Scalar => "scalar",
        }
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Sha => {
                is_x86_feature_detected!("sha")
                    && is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
            }
            Self::Scalar => true,
        }
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({})", self.name())
    }
}

/// In order of preference. Pairs come before AVX2: they are as fast with two messages as 8 lanes
/// with eight.
#[cfg(target_arch = "x86_64")]
const ALL: [Kind; 4] = [Kind::Avx512, Kind::Sha, Kind::Avx2, Kind::Scalar];
#[cfg(not(target_arch = "x86_64"))]
const ALL: [Kind; 1] = [Kind::Scalar];
