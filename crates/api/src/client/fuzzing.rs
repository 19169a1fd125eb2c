//! Functions for `fuzz/`. Not part of the API.

use super::sse::Parser;

/// Returns the name of each event of a stream and its decoded JSON, and the error that ended the
/// stream, if any.
pub fn read_events<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<(String, String)>, Option<String>) {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for chunk in chunks {
        let pushed = parser.push(chunk);
        while let Some(message) = parser.next() {
            let event = match super::events::decode(&message) {
                Ok(Some(event)) => serde_json::to_string(&event).expect("events can be written"),
                Ok(None) => String::new(),
                Err(error) => error.to_string(),
            };
            events.push((message.name, event));
        }
        if let Err(error) = pushed {
            return (events, Some(error.to_string()));
        }
    }
    (events, None)
}
