//! Transmission: from what peers send to what arrives.

use piecework_core::SaturatingFrom;
use std::net::SocketAddr;
use std::time::Duration;

use piecework_core::{BlockRef, Moment};
use piecework_proto::wire::Message;
use piecework_swarm::{Direction, Event, PeerKey};

use super::{SimEvent, World};
use crate::connection::{BlockContent, Connection, Flow, Side, Transmission, bytes_of};

impl World {
    /// Handles a dial that reaches its address.
    pub(super) fn connect(&mut self, by: usize, addr: SocketAddr) {
        let answers = |at: &usize| {
            let node = &self.nodes[*at];
            node.is_here() && self.scenario.peers[node.group].dialable
        };
        let to = self.by_addr.get(&addr).copied().filter(answers);
        let Some(to) = to.filter(|_| self.nodes[by].is_here()) else {
            return self.tell(by, Event::DialFailed { addr, hung_up: false });
        };
        let number = u32::saturating_from(self.connections.len());
        let delay = self.nodes[by].delay + self.nodes[to].delay;
        let side = |world: &mut Self, from: usize, to: usize| {
            let key = world.nodes[from].next_key(number);
            let rate = world.nodes[from].up.rate().min(world.nodes[to].down.rate());
            Side::new(from, key, rate, delay)
        };
        let sides = [side(self, by, to), side(self, to, by)];
        let keys = [sides[0].key, sides[1].key];
        self.connections.push(Some(Box::new(Connection { sides, delay })));
        let port = 50_000 + (keys[0].0 % 15_000) as u16;
        let from = SocketAddr::new(self.nodes[by].addr.ip(), port);
        let (by_id, to_id) = (self.nodes[by].id, self.nodes[to].id);
        let connected = |peer, addr, id, direction| Event::Connected {
            peer,
            addr,
            id,
            direction,
            fast: true,
            extended: true,
        };
        self.tell(by, connected(keys[0], addr, to_id, Direction::Outgoing));
        self.tell(to, connected(keys[1], from, by_id, Direction::Incoming));
    }

    pub(super) fn send(&mut self, at: usize, key: PeerKey, message: Message) {
        self.flush(at, key);
        self.write(at, key, message);
    }

    pub(super) fn send_later(&mut self, at: usize, key: PeerKey, message: Message) {
        if let Some((_, side)) = self.side_of(at, key) {
            side.put_off(message);
        }
    }

    pub(super) fn flush(&mut self, at: usize, key: PeerKey) {
        let Some((_, side)) = self.side_of(at, key) else { return };
        for message in side.take_put_off() {
            self.write(at, key, message);
        }
    }

    pub(super) fn queue_block(&mut self, at: usize, key: PeerKey, block: BlockRef) {
        self.flush(at, key);
        let Some((flow, side)) = self.side_of(at, key) else { return };
        side.outbox.push_back(block);
        self.fill_socket(flow);
    }

    pub(super) fn cancel_block(&mut self, at: usize, key: PeerKey, block: BlockRef) {
        let Some((_, side)) = self.side_of(at, key) else { return };
        if let Some(place) = side.outbox.iter().position(|queued| *queued == block) {
            side.outbox.remove(place);
        }
    }

    pub(super) fn close(&mut self, at: usize, key: PeerKey) {
        let Some((flow, _)) = self.side_of(at, key) else { return };
        self.nodes[at].connections[key.0 as usize] = None;
        let now = self.now;
        let Some(connection) = &mut self.connections[flow.connection as usize] else { return };
        let arrival = now + connection.delay;
        let side = &mut connection.sides[usize::from(flow.side)];
        let before = side.next_arrival();
        side.close(arrival);
        self.await_arrival(flow, before);
    }

    /// Handles that an uplink has sent a block.
    pub(super) fn block_sent(&mut self, at: usize) {
        let Some(flow) = self.nodes[at].sending.take() else { return };
        let now = self.now;
        // The connection may have been closed meanwhile. Then the block is lost.
        if let Some(connection) = self.connections[flow.connection as usize].as_mut()
            && connection.sides[usize::from(flow.side)].is_open
        {
            let receiver = connection.sides[1 - usize::from(flow.side)].node;
            let delay = connection.delay;
            let side = &mut connection.sides[usize::from(flow.side)];
            side.is_in_turn = false;
            if let Some(block) = side.next_block() {
                let bytes = u64::from(block.len);
                let sending = self.nodes[at].up.rate();
                let took = Duration::from_nanos(bytes * 1_000_000_000 / sending);
                let first = (now + delay) - took;
                let arrival = self.nodes[receiver].down.carry(bytes, first, now + delay);
                let before = side.next_arrival();
                let left = side.first_block_left(arrival);
                self.nodes[at].bytes_sent += bytes;
                if let Some((_, BlockContent::Wrong(_))) = left {
                    self.nodes[at].wrong_blocks_sent += 1;
                }
                self.await_arrival(flow, before);
                self.fill_socket(flow);
                self.take_turn(flow);
            }
        }
        self.start_sending(at);
    }

    /// Handles transmissions that arrive from the other side of a connection.
    pub(super) fn arrive(&mut self, flow: Flow) {
        let (number, from) = (flow.connection as usize, usize::from(flow.side));
        loop {
            let now = self.now;
            let Some(connection) = self.connections[number].as_mut() else { return };
            let Some(item) = connection.sides[from].land(now) else { break };
            let other = &mut connection.sides[1 - from];
            let (receiver, key, is_open) = (other.node, other.key, other.is_open);
            match item {
                Transmission::End => {
                    other.is_open = false;
                    // Neither side sends any more.
                    self.connections[number] = None;
                    if is_open {
                        self.nodes[receiver].connections[key.0 as usize] = None;
                        self.tell(receiver, Event::Disconnected { peer: key });
                    }
                    return;
                }
                Transmission::Block(block, mark) => {
                    // There is room in the window again.
                    self.take_turn(flow);
                    if is_open {
                        self.deliver(receiver, key, block, mark);
                    }
                }
                Transmission::Message(message) if is_open => {
                    self.tell(receiver, Event::Message { peer: key, message });
                }
                Transmission::Message(_) => {}
            }
        }
        self.await_arrival(flow, None);
    }

    /// Writes a message to the socket of a connection.
    fn write(&mut self, at: usize, key: PeerKey, message: Message) {
        let Some(number) = self.nodes[at].connection(key) else { return };
        let now = self.now;
        let Some(connection) = self.connections[number as usize].as_mut() else { return };
        let first = &connection.sides[0];
        let from = usize::from((first.node, first.key) != (at, key));
        let receiver = connection.sides[1 - from].node;
        let bytes = bytes_of(&message);
        let arrival = now + connection.delay;
        self.check_request(at, receiver, &message);
        let Some(connection) = self.connections[number as usize].as_mut() else { return };
        let before = connection.sides[from].next_arrival();
        self.nodes[at].up.add_small(bytes);
        self.nodes[receiver].down.add_small(bytes);
        if connection.sides[from].write(message, arrival) {
            self.await_arrival(
                Flow { connection: number, side: u8::saturating_from(from) },
                before,
            );
        }
    }

    /// Returns the side of a connection on which a peer sends.
    fn side_of(&mut self, at: usize, key: PeerKey) -> Option<(Flow, &mut Side)> {
        let connection = self.nodes[at].connection(key)?;
        let sides = &mut self.connections[connection as usize].as_mut()?.sides;
        let side = usize::from((sides[0].node, sides[0].key) != (at, key));
        Some((Flow { connection, side: u8::saturating_from(side) }, &mut sides[side]))
    }

    /// Moves blocks to the socket while it has room, and tells the swarm that they were sent.
    fn fill_socket(&mut self, flow: Flow) {
        let buffer = self.scenario.send_buffer.max(1);
        let Some(connection) = self.connections[flow.connection as usize].as_mut() else { return };
        let side = &mut connection.sides[usize::from(flow.side)];
        let (at, key) = (side.node, side.key);
        let corrupt = self.scenario.peers[self.nodes[at].group].corrupt;
        let (rng, wrong) = (&mut self.nodes[at].rng, &mut self.wrong_blocks);
        let mark = || {
            if corrupt == 0 || rng.below(1_000) >= u64::from(corrupt) {
                return BlockContent::Right;
            }
            *wrong += 1;
            BlockContent::Wrong(*wrong)
        };
        let (blocks, bytes) = side.fill(buffer, mark);
        if blocks > 0 {
            self.to_tell.push_back((at, Event::Uploaded { peer: key, blocks, bytes }));
            self.take_turn(flow);
        }
    }

    /// Queues a connection for its sender's uplink, if it has a block that may be sent.
    fn take_turn(&mut self, flow: Flow) {
        let Some(connection) = self.connections[flow.connection as usize].as_mut() else { return };
        let side = &mut connection.sides[usize::from(flow.side)];
        if side.is_open && !side.is_in_turn && side.next_block().is_some() {
            side.is_in_turn = true;
            let at = side.node;
            self.nodes[at].turns.push_back(flow);
            self.start_sending(at);
        }
    }

    fn start_sending(&mut self, at: usize) {
        while self.nodes[at].sending.is_none() {
            let Some(flow) = self.nodes[at].turns.pop_front() else { return };
            let connection = self.connections[flow.connection as usize].as_mut();
            let Some(connection) = connection else { continue };
            let side = &mut connection.sides[usize::from(flow.side)];
            let Some(block) = side.next_block().filter(|_| side.is_open) else {
                side.is_in_turn = false;
                continue;
            };
            let through = self.nodes[at].up.carry(block.len.into(), self.now, self.now);
            self.nodes[at].sending = Some(flow);
            self.events.push(through, SimEvent::Sent(at));
        }
    }

    /// Schedules the next arrival from this side, unless one is scheduled: `before` is when the first
    /// transmission was due to arrive until now.
    fn await_arrival(&mut self, flow: Flow, before: Option<Moment>) {
        let Some(connection) = self.connections[flow.connection as usize].as_ref() else { return };
        let side = &connection.sides[usize::from(flow.side)];
        if before.is_none()
            && let Some(arrival) = side.next_arrival()
        {
            self.events.push(arrival, SimEvent::Arrives(flow));
        }
    }
}
