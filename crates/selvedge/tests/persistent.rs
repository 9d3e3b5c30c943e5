//! Persistent requests.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{ANY_SOURCE, Error, Op, Status, World, start_all, wait_all};

/// A packet, several packets, and announced on every road.
const LENGTHS: [usize; 4] = [0, 8, 5_000, 300_000];

#[selvedge::test(ranks = [1, 2, 3])]
fn a_ring_turns_round_after_round(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    for len in LENGTHS {
        let (mut mine, mut theirs) = (vec![me; len], vec![0; len]);
        world.scope(|scope| {
            let mut send = scope.send_init(&mut mine, right, 3).unwrap();
            let mut receive = scope.recv_init(&mut theirs, left, 3).unwrap();
            for round in 0..5 {
                let statuses = wait_all([receive.start(), send.start()]).unwrap();
                assert_eq!(statuses[0], Status { source: left, tag: 3, bytes: len * size_of::<usize>() });
                assert_eq!(receive.buffer(), vec![left + round; len]);
                send.buffer_mut().iter_mut().for_each(|element| *element += 1);
            }
        });
    }
}

#[selvedge::test(ranks = [2])]
fn a_round_that_nobody_waits_for_is_waited_for_by_the_next_look_and_the_next_round(world: World) {
    let other = 1 - world.rank();
    for len in LENGTHS {
        let (mut mine, mut theirs) = (vec![1u8; len], vec![0u8; len]);
        world.scope(|scope| {
            let mut send = scope.ssend_init(&mut mine, other, 0).unwrap();
            let mut receive = scope.recv_init(&mut theirs, ANY_SOURCE, 0).unwrap();
            std::mem::forget(receive.start());
            drop(send.start());
            assert_eq!(receive.buffer(), vec![1; len]);
            send.buffer_mut().fill(2);
            drop(receive.start());
            drop(send.start());
            drop(receive.start());
            send.buffer_mut().fill(3);
            drop(send.start());
        });
        assert_eq!(theirs, vec![3; len]);
    }
}

#[selvedge::test(ranks = [1, 3])]
fn rounds_with_nobody_are_over_at_once_and_a_receive_can_be_cancelled_and_started_again(world: World) {
    let me = world.rank();
    let (mut out, mut into, mut nobody) = ([4u32; 3], [0u32; 3], [9u32; 3]);
    world.scope(|scope| {
        let mut null = scope.recv_init(&mut nobody, None, 0).unwrap();
        assert!(null.start().wait().unwrap().is_null());
        let mut receive = scope.recv_init(&mut into, me, 0).unwrap();
        assert!(receive.start().cancel().unwrap());
        let mut send = scope.send_init(&mut out, me, 0).unwrap();
        let statuses = wait_all([receive.start(), send.start()]).unwrap();
        assert_eq!(statuses[0].bytes, 12);
        assert_eq!(receive.buffer(), [4; 3]);
    });
    assert_eq!(nobody, [9; 3]);
}

#[selvedge::test(ranks = [2])]
fn all_of_a_list_are_started_at_once(world: World) {
    let other = 1 - world.rank();
    let (mut out, mut into) = (vec![[0usize; 10]; 8], vec![[0usize; 10]; 8]);
    world.scope(|scope| {
        let mut all: Vec<_> =
            into.iter_mut().zip(0..).map(|(into, tag)| scope.recv_init(into, other, tag).unwrap()).collect();
        all.extend(out.iter_mut().zip(0..).map(|(out, tag)| scope.send_init(out, other, tag).unwrap()));
        for round in 0..3 {
            all[8..].iter_mut().enumerate().for_each(|(at, send)| send.buffer_mut().fill(at + round));
            wait_all(start_all(&mut all)).unwrap();
            assert!(all[..8].iter().enumerate().all(|(at, receive)| receive.buffer() == [at + round; 10]));
        }
    });
}

#[selvedge::test(ranks = [1, 2, 3, 5])]
fn collectives_are_called_many_times_and_started_in_any_order(world: World) {
    let (me, size) = (world.rank(), world.size());
    for len in [0usize, 1, 1_000] {
        let (mut a, mut sum) = (vec![me as u64; len], vec![0u64; len]);
        let (mut b, mut max) = (vec![me as u64; len], vec![0u64; len]);
        let (mut c, mut all) = (vec![me as u64; len], vec![0u64; len * size]);
        let (mut d, mut swapped) = (vec![me as u64; len * size], vec![0u64; len * size]);
        let mut word = vec![0u64; len];
        world.scope(|scope| {
            let mut barrier = scope.barrier_init().unwrap();
            let mut sum = scope.allreduce_init(&mut a, &mut sum, &Op::sum()).unwrap();
            let mut max =
                scope.reduce_init(&mut b, (me == 0).then_some(&mut max[..]), &Op::max(), 0).unwrap();
            let mut all = scope.allgather_init(&mut c, &mut all).unwrap();
            let mut swapped = scope.alltoall_init(&mut d, &mut swapped).unwrap();
            let mut word = scope.broadcast_init(&mut word, size - 1).unwrap();
            for round in 0..6 {
                if me == size - 1 {
                    word.output_mut().fill(round);
                }
                // Not in the same order everywhere.
                let mut requests = vec![sum.start(), all.start(), max.start(), word.start(), swapped.start()];
                requests.rotate_left(me % 5);
                wait_all(requests).unwrap();
                let ranks = size as u64;
                assert_eq!(sum.output(), vec![ranks * (ranks - 1) / 2 + ranks * round; len]);
                assert!(max.output().iter().all(|&max| max == ranks - 1 + round));
                let everybody = (0..ranks).flat_map(|rank| vec![rank + round; len]);
                assert!(all.output().iter().copied().eq(everybody.clone()));
                assert!(swapped.output().iter().copied().eq(everybody));
                assert_eq!(word.output(), vec![round; len]);
                for input in [sum.input_mut(), max.input_mut(), all.input_mut(), swapped.input_mut()] {
                    input.iter_mut().for_each(|element| *element += 1);
                }
                barrier.start().wait().unwrap();
                // Others in between have numbers of their own.
                world.barrier().unwrap();
            }
        });
    }
}

#[selvedge::test(ranks = [3])]
fn persistent_collectives_can_be_started_in_different_orders_on_different_ranks(world: World) {
    let (mut a, mut b) = ([1u32], [10u32]);
    let (mut sum_a, mut sum_b) = ([0u32], [0u32]);
    world.scope(|scope| {
        let mut first = scope.allreduce_init(&mut a, &mut sum_a, &Op::sum()).unwrap();
        let mut second = scope.allreduce_init(&mut b, &mut sum_b, &Op::sum()).unwrap();
        for _ in 0..100 {
            if world.rank() == 1 {
                wait_all([second.start(), first.start()]).unwrap();
            } else {
                wait_all([first.start(), second.start()]).unwrap();
            }
            assert_eq!((first.output()[0], second.output()[0]), (3, 30));
        }
    });
}

#[selvedge::test(ranks = [2])]
fn a_round_that_is_cut_is_told_and_the_next_one_is_whole(world: World) {
    let other = 1 - world.rank();
    let mut into = [0u8; 10];
    world.scope(|scope| {
        let mut receive = scope.recv_init(&mut into, other, 0).unwrap();
        for len in [20usize, 10] {
            let round = receive.start();
            world.send(&vec![len as u8; len], other, 0).unwrap();
            match round.wait() {
                Err(Error::Truncated { sent: 20, capacity: 10, .. }) => assert_eq!(len, 20),
                other => assert_eq!((other.unwrap().bytes, len), (10, 10)),
            }
            assert_eq!(receive.buffer(), [len as u8; 10]);
        }
    });
}
