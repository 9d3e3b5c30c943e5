//! Synchronous sends.

use selvedge_engine::{Config, Failure, Order, RoadConfig};
use selvedge_transport::{Peer, SimConfig};

use crate::world::{ANNOUNCED, World};

/// Fits a packet, just or not; would be a train; is announced.
const LENGTHS: [usize; 6] = [0, 8, 231, 232, 5_000, ANNOUNCED];

fn world(config: &Config) -> World {
    World::new(SimConfig { packet_bytes_max: 256, ..SimConfig::default() }, config)
}

#[test]
fn a_synchronous_send_is_over_when_its_receive_is_there_and_not_before() {
    for bytes in LENGTHS {
        let mut world = world(&Config::default());
        let sent = world.send_sync(0, 1, 0, 5, &vec![7; bytes]);
        world.settle();
        assert_eq!(world.outcome(0, sent), None, "{bytes} bytes");
        assert!(world.probe(1, Some(0), 0, Some(5)).is_some());
        let received = world.recv(1, Some(0), 0, Some(5), bytes);
        world.settle();
        assert!(matches!(world.outcome(0, sent), Some(Ok(envelope)) if envelope.bytes == bytes as u64));
        assert_eq!(world.received(1, received), vec![7; bytes]);
        assert_eq!(world.engines[1].units_held(Peer(0)), 0);
    }
}

#[test]
fn a_short_synchronous_send_to_a_posted_receive_takes_two_packets() {
    let mut world = world(&Config::default());
    let received = world.recv(1, None, 0, None, 8);
    let sent = world.send_sync(0, 1, 0, 5, &[7; 8]);
    world.settle();
    assert!(matches!(world.outcome(0, sent), Some(Ok(_))));
    assert_eq!(world.received(1, received), [7; 8]);
    assert_eq!((world.engines[0].stats().sent_sync, world.engines[0].stats().sent_rendezvous), (1, 0));
    assert_eq!(world.sim.stats().packets, 2);
}

#[test]
fn synchronous_and_other_sends_keep_their_order() {
    for bytes in LENGTHS {
        let mut world = world(&Config::default());
        for number in 0..20 {
            let message = vec![number; bytes.max(1)];
            match number % 2 {
                0 => world.send(0, 1, 0, 5, Order::Ordered, &message),
                _ => world.send_sync(0, 1, 0, 5, &message),
            };
        }
        for number in 0..20 {
            let received = world.recv(1, None, 0, None, bytes.max(1));
            world.settle();
            assert_eq!(world.received(1, received)[0], number);
        }
    }
}

#[test]
fn a_synchronous_send_without_credit_waits_for_its_receive_all_the_same() {
    let road = RoadConfig::default();
    let mut world = world(&Config { unexpected_bytes_limit: 0, road, ..Config::default() });
    let sent: Vec<u64> = (0..100).map(|_| world.send_sync(0, 1, 0, 5, &[7; 100])).collect();
    world.settle();
    assert!(world.engines[0].stats().sent_demoted > 0);
    for sent in sent {
        assert_eq!(world.outcome(0, sent), None);
        world.recv(1, Some(0), 0, Some(5), 100);
        world.settle();
        assert!(matches!(world.outcome(0, sent), Some(Ok(_))));
    }
}

#[test]
fn a_synchronous_send_to_a_peer_that_dies_fails_and_one_from_the_dead_is_received() {
    for bytes in [8, 200] {
        let mut world = world(&Config::default());
        let to_the_dead = world.send_sync(0, 1, 0, 5, &vec![7; bytes]);
        world.send_sync(1, 0, 0, 5, &vec![8; bytes]);
        world.settle();
        world.sim.kill(Peer(1));
        world.settle();
        assert!(matches!(world.outcome(0, to_the_dead), Some(Err(Failure::Fault(_)))));
        let from_the_dead = world.recv(0, Some(1), 0, Some(5), bytes);
        assert_eq!(world.received(0, from_the_dead), vec![8; bytes]);
    }
}
