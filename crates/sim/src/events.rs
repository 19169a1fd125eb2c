//! The queue of future events.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use piecework_core::Moment;

/// Events in the order of their time. Events of the same moment come out in the order in which they were
/// scheduled, so that a run depends only on its seed.
#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Moment,
    number: u64,
    event: T,
}

impl<T> EventQueue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }

    pub(crate) fn push(&mut self, at: Moment, event: T) {
        self.heap.push(Entry { at, number: self.scheduled, event });
        self.scheduled += 1;
    }

    /// Removes and returns the next event if it is due at `until` or before.
    pub(crate) fn pop_until(&mut self, until: Moment) -> Option<(Moment, T)> {
        let next = self.heap.peek()?;
        if next.at > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

// The heap keeps the greatest entry on top, so the earliest is the greatest.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_by_time_then_in_the_order_they_were_scheduled() {
        let mut queue = EventQueue::new();
        for (at, name) in [(3, 'a'), (1, 'b'), (3, 'c'), (2, 'd'), (1, 'e'), (9, 'f')] {
            queue.push(Moment::from_secs(at), name);
        }
        let until = Moment::from_secs(3);
        let order: String =
            std::iter::from_fn(|| queue.pop_until(until)).map(|(_, name)| name).collect();
        assert_eq!(order, "bedac");
        assert!(!queue.is_empty());
    }
}
