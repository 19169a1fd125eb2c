use super::*;

fn at(micros: u64) -> Moment {
    Moment::START + Duration::from_micros(micros)
}

const TIMEOUT: Duration = Duration::from_secs(20);

/// A moment at which blocks have been arriving all the time.
fn clock(now: Moment) -> Clock {
    Clock { now, flow: now.since_start() }
}

fn seconds(seconds: u64) -> Clock {
    clock(at(seconds * 1_000_000))
}

fn push(pipeline: &mut Pipeline, clock: Clock, index: u32) {
    pipeline.push(clock, PieceIndex(0), index, TIMEOUT);
}

fn deliver(pipeline: &mut Pipeline, clock: Clock, index: u32) -> Option<Delivery> {
    pipeline.deliver(clock, PieceIndex(0), index, BLOCK_LEN)
}

fn check(pipeline: &mut Pipeline, clock: Clock) -> Lateness {
    pipeline.check(clock, Limits { timeout: TIMEOUT, extra: Duration::ZERO, hurry: false })
}

/// Runs a peer that answers after `rtt` µs and sends a block every `gap` µs, for `blocks` blocks.
fn run(ceiling: usize, rtt: u64, gap: u64, blocks: u32) -> (Pipeline, u64) {
    let mut pipeline = Pipeline::new(at(0), ceiling);
    let (mut now, mut next, mut line_free) = (0, 0, 0);
    let mut arrivals = VecDeque::new();
    for _ in 0..blocks {
        for _ in 0..pipeline.room(at(now)) {
            push(&mut pipeline, clock(at(now)), next);
            line_free = (now + rtt).max(line_free + gap);
            arrivals.push_back((line_free, next));
            next += 1;
        }
        let (arrives, index) = arrivals.pop_front().unwrap();
        now = arrives;
        assert!(deliver(&mut pipeline, clock(at(now)), index).is_some());
    }
    (pipeline, now)
}

#[test]
fn window_reaches_hundreds_of_blocks_within_milliseconds_on_loopback() {
    // 16 KiB every 16 µs is 1 GB/s.
    let (pipeline, now) = run(500, 100, 16, 600);
    assert!(pipeline.window() >= 400, "{}", pipeline.window());
    assert!(now < 15_000, "{now} µs");
    let (pipeline, _) = run(500, 100, 16, 20_000);
    assert_eq!(pipeline.window(), 500);
}

#[test]
fn window_stays_small_on_a_slow_line() {
    // 160 KB/s, 50 ms away: 10 blocks a second.
    let (pipeline, _) = run(500, 50_000, 100_000, 300);
    assert!(pipeline.window() <= 16, "{}", pipeline.window());
}

#[test]
fn window_fills_a_long_fat_line() {
    // 100 MB/s, 200 ms away: 6,100 blocks a second, 1,220 of them under way.
    let (pipeline, _) = run(4_000, 200_000, 164, 60_000);
    assert!(pipeline.window() >= 1_300, "{}", pipeline.window());
}

#[test]
fn pace_tells_a_slow_peer_from_a_window_that_is_too_small() {
    // As above, but the peer takes 250 requests at a time: a fifth of what the line holds.
    assert_eq!(run(250, 200_000, 164, 20_000).0.pace().0, Pace::Window);
    assert_eq!(run(4_000, 200_000, 164, 60_000).0.pace().0, Pace::Peer);
    assert_eq!(run(500, 50_000, 100_000, 300).0.pace().0, Pace::Peer);
    // 1 GB/s over a short distance fills the largest window, but it is the peer that gives no more.
    let (pipeline, _) = run(500, 100, 16, 20_000);
    assert_eq!((pipeline.window(), pipeline.pace().0), (500, Pace::Peer));
    assert_eq!(run(500, 100_000, 16, 30).0.pace().0, Pace::Growing);
    assert_eq!(Pipeline::new(at(0), 100).pace(), (Pace::Peer, 0));
}

#[test]
fn requests_go_out_in_runs() {
    let mut pipeline = Pipeline::new(at(0), 100);
    pipeline.window = 100;
    assert_eq!(pipeline.room(at(0)), 100);
    (0..76).for_each(|index| push(&mut pipeline, seconds(0), index));
    assert_eq!(pipeline.room(at(0)), 0);
    assert!(pipeline.take(seconds(0), PieceIndex(0), 0).is_some());
    assert_eq!(pipeline.room(at(0)), 25);
}

#[test]
fn silence_snubs_and_a_block_forgives() {
    let mut pipeline = Pipeline::new(at(0), 100);
    assert_eq!((pipeline.deadline(), pipeline.trust()), (None, Trust::Untested));
    (0..4).for_each(|index| push(&mut pipeline, seconds(5), index));
    assert_eq!(pipeline.deadline(), Some(seconds(8).now));
    assert_eq!(pipeline.trust(), Trust::Unproven);
    assert_eq!(check(&mut pipeline, seconds(7)), Lateness::Nothing);
    assert_eq!(check(&mut pipeline, seconds(8)), Lateness::Peer);
    pipeline.snub();
    assert_eq!((pipeline.trust(), pipeline.window(), pipeline.owed()), (Trust::Snubbed, 1, 4));
    assert!(pipeline.iter().all(|owed| owed.is_late));
    assert_eq!(check(&mut pipeline, seconds(44)), Lateness::Still);
    assert_eq!(check(&mut pipeline, seconds(45)), Lateness::Long);
    assert!(deliver(&mut pipeline, seconds(46), 0).is_some_and(|block| block.was_snubbed));
    assert!(pipeline.iter().all(|owed| !owed.is_late));
    assert_eq!((pipeline.trust(), pipeline.room(seconds(46).now)), (Trust::Proven, 0));
    assert_eq!(check(&mut pipeline, seconds(47)), Lateness::Nothing);
}

#[test]
fn a_slow_peer_that_answers_in_turn_is_not_late() {
    let mut pipeline = Pipeline::new(at(0), 100);
    (0..4).for_each(|index| push(&mut pipeline, seconds(0), index));
    for index in 0..4 {
        let now = u64::from(index + 1) * 15;
        // The first one is late while others give blocks, because nothing is known about the peer yet.
        let expected = if index == 0 { Lateness::Peer } else { Lateness::Nothing };
        assert_eq!(check(&mut pipeline, seconds(now - 1)), expected, "block {index}");
        assert!(deliver(&mut pipeline, seconds(now), index).is_some());
    }
}

#[test]
fn all_requests_that_are_left_out_are_late_after_the_same_time() {
    let mut pipeline = Pipeline::new(at(0), 100);
    (0..12).for_each(|index| push(&mut pipeline, seconds(0), index));
    for index in (0..12).filter(|index| index % 4 != 1) {
        assert!(deliver(&mut pipeline, seconds(1), index).is_some());
    }
    assert_eq!(check(&mut pipeline, seconds(3)), Lateness::Nothing);
    let mut late = Vec::new();
    while let Lateness::Request(PendingRequest { piece, index, .. }) =
        check(&mut pipeline, seconds(5))
    {
        pipeline.set_late(seconds(5), piece, index);
        late.push(index);
    }
    assert_eq!(late, [1, 5, 9]);
    assert_eq!(check(&mut pipeline, seconds(8)), Lateness::Nothing);
}

#[test]
fn who_leaves_out_a_request_is_late_with_that_one_alone() {
    let mut pipeline = Pipeline::new(at(0), 100);
    (0..4).for_each(|index| push(&mut pipeline, seconds(0), index));
    for (now, index) in [(1, 1), (2, 3)] {
        assert!(deliver(&mut pipeline, seconds(now), index).is_some());
    }
    assert_eq!(check(&mut pipeline, seconds(2)), Lateness::Nothing);
    let Lateness::Request(PendingRequest { piece, index, .. }) = check(&mut pipeline, seconds(3))
    else {
        panic!()
    };
    assert_eq!(index, 0);
    pipeline.set_late(seconds(3), piece, index);
    assert_eq!(pipeline.trust(), Trust::Late);
    // The next one was overtaken a second later.
    assert_eq!(check(&mut pipeline, seconds(4)), Lateness::Nothing);
    assert!(deliver(&mut pipeline, seconds(4), 2).is_some());
    push(&mut pipeline, seconds(38), 9);
    assert_eq!(check(&mut pipeline, seconds(39)), Lateness::Nothing);
    assert!(matches!(check(&mut pipeline, seconds(40)), Lateness::Lost(owed) if owed.index == 0));
}

#[test]
fn nobody_is_late_soon_while_no_blocks_come_at_all() {
    let mut pipeline = Pipeline::new(at(0), 100);
    push(&mut pipeline, seconds(0), 0);
    let still = |seconds: u64| Clock { now: at(seconds * 1_000_000), flow: Duration::ZERO };
    assert_eq!(check(&mut pipeline, still(19)), Lateness::Nothing);
    assert_eq!(check(&mut pipeline, still(20)), Lateness::Peer);
}

#[test]
fn what_is_owed_before_a_choke_counts() {
    let mut pipeline = Pipeline::new(at(0), 100);
    for second in 0..3 {
        push(&mut pipeline, seconds(10 * second), 0);
        assert!(pipeline.lapse_last(seconds(10 * second + 1)).is_some());
    }
    push(&mut pipeline, seconds(30), 0);
    assert_eq!(check(&mut pipeline, seconds(30)), Lateness::Peer);
}

#[test]
fn given_up_blocks_may_still_come() {
    let mut pipeline = Pipeline::new(at(0), 100);
    push(&mut pipeline, seconds(0), 1);
    assert!(pipeline.lapse(seconds(0), PieceIndex(0), 1));
    assert!(deliver(&mut pipeline, seconds(1), 1).is_some());
    assert!(deliver(&mut pipeline, seconds(1), 1).is_none());
}

#[test]
fn a_peer_of_seconds_for_a_block_is_asked_for_two_at_a_time() {
    // 1 kB/s, 50 ms away.
    let (pipeline, _) = run(500, 50_000, 16_000_000, 20);
    assert_eq!(pipeline.window(), 2);
}

#[test]
fn refusals_are_answered_with_longer_and_longer_pauses() {
    let mut pipeline = Pipeline::new(at(0), 100);
    let pause = |pipeline: &mut Pipeline, now: Moment| {
        pipeline.refused(now, false);
        assert_eq!(pipeline.room(now), 0);
        assert!(!pipeline.end_hold(now));
        let until = pipeline.deadline().unwrap();
        // Whatever else it rejects in that time counts as the same.
        (0..100).for_each(|_| pipeline.refused(now, false));
        assert_eq!(pipeline.deadline(), Some(until));
        assert!(pipeline.end_hold(until) && pipeline.room(until) > 0);
        until
    };
    let mut now = at(0);
    for millis in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000] {
        let is_known = millis > 500;
        let until = pause(&mut pipeline, now);
        assert_eq!(until.since(now), Duration::from_millis(millis));
        assert_eq!(pipeline.refuses_since(), is_known.then_some(at(0)));
        now = until;
    }
    push(&mut pipeline, clock(now), 1);
    pipeline.deliver(clock(now), PieceIndex(0), 1, BLOCK_LEN).unwrap();
    assert_eq!(pipeline.refuses_since(), None);
    assert_eq!(pause(&mut pipeline, now).since(now), Duration::from_millis(250));
}
