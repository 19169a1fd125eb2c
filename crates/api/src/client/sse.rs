//! An incremental parser for server-sent events (HTML standard, section 9.2).

use std::collections::VecDeque;

/// Parses bytes, in chunks of any size, into events. Buffers one line and one event at most.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// Whether a carriage return ended the last line. A line feed that follows belongs to it.
    after_return: bool,
    /// Whether the first line was checked for a byte order mark.
    begun: bool,
    name: String,
    data: String,
    /// Whether there was a `data` line, even an empty one.
    has_data: bool,
    ready: VecDeque<Message>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The event's name; `message` if the server names none.
    pub name: String,
    /// The event's data, lines separated by `\n`.
    pub data: String,
}

/// The stream is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event is too long.
    #[error("an event is longer than the `{MAX_EVENT}` bytes allowed")]
    TooLong,
    /// It is not UTF-8.
    #[error("a line is not UTF-8")]
    NotText,
}

impl Parser {
    /// Parses more bytes. [`Parser::next`] then returns complete events.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), SseError> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + self.data.len() + part.len() > MAX_EVENT {
                return Err(SseError::TooLong);
            }
            self.line.extend_from_slice(part);
            bytes = rest;
            if let Some((ending, rest)) = rest.split_first() {
                self.after_return = *ending == b'\r';
                bytes = rest;
                let line = std::mem::take(&mut self.line);
                self.end_line(&line)?;
            }
        }
        Ok(())
    }

    /// Returns the next complete event.
    pub(super) fn next(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), SseError> {
        let mut line = std::str::from_utf8(line).map_err(|_| SseError::NotText)?;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event();
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments, whose field is empty, and fields that are not used.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.ready.push_back(Message { name, data });
        }
    }
}

/// Maximum bytes of an event: a torrent with the priorities of 500,000 files.
const MAX_EVENT: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]]) -> Result<Vec<Message>, SseError> {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.push(chunk)?;
        }
        Ok(std::iter::from_fn(|| parser.next()).collect())
    }

    fn message(name: &str, data: &str) -> Message {
        Message { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn the_examples_of_the_standard() {
        let stocks = b"data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(all(&[stocks]).unwrap(), [message("message", "YHOO\n+2\n10")]);
        let comments = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n\
            data:  third event\n\n";
        let wanted = [
            message("message", "first event"),
            message("message", "second event"),
            message("message", " third event"),
        ];
        assert_eq!(all(&[comments]).unwrap(), wanted);
        let empty = b"data\n\ndata\ndata\n\ndata:";
        assert_eq!(all(&[empty]).unwrap(), [message("message", ""), message("message", "\n")]);
    }

    #[test]
    fn names_go_with_their_event_alone() {
        let text = b"event: done\ndata: 1\n\ndata: 2\n\nevent: alone\n\ndata: 3\n\n";
        let wanted = [message("done", "1"), message("message", "2"), message("message", "3")];
        assert_eq!(all(&[text]).unwrap(), wanted);
    }

    #[test]
    fn every_line_ending_and_a_byte_order_mark_are_understood() {
        let wanted = [message("a", "1\n2")];
        for text in [
            "event:a\ndata:1\ndata:2\n\n",
            "event:a\r\ndata:1\r\ndata:2\r\n\r\n",
            "event:a\rdata:1\rdata:2\r\r",
        ] {
            assert_eq!(all(&[text.as_bytes()]).unwrap(), wanted, "{text:?}");
            let marked = format!("\u{feff}{text}");
            assert_eq!(all(&[marked.as_bytes()]).unwrap(), wanted, "{text:?}");
        }
        assert_eq!(all(&[b"data:1\r", b"\n\r", b"\n"]).unwrap(), [message("message", "1")]);
    }

    #[test]
    fn events_and_lines_without_end_are_refused() {
        let long = vec![b'x'; MAX_EVENT + 1];
        assert_eq!(all(&[&long]), Err(SseError::TooLong));
        let line = [b"data:".as_slice(), &vec![b'x'; 100_000], b"\n"].concat();
        let lines = vec![line.as_slice(); 100];
        assert_eq!(all(&lines), Err(SseError::TooLong));
        assert_eq!(all(&[b"data: \xff\n"]), Err(SseError::NotText));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            events in prop::collection::vec(("[a-z]{1,8}", "[^\r\n\u{feff}]{0,30}(\n[^\r\n]{0,9}){0,3}"), 0..5),
            ending in prop::sample::select(vec!["\n", "\r", "\r\n"]),
            cuts in prop::collection::vec(1_usize..20, 1..40),
        ) {
            let mut text = String::new();
            for (name, data) in &events {
                text += &format!("event: {name}{ending}");
                for line in data.split('\n') {
                    text += &format!("data: {line}{ending}");
                }
                text += ending;
            }
            let mut rest = text.as_bytes();
            let mut chunks = Vec::new();
            for cut in cuts {
                let (chunk, behind) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = behind;
            }
            chunks.push(rest);
            let wanted: Vec<_> =
                events.iter().map(|(name, data)| message(name, data)).collect();
            prop_assert_eq!(all(&chunks).unwrap(), wanted);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            // Whether it is an event stream does not matter here.
            let _ = all(&[&bytes]);
        }
    }
}
