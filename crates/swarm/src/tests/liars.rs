//! Tests with peers that claim to hold everything and do not give what they are asked for, beside one that
//! does, in the network of virtual time. A download takes at most one and a half times as long as without
//! them, plus five seconds.

use super::network::{NetworkEvent, Plan, Setup, World};
use super::*;

/// What a liar does with the requests it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Nothing.
    Silent,
    /// It never unchokes.
    Chokes,
    /// It answers one request every so many milliseconds.
    Trickle(u64),
    /// It answers so many quickly, then none.
    Stops(u32),
    /// It chokes and unchokes every so many milliseconds, and answers none.
    Flaps(u64),
    /// It rejects all at once.
    Rejects,
    /// It answers quickly, but so many blocks in a hundred are wrong.
    Poisons(u64),
    /// It answers quickly, but never every fourth block.
    Withholds,
    /// It answers so many quickly, and then leaves and returns at once under another name.
    Returns(u32),
}

#[derive(Debug)]
pub(super) struct Liar {
    lie: Lie,
    lines: BTreeMap<PeerKey, Line>,
}

#[derive(Debug, Default)]
struct Line {
    queue: Vec<BlockRef>,
    given: u32,
    chokes: bool,
}

impl Liar {
    pub(super) fn new(lie: Lie) -> Self {
        Self { lie, lines: BTreeMap::new() }
    }

    /// Returns the time between two turns of its own. `None` if it has none.
    fn pause(&self) -> Option<Duration> {
        match self.lie {
            Lie::Silent | Lie::Chokes | Lie::Rejects => None,
            Lie::Trickle(millis) | Lie::Flaps(millis) => Some(Duration::from_millis(millis)),
            Lie::Stops(_) | Lie::Poisons(_) | Lie::Withholds | Lie::Returns(_) => {
                Some(Duration::from_millis(5))
            }
        }
    }
}

impl World {
    /// Handles an event of a liar.
    pub(super) fn lie(&mut self, at: usize, event: Event) {
        let fast = self.nodes[at].fast;
        let Some(liar) = &mut self.nodes[at].liar else { return };
        let lie = liar.lie;
        match event {
            // They are the first to come.
            Event::Candidates { .. } => self.visit(at),
            Event::Connected { peer, .. } => {
                liar.lines.insert(peer, Line::default());
                let pause = liar.pause();
                self.say(at, peer, Message::Bitfield(self.everything()));
                if lie != Lie::Chokes {
                    self.say(at, peer, Message::Unchoke);
                }
                if let Some(pause) = pause {
                    self.schedule(self.now + pause, at, NetworkEvent::Lie { key: peer });
                }
            }
            Event::Disconnected { peer } => {
                liar.lines.remove(&peer);
                if liar.lines.is_empty() {
                    self.visit(at);
                }
            }
            Event::Message { peer, message: Message::Request(block) } => {
                let Some(line) = liar.lines.get_mut(&peer) else { return };
                match lie {
                    Lie::Rejects if fast => {
                        self.say(at, peer, Message::Reject(block));
                    }
                    _ => line.queue.push(block),
                }
            }
            Event::Message { peer, message: Message::Cancel(block) } => {
                let Some(line) = liar.lines.get_mut(&peer) else { return };
                line.queue.retain(|queued| *queued != block);
            }
            _ => {}
        }
    }

    /// Takes a liar's own turn.
    pub(super) fn go_on_lying(&mut self, at: usize, key: PeerKey) {
        let draw = self.rng.below(100);
        let Some(liar) = &mut self.nodes[at].liar else { return };
        let (lie, pause) = (liar.lie, liar.pause());
        let Some(line) = liar.lines.get_mut(&key) else { return };
        let block = match lie {
            Lie::Silent | Lie::Chokes | Lie::Rejects => None,
            Lie::Flaps(_) => {
                line.chokes = !line.chokes;
                line.queue.clear();
                let message = if line.chokes { Message::Choke } else { Message::Unchoke };
                self.say(at, key, message);
                None
            }
            Lie::Stops(most) | Lie::Returns(most) if line.given >= most => {
                if matches!(lie, Lie::Returns(_)) {
                    self.nodes[at].liar = Some(Liar::new(lie));
                    self.nodes[at].id = PeerId(std::array::from_fn(|_| self.rng.below(256) as u8));
                    self.close(at, key);
                    return self.visit(at);
                }
                None
            }
            Lie::Withholds => {
                let may = |block: &BlockRef| block.begin / BLOCK_LEN % 4 != 3;
                line.queue.iter().position(may).map(|place| line.queue.remove(place))
            }
            Lie::Trickle(_) | Lie::Stops(_) | Lie::Poisons(_) | Lie::Returns(_) => {
                (!line.queue.is_empty()).then(|| line.queue.remove(0))
            }
        };
        if let Some(block) = block {
            if let Some(line) = self.nodes[at].liar.as_mut().and_then(|l| l.lines.get_mut(&key)) {
                line.given += 1;
            }
            let right = !matches!(lie, Lie::Poisons(wrong) if draw < wrong);
            self.nodes[at].sent += 1;
            self.transmit(at, key, |key| NetworkEvent::Data { key, block, right });
        }
        if let Some(pause) = pause {
            self.schedule(self.now + pause, at, NetworkEvent::Lie { key });
        }
    }

    fn say(&mut self, at: usize, key: PeerKey, message: Message) {
        self.transmit(at, key, |key| NetworkEvent::Arrives {
            key,
            event: Event::Message { peer: key, message },
        });
    }

    /// Dials the leecher, as long as there is one.
    fn visit(&mut self, at: usize) {
        let Some(leecher) = self.nodes.iter().position(|node| !node.swarm.is_complete()) else {
            return;
        };
        let addr = self.nodes[leecher].addr;
        let later = self.now + Duration::from_millis(1 + self.rng.below(20));
        self.schedule(later, leecher, NetworkEvent::Dialled { by: at, addr });
    }

    fn everything(&self) -> Bytes {
        Bytes::copy_from_slice(self.nodes[0].swarm.have().as_wire())
    }
}

/// 4 MiB a second.
const BLOCK_TIME: Duration = Duration::from_micros(3_906);

fn setup(liars: Vec<Lie>) -> Setup {
    let everybody_fast = liars.contains(&Lie::Rejects);
    Setup {
        leechers: 1,
        pieces: 64,
        blocks: 16,
        announce_within: 100,
        everybody_fast,
        liars,
        ..Setup::default()
    }
}

/// Returns how long the download takes, and the world afterwards.
fn download(seed: u64, setup: &Setup) -> (Duration, World) {
    let mut world = World::new(seed, setup);
    for node in &mut world.nodes {
        node.block_time = BLOCK_TIME;
    }
    let start = world.now;
    let whole = world.run(Duration::from_secs(600));
    let (have, peers) = (world.nodes[1].swarm.have().count(), world.nodes[1].swarm.peers().count());
    let time = world.now.since(start);
    assert!(whole, "seed {seed}, {:?}: {have} pieces, {peers} peers", setup.liars.first());
    (time, world)
}

/// Compares the time with liars with the time without.
fn bounded(seed: u64, setup: &mut Setup) -> (Duration, Duration, World) {
    let liars = std::mem::take(&mut setup.liars);
    let (alone, _) = download(seed, setup);
    setup.liars = liars;
    let (time, world) = download(seed, setup);
    let (lie, count) = (setup.liars[0], setup.liars.len());
    println!("{count} × {lie:?}: {time:.1?} instead of {alone:.1?}, {} events", world.events);
    let bound = alone * 3 / 2 + Duration::from_secs(5);
    assert!(time <= bound, "seed {seed}, {count} × {lie:?}: {time:?} instead of {alone:?}");
    (alone, time, world)
}

/// The maximum number of connections of a download.
const BOUND: usize = 80;

fn any_number_of(lie: Lie) {
    for (seed, count) in [(0, 3), (1, 6), (2, 40), (3, BOUND - 1), (4, BOUND)] {
        bounded(seed, &mut setup(vec![lie; count]));
    }
}

#[test]
fn line_11_peers_that_send_nothing() {
    any_number_of(Lie::Silent);
}

#[test]
fn line_11_peers_that_never_unchoke() {
    any_number_of(Lie::Chokes);
}

#[test]
fn line_11_peers_that_trickle() {
    for millis in [2_900, 19_000] {
        any_number_of(Lie::Trickle(millis));
    }
}

#[test]
fn line_11_peers_that_begin_honest_and_stop() {
    for blocks in [1, 20] {
        any_number_of(Lie::Stops(blocks));
    }
}

#[test]
fn line_11_peers_that_choke_and_unchoke_fast() {
    for millis in [20, 700] {
        any_number_of(Lie::Flaps(millis));
    }
}

#[test]
fn line_17_peers_that_reject_everything() {
    any_number_of(Lie::Rejects);
}

#[test]
fn line_11_peers_that_withhold_some_blocks() {
    any_number_of(Lie::Withholds);
    bounded(10, &mut setup(vec![Lie::Withholds; 40]));
}

#[test]
fn line_11_peers_that_come_back_under_other_names() {
    any_number_of(Lie::Returns(1));
}

/// Poisoners with as many peers that delay.
fn poisoned(delay: Lie) {
    for (seed, count) in [(0, 3), (1, 20), (2, 20), (3, BOUND / 2)] {
        let mut liars = vec![delay; count];
        liars.extend(vec![Lie::Poisons(5); count]);
        let (.., world) = bounded(seed, &mut setup(liars));
        let leecher = &world.nodes[1];
        assert!(leecher.banned.is_subset(&leecher.guilty), "an honest peer was banned");
    }
}

#[test]
fn line_11_peers_that_poison_what_others_delay() {
    for delay in [Lie::Silent, Lie::Trickle(2_900)] {
        poisoned(delay);
    }
}

#[test]
fn line_11_peers_that_poison_what_others_begin_and_do_not_end() {
    for delay in [Lie::Stops(4), Lie::Stops(20)] {
        poisoned(delay);
    }
}

/// Those that stop have given right pieces alone by then. The honest seed has not, because its pieces were
/// poisoned.
#[test]
fn line_11_peers_that_poison_while_others_give_some_pieces_and_stop() {
    let crowds: [&[(Lie, usize)]; 4] = [
        &[(Lie::Stops(40), 8), (Lie::Poisons(100), 5)],
        &[(Lie::Stops(40), 20), (Lie::Poisons(20), 10)],
        &[(Lie::Stops(100), 20), (Lie::Poisons(100), 10)],
        &[(Lie::Trickle(2_900), 20), (Lie::Poisons(100), 10), (Lie::Stops(20), 10)],
    ];
    for crowd in crowds {
        for seed in 0..4 {
            let mut liars: Vec<Lie> =
                crowd.iter().flat_map(|(lie, count)| std::iter::repeat_n(*lie, *count)).collect();
            Rng::from_seed(seed).shuffle(&mut liars);
            bounded(seed, &mut setup(liars));
        }
    }
}

#[test]
fn line_11_peers_that_poison_what_others_withhold_in_part() {
    poisoned(Lie::Withholds);
}

/// Runs a seed that takes this long for a block, and leechers that take 4 ms, with a torrent of `pieces`
/// pieces of four blocks. Returns the time, and the numbers of blocks and requests that the seed sent and
/// received.
fn slow_seed(
    number: u64,
    block_time: Duration,
    leechers: usize,
    pieces: u32,
    choke: ChokePolicy,
) -> (Duration, u64, u64) {
    let plan = Plan::default();
    let setup = Setup {
        leechers,
        pieces,
        blocks: 4,
        choke,
        plan,
        everybody_fast: leechers > 1,
        ..setup(Vec::new())
    };
    let mut world = World::new(number, &setup);
    for node in &mut world.nodes {
        node.block_time = BLOCK_TIME;
    }
    world.nodes[0].block_time = block_time;
    let start = world.now;
    assert!(world.run(Duration::from_secs(3_600)));
    let (time, seed) = (world.now.since(start), &world.nodes[0]);
    println!(
        "{choke:?}, {leechers} leechers: {time:.1?}, {} sent, {} asked",
        seed.sent, seed.asked
    );
    (time, seed.sent, seed.asked)
}

#[test]
fn line_16_a_seed_of_a_block_each_30_seconds_is_asked_once_for_each() {
    let (time, sent, asked) = slow_seed(1, Duration::from_secs(30), 1, 3, ChokePolicy::TitForTat);
    assert_eq!((sent, asked), (12, 12));
    assert!(time <= Duration::from_secs(12 * 30 + 2), "{time:?}");
}

#[test]
fn line_16_a_seed_of_10_kb_a_second_sends_little_twice_to_12_leechers() {
    for choke in [ChokePolicy::TitForTat, ChokePolicy::Closed] {
        for seed in 0..8 {
            let time_of_block = Duration::from_micros(1_638_400);
            let (time, sent, asked) = slow_seed(seed, time_of_block, 12, 8, choke);
            assert!(time <= Duration::from_secs(79), "seed {seed}: {time:?}");
            assert!(sent <= 40 && asked <= 400, "seed {seed}: {sent} sent, {asked} asked");
        }
    }
}
