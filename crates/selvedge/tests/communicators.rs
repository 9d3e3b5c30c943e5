//! Communicators made from others, and ranks that fail.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge::{
    ANY_SOURCE, ANY_TAG, Cause, Communicator, Comparison, Error, ErrorClass, ErrorHandler, Intercommunicator,
    Misuse, Op, Spawn, World, local, wait_any,
};

#[selvedge::test(ranks = [1, 2, 3, 5, 8])]
fn a_split_keeps_colours_apart_and_orders_by_key(world: World) {
    let (me, size) = (world.rank(), world.size());
    let colour = (me % 3) as u32;
    let part = world.split(Some(colour), -(me as i64)).unwrap().unwrap();
    let members: Vec<usize> = (0..size).rev().filter(|rank| rank % 3 == me % 3).collect();
    assert_eq!((part.size(), members[part.rank()]), (members.len(), me));
    let mut sum = [0];
    part.allreduce(&[me], &mut sum, &Op::sum()).unwrap();
    assert_eq!(sum[0], members.iter().sum::<usize>());
    // Ranks are those of the communicator, also in a status.
    let mut got = [0usize];
    let (next, last) = ((part.rank() + 1) % part.size(), (part.rank() + part.size() - 1) % part.size());
    let status = part.sendrecv(&[me], next, 0, &mut got, last, 0).unwrap();
    assert_eq!((status.source, got[0]), (last, members[last]));
}

#[selvedge::test(ranks = [2, 3])]
fn a_rank_without_a_colour_gets_no_communicator(world: World) {
    let part = world.split((world.rank() > 0).then_some(1), 0).unwrap();
    assert_eq!(part.map(|part| part.size()), (world.rank() > 0).then(|| world.size() - 1));
}

#[selvedge::test(ranks = [2, 3])]
fn messages_of_a_duplicate_do_not_meet_those_of_the_original(world: World) {
    let copy = world.dup().unwrap();
    let third = copy.dup().unwrap();
    if world.rank() == 0 {
        world.send(&[1u8], 1, 0).unwrap();
        copy.send(&[2u8], 1, 0).unwrap();
        third.send(&[3u8], 1, 0).unwrap();
    } else if world.rank() == 1 {
        for (communicator, expected) in [(&third, 3), (&copy, 2), (&*world, 1)] {
            let mut got = [0u8];
            communicator.recv(&mut got, selvedge::ANY_SOURCE, selvedge::ANY_TAG).unwrap();
            assert_eq!(got, [expected]);
        }
    }
    drop(world);
    third.barrier().unwrap();
}

#[selvedge::test(ranks = [1, 2, 3, 5])]
fn duplicates_that_are_made_at_the_same_time_meet_nobody_else(world: World) {
    let (me, size) = (world.rank(), world.size());
    let half = world.split(Some((me % 2) as u32), 0).unwrap().unwrap();
    // Every other rank begins with the other communicator, and waits in another order.
    let parents: [&Communicator; 2] = if me.is_multiple_of(2) { [&world, &half] } else { [&half, &world] };
    let begun = parents.map(|parent| [parent.idup().unwrap(), parent.idup().unwrap()]);
    let mut made = begun.map(|[first, second]| {
        let second = second.wait().unwrap();
        [first.wait().unwrap(), second]
    });
    if me % 2 == 1 {
        made.reverse();
    }
    let made = made.as_flattened();
    let message = |index: usize, rank: usize| vec![10 * index + rank];
    let sends: Vec<_> = (0..made.len())
        .map(|index| {
            let (me, size) = (made[index].rank(), made[index].size());
            made[index].isend_owned(message(index, me), (me + 1) % size, 0)
        })
        .collect();
    for (index, communicator) in made.iter().enumerate().rev() {
        let (got, status) = communicator.recv_vec::<usize>(ANY_SOURCE, ANY_TAG).unwrap();
        assert_eq!(got, message(index, status.source));
    }
    for send in sends {
        send.wait().0.unwrap();
    }
    assert_eq!(made[0].size(), size);
}

#[selvedge::test(ranks = [2])]
fn a_duplicate_is_made_while_its_rank_waits_for_something_else(world: World) {
    let copy = world.idup().unwrap();
    if world.rank() == 0 {
        world.recv(&mut [0], 1, 0).unwrap(); // which comes when the other has the duplicate
    }
    let copy = copy.wait().unwrap();
    if world.rank() == 1 {
        world.send(&[0], 0, 0).unwrap();
    }
    copy.barrier().unwrap();
}

#[selvedge::test(ranks = [2])]
fn a_duplicate_that_nobody_waits_for_is_made_for_the_others_and_its_number_is_free_again(world: World) {
    let parent = world.dup().unwrap();
    for round in 0..3 {
        let mut request = parent.idup().unwrap();
        match (world.rank(), round) {
            (0, 0) => drop(request),
            (0, 1) => {
                while !request.test() {}
                drop(request);
            }
            _ => drop(request.wait().unwrap()),
        }
    }
    drop(parent); // which waits for the one that was dropped
    let live = |world: &World| format!("{:?}", world.dup().unwrap());
    let (first, second) = (live(&world), live(&world));
    assert_ne!(first, second, "a number is not given again before all others were");
}

#[selvedge::test(ranks = [2])]
fn a_duplicate_has_what_its_parent_had_when_it_was_begun(world: World) {
    world.extensions().insert_passed_on(7);
    let request = world.idup().unwrap();
    world.extensions().remove::<i32>();
    world.set_error_handler(ErrorHandler::Abort);
    let copy = request.wait().unwrap();
    assert_eq!(copy.extensions().get::<i32>().as_deref(), Some(&7));
    assert!(matches!(copy.error_handler(), ErrorHandler::Return));
}

#[selvedge::test(ranks = [1, 3])]
fn one_host_has_everybody(world: World) {
    let host = world.split_by_host().unwrap();
    assert_eq!((host.size(), host.rank()), (world.size(), world.rank()));
    assert_eq!(world.local_ranks(), world.size());
    assert_eq!(world.pid_of(0), std::process::id());
    assert!(!world.host_of(0).is_empty());
}

#[test]
fn a_rank_that_panics_fails_the_others_with_its_name_and_its_panic_is_the_one_told() {
    let told = catch_unwind(AssertUnwindSafe(|| {
        local::run(3, |world| {
            assert!(world.rank() != 1, "rank 1 has had enough");
            let error = world.recv(&mut [0u8], 1, 0).unwrap_err();
            assert!(matches!(&error, Error::Fault { rank: Some(1), .. }), "{error}");
            assert!(error.to_string().starts_with("rank 1: "), "{error}");
            panic!("told too late");
        })
    }));
    let panic = told.unwrap_err();
    let text = panic.downcast_ref::<&str>().copied().unwrap_or("a panic without words");
    assert!(text.contains("has had enough"), "{text}");
}

/// Whether `error` says that `rank` has left, in words too.
fn says_that_it_left<T: std::fmt::Debug>(outcome: Result<T, Error>, rank: usize) -> bool {
    let error = outcome.expect_err("somebody is missing");
    let Error::Fault { rank: named, fault, .. } = &error else { panic!("{error}") };
    let told = error.to_string();
    assert!(told.starts_with(&format!("rank {rank}: ")) && told.contains("left"), "{told}");
    *named == Some(rank) && fault.cause == Cause::PeerLeft
}

/// Runs `program` on three ranks of which the last leaves at once.
fn without_the_last(program: impl Fn(&World) + Sync) {
    let start = Instant::now();
    local::run(3, |world| {
        if world.rank() < 2 {
            program(&world);
        }
    });
    // A second is what it may take; the rest is for machines that have other things to do.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn whoever_waits_for_a_rank_that_left_is_told_so() {
    without_the_last(|world| {
        assert!(says_that_it_left(world.recv(&mut [0u8], 2, 0), 2));
        assert!(says_that_it_left(world.recv(&mut [0u8], 2, ANY_TAG), 2), "also afterwards");
        assert!(says_that_it_left(world.send(&[0u8; 1_000_000], 2, 0), 2));
    });
    without_the_last(|world| {
        assert!(says_that_it_left(world.probe(2, 0), 2));
        assert!(says_that_it_left(world.iprobe(2, 0), 2));
    });
    without_the_last(|world| assert!(says_that_it_left(world.send(&[0u8; 1_000_000], 2, 0), 2)));
    without_the_last(|world| {
        let mut byte = [0u8];
        let outcome = world.scope(|scope| scope.irecv(&mut byte, 2, 0)?.wait());
        assert!(says_that_it_left(outcome, 2));
    });
}

#[test]
fn a_collective_without_a_rank_that_left_ends_with_its_name_or_that_of_one_who_gave_up() {
    without_the_last(|world| {
        let outcome = world.allreduce(&[1u64], &mut [0u64], &Op::sum());
        let Err(Error::Fault { rank: Some(rank), fault, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(fault.cause, Cause::PeerLeft);
        assert!(rank != world.rank(), "{fault}");
    });
    without_the_last(|world| {
        let outcome = world.idup().unwrap().wait();
        let Err(Error::Fault { rank: Some(rank), fault, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(rank != world.rank(), "{fault}");
    });
}

#[test]
fn a_fault_names_the_rank_in_the_communicator_that_was_used() {
    local::run(3, |world| {
        let backwards = world.split(Some(0), -(world.rank() as i64)).unwrap().unwrap();
        if world.rank() != 0 {
            assert!(says_that_it_left(backwards.recv(&mut [0u8], 2, 0), 2));
        }
    });
}

#[test]
fn receives_from_anyone_go_on_without_a_rank_that_left() {
    without_the_last(|world| {
        let mut got = [0u8];
        if world.rank() == 0 {
            assert!(says_that_it_left(world.recv(&mut got, 2, 0), 2));
            world.send(&[1u8], 1, 0).unwrap();
        } else {
            // Posted before or after rank 2 has left, with nothing to receive for some time.
            assert_eq!(world.recv(&mut got, ANY_SOURCE, ANY_TAG).unwrap().source, 0);
        }
    });
}

#[test]
fn whoever_waits_for_anyone_when_all_others_have_left_is_told_so() {
    type Wait = fn(&World) -> Result<(), Error>;
    let wait_for_anyone: [Wait; 3] = [
        |world| world.recv(&mut [0u8], ANY_SOURCE, 0).map(drop),
        |world| world.probe(ANY_SOURCE, 0).map(drop),
        |world| {
            let mut byte = [0u8];
            world.scope(|scope| {
                let mut requests = vec![scope.irecv(&mut byte, ANY_SOURCE, 0)?];
                wait_any(&mut requests).map(drop)
            })
        },
    ];
    for wait in wait_for_anyone {
        local::run(2, |world| {
            if world.rank() == 0 {
                assert!(says_that_it_left(wait(&world), 1));
                // What one sends to oneself still comes.
                let mut got = [0u8];
                world.sendrecv(&[7u8], 0, 0, &mut got, ANY_SOURCE, 0).unwrap();
                assert_eq!(got, [7]);
            }
        });
    }
}

#[test]
fn what_a_rank_sent_before_it_left_can_be_received_afterwards() {
    local::run(2, |world| {
        if world.rank() == 1 {
            (0..100u64).for_each(|number| world.send(&[number], 0, 0).unwrap());
            return;
        }
        assert!(says_that_it_left(world.recv(&mut [0u8], 1, 1), 1));
        for number in 0..100u64 {
            let mut got = [0];
            let source = if number % 2 == 0 { ANY_SOURCE } else { 1.into() };
            world.recv(&mut got, source, 0).unwrap();
            assert_eq!(got, [number]);
        }
    });
}

#[test]
fn an_abort_of_a_thread_ends_its_group() {
    let told = catch_unwind(AssertUnwindSafe(|| {
        local::run(2, |world| if world.rank() == 0 { world.abort(7) } else { world.barrier().map_err(drop) })
    }));
    assert_eq!(told.unwrap_err().downcast_ref::<String>().unwrap(), "rank 0 called abort(7)");
}

#[test]
fn several_worlds_live_side_by_side() {
    let outer = local::run(2, |world| {
        let inner = local::run(3, |inner| {
            inner.barrier().unwrap();
            inner.size()
        });
        world.barrier().unwrap();
        inner
    });
    assert_eq!(outer, [[3; 3]; 2]);
}

#[selvedge::test(ranks = [1, 2, 3])]
fn libraries_that_join_by_themselves_have_worlds_of_their_own(world: World) {
    let (one, two) = (selvedge::init().unwrap(), selvedge::init().unwrap());
    assert_eq!((two.rank(), two.compare(&one)), (world.rank(), Comparison::Congruent));
    let next = (world.rank() + 1) % world.size();
    for (word, world) in [&world, &one, &two].into_iter().enumerate() {
        world.send(&[word], next, 0).unwrap();
    }
    for (word, world) in [&world, &one, &two].into_iter().enumerate().rev() {
        assert_eq!(world.recv_vec::<usize>(ANY_SOURCE, ANY_TAG).unwrap().0, [word]);
    }
    // In the middle of a collective of the first one, which not all ranks have begun.
    let (mut sum, mut third) = ([0], None);
    world.scope(|scope| {
        let late = world.rank() == 0;
        if late {
            third = Some(selvedge::init().unwrap());
        }
        let request = scope.iallreduce(&[1], &mut sum, &Op::sum()).unwrap();
        if !late {
            third = Some(selvedge::init().unwrap());
        }
        request.wait().unwrap();
    });
    assert_eq!(sum, [world.size()]);
    drop((world, one));
    third.unwrap().barrier().unwrap();
    assert_eq!(selvedge::init().unwrap().size(), two.size());
}

/// A handler that remembers what it saw.
fn noting() -> (ErrorHandler, Arc<Mutex<Vec<ErrorClass>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    (ErrorHandler::call(move |error| notes.lock().unwrap().push(error.class())), seen)
}

#[selvedge::test(ranks = [2])]
fn a_handler_sees_every_error_of_its_communicator_once(world: World) {
    let (handler, seen) = noting();
    world.set_error_handler(handler);
    let (me, other) = (world.rank(), 1 - world.rank());
    let mut none: [u8; 0] = [];
    world.send(&[1_u8; 3], other, 0).unwrap();
    assert!(world.recv(&mut none, other, 0).is_err());
    world.send(&[1_u8; 3], other, 0).unwrap();
    assert!(world.recv_vec::<u32>(other, 0).is_err());
    world.send(&[2_u8; 3], other, 0).unwrap();
    let mut truths = [false; 3];
    assert!(world.scope(|scope| scope.irecv(&mut truths, other, 0).unwrap().wait()).is_err());
    assert!(world.recv(&mut none, me, -1).is_err());
    assert!(world.broadcast(&mut none, 2).is_err());
    assert!(world.broadcast_value((me == 1).then_some(1), 0).is_err());
    assert!(world.allreduce(&[1], &mut [1, 2], &Op::sum()).is_err());
    assert!(world.cartesian(&[3], &[true]).is_err());
    assert!(world.recv(&mut [0], me, 0).is_err());
    use ErrorClass::{Count, Dims, Other, Root, Tag, Truncate, Type};
    // The root gave nothing, and the other rank gave what it should not have: told as what the root did.
    let of_value = if me == 0 { Root } else { Other };
    assert_eq!(*seen.lock().unwrap(), [Truncate, Type, Type, Tag, Root, of_value, Count, Dims, Other]);
}

#[selvedge::test(ranks = [2])]
fn a_cancelled_request_is_no_error_to_a_handler(world: World) {
    let (handler, seen) = noting();
    world.set_error_handler(handler);
    let mut byte = [0_u8];
    world.scope(|scope| {
        let receive = scope.irecv(&mut byte, 1 - world.rank(), 0).unwrap();
        assert!(receive.cancel().unwrap());
    });
    assert!(seen.lock().unwrap().is_empty());
}

#[selvedge::test(ranks = [3])]
fn communicators_begin_with_the_handler_they_were_made_under(world: World) {
    let early = world.dup().unwrap();
    let (handler, seen) = noting();
    world.set_error_handler(handler);
    let half = world.split(Some(u32::from(world.rank() > 0)), 0).unwrap().unwrap();
    let all = world.create_group(&world.group(), 0).unwrap();
    let grid = world.cartesian(&[3], &[false]).unwrap().unwrap();
    let mine = world.team().communicator();
    world.set_error_handler(ErrorHandler::Return);
    for communicator in [&early, &half, &all, &grid, &mine, &world] {
        assert!(communicator.send(&[0], 9, 0).is_err());
    }
    assert_eq!(*seen.lock().unwrap(), [ErrorClass::Rank; 3], "not the early one, and not the changed ones");
    assert!(matches!(mine.error_handler(), ErrorHandler::Return), "threads share the communicator's");
}

#[test]
fn under_abort_the_first_error_ends_the_job_with_its_own_words() {
    let ended = std::panic::catch_unwind(|| {
        selvedge::local::run(2, |world| {
            world.set_error_handler(ErrorHandler::Abort);
            let _ = if world.rank() == 1 { world.send(&[0], 9, 0) } else { world.barrier() };
        });
    });
    let words = ended.unwrap_err().downcast::<String>().unwrap();
    assert!(words.starts_with("rank "), "{words}");
}

#[selvedge::test(ranks = [1, 2])]
fn who_has_no_launcher_is_told_so_when_it_spawns(world: World) {
    let error = world.spawn(&Spawn::new("worker", 2).arg("--quick").info("wdir", "/")).unwrap_err();
    assert!(matches!(error, Error::Start(_)), "{error}");
    assert!(error.to_string().contains("nobody here starts more ranks"), "{error}");
    assert!(world.parent().is_none());
}

/// The even ranks and the odd ones, connected.
fn even_and_odd(world: &World) -> Intercommunicator {
    let half = world.split(Some((world.rank() % 2) as u32), 0).unwrap().unwrap();
    half.intercommunicator(0, world, 1 - world.rank() % 2, 5).unwrap()
}

#[selvedge::test(ranks = [2, 3, 5])]
fn two_groups_name_each_other_by_their_own_ranks(world: World) {
    let there = even_and_odd(&world);
    let (me, others) = (world.rank(), world.size() - there.size());
    assert_eq!((there.rank(), there.remote_size(), there.local().size()), (me / 2, others, there.size()));
    (0..others).for_each(|rank| there.send(&[me], rank, 1).unwrap());
    for _ in 0..others {
        let (from, status) = there.recv_vec::<usize>(ANY_SOURCE, ANY_TAG).unwrap();
        assert_eq!(from, [2 * status.source + 1 - me % 2]);
    }
    assert!(there.send(&[me], others, 1).is_err() && there.iprobe(0, 1).unwrap().is_none());
    // A word from the last rank of the even ones, and one back.
    let mut word = [me; 3];
    let (root, last) = ((world.size() - 1) / 2, (world.size() - 1) / 2 * 2);
    match me % 2 {
        0 => there.broadcast_to(&word, root).unwrap(),
        _ => there.broadcast_from(&mut word, root).unwrap(),
    }
    assert_eq!(word, [if me % 2 == 0 { me } else { last }; 3]);
    let mut sum = [0; 2];
    there.allreduce(&[me, 1], &mut sum, &Op::sum()).unwrap();
    let expected: usize = (0..world.size()).filter(|rank| rank % 2 != me % 2).sum();
    assert_eq!(sum, [expected, others]);
    there.barrier().unwrap();
    let odd_first = there.merge(me % 2 == 0).unwrap();
    let odd = world.size() / 2;
    assert_eq!(odd_first.rank(), if me % 2 == 0 { odd + me / 2 } else { me / 2 });
}

#[selvedge::test(ranks = [2, 3, 5])]
fn two_groups_give_each_other_what_they_have(world: World) {
    let there = even_and_odd(&world);
    let (me, others) = (world.rank(), there.remote_size());
    let theirs: Vec<usize> = (0..world.size()).filter(|rank| rank % 2 != me % 2).collect();
    assert_eq!(there.remote_group(), world.group().include(theirs.iter().copied()).unwrap());
    let twice = |of: &[usize]| of.iter().flat_map(|&rank| [rank, 10 * rank]).collect::<Vec<_>>();

    let mut all = vec![0; 2 * others];
    there.allgather(&[me, 10 * me], &mut all).unwrap();
    assert_eq!(all, twice(&theirs));
    let parts: Vec<usize> = theirs.iter().map(|other| 100 * me + other).collect();
    let mut met = vec![0; others];
    there.alltoall(&parts, &mut met).unwrap();
    assert_eq!(met, theirs.iter().map(|other| 100 * other + me).collect::<Vec<_>>());

    // From all odd ranks to the last of the even ones, and back.
    let (root, last) = ((world.size() - 1) / 2, (world.size() - 1) / 2 * 2);
    let (mut all, mut sum, mut mine) = (vec![0; 2 * others], [0; 1], [0; 2]);
    if me % 2 == 0 {
        there.gather_from(&mut all, root).unwrap();
        there.reduce_from(&mut sum, root).unwrap();
        there.scatter_to(&all, root).unwrap();
        let (seen, total) =
            if me == last { (twice(&theirs), theirs.iter().sum()) } else { (vec![0; 2 * others], 0) };
        assert_eq!((all, sum), (seen, [total]));
    } else {
        there.gather_to(&[me, 10 * me], root).unwrap();
        there.reduce_to(&[me], &Op::sum(), root).unwrap();
        there.scatter_from(&mut mine, root).unwrap();
        assert_eq!(mine, [me, 10 * me]);
    }

    // What is wrong is said by who sees it, with the other group's ranks.
    if me % 2 == 0 {
        there.gather_to(&[1u8], 0).unwrap();
    } else if there.rank() == 0 {
        let refused = there.gather_from(&mut vec![0u8; 2 * others], 0).unwrap_err();
        let expected = Misuse::Disagreement { source_rank: 0, given: 1, expected: 2 };
        assert!(matches!(refused, Error::Misuse(misuse) if misuse == expected));
    }
    if others > 1 {
        let refused = there.alltoall(&vec![0; others + 1], &mut []).unwrap_err();
        assert!(matches!(refused, Error::Misuse(Misuse::Length { what: "input", .. })));
    }
}

#[selvedge::test(ranks = [4])]
fn groups_that_cannot_be_connected_say_why(world: World) {
    let half = world.split(Some((world.rank() / 2) as u32), 0).unwrap().unwrap();
    let misuse = |made: selvedge::Result<Intercommunicator>| match made {
        Err(Error::Misuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    };
    let own_leader = world.rank() / 2 * 2;
    assert_eq!(
        misuse(half.intercommunicator(0, &world, own_leader, 0)),
        Misuse::RankTwice { rank: own_leader }
    );
    assert_eq!(misuse(world.intercommunicator(0, &half, 0, 0)), Misuse::NotAMember);
    let nobody = Misuse::RankOutOfRange { what: "other leader", given: 9, size: 4 };
    assert_eq!(misuse(half.intercommunicator(0, &world, 9, 0)), nobody);
}
