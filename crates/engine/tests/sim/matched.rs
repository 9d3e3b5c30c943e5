//! Messages that a probe takes out, and waits for oneself.

use selvedge_engine::{Config, Context, Failure, Order};
use selvedge_transport::{Peer, SimConfig};

use crate::world::{ANNOUNCED, World};

/// A short one, one in several packets, and one that is announced.
const LENGTHS: [usize; 4] = [0, 5, 10_000, ANNOUNCED];

fn world(peers: usize) -> World {
    World::new(SimConfig { peers, ..SimConfig::default() }, &Config::default())
}

#[test]
fn a_message_that_a_probe_took_out_is_received_by_nobody_else() {
    for bytes in LENGTHS {
        let mut world = world(2);
        for first in [b'a', b'b'] {
            world.send(0, 1, 0, 5, Order::Ordered, &vec![first; bytes]);
        }
        world.settle();
        let message = world.probe_matched(1, None, 0, None).expect("it is here");
        let envelope = message.envelope();
        assert_eq!((envelope.source, envelope.tag.0, envelope.bytes), (Peer(0), 5, bytes as u64));
        let other = world.recv(1, Some(0), 0, Some(5), bytes);
        world.settle();
        assert_eq!(world.received(1, other), vec![b'b'; bytes]);
        let user = world.user();
        world.recv_matched(1, message, bytes, user);
        world.settle();
        assert_eq!(world.received(1, user), vec![b'a'; bytes]);
        assert_eq!(world.engines[1].units_held(Peer(0)), 0);
    }
}

#[test]
fn a_message_that_is_put_back_stands_where_it_stood() {
    for bytes in LENGTHS {
        let mut world = world(2);
        for (first, tag) in [(b'a', 1), (b'b', 2), (b'c', 1)] {
            world.send(0, 1, 0, tag, Order::Ordered, &vec![first; bytes]);
        }
        world.settle();
        let first = world.probe_matched(1, Some(0), 0, Some(1)).expect("it is here");
        let second = world.probe_matched(1, None, 0, Some(2)).expect("it is here");
        world.engines[1].put_back(second);
        world.engines[1].put_back(first);
        for (expected, tag) in [(b'a', None), (b'c', Some(1)), (b'b', Some(2))] {
            let user = world.recv(1, None, 0, tag, bytes);
            world.settle();
            assert_eq!(world.received(1, user), vec![expected; bytes]);
        }
    }
}

#[test]
fn a_message_that_is_put_back_goes_to_the_receive_that_was_posted_meanwhile() {
    for bytes in LENGTHS {
        let mut world = world(2);
        world.send(0, 1, 0, 5, Order::Ordered, &vec![7; bytes]);
        world.settle();
        let message = world.probe_matched(1, None, 0, None).expect("it is here");
        let receive = world.recv(1, None, 0, None, bytes);
        world.settle();
        assert_eq!(world.outcome(1, receive), None);
        world.engines[1].put_back(message);
        world.settle();
        assert_eq!(world.received(1, receive), vec![7; bytes]);
    }
}

#[test]
fn a_held_message_of_a_dead_sender_is_received_if_it_is_whole_and_fails_if_it_is_not() {
    for (bytes, arrives) in [(5, true), (10_000, true), (ANNOUNCED, false)] {
        let mut world = world(2);
        world.send(0, 1, 0, 5, Order::Ordered, &vec![7; bytes]);
        world.settle();
        let message = world.probe_matched(1, None, 0, None).expect("it is here");
        world.sim.kill(Peer(0));
        world.settle();
        let user = world.user();
        world.recv_matched(1, message, bytes, user);
        world.settle();
        match world.outcome(1, user) {
            Some(Ok(_)) => assert!(arrives),
            Some(Err(Failure::Fault(_))) => assert!(!arrives),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_send_to_oneself_that_nobody_can_receive_any_more_is_given_up() {
    let mut world = world(2);
    let sent = world.send(0, 0, 0, 5, Order::Ordered, &[7; ANNOUNCED]);
    let request = world.request(0, sent);
    assert!(!world.engines[0].give_up_on_oneself(request, false), "it has not arrived");
    world.settle();
    assert!(world.engines[0].give_up_on_oneself(request, false));
    world.settle();
    assert_eq!(world.outcome(0, sent), Some(&Err(Failure::Cancelled)));
    assert!(world.probe(0, None, 0, None).is_none());
}

#[test]
fn a_send_to_oneself_that_a_receive_has_met_is_not_given_up() {
    let mut world = world(2);
    let received = world.recv(0, None, 0, None, ANNOUNCED);
    let sent = world.send(0, 0, 0, 5, Order::Ordered, &[7; ANNOUNCED]);
    let request = world.request(0, sent);
    while world.outcome(0, sent).is_none() {
        assert!(!world.engines[0].give_up_on_oneself(request, false));
        if !world.poll(0) {
            world.sim.advance();
        }
    }
    world.settle();
    assert_eq!(world.received(0, received), [7; ANNOUNCED]);
}

#[test]
fn a_receive_from_oneself_is_given_up_when_nothing_is_on_its_way() {
    let mut world = world(2);
    let from_self = world.recv(0, Some(0), 0, Some(5), 8);
    let from_anyone = world.recv(0, None, 0, Some(5), 8);
    let [mine, anyones] = [from_self, from_anyone].map(|user| world.request(0, user));
    world.send(0, 0, 0, 6, Order::Ordered, &[7; 8]);
    assert!(!world.engines[0].give_up_on_oneself(mine, false), "a message is on its way");
    world.settle();
    assert!(!world.engines[0].give_up_on_oneself(anyones, false), "rank 1 may send it");
    assert!(!world.engines[0].probes_for_itself(None, false));
    assert!(world.engines[0].probes_for_itself(Some(Peer(0)), false));
    assert!(world.engines[0].give_up_on_oneself(mine, false));
    assert!(world.engines[0].give_up_on_oneself(anyones, true), "if there is no rank 1");
    assert!(world.engines[0].probe(None, Context(0), None).unwrap().is_some(), "the other is still here");
}
