//! The text of schedules: pinned, read back, and never a panic.

use proptest::prelude::*;
use selvedge_coll::{
    Action, Algorithm, Collective, ParseError, Rank, Schedule, Shape, Side, Slice, Space, generate_all,
};

fn text(algorithm: &str, shape: Shape) -> String {
    let algorithm: Algorithm = algorithm.parse().expect("a name");
    let all = generate_all(algorithm, &shape);
    (0..).zip(all).map(|(rank, schedule)| format!("// rank {rank}\n{schedule}")).collect()
}

fn doubles(collective: Collective, ranks: u32, count: u64) -> Shape {
    Shape { collective, ranks, count, element_bytes: 8, commutative: true }
}

#[test]
fn an_allreduce_of_two_ranks_is_send_receive_reduce() {
    let golden = "\
// rank 0
scratch 0
0: send in[0..8] -> 1 #2
1: recv out[0..8] <- 1 #2
2: reduce in[0..8] left of out[0..8] after 1
// rank 1
scratch 0
0: send in[0..8] -> 0 #2
1: recv out[0..8] <- 0 #2
2: reduce in[0..8] right of out[0..8] after 1
";
    assert_eq!(text("allreduce/doubling", doubles(Collective::Allreduce, 2, 1)), golden);
}

#[test]
fn a_barrier_of_two_ranks_is_one_send_and_one_receive() {
    let golden = "\
// rank 0
scratch 0
0: send scratch[0..0] -> 1 #0
1: recv scratch[0..0] <- 1 #0
// rank 1
scratch 0
0: send scratch[0..0] -> 0 #0
1: recv scratch[0..0] <- 0 #0
";
    assert_eq!(text("barrier/dissemination", doubles(Collective::Barrier, 2, 0)), golden);
}

#[test]
fn a_leaf_of_an_allreduce_tree_only_sends_and_receives() {
    let golden = "\
// rank 0
scratch 8
0: recv out[0..8] <- 1 #0
1: reduce in[0..8] left of out[0..8] after 0
2: recv scratch[0..8] <- 2 #0
3: reduce scratch[0..8] right of out[0..8] after 1 2
4: send out[0..8] -> 2 #1 after 3
5: send out[0..8] -> 1 #1 after 3
// rank 1
scratch 0
0: send in[0..8] -> 0 #0
1: recv out[0..8] <- 0 #1
// rank 2
scratch 0
0: send in[0..8] -> 0 #0
1: recv out[0..8] <- 0 #1
";
    assert_eq!(text("allreduce/flat", doubles(Collective::Allreduce, 3, 1)), golden);
}

#[test]
fn a_ring_allreduce_needs_no_scratch_and_no_copy() {
    let golden = "\
// rank 0
scratch 0
0: send in[0..8] -> 1 #0
1: recv out[16..24] <- 2 #0
2: reduce in[16..24] right of out[16..24] after 1
3: send out[16..24] -> 1 #1 after 2
4: recv out[8..16] <- 2 #1
5: reduce in[8..16] right of out[8..16] after 4
6: send out[8..16] -> 1 #2 after 5
7: recv out[0..8] <- 2 #2
8: send out[0..8] -> 1 #3 after 7
9: recv out[16..24] <- 2 #3 after 3
";
    let all = text("allreduce/ring", doubles(Collective::Allreduce, 3, 3));
    assert_eq!(all.split("// rank 1").next(), Some(golden));
}

#[test]
fn every_generated_schedule_is_read_back_as_it_was() {
    for collective in Collective::all(Rank(2)) {
        for ranks in [3, 8, 13] {
            let count = if collective == Collective::Barrier { 0 } else { 29 };
            let shape = doubles(collective, ranks, count);
            let known = Algorithm::all_for(collective).iter().filter(|algorithm| algorithm.applies(&shape));
            for schedule in known.flat_map(|&algorithm| generate_all(algorithm, &shape)) {
                assert_eq!(schedule.to_string().parse(), Ok(schedule));
            }
        }
    }
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    let error = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
    assert_eq!(error(""), "line 1: expected `scratch` and a number of bytes, found \"\"");
    assert_eq!(error("// mine\nscratch 8\n0: send in[0..8] > 1 #0"), "line 3: expected `->`, found \">\"");
    assert_eq!(error("scratch 0\n1: copy in[0..1] -> out[0..1]"), "line 2: this should be step 0");
    assert_eq!(
        error("scratch 0\n0: copy in[0..1] -> out[0..1] after 0"),
        "line 2: runs after step 0, which is not an earlier one"
    );
    assert_eq!(
        error("scratch 0\n0: copy in[2..1] -> out[0..1]"),
        "line 2: expected a slice such as out[0..64], found \"in[2..1]\""
    );
    assert_eq!(
        error("scratch 0\n0: recv in[0..1] <- 1 #0 after"),
        "line 2: expected the number of an earlier step, found \"\""
    );
}

fn any_slice() -> impl Strategy<Value = Slice> {
    (0..3, 0..u64::MAX / 2, 0..u64::MAX / 2).prop_map(|(space, offset, len)| {
        Slice::new([Space::Input, Space::Output, Space::Scratch][space as usize], offset, len)
    })
}

fn any_action() -> impl Strategy<Value = Action> {
    let rank = || any::<u32>().prop_map(Rank);
    let side = any::<bool>().prop_map(|left| if left { Side::Left } else { Side::Right });
    prop_oneof![
        (rank(), any_slice(), any::<u32>()).prop_map(|(to, from, label)| Action::Send { to, from, label }),
        (rank(), any_slice(), any::<u32>()).prop_map(|(from, into, label)| Action::Recv {
            from,
            into,
            label
        }),
        (any_slice(), any_slice()).prop_map(|(from, into)| Action::Copy { from, into }),
        (any_slice(), any_slice(), side).prop_map(|(from, into, side)| Action::Reduce { from, into, side }),
    ]
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let step = (any_action(), proptest::collection::vec(any::<u32>(), 0..4));
    (any::<u64>(), proptest::collection::vec(step, 0..20)).prop_map(|(scratch_bytes, steps)| {
        let mut schedule = Schedule::new(scratch_bytes);
        for (index, (action, after)) in (0u32..).zip(steps) {
            let after: Vec<u32> = after.iter().filter_map(|any| any.checked_rem(index)).collect();
            schedule.push(action, &after);
        }
        schedule
    })
}

proptest! {
    // A failure prints its input; nothing is written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_is_read_back_as_it_was(schedule in any_schedule()) {
        prop_assert_eq!(schedule.to_string().parse::<Schedule>(), Ok(schedule));
    }

    #[test]
    fn damaged_text_is_a_schedule_or_an_error_with_a_line(
        schedule in any_schedule(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<char>(), 0..3), 1..6),
    ) {
        let mut chars: Vec<char> = schedule.to_string().chars().collect();
        for (place, new, kind) in edits {
            let at = place.index(chars.len());
            match kind {
                0 => chars[at] = new,
                1 => chars.insert(at, new),
                _ => { chars.remove(at); }
            }
            if chars.is_empty() {
                break;
            }
        }
        let text: String = chars.into_iter().collect();
        match text.parse::<Schedule>() {
            // What was understood is understood the same way again.
            Ok(read) => prop_assert_eq!(read.to_string().parse::<Schedule>(), Ok(read)),
            Err(ParseError { line, .. }) => prop_assert!(line <= text.lines().count() + 1),
        }
    }

    #[test]
    fn noise_is_never_a_panic(text in ".{0,200}") {
        let _ = text.parse::<Schedule>();
        let _ = text.parse::<Algorithm>();
    }
}
