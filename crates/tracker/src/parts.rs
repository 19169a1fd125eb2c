//! Long answers, made part by part as they are read.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::routes::{Context, Result, blocking_report};
use super::service::Service;
use piecework_http::{Lasting, answer_in_parts};

/// An answer in parts.
pub(super) trait Parts: Send + 'static {
    /// Makes the next part. `None` if there is nothing to answer, or it cannot be made.
    fn next(&mut self, service: &Service) -> Option<Part>;
}

/// A part of an answer: some [`PART_LEN`] bytes, if it is not the last one.
pub(super) struct Part {
    pub text: String,
    pub is_last: bool,
}

/// A JSON object with one long array, and what follows it.
pub(super) struct Array<T, F> {
    head: &'static str,
    tail: String,
    items: std::vec::IntoIter<T>,
    /// How an item is written; those of which there is nothing to write are left out.
    write: F,
    begun: bool,
    is_empty: bool,
}

impl<T, F> Array<T, F> {
    /// `head` ends with the `[` of the array, `tail` begins with its `]`.
    pub(super) fn new(head: &'static str, items: Vec<T>, tail: String, write: F) -> Self {
        Self { head, tail, items: items.into_iter(), write, begun: false, is_empty: true }
    }
}

impl<T, S, F> Parts for Array<T, F>
where
    T: Send + 'static,
    S: Serialize,
    F: Fn(&Service, &T) -> Option<S> + Send + 'static,
{
    fn next(&mut self, service: &Service) -> Option<Part> {
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            text.push_str(self.head);
        }
        while text.len() < PART_LEN {
            let Some(item) = self.items.next() else {
                text.push_str(&self.tail);
                return Some(Part { text, is_last: true });
            };
            let Some(item) = (self.write)(service, &item) else { continue };
            match serde_json::to_string(&item) {
                Ok(item) => {
                    text.push_str(if self.is_empty { "" } else { "," });
                    text.push_str(&item);
                    self.is_empty = false;
                }
                Err(error) => tracing::error!(%error, "an item could not be written as JSON"),
            }
        }
        Some(Part { text, is_last: false })
    }
}

/// Answers with JSON in parts; `None` if there is nothing to answer.
pub(super) async fn answer(
    context: &Context,
    lasting: Lasting,
    parts: impl Parts,
) -> Result<Option<Response>> {
    let (mut parts, Some(first)) = next(context, parts).await? else { return Ok(None) };
    if first.is_last {
        return Ok(Some(([(CONTENT_TYPE, JSON)], first.text).into_response()));
    }
    let (teller, response) = match answer_in_parts(lasting, JSON) {
        Ok(answer) => answer,
        Err(refusal) => return Ok(Some(refusal.into_response())),
    };
    let context = context.clone();
    tokio::spawn(async move {
        let mut part = first;
        // Who has left, or does not read, gets no more. A client sees from the missing end that an
        // answer is not whole.
        while teller.tell(part.text).await.is_ok() && !part.is_last {
            match next(&context, parts).await {
                Ok((rest, Some(made))) => (parts, part) = (rest, made),
                Ok((_, None)) | Err(_) => return,
            }
        }
    });
    Ok(Some(response))
}

async fn next<P: Parts>(context: &Context, mut parts: P) -> Result<(P, Option<Part>)> {
    blocking_report(context, move |service| {
        let part = parts.next(service);
        (parts, part)
    })
    .await
}

const JSON: &str = "application/json";

/// Bytes of a part.
pub(super) const PART_LEN: usize = 64 * 1024;
