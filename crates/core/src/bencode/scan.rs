//! The scanner: one pass, no recursion, twelve bytes of memory per value.

use crate::SaturatingFrom;
use std::ops::Range;

use super::BencodeError;

/// The cost limits of a scan. It takes at most 12 bytes of memory per token, and twice that while
/// the table grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of input. Never more than 4 GiB - 1, whatever this says.
    pub bytes: usize,
    /// Nesting of lists and dictionaries.
    pub depth: usize,
    /// Values in total, dictionary keys included.
    pub tokens: usize,
}

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `i42e`
    Int,
    /// `4:spam`
    Bytes,
    /// `l...e`
    List,
    /// `d...e`
    Dict,
}

/// Faults that a scan tolerates. None by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tolerance {
    /// Integers and string lengths with leading zeros, `-0`, and integers of more than 64 bits,
    /// which then have no value.
    pub numbers: bool,
    /// Repeated keys in a dictionary. [`Node::get`] returns the first value.
    pub duplicate_keys: bool,
}

/// What a tolerant scan found and tolerated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Oddities {
    /// How many numbers are not in their canonical spelling.
    pub numbers: usize,
    /// The spans of the first eight repeated keys, at the repetition.
    pub duplicate_keys: Vec<Range<usize>>,
}

/// A scanned value: every byte of it is known to be valid bencode.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    bytes: &'a [u8],
    tokens: Vec<Token>,
    canonical: bool,
    oddities: Oddities,
}

/// One value inside a [`Scan`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'s, 'a> {
    scan: &'s Scan<'a>,
    index: u32,
}

/// Offsets have 32 bits because there may be millions of tokens.
#[derive(Clone, Copy, Debug)]
struct Token {
    start: u32,
    end: u32,
    /// The token after this value and everything in it.
    next: u32,
}

/// A list or dictionary whose end has not been reached.
struct Open {
    token: u32,
    dict: Option<OpenDict>,
}

struct OpenDict {
    last_key: Option<u32>,
    value_due: bool,
    sorted: bool,
}

/// Scans `bytes` as one value with nothing after it.
pub fn scan<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Scan<'a>, BencodeError> {
    let (scan, end) = scan_prefix(bytes, limits)?;
    if end < bytes.len() {
        return Err(BencodeError::Trailing { offset: end, extra: bytes.len() - end });
    }
    Ok(scan)
}

/// Scans the value at the start of `bytes` and returns its length. The messages of BEP 9 carry a
/// payload after theirs. [`Limits::bytes`] counts all of `bytes`.
pub fn scan_prefix<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(Scan<'a>, usize), BencodeError> {
    scan_tolerant(bytes, limits, Tolerance::default())
}

/// Like [`scan_prefix`], but tolerates what `tolerance` says and reports it in [`Scan::oddities`].
pub fn scan_tolerant<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    tolerance: Tolerance,
) -> Result<(Scan<'a>, usize), BencodeError> {
    let limit = limits.bytes.min(u32::MAX as usize);
    if bytes.len() > limit {
        return Err(BencodeError::TooLong { len: bytes.len(), limit });
    }
    let mut scanner = Scanner {
        bytes,
        limits,
        tolerance,
        at: 0,
        tokens: Vec::new(),
        open: Vec::new(),
        canonical: true,
        oddities: Oddities::default(),
    };
    scanner.run()?;
    let Scanner { at, tokens, canonical, oddities, .. } = scanner;
    Ok((Scan { bytes: &bytes[..at], tokens, canonical, oddities }, at))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The largest `.torrent` accepted: 100 MiB hold the hashes of two million pieces and
            // 500,000 files with names of a hundred bytes.
            bytes: 100 << 20,
            // Real torrents nest 5 deep; the `file tree` of BEP 52 has one level per folder.
            depth: 64,
            // A file of a torrent costs 6 tokens, and one for each folder on its path. So half a
            // million files six folders deep fit, in 72 MB of table.
            tokens: 6_000_000,
        }
    }
}

impl<'a> Scan<'a> {
    /// Returns the whole value.
    pub fn root(&self) -> Node<'_, 'a> {
        Node { scan: self, index: 0 }
    }

    /// Returns whether the keys of every dictionary are sorted as BEP 3 demands. Everything else
    /// that makes bencode canonical is enforced. The order is not, because real torrents violate
    /// it.
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Returns what was tolerated.
    pub fn oddities(&self) -> &Oddities {
        &self.oddities
    }

    /// Returns the scanned bytes, without those after the value.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the number of values, dictionary keys included.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

impl<'s, 'a> Node<'s, 'a> {
    /// Returns the type of the value.
    pub fn kind(self) -> Kind {
        kind_of(self.raw()[0])
    }

    /// Returns the range of the value in the scanned bytes.
    pub fn span(self) -> Range<usize> {
        let token = self.token();
        token.start as usize..token.end as usize
    }

    /// Returns the bytes of the value, exactly as received.
    pub fn raw(self) -> &'a [u8] {
        &self.scan.bytes[self.span()]
    }

    /// Returns the integer, if it is one.
    pub fn as_int(self) -> Option<i64> {
        if self.kind() != Kind::Int {
            return None;
        }
        let raw = self.raw();
        std::str::from_utf8(&raw[1..raw.len() - 1]).ok()?.parse().ok()
    }

    /// Returns the bytes of the string, if it is one.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        self.bytes_span().map(|span| &self.scan.bytes[span])
    }

    /// Returns the string as text, if it is one and UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// Returns the range of the string's content in the scanned bytes, if it is a string.
    pub fn bytes_span(self) -> Option<Range<usize>> {
        if self.kind() != Kind::Bytes {
            return None;
        }
        let span = self.span();
        let colon = self.raw().iter().position(|byte| *byte == b':')?;
        Some(span.start + colon + 1..span.end)
    }

    /// Returns the values of the list; none if it is not a list.
    pub fn items(self) -> impl Iterator<Item = Node<'s, 'a>> {
        let end = if self.kind() == Kind::List { self.token().next } else { 0 };
        self.children(end)
    }

    /// Returns the keys and values of the dictionary in their order; none if it is not a
    /// dictionary.
    pub fn entries(self) -> impl Iterator<Item = (&'a [u8], Node<'s, 'a>)> {
        let end = if self.kind() == Kind::Dict { self.token().next } else { 0 };
        let mut children = self.children(end);
        std::iter::from_fn(move || {
            let key = children.next()?;
            Some((key.as_bytes()?, children.next()?))
        })
    }

    /// Returns the value of the dictionary at `key`; `None` if there is none or it is not a
    /// dictionary.
    pub fn get(self, key: &[u8]) -> Option<Node<'s, 'a>> {
        self.entries().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    fn token(self) -> Token {
        self.scan.tokens[self.index as usize]
    }

    /// Returns the values directly inside this one, up to token `end`.
    fn children(self, end: u32) -> impl Iterator<Item = Node<'s, 'a>> {
        let mut index = self.index + 1;
        std::iter::from_fn(move || {
            if index >= end {
                return None;
            }
            let node = Node { scan: self.scan, index };
            index = node.token().next;
            Some(node)
        })
    }
}

struct Scanner<'a, 'l> {
    bytes: &'a [u8],
    limits: &'l Limits,
    tolerance: Tolerance,
    at: usize,
    tokens: Vec<Token>,
    open: Vec<Open>,
    canonical: bool,
    oddities: Oddities,
}

impl Scanner<'_, '_> {
    fn run(&mut self) -> Result<(), BencodeError> {
        loop {
            let byte = self.peek()?;
            if byte == b'e' && !self.open.is_empty() {
                self.close()?;
            } else {
                self.value(byte)?;
            }
            if self.open.is_empty() {
                return Ok(());
            }
        }
    }

    fn value(&mut self, byte: u8) -> Result<(), BencodeError> {
        let offset = self.at;
        if self.tokens.len() >= self.limits.tokens {
            return Err(BencodeError::TooManyTokens { offset, limit: self.limits.tokens });
        }
        let is_key = self.is_key();
        if is_key && !byte.is_ascii_digit() {
            return Err(BencodeError::KeyNotString { offset });
        }
        match byte {
            b'0'..=b'9' => self.string()?,
            b'i' => self.integer()?,
            b'l' | b'd' => return self.open(byte == b'd'),
            byte => return Err(BencodeError::UnexpectedByte { offset, byte }),
        }
        let index = u32::saturating_from(self.tokens.len());
        self.tokens.push(Token {
            start: u32::saturating_from(offset),
            end: u32::saturating_from(self.at),
            next: index + 1,
        });
        if is_key {
            return self.key_seen(index);
        }
        self.value_seen();
        Ok(())
    }

    fn open(&mut self, is_dict: bool) -> Result<(), BencodeError> {
        let offset = self.at;
        if self.open.len() >= self.limits.depth {
            return Err(BencodeError::TooDeep { offset, limit: self.limits.depth });
        }
        let dict = is_dict.then_some(OpenDict { last_key: None, value_due: false, sorted: true });
        self.open.push(Open { token: u32::saturating_from(self.tokens.len()), dict });
        self.tokens.push(Token { start: u32::saturating_from(offset), end: 0, next: 0 });
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), BencodeError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let next = u32::saturating_from(self.tokens.len());
        let end = u32::saturating_from(self.at) + 1;
        let token = &mut self.tokens[open.token as usize];
        (token.end, token.next) = (end, next);
        if let Some(dict) = open.dict {
            if dict.value_due {
                return Err(BencodeError::MissingValue { offset: self.at });
            }
            if !dict.sorted {
                self.canonical = false;
                self.find_duplicates(open.token)?;
            }
        }
        self.at += 1;
        self.value_seen();
        Ok(())
    }

    fn is_key(&self) -> bool {
        let dict = self.open.last().and_then(|open| open.dict.as_ref());
        dict.is_some_and(|dict| !dict.value_due)
    }

    fn value_seen(&mut self) {
        if let Some(dict) = self.open.last_mut().and_then(|open| open.dict.as_mut()) {
            dict.value_due = false;
        }
    }

    fn key_seen(&mut self, key: u32) -> Result<(), BencodeError> {
        let last = self.open.last().and_then(|open| open.dict.as_ref()?.last_key);
        let order = last.map(|last| self.content(last).cmp(self.content(key)));
        if order == Some(std::cmp::Ordering::Equal) {
            self.duplicate(key)?;
        }
        if let Some(dict) = self.open.last_mut().and_then(|open| open.dict.as_mut()) {
            dict.last_key = Some(key);
            dict.value_due = true;
            dict.sorted &= order != Some(std::cmp::Ordering::Greater);
        }
        Ok(())
    }

    /// Equal keys of a sorted dictionary are neighbours. An unsorted dictionary is searched once,
    /// at its end.
    fn find_duplicates(&mut self, dict: u32) -> Result<(), BencodeError> {
        let mut keys = Vec::new();
        let mut index = dict + 1;
        while (index as usize) < self.tokens.len() {
            keys.push(index);
            index = self.tokens[index as usize + 1].next;
        }
        keys.sort_by(|a, b| self.content(*a).cmp(self.content(*b)).then(a.cmp(b)));
        for pair in keys.windows(2) {
            if self.content(pair[0]) == self.content(pair[1]) {
                self.duplicate(pair[1])?;
            }
        }
        Ok(())
    }

    /// Refuses or records a repeated key.
    fn duplicate(&mut self, key: u32) -> Result<(), BencodeError> {
        let Token { start, end, .. } = self.tokens[key as usize];
        if !self.tolerance.duplicate_keys {
            return Err(BencodeError::DuplicateKey { offset: start as usize });
        }
        self.canonical = false;
        let noted = start as usize..end as usize;
        let known = &mut self.oddities.duplicate_keys;
        // Neighbours in an unsorted dictionary are found twice.
        if known.len() < MOST_DUPLICATES && !known.contains(&noted) {
            known.push(noted);
        }
        Ok(())
    }

    /// Refuses or records a number that is not in its canonical spelling.
    fn odd_number(&mut self, fault: BencodeError) -> Result<(), BencodeError> {
        if !self.tolerance.numbers {
            return Err(fault);
        }
        self.canonical = false;
        self.oddities.numbers += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), BencodeError> {
        let offset = self.at;
        let mut len = 0_usize;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b':' => break,
                b'0'..=b'9' => {
                    if self.at - offset == 2 && self.bytes[offset] == b'0' {
                        self.odd_number(BencodeError::BadLength { offset })?;
                    }
                    len = len.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                    if self.at - offset > MAX_LENGTH_DIGITS {
                        let left = self.bytes.len() - self.at;
                        return Err(BencodeError::StringTooLong { offset, left });
                    }
                }
                _ => return Err(BencodeError::BadLength { offset }),
            }
        }
        let left = self.bytes.len() - self.at;
        if len > left {
            return Err(BencodeError::StringTooLong { offset, left });
        }
        self.at += len;
        Ok(())
    }

    fn integer(&mut self) -> Result<(), BencodeError> {
        let offset = self.at;
        self.at += 1;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let digits = self.at;
        // Accumulated as a negative number, because the range has one more value below zero.
        let mut value = Some(0_i64);
        loop {
            match self.peek()? {
                b'e' => break,
                byte @ b'0'..=b'9' => {
                    let digit = i64::from(byte - b'0');
                    let had_value = value.is_some();
                    value = value.and_then(|it| it.checked_mul(10)?.checked_sub(digit));
                    if had_value && value.is_none() {
                        self.odd_number(BencodeError::IntegerRange { offset })?;
                    }
                    self.at += 1;
                    // Leading zeros could go on for ever without growing the value.
                    if self.at - digits == 2 && self.bytes[digits] == b'0' {
                        self.odd_number(BencodeError::BadInteger { offset })?;
                    }
                }
                _ => return Err(BencodeError::BadInteger { offset }),
            }
        }
        if self.at == digits {
            return Err(BencodeError::BadInteger { offset });
        }
        if negative && value == Some(0) {
            self.odd_number(BencodeError::BadInteger { offset })?;
        }
        if !negative && value == Some(i64::MIN) {
            self.odd_number(BencodeError::IntegerRange { offset })?;
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        self.bytes.get(self.at).copied().ok_or(BencodeError::Truncated { offset: self.at })
    }

    /// Returns the content of a string token.
    fn content(&self, token: u32) -> &[u8] {
        let Token { start, end, .. } = self.tokens[token as usize];
        let raw = &self.bytes[start as usize..end as usize];
        let colon = raw.iter().position(|byte| *byte == b':').unwrap_or(0);
        &raw[colon + 1..]
    }
}

/// Lengths up to 4 GiB have ten digits.
const MAX_LENGTH_DIGITS: usize = 10;

/// Repeated keys that are recorded, for people to read.
const MOST_DUPLICATES: usize = 8;

fn kind_of(first: u8) -> Kind {
    match first {
        b'i' => Kind::Int,
        b'l' => Kind::List,
        b'd' => Kind::Dict,
        _ => Kind::Bytes,
    }
}
