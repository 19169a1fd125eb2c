//! Questions that wait for an answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use piecework_core::Moment;

use super::lookup::LookupId;
use super::node_id::NodeId;

/// A question that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SentQuery {
    pub(crate) to: SocketAddr,
    /// The id of the node that should answer, if it is known.
    pub(crate) expected: Option<NodeId>,
    pub(crate) purpose: Purpose,
}

/// Why a question was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To see whether the node is there.
    Check,
    /// To get to know other nodes.
    Bootstrap,
    /// A step of a look-up.
    Lookup(LookupId),
    /// The end of a look-up.
    Announce(LookupId),
}

/// The questions that wait, by their numbers.
pub(crate) struct Queries {
    waiting: HashMap<u32, SentQuery, FixedState>,
    /// In the order in which they become slow, and are lost.
    slow: VecDeque<(Moment, u32)>,
    lost: VecDeque<(Moment, u32)>,
}

impl Queries {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            waiting: HashMap::with_hasher(FixedState::with_seed(seed)),
            slow: VecDeque::new(),
            lost: VecDeque::new(),
        }
    }

    /// Returns whether one more question may be asked.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MOST_WAITING
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.waiting.contains_key(&number)
    }

    pub(crate) fn add(&mut self, now: Moment, number: u32, query: SentQuery) {
        if matches!(query.purpose, Purpose::Lookup(_)) {
            self.slow.push_back((now + SLOW_AFTER, number));
        }
        self.lost.push_back((now + LOST_AFTER, number));
        self.waiting.insert(number, query);
    }

    /// Removes the question that an answer from `from` belongs to. Anybody else has to guess its number, and loses
    /// nothing for us.
    pub(crate) fn take(&mut self, transaction: &[u8], from: SocketAddr) -> Option<SentQuery> {
        let number = u32::from_be_bytes(transaction.try_into().ok()?);
        let is_his = self.waiting.get(&number).is_some_and(|query| query.to == from);
        if is_his { self.waiting.remove(&number) } else { None }
    }

    /// Returns the next question that has become slow.
    pub(crate) fn next_slow(&mut self, now: Moment) -> Option<SentQuery> {
        while let Some((_, number)) = self.slow.pop_front_if(|(at, _)| *at <= now) {
            if let Some(query) = self.waiting.get(&number) {
                return Some(*query);
            }
        }
        None
    }

    /// Removes the next question that gets no answer any more.
    pub(crate) fn next_lost(&mut self, now: Moment) -> Option<SentQuery> {
        while let Some((_, number)) = self.lost.pop_front_if(|(at, _)| *at <= now) {
            if let Some(query) = self.waiting.remove(&number) {
                return Some(query);
            }
        }
        None
    }

    /// Returns when the next question becomes slow or is lost.
    pub(crate) fn deadline(&mut self) -> Option<Moment> {
        let waiting = &self.waiting;
        let first = |queue: &mut VecDeque<(Moment, u32)>| {
            while queue.pop_front_if(|(_, number)| !waiting.contains_key(number)).is_some() {}
            queue.front().map(|(at, _)| *at)
        };
        let (slow, lost) = (first(&mut self.slow), first(&mut self.lost));
        slow.into_iter().chain(lost).min()
    }
}

/// A look-up asks somebody else after this time. Most nodes that answer at all do so within it.
const SLOW_AFTER: Duration = Duration::from_millis(1_000);

/// After this time no answer comes.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// More than the rate allows within [`LOST_AFTER`], in about 300 kB.
const MOST_WAITING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_secs(9);

    fn query(port: u16) -> SentQuery {
        let purpose = Purpose::Lookup(LookupId(1));
        SentQuery { to: ([9, 9, 9, 9], port).into(), expected: None, purpose }
    }

    #[test]
    fn an_answer_belongs_to_a_question_by_number_and_address() {
        let mut queries = Queries::new(1);
        queries.add(NOW, 7, query(1));
        for (transaction, port) in [(&[0, 0, 0, 8][..], 1), (&[0, 0, 0, 7], 2), (&[7], 1), (&[], 1)]
        {
            assert_eq!(queries.take(transaction, query(port).to), None);
        }
        assert_eq!(queries.take(&[0, 0, 0, 7], query(1).to), Some(query(1)));
        // A replay gets nothing.
        assert_eq!(queries.take(&[0, 0, 0, 7], query(1).to), None);
        assert_eq!(queries.deadline(), None);
    }

    #[test]
    fn questions_become_slow_and_are_lost_in_their_order() {
        let mut queries = Queries::new(1);
        let second = Duration::from_secs(1);
        queries.add(NOW, 1, query(1));
        queries.add(NOW + second, 2, query(2));
        assert_eq!(queries.deadline(), Some(NOW + SLOW_AFTER));
        assert_eq!(queries.next_slow(NOW), None);
        assert_eq!(queries.next_slow(NOW + SLOW_AFTER), Some(query(1)));
        assert_eq!(queries.next_slow(NOW + SLOW_AFTER), None);
        queries.take(&[0, 0, 0, 2], query(2).to);
        assert_eq!(queries.deadline(), Some(NOW + LOST_AFTER));
        assert_eq!(queries.next_lost(NOW + LOST_AFTER), Some(query(1)));
        assert_eq!(queries.take(&[0, 0, 0, 1], query(1).to), None);
        assert_eq!(queries.deadline(), None);
    }
}
