//! Reads answers of web servers. No I/O.
//!
//! Trackers are often small programs that write HTTP by hand, and clients have always taken what
//! they write. So this reader takes more than RFC 9112 allows:
//!
//! | what comes | how it is read |
//! |---|---|
//! | lines that end in a bare LF, empty lines before the status line | as usual |
//! | `HTTP/1.0 200`, `HTTP/1.1  200OK`, `ICY 200 OK`, any version | by its three digits |
//! | `Name : value`, folded values | without the spaces, joined |
//! | lines without a colon, names with odd characters | passed over |
//! | chunks in an answer of HTTP/1.0, chunks without their last line | as chunks |
//! | a `Content-Length` that is no number | until the connection ends |
//! | several of them | the first |
//! | a body that ends early | as far as it came, and [`HttpAnswer::is_whole`] says so |
//! | bytes behind the body | left out |
//!
//! An encoding of the body is undone by [`decoded`](super::encoding::decoded).

use piecework_core::SaturatingFrom;

/// An answer as it was sent.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// Header fields, their names in lower case.
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub is_whole: bool,
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// It is not HTTP.
    #[error("it does not answer with HTTP")]
    NotHttp,
    /// The connection ended before an answer.
    #[error("it closed the connection without an answer")]
    Nothing,
    /// The connection ended before the head did.
    #[error("the connection broke off in the head of its answer")]
    CutOff,
    /// The head is too long.
    #[error("the head of its answer is longer than the `{MAX_HEAD}` bytes allowed")]
    HeadTooLong,
    /// A chunk has no length.
    #[error("its answer has a chunk without a length")]
    BadChunk,
    /// It is too long.
    #[error("its answer is longer than the `{limit}` bytes allowed")]
    TooLarge {
        /// Bytes that are taken.
        limit: usize,
    },
}

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Bytes that have come and are not used yet.
    buffer: Vec<u8>,
    /// Bytes of it that have no line end.
    searched: usize,
    /// Bytes of the head so far.
    head: usize,
    state: ReadState,
    answer: HttpAnswer,
    /// Bytes of the body at most.
    limit: usize,
    /// Whether the server takes another request on this connection.
    persists: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    Status,
    Fields,
    /// Bytes of the body that are missing.
    Length(usize),
    ChunkLength,
    /// Bytes of a chunk that are missing.
    Chunk(usize),
    UntilEnd,
    Done,
}

impl Reading {
    pub(super) fn new(limit: usize) -> Self {
        let answer =
            HttpAnswer { status: 0, headers: Vec::new(), body: Vec::new(), is_whole: false };
        Self {
            buffer: Vec::new(),
            searched: 0,
            head: 0,
            state: ReadState::Status,
            answer,
            limit,
            persists: true,
        }
    }

    /// Takes bytes that have come. Returns whether the answer is complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<bool, ResponseError> {
        self.buffer.extend_from_slice(bytes);
        loop {
            let goes_on = match self.state {
                ReadState::Status | ReadState::Fields => self.read_head()?,
                ReadState::Length(left) => {
                    let left = left - self.read_body(left)?;
                    self.state = if left == 0 { ReadState::Done } else { ReadState::Length(left) };
                    left == 0
                }
                ReadState::ChunkLength => self.read_chunk_length()?,
                ReadState::Chunk(left) => {
                    let left = left - self.read_body(left)?;
                    self.state =
                        if left == 0 { ReadState::ChunkLength } else { ReadState::Chunk(left) };
                    left == 0
                }
                ReadState::UntilEnd => {
                    self.read_body(usize::MAX)?;
                    false
                }
                ReadState::Done => {
                    self.answer.is_whole = true;
                    return Ok(true);
                }
            };
            if !goes_on {
                return Ok(false);
            }
        }
    }

    /// Returns whether anything has come.
    pub(super) fn has_begun(&self) -> bool {
        self.state != ReadState::Status || self.head > 0 || !self.buffer.is_empty()
    }

    /// Returns whether the answer is complete and the connection can be used again.
    pub(super) fn persists(&self) -> bool {
        // The line end after the last chunk may be there already.
        self.state == ReadState::Done
            && self.persists
            && matches!(self.buffer.as_slice(), b"" | b"\r\n")
    }

    /// Returns the answer after the last byte. `properly` says that the server ended the
    /// connection.
    pub(super) fn end(mut self, properly: bool) -> Result<HttpAnswer, ResponseError> {
        match self.state {
            ReadState::Status if !self.has_begun() => return Err(ResponseError::Nothing),
            ReadState::Status | ReadState::Fields => return Err(ResponseError::CutOff),
            ReadState::UntilEnd => self.answer.is_whole = properly,
            ReadState::Done => self.answer.is_whole = true,
            ReadState::Length(_) | ReadState::Chunk(_) | ReadState::ChunkLength => {}
        }
        Ok(self.answer)
    }

    /// Reads one line of the head. Returns whether there was one.
    fn read_head(&mut self) -> Result<bool, ResponseError> {
        let Some(line) = self.line()? else {
            let line = self.buffer.trim_ascii_start();
            let begins = |with: &[u8]| {
                let len = with.len().min(line.len());
                line[..len].eq_ignore_ascii_case(&with[..len])
            };
            let may_be = self.state == ReadState::Fields || begins(b"HTTP/") || begins(b"ICY");
            return if may_be { Ok(false) } else { Err(ResponseError::NotHttp) };
        };
        match self.state {
            // Left over from an earlier answer, or written by a script.
            ReadState::Status if line.trim_ascii().is_empty() => {}
            ReadState::Status => {
                self.answer.status = status(&line).ok_or(ResponseError::NotHttp)?;
                self.persists = line.get(..8).is_some_and(|v| v.eq_ignore_ascii_case("HTTP/1.1"));
                self.state = ReadState::Fields;
            }
            _ if line.is_empty() => self.end_head()?,
            _ => self.answer.add_field(&line),
        }
        Ok(true)
    }

    /// Determines the kind of body at the end of the head.
    fn end_head(&mut self) -> Result<(), ResponseError> {
        let answer = &self.answer;
        self.state = match answer.status {
            // Another answer follows an informational one.
            100..=199 => {
                self.answer.headers.clear();
                ReadState::Status
            }
            204 | 304 => ReadState::Done,
            _ if answer.tokens("transfer-encoding").any(|token| token == "chunked") => {
                ReadState::ChunkLength
            }
            _ => match answer.length() {
                Some(length) if length > self.limit as u64 => return Err(self.too_large()),
                // It is not longer than the limit, which is a usize.
                Some(length) => ReadState::Length(usize::saturating_from(length)),
                None => ReadState::UntilEnd,
            },
        };
        if self.answer.tokens("connection").any(|token| token == "close") {
            self.persists = false;
        }
        Ok(())
    }

    /// Reads the line before a chunk. Returns whether there was one.
    fn read_chunk_length(&mut self) -> Result<bool, ResponseError> {
        let Some(line) = self.line()? else { return Ok(false) };
        let digits = line.trim().split(|c: char| c == ';' || c.is_whitespace()).next();
        let digits = digits.unwrap_or_default();
        if digits.is_empty() {
            // The end of the previous chunk.
            return Ok(true);
        }
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let length = u64::from_str_radix(digits, 16).ok().filter(|_| is_number);
        let length = length.ok_or(ResponseError::BadChunk)?;
        if length > (self.limit - self.answer.body.len()) as u64 {
            return Err(self.too_large());
        }
        // What may follow the last chunk is not used.
        self.state = if length == 0 {
            ReadState::Done
        } else {
            ReadState::Chunk(usize::saturating_from(length))
        };
        Ok(true)
    }

    /// Moves up to `most` bytes into the body. Returns how many there were.
    fn read_body(&mut self, most: usize) -> Result<usize, ResponseError> {
        let len = self.buffer.len().min(most);
        if len > self.limit - self.answer.body.len() {
            return Err(self.too_large());
        }
        self.answer.body.extend(self.buffer.drain(..len));
        self.searched = 0;
        Ok(len)
    }

    /// Takes a line off the buffer. Returns it without its end.
    fn line(&mut self) -> Result<Option<String>, ResponseError> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let len = end.map_or(self.buffer.len(), |end| self.searched + end + 1);
        let in_head = matches!(self.state, ReadState::Status | ReadState::Fields);
        if len + if in_head { self.head } else { 0 } > MAX_HEAD {
            return Err(ResponseError::HeadTooLong);
        }
        if end.is_none() {
            self.searched = len;
            return Ok(None);
        }
        if in_head {
            self.head += len;
        }
        let line: Vec<u8> = self.buffer.drain(..len).collect();
        self.searched = 0;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(String::from_utf8_lossy(line).into_owned()))
    }

    fn too_large(&self) -> ResponseError {
        ResponseError::TooLarge { limit: self.limit }
    }
}

impl HttpAnswer {
    /// Returns the first value of the header field `name`, which is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the words of all fields of that name, in lower case.
    pub(super) fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let named = self.headers.iter().filter(move |(known, _)| known == name);
        let words = named.flat_map(|(_, value)| value.split(','));
        words.map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
    }

    fn length(&self) -> Option<u64> {
        let mut lengths = self.headers.iter().filter(|(name, _)| name == "content-length");
        // Equal lengths may also stand in one field.
        lengths.find_map(|(_, value)| value.split(',').next()?.trim().parse().ok())
    }

    fn add_field(&mut self, line: &str) {
        if line.starts_with([' ', '\t'])
            && let Some((_, value)) = self.headers.last_mut()
        {
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            self.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

/// Returns the status in the first line of an answer.
fn status(line: &str) -> Option<u16> {
    let line = line.trim_ascii_start();
    let is_http = line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("HTTP/"));
    let is_icy = line.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("ICY"));
    if !is_http && !is_icy {
        return None;
    }
    let (_, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let digits = rest.get(..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|status| *status >= 100)
}

/// Bytes of a head at most, and of a line between chunks.
const MAX_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read when it all comes at once, and when it comes byte by byte.
    fn read(text: &[u8], limit: usize) -> Result<HttpAnswer, ResponseError> {
        let whole = pieces([text], limit);
        let bytes = pieces(text.chunks(1), limit);
        assert_eq!(format!("{whole:?}"), format!("{bytes:?}"));
        whole
    }

    fn pieces<'a>(
        parts: impl IntoIterator<Item = &'a [u8]>,
        limit: usize,
    ) -> Result<HttpAnswer, ResponseError> {
        let mut reading = Reading::new(limit);
        for part in parts {
            if reading.take(part)? {
                break;
            }
        }
        reading.end(true)
    }

    fn body(text: &str) -> String {
        let answer = read(text.as_bytes(), 1_000).unwrap();
        assert!(answer.is_whole, "{text}");
        assert_eq!(answer.status, 200, "{text}");
        String::from_utf8(answer.body).unwrap()
    }

    #[test]
    fn line_4_sloppy_heads_are_read() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 3\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\n\r\n",
            "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.0 200\r\n\r\n",
            "HTTP/1.1 200 \r\n\r\n",
            "HTTP/1.1   200   \r\n\r\n",
            "HTTP/1.1\t200 OK\r\n\r\n",
            "HTTP/1.1 200OK\r\n\r\n",
            "HTTP/1.1 200 \u{fc}\u{1b}[2J\r\n\r\n",
            "http/1.1 200 ok\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1 200 OK\r\n\r\n",
            "HTTP/ 200 OK\r\n\r\n",
            "HTTP/0.9 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\n Content-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:3\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: no name\r\n\u{e4}@\x01: x\r\nX: \x7f\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n  c\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        ] {
            assert_eq!(body(&format!("{head}d1e")), "d1e", "{head}");
        }
    }

    #[test]
    fn line_4_chunks_are_read_whatever_the_version() {
        for version in ["1.0", "1.1"] {
            for (chunks, is_whole) in [
                ("3\r\nd1:\r\n2\r\nae\r\n0\r\n\r\n", true),
                ("3\nd1:\n2\nae\n0\n\n", true),
                ("3;ext=1\r\nd1:\r\n02 \r\nae\r\n0\r\nTrailer: x\r\n\r\n", true),
                ("5\r\nd1:ae\r\n0", false),
                ("5\r\nd1:ae\r\n0\r\n", true),
                ("5\r\nd1:ae", false),
                ("6\r\nd1:ae", false),
            ] {
                let head = format!("HTTP/{version} 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n");
                let answer = read(format!("{head}{chunks}").as_bytes(), 100).unwrap();
                assert_eq!(answer.body, b"d1:ae", "{chunks}");
                assert_eq!(answer.is_whole, is_whole, "{chunks}");
            }
        }
        for bad in ["x\r\n", "-1\r\n", "+5\r\nd1:ae", "0x5\r\n", "fffffffffffffffff\r\n"] {
            let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{bad}");
            assert_eq!(read(text.as_bytes(), 100).unwrap_err(), ResponseError::BadChunk, "{bad}");
        }
    }

    #[test]
    fn a_body_is_no_longer_than_it_says_and_no_longer_than_the_limit() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"), "ab");
        let cut = read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 9).unwrap();
        assert_eq!((cut.body.as_slice(), cut.is_whole), (&b"abc"[..], false));
        let empty = read(b"HTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\nabc", 9).unwrap();
        assert!(empty.body.is_empty() && empty.is_whole);
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n0123456789",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n",
        ] {
            let fault = read(text.as_bytes(), 9).unwrap_err();
            assert_eq!(fault, ResponseError::TooLarge { limit: 9 }, "{text}");
        }
    }

    #[test]
    fn heads_have_a_bound() {
        let line = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "x".repeat(MAX_HEAD));
        let lines = format!("HTTP/1.1 200 OK\r\n{}", "X: x\r\n".repeat(MAX_HEAD / 6));
        let hints = "HTTP/1.1 103 Hint\r\n\r\n".repeat(MAX_HEAD / 20);
        let empty = "\r\n".repeat(MAX_HEAD);
        for text in [line, lines, hints, empty] {
            let fault = pieces([text.as_bytes()], 9).unwrap_err();
            assert_eq!(fault, ResponseError::HeadTooLong, "{:.40}", text);
        }
        let chunk = format!("{}\n", "0".repeat(MAX_HEAD));
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(pieces([text.as_bytes()], 9).unwrap_err(), ResponseError::HeadTooLong);
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for text in ["SSH-2.0-x\r\n", "<html>", "d8:intervali1ee", "HTTP/1.1 OK\r\n", "HTTP\r\n"] {
            assert_eq!(read(text.as_bytes(), 9).unwrap_err(), ResponseError::NotHttp, "{text}");
        }
        assert_eq!(read(b"", 9).unwrap_err(), ResponseError::Nothing);
        for text in ["HT", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nX: y\r\n", "\r\n"] {
            assert_eq!(read(text.as_bytes(), 9).unwrap_err(), ResponseError::CutOff, "{text}");
        }
    }

    #[test]
    fn only_a_connection_whose_answer_has_a_clear_end_is_used_again() {
        let persists = |text: &str| {
            let mut reading = Reading::new(100);
            reading.take(text.as_bytes()).unwrap();
            reading.persists()
        };
        assert!(persists("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
        assert!(persists(&format!("{chunked}\r\n")));
        assert!(!persists(&format!("{chunked}X: y\r\n")));
        assert!(!persists("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy"));
        assert!(!persists("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx"));
        assert!(!persists("HTTP/1.1 200 OK\r\n\r\nx"));
        assert!(!persists("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"));
        assert!(!persists("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\nx"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_within_the_bounds(
            head in "(HTTP/1.[01] [0-9]{3}[ -~]{0,9}\r?\n)?([ -~]{0,30}\r?\n){0,5}",
            chunked: bool,
            rest in proptest::collection::vec(any::<u8>(), 0..200),
            limit in 0usize..100,
        ) {
            let field = if chunked { "Transfer-Encoding: chunked\n\n" } else { "\n" };
            let text = [head.as_bytes(), field.as_bytes(), &rest].concat();
            if let Ok(answer) = read(&text, limit) {
                prop_assert!(answer.body.len() <= limit);
            }
        }
    }
}
