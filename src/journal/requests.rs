//! Who asked the tracker what: a bounded ring of the last requests, and behind it the journal.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{Journal, JournalError, Record};
use crate::base::{InfoHash, PeerId};
use crate::registry::Handed;

/// The last requests a tracker answered. When it is full the oldest are dropped, and counted.
///
/// With a [`Journal`] what was asked before the tracker was started is there too, and what is asked
/// now is written: as many requests a second as cost next to nothing, those first that tell
/// something.
pub struct RequestLog {
    ring: Mutex<Ring>,
    capacity: usize,
    max_peers: usize,
    listeners: broadcast::Sender<Arc<RequestRecord>>,
    journal: Option<Arc<Journal>>,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestRecord {
    /// When it was answered.
    pub time: SystemTime,
    /// Who asked: the address it announces, or that of its connection where it announces none.
    pub peer: SocketAddr,
    /// Who it says it is.
    pub peer_id: Option<PeerId>,
    /// What it asked for.
    pub event: RequestEvent,
    /// Which torrent, if one was named.
    pub info_hash: Option<InfoHash>,
    /// The name the torrent had in the catalogue at that time. Unescaped.
    pub name: Option<Arc<str>>,
    /// The peers it was given.
    pub handed: HandedList,
    /// How it went: why it was refused if it was. Unescaped.
    pub outcome: Result<(), Arc<str>>,
    /// How it came.
    pub via: Via,
    /// The torrent was unlisted then, or had been when it was removed: no public log tells of it.
    pub unlisted: bool,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestEvent {
    /// A regular announce.
    Announce,
    /// An announce of one who begins.
    Started,
    /// An announce of one who leaves.
    Stopped,
    /// An announce of one who has just become complete.
    Completed,
    /// Counts.
    Scrape,
    /// A report of the pieces it holds.
    Holdings,
    /// A name that is not in the catalogue; of one that is there, what follows is told.
    Lookup,
    /// The metainfo.
    Fetch,
    /// A torrent into the catalogue.
    Register,
    /// A torrent out of it.
    Remove,
}

/// How a request came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Via {
    /// TCP.
    Http,
    /// Datagrams (BEP 15).
    Udp,
}

/// Peers that were handed out: 8 or 20 bytes each, since there are up to 200 in a record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HandedList {
    v4: Box<[(Ipv4Addr, u16, bool)]>,
    v6: Box<[(Ipv6Addr, u16, bool)]>,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Arc<RequestRecord>>,
    peers: usize,
    dropped: u64,
    written: Written,
}

/// What was handed to the journal in one second.
#[derive(Default)]
struct Written {
    second: u64,
    telling: u32,
    regular: u32,
    skipped: u64,
}

impl RequestLog {
    /// An empty log of up to `capacity` records.
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::default(),
            capacity,
            max_peers: capacity.saturating_mul(PEERS_PER_RECORD),
            listeners: broadcast::Sender::new(HEARD),
            journal: None,
        }
    }

    /// One that begins with the last requests of `journal`, and writes into it. Blocks.
    ///
    /// # Errors
    /// If it cannot be read; then it is of no use for writing either.
    pub fn with_journal(capacity: usize, journal: Arc<Journal>) -> Result<Self, JournalError> {
        let look = || journal.read(|reader| reader.requests(capacity.min(MOST_BEFORE)));
        let before = match look() {
            // It was set aside, and there is a new one.
            Err(JournalError::Damaged { .. }) => look()?,
            before => before?,
        };
        let log = Self::new(capacity);
        before.into_iter().for_each(|record| log.push(record));
        Ok(Self { journal: Some(journal), ..log })
    }

    /// Writes out what waits for the journal and ends it. Blocks.
    pub fn close(&self) {
        if let Some(journal) = &self.journal {
            journal.skipped(std::mem::take(&mut self.ring.lock().written.skipped));
            journal.close();
        }
    }

    /// Adds a record; takes no longer however many there are.
    pub fn push(&self, record: RequestRecord) {
        let peers = record.handed.len();
        let record = Arc::new(record);
        if self.listeners.receiver_count() > 0 {
            // Who has left in this moment need not hear it.
            let _ = self.listeners.send(Arc::clone(&record));
        }
        if self.capacity == 0 && self.journal.is_none() {
            return;
        }
        let mut ring = self.ring.lock();
        if let Some(journal) = &self.journal {
            let (written, skipped) = ring.written.admit(&record);
            if skipped > 0 {
                journal.skipped(skipped);
            }
            if written {
                journal.record(Record::Request(Arc::clone(&record)));
            }
        }
        ring.peers += peers;
        ring.records.push_back(record);
        while ring.records.len() > self.capacity
            || (ring.peers > self.max_peers && ring.records.len() > 1)
        {
            if let Some(oldest) = ring.records.pop_front() {
                ring.peers -= oldest.handed.len();
                ring.dropped += 1;
            }
        }
    }

    /// Hears every record from now on; who lags behind misses some, and is told how many.
    pub fn listen(&self) -> broadcast::Receiver<Arc<RequestRecord>> {
        self.listeners.subscribe()
    }

    /// The last `limit` records, the oldest first.
    pub fn last(&self, limit: usize) -> Vec<Arc<RequestRecord>> {
        let ring = self.ring.lock();
        let skipped = ring.records.len().saturating_sub(limit);
        ring.records.iter().skip(skipped).cloned().collect()
    }

    /// How many records are kept.
    pub fn len(&self) -> usize {
        self.ring.lock().records.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many were written into the journal; 0 without one.
    pub fn written(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.written())
    }

    /// The journal behind it.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// How many older ones were dropped.
    pub fn dropped(&self) -> u64 {
        self.ring.lock().dropped
    }
}

impl Written {
    /// Whether the record is to be written, and how many before it were not in an earlier second.
    fn admit(&mut self, record: &RequestRecord) -> (bool, u64) {
        let since = record.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut skipped = 0;
        if since.as_secs() != self.second {
            skipped = self.skipped;
            *self = Self { second: since.as_secs(), ..Self::default() };
        }
        let is_regular = matches!(
            record.event,
            RequestEvent::Announce | RequestEvent::Scrape | RequestEvent::Holdings
        );
        let (count, most) = match is_regular && record.outcome.is_ok() {
            true => (&mut self.regular, REGULAR_A_SECOND),
            false => (&mut self.telling, TELLING_A_SECOND),
        };
        if *count >= most {
            self.skipped += 1;
            return (false, skipped);
        }
        *count += 1;
        (true, skipped)
    }
}

impl RequestRecord {
    /// When it was answered, milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> i64 {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn time_of(unix_ms: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0))
    }
}

impl RequestEvent {
    /// The event with this number; the numbers stand in journals.
    pub(super) fn of_number(number: i64) -> Self {
        match number {
            0 => Self::Announce,
            1 => Self::Started,
            2 => Self::Stopped,
            3 => Self::Completed,
            4 => Self::Scrape,
            5 => Self::Holdings,
            6 => Self::Lookup,
            7 => Self::Fetch,
            8 => Self::Register,
            _ => Self::Remove,
        }
    }

    /// One word, as the console and the JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Scrape => "scrape",
            Self::Holdings => "holdings",
            Self::Lookup => "lookup",
            Self::Fetch => "fetch",
            Self::Register => "register",
            Self::Remove => "remove",
        }
    }
}

impl Via {
    pub(super) fn of_number(number: i64) -> Self {
        if number == 0 { Self::Http } else { Self::Udp }
    }

    /// One word, as the console and the JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Udp => "udp",
        }
    }
}

impl HandedList {
    /// Packs `peers`.
    pub fn new(peers: &[Handed]) -> Self {
        Self {
            v4: peers
                .iter()
                .filter_map(|peer| match peer.addr.ip() {
                    IpAddr::V4(ip) => Some((ip, peer.addr.port(), peer.complete)),
                    IpAddr::V6(_) => None,
                })
                .collect(),
            v6: peers
                .iter()
                .filter_map(|peer| match peer.addr.ip() {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(ip) => Some((ip, peer.addr.port(), peer.complete)),
                })
                .collect(),
        }
    }

    /// The peers, those that were complete first.
    pub fn iter(&self) -> impl Iterator<Item = Handed> + '_ {
        let of = |wanted: bool| {
            let v4 = self.v4.iter().map(|(ip, port, complete)| ((*ip).into(), *port, *complete));
            let v6 = self.v6.iter().map(|(ip, port, complete)| ((*ip).into(), *port, *complete));
            v4.chain(v6).filter(move |(_, _, complete)| *complete == wanted).map(
                |(ip, port, complete): (IpAddr, _, _)| Handed {
                    addr: SocketAddr::new(ip, port),
                    complete,
                },
            )
        };
        of(true).chain(of(false))
    }

    /// The first of them as text: `+` before one that held everything, `-` before others. `None`
    /// if there are none.
    pub(super) fn to_text(&self) -> Option<String> {
        let named = |complete| self.iter().filter(move |p| p.complete == complete).take(NAMED);
        let mut text = String::new();
        for Handed { addr, complete } in named(true).chain(named(false)) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{addr} ", if complete { '+' } else { '-' });
        }
        text.pop();
        (!text.is_empty()).then_some(text)
    }

    /// What [`HandedList::to_text`] wrote.
    pub(super) fn of_text(text: &str) -> Self {
        let peer = |word: &str| {
            let complete = word.starts_with('+');
            let addr = word.get(1..)?.parse().ok()?;
            Some(Handed { addr, complete })
        };
        let peers: Vec<Handed> = text.split(' ').filter_map(peer).collect();
        Self::new(&peers)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Records kept for who listens.
const HEARD: usize = 1_024;

/// Peers of each kind that the journal names for a request.
const NAMED: usize = 8;

/// Requests written a second at most: those that tell something (who begins, leaves, is done, is
/// refused, registers, fetches) and those that come again and again. At 4 µs each they take less
/// than a hundredth of a core, however many come.
const TELLING_A_SECOND: u32 = 1_500;
const REGULAR_A_SECOND: u32 = 500;

/// Requests of earlier runs that are remembered: reading them takes a tenth of a second.
const MOST_BEFORE: usize = 20_000;

/// Peers a record may have on the average: with 100,000 records, 2 million peers in 16 to 40 MB.
const PEERS_PER_RECORD: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(port: u16, peers: usize) -> RequestRecord {
        let handed = Handed { addr: ([10, 0, 0, 1], 1).into(), complete: true };
        RequestRecord {
            time: SystemTime::UNIX_EPOCH,
            peer: ([127, 0, 0, 1], port).into(),
            peer_id: None,
            event: RequestEvent::Announce,
            info_hash: None,
            name: None,
            handed: HandedList::new(&vec![handed; peers]),
            outcome: Ok(()),
            via: Via::Udp,
            unlisted: false,
        }
    }

    #[test]
    fn the_oldest_records_are_dropped_and_counted() {
        let log = RequestLog::new(3);
        (1..=5).for_each(|port| log.push(record(port, 0)));
        let ports: Vec<u16> = log.last(2).iter().map(|record| record.peer.port()).collect();
        assert_eq!((ports, log.len(), log.dropped()), (vec![4, 5], 3, 2));
    }

    #[test]
    fn records_of_many_peers_are_kept_shorter() {
        let log = RequestLog::new(10);
        (1..=10).for_each(|port| log.push(record(port, 100)));
        assert_eq!((log.len(), log.dropped()), (2, 8));
    }

    #[test]
    fn what_tells_something_is_written_before_what_comes_again_and_again() {
        let mut written = Written::default();
        let mut of = |event| {
            let record = RequestRecord { event, ..record(1, 0) };
            (0..2_000).filter(|_| written.admit(&record).0).count()
        };
        assert_eq!(of(RequestEvent::Announce), REGULAR_A_SECOND as usize);
        assert_eq!(of(RequestEvent::Started), TELLING_A_SECOND as usize);
        let later = RequestRecord { time: RequestRecord::time_of(1_000), ..record(1, 0) };
        assert_eq!(written.admit(&later), (true, 4_000 - 2_000));
    }

    #[test]
    fn peers_come_back_from_their_text() {
        let peer = |addr: &str, complete| Handed { addr: addr.parse().unwrap(), complete };
        let list = HandedList::new(&[peer("1.2.3.4:5", false), peer("[::1]:6", true)]);
        let text = list.to_text().unwrap();
        assert_eq!(text, "+[::1]:6 -1.2.3.4:5");
        assert_eq!(HandedList::of_text(&text), list);
        assert_eq!(HandedList::default().to_text(), None);
    }

    #[test]
    fn packed_peers_come_back_complete_first() {
        let peer = |addr: &str, complete| Handed { addr: addr.parse().unwrap(), complete };
        let peers = [peer("1.2.3.4:5", false), peer("[::1]:6", true)];
        let packed = HandedList::new(&peers);
        assert_eq!(packed.iter().collect::<Vec<_>>(), [peers[1], peers[0]]);
    }
}
