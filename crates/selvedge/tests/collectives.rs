//! Collectives between real ranks, blocking and nonblocking, against a serial answer.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{Algorithm, Communicator, Error, ErrorClass, Misuse, Number, Op, OwnAlgorithm, World};

const COUNTS: [usize; 7] = [0, 1, 2, 3, 100, 4_097, 200_000];

fn input(rank: usize, count: usize) -> Vec<u64> {
    (0..count as u64).map(|i| i.wrapping_mul(0x9E37_79B9).rotate_left(rank as u32 + 1)).collect()
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn a_broadcast_gives_everybody_the_roots_message(world: World) {
    for root in 0..world.size() {
        for count in COUNTS {
            let mut message = if world.rank() == root { input(root, count) } else { vec![0; count] };
            world.broadcast(&mut message, root).unwrap();
            assert!(message == input(root, count), "root {root}, {count} elements");
        }
    }
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn a_reduction_gives_the_root_the_sum(world: World) {
    for root in [0, world.size() / 2, world.size() - 1] {
        for count in COUNTS {
            let mut output = vec![0; count];
            let given = (world.rank() == root).then_some(&mut output[..]);
            world.reduce(&input(world.rank(), count), given, &Op::sum(), root).unwrap();
            if world.rank() == root {
                assert!(output == sum(world.size(), count), "root {root}, {count} elements");
            }
        }
    }
}

fn sum(ranks: usize, count: usize) -> Vec<u64> {
    (0..ranks).map(|rank| input(rank, count)).fold(vec![0; count], |mut sum, input| {
        sum.iter_mut().zip(input).for_each(|(sum, x)| *sum = sum.wrapping_add(x));
        sum
    })
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn an_allreduce_gives_everybody_the_sum(world: World) {
    for count in COUNTS {
        let mut output = vec![0; count];
        world.allreduce(&input(world.rank(), count), &mut output, &Op::sum()).unwrap();
        assert!(output == sum(world.size(), count), "{count} elements");
    }
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn an_allgather_gives_everybody_everything_in_order(world: World) {
    for count in COUNTS {
        let mut output = vec![0; count * world.size()];
        world.allgather(&input(world.rank(), count), &mut output).unwrap();
        let expected: Vec<u64> = (0..world.size()).flat_map(|rank| input(rank, count)).collect();
        assert!(output == expected, "{count} elements");
    }
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn an_alltoall_transposes(world: World) {
    for count in COUNTS {
        let block = |from: usize, to: usize| input(from * 31 + to, count);
        let send: Vec<u64> = (0..world.size()).flat_map(|to| block(world.rank(), to)).collect();
        let mut output = vec![0; send.len()];
        world.alltoall(&send, &mut output).unwrap();
        let expected: Vec<u64> = (0..world.size()).flat_map(|from| block(from, world.rank())).collect();
        assert!(output == expected, "{count} elements");
    }
}

#[selvedge::test(ranks = [2, 3, 5, 8])]
fn nobody_leaves_a_barrier_before_everybody_has_entered(world: World) {
    // Whoever enters first has nothing to tell; the last one to enter sends before it does, so its message must be
    // there for everybody after the barrier without waiting.
    for late in 0..world.size() {
        if world.rank() == late {
            for other in (0..world.size()).filter(|&other| other != late) {
                world.send(&[late as u32], other, 77).unwrap();
            }
        }
        world.barrier().unwrap();
        if world.rank() != late {
            // It was sent before; looking may need a few turns to find it.
            let here = (0..1_000).any(|_| world.iprobe(late, 77).unwrap().is_some());
            assert!(here, "rank {late} was still outside");
            world.recv(&mut [0u32], late, 77).unwrap();
        }
    }
}

fn check_op<T: Number + PartialEq + std::fmt::Debug>(world: &World, op: Op<T>, mine: T, expected: T) {
    let mut output = [mine; 3];
    world.allreduce(&[mine; 3], &mut output, &op).unwrap();
    assert_eq!(output, [expected; 3]);
}

#[selvedge::test(ranks = [3])]
fn every_built_in_operation_does_what_its_name_says(world: World) {
    let mine = world.rank() as i32 + 1;
    check_op(&world, Op::sum(), mine, 6);
    check_op(&world, Op::prod(), mine, 6);
    check_op(&world, Op::min(), mine, 1);
    check_op(&world, Op::max(), mine, 3);
    check_op(&world, Op::band(), mine, 0);
    check_op(&world, Op::bor(), mine, 3);
    check_op(&world, Op::bxor(), mine, 0);
    check_op(&world, Op::land(), mine, 1);
    check_op(&world, Op::land(), mine - 1, 0);
    check_op(&world, Op::lor(), mine - 1, 1);
    check_op(&world, Op::lxor(), mine, 1);
    check_op(&world, Op::sum(), f64::from(mine) / 2.0, 3.0);
    check_op(&world, Op::max(), -(mine as f32), -1.0);
    check_op(&world, Op::sum(), (mine as u8).wrapping_mul(100), 88);
}

/// A two-by-two matrix: products associate and do not commute.
type Matrix = [[i64; 2]; 2];

fn product(a: Matrix, b: Matrix) -> Matrix {
    let at = |i: usize, j: usize| a[i][0] * b[0][j] + a[i][1] * b[1][j];
    [[at(0, 0), at(0, 1)], [at(1, 0), at(1, 1)]]
}

#[selvedge::test(ranks = [1, 2, 3, 5, 8])]
fn an_ordered_operation_is_applied_in_order_of_ranks(world: World) {
    let op = Op::ordered(|left: &[Matrix], right: &mut [Matrix]| {
        left.iter().zip(right).for_each(|(left, right)| *right = product(*left, *right));
    });
    let of = |rank: usize| [[1, rank as i64], [1, 1]];
    let expected = (1..world.size()).fold(of(0), |left, rank| product(left, of(rank)));
    for count in [1, 5, 3_000] {
        let mut output = vec![[[0; 2]; 2]; count];
        world.allreduce(&vec![of(world.rank()); count], &mut output, &op).unwrap();
        assert!(output.iter().all(|&matrix| matrix == expected), "allreduce of {count}");
        let root = world.size() - 1;
        let mut output = vec![[[0; 2]; 2]; count];
        let given = (world.rank() == root).then_some(&mut output[..]);
        world.reduce(&vec![of(world.rank()); count], given, &op, root).unwrap();
        assert!(world.rank() != root || output.iter().all(|&matrix| matrix == expected), "reduce of {count}");
    }
}

#[selvedge::test(ranks = [1, 2, 3, 5])]
fn nonblocking_collectives_run_side_by_side_and_in_any_order_of_waiting(world: World) {
    let (me, size) = (world.rank(), world.size());
    let mine = input(me, 3_000);
    let mut message = if me == 0 { input(0, 500) } else { vec![0; 500] };
    let (mut summed, mut reduced) = (vec![0; 3_000], vec![0; 3_000]);
    let mut gathered = vec![0; 3_000 * size];
    let (blocks, mut transposed) = (vec![me as u32; 10 * size], vec![0; 10 * size]);
    let op = Op::sum();
    world.scope(|scope| {
        let requests = [
            scope.ibroadcast(&mut message, 0).unwrap(),
            scope.iallreduce(&mine, &mut summed, &op).unwrap(),
            scope.ireduce(&mine, (me == 0).then_some(&mut reduced[..]), &op, 0).unwrap(),
            scope.iallgather(&mine, &mut gathered).unwrap(),
            scope.ialltoall(&blocks, &mut transposed).unwrap(),
            scope.ibarrier().unwrap(),
        ];
        let mut requests: Vec<_> = requests.into_iter().collect();
        // Each rank waits in another order.
        requests.rotate_left(me % 6);
        selvedge::wait_all(requests).unwrap();
    });
    assert_eq!(message, input(0, 500));
    assert_eq!(summed, sum(size, 3_000));
    assert!(me != 0 || reduced == summed);
    assert_eq!(gathered, (0..size).flat_map(|rank| input(rank, 3_000)).collect::<Vec<_>>());
    assert_eq!(transposed, (0..size).flat_map(|rank| [rank as u32; 10]).collect::<Vec<_>>());
}

#[selvedge::test(ranks = [2, 3, 5])]
fn a_panic_in_a_users_operation_reaches_its_rank_and_nobody_hangs(world: World) {
    let op = Op::commutative(|_: &[u64], _: &mut [u64]| panic!("the user's own mistake"));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut output = [0; 4];
        world.allreduce(&[1; 4], &mut output, &op).unwrap();
    }));
    // Which ranks reduce depends on the algorithm, but somebody has to.
    let mut panics = [0];
    world.allreduce(&[u32::from(result.is_err())], &mut panics, &Op::sum()).unwrap();
    assert!(panics[0] > 0);
}

#[selvedge::test(ranks = [2, 3])]
fn a_panic_in_a_users_operation_does_not_end_a_scope_before_its_other_operations(world: World) {
    let op = Op::commutative(|_: &[u64], _: &mut [u64]| panic!("the user's own mistake"));
    let (mine, mut output) = ([1; 4], [0; 4]);
    let mut late = vec![0u8; 100_000];
    let (next, last) = ((world.rank() + 1) % world.size(), (world.rank() + world.size() - 1) % world.size());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.scope(|scope| {
            drop(scope.iallreduce(&mine, &mut output, &op).unwrap());
            drop(scope.irecv(&mut late, last, 5).unwrap());
            world.send(&vec![7u8; 100_000], next, 5).unwrap();
        });
    }));
    // Whoever reduced has panicked, and everybody has received.
    let mut panics = [0];
    world.allreduce(&[u32::from(result.is_err())], &mut panics, &Op::sum()).unwrap();
    assert!(panics[0] > 0 && late == [7; 100_000]);
}

#[selvedge::test(ranks = [2, 3])]
fn collectives_that_disagree_are_noticed(world: World) {
    let count = if world.rank() == 0 { 4 } else { 2 };
    let mut output = vec![0u64; count];
    let result = world.allreduce(&vec![1u64; count], &mut output, &Op::sum());
    if world.rank() == 0 {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::Disagreement { .. })), "{error}");
    }
}

#[selvedge::test(ranks = [1, 3])]
fn wrong_lengths_and_roots_are_refused_before_anything_is_sent(world: World) {
    let size = world.size();
    let length = |result: Result<(), Error>| matches!(result, Err(Error::Misuse(Misuse::Length { .. })));
    assert!(length(world.allreduce(&[1u8; 3], &mut [0; 2], &Op::sum())));
    assert!(length(world.allgather(&[1u8; 3], &mut vec![0; 3 * size + 1])));
    assert!(length(world.alltoall(&vec![1u8; size], &mut vec![0; size + 1])));
    assert!(size == 1 || length(world.alltoall(&vec![1u8; size + 1], &mut vec![0; size + 1])));
    let root = world.broadcast(&mut [0u8], size);
    assert!(matches!(root, Err(Error::Misuse(Misuse::RankOutOfRange { what: "root", .. }))));
    let output = world.reduce(&[1u8], None, &Op::sum(), world.rank());
    assert!(matches!(output, Err(Error::Misuse(Misuse::RootOutput { .. }))));
}

#[selvedge::test(ranks = [1, 3, 4])]
fn every_algorithm_that_fits_can_be_asked_for_and_one_that_does_not_says_why(world: World) {
    let (me, size) = (world.rank(), world.size());
    let expected: usize = (0..size).sum();
    for algorithm in Algorithm::known() {
        let world = world.with_algorithms(algorithm);
        let (mut sums, mut all) = (vec![0; 5], vec![0; size]);
        let outcomes = [
            world.barrier(),
            world.allreduce(&[me; 5], &mut sums, &Op::sum()),
            world.allgather(&[me], &mut all),
            world.broadcast(&mut [me], 0),
        ];
        let needs_a_power_of_two =
            matches!(algorithm, Algorithm::AllgatherDoubling | Algorithm::BroadcastScatterDoubling);
        if needs_a_power_of_two && size == 3 {
            let error = outcomes.into_iter().find_map(Result::err).unwrap();
            assert_eq!(error.class(), ErrorClass::Argument);
            let said = format!(
                "{algorithm} was asked for and cannot do this: it works among a power of two of ranks"
            );
            assert!(error.to_string().starts_with(&said), "{error}");
        } else {
            outcomes.into_iter().for_each(Result::unwrap);
            assert_eq!((sums, all), (vec![expected; 5], (0..size).collect()));
        }
    }
}

#[selvedge::test(ranks = [3])]
fn what_is_made_from_a_communicator_has_its_mind_about_algorithms(world: World) {
    let tuned = world.with_algorithms(Algorithm::AllgatherDoubling);
    let copy = tuned.with_algorithms(Algorithm::AllreduceDirect);
    let unfit = |world: &Communicator| world.allgather(&[1], &mut [0; 3]).is_err();
    assert!(unfit(&tuned) && unfit(&tuned.dup().unwrap()) && unfit(&tuned.team().communicator()));
    assert!(
        !unfit(&world) && !unfit(&copy),
        "the last choice counts, and the first communicator stays as it is"
    );
    let mut all = [0; 3];
    tuned.scope(|scope| assert!(scope.iallgather(&[1], &mut all).unwrap().wait().is_err()));
}

#[selvedge::test(ranks = [2, 3])]
fn an_algorithm_of_the_programs_own_is_proved_before_it_runs(world: World) {
    use selvedge::schedule::{Action, Collective, Rank, Schedule, Slice, Space};
    // Down a line, but for what the last rank has: it passes on what it does not have yet.
    let line = |hasty: bool| {
        OwnAlgorithm::new("line", move |shape, me| {
            let Collective::Broadcast { root: Rank(0) } = shape.collective else { return None };
            let whole = Slice::new(Space::Output, 0, shape.bytes());
            let mut steps = Schedule::new(0);
            let came = (me.0 > 0)
                .then(|| steps.push(Action::Recv { from: Rank(me.0 - 1), into: whole, label: 0 }, &[]));
            if me.0 + 1 < shape.ranks {
                let after: Vec<_> = came.filter(|_| !hasty).into_iter().collect();
                steps.push(Action::Send { to: Rank(me.0 + 1), from: whole, label: 0 }, &after);
            }
            Some(steps)
        })
    };
    let mut message = [world.rank(); 9];
    world.with_own_algorithm(line(false)).broadcast(&mut message, 0).unwrap();
    assert_eq!(message, [0; 9]);
    // What it does not do is done by others.
    let other = world.with_own_algorithm(line(true));
    other.broadcast(&mut message, 1).unwrap();
    if world.size() == 3 {
        let error = other.broadcast(&mut message, 0).unwrap_err().to_string();
        assert!(
            error.starts_with("the schedules of line do not do what was asked: rank 1, step 1"),
            "{error}"
        );
    }
}

#[selvedge::test(ranks = [2, 5])]
fn ranks_that_compare_their_calls_are_told_who_calls_what(world: World) {
    let world = world.checked();
    let last = world.size() - 1;
    let is_last = world.rank() == last;
    let told = |outcome: selvedge::Result<()>, theirs: &str| {
        let error = outcome.unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotSame);
        assert!(error.to_string().contains(theirs), "{error}");
    };
    let algorithm = if is_last { Algorithm::AllreduceRing } else { Algorithm::AllreduceDoubling };
    let mut sum = [0; 3];
    told(
        world.with_algorithms(algorithm).allreduce(&[1; 3], &mut sum, &Op::sum()),
        "allreduce/ring of 3 x 4 bytes",
    );
    told(world.broadcast(&mut sum, usize::from(is_last)), "at root 1");
    told(world.broadcast(&mut sum[..if is_last { 0 } else { 3 }], 0), "of 0 x 4 bytes");
    let op = if is_last { Op::max() } else { Op::sum() };
    told(world.allreduce(&[1; 3], &mut sum, &op), "by max");
    let (mut bits, mut numbers, mut ones) = ([0_u32; 3], [0.0_f32; 3], [1; 3]);
    told(
        if is_last { world.broadcast(&mut bits, 0) } else { world.broadcast(&mut numbers, 0) },
        if is_last { "(f32), and this rank" } else { "(u32), and this rank" },
    );
    told(
        world.scope(|scope| {
            let op = if is_last { Op::prod() } else { Op::sum() };
            scope.allreduce_init(&mut ones, &mut sum, &op).map(drop)
        }),
        "by prod",
    );
    // Nothing is left over from that.
    world.allreduce(&[1; 3], &mut sum, &Op::sum()).unwrap();
    assert_eq!(sum, [world.size() as i32; 3]);
}
