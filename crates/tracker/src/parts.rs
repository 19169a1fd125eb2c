//! Long answers, made in parts while the client reads.

use serde::Serialize;

/// An answer in parts.
pub(super) trait AnswerParts: Send + 'static {
    /// Makes the next part; `None` if there is no answer or it cannot be made.
    fn next(&mut self) -> Option<AnswerPart>;
}

/// A part of an answer. All but the last have about [`PART_LEN`] bytes.
pub(super) struct AnswerPart {
    pub text: String,
    pub is_last: bool,
}

/// A JSON object with one long array and a tail.
pub(super) struct ArrayAnswer<T, F> {
    head: &'static str,
    tail: String,
    items: std::vec::IntoIter<T>,
    /// Converts an item. Items that give `None` are left out.
    write: F,
    begun: bool,
    is_empty: bool,
}

impl<T, F> ArrayAnswer<T, F> {
    /// Returns an answer. `head` ends with the `[` of the array, `tail` begins with its `]`.
    pub(super) fn new(head: &'static str, items: Vec<T>, tail: String, write: F) -> Self {
        Self { head, tail, items: items.into_iter(), write, begun: false, is_empty: true }
    }
}

impl<T, S, F> AnswerParts for ArrayAnswer<T, F>
where
    T: Send + 'static,
    S: Serialize,
    F: Fn(&T) -> Option<S> + Send + 'static,
{
    fn next(&mut self) -> Option<AnswerPart> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            text.push_str(self.head);
        }
        while text.len() < PART_LEN {
            let Some(item) = self.items.next() else {
                text.push_str(&self.tail);
                return Some(AnswerPart { text, is_last: true });
            };
            let Some(item) = (self.write)(&item) else { continue };
            match serde_json::to_string(&item) {
                Ok(item) => {
                    text.push_str(if self.is_empty { "" } else { "," });
                    text.push_str(&item);
                    self.is_empty = false;
                }
                Err(error) => tracing::error!(%error, "an item could not be written as JSON"),
            }
        }
        Some(AnswerPart { text, is_last: false })
    }
}

/// The length of a part in bytes.
pub(super) const PART_LEN: usize = 64 * 1024;
