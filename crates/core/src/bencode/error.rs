//! What can be wrong with bencode.

/// Why bytes are not valid bencode, and at which byte.
#[derive(Debug, thiserror::Error)]
pub enum BencodeError {
    /// There are more bytes than allowed.
    #[error("`{len}` bytes of bencode are more than the `{limit}` allowed")]
    TooLong {
        /// The number of bytes.
        len: usize,
        /// The number of bytes allowed.
        limit: usize,
    },
    /// The value is cut off.
    #[error("the bencode is cut off at byte `{offset}`")]
    Truncated {
        /// The offset of the missing byte.
        offset: usize,
    },
    /// There are bytes after the value.
    #[error("the bencode ends at byte `{offset}`, but `{extra}` bytes follow")]
    Trailing {
        /// The offset of the end of the value.
        offset: usize,
        /// The number of bytes after it.
        extra: usize,
    },
    /// A byte that does not begin a value.
    #[error("`{}` at byte `{offset}` does not begin a bencode value", byte.escape_ascii())]
    UnexpectedByte {
        /// The offset of the byte.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// Lists and dictionaries are nested too deep.
    #[error("the bencode is nested deeper than `{limit}` levels at byte `{offset}`")]
    TooDeep {
        /// The offset of the first value that is too deep.
        offset: usize,
        /// The number of levels allowed.
        limit: usize,
    },
    /// There are too many values.
    #[error("the bencode has more than `{limit}` values at byte `{offset}`")]
    TooManyTokens {
        /// The offset of the first value beyond the limit.
        offset: usize,
        /// The number of values allowed, keys included.
        limit: usize,
    },
    /// An integer is not in its canonical spelling.
    #[error("the integer at byte `{offset}` is not canonical bencode")]
    BadInteger {
        /// The offset of its `i`.
        offset: usize,
    },
    /// An integer has more than 64 bits.
    #[error("the integer at byte `{offset}` does not fit 64 bits")]
    IntegerRange {
        /// The offset of its `i`.
        offset: usize,
    },
    /// A string length is not in its canonical spelling.
    #[error("the string length at byte `{offset}` is not canonical bencode")]
    BadLength {
        /// The offset of its first digit.
        offset: usize,
    },
    /// A string is longer than the remaining bytes.
    #[error("the string at byte `{offset}` is longer than the `{left}` bytes that follow")]
    StringTooLong {
        /// The offset of its length.
        offset: usize,
        /// The number of bytes after its colon.
        left: usize,
    },
    /// A dictionary key is not a string.
    #[error("the dictionary key at byte `{offset}` is not a string")]
    KeyNotString {
        /// The offset of the key.
        offset: usize,
    },
    /// A key has no value.
    #[error("the dictionary ends at byte `{offset}` after a key without a value")]
    MissingValue {
        /// The offset of the `e` of the dictionary.
        offset: usize,
    },
    /// A dictionary has the same key twice.
    #[error("the dictionary key at byte `{offset}` occurs twice")]
    DuplicateKey {
        /// The offset of the second occurrence.
        offset: usize,
    },
    /// Valid bencode of another shape than requested.
    #[error("the value at byte `{offset}` has the wrong type: {fault}")]
    Decode {
        /// The offset of the decoded value.
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
    /// A type wrote its keys unsorted.
    #[error("the value's dictionary keys are not in order")]
    NotCanonical,
}

impl BencodeError {
    /// Returns the same fault with its offset moved by `by` bytes.
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
