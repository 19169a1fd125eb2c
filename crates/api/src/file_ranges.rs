//! Choices of files, as people write them.

use std::collections::BTreeSet;

use piecework_core::printable;

/// Why a text is not a choice of files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileRangeError {
    /// A part is neither a number nor a range.
    #[error("`{0}` is not a file number or a range such as `3-5`")]
    NotNumber(
        /// The part, safe to show.
        String,
    ),
    /// The torrent has no file with this number.
    #[error("there is no file `{number}`: they go from 1 to {count}")]
    NoSuchFile {
        /// The number, from 1.
        number: u32,
        /// How many files the torrent has.
        count: u32,
    },
    /// The last number of a range is less than the first.
    #[error("the range `{0}` ends before it begins")]
    Backwards(
        /// The range, safe to show.
        String,
    ),
}

/// Parses a choice of files such as `1,3-5` (numbers from 1, both ends included, `all` for every
/// file). Returns indices from 0, ascending and without duplicates.
///
/// # Errors
/// If a part is not a number, or not a file among `count`.
pub fn parse_file_ranges(text: &str, count: u32) -> Result<Vec<u32>, FileRangeError> {
    if text.trim() == "all" {
        return Ok((0..count).collect());
    }
    let index = |text: &str| {
        let text = text.trim();
        let number: u32 =
            text.parse().map_err(|_| FileRangeError::NotNumber(printable(text).into_owned()))?;
        match number.checked_sub(1).filter(|index| *index < count) {
            Some(index) => Ok(index),
            None => Err(FileRangeError::NoSuchFile { number, count }),
        }
    };
    let mut chosen = BTreeSet::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (index(first)?, index(last)?);
                if first > last {
                    return Err(FileRangeError::Backwards(printable(part).into_owned()));
                }
                chosen.extend(first..=last);
            }
            None => {
                chosen.insert(index(part)?);
            }
        }
    }
    Ok(chosen.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_name_files_once_and_in_order() {
        assert_eq!(parse_file_ranges("5, 1,2-3,3", 5).unwrap(), [0, 1, 2, 4]);
        assert_eq!(parse_file_ranges(" all ", 3).unwrap(), [0, 1, 2]);
        assert!(parse_file_ranges("all", 0).unwrap().is_empty());
    }

    #[test]
    fn file_choices_are_numbers_and_ranges_from_one() {
        assert_eq!(parse_file_ranges("1,3-5, 4", 6).unwrap(), [0, 2, 3, 4]);
        assert_eq!(parse_file_ranges("all", 3).unwrap(), [0, 1, 2]);
        for bad in ["", "0", "7", "5-3", "1-", "x", "1,,2"] {
            assert!(parse_file_ranges(bad, 6).is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_name_the_part_that_is_wrong() {
        let fault = |text: &str| parse_file_ranges(text, 5).unwrap_err();
        let not = |text: &str| FileRangeError::NotNumber(text.to_owned());
        assert_eq!(fault("1,x"), not("x"));
        assert_eq!(fault(""), not(""));
        assert_eq!(fault("4294967296"), not("4294967296"));
        for number in [0, 6] {
            let none = FileRangeError::NoSuchFile { number, count: 5 };
            assert_eq!(fault(&number.to_string()), none);
        }
        assert_eq!(fault("4-2"), FileRangeError::Backwards("4-2".to_owned()));
    }
}
