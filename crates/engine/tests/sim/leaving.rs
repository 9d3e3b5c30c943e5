//! Peers that leave in order, each when it is through, while others go on.

use selvedge_engine::{Config, Context, Engine, Failure, Mutant, Order, Tag};
use selvedge_transport::{Cause, Fault, Memory, Peer, Rng, Scope, Sim, SimConfig};

use crate::faults::{ANY, fault_of, three};
use crate::program;
use crate::world::{ANNOUNCED, World};

/// Rounds in which a rank does something or time passes, after which a program counts as hanging; a thousand times what
/// programs take.
const ROUNDS_MAX: usize = 1_000_000;

/// What one rank does with a message, in the order of its program.
#[derive(Clone, Copy)]
enum Step {
    /// Sends message `number` to somebody who receives it.
    Send { to: usize, number: usize },
    /// Receives message `number`, by name or from anyone.
    Receive { from: usize, number: usize, anyone: bool },
    /// Sends message `number` to a rank that leaves without receiving it.
    SendInVain { to: usize, number: usize },
    /// Receives message `number`, which a rank that leaves has not sent; from anyone it waits on and is withdrawn.
    ReceiveInVain { from: usize, number: usize, anyone: bool },
}

/// Programs of all ranks. Nobody waits for somebody to leave who waits for the same of him: in vain one only waits for
/// lower ranks. Every message has a tag of its own, its number.
fn programs(rng: &mut Rng, peers: usize, messages: &[Vec<u8>]) -> Vec<Vec<Step>> {
    let mut programs = vec![Vec::new(); peers];
    for number in 0..messages.len() {
        let (one, other) = (rng.index(peers), rng.index(peers));
        let (low, high, anyone) = (one.min(other), one.max(other), rng.one_in(3));
        match rng.below(8) {
            0 if low < high => programs[high].push(Step::SendInVain { to: low, number }),
            1 if low < high => programs[high].push(Step::ReceiveInVain { from: low, number, anyone }),
            _ => {
                programs[one].push(Step::Send { to: other, number });
                programs[other].push(Step::Receive { from: one, number, anyone });
            }
        }
    }
    programs
}

/// Runs random programs. Each rank leaves as soon as it is through and has answered; whoever waits for it must be told,
/// and all else must go on.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let peers = *rng.pick(&[2, 3, 5]);
    let network = program::network(&mut rng, peers);
    let mut config = program::config(&mut rng, mutant);
    config.road.piece_bytes_max = 300;
    let mut world = World::new(network, &config);
    let bytes_max = *rng.pick(&[100, 1_000, 6_000]);
    let messages: Vec<Vec<u8>> = (0..rng.within(1..=60))
        .map(|_| {
            rng.bytes(usize::try_from(bytes_max).expect("small")).split_off(rng.index(bytes_max as usize))
        })
        .collect();
    let programs = programs(&mut rng, peers, &messages);
    let mut begun: Vec<Vec<(Step, u64)>> = vec![Vec::new(); peers];
    let mut present: Vec<usize> = (0..peers).collect();
    for _ in 0..ROUNDS_MAX {
        if present.is_empty() {
            return check(&world, &begun, &messages);
        }
        let at = *rng.pick(&present);
        let mut moved = world.poll(at);
        match programs[at].get(begun[at].len()) {
            Some(&step) if rng.one_in(3) => {
                begun[at].push((step, begin(&mut world, at, step, &messages)));
                moved = true;
            }
            None if is_through(&mut world, at, &begun[at]) => {
                world.sim.leave(Peer(at as u32));
                present.retain(|&peer| peer != at);
                moved = true;
            }
            _ => {}
        }
        if !moved {
            world.sim.advance();
        }
    }
    Err(format!("ranks {present:?} never leave"))
}

fn begin(world: &mut World, at: usize, step: Step, messages: &[Vec<u8>]) -> u64 {
    match step {
        Step::Send { to, number } | Step::SendInVain { to, number } => {
            world.send(at, to, 0, number as u64, Order::Ordered, &messages[number])
        }
        Step::Receive { from, number, anyone } | Step::ReceiveInVain { from, number, anyone } => {
            let source = (!anyone).then_some(from);
            world.recv(at, source, 0, Some(number as u64), messages[number].len())
        }
    }
}

/// Whether `at` has nothing to wait for any more. Withdraws receives from anyone that wait in vain when nothing else is
/// left.
fn is_through(world: &mut World, at: usize, begun: &[(Step, u64)]) -> bool {
    let pending: Vec<_> = begun.iter().filter(|(_, user)| world.outcome(at, *user).is_none()).collect();
    let in_vain = |step: &Step| matches!(step, Step::ReceiveInVain { anyone: true, .. });
    if pending.iter().any(|(step, _)| !in_vain(step)) || !world.engines[at].has_answered() {
        return false;
    }
    for (_, user) in &pending {
        let request = world.request(at, *user);
        assert!(world.engines[at].cancel(request), "nobody sends it");
    }
    while world.poll(at) {}
    true
}

fn check(world: &World, begun: &[Vec<(Step, u64)>], messages: &[Vec<u8>]) -> Result<(), String> {
    for (at, begun) in begun.iter().enumerate() {
        for &(step, user) in begun {
            let outcome = world.outcome(at, user);
            let right = match step {
                Step::Send { .. } => matches!(outcome, Some(Ok(_))),
                Step::Receive { number, .. } => {
                    matches!(outcome, Some(Ok(_))) && world.received(at, user) == messages[number]
                }
                // A short one may have gone before anybody knew.
                Step::SendInVain { to, .. } => match outcome {
                    Some(Err(Failure::Fault(fault))) => has_left(fault, to),
                    Some(Ok(envelope)) => envelope.bytes <= world.at_once_bytes_max(at, to),
                    _ => false,
                },
                Step::ReceiveInVain { anyone: true, .. } => {
                    matches!(outcome, Some(Err(Failure::Cancelled)))
                }
                Step::ReceiveInVain { from, .. } => {
                    matches!(outcome, Some(Err(Failure::Fault(fault))) if has_left(fault, from))
                }
            };
            if !right {
                return Err(format!("message {} of rank {at} ended as {outcome:?}", step.number()));
            }
        }
        if world.engines[at].stats().malformed != 0 {
            return Err(format!("rank {at} blames somebody: {:?}", world.engines[at].stats()));
        }
    }
    world.late_writes().map_or(Ok(()), Err)
}

impl Step {
    fn number(self) -> usize {
        match self {
            Step::Send { number, .. }
            | Step::Receive { number, .. }
            | Step::SendInVain { number, .. }
            | Step::ReceiveInVain { number, .. } => number,
        }
    }
}

fn has_left(fault: &Fault, peer: usize) -> bool {
    (fault.scope, fault.cause) == (Scope::Peer(Peer(peer as u32)), Cause::PeerLeft)
}

fn leave(world: &mut World, peer: u32) {
    world.sim.leave(Peer(peer));
    world.settle();
}

#[test]
fn whoever_waits_for_a_peer_that_left_is_told_and_nobody_else() {
    for seed in 0..1_500 {
        if let Err(wrong) = run(seed, None) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn receives_by_name_fail_when_the_peer_leaves_and_receives_from_anyone_wait_for_the_others() {
    let mut world = three();
    let (named, anyone) = (world.recv(0, Some(2), 0, None, 5), world.recv(0, ANY, 0, None, 5));
    leave(&mut world, 2);
    assert_eq!(fault_of(&world, 0, named), Cause::PeerLeft);
    let later = world.recv(0, Some(2), 0, None, 5);
    assert_eq!(fault_of(&world, 0, later), Cause::PeerLeft, "at once");
    assert!(world.engines[0].take_faults().is_empty(), "nothing went wrong");
    let second = world.recv(0, ANY, 0, None, 5);
    assert_eq!(world.outcome(0, second), None);
    world.send(1, 0, 0, 0, Order::Ordered, b"first");
    world.send(1, 0, 0, 0, Order::Ordered, b"later");
    world.settle();
    assert_eq!((world.received(0, anyone), world.received(0, second)), (&b"first"[..], &b"later"[..]));
}

#[test]
fn all_that_a_peer_sent_before_it_left_can_be_received() {
    let mut world = three();
    let waiting = world.recv(0, Some(2), 0, Some(0), 5);
    for tag in 0..50 {
        world.send(2, 0, 0, tag, Order::Ordered, b"hello");
    }
    leave(&mut world, 2);
    assert_eq!(world.received(0, waiting), b"hello", "however late it came");
    for tag in 1..50 {
        let source = (tag % 2 == 0).then_some(2);
        let received = world.recv(0, source, 0, Some(tag), 5);
        assert_eq!(world.received(0, received), b"hello");
    }
}

#[test]
fn sends_to_a_peer_that_left_fail_those_that_wait_included() {
    let mut world = three();
    let announced = world.send(0, 2, 0, 0, Order::Ordered, &[1; ANNOUNCED]);
    leave(&mut world, 2);
    let later = world.send(0, 2, 0, 0, Order::Ordered, b"hello");
    for user in [announced, later] {
        assert_eq!(fault_of(&world, 0, user), Cause::PeerLeft);
    }
}

#[test]
fn a_probe_by_name_fails_when_the_peer_has_left_and_one_of_anyone_does_not() {
    let mut world = three();
    leave(&mut world, 2);
    let by_name = world.engines[0].probe(Some(Peer(2)), Context(0), None);
    assert!(matches!(by_name, Err(Failure::Fault(fault)) if has_left(&fault, 2)));
    assert_eq!(world.engines[0].probe(None, Context(0), None), Ok(None));
}

#[test]
fn an_answer_that_finds_no_room_is_still_to_be_given() {
    let mut world = World::new(SimConfig { in_flight_max: 1, ..SimConfig::shm_like() }, &Config::default());
    world.send(0, 1, 0, 0, Order::Ordered, &[1; ANNOUNCED]);
    world.settle();
    world.send(1, 0, 0, 0, Order::Ordered, b"fills the only place");
    world.recv(1, Some(0), 0, None, ANNOUNCED);
    while world.engines[1].pending() > 0 {
        world.poll(1);
        world.sim.advance();
    }
    assert!(!world.engines[1].has_answered(), "the sender waits for FIN");
    world.settle();
    assert!(world.engines[1].has_answered());
}

#[test]
fn fetching_from_a_peer_that_left_in_order_is_a_fault_and_not_a_hang() {
    let sim = Sim::new(SimConfig::default());
    let mut staying = Engine::new(sim.port(Peer(0)), Config::default());
    let mut leaving = Engine::new(sim.port(Peer(1)), Config::default());
    let (from, to) = (Memory::of(&[1; ANNOUNCED]), Memory::zeroed(ANNOUNCED));
    let _ = leaving.send(Peer(0), Context(0), Tag(0), Order::Ordered, from.buf(), 1);
    drop(leaving);
    let _ = staying.recv(Some(Peer(1)), Context(0), None, to.buf(), 2);
    let completion = (0..1_000).find_map(|_| staying.poll().or_else(|| (sim.advance(), None).1));
    let outcome = completion.expect("it ends").outcome;
    assert!(matches!(outcome, Err(Failure::Fault(fault)) if fault.cause == Cause::PeerLeft));
}
