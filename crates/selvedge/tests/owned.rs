//! Requests that own their buffers, and requests as futures.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use selvedge::{ANY_SOURCE, ANY_TAG, Error, Misuse, OwnedRequest, World};

const LENGTHS: [usize; 4] = [0, 8, 5_000, 300_000];

fn block_on<F: Future>(task: F) -> F::Output {
    let mut task = pin!(task);
    loop {
        if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

#[selvedge::test(ranks = [1, 2, 3])]
fn a_buffer_comes_back_with_what_came(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    for len in LENGTHS {
        let receive = world.irecv_owned(vec![0usize; len], left, 0);
        let send = world.issend_owned(vec![me; len].into_boxed_slice(), right, 0);
        let (status, got) = receive.wait();
        assert_eq!((status.unwrap().count::<usize>(), got), (len, vec![left; len]));
        let (status, mine) = send.wait();
        status.unwrap();
        assert_eq!(&mine[..], vec![me; len]);
    }
}

#[selvedge::test(ranks = [1, 2])]
fn a_buffer_comes_back_also_with_an_error(world: World) {
    let (status, buffer) = world.isend_owned(vec![5u8; 3], world.size(), 0).wait();
    assert!(matches!(status, Err(Error::Misuse(Misuse::RankOutOfRange { .. }))));
    assert_eq!(buffer, [5; 3]);
    let (status, buffer) = world.irecv_owned(vec![6u8; 3], ANY_SOURCE, -2).cancel();
    assert!(matches!(status, Err(Error::Misuse(Misuse::TagOutOfRange(-2)))));
    assert_eq!(buffer, [6; 3]);
    let (status, buffer) = world.irecv_owned(vec![7u8; 3], ANY_SOURCE, ANY_TAG).cancel();
    assert!(matches!(status, Err(Error::Cancelled)));
    assert_eq!(buffer, [7; 3]);
    assert!(world.irecv_owned(buffer, None, 0).wait().0.unwrap().is_null());
}

#[selvedge::test(ranks = [2])]
fn a_dropped_receive_takes_no_message_and_a_dropped_send_arrives(world: World) {
    let other = 1 - world.rank();
    for len in LENGTHS {
        drop(world.irecv_owned(vec![0u8; len], other, 0));
        world.barrier().unwrap();
        drop(world.isend_owned(vec![7u8; len], other, 0));
        assert_eq!(world.recv_vec::<u8>(other, 0).unwrap().0, vec![7; len]);
    }
}

#[selvedge::test(ranks = [2])]
fn dropped_sends_leave_before_their_communicator_does(world: World) {
    let twin = world.dup().unwrap();
    if world.rank() == 0 {
        for tag in 0..5 {
            drop(twin.isend_owned(vec![tag as u8; 200_000], 1, tag));
        }
        drop(twin);
        world.send(&[1u8], 1, 0).unwrap();
    } else {
        for tag in (0..5).rev() {
            assert_eq!(twin.recv_vec::<u8>(0, tag).unwrap().0, vec![tag as u8; 200_000]);
        }
        world.recv(&mut [0u8], 0, 0).unwrap();
    }
}

#[selvedge::test(ranks = [2])]
fn a_leaked_request_leaks_its_buffer_and_nothing_else(world: World) {
    let other = 1 - world.rank();
    std::mem::forget(world.irecv_owned(vec![0u8; 100_000], other, 0));
    world.send(&vec![1u8; 100_000], other, 0).unwrap();
    world.barrier().unwrap();
}

#[selvedge::test(ranks = [2, 3])]
fn requests_are_futures_for_any_executor(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    for len in LENGTHS {
        let got = block_on(async {
            let receive = world.irecv_owned(vec![0usize; len], left, 0);
            let send = world.isend_owned(vec![me; len], right, 0);
            let (received, got) = receive.await;
            assert_eq!(received.unwrap().source, left);
            send.await.0.unwrap();
            got
        });
        assert_eq!(got, vec![left; len]);
        let (mine, mut theirs) = (vec![me; len], vec![0; len]);
        world.scope(|scope| {
            let receive = scope.irecv(&mut theirs, left, 1).unwrap();
            let send = scope.isend(&mine, right, 1).unwrap();
            block_on(async { receive.await.and(send.await) }).unwrap();
        });
        assert_eq!(theirs, vec![left; len]);
    }
}

#[selvedge::test(ranks = [3])]
fn one_of_many_that_own_their_buffers_is_waited_for_also_when_its_sender_is_gone(world: World) {
    if world.rank() == 2 {
        return;
    }
    let other = 1 - world.rank();
    let mut open = vec![world.irecv_owned(vec![0; 2], other, 0), world.irecv_owned(vec![5; 2], 2, 0)];
    world.send(&[world.rank(); 2], other, 0).unwrap();
    let (mut came, mut failed) = (0, 0);
    while let Some((_, outcome, buffer)) = OwnedRequest::wait_any(&mut open) {
        match outcome {
            Ok(status) => came += usize::from((status.source, buffer) == (other, vec![other; 2])),
            Err(error) => {
                failed += usize::from(matches!(error, Error::Fault { rank: Some(2), .. }) && buffer == [5; 2])
            }
        }
    }
    assert_eq!((came, failed), (1, 1));
}

#[selvedge::test(ranks = [2])]
fn threads_wait_for_one_of_many_that_own_their_buffers(world: World) {
    let (team, other) = (world.team(), 1 - world.rank());
    std::thread::scope(|threads| {
        for tag in 0..2 {
            let team = &team;
            threads.spawn(move || {
                let mine = team.communicator();
                let mut open: Vec<_> = (0..3).map(|_| mine.irecv_owned(vec![9; 1], other, tag)).collect();
                for part in 0..3 {
                    mine.send(&[part], other, tag).unwrap();
                }
                let mut came = Vec::new();
                while let Some((_, outcome, buffer)) = OwnedRequest::wait_any(&mut open) {
                    outcome.unwrap();
                    came.extend(buffer);
                }
                came.sort_unstable();
                assert_eq!(came, [0, 1, 2]);
            });
        }
    });
}
