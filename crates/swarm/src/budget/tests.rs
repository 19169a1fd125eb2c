use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Moment {
    Moment::from_start(Duration::from_millis(millis))
}

fn came(blocks: u64) -> MemberReport {
    MemberReport { came: blocks, ..MemberReport::default() }
}

#[test]
fn one_that_is_alone_has_everything_from_its_first_block_on() {
    let mut budget = Budget::new(4096);
    let id = budget.join(at(0));
    assert_eq!(budget.share(id), 512);
    assert_eq!(budget.tell(at(20), id, came(1)), 4096);
}

#[test]
fn whoever_only_promises_keeps_nothing_from_others() {
    let mut budget = Budget::new(4096);
    let id = budget.join(at(0));
    budget.tell(at(5), id, came(64));
    let silent: Vec<_> = (0..1_000).map(|_| budget.join(at(6))).collect();
    assert!(budget.tell(at(200), id, came(64)) >= 3_584);
    assert!(silent.iter().all(|silent| budget.share(*silent) == 0));
    // They have room for a piece of which a block arrives, as long as there is any.
    assert!(budget.reserve(silent[0], 64));
    assert!(!budget.reserve(silent[0], 4_000));
}

#[test]
fn memory_follows_those_who_get_something() {
    let mut budget = Budget::new(4096);
    let (fast, slow) = (budget.join(at(0)), budget.join(at(0)));
    for step in 1..=40 {
        budget.tell(
            at(step * 50),
            fast,
            MemberReport { came: 1_000, in_flight: 1_500, is_short: true },
        );
        budget.tell(at(step * 50), slow, MemberReport { came: 1, in_flight: 2, is_short: false });
    }
    // The slow one received 20 blocks within a second.
    assert!((40..=250).contains(&budget.share(slow)), "{}", budget.share(slow));
    assert!(budget.share(fast) >= 3_800, "{}", budget.share(fast));
    // The fast one receives nothing any more.
    for step in 41..=100 {
        budget.tell(at(step * 50), slow, MemberReport { came: 1, in_flight: 2, is_short: false });
    }
    assert!(budget.share(slow) >= 3_584, "{}", budget.share(slow));
    budget.leave(at(5_050), fast);
    assert_eq!(budget.tell(at(5_200), slow, came(1)), 4096);
}

#[test]
fn many_slow_ones_leave_a_fast_one_what_fills_its_line() {
    let mut budget = Budget::new(4096);
    let fast = budget.join(at(0));
    let slow: Vec<_> = (0..200).map(|_| budget.join(at(0))).collect();
    for step in 1..=50 {
        budget.tell(
            at(step * 50),
            fast,
            MemberReport { came: 2_000, in_flight: 2_000, is_short: true },
        );
        for id in &slow {
            budget.tell(
                at(step * 50),
                *id,
                MemberReport { came: 1, in_flight: 2, is_short: false },
            );
        }
    }
    assert!(budget.share(fast) >= 2_000, "{}", budget.share(fast));
}

#[test]
fn debtors_are_named_only_while_somebody_is_refused_and_not_at_once() {
    let mut budget = Budget::new(1024);
    let first = budget.join(at(0));
    budget.tell(at(10), first, came(1_000));
    // A block of each of many pieces, and then nothing.
    while budget.reserve(first, 64) {}
    assert!(budget.take_debtors(at(20)).is_empty());
    let second = budget.join(at(3_000));
    budget.tell(at(3_020), second, came(1));
    assert!(!budget.reserve(second, 64));
    assert!(budget.take_debtors(at(3_020)).is_empty());
    budget.tell(at(4_200), second, came(1));
    assert!(!budget.reserve(second, 64));
    assert_eq!(budget.take_debtors(at(4_200)), [first]);
    let held = budget.used_by(first);
    assert!(budget.release(first, held));
    assert!(budget.reserve(second, 64));
    assert!(budget.take_debtors(at(9_000)).is_empty());
}

#[test]
fn who_lacked_memory_is_named_when_there_is_more() {
    let mut budget = Budget::new(4096);
    let ids: Vec<_> = (0..40).map(|_| budget.join(at(0))).collect();
    let report = MemberReport { came: 100, in_flight: 200, is_short: true };
    for id in &ids {
        budget.tell(at(5), *id, report);
    }
    // It is too soon after they joined for a division among so many.
    assert!(budget.is_stale());
    budget.tell(at(20), ids[0], report);
    assert!(!budget.is_stale());
    let risen = budget.take_risen();
    assert_eq!(risen.len(), 39);
    assert!(!risen.contains(&ids[0]));
    for id in &ids {
        budget.tell(at(25), *id, report);
    }
    for id in &ids[1..] {
        budget.leave(at(25), *id);
    }
    budget.leave(at(50), ids[1]);
    assert_eq!(budget.take_risen(), [ids[0]]);
    assert_eq!(budget.share(ids[0]), 4096);
}

#[derive(Debug, Clone)]
enum Step {
    Join,
    Leave(usize),
    Tell(usize, MemberReport),
    Reserve(usize, u64),
    Hold(usize, u64),
    Release(usize),
    Pass(u64),
    Debtors,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Join),
        1 => (0..20_usize).prop_map(Step::Leave),
        6 => (0..20_usize, 0..5_000_u64, 0..10_000_u64, any::<bool>()).prop_map(
            |(m, came, in_flight, is_short)| Step::Tell(m, MemberReport { came, in_flight, is_short })
        ),
        5 => (0..20_usize, 1..300_u64).prop_map(|(m, n)| Step::Reserve(m, n)),
        1 => (0..20_usize, 1..20_u64).prop_map(|(m, n)| Step::Hold(m, n)),
        4 => (0..20_usize).prop_map(Step::Release),
        4 => (0..3_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Debtors),
    ]
}

proptest! {
    #[test]
    fn shares_and_memory_stay_within_the_whole_whatever_happens(
        total in 1..5_000_u64,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut budget = Budget::new(total);
        // What each member has reserved and held, in order.
        let mut members: BTreeMap<MemberId, Vec<u64>> = BTreeMap::new();
        let mut held = 0;
        let mut now = 0;
        let nth = |members: &BTreeMap<MemberId, Vec<u64>>, n: usize| {
            members.keys().copied().nth(n % members.len().max(1))
        };
        for step in steps {
            match step {
                Step::Join => {
                    if members.len() < 20 {
                        members.insert(budget.join(at(now)), Vec::new());
                    }
                }
                Step::Leave(n) => {
                    if let Some(id) = nth(&members, n) {
                        members.remove(&id);
                        budget.leave(at(now), id);
                        // What was held beyond the total may be gone.
                        held = held.min(budget.used());
                    }
                }
                Step::Tell(n, report) => {
                    if let Some(id) = nth(&members, n) {
                        let share = budget.tell(at(now), id, report);
                        prop_assert_eq!(share, budget.share(id));
                    }
                }
                Step::Reserve(n, blocks) => {
                    if let Some(id) = nth(&members, n) {
                        let before = (budget.used(), budget.used_by(id));
                        let taken = budget.reserve(id, blocks);
                        if taken {
                            members.get_mut(&id).unwrap().push(blocks);
                            prop_assert!(budget.used() <= total);
                        } else {
                            prop_assert_eq!(before, (budget.used(), budget.used_by(id)));
                            // No download is refused its first piece, or what is in its share, while there
                            // is room.
                            let due = before.1 == 0 || before.1 + blocks <= budget.share(id);
                            prop_assert!(!due || before.0 + blocks > total);
                        }
                    }
                }
                Step::Hold(n, blocks) => {
                    if let Some(id) = nth(&members, n) {
                        members.get_mut(&id).unwrap().push(blocks);
                        let fits = budget.hold(id, blocks);
                        held += blocks;
                        prop_assert_eq!(fits, budget.used() <= total);
                    }
                }
                Step::Release(n) => {
                    if let Some(id) = nth(&members, n)
                        && let Some(blocks) = members.get_mut(&id).unwrap().pop()
                    {
                        budget.release(id, blocks);
                    }
                }
                Step::Pass(millis) => now += millis,
                Step::Debtors => {
                    for id in budget.take_debtors(at(now)) {
                        prop_assert!(budget.used_by(id) > budget.share(id));
                    }
                }
            }
            let shares: u64 = members.keys().map(|id| budget.share(*id)).sum();
            prop_assert!(shares <= total, "{} of {}", shares, total);
            for (id, has) in &members {
                prop_assert_eq!(budget.used_by(*id), has.iter().sum::<u64>());
            }
            let all: u64 = members.values().flatten().sum();
            prop_assert_eq!(budget.used(), all);
            prop_assert!(all <= total + held);
            prop_assert_eq!(budget.len(), members.len());
        }
    }

    #[test]
    fn nobody_who_gets_something_has_less_than_an_equal_part_unless_he_wants_less(
        wants in proptest::collection::vec((1..4_000_u64, 0..4_000_u64), 1..50),
        silent in 0..50_usize,
    ) {
        let total = 4_096;
        let mut budget = Budget::new(total);
        for _ in 0..silent {
            budget.join(at(0));
        }
        let ids: Vec<_> = wants.iter().map(|_| budget.join(at(0))).collect();
        for time in [20, 200] {
            for (id, (came, in_flight)) in ids.iter().zip(&wants) {
                budget.tell(at(time), *id, MemberReport { came: *came, in_flight: *in_flight, is_short: true });
            }
        }
        budget.tell(at(400), ids[0], MemberReport { came: 0, in_flight: wants[0].1, is_short: true });
        let rest = if silent > 0 { total - total / TRIAL_PART } else { total };
        let lines: u64 = wants.iter().map(|(came, line)| (*line).min(came * 4 + 64)).sum();
        for (id, (came, in_flight)) in ids.iter().zip(&wants) {
            let equal = rest / wants.len() as u64;
            let line = (*in_flight).min(came * 4 + 64);
            let share = budget.share(*id);
            if lines <= rest {
                prop_assert!(share >= line, "{share} does not fill a line of {line}");
            }
            prop_assert!(share >= line.min(equal), "{share} of {equal}");
        }
        // Nothing is left unused.
        let shares: u64 = ids.iter().map(|id| budget.share(*id)).sum();
        prop_assert!(shares + 50 >= rest, "{shares} of {rest}");
    }
}
