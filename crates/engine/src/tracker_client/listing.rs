//! A tracker's catalogue, read entry by entry: a long one is never whole in memory.

use piecework_core::SaturatingFrom;
use std::collections::VecDeque;

use reqwest::Response;

use super::{CatalogueAnswerError, CatalogueError};
use piecework_proto::announce::catalogue::CatalogueEntry;

/// The torrents of a catalogue, read one by one.
#[derive(Debug)]
pub struct Listing {
    /// The address of the catalogue.
    address: String,
    response: Response,
    elements: Elements,
    /// Entries that have come and were not returned yet.
    come: VecDeque<Vec<u8>>,
    /// Bytes that have come.
    len: u64,
}

impl Listing {
    pub(super) fn new(address: String, response: Response) -> Self {
        let elements = Elements::of("torrents");
        Self { address, response, elements, come: VecDeque::new(), len: 0 }
    }

    /// Returns the next torrent; `None` after the last one.
    ///
    /// # Errors
    /// If the answer breaks off, is not a list, or is too long.
    pub async fn next(&mut self) -> Result<Option<CatalogueEntry>, CatalogueError> {
        let bad = CatalogueError::BadAnswer;
        loop {
            if let Some(element) = self.come.pop_front() {
                return serde_json::from_slice(&element)
                    .map(Some)
                    .map_err(|fault| bad(fault.into()));
            }
            let chunk = self.response.chunk().await;
            let Some(chunk) =
                chunk.map_err(|fault| CatalogueError::of(fault.into(), &self.address))?
            else {
                return match self.elements.is_whole() {
                    true => Ok(None),
                    false => Err(bad(CatalogueAnswerError::CutOff)),
                };
            };
            self.len += chunk.len() as u64;
            if self.len > MAX_LISTING {
                return Err(CatalogueError::TooLarge {
                    limit: usize::saturating_from(MAX_LISTING),
                });
            }
            let come = &mut self.come;
            let fed = self.elements.feed(&chunk, |element| come.push_back(element));
            fed.map_err(|Overlong| bad(CatalogueAnswerError::LongEntry))?;
        }
    }
}

/// Cuts the elements of one list out of a JSON object, whatever else is in it, from bytes that come
/// in parts of any length.
///
/// It looks at only as much of the grammar as it takes to tell where an element ends. Elements
/// themselves are left to a parser.
#[derive(Debug)]
struct Elements {
    key: &'static str,
    depth: u32,
    /// Whether the position is within the list.
    within: bool,
    /// Whether the list has ended.
    ended: bool,
    string: Option<Text>,
    /// The last string at the object's own depth, as far as it may be the key.
    last: Vec<u8>,
    /// The part of an element that has come.
    element: Vec<u8>,
}

/// A string that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    /// The last byte was a backslash.
    Escaped,
}

/// An element has more than [`MAX_ELEMENT`] bytes.
#[derive(Debug, PartialEq, Eq)]
struct Overlong;

impl Elements {
    fn of(key: &'static str) -> Self {
        let (last, element) = (Vec::new(), Vec::new());
        Self { key, depth: 0, within: false, ended: false, string: None, last, element }
    }

    /// Returns whether the list has come, and the object to its end.
    fn is_whole(&self) -> bool {
        self.ended && self.depth == 0 && self.string.is_none()
    }

    /// Takes what has come, and gives each whole element to `take`.
    fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Vec<u8>)) -> Result<(), Overlong> {
        for byte in bytes {
            self.step(*byte, &mut take);
            if self.element.len() > MAX_ELEMENT {
                return Err(Overlong);
            }
        }
        Ok(())
    }

    fn step(&mut self, byte: u8, take: &mut impl FnMut(Vec<u8>)) {
        if let Some(text) = self.string {
            self.string = match (text, byte) {
                (Text::Plain, b'"') => None,
                (Text::Plain, b'\\') => Some(Text::Escaped),
                _ => Some(Text::Plain),
            };
            if self.within {
                self.element.push(byte);
            } else if self.depth == 1 && self.string.is_some() && self.last.len() <= self.key.len()
            {
                self.last.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.string = Some(Text::Plain);
                self.last.clear();
            }
            b'[' if self.depth == 1 && !self.ended && self.last == self.key.as_bytes() => {
                (self.depth, self.within) = (2, true);
                return;
            }
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                if self.within && self.depth == 1 {
                    (self.within, self.ended) = (false, true);
                    if !self.element.is_empty() {
                        take(std::mem::take(&mut self.element));
                    }
                }
            }
            b',' if self.within && self.depth == 2 => {
                take(std::mem::take(&mut self.element));
                return;
            }
            // In a list that is not an object: what comes next has no key.
            b',' if self.depth == 1 => self.last.clear(),
            b' ' | b'\t' | b'\r' | b'\n' => return,
            _ => {}
        }
        if self.within {
            self.element.push(byte);
        }
    }
}

/// Bytes of a list: a million torrents with usual names.
const MAX_LISTING: u64 = 256 << 20;

/// Bytes of an entry: a name and a description of six bytes for each of theirs, and numbers, four times
/// over.
const MAX_ELEMENT: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn cut(text: &[u8], part: usize) -> (Vec<Value>, bool) {
        let (mut elements, mut all) = (Elements::of("torrents"), Vec::new());
        for part in text.chunks(part) {
            let take = |element: Vec<u8>| all.push(serde_json::from_slice(&element).unwrap());
            elements.feed(part, take).unwrap();
        }
        (all, elements.is_whole())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[\\[\\]{},:\"\\\\ a-zä\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"\\\\]{0,8}|torrents", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn elements_are_those_of_the_whole_however_they_come(
            list in proptest::collection::vec(value(), 0..6),
            before in value(),
            behind in value(),
            pretty in any::<bool>(),
            part in 1_usize..40,
        ) {
            let whole = json!({"a": before, "torrents": list, "x": behind, "y": "torrents"});
            let text = match pretty {
                true => serde_json::to_vec_pretty(&whole).unwrap(),
                false => serde_json::to_vec(&whole).unwrap(),
            };
            prop_assert_eq!(cut(&text, part), (list, true));
            prop_assert!(!cut(&text[..text.len() - 1], part).1);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut elements = Elements::of("torrents");
            prop_assert_eq!(elements.feed(&bytes, |_| {}), Ok(()));
        }
    }

    #[test]
    fn what_has_no_such_list_is_not_whole() {
        for text in
            ["", "{}", r#"{"torrents": 1}"#, r#"["torrents", [1]]"#, r#"{"a": {"torrents": [1]}}"#]
        {
            assert_eq!(cut(text.as_bytes(), 5), (Vec::new(), false), "{text}");
        }
        // No value is between two commas: the parser of elements says so.
        let (mut elements, mut empty) = (Elements::of("torrents"), 0);
        let take = |element: Vec<u8>| empty += usize::from(element.is_empty());
        elements.feed(br#"{"torrents": [1,,2]}"#, take).unwrap();
        assert_eq!(empty, 1);
    }

    #[test]
    fn an_element_without_end_is_refused() {
        let mut elements = Elements::of("torrents");
        elements.feed(br#"{"torrents": [""#, |_| {}).unwrap();
        assert_eq!(elements.feed(&vec![b'x'; MAX_ELEMENT + 1], |_| {}), Err(Overlong));
    }
}
