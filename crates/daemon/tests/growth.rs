//! What a daemon spends as its torrents grow in number: ten times the torrents cost eleven times as
//! much at most. Counted in allocations and their bytes, since times depend on the machine.

use std::sync::OnceLock;

use piecework_testkit::allocations::CountingAllocator;
use piecework_testkit::library::{Cost, LibraryKind, LifeCosts, MORE, live_with};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const FEW: usize = 100;
const MANY: usize = 10 * FEW;

/// What few torrents of each kind cost, and what many cost. All tests share it, since everything in
/// the process is counted.
fn lives() -> &'static [(LibraryKind, LifeCosts, LifeCosts)] {
    static LIVES: OnceLock<Vec<(LibraryKind, LifeCosts, LifeCosts)>> = OnceLock::new();
    LIVES.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let both = |kind| {
            runtime.block_on(async { (live_with(kind, FEW).await, live_with(kind, MANY).await) })
        };
        LibraryKind::ALL
            .map(|kind| (kind, both(kind)))
            .map(|(kind, (few, many))| (kind, few, many))
            .to_vec()
    })
}

/// Fails unless a part of the life of many costs at most eleven times that of few, in allocations
/// and in their bytes.
fn eleven_times_at_most(what: &str, part: impl Fn(&LifeCosts) -> Cost) {
    for (kind, few, many) in lives() {
        let (few, many) = (part(few), part(many));
        println!("{what}, {kind:?}: {few:?}, then {many:?}");
        assert!(
            few.calls > 0 && many.calls <= few.calls * 11,
            "{what}, {kind:?}: {few:?}, {many:?}"
        );
        assert!(many.bytes <= few.bytes * 11, "{what}, {kind:?}: {few:?}, {many:?}");
    }
}

#[test]
fn adding_ten_times_the_torrents_costs_eleven_times_as_much_at_most() {
    eleven_times_at_most("adding", |life| life.adding);
    for (kind, _, many) in lives() {
        // What each keeps, and the connections to a tracker.
        assert!(many.adding.kept <= MANY * 4096 + (1 << 20), "{kind:?}: {many:?}");
    }
}

#[test]
fn adding_one_more_costs_the_same_beside_ten_times_the_torrents() {
    for (kind, few, many) in lives() {
        let (few, many) = (few.more, many.more);
        println!("one more, {kind:?}: {few:?}, then {many:?}");
        assert!(many.calls <= few.calls * 3 / 2, "{kind:?}: {few:?}, {many:?}");
        assert!(many.bytes <= few.bytes * 3 / 2, "{kind:?}: {few:?}, {many:?}");
        // What reads and hashes the content takes no more than the content.
        assert!(many.bytes <= MORE * (256 << 10), "{kind:?}: {many:?}");
    }
}

#[test]
fn starting_with_ten_times_the_torrents_costs_eleven_times_as_much_at_most() {
    eleven_times_at_most("starting", |life| life.starting);
}

#[test]
fn starting_takes_little_more_memory_at_a_time_than_what_stays() {
    for (kind, _, many) in lives() {
        let Cost { kept, peak, .. } = many.starting;
        println!("starting, {kind:?}: {kept} bytes stay, {peak} at a time");
        // What is kept of each as text, on its way out of the state, and what begins at a time.
        assert!(peak <= kept + 2048 * MANY + (4 << 20), "{kind:?}: {:?}", many.starting);
    }
}

#[test]
fn idle_torrents_cost_nothing_however_many_there_are() {
    for (kind, _, many) in lives() {
        println!("idle, {kind:?}: {many:?}", many = many.idle);
        // The journal's thread and the session's look for addresses.
        assert!(many.idle.calls <= 500, "{kind:?}: {:?}", many.idle);
        assert!(many.idle.bytes <= 100 * MANY, "{kind:?}: {:?}", many.idle);
    }
}

#[test]
fn the_status_of_ten_times_the_torrents_costs_eleven_times_as_much_at_most() {
    eleven_times_at_most("status", |life| life.status);
    eleven_times_at_most("all fields", |life| life.fields);
    for (kind, few, many) in lives() {
        // Nothing has changed; and fifty torrents are shown.
        for (what, few, many) in [("since", few.since, many.since), ("page", few.page, many.page)] {
            println!("{what}, {kind:?}: {few:?}, then {many:?}");
            assert!(many.calls <= few.calls * 2, "{what}, {kind:?}: {few:?}, {many:?}");
            assert!(many.bytes <= few.bytes * 2, "{what}, {kind:?}: {few:?}, {many:?}");
        }
    }
}

#[test]
fn stopping_ten_times_the_torrents_costs_eleven_times_as_much_at_most() {
    eleven_times_at_most("stopping", |life| life.stopping);
}
