//! Conversions between numbers that stop at the ends of the target type.

/// A conversion from a wider number that saturates.
///
/// `as` cuts bits off silently. Here, a value that does not fit becomes the nearest one that does, and a float
/// that is not a number becomes 0. Where a limit is missing, this decides what happens next: a length that
/// saturates is refused, one that wraps around is believed.
///
/// ```
/// use piecework_core::SaturatingFrom;
///
/// assert_eq!(u32::saturating_from(7_usize), 7);
/// assert_eq!(u8::saturating_from(300_u64), 255);
/// assert_eq!(u64::saturating_from(-1_i64), 0);
/// assert_eq!(u64::saturating_from(2.9_f64), 2);
/// ```
pub trait SaturatingFrom<T> {
    /// Returns the value of `Self` that is nearest to `value`; a fraction is cut off.
    fn saturating_from(value: T) -> Self;
}

/// Returns the lower 32 bits of `value`, where 32 bits of a hash are enough.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the upper half is dropped on purpose")]
pub const fn low_half(value: u64) -> u32 {
    value as u32
}

/// From unsigned and signed integers.
macro_rules! from_integers {
    ($($from:ty => $($to:ty)*;)*) => {$($(
        impl SaturatingFrom<$from> for $to {
            #[inline]
            fn saturating_from(value: $from) -> Self {
                // Each target type holds zero, so a negative value that does not fit is too small, and any other too large.
                #[allow(unused_comparisons, reason = "unsigned values are never below zero")]
                let nearest = if value < 0 { Self::MIN } else { Self::MAX };
                Self::try_from(value).unwrap_or(nearest)
            }
        }
    )*)*};
}

from_integers! {
    u32 => u8 u16;
    u64 => u8 u16 u32 usize i64;
    u128 => u32 u64 i128;
    usize => u8 u16 u32 i64;
    i64 => u32 u64 usize;
}

/// From floating-point numbers, for which `as` saturates.
macro_rules! from_floats {
    ($($from:ty => $($to:ty)*;)*) => {$($(
        impl SaturatingFrom<$from> for $to {
            #[inline]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, by the language's definition"
            )]
            fn saturating_from(value: $from) -> Self {
                value as Self
            }
        }
    )*)*};
}

from_floats! {
    f64 => u32 u64 i64 usize;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_a_hash_is_its_lower_half() {
        assert_eq!(low_half(0x0123_4567_89ab_cdef), 0x89ab_cdef);
    }

    #[test]
    fn the_ends_of_a_type_are_where_values_stop() {
        assert_eq!(u32::saturating_from(u64::from(u32::MAX)), u32::MAX);
        assert_eq!(u32::saturating_from(u64::from(u32::MAX) + 1), u32::MAX);
        assert_eq!(u64::saturating_from(u128::MAX), u64::MAX);
        assert_eq!(i64::saturating_from(u64::MAX), i64::MAX);
        assert_eq!(u32::saturating_from(i64::MIN), 0);
        assert_eq!(usize::saturating_from(-1_i64), 0);
        assert_eq!(u64::saturating_from(f64::NAN), 0);
        assert_eq!(u64::saturating_from(-3.5), 0);
        assert_eq!(u64::saturating_from(f64::INFINITY), u64::MAX);
        assert_eq!(i64::saturating_from(-3.5), -3);
    }

    proptest! {
        #[test]
        fn what_fits_is_unchanged(value: u32) {
            prop_assert_eq!(u32::saturating_from(u64::from(value)), value);
            prop_assert_eq!(u32::saturating_from(value as usize), value);
            prop_assert_eq!(u32::saturating_from(i64::from(value)), value);
            prop_assert_eq!(u32::saturating_from(f64::from(value)), value);
        }

        #[test]
        fn order_is_kept(a: i64, b: i64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(u32::saturating_from(low) <= u32::saturating_from(high));
        }
    }
}
