//! Peers that die.

use selvedge_engine::{Config, Context, Failure, Mutant, Order, Tag};
use selvedge_transport::{Cause, Peer, Rng, SimConfig};

use crate::program;
use crate::world::{ANNOUNCED, World};

/// Runs a program of random sends and receives in which the last rank dies at a random moment. Everybody must be told
/// of everything, and what does not depend on the dead rank must go on.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let peers = *rng.pick(&[2, 3, 4]);
    let network = program::network(&mut rng, peers);
    let mut config = program::config(&mut rng, mutant);
    config.road.piece_bytes_max = 300;
    let mut world = World::new(network, &config);
    let victim = peers - 1;
    let mut alive = Vec::new();
    for _ in 0..rng.within(1..=30) {
        let (from, to) = (rng.index(peers), rng.index(peers));
        let len = rng.below(3_000) as usize;
        let bytes = rng.bytes(len);
        let tag = rng.below(2);
        world.send(from, to, 0, tag, Order::Ordered, &bytes);
        let source = (!rng.one_in(3)).then_some(from);
        world.recv(to, source, 0, Some(tag), 3_000);
        for _ in 0..rng.below(6) {
            if !world.poll(rng.index(peers)) {
                world.sim.advance();
            }
        }
    }
    world.sim.kill(Peer(victim as u32));
    world.settle();
    // Whoever still waits for the dead rank must not: everything left depends on the living only.
    for at in 0..victim {
        let expected = world.engines[at].take_faults();
        if expected.len() != 1 || expected[0].cause != Cause::PeerDied {
            return Err(format!("rank {at} was told {expected:?}"));
        }
        for other in 0..victim {
            let bytes = rng.bytes(5_000);
            let sent = world.send(at, other, 1, 9, Order::Ordered, &bytes);
            let received = world.recv(other, Some(at), 1, Some(9), 5_000);
            alive.push((at, other, sent, received, bytes));
        }
        let late_send = world.send(at, victim, 0, 0, Order::Ordered, b"too late");
        let late_receive = world.recv(at, Some(victim), 1, None, 10);
        for user in [late_send, late_receive] {
            if !matches!(world.outcome(at, user), Some(Err(Failure::Fault(_)))) {
                return Err(format!("rank {at} may still talk to the dead"));
            }
        }
    }
    world.settle();
    for (at, other, sent, received, bytes) in alive {
        if world.outcome(at, sent).is_none() || world.received(other, received) != bytes {
            return Err(format!("ranks {at} and {other} are alive and cannot talk"));
        }
    }
    // What is pending now waits for the living. Sends to the living are received by wildcards; then nothing is left.
    for at in 0..victim {
        while world.probe(at, None, 0, None).is_some() {
            world.recv(at, None, 0, None, 3_000);
            world.settle();
        }
    }
    told(&world, victim)
}

/// Whether every operation of the living that needs the dead has ended; a receive from anyone that was posted before
/// the death counts, because the dead might have been meant.
fn told(world: &World, victim: usize) -> Result<(), String> {
    for at in 0..victim {
        let pending = world.engines[at].pending();
        let exact = world.pending_on_the_living(at, victim);
        if pending != exact {
            return Err(format!("rank {at} waits for {pending} operations, {exact} of them for the living"));
        }
    }
    match world.late_writes() {
        Some(wrong) => Err(wrong),
        None => Ok(()),
    }
}

pub(crate) const ANY: Option<usize> = None;

pub(crate) fn fault_of(world: &World, at: usize, user: u64) -> Cause {
    match world.outcome(at, user) {
        Some(Err(Failure::Fault(fault))) => fault.cause,
        other => panic!("operation {user} of rank {at} ended as {other:?}"),
    }
}

pub(crate) fn three() -> World {
    World::new(SimConfig { peers: 3, ..SimConfig::default() }, &Config::default())
}

#[test]
fn receives_from_anyone_fail_until_the_owner_has_taken_note_of_the_death() {
    let mut world = three();
    let before = world.recv(0, ANY, 0, None, 5);
    world.sim.kill(Peer(2));
    world.settle();
    assert_eq!(fault_of(&world, 0, before), Cause::PeerDied);
    let after = world.recv(0, ANY, 0, None, 5);
    assert_eq!(
        fault_of(&world, 0, after),
        Cause::PeerDied,
        "at once, though nothing was posted when it happened"
    );
    assert_eq!(world.engines[0].take_faults().len(), 1);
    assert!(world.engines[0].take_faults().is_empty(), "each fault once");
    let noted = world.recv(0, ANY, 0, None, 5);
    world.send(1, 0, 0, 0, Order::Ordered, b"alive");
    world.settle();
    assert_eq!(world.received(0, noted), b"alive");
}

#[test]
fn a_message_that_the_dead_had_sent_whole_can_still_be_received() {
    let mut world = three();
    world.send(2, 0, 0, 1, Order::Ordered, b"last words");
    world.send(2, 0, 0, 1, Order::Ordered, b"very last words");
    world.settle();
    world.sim.kill(Peer(2));
    world.settle();
    let anyone = world.recv(0, ANY, 0, Some(1), 10);
    assert_eq!(world.received(0, anyone), b"last words");
    let received = world.recv(0, Some(2), 0, Some(1), 15);
    assert_eq!(world.received(0, received), b"very last words");
    let nothing = world.recv(0, Some(2), 0, Some(1), 10);
    assert_eq!(fault_of(&world, 0, nothing), Cause::PeerDied);
}

#[test]
fn a_long_message_whose_sender_died_before_it_was_fetched_is_a_fault() {
    let mut world = three();
    world.send(2, 0, 0, 1, Order::Ordered, &[1; ANNOUNCED]);
    world.settle();
    world.sim.kill(Peer(2));
    world.settle();
    let received = world.recv(0, Some(2), 0, Some(1), ANNOUNCED);
    assert_eq!(fault_of(&world, 0, received), Cause::PeerDied);
}

#[test]
fn a_train_of_the_dead_can_be_received_when_all_of_it_came_and_is_a_fault_otherwise() {
    for polls in 0..20 {
        let mut world = three();
        let bytes = [1; 3 * 4_096];
        world.send(2, 0, 0, 1, Order::Ordered, &bytes);
        for _ in 0..polls {
            world.poll(0);
            world.sim.advance();
        }
        let is_whole = world.engines[0].stats().unexpected == 1 && world.sim.idle();
        world.sim.kill(Peer(2));
        world.settle();
        world.engines[0].take_faults();
        let received = world.recv(0, Some(2), 0, Some(1), bytes.len());
        match world.outcome(0, received) {
            Some(Ok(_)) => assert_eq!(world.received(0, received), bytes),
            Some(Err(Failure::Fault(fault))) if !is_whole => assert_eq!(fault.cause, Cause::PeerDied),
            other => panic!("after {polls} polls it ended as {other:?}"),
        }
        world.settle();
        assert_eq!((world.engines[0].pending(), world.late_writes()), (0, None));
    }
}

#[test]
fn a_probe_says_what_a_receive_would_be_told() {
    let mut world = three();
    world.send(2, 0, 0, 1, Order::Ordered, b"last words");
    world.settle();
    world.sim.kill(Peer(2));
    world.settle();
    let probe = |world: &mut World, source: Option<u32>, tag| {
        world.engines[0].probe(source.map(Peer), Context(0), Some(Tag(tag)))
    };
    for source in [Some(2), None] {
        assert!(matches!(probe(&mut world, source, 1), Ok(Some(envelope)) if envelope.bytes == 10));
        assert!(matches!(probe(&mut world, source, 2), Err(Failure::Fault(_))));
    }
    assert_eq!(probe(&mut world, Some(1), 2), Ok(None));
    assert_eq!(world.engines[0].take_faults().len(), 1);
    assert_eq!(probe(&mut world, None, 2), Ok(None), "the owner has taken note");
    assert!(matches!(probe(&mut world, Some(2), 2), Err(Failure::Fault(_))));
}

#[test]
fn whoever_depends_on_a_dead_peer_is_told_and_nobody_else() {
    for seed in 0..1_500 {
        if let Err(wrong) = run(seed, None) {
            panic!("seed {seed}: {wrong}");
        }
    }
}
