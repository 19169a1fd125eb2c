//! What can be wrong with bencode.

/// Why bytes are not bencode that we take, and at which byte.
#[derive(Debug, thiserror::Error)]
pub enum BencodeError {
    /// More bytes than the caller takes.
    #[error("`{len}` bytes of bencode are more than the `{limit}` taken here")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes taken.
        limit: usize,
    },
    /// The value goes on behind the last byte.
    #[error("the bencode is cut off at byte `{offset}`")]
    Truncated {
        /// Where a byte is missing.
        offset: usize,
    },
    /// Bytes behind the value.
    #[error("the bencode ends at byte `{offset}`, but `{extra}` bytes follow")]
    Trailing {
        /// Where the value ends.
        offset: usize,
        /// Bytes behind it.
        extra: usize,
    },
    /// A byte that begins no value.
    #[error("`{}` at byte `{offset}` does not begin a bencode value", byte.escape_ascii())]
    UnexpectedByte {
        /// Where it stands.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// Lists and dictionaries inside one another beyond the limit.
    #[error("the bencode is nested deeper than `{limit}` levels at byte `{offset}`")]
    TooDeep {
        /// Where the first value too deep begins.
        offset: usize,
        /// Levels taken.
        limit: usize,
    },
    /// More values than the limit.
    #[error("the bencode has more than `{limit}` values at byte `{offset}`")]
    TooManyTokens {
        /// Where the first value too many begins.
        offset: usize,
        /// Values taken, keys counted.
        limit: usize,
    },
    /// An integer not in its one canonical spelling.
    #[error("the integer at byte `{offset}` is not canonical bencode")]
    BadInteger {
        /// Where its `i` stands.
        offset: usize,
    },
    /// An integer of more than 64 bits.
    #[error("the integer at byte `{offset}` does not fit 64 bits")]
    IntegerRange {
        /// Where its `i` stands.
        offset: usize,
    },
    /// A string length not in its one canonical spelling.
    #[error("the string length at byte `{offset}` is not canonical bencode")]
    BadLength {
        /// Where its first digit stands.
        offset: usize,
    },
    /// A string longer than the bytes that are left.
    #[error("the string at byte `{offset}` is longer than the `{left}` bytes that follow")]
    StringTooLong {
        /// Where its length begins.
        offset: usize,
        /// Bytes behind its colon.
        left: usize,
    },
    /// A dictionary key that is not a string.
    #[error("the dictionary key at byte `{offset}` is not a string")]
    KeyNotString {
        /// Where it begins.
        offset: usize,
    },
    /// A key without a value.
    #[error("the dictionary ends at byte `{offset}` behind a key without a value")]
    MissingValue {
        /// Where the dictionary's `e` stands.
        offset: usize,
    },
    /// One key twice in a dictionary.
    #[error("the dictionary key at byte `{offset}` occurs twice")]
    DuplicateKey {
        /// Where its second occurrence begins.
        offset: usize,
    },
    /// Sound bencode, but not of the shape that was asked for.
    #[error("the value at byte `{offset}` is not what belongs there: {fault}")]
    Decode {
        /// Where the decoded value begins.
        offset: usize,
        /// What did not fit.
        fault: serde_bencode::Error,
    },
    /// A value that bencode cannot express.
    #[error("the value cannot be written as bencode: {fault}")]
    Encode {
        /// What could not be written.
        fault: serde_bencode::Error,
    },
    /// A type that wrote its keys unsorted.
    #[error("the value's dictionary keys are not in order")]
    NotCanonical,
}

impl BencodeError {
    /// The same fault of a value that stands `by` bytes behind the beginning.
    pub(crate) fn behind(mut self, by: usize) -> Self {
        match &mut self {
            Self::Truncated { offset }
            | Self::Trailing { offset, .. }
            | Self::UnexpectedByte { offset, .. }
            | Self::TooDeep { offset, .. }
            | Self::TooManyTokens { offset, .. }
            | Self::BadInteger { offset }
            | Self::IntegerRange { offset }
            | Self::BadLength { offset }
            | Self::StringTooLong { offset, .. }
            | Self::KeyNotString { offset }
            | Self::MissingValue { offset }
            | Self::DuplicateKey { offset }
            | Self::Decode { offset, .. } => *offset += by,
            Self::TooLong { .. } | Self::Encode { .. } | Self::NotCanonical => {}
        }
        self
    }
}
