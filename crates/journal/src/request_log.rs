//! Who asked the tracker what: a bounded ring of the last requests, and behind it the journal.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::error::JournalError;
use super::journal::Journal;
use super::record::Record;
use super::request_record::{RequestEvent, RequestKind, RequestRecord};
use super::request_ring::RequestRing;
use piecework_core::network_of;

/// The last requests a tracker answered. When it is full, the network (an IPv4 address or IPv6
/// /64) that has the most records loses its oldest one, and those are counted: whoever asks often
/// does not hide what others asked. Requests that concern the catalogue have three quarters of
/// the room: registrations and removals an eighth, fetches an eighth, announces half. Requests of
/// one kind never take the room of another, not even of those who send both.
///
/// With a [`Journal`] what was asked before the tracker was started is there too, and what is asked
/// now is written: as many requests a second as cost next to nothing. Each kind has its own bound,
/// and in it each network's first requests of a second come before its further ones, and what
/// happens once before what comes again and again.
pub struct RequestLog {
    inner: Mutex<LogState>,
    capacity: usize,
    listeners: broadcast::Sender<Arc<RequestRecord>>,
    journal: Option<Arc<Journal>>,
}

struct LogState {
    ring: RequestRing,
    second: Second,
    /// Requests that were neither written nor told to listeners because there were too many.
    held_back: u64,
    /// Of these, those that the journal was not told of yet.
    untold: u64,
}

/// What was written into the journal and told to listeners in one second.
#[derive(Default)]
struct Second {
    number: u64,
    /// Requests of each network and kind that have one in `first`.
    networks: HashMap<(IpAddr, RequestKind), u32, foldhash::fast::RandomState>,
    /// What was written of each kind, by the number of the kind.
    written: [Written; RequestKind::COUNT],
}

/// Requests of one kind that were written.
#[derive(Default)]
struct Written {
    /// The first ones of their networks.
    first: u32,
    /// Further ones that tell of something that happens once, and those that come again and again.
    telling: u32,
    regular: u32,
}

/// The same as bounds.
struct WriteBounds {
    first: u32,
    telling: u32,
    regular: u32,
}

impl RequestLog {
    /// An empty log of up to `capacity` records.
    pub fn new(capacity: usize) -> Self {
        let max_peers = capacity.saturating_mul(PEERS_PER_RECORD);
        Self {
            inner: Mutex::new(LogState {
                ring: RequestRing::new(capacity, max_peers),
                second: Second::default(),
                held_back: 0,
                untold: 0,
            }),
            capacity,
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
            journal.skipped(std::mem::take(&mut self.inner.lock().untold));
            journal.close();
        }
    }

    /// Adds a record.
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
            if begins && inner.untold > 0 {
                journal.skipped(std::mem::take(&mut inner.untold));
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
        // Waking listeners and freeing memory take longer than all of the above.
        drop(inner);
        drop(gone);
        if let Some(record) = told {
            // Who has left in this moment need not hear it.
            let _ = self.listeners.send(record);
        }
    }

    /// Hears the records from now on, but for those that are held back because there are too many
    /// at a time; who lags behind misses some, and is told how many.
    pub fn listen(&self) -> broadcast::Receiver<Arc<RequestRecord>> {
        self.listeners.subscribe()
    }

    /// The last `limit` records, the oldest first.
    pub fn last(&self, limit: usize) -> Vec<Arc<RequestRecord>> {
        self.inner.lock().ring.last(limit)
    }

    /// How many records are kept.
    pub fn len(&self) -> usize {
        self.inner.lock().ring.len()
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

    /// How many were neither written into it nor told to listeners, because there were too many at
    /// a time.
    pub fn held_back(&self) -> u64 {
        self.inner.lock().held_back
    }

    /// How many older ones were dropped.
    pub fn dropped(&self) -> u64 {
        self.inner.lock().ring.dropped()
    }
}

impl Second {
    /// Goes on to the second of `time`. Returns whether it is another one.
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
        // There is never an entry without a first request, so their number is bounded.
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

/// Returns how many requests of a kind are written a second at most.
fn most_a_second(kind: RequestKind) -> &'static WriteBounds {
    match kind {
        RequestKind::Change | RequestKind::Fetch => &ACTS_A_SECOND,
        RequestKind::Catalogued => &CATALOGUED_A_SECOND,
        RequestKind::Other => &OTHER_A_SECOND,
    }
}

/// Records kept for who listens.
const HEARD: usize = 1_024;

/// Requests written a second at most: 2 × 200 + 1,200 + 400 = 2,000. At 4 µs each they take less
/// than a hundredth of a core, however many come.
const ACTS_A_SECOND: WriteBounds = WriteBounds { first: 100, telling: 100, regular: 0 };
const CATALOGUED_A_SECOND: WriteBounds = WriteBounds { first: 500, telling: 400, regular: 300 };
const OTHER_A_SECOND: WriteBounds = WriteBounds { first: 200, telling: 100, regular: 100 };

/// Requests of a network in a second that count as its first ones. A client announces a few
/// torrents at a time.
const FIRST_OF_A_NETWORK: u32 = 8;

/// Requests of earlier runs that are remembered: reading them takes a tenth of a second.
const MOST_BEFORE: usize = 20_000;

/// Peers a record may have on the average: with 100,000 records, 2 million peers in 16 to 40 MB.
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

    #[test]
    fn what_is_not_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::JournalOptions {
            path: dir.path().join("journal.sqlite"),
            age: Journal::DEFAULT_AGE,
            size: Journal::DEFAULT_SIZE,
            program: "test".to_owned(),
        };
        let journal = Arc::new(Journal::open(&options).unwrap());
        let log = RequestLog::with_journal(10, Arc::clone(&journal)).unwrap();
        (0..1_000).for_each(|_| log.push(record(1, 0)));
        let written = u64::from(FIRST_OF_A_NETWORK + OTHER_A_SECOND.regular);
        assert_eq!(log.held_back(), 1_000 - written);
        log.close();
        assert_eq!((log.written(), journal.dropped()), (written, 1_000 - written));
    }

    #[test]
    fn records_of_many_peers_are_kept_shorter() {
        let log = RequestLog::new(10);
        (1..=10).for_each(|port| log.push(record(port, 100)));
        assert_eq!((log.len(), log.dropped()), (2, 8));
    }

    /// How many of `count` such requests, all in one second, are written.
    fn written(second: &mut Second, record: &RequestRecord, count: usize) -> usize {
        (0..count).filter(|_| second.admit(record)).count()
    }

    #[test]
    fn what_tells_something_is_written_before_what_comes_again_and_again() {
        let mut second = Second::default();
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
        let mut second = Second::default();
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
        let mut second = Second::default();
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
