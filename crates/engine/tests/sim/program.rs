//! Random programs: which networks, which configurations, which operations; all from one seed.

use selvedge_engine::{Config, Failure, Matched, Mutant, Order, RoadConfig};
use selvedge_transport::{Rng, SimConfig};

use crate::oracle::{Message, Receive, Record};
use crate::world::World;

/// Context of unordered messages; the ordered ones use 0 and 1.
pub(crate) const UNORDERED: u32 = 2;

/// A network for `peers`: a preset, with or without one-sided operations.
pub(crate) fn network(rng: &mut Rng, peers: usize) -> SimConfig {
    let presets = SimConfig::presets();
    let (_, preset) = rng.pick(&presets).clone();
    let one_sided = *rng.pick(&[0, 700, 1 << 30]);
    let (read, write) = *rng.pick(&[(0, 0), (one_sided, 0), (0, one_sided), (one_sided, one_sided)]);
    SimConfig {
        peers,
        seed: rng.bits(),
        read_bytes_max: read,
        write_bytes_max: write,
        registrations_max: *rng.pick(&[1, 3, 4096]),
        ..preset
    }
}

/// A configuration, often one that is short of everything.
pub(crate) fn config(rng: &mut Rng, mutant: Option<Mutant>) -> Config {
    let road = road_config(rng);
    let near = road_config(rng);
    Config {
        unexpected_bytes_limit: *rng.pick(&[0, 64 << 10, 64 << 20]),
        road,
        roads: vec![("sim-near", near)],
        mutant,
    }
}

fn road_config(rng: &mut Rng) -> RoadConfig {
    RoadConfig {
        eager_bytes_max: *rng.pick(&[0, 64, 1_000, usize::MAX]),
        pregranted_bytes_max: *rng.pick(&[0, 700, usize::MAX]),
        piece_bytes_max: *rng.pick(&[1, 300, 1 << 20]),
        pieces_in_flight: *rng.pick(&[1, 2, 4]),
        window_packets: *rng.pick(&[1, 2, 32]),
        both_bytes_min: *rng.pick(&[0, 2_000, u64::MAX]),
    }
}

/// Runs the program of a seed; `Err` says what was wrong.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let peers = *rng.pick(&[1, 2, 2, 3, 5]);
    let network = network(&mut rng, peers);
    let config = config(&mut rng, mutant);
    // Pieces of one byte make operations of a long message by the thousand.
    let short = [&config.road, &config.roads[0].1].iter().any(|road| road.piece_bytes_max == 1);
    let bytes_max = if short { 600 } else { *rng.pick(&[100, 1_000, 20_000]) };
    let mut world = World::new(network, &config);
    let mut record = Record::default();
    let mut held: Vec<Held> = Vec::new();
    let operations = rng.within(1..=150);
    for _ in 0..operations {
        match rng.below(12) {
            0..4 => send(&mut world, &mut record, &mut rng, bytes_max),
            4..8 => receive(&mut world, &mut record, &mut rng, bytes_max),
            8 => cancel(&mut world, &mut record, &mut rng),
            9 => held.extend(take_out(&mut world, &mut record, &mut rng, bytes_max)),
            10 if !held.is_empty() => held.swap_remove(rng.index(held.len())).receive(&mut world),
            _ => {}
        }
        for _ in 0..rng.below(6) {
            let at = rng.index(peers);
            if !world.poll(at) {
                world.sim.advance();
            }
        }
    }
    world.settle();
    held.into_iter().for_each(|held| held.receive(&mut world));
    world.settle();
    drain(&mut world, &mut record, bytes_max as usize);
    record.check(&world)
}

/// A message that a probe has taken out, and the receive it is for.
struct Held {
    at: usize,
    message: Matched,
    capacity: usize,
    user: u64,
}

impl Held {
    fn receive(self, world: &mut World) {
        world.recv_matched(self.at, self.message, self.capacity, self.user);
    }
}

/// Probes for a message and takes it out; sometimes thinks better of it. What matters to the oracle is when it was
/// matched, not when it is received.
fn take_out(world: &mut World, record: &mut Record, rng: &mut Rng, bytes_max: u64) -> Option<Held> {
    let (at, source, context, tag, capacity) = pattern(world, rng, bytes_max);
    let message = world.probe_matched(at, source, context, tag)?;
    if rng.one_in(3) {
        world.engines[at].put_back(message);
        return None;
    }
    let user = world.user();
    record.receives.push(Receive { at, source, context, tag, capacity, user });
    Some(Held { at, message, capacity, user })
}

fn send(world: &mut World, record: &mut Record, rng: &mut Rng, bytes_max: u64) {
    let (from, to) = (rng.index(world.size()), rng.index(world.size()));
    let number = record.messages.len() as u32;
    let empty = rng.one_in(8);
    let order = if rng.one_in(4) { Order::Unordered } else { Order::Ordered };
    let (context, mut tag) = match order {
        Order::Ordered => (rng.below(2) as u32, rng.below(3)),
        Order::Unordered => (UNORDERED, rng.below(2) << 40 | rng.below(2)),
    };
    let len = if empty { 0 } else { rng.within(4..=bytes_max) as usize };
    let mut bytes = rng.bytes(len);
    match bytes.first_chunk_mut() {
        Some(first) => *first = number.to_le_bytes(),
        // A message that has no room for its number is told by its tag.
        None => tag = 1_000 + u64::from(number),
    }
    let sync = order == Order::Ordered && rng.one_in(4);
    let user = match sync {
        true => world.send_sync(from, to, context, tag, &bytes),
        false => world.send(from, to, context, tag, order, &bytes),
    };
    record.messages.push(Message { from, to, context, tag, order, sync, bytes, user, cancelled: false });
}

fn receive(world: &mut World, record: &mut Record, rng: &mut Rng, bytes_max: u64) {
    let (at, source, context, tag, capacity) = pattern(world, rng, bytes_max);
    let user = world.recv(at, source, context, tag, capacity);
    record.receives.push(Receive { at, source, context, tag, capacity, user });
}

/// Who receives: where, from whom, in which context, which tag, how many bytes.
fn pattern(world: &World, rng: &mut Rng, bytes_max: u64) -> (usize, Option<usize>, u32, Option<u64>, usize) {
    let at = rng.index(world.size());
    let source = if rng.one_in(3) { None } else { Some(rng.index(world.size())) };
    let context = rng.below(3) as u32;
    let tag = match (rng.one_in(3), context == UNORDERED) {
        (true, _) => None,
        (false, true) => Some(rng.below(2) << 40 | rng.below(2)),
        (false, false) => Some(rng.below(3)),
    };
    let capacity = if rng.one_in(6) { rng.within(4..=bytes_max) } else { bytes_max } as usize;
    (at, source, context, tag, capacity)
}

fn cancel(world: &mut World, record: &mut Record, rng: &mut Rng) {
    let at = rng.index(world.size());
    let pending: Vec<u64> = {
        let mut pending: Vec<u64> =
            world.ops[at].iter().filter(|(_, op)| op.outcome.is_none()).map(|(&user, _)| user).collect();
        pending.sort_unstable();
        pending
    };
    if pending.is_empty() {
        return;
    }
    let user = *rng.pick(&pending);
    let request = world.ops[at][&user].request.expect("it is pending");
    if world.engines[at].cancel(request) {
        record.cancelled(user);
    }
}

/// Receives what is left over, then withdraws the receives that are left over.
fn drain(world: &mut World, record: &mut Record, capacity: usize) {
    loop {
        let mut found = false;
        for at in 0..world.size() {
            for context in 0..3 {
                while world.probe(at, None, context, None).is_some() {
                    let user = world.recv(at, None, context, None, capacity);
                    record.receives.push(Receive { at, source: None, context, tag: None, capacity, user });
                    found = true;
                }
            }
        }
        if !found {
            break;
        }
        world.settle();
    }
    for at in 0..world.size() {
        let pending = record.receives.iter().filter(|receive| receive.at == at);
        let pending: Vec<u64> =
            pending.map(|receive| receive.user).filter(|&user| world.outcome(at, user).is_none()).collect();
        for user in pending {
            let request = world.ops[at][&user].request.expect("it is pending");
            if world.engines[at].cancel(request) {
                world.poll(at);
                assert_eq!(world.outcome(at, user), Some(&Err(Failure::Cancelled)));
            }
        }
    }
}

#[test]
fn random_programs_deliver_just_what_the_oracle_says() {
    for seed in 0..4_000 {
        if let Err(wrong) = run(seed, None) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = || {
        let mut world = World::new(SimConfig { peers: 3, seed: 5, ..SimConfig::tiny() }, &Config::default());
        let (mut record, mut rng) = (Record::default(), Rng::new(5));
        for _ in 0..40 {
            send(&mut world, &mut record, &mut rng, 3_000);
            receive(&mut world, &mut record, &mut rng, 3_000);
        }
        world.settle();
        world.sim.trace_hash()
    };
    assert_eq!(trace(), trace());
}
