//! Connections that were accepted and whose handshake is not done.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use piecework_swarm::admission::{HalfOpen, Ticket};

/// Lets every connection in, and closes others if there are too many. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gate {
    inside: Arc<Mutex<HalfOpenTasks>>,
}

struct HalfOpenTasks {
    open: HalfOpen,
    tasks: HashMap<Ticket, AbortHandle, foldhash::fast::FixedState>,
}

/// A connection that is in its handshake as long as this lives.
struct GatePass {
    ticket: Ticket,
    inside: Arc<Mutex<HalfOpenTasks>>,
}

impl Gate {
    /// Returns a gate for `most` connections at a time.
    pub(crate) fn new(most: usize) -> Self {
        let inside = HalfOpenTasks { open: HalfOpen::new(most), tasks: HashMap::default() };
        Self { inside: Arc::new(Mutex::new(inside)) }
    }

    /// Runs `shake_hands`, the handshake of a connection from `ip`, on a task of its own. It may be
    /// aborted when there are too many.
    pub(crate) fn enter(&self, ip: IpAddr, shake_hands: impl Future<Output = ()> + Send + 'static) {
        // Locked until the task is noted, so that it cannot leave before.
        let mut inside = self.inside.lock();
        let (ticket, evicted) = inside.open.admit(ip);
        if let Some(evicted) = evicted {
            inside.close(evicted);
        }
        let entered = GatePass { ticket, inside: Arc::clone(&self.inside) };
        let task = tokio::spawn(async move {
            let _entered = entered;
            shake_hands.await;
        });
        inside.tasks.insert(ticket, task.abort_handle());
    }

    /// Returns how many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.inside.lock().open.len()
    }

    /// Closes one connection, because the process has no descriptor left.
    pub(crate) fn make_room(&self) {
        let mut inside = self.inside.lock();
        if let Some(evicted) = inside.open.evict() {
            inside.close(evicted);
        }
    }
}

impl HalfOpenTasks {
    fn close(&mut self, ticket: Ticket) {
        if let Some(task) = self.tasks.remove(&ticket) {
            task.abort();
        }
    }
}

impl Drop for GatePass {
    fn drop(&mut self) {
        let mut inside = self.inside.lock();
        inside.open.leave(self.ticket);
        inside.tasks.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_of_a_crowd_is_broken_off_and_the_others_come_to_their_end() {
        let gate = Gate::new(2);
        let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let (go, _) = tokio::sync::broadcast::channel::<()>(1);
        for number in 0..4u8 {
            let (ended, mut go) = (ended.clone(), go.subscribe());
            let from = if number == 0 { [198, 51, 100, 1] } else { [198, 51, 100, 2] };
            gate.enter(from.into(), async move {
                go.recv().await.unwrap();
                ended.send(number).unwrap();
            });
        }
        go.send(()).unwrap();
        drop(ended);
        let mut all = Vec::new();
        while let Some(number) = ends.recv().await {
            all.push(number);
        }
        all.sort_unstable();
        assert_eq!(all, [0, 3]);
        while gate.len() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(gate.inside.lock().tasks.is_empty());
    }
}
