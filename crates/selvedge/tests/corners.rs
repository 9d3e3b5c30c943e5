//! The corners of point-to-point: nobody, oneself, nothing, matched probes, a buffer that is both ends.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{ANY_SOURCE, ANY_TAG, Error, Misuse, PROC_NULL, Status, World, wait_all};

/// A packet, several packets, and announced on every road.
const LENGTHS: [usize; 4] = [0, 8, 5_000, 300_000];

fn waits_for_itself<T: std::fmt::Debug>(result: selvedge::Result<T>, rank: usize) -> bool {
    matches!(result, Err(Error::Misuse(Misuse::WaitsForItself { rank: who })) if who == rank)
}

#[selvedge::test(ranks = [1, 2, 5])]
fn a_line_of_ranks_needs_no_special_case_at_its_ends(world: World) {
    let (me, last) = (world.rank(), world.size() - 1);
    let (left, right) = (me.checked_sub(1), (me < last).then_some(me + 1));
    for len in LENGTHS {
        let (mine, mut from_left, mut from_right) =
            (vec![me; len], vec![usize::MAX; len], vec![usize::MAX; len]);
        let status = world.sendrecv(&mine, right, 0, &mut from_left, left, 0).unwrap();
        assert_eq!(status.is_null(), left.is_none());
        world.scope(|scope| {
            let receive = scope.irecv(&mut from_right, right, 1).unwrap();
            let send = scope.isend(&mine, left, 1).unwrap();
            wait_all([receive, send]).unwrap();
        });
        assert_eq!(from_left, vec![left.unwrap_or(usize::MAX); len]);
        assert_eq!(from_right, vec![right.unwrap_or(usize::MAX); len]);
    }
}

#[selvedge::test(ranks = [2])]
fn elements_of_no_size_arrive_as_none(world: World) {
    let other = 1 - world.rank();
    world.send(&[(); 5], other, 0).unwrap();
    let (message, status) = world.recv_vec::<()>(other, 0).unwrap();
    assert_eq!((message.len(), status.bytes, status.count::<()>()), (0, 0, 0));
}

#[selvedge::test(ranks = [1, 2])]
fn what_comes_from_nobody_is_nothing_at_once(world: World) {
    let nothing = Status { source: world.rank(), tag: -1, bytes: 0 };
    let mut untouched = [7u8; 3];
    world.send(&untouched, PROC_NULL, 0).unwrap();
    assert_eq!(world.recv(&mut untouched, PROC_NULL, ANY_TAG).unwrap(), nothing);
    assert_eq!(world.sendrecv_replace(&mut untouched, None, 0, None, 0).unwrap(), nothing);
    assert_eq!(world.probe(PROC_NULL, 3).unwrap(), nothing);
    assert_eq!(world.iprobe(PROC_NULL, 3).unwrap(), Some(nothing));
    assert_eq!(world.recv_vec::<u64>(PROC_NULL, 3).unwrap(), (Vec::new(), nothing));
    assert_eq!(world.mprobe(PROC_NULL, 3).unwrap().recv(&mut untouched).unwrap(), nothing);
    assert_eq!(world.improbe(PROC_NULL, 3).unwrap().unwrap().status(), nothing);
    assert_eq!(untouched, [7; 3]);
    // Nonsense is nonsense also there.
    assert!(matches!(world.send(&untouched, None, -1), Err(Error::Misuse(Misuse::TagOutOfRange(-1)))));
}

#[selvedge::test(ranks = [1, 2, 3])]
fn a_message_is_replaced_by_the_one_that_comes(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    for len in LENGTHS {
        let mut token = vec![me as u16; len];
        let status = world.sendrecv_replace(&mut token, right, 4, left, 4).unwrap();
        assert_eq!(status, Status { source: left, tag: 4, bytes: 2 * len });
        assert_eq!(token, vec![left as u16; len]);
    }
}

#[selvedge::test(ranks = [2])]
fn a_replacement_that_is_too_long_fills_the_buffer_and_is_told(world: World) {
    let other = 1 - world.rank();
    for len in [8, 300_000] {
        let mut mine = vec![world.rank() as u8; len / (1 + world.rank())];
        let outcome = world.sendrecv_replace(&mut mine, other, 0, other, 0);
        assert!(mine[..len / 2].iter().all(|&byte| byte == other as u8), "{len}");
        if world.rank() == 0 {
            assert_eq!((outcome.unwrap().bytes, mine[len - 1]), (len / 2, 0), "what was longer stays");
        } else {
            assert!(matches!(outcome, Err(Error::Truncated { .. })));
        }
    }
}

#[selvedge::test(ranks = [2])]
fn a_probed_message_is_its_holders_alone(world: World) {
    let other = 1 - world.rank();
    for len in LENGTHS {
        let (first, second) = (vec![1u8; len], vec![2u8; len]);
        let (mut later, mut held) = (vec![0u8; len], vec![0u8; len]);
        world.scope(|scope| {
            let sends = [scope.isend(&first, other, 6).unwrap(), scope.isend(&second, other, 6).unwrap()];
            let message = world.mprobe(ANY_SOURCE, 6).unwrap();
            assert_eq!(message.status(), Status { source: other, tag: 6, bytes: len });
            world.recv(&mut later, other, 6).unwrap();
            assert_eq!(scope.imrecv(message, &mut held).unwrap().wait().unwrap().bytes, len);
            wait_all(sends).unwrap();
        });
        assert_eq!((held, later), (first, second));
    }
}

#[selvedge::test(ranks = [2])]
fn a_message_that_is_dropped_is_the_next_to_be_received(world: World) {
    let other = 1 - world.rank();
    for len in LENGTHS {
        let (first, second) = (vec![1u8; len], vec![2u8; len]);
        world.scope(|scope| {
            let sends = [scope.isend(&first, other, 6).unwrap(), scope.isend(&second, other, 6).unwrap()];
            drop(world.mprobe(other, ANY_TAG).unwrap());
            assert_eq!(world.recv_vec::<u8>(ANY_SOURCE, ANY_TAG).unwrap().0, first);
            assert_eq!(world.recv_vec::<u8>(other, 6).unwrap().0, second);
            wait_all(sends).unwrap();
        });
    }
}

#[selvedge::test(ranks = [1, 2])]
fn a_message_is_received_where_it_was_found(world: World) {
    let (me, twin) = (world.rank(), world.dup().unwrap());
    world.send(&[5u8], me, 0).unwrap();
    let mut into = [0u8];
    twin.scope(|scope| {
        let message = world.mprobe(me, 0).unwrap();
        let error = scope.imrecv(message, &mut into).unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::OtherCommunicator { .. })), "{error}");
    });
    assert_eq!(world.recv_vec::<u8>(me, 0).unwrap().0, [5], "it was put back");
}

#[selvedge::test(ranks = [1, 2])]
fn whoever_waits_for_itself_is_told_so(world: World) {
    let me = world.rank();
    let (long, mut into) = (vec![1u8; 300_000], vec![0u8; 300_000]);
    assert!(waits_for_itself(world.send(&long, me, 1), me));
    assert!(waits_for_itself(world.recv(&mut into, me, 1), me), "the send is gone");
    assert!(waits_for_itself(world.probe(me, 1), me));
    assert!(waits_for_itself(world.mprobe(me, ANY_TAG), me));
    assert!(waits_for_itself(world.sendrecv(&long, me, 1, &mut into, me, 2), me));
    assert!(world.scope(|scope| waits_for_itself(scope.isend(&long, me, 1).unwrap().wait(), me)));
    if world.size() == 1 {
        assert!(waits_for_itself(world.recv(&mut into, ANY_SOURCE, ANY_TAG), me), "there is nobody else");
    }
    // And what is right still works.
    world.send(&long[..100], me, 1).unwrap();
    assert_eq!(world.recv_vec::<u8>(me, 1).unwrap().0, long[..100]);
    world.scope(|scope| {
        let receive = scope.irecv(&mut into, me, 1).unwrap();
        world.send(&long, me, 1).unwrap();
        receive.wait().unwrap();
    });
    assert_eq!(into, long);
}

#[selvedge::test(ranks = [1, 2])]
fn many_messages_to_oneself_are_kept_until_memory_is_short_and_then_told(world: World) {
    // More than may be kept of messages that nobody has asked for.
    let (me, message) = (world.rank(), vec![3u8; 8_000]);
    let mut sent = 0;
    let outcome = loop {
        match world.send(&message, me, 9) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100_000, "memory for what nobody asks for is bounded");
    };
    assert!(waits_for_itself::<()>(Err(outcome), me));
    for _ in 0..sent {
        assert_eq!(world.recv_vec::<u8>(me, 9).unwrap().0, message);
    }
}

#[selvedge::test(ranks = [2])]
fn messages_of_nothing_travel_and_keep_their_order(world: World) {
    let other = 1 - world.rank();
    for tag in [1, 2, 1] {
        world.send::<[f64]>(&[], other, tag).unwrap();
        world.send(&[[0u8; 0]; 9], other, tag).unwrap();
    }
    for tag in [1, 1, 2] {
        for _ in 0..2 {
            let status = world.recv::<[f64]>(&mut [], other, tag).unwrap();
            assert_eq!((status.source, status.tag, status.bytes), (other, tag, 0));
        }
    }
}

#[selvedge::test(ranks = [2])]
fn a_cancelled_send_never_arrives_and_one_that_is_not_does(world: World) {
    // More than any credit pays for, so that the last ones cannot have left: starting a send does not look for credit.
    const SENDS: usize = 17_000;
    let nothing = [0u8; 0];
    if world.rank() == 1 {
        let sent = world.recv_value::<usize>(0, 1).unwrap().0;
        for _ in 0..sent {
            world.recv(&mut [0u8; 0], 0, 0).unwrap();
        }
        world.barrier().unwrap();
        return assert_eq!(world.iprobe(ANY_SOURCE, ANY_TAG).unwrap(), None);
    }
    world.scope(|scope| {
        let mut sends: Vec<_> = (0..SENDS).map(|_| scope.isend(&nothing, 1, 0).unwrap()).collect();
        assert!(sends.pop().unwrap().cancel().unwrap());
        world.send_value(&sends.len(), 1, 1).unwrap();
        wait_all(sends).unwrap();
    });
    world.barrier().unwrap();
}
