//! Answers that are written while the client reads them. Short answers are sent whole, long ones in parts, compressed
//! if the client accepts that.

use std::future::Future;
use std::io::Write;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tokio::sync::oneshot;

use super::Lasting;
use super::answers::FRAME;
use super::events::{Left, Teller, answer_in_parts};

/// The writer of an answer. It buffers 64 KiB, and as much again is on its way to the client.
#[derive(Debug)]
pub struct PartWriter {
    content_type: &'static str,
    lasting: Lasting,
    gzip: bool,
    /// Data that is not in a part yet.
    buffer: Vec<u8>,
    stage: AnswerStage,
}

/// The stage of an answer.
#[derive(Debug)]
enum AnswerStage {
    /// Everything written so far is in the buffer.
    Begun(oneshot::Sender<Response>),
    Told(Teller, Option<Box<GzEncoder<Vec<u8>>>>),
    Left,
}

/// Answers a request with what `write` writes, with this content type. `asked` are the request's headers.
///
/// If `write` does not end the answer, the client gets an error, or sees from the missing end that the answer is
/// incomplete.
pub async fn answer_as_written<F>(
    lasting: Lasting,
    asked: &HeaderMap,
    content_type: &'static str,
    write: impl FnOnce(PartWriter) -> F,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (writer, answered) = part_writer(lasting, asked, content_type);
    // Runs to its end even if the client disconnects.
    tokio::spawn(write(writer));
    answered.await
}

/// Returns a writer, and the future answer, which begins with the first data written.
pub fn part_writer(
    lasting: Lasting,
    asked: &HeaderMap,
    content_type: &'static str,
) -> (PartWriter, impl Future<Output = Response> + use<>) {
    let (answer, answered) = oneshot::channel();
    let writer = PartWriter {
        content_type,
        lasting,
        gzip: takes_gzip(asked),
        buffer: Vec::new(),
        stage: AnswerStage::Begun(answer),
    };
    let answered = async {
        let ended = || StatusCode::INTERNAL_SERVER_ERROR.into_response();
        // The writer was dropped before it wrote anything. If its task panicked, that was logged.
        answered.await.unwrap_or_else(|_| ended())
    };
    (writer, answered)
}

impl PartWriter {
    /// Writes text.
    ///
    /// # Errors
    /// If the client has left or does not read.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Left> {
        self.buffer.extend_from_slice(bytes.as_ref());
        self.flush_if_full().await
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// See [`PartWriter::write`].
    pub async fn json(&mut self, value: &impl Serialize) -> Result<(), Left> {
        let before = self.buffer.len();
        if let Err(error) = serde_json::to_writer(&mut self.buffer, value) {
            // Maps with text keys cannot fail to be written. Logged in case that changes.
            tracing::error!(%error, "a value could not be written as JSON");
            self.buffer.truncate(before);
            self.buffer.extend_from_slice(b"null");
        }
        self.flush_if_full().await
    }

    /// Writes the elements of a JSON list, without its brackets.
    ///
    /// # Errors
    /// See [`PartWriter::write`].
    pub async fn elements<T: Serialize>(
        &mut self,
        elements: impl IntoIterator<Item = T>,
    ) -> Result<(), Left> {
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                self.buffer.push(b',');
            }
            self.json(&element).await?;
        }
        Ok(())
    }

    /// Ends the answer by sending the rest of the buffer. Without this the answer is incomplete for the client.
    ///
    /// # Errors
    /// See [`PartWriter::write`].
    pub async fn end(mut self) -> Result<(), Left> {
        if let AnswerStage::Begun(_) = self.stage {
            let body = std::mem::take(&mut self.buffer);
            let content_type = [(CONTENT_TYPE, HeaderValue::from_static(self.content_type))];
            let response = match self.gzip && body.len() >= WORTH_IT {
                true => {
                    let packed = packed(&body);
                    encoded((content_type, packed).into_response())
                }
                false => (content_type, body).into_response(),
            };
            return self.respond(response);
        }
        self.flush().await?;
        match std::mem::replace(&mut self.stage, AnswerStage::Left) {
            AnswerStage::Told(teller, Some(encoder)) => match encoder.finish() {
                Ok(rest) => teller.tell(rest).await,
                Err(error) => Err(failed(&error)),
            },
            AnswerStage::Told(..) => Ok(()),
            AnswerStage::Begun(_) | AnswerStage::Left => Err(Left),
        }
    }

    /// Replaces the answer, if nothing was sent yet.
    ///
    /// # Errors
    /// If a part was already sent, or the client has left.
    pub fn respond(mut self, response: Response) -> Result<(), Left> {
        match std::mem::replace(&mut self.stage, AnswerStage::Left) {
            AnswerStage::Begun(answer) => answer.send(response).map_err(|_| Left),
            AnswerStage::Told(..) | AnswerStage::Left => Err(Left),
        }
    }

    async fn flush_if_full(&mut self) -> Result<(), Left> {
        if self.buffer.len() >= FRAME { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Left> {
        if let AnswerStage::Begun(_) = self.stage {
            self.begin()?;
        }
        match &mut self.stage {
            AnswerStage::Told(teller, None) => {
                let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(FRAME + ROOM));
                teller.tell(part).await
            }
            AnswerStage::Told(teller, Some(encoder)) => {
                encoder.write_all(&self.buffer).map_err(|error| failed(&error))?;
                self.buffer.clear();
                if encoder.get_ref().len() < PACKED_PART {
                    // Lets other tasks run, as sending does.
                    tokio::task::yield_now().await;
                    return Ok(());
                }
                let part = std::mem::take(encoder.get_mut());
                teller.tell(part).await
            }
            AnswerStage::Begun(_) | AnswerStage::Left => {
                self.buffer.clear();
                Err(Left)
            }
        }
    }

    /// Switches to sending the answer in parts.
    fn begin(&mut self) -> Result<(), Left> {
        let AnswerStage::Begun(answer) = std::mem::replace(&mut self.stage, AnswerStage::Left)
        else {
            return Err(Left);
        };
        let (teller, response) = match answer_in_parts(self.lasting.clone(), self.content_type) {
            Ok(begun) => begun,
            Err(refusal) => {
                // Fails only if the client has left.
                let _ = answer.send(refusal.into_response());
                return Err(Left);
            }
        };
        let (encoder, response) = match self.gzip {
            true => {
                let encoder = GzEncoder::new(Vec::new(), Compression::fast());
                (Some(Box::new(encoder)), encoded(response))
            }
            false => (None, response),
        };
        answer.send(response).map_err(|_| Left)?;
        // It may take longer than a connection's usual lifetime, and ends if it is not read.
        self.lasting.keep();
        self.stage = AnswerStage::Told(teller, encoder);
        Ok(())
    }
}

fn packed(body: &[u8]) -> Body {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail. If it did, the answer would end too early.
    if let Err(error) = encoder.write_all(body) {
        failed(&error);
    }
    Body::from(encoder.finish().unwrap_or_default())
}

fn encoded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    response
}

fn failed(error: &std::io::Error) -> Left {
    tracing::error!(%error, "an answer could not be compressed");
    Left
}

/// Returns whether a client accepts gzip (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut takes = None;
    let mut takes_any = false;
    let values = headers.get_all(ACCEPT_ENCODING).into_iter();
    for coding in values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|it| it > 0.0));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            takes = Some(wanted);
        } else if name == "*" {
            takes_any = wanted;
        }
    }
    takes.unwrap_or(takes_any)
}

/// Additional room in the buffer for the text that fills a part.
const ROOM: usize = 4 * 1024;

/// The size of a compressed part in bytes.
const PACKED_PART: usize = 32 * 1024;

/// The minimum size of a whole answer that is compressed. A smaller one fits into one packet.
const WORTH_IT: usize = 1_400;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    async fn read(response: Response) -> Vec<u8> {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
    }

    fn asking(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(encoding))])
    }

    async fn rows(asked: &HeaderMap, rows: u32) -> Response {
        answer_as_written(
            Lasting::default(),
            asked,
            "application/json",
            move |mut out| async move {
                out.write("[").await.unwrap();
                out.elements(0..rows).await.unwrap();
                out.write("]").await.unwrap();
                out.end().await.unwrap();
            },
        )
        .await
    }

    #[tokio::test]
    async fn short_answers_come_whole_and_long_ones_in_parts_packed_or_not() {
        for count in [0, 3, 1_000, 300_000] {
            let expected = serde_json::to_vec(&(0..count).collect::<Vec<u32>>()).unwrap();
            let plain = rows(&HeaderMap::new(), count).await;
            assert_eq!(plain.headers().get(CONTENT_ENCODING), None);
            let is_whole = axum::body::HttpBody::size_hint(plain.body()).exact().is_some();
            assert_eq!(is_whole, expected.len() < FRAME, "{count}");
            assert_eq!(read(plain).await, expected);
            let packed = rows(&asking("br, gzip"), count).await;
            if expected.len() < WORTH_IT {
                assert_eq!(read(packed).await, expected);
                continue;
            }
            assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
            assert_eq!(packed.headers()[VARY], "accept-encoding");
            let (packed, mut unpacked) = (read(packed).await, Vec::new());
            GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, expected);
            assert!(packed.len() < expected.len() / 2, "{} bytes", packed.len());
        }
    }

    #[tokio::test]
    async fn what_is_written_for_nobody_goes_nowhere_and_its_writer_learns_it() {
        let (left, hears) = oneshot::channel();
        let asked = HeaderMap::new();
        let answer =
            answer_as_written(Lasting::default(), &asked, "text/plain", |mut out| async move {
                while out.write([b'x'; 1_000]).await.is_ok() {}
                left.send(()).unwrap();
            });
        drop(answer.await);
        hears.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_is_not_ended_is_an_error_and_another_can_take_its_place() {
        let asked = HeaderMap::new();
        let dropped =
            answer_as_written(Lasting::default(), &asked, "text/plain", |out| async move {
                drop(out);
            });
        assert_eq!(dropped.await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let other =
            answer_as_written(Lasting::default(), &asked, "text/plain", |mut out| async move {
                out.write("never told").await.unwrap();
                out.respond(StatusCode::NO_CONTENT.into_response()).unwrap();
            });
        assert_eq!(other.await.status(), StatusCode::NO_CONTENT);
    }

    #[test]
    fn clients_say_whether_they_take_gzip() {
        for yes in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP; q=1", "br;q=1.0, *;q=0.1"] {
            assert!(takes_gzip(&asking(yes)), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "*, gzip; q=0", "br, zstd", "gzip;q=x"] {
            assert!(!takes_gzip(&asking(no)), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
