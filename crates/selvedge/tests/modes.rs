//! Synchronous, ready and buffered sends.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{ANY_SOURCE, ANY_TAG, Error, Misuse, World, wait_all};

/// A packet, several packets, and announced on every road.
const LENGTHS: [usize; 4] = [0, 8, 5_000, 300_000];

#[selvedge::test(ranks = [2, 3])]
fn a_synchronous_send_is_complete_when_its_receive_is_there_and_not_before(world: World) {
    for len in LENGTHS {
        let mut got = vec![0u8; len];
        match world.rank() {
            0 => {
                let message = vec![7u8; len];
                world.scope(|scope| {
                    let mut send = scope.issend(&message, 1, 5).unwrap();
                    // Rank 1 has seen the message, and answers that before it receives it.
                    world.recv(&mut [0u8; 0], 1, 6).unwrap();
                    assert_eq!(send.test().unwrap(), None, "{len} bytes");
                    world.send(&[0u8; 0], 1, 7).unwrap();
                    send.wait().unwrap();
                });
                world.ssend(&message, 1, 5).unwrap();
            }
            1 => {
                world.probe(0, 5).unwrap();
                world.send(&[0u8; 0], 0, 6).unwrap();
                world.recv(&mut [0u8; 0], 0, 7).unwrap();
                for _ in 0..2 {
                    world.recv(&mut got, 0, 5).unwrap();
                    assert_eq!(got, vec![7; len]);
                }
            }
            _ => {}
        }
    }
}

#[selvedge::test(ranks = [1, 2])]
fn modes_to_oneself_and_to_nobody(world: World) {
    let me = world.rank();
    for len in LENGTHS {
        let (message, mut got) = (vec![3u8; len], vec![0u8; len]);
        world.scope(|scope| {
            let receive = scope.irecv(&mut got, me, 1).unwrap();
            world.ssend(&message, me, 1).unwrap();
            receive.wait().unwrap();
        });
        assert_eq!(got, message);
        world.ssend(&message, None, 1).unwrap();
        world.rsend(&message, None, 1).unwrap();
        let waits = world.ssend(&message, me, 1).unwrap_err();
        assert!(matches!(waits, Error::Misuse(Misuse::WaitsForItself { .. })), "{len}: {waits}");
    }
    assert_eq!(world.iprobe(ANY_SOURCE, ANY_TAG).unwrap(), None, "what was given up is gone");
}

#[selvedge::test(ranks = [2])]
fn all_modes_keep_one_order(world: World) {
    let (other, mut buffer) = (1 - world.rank(), world.send_buffer(1 << 20));
    for len in [1, 5_000] {
        let messages: Vec<Vec<u16>> = (0..20).map(|number| vec![number; len]).collect();
        world.scope(|scope| {
            let mut open = Vec::new();
            for (number, message) in messages.iter().enumerate() {
                match number % 4 {
                    0 => open.push(scope.issend(message, other, 0).unwrap()),
                    1 => buffer.bsend(message, other, 0).unwrap(),
                    2 => open.push(scope.irsend(message, other, 0).unwrap()),
                    _ => open.push(scope.isend(message, other, 0).unwrap()),
                }
            }
            for message in &messages {
                assert_eq!(&world.recv_vec::<u16>(ANY_SOURCE, ANY_TAG).unwrap().0, message);
            }
            wait_all(open).unwrap();
        });
    }
}

#[selvedge::test(ranks = [2])]
fn a_buffered_send_is_over_whatever_the_receiver_does_and_refuses_when_there_is_no_room(world: World) {
    const LEN: usize = 300_000;
    if world.rank() == 0 {
        let mut buffer = world.send_buffer(3 * LEN + 3 * 64);
        let mut message = vec![0u8; LEN];
        for number in 0..3 {
            message.fill(number);
            buffer.bsend(&message, 1, 0).unwrap();
        }
        let full = buffer.bsend(&message, 1, 0).unwrap_err();
        assert!(matches!(full, Error::Misuse(Misuse::BufferFull { .. })), "{full}");
        world.send(&[0u8], 1, 1).unwrap();
        buffer.flush().unwrap();
        message.fill(3);
        buffer.bsend(&message, 1, 0).unwrap();
        let never = buffer.bsend(&vec![0u8; 4 * LEN], 1, 0);
        assert!(matches!(never, Err(Error::Misuse(Misuse::BufferFull { .. }))));
    } else {
        world.recv(&mut [0u8], 0, 1).unwrap();
        for number in 0..4 {
            assert_eq!(world.recv_vec::<u8>(0, 0).unwrap().0, vec![number; LEN]);
        }
    }
}

#[selvedge::test(ranks = [2])]
fn a_buffer_is_used_round_and_round(world: World) {
    // Room for a few at a time, of lengths that never fit evenly; all are announced.
    let lengths = [100_000usize, 170_001, 130_003, 99_999];
    if world.rank() == 0 {
        let mut buffer = world.send_buffer(500_000);
        for number in 0..60u8 {
            let message = vec![number; lengths[usize::from(number) % 4]];
            while let Err(full) = buffer.bsend(&message, 1, 0) {
                assert!(matches!(full, Error::Misuse(Misuse::BufferFull { .. })), "{full}");
            }
        }
    } else {
        for number in 0..60u8 {
            let expected = vec![number; lengths[usize::from(number) % 4]];
            assert!(world.recv_vec::<u8>(0, 0).unwrap().0 == expected, "{number}");
        }
    }
}
