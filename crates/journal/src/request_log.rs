//! Who asked the tracker for what: a bounded memory of the last requests, and the journal.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::error::JournalError;
use super::journal::Journal;
use super::record::Record;
use super::request_record::{RequestEvent, RequestKind, RequestRecord};
use super::request_ring::RequestRing;
use piecework_core::network_of;

/// The last requests that a tracker answered. When it is full, the network (an IPv4 address or IPv6
/// /64) with the most records loses its oldest one, which is counted. So a client that asks often
/// does not hide what others asked. Requests about the catalogue have three quarters of the room:
/// registrations and removals an eighth, fetches an eighth, announces half. One kind of request
/// never takes the room of another, even if the same client sends both.
///
/// With a [`Journal`], it also has requests from before the tracker was started, and new requests
/// are written: as many per second as cost next to nothing. Each kind has its own bound. Within it,
/// the first requests of each network in a second come before further ones, and rare events come
/// before repeating ones.
pub struct RequestLog {
    inner: Mutex<LogState>,
    capacity: usize,
    listeners: broadcast::Sender<Arc<RequestRecord>>,
    journal: Option<Arc<Journal>>,
    /// Requests that the caller did not log because there were too many.
    left_out: AtomicU64,
}

struct LogState {
    ring: RequestRing,
    second: RateWindow,
    /// Requests that were neither written nor sent to listeners because there were too many.
    held_back: u64,
    /// Those of them that the journal has not counted yet.
    untold: u64,
    /// How many of the requests that the caller left out the journal has counted.
    told_left_out: u64,
}

/// What was written and sent to listeners in one second.
#[derive(Default)]
struct RateWindow {
    number: u64,
    /// Requests of each network and kind that has one in `first`.
    networks: HashMap<(IpAddr, RequestKind), u32, foldhash::fast::RandomState>,
    /// What was written of each kind, by the number of the kind.
    written: [WriteCounts; RequestKind::COUNT],
}

/// Requests of one kind that were written.
#[derive(Default)]
struct WriteCounts {
    /// The first ones of their networks.
    first: u32,
    /// Further ones that report something rare, and those that repeat.
    telling: u32,
    regular: u32,
}

/// The bounds of [`WriteCounts`].
struct WriteBounds {
    first: u32,
    telling: u32,
    regular: u32,
}

impl RequestLog {
    /// Creates an empty log of up to `capacity` records.
    pub fn new(capacity: usize) -> Self {
        let max_peers = capacity.saturating_mul(PEERS_PER_RECORD);
        Self {
            inner: Mutex::new(LogState {
                ring: RequestRing::new(capacity, max_peers),
                second: RateWindow::default(),
                held_back: 0,
                untold: 0,
                told_left_out: 0,
            }),
            capacity,
            listeners: broadcast::Sender::new(HEARD),
            journal: None,
            left_out: AtomicU64::new(0),
        }
    }

    /// Creates a log that starts with the last requests of `journal`, and writes to it. Blocks.
    ///
    /// # Errors
    /// If the journal cannot be read. Then writing to it makes no sense either.
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

    /// Writes what is queued for the journal and closes it. Blocks.
    pub fn close(&self) {
        if let Some(journal) = &self.journal {
            let untold = self.take_untold(&mut self.inner.lock());
            journal.skipped(untold);
            journal.close();
        }
    }

    pub fn push(&self, record: RequestRecord) {
        let heard = self.listeners.receiver_count() > 0;
        if self.capacity == 0 && self.journal.is_none() && !heard {
            return;
        }
        let record = Arc::new(record);
        let mut inner = self.inner.lock();
        let begins = inner.second.begin(record.time);
        let admitted = inner.second.admit(&record);
        if let Some(journal) = &self.journal {
            if begins {
                journal.skipped(self.take_untold(&mut inner));
            }
            if admitted {
                journal.record(Record::Request(Arc::clone(&record)));
            }
        }
        if !admitted {
            inner.held_back += 1;
            inner.untold += 1;
        }
        let told = (heard && admitted).then(|| Arc::clone(&record));
        let gone = if self.capacity > 0 { inner.ring.push(record) } else { None };
        // Waking listeners and freeing memory take longer than everything above.
        drop(inner);
        drop(gone);
        if let Some(record) = told {
            // A listener that has just left need not receive it.
            let _ = self.listeners.send(record);
        }
    }

    /// Counts requests that are not logged because there are too many. For a caller that makes no records of them.
    pub fn left_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns a receiver of new records, except those held back because there are too many at a
    /// time. A slow receiver misses some, and is told how many.
    pub fn listen(&self) -> broadcast::Receiver<Arc<RequestRecord>> {
        self.listeners.subscribe()
    }

    /// Returns the last `limit` records, oldest first.
    pub fn last(&self, limit: usize) -> Vec<Arc<RequestRecord>> {
        self.inner.lock().ring.last(limit)
    }

    pub fn len(&self) -> usize {
        self.inner.lock().ring.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many records were written to the journal; 0 without one.
    pub fn written(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.written())
    }

    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Returns how many requests were neither written nor sent to listeners, because there were too
    /// many at a time.
    pub fn held_back(&self) -> u64 {
        self.inner.lock().held_back + self.left_out.load(Ordering::Relaxed)
    }

    /// Returns how many older records were dropped, and how many requests were left out.
    pub fn dropped(&self) -> u64 {
        self.inner.lock().ring.dropped() + self.left_out.load(Ordering::Relaxed)
    }

    /// Returns how many requests were held back since the last call.
    fn take_untold(&self, inner: &mut LogState) -> u64 {
        let left_out = self.left_out.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut inner.told_left_out, left_out);
        std::mem::take(&mut inner.untold) + left_out.saturating_sub(before)
    }
}

impl RateWindow {
    /// Advances to the second of `time`. Returns whether it is a new one.
    fn begin(&mut self, time: SystemTime) -> bool {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = since.as_secs();
        if number == self.number {
            return false;
        }
        self.networks.clear();
        let networks = std::mem::take(&mut self.networks);
        *self = Self { number, networks, ..Self::default() };
        true
    }

    /// Returns whether the record is to be written.
    fn admit(&mut self, record: &RequestRecord) -> bool {
        let kind = record.kind();
        let (written, most) = (&mut self.written[kind as usize], most_a_second(kind));
        let key = (network_of(record.peer.ip()), kind);
        // Every entry has at least one first request, so their number is bounded.
        let mut fresh = 0;
        let count = match written.first < most.first {
            true => self.networks.entry(key).or_default(),
            false => self.networks.get_mut(&key).unwrap_or(&mut fresh),
        };
        if *count < FIRST_OF_A_NETWORK && written.first < most.first {
            *count += 1;
            written.first += 1;
            return true;
        }
        let is_regular = matches!(
            record.event,
            RequestEvent::Announce | RequestEvent::Scrape | RequestEvent::Holdings
        );
        let (count, most) = match is_regular && record.outcome.is_ok() {
            true => (&mut written.regular, most.regular),
            false => (&mut written.telling, most.telling),
        };
        let admitted = *count < most;
        *count += u32::from(admitted);
        admitted
    }
}

/// Returns the most requests of a kind that are written per second.
fn most_a_second(kind: RequestKind) -> &'static WriteBounds {
    match kind {
        RequestKind::Change | RequestKind::Fetch => &ACTS_A_SECOND,
        RequestKind::Catalogued => &CATALOGUED_A_SECOND,
        RequestKind::Other => &OTHER_A_SECOND,
    }
}

/// Records buffered for each listener.
const HEARD: usize = 1_024;

/// The most requests written per second: 2 × 200 + 1,200 + 400 = 2,000. At 4 µs each they take less
/// than a hundredth of a core, however many arrive.
const ACTS_A_SECOND: WriteBounds = WriteBounds { first: 100, telling: 100, regular: 0 };
const CATALOGUED_A_SECOND: WriteBounds = WriteBounds { first: 500, telling: 400, regular: 300 };
const OTHER_A_SECOND: WriteBounds = WriteBounds { first: 200, telling: 100, regular: 100 };

/// How many requests of a network per second count as its first ones. A client announces a few
/// torrents at a time.
const FIRST_OF_A_NETWORK: u32 = 8;

/// The most requests of earlier runs that are loaded, which takes a tenth of a second.
const MOST_BEFORE: usize = 20_000;

/// The average number of peers per record: with 100,000 records, 2 million peers in 16 to 40 MB.
const PEERS_PER_RECORD: usize = 20;

#[cfg(test)]
mod tests {
    use super::super::request_record::{HandedList, Via};
    use super::*;
    use piecework_registry::HandedPeer;

    fn record(port: u16, peers: usize) -> RequestRecord {
        let handed = HandedPeer { addr: ([10, 0, 0, 1], 1).into(), complete: true };
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

    fn journal() -> (tempfile::TempDir, Arc<Journal>) {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::JournalOptions {
            path: dir.path().join("journal.sqlite"),
            age: Journal::DEFAULT_AGE,
            size: Journal::DEFAULT_SIZE,
            program: "test".to_owned(),
        };
        let journal = Arc::new(Journal::open(&options).unwrap());
        (dir, journal)
    }

    #[test]
    fn what_is_not_written_is_counted() {
        let (_dir, journal) = journal();
        let log = RequestLog::with_journal(10, Arc::clone(&journal)).unwrap();
        (0..1_000).for_each(|_| log.push(record(1, 0)));
        let written = u64::from(FIRST_OF_A_NETWORK + OTHER_A_SECOND.regular);
        assert_eq!(log.held_back(), 1_000 - written);
        log.close();
        assert_eq!((log.written(), journal.dropped()), (written, 1_000 - written));
    }

    #[test]
    fn requests_that_were_left_out_count_as_dropped_and_the_journal_says_so() {
        let (_dir, journal) = journal();
        let log = RequestLog::with_journal(10, Arc::clone(&journal)).unwrap();
        log.left_out(7);
        log.push(RequestRecord { time: RequestRecord::time_of(5_000), ..record(1, 0) });
        log.left_out(5);
        assert_eq!((log.held_back(), log.dropped(), log.len()), (12, 12, 1));
        log.close();
        assert_eq!(journal.dropped(), 12);
    }

    #[test]
    fn records_of_many_peers_are_kept_shorter() {
        let log = RequestLog::new(10);
        (1..=10).for_each(|port| log.push(record(port, 100)));
        assert_eq!((log.len(), log.dropped()), (2, 8));
    }

    /// How many of `count` such requests, all in one second, are written.
    fn written(second: &mut RateWindow, record: &RequestRecord, count: usize) -> usize {
        (0..count).filter(|_| second.admit(record)).count()
    }

    #[test]
    fn what_tells_something_is_written_before_what_comes_again_and_again() {
        let mut second = RateWindow::default();
        let of = |event| RequestRecord { event, name: Some("a".into()), ..record(1, 0) };
        let most = CATALOGUED_A_SECOND;
        let regular = (most.regular + FIRST_OF_A_NETWORK) as usize;
        assert_eq!(written(&mut second, &of(RequestEvent::Announce), 2_000), regular);
        assert_eq!(written(&mut second, &of(RequestEvent::Started), 2_000), most.telling as usize);
        assert!(second.begin(RequestRecord::time_of(1_000)));
        assert_eq!(written(&mut second, &of(RequestEvent::Announce), 2_000), regular);
    }

    #[test]
    fn a_network_s_first_requests_are_written_however_many_others_come() {
        let mut second = RateWindow::default();
        let of = |ip: [u8; 4], name: Option<&str>| RequestRecord {
            peer: (ip, 1).into(),
            name: name.map(Into::into),
            event: RequestEvent::Started,
            ..record(1, 0)
        };
        for last in 0..20 {
            written(&mut second, &of([10, 0, 0, last], None), 10_000);
            written(&mut second, &of([10, 0, 1, last], Some("a")), 10_000);
        }
        let other = (OTHER_A_SECOND.first + OTHER_A_SECOND.telling) as usize;
        assert!(written(&mut second, &of([10, 0, 2, 1], None), 40) <= other);
        let first = FIRST_OF_A_NETWORK as usize;
        assert_eq!(written(&mut second, &of([10, 0, 3, 1], Some("a")), 40), first);
        // More networks than there are first requests for.
        for last in 0..255 {
            written(&mut second, &of([10, 1, 0, last], Some("a")), 9);
            written(&mut second, &of([10, 1, 1, last], None), 9);
        }
        let most = (CATALOGUED_A_SECOND.first + OTHER_A_SECOND.first) as usize;
        assert!(second.networks.len() <= most);
    }

    #[test]
    fn a_flood_of_the_same_network_hides_no_registration_from_the_journal() {
        let mut second = RateWindow::default();
        let of = |event, name: Option<&str>| RequestRecord {
            name: name.map(Into::into),
            event,
            ..record(1, 0)
        };
        for event in [RequestEvent::Announce, RequestEvent::Started, RequestEvent::Scrape] {
            written(&mut second, &of(event, Some("a")), 10_000);
            written(&mut second, &of(event, None), 10_000);
        }
        for event in [RequestEvent::Register, RequestEvent::Fetch] {
            assert_eq!(written(&mut second, &of(event, Some("a")), 8), 8);
        }
        // A flood of refused registrations is noise as well.
        let refused =
            RequestRecord { outcome: Err("bad".into()), ..of(RequestEvent::Register, None) };
        assert!(written(&mut second, &refused, 10_000) <= OTHER_A_SECOND.telling as usize);
        assert_eq!(written(&mut second, &of(RequestEvent::Remove, Some("a")), 1), 1);
    }
}
