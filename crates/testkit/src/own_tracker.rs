//! A fake tracker of our own kind: it counts what it is asked, and may refuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use piecework_core::{AnnounceKey, InfoHash};
use piecework_proto::announce::AnnounceEvent;
use piecework_proto::announce::catalogue::{
    BatchAnswer, BatchOutcome, BatchedHoldings, HoldingsBatch,
};
use piecework_proto::announce::http::decode_query;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a fake tracker was asked.
#[derive(Default)]
pub struct TrackerRecord {
    pub connections: usize,
    pub open: usize,
    pub most_open: usize,
    /// How many `started` events it received for each torrent.
    pub started: BTreeMap<InfoHash, usize>,
    /// The key of each `started`.
    pub keys: Vec<AnnounceKey>,
    /// The number of reports in each batch.
    pub batches: Vec<usize>,
    /// How many reports it accepted for each torrent.
    pub taken: BTreeMap<InfoHash, usize>,
    pub refused: usize,
}

/// How it differs from our own tracker.
#[derive(Clone, Copy, Default)]
pub struct TrackerBehavior {
    pub single_only: bool,
    /// It forgets each torrent once: it accepts no report before a second `started`.
    pub forgetful: bool,
}

/// A tracker over HTTP that accepts reports of holdings, as ours do, and knows no peers.
pub struct OwnTracker {
    pub addr: String,
    pub seen: Arc<Mutex<TrackerRecord>>,
}

impl OwnTracker {
    pub async fn start(behavior: TrackerBehavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(TrackerRecord::default()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                tokio::spawn(async move {
                    {
                        let mut seen = seen.lock();
                        seen.connections += 1;
                        seen.open += 1;
                        seen.most_open = seen.most_open.max(seen.open);
                    }
                    // It ends when the client disconnects.
                    let _ = serve(stream, &seen, behavior).await;
                    seen.lock().open -= 1;
                });
            }
        });
        Self { addr, seen }
    }

    /// Waits until `wanted` returns true for the record.
    pub async fn saw(&self, wanted: impl Fn(&TrackerRecord) -> bool) {
        super::within(async {
            while !wanted(&self.seen.lock()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// Answers one request after the other.
async fn serve(
    stream: TcpStream,
    seen: &Mutex<TrackerRecord>,
    behavior: TrackerBehavior,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut len) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                len = text.trim().parse().unwrap();
            }
            head.push(line);
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        let path = head[0].split(' ').nth(1).unwrap();
        let (status, body) = answer(path, &body, seen, behavior);
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}

fn answer(
    path: &str,
    body: &[u8],
    seen: &Mutex<TrackerRecord>,
    behavior: TrackerBehavior,
) -> (u16, Vec<u8>) {
    let mut seen = seen.lock();
    if let Some(query) = path.strip_prefix("/announce?") {
        let announce = decode_query(query).unwrap();
        if announce.event == AnnounceEvent::Started {
            *seen.started.entry(announce.info_hash).or_default() += 1;
            seen.keys.extend(announce.key);
        }
        return (200, b"d8:intervali1800e5:peers0:e".to_vec());
    }
    let mut take = |info_hash: InfoHash| {
        let started = seen.started.get(&info_hash).copied().unwrap_or(0);
        if started < 1 + usize::from(behavior.forgetful) {
            seen.refused += 1;
            return 409;
        }
        *seen.taken.entry(info_hash).or_default() += 1;
        204
    };
    if let Some(hash) = path.strip_prefix("/torrents/") {
        return (take(hash[..40].parse().unwrap()), Vec::new());
    }
    if !path.starts_with("/holdings?") || behavior.single_only {
        return (404, b"{\"error\":\"there is nothing at this address\"}".to_vec());
    }
    let batch: HoldingsBatch = serde_json::from_slice(body).unwrap();
    let outcome = |report: &BatchedHoldings| {
        let info_hash = report.info_hash;
        BatchOutcome { info_hash, status: take(info_hash), error: None }
    };
    let torrents = batch.torrents.iter().map(outcome).collect();
    seen.batches.push(batch.torrents.len());
    (200, serde_json::to_vec(&BatchAnswer { torrents }).unwrap())
}
