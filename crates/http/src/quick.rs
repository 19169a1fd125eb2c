//! Requests that are answered from the read buffer, without a router: many, small, and all of one form.
//!
//! A connection begins here. As long as its requests are plain ones (GET, HTTP/1.1, without a body) that the server's
//! function answers, it stays here, with any number of requests in flight. At the first other request, the connection
//! goes to the usual server, with what was already read of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Ends, MAX_AGE, MAX_HEADER, MAX_HEADERS};

/// Appends the body of the answer to a request. Returns `false` if the usual server must answer; then nothing may
/// have happened.
pub type QuickAnswer = Arc<dyn Fn(&QuickRequest<'_>, &mut Vec<u8>) -> bool + Send + Sync>;

/// A plain GET request.
#[derive(Debug, Clone, Copy)]
pub struct QuickRequest<'a> {
    /// The path, still percent-encoded.
    pub path: &'a str,
    /// The query without the `?`, still percent-encoded.
    pub query: &'a str,
    /// The ends of its connection.
    pub ends: Ends,
}

/// How the quick part of a connection has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QuickEnd {
    /// The usual server takes over, with these bytes of the next request.
    Other(Vec<u8>),
    /// The connection is over.
    Closed,
    /// The client does not read its answers. Unsent data is to be discarded.
    Unread,
}

/// A request at the beginning of the read buffer.
enum Head<'a> {
    /// It is not complete yet.
    Partial,
    /// It is not a plain one.
    Other,
    Plain {
        path: &'a str,
        query: &'a str,
        closes: bool,
        len: usize,
    },
}

/// Answers plain requests until another comes, the connection ends, or `stop` changes.
pub(super) async fn converse<I: AsyncRead + AsyncWrite + Unpin>(
    io: &mut I,
    ends: Ends,
    answer: &QuickAnswer,
    patience: Duration,
    stop: &mut watch::Receiver<bool>,
) -> QuickEnd {
    let begun = Instant::now();
    let mut read = Vec::with_capacity(FIRST_READ);
    let (mut body, mut out) = (Vec::new(), Vec::new());
    let mut whole_head = Instant::now() + patience;
    loop {
        let is_old = begun.elapsed() > MAX_AGE;
        let (taken, end) = answer_all(&read, ends, answer, is_old, &mut body, &mut out);
        read.drain(..taken);
        if !out.is_empty() {
            match timeout(READ_ANSWERS, io.write_all(&out)).await {
                Ok(Ok(())) => {
                    out.clear();
                    whole_head = Instant::now() + patience;
                }
                Ok(Err(_)) => return QuickEnd::Closed,
                Err(_) => return QuickEnd::Unread,
            }
        }
        match end {
            BufferEnd::Full => continue,
            BufferEnd::Other => return QuickEnd::Other(read),
            BufferEnd::Closes => {
                // Fails only if the client has gone.
                let _ = timeout(patience, io.shutdown()).await;
                return QuickEnd::Closed;
            }
            BufferEnd::Partial if read.len() >= MAX_HEADER => return QuickEnd::Other(read),
            BufferEnd::Partial => {}
        }
        loop {
            let before = read.len();
            let received = tokio::select! {
                received = timeout_at(whole_head, io.read_buf(&mut read)) => received,
                _ = stop.changed() => return QuickEnd::Closed,
            };
            if !matches!(received, Ok(Ok(1..))) {
                return QuickEnd::Closed;
            }
            // A head ends with a line end.
            if read[before..].contains(&b'\n') || read.len() >= MAX_HEADER {
                break;
            }
        }
    }
}

/// Why the requests in a buffer end.
#[derive(Debug, PartialEq, Eq)]
enum BufferEnd {
    /// More has to be read.
    Partial,
    /// The answers are to be sent before others are made.
    Full,
    Other,
    /// The last answer says that the connection ends.
    Closes,
}

/// Answers the plain requests at the beginning of `read`. Returns how many bytes they have, and what comes then.
fn answer_all(
    read: &[u8],
    ends: Ends,
    answer: &QuickAnswer,
    is_last: bool,
    body: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> (usize, BufferEnd) {
    let mut at = 0;
    while at < read.len() {
        if out.len() >= ENOUGH_ANSWERS {
            return (at, BufferEnd::Full);
        }
        let (path, query, closes, len) = match head(&read[at..]) {
            Head::Partial => break,
            Head::Other => return (at, BufferEnd::Other),
            Head::Plain { path, query, closes, len } => (path, query, closes || is_last, len),
        };
        body.clear();
        if !answer(&QuickRequest { path, query, ends }, body) {
            return (at, BufferEnd::Other);
        }
        at += len;
        put_answer(body, closes, out);
        if closes {
            return (at, BufferEnd::Closes);
        }
    }
    (at, BufferEnd::Partial)
}

fn head(read: &[u8]) -> Head<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(read) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEADER => len,
        Ok(httparse::Status::Partial) => return Head::Partial,
        // The usual server knows how to refuse it.
        Ok(httparse::Status::Complete(_)) | Err(_) => return Head::Other,
    };
    let Some(target) = request.path.filter(|target| is_usual(target)) else { return Head::Other };
    if request.method != Some("GET") || request.version != Some(1) {
        return Head::Other;
    }
    let mut closes = false;
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("connection") {
            closes |= header.value.eq_ignore_ascii_case(b"close");
            if !closes && !header.value.eq_ignore_ascii_case(b"keep-alive") {
                return Head::Other;
            }
        } else if NOT_PLAIN.iter().any(|name| is(name)) {
            return Head::Other;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Head::Plain { path, query, closes, len }
}

/// Returns whether a target has a path, and only characters of which nobody doubts that they may be there.
fn is_usual(target: &str) -> bool {
    let is_usual =
        |byte: u8| byte.is_ascii_alphanumeric() || b"%&=?/._~-+:,!*'()$;@".contains(&byte);
    target.starts_with('/') && target.bytes().all(is_usual)
}

fn put_answer(body: &[u8], closes: bool, out: &mut Vec<u8>) {
    let date = httpdate::fmt_http_date(SystemTime::now());
    out.extend(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n");
    if closes {
        out.extend(b"connection: close\r\n");
    }
    out.extend(b"content-length: ");
    out.extend(body.len().to_string().bytes());
    out.extend(b"\r\ndate: ");
    out.extend(date.bytes());
    out.extend(b"\r\n\r\n");
    out.extend(body);
}

/// A connection of which something was already read.
pub(super) struct Rewound<I> {
    read: Vec<u8>,
    at: usize,
    io: I,
}

impl<I> Rewound<I> {
    pub(super) fn new(read: Vec<u8>, io: I) -> Self {
        Self { read, at: 0, io }
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewound<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.read[self.at..];
        if left.is_empty() {
            self.read = Vec::new();
            self.at = 0;
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let len = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewound<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Header fields with which a request is not plain.
const NOT_PLAIN: [&str; 4] = ["content-length", "transfer-encoding", "expect", "upgrade"];

/// The first size of the read buffer. An announce has 300 to 700 bytes.
const FIRST_READ: usize = 2 * 1024;

/// Answers are sent once they have this many bytes. A connection whose client does not read has that much and one
/// answer more in memory.
const ENOUGH_ANSWERS: usize = 4 * 1024;

/// The time in which a client must take answers of some KiB.
const READ_ANSWERS: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Answers paths that begin with `/q` by the query.
    fn echo() -> QuickAnswer {
        Arc::new(|request, body| {
            body.extend(request.query.bytes());
            request.path.starts_with("/q")
        })
    }

    fn ends() -> Ends {
        Ends { peer: ([192, 0, 2, 1], 1).into(), local: None }
    }

    /// What a client gets that sends `parts` one after the other, and how the quick part ends.
    async fn ask(parts: &[&str]) -> (Vec<String>, QuickEnd) {
        let (mut client, mut server) = duplex(64 * 1024);
        let (_keep, mut stop) = watch::channel(false);
        let serving = tokio::spawn(async move {
            let patience = Duration::from_secs(5);
            converse(&mut server, ends(), &echo(), patience, &mut stop).await
        });
        for part in parts {
            client.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        let answers = text.split("HTTP/1.1 ").skip(1).map(str::to_owned).collect();
        (answers, serving.await.unwrap())
    }

    fn body(answer: &str) -> &str {
        assert!(answer.starts_with("200 OK\r\ncontent-type: text/plain\r\n"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1
    }

    #[tokio::test]
    async fn requests_in_any_pieces_are_answered_in_order() {
        let text: String =
            (0..100).map(|n| format!("GET /q?{n} HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")).collect();
        for size in [1, 7, 41, 500, text.len()] {
            let parts = text.as_bytes().chunks(size).map(|part| str::from_utf8(part).unwrap());
            let (answers, end) = ask(&parts.collect::<Vec<_>>()).await;
            let got = answers.iter().map(|answer| body(answer));
            assert!(got.eq((0..100).map(|n| n.to_string())), "{size}");
            assert_eq!(end, QuickEnd::Closed);
        }
    }

    #[tokio::test]
    async fn a_client_that_wants_to_close_is_told_so_and_gets_no_more() {
        let (answers, end) =
            ask(&["GET /q?a HTTP/1.1\r\nconnection: Close\r\n\r\nGET /q?b HTTP/1.1\r\n\r\n"]).await;
        assert_eq!((answers.len(), body(&answers[0]), end), (1, "a", QuickEnd::Closed));
        assert!(answers[0].contains("\r\nconnection: close\r\n"));
        let (answers, _) = ask(&["GET /q?a HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"]).await;
        assert!(!answers[0].contains("connection"));
    }

    #[tokio::test]
    async fn other_requests_go_to_the_usual_server_whole() {
        let many = format!("GET /q HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1));
        let long = format!("GET /q HTTP/1.1\r\nx: {}", "y".repeat(MAX_HEADER));
        for other in [
            "GET /other HTTP/1.1\r\n\r\n",
            "GET http://a/q HTTP/1.1\r\n\r\n",
            "GET /q?\"<> HTTP/1.1\r\n\r\n",
            "HEAD /q HTTP/1.1\r\n\r\n",
            "GET /q HTTP/1.0\r\n\r\n",
            "POST /q HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "GET /q HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "GET /q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET /q HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET /q HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "GET /q HTTP/1.1\r\nbad header\r\n\r\n",
            "\x16\x03\x01 junk\r\n",
            &many,
            &long,
        ] {
            let (answers, end) = ask(&["GET /q?a HTTP/1.1\r\n\r\n", other]).await;
            assert_eq!((answers.len(), body(&answers[0])), (1, "a"), "{other}");
            let QuickEnd::Other(rest) = end else { panic!("{other}") };
            // The usual server reads on.
            assert!(other.as_bytes().starts_with(&rest), "{other}");
            assert_eq!(rest.len(), if other == long { MAX_HEADER } else { other.len() });
            let mut text = String::new();
            let mut rewound = Rewound::new(rest.clone(), &b"more"[..]);
            rewound.read_to_string(&mut text).await.unwrap();
            assert_eq!(text.as_bytes(), [&rest[..], b"more"].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_head_or_reads_no_answer_is_left() {
        let (patience, answer) = (Duration::from_secs(5), echo());
        let (_keep, mut stop) = watch::channel(false);
        for begun in ["", "GET /q HTTP/1.1\r\nx: "] {
            let (mut client, mut server) = duplex(1024);
            client.write_all(begun.as_bytes()).await.unwrap();
            // Whole lines, too, extend no time.
            let slow = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    client
                        .write_all(if begun.is_empty() { b"" } else { b"y: z\r\n" })
                        .await
                        .unwrap();
                }
            });
            let begun = Instant::now();
            let end = converse(&mut server, ends(), &answer, patience, &mut stop).await;
            assert_eq!((end, begun.elapsed()), (QuickEnd::Closed, patience));
            slow.abort();
        }
        let (mut client, mut server) = duplex(1024);
        let asking = tokio::spawn(async move {
            while client.write_all(b"GET /q?a HTTP/1.1\r\n\r\n").await.is_ok() {}
        });
        let end = converse(&mut server, ends(), &answer, patience, &mut stop).await;
        assert_eq!(end, QuickEnd::Unread);
        asking.abort();
    }

    #[tokio::test]
    async fn a_server_that_stops_leaves_idle_connections() {
        let (_client, mut server) = duplex(1024);
        let (stop, mut stopped) = watch::channel(false);
        stop.send_replace(true);
        let patience = Duration::from_secs(500);
        let end = converse(&mut server, ends(), &echo(), patience, &mut stopped).await;
        assert_eq!(end, QuickEnd::Closed);
    }
}
