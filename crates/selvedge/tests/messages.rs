//! Point-to-point messages between real ranks.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{ANY_SOURCE, ANY_TAG, Datatype, Error, Misuse, Status, World};

/// Lengths around every limit where the road changes: empty, inline, eager, rendezvous, shared copies.
const LENGTHS: [usize; 12] = [0, 1, 7, 40, 41, 1000, 8_100, 8_192, 16_384, 70_000, 300_001, 5_000_000];

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + salt * 7 + (i >> 8)) as u8).collect()
}

#[selvedge::test(ranks = [1, 2, 3, 5])]
fn every_length_arrives_whole_around_a_ring(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (right, left) = ((me + 1) % size, (me + size - 1) % size);
    for len in LENGTHS {
        let mut got = vec![0; len];
        let status = world.sendrecv(&pattern(len, me), right, 3, &mut got, left, 3).unwrap();
        assert_eq!(status, Status { source: left, tag: 3, bytes: len });
        assert!(got == pattern(len, left), "{len} bytes");
    }
}

fn there_and_back<T: Datatype + PartialEq + std::fmt::Debug>(world: &World, values: &[T]) {
    match world.rank() {
        0 => {
            world.send(values, 1, 0).unwrap();
            let (back, status) = world.recv_vec::<T>(1, 1).unwrap();
            assert_eq!(back, values);
            assert_eq!(status.count::<T>(), values.len());
        }
        _ => {
            let (got, _) = world.recv_vec::<T>(0, 0).unwrap();
            world.send(&got, 0, 1).unwrap();
        }
    }
}

#[selvedge::test(ranks = [2])]
fn every_integer_and_float_type_travels(world: World) {
    there_and_back(&world, &[1u8, 255]);
    there_and_back(&world, &[1u16, u16::MAX]);
    there_and_back(&world, &[1u32, u32::MAX]);
    there_and_back(&world, &[1u64, u64::MAX]);
    there_and_back(&world, &[1u128, u128::MAX]);
    there_and_back(&world, &[1usize, usize::MAX]);
    there_and_back(&world, &[-1i8, i8::MIN]);
    there_and_back(&world, &[-1i16, i16::MIN]);
    there_and_back(&world, &[-1i32, i32::MIN]);
    there_and_back(&world, &[-1i64, i64::MIN]);
    there_and_back(&world, &[-1i128, i128::MIN]);
    there_and_back(&world, &[-1isize, isize::MIN]);
    there_and_back(&world, &[0.5f32, f32::MIN]);
    there_and_back(&world, &[0.5f64, f64::MAX]);
    there_and_back(&world, &[[1.0f32, 2.0], [3.0, 4.0]]);
}

#[selvedge::test(ranks = [2])]
fn messages_of_one_sender_do_not_overtake_each_other(world: World) {
    const MESSAGES: usize = 2_000;
    for round in 0..MESSAGES {
        // Long ones among short ones: they take another road and must not be overtaken for it.
        let len = if round % 50 == 0 { 20_000 } else { round % 10 };
        if world.rank() == 0 {
            world.send(&vec![round as u32; len], 1, 0).unwrap();
        } else {
            let (got, _) = world.recv_vec::<u32>(ANY_SOURCE, ANY_TAG).unwrap();
            assert_eq!(got, vec![round as u32; len]);
        }
    }
}

#[selvedge::test(ranks = [2, 3, 5])]
fn a_wildcard_receive_says_who_and_what(world: World) {
    if world.rank() > 0 {
        return world.send(&[world.rank() as u64], 0, world.rank() as i32 * 10).unwrap();
    }
    let mut seen = vec![false; world.size()];
    for _ in 1..world.size() {
        let mut got = [0u64];
        let status = world.recv(&mut got, ANY_SOURCE, ANY_TAG).unwrap();
        assert_eq!((status.source as u64, status.tag), (got[0], got[0] as i32 * 10));
        assert!(!std::mem::replace(&mut seen[status.source], true));
    }
}

#[selvedge::test(ranks = [2])]
fn tags_are_received_in_the_order_the_receiver_likes(world: World) {
    if world.rank() == 0 {
        world.send(&[1u8], 1, 1).unwrap();
        world.send(&[2u8], 1, 2).unwrap();
    } else {
        let mut got = [0u8];
        world.recv(&mut got, 0, 2).unwrap();
        assert_eq!(got, [2]);
        world.recv(&mut got, 0, 1).unwrap();
        assert_eq!(got, [1]);
    }
}

#[selvedge::test(ranks = [2])]
fn a_receive_shorter_than_the_message_is_truncated_and_the_next_one_is_whole(world: World) {
    for len in [100usize, 100_000] {
        if world.rank() == 0 {
            world.send(&pattern(len, 1), 1, 5).unwrap();
            world.send(&pattern(8, 2), 1, 5).unwrap();
        } else {
            let mut short = vec![0u8; 10];
            let error = world.recv(&mut short, 0, 5).unwrap_err();
            let Error::Truncated { source_rank: 0, tag: 5, sent, capacity: 10 } = error else {
                panic!("{error}")
            };
            assert_eq!(sent, len as u64);
            assert_eq!(short, pattern(len, 1)[..10]);
            assert_eq!(world.recv_vec::<u8>(0, 5).unwrap().0, pattern(8, 2));
        }
    }
}

#[selvedge::test(ranks = [2])]
fn a_probe_sees_the_message_and_leaves_it(world: World) {
    if world.rank() == 0 {
        world.send(&[7u16; 9], 1, 4).unwrap();
        world.send(&[0u8; 50_000], 1, 6).unwrap();
    } else {
        let expected = Status { source: 0, tag: 4, bytes: 18 };
        assert_eq!(world.probe(ANY_SOURCE, ANY_TAG).unwrap(), expected);
        assert_eq!(world.iprobe(0, 4).unwrap(), Some(expected));
        assert_eq!(world.iprobe(0, 5).unwrap(), None);
        assert_eq!(world.probe(0, 6).unwrap().bytes, 50_000);
        assert_eq!(world.recv_vec::<u16>(0, 4).unwrap().0, [7; 9]);
        world.recv_vec::<u8>(0, 6).unwrap();
        assert_eq!(world.iprobe(ANY_SOURCE, ANY_TAG).unwrap(), None);
    }
}

#[selvedge::test(ranks = [2])]
fn values_of_any_serde_type_travel(world: World) {
    let value = (vec![String::from("warp"), String::from("weft")], Some(3.5f64), [1u8; 3]);
    if world.rank() == 0 {
        world.send_value(&value, 1, 0).unwrap();
        world.send(&[0xFFu8; 3], 1, 1).unwrap();
    } else {
        let (got, _) = world.recv_value::<(Vec<String>, Option<f64>, [u8; 3])>(0, 0).unwrap();
        assert_eq!(got, value);
        let error = world.recv_value::<String>(0, 1).unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::Encoding(_))), "{error}");
    }
}

#[selvedge::test(ranks = [2])]
fn bytes_that_are_no_whole_elements_are_refused_and_gone(world: World) {
    if world.rank() == 0 {
        world.send(&[1u8; 7], 1, 0).unwrap();
        world.send(&[9u32], 1, 0).unwrap();
    } else {
        let error = world.recv_vec::<u32>(0, 0).unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::PartialElement { bytes: 7, .. })), "{error}");
        assert_eq!(world.recv_vec::<u32>(0, 0).unwrap().0, [9]);
    }
}

#[selvedge::test(ranks = [1, 2])]
fn nonsense_is_refused_before_anything_is_sent(world: World) {
    let size = world.size();
    let error = world.send(&[0u8], size, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("destination is rank {size}, but the communicator has ranks 0 to {}", size - 1)
    );
    assert!(matches!(world.send(&[0u8], 0, -1), Err(Error::Misuse(Misuse::TagOutOfRange(-1)))));
    assert!(matches!(world.recv(&mut [0u8], size, 0), Err(Error::Misuse(Misuse::RankOutOfRange { .. }))));
    assert!(matches!(world.recv(&mut [0u8], 0, -5), Err(Error::Misuse(Misuse::TagOutOfRange(-5)))));
}

#[selvedge::test(ranks = [1, 2, 3])]
fn a_rank_can_send_to_itself(world: World) {
    for len in LENGTHS {
        let me = world.rank();
        let mut got = vec![0; len];
        world.sendrecv(&pattern(len, 9), me, 1, &mut got, me, 1).unwrap();
        assert_eq!(got, pattern(len, 9));
    }
}
