//! Partitioned messages.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use selvedge::{Error, ErrorHandler, Misuse, World};

#[selvedge::test(ranks = [1, 2, 3])]
fn partitions_filled_by_threads_arrive_whole_however_they_are_divided(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    for (mine, theirs, len) in [(1, 1, 12usize), (4, 3, 1_200), (3, 4, 120_000), (6, 2, 0)] {
        let (mut out, mut into) = (vec![0u32; len], vec![0u32; len]);
        world.scope(|scope| {
            let mut send = scope.psend_init(&mut out, mine, right, 5).unwrap();
            let mut receive = scope.precv_init(&mut into, theirs, left, 5).unwrap();
            for round in 0..4 {
                let (view, received) = receive.start();
                let (partitions, sent) = send.start();
                thread::scope(|threads| {
                    for mut partition in partitions {
                        threads.spawn(move || {
                            let value = (me * 1_000 + partition.index() * 10 + round) as u32;
                            partition.fill(value);
                            partition.ready();
                        });
                    }
                    let readers: Vec<_> = (0..theirs)
                        .map(|index| threads.spawn(move || view.wait(index).unwrap().to_vec()))
                        .collect();
                    sent.wait().unwrap();
                    let status = received.wait().unwrap();
                    assert_eq!((status.source, status.tag, status.count::<u32>()), (left, 5, len));
                    let seen: Vec<u32> =
                        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
                    let expected: Vec<u32> = (0..mine)
                        .flat_map(|index| vec![(left * 1_000 + index * 10 + round) as u32; len / mine])
                        .collect();
                    assert_eq!(seen, expected);
                });
            }
        });
    }
}

#[selvedge::test(ranks = [2])]
fn partitions_move_whatever_call_the_receiver_is_in(world: World) {
    let (mut data, mut more) = (vec![1u64; 80_000], vec![0u64; 80_000]);
    world.scope(|scope| {
        if world.rank() == 0 {
            let mut send = scope.psend_init(&mut data, 8, 1, 0).unwrap();
            for _ in 0..3 {
                let (partitions, sent) = send.start();
                selvedge::ready_all(partitions);
                // Too long to leave before somebody has asked for it.
                sent.wait().unwrap();
                world.send(&[0u8], 1, 0).unwrap();
            }
        } else {
            let mut receive = scope.precv_init(&mut more, 2, 0, 0).unwrap();
            for _ in 0..3 {
                let (view, received) = receive.start();
                world.recv(&mut [0u8], 0, 0).unwrap();
                assert_eq!(view.get(1).unwrap(), Some(&[1; 40_000][..]));
                received.wait().unwrap();
            }
        }
    });
}

#[selvedge::test(ranks = [2])]
fn a_partition_can_be_read_while_others_have_not_left(world: World) {
    let mut data = [0u16; 12];
    world.scope(|scope| {
        if world.rank() == 0 {
            let mut send = scope.psend_init(&mut data, 6, 1, 3).unwrap();
            let (mut partitions, sent) = send.start();
            let later = partitions.next().unwrap();
            for mut partition in partitions {
                partition.fill(9);
                partition.ready();
            }
            world.recv(&mut [0u8], 1, 0).unwrap();
            later.ready();
            sent.wait().unwrap();
        } else {
            let mut receive = scope.precv_init(&mut data, 3, 0, 3).unwrap();
            let (view, received) = receive.start();
            assert_eq!((view.wait(2).unwrap(), view.wait(1).unwrap()), (&[9; 4][..], &[9; 4][..]));
            assert_eq!(view.get(0).unwrap(), None);
            world.send(&[0u8], 0, 0).unwrap();
            assert_eq!(view.wait(0).unwrap(), [0, 0, 9, 9]);
            received.wait().unwrap();
        }
    });
}

#[selvedge::test(ranks = [2])]
fn ends_of_one_tag_meet_in_the_order_they_were_made_and_rounds_do_not_mix(world: World) {
    let (mut first, mut second) = ([0u8; 4], [0u8; 4]);
    world.scope(|scope| {
        if world.rank() == 0 {
            let mut one = scope.psend_init(&mut first, 2, 1, 0).unwrap();
            let mut two = scope.psend_init(&mut second, 4, 1, 0).unwrap();
            for round in 1..50 {
                // The second leaves before the first, and its last partition before its first.
                for (send, value) in [(&mut two, 100 + round), (&mut one, round)] {
                    let (partitions, sent) = send.start();
                    let mut partitions: Vec<_> = partitions.collect();
                    while let Some(mut partition) = partitions.pop() {
                        partition.fill(value);
                        partition.ready();
                    }
                    sent.wait().unwrap();
                }
            }
        } else {
            let mut one = scope.precv_init(&mut first, 1, 0, 0).unwrap();
            let mut two = scope.precv_init(&mut second, 4, 0, 0).unwrap();
            for round in 1..50 {
                for (receive, value) in [(&mut one, round), (&mut two, 100 + round)] {
                    receive.start().1.wait().unwrap();
                    assert_eq!(receive.buffer(), [value; 4]);
                }
            }
        }
    });
}

#[selvedge::test(ranks = [2])]
fn a_marker_that_is_dropped_is_told_and_its_partition_leaves_as_it_is(world: World) {
    let mut data = [7u16; 6];
    world.scope(|scope| {
        if world.rank() == 0 {
            let mut send = scope.psend_init(&mut data, 3, 1, 0).unwrap();
            let (partitions, sent) = send.start();
            for partition in partitions {
                match partition.index() {
                    1 => drop(partition),
                    _ => partition.ready(),
                }
            }
            let error = sent.wait().unwrap_err();
            assert!(matches!(error, Error::Misuse(Misuse::PartitionWithheld { partition: 1 })), "{error}");
            // What nobody can mark any more leaves before the next round, or with the scope.
            for _ in 0..2 {
                let (partitions, _) = send.start();
                partitions.skip(1).for_each(std::mem::forget);
            }
        } else {
            let mut receive = scope.precv_init(&mut data, 2, 0, 0).unwrap();
            receive.buffer().fill(0);
            for _ in 0..3 {
                receive.start().1.wait().unwrap();
                assert_eq!(receive.buffer(), [7; 6]);
            }
        }
    });
}

#[selvedge::test(ranks = [2])]
fn elements_that_are_no_values_are_never_shown(world: World) {
    world.scope(|scope| {
        if world.rank() == 0 {
            let mut bytes = [1u8, 0, 7, 1, 0, 1];
            world.scope(|scope| {
                let mut send = scope.psend_init(&mut bytes, 3, 1, 0).unwrap();
                let (partitions, sent) = send.start();
                selvedge::ready_all(partitions);
                sent.wait().unwrap();
            });
        } else {
            let mut flags = [false; 6];
            world.scope(|scope| {
                let mut receive = scope.precv_init(&mut flags, 2, 0, 0).unwrap();
                let (view, received) = receive.start();
                assert_eq!(view.wait(0).unwrap(), [true, false, false]);
                let error = received.wait().unwrap_err();
                let expected = Misuse::InvalidElement { index: 2, type_name: "bool", source_rank: Some(0) };
                assert!(matches!(&error, Error::Misuse(misuse) if *misuse == expected), "{error}");
                assert_eq!(view.get(1).unwrap(), Some(&[true, false, true][..]));
            });
        }
        scope.ibarrier().unwrap().wait().unwrap();
    });
}

#[selvedge::test(ranks = [2])]
fn ends_that_do_not_fit_are_refused_and_the_handler_sees_it(world: World) {
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    world.set_error_handler(ErrorHandler::call(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let (mut short, mut long) = ([1u8; 4], [1u8; 6]);
    world.scope(|scope| {
        assert!(matches!(scope.psend_init(&mut short, 3, 0, 0), Err(Error::Misuse(Misuse::Length { .. }))));
        assert!(matches!(
            scope.precv_init::<u8>(&mut [], 0, 0, 0),
            Err(Error::Misuse(Misuse::Length { .. }))
        ));
        if world.rank() == 0 {
            drop(scope.psend_init(&mut long, 3, 1, 0).unwrap());
        } else {
            let mut receive = scope.precv_init(&mut long[..4], 2, 0, 0).unwrap();
            let (view, received) = receive.start();
            let error = received.wait().unwrap_err();
            let expected = Misuse::Partitioning { source_rank: 0, given: 6, expected: 4 };
            assert!(matches!(&error, Error::Misuse(misuse) if *misuse == expected), "{error}");
            let lost = view.wait(1).unwrap_err();
            assert!(matches!(lost, Error::Misuse(Misuse::PartitionLost { partition: 1 })), "{lost}");
        }
    });
    assert_eq!(seen.load(Ordering::Relaxed), if world.rank() == 0 { 2 } else { 4 });
}

#[selvedge::test(ranks = [2])]
fn who_waits_for_partitions_of_a_rank_that_is_gone_is_told(world: World) {
    if world.rank() == 0 {
        return;
    }
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut receive = scope.precv_init(&mut data, 2, 0, 0).unwrap();
        for _ in 0..2 {
            let (view, received) = receive.start();
            assert!(view.wait(0).is_err());
            assert!(matches!(received.wait(), Err(Error::Fault { rank: Some(0), .. })));
        }
    });
}

#[selvedge::test(ranks = [2])]
fn a_panic_between_partitions_leaves_nothing_behind(world: World) {
    let (mut data, partner) = ([1u8; 4], 1 - world.rank());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        world.scope(|scope| {
            if world.rank() == 0 {
                let mut send = scope.psend_init(&mut data, 4, partner, 0).unwrap();
                let (mut partitions, _sent) = send.start();
                partitions.next().unwrap().ready();
                panic!("the program's own mistake");
            }
            let mut receive = scope.precv_init(&mut data, 2, partner, 0).unwrap();
            let (_, received) = receive.start();
            received.wait().unwrap();
            // Nobody sends this round.
            let _never = receive.start();
            panic!("the program's own mistake");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(data, [1; 4]);
    world.barrier().unwrap();
}

#[selvedge::test(ranks = [1, 2])]
fn partitions_to_and_from_nobody_are_over_at_once(world: World) {
    let (mut out, mut into) = ([3u8; 4], [5u8; 4]);
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut out, 2, None, 0).unwrap();
        let mut receive = scope.precv_init(&mut into, 2, None, 0).unwrap();
        let (partitions, sent) = send.start();
        selvedge::ready_all(partitions);
        let (view, received) = receive.start();
        assert!(selvedge::wait_all([sent, received]).unwrap()[1].is_null());
        assert_eq!(view.wait(0).unwrap(), [5; 2]);
    });
    world.barrier().unwrap();
}
