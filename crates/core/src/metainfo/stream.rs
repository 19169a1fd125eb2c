//! Recognizes a torrent in a stream, without holding all of it in memory.

use crate::SaturatingFrom;
use std::io::{self, BufRead};

use sha1::{Digest, Sha1};

use crate::InfoHash;

/// Returns the length of the torrent `info_hash` at the start of `reader`; other bytes may follow.
/// Returns `None` if it is another torrent or none.
///
/// Only the `info` dictionary is compared: the caller has validated the torrent before.
///
/// # Errors
/// If it cannot be read. A stream that ends too early is not a torrent.
pub fn torrent_len(reader: impl BufRead, info_hash: InfoHash) -> io::Result<Option<u64>> {
    let mut scanner = LengthScanner { reader, at: 0, hasher: None };
    match scanner.dictionary(info_hash) {
        Ok(true) => Ok(Some(scanner.at)),
        Ok(false) => Ok(None),
        Err(Fault::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        Err(_) => Ok(None),
    }
}

/// Why there is no torrent.
enum Fault {
    Io(io::Error),
    /// It is not bencode.
    Grammar,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct LengthScanner<R> {
    reader: R,
    at: u64,
    /// Hashes the bytes that are read, while it is set.
    hasher: Option<Sha1>,
}

impl<R: BufRead> LengthScanner<R> {
    /// Reads the dictionary of a torrent to its end. Returns whether one of its `info` keys has
    /// this info-hash; malformed torrents have several.
    fn dictionary(&mut self, info_hash: InfoHash) -> Result<bool, Fault> {
        if self.byte()? != b'd' {
            return Err(Fault::Grammar);
        }
        let mut is_it = false;
        loop {
            let first = match self.byte()? {
                b'e' => return Ok(is_it),
                first => first,
            };
            let len = self.length(first)?;
            let is_info = if len == 4 {
                let mut key = [0; 4];
                self.fill(&mut key)?;
                &key == b"info"
            } else {
                self.pass(len)?;
                false
            };
            if is_info {
                self.hasher = Some(Sha1::new());
            }
            self.value()?;
            if let Some(hasher) = self.hasher.take() {
                is_it |= InfoHash(hasher.finalize().into()) == info_hash;
            }
        }
    }

    /// Reads a value and everything in it.
    fn value(&mut self) -> Result<(), Fault> {
        let mut depth = 0_u64;
        loop {
            match self.byte()? {
                b'd' | b'l' => depth += 1,
                b'e' => depth = depth.checked_sub(1).ok_or(Fault::Grammar)?,
                b'i' => while self.byte()? != b'e' {},
                first => {
                    let len = self.length(first)?;
                    self.pass(len)?;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Reads the length of a string, whose first digit is `first`.
    fn length(&mut self, first: u8) -> Result<u64, Fault> {
        let (mut digit, mut len) = (first, 0_u64);
        loop {
            if !digit.is_ascii_digit() {
                return Err(Fault::Grammar);
            }
            let more = len.checked_mul(10).and_then(|len| len.checked_add(u64::from(digit - b'0')));
            len = more.ok_or(Fault::Grammar)?;
            digit = self.byte()?;
            if digit == b':' {
                return Ok(len);
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.reader.read_exact(bytes)?;
        self.at += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// Skips `len` bytes.
    fn pass(&mut self, len: u64) -> Result<(), Fault> {
        let mut left = len;
        while left > 0 {
            let bytes = self.reader.fill_buf()?;
            let taken = usize::saturating_from((bytes.len() as u64).min(left));
            if taken == 0 {
                return Err(Fault::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&bytes[..taken]);
            }
            self.reader.consume(taken);
            self.at += taken as u64;
            left -= taken as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::metainfo::{Metainfo, MetainfoBuilder, ParseLimits};

    fn torrent(files: usize, len: u64) -> Vec<u8> {
        let files = (0..files).map(|n| (vec![format!("f{n}")], len)).collect::<Vec<_>>();
        let builder = MetainfoBuilder::folder("x", files).piece_len(16_384);
        let pieces = builder.geometry().unwrap().pieces() as usize;
        builder.build(vec![7; pieces * 20]).unwrap().bytes().unwrap().to_vec()
    }

    /// Reads a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let len = bytes.len().min(1);
            self.0.read(&mut bytes[..len])
        }
    }

    proptest! {
        #[test]
        fn a_torrent_is_known_again_by_its_info_hash_alone(
            files in 1_usize..5,
            len in 1_u64..100_000,
            behind in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = torrent(files, len);
            let parsed = Metainfo::parse(&bytes, &ParseLimits::default()).unwrap();
            let info_hash = parsed.info_hash();
            let mut read = bytes.clone();
            read.extend(&behind);
            let slow = io::BufReader::with_capacity(3, Slow(&read));
            prop_assert_eq!(torrent_len(slow, info_hash).unwrap(), Some(bytes.len() as u64));
            prop_assert_eq!(torrent_len(&read[..], InfoHash([7; 20])).unwrap(), None);
            for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                prop_assert_eq!(torrent_len(&bytes[..cut], info_hash).unwrap(), None);
            }
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(torrent_len(&bytes[..], InfoHash([7; 20])).unwrap(), None);
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_looked_at_twice() {
        let bytes = b"d4:infod1:ai1ee4:infod1:ai2eee";
        for info in [&b"d1:ai1ee"[..], b"d1:ai2ee"] {
            let info_hash = InfoHash(Sha1::digest(info).into());
            assert_eq!(torrent_len(&bytes[..], info_hash).unwrap(), Some(bytes.len() as u64));
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let error = torrent_len(io::BufReader::new(Broken), InfoHash([7; 20])).unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}
