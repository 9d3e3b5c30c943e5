//! Communicators made from others, and ranks that fail.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use selvedge::{Error, Op, World, local};

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
            assert!(matches!(&error, Error::Fault(_)) && error.to_string().contains("peer 1"), "{error}");
            panic!("told too late");
        })
    }));
    let panic = told.unwrap_err();
    let text = panic.downcast_ref::<&str>().copied().unwrap_or("a panic without words");
    assert!(text.contains("has had enough"), "{text}");
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
