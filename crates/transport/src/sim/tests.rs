//! What the simulated network promises beyond the contract.

use std::time::Duration;

use super::{Sim, SimConfig};
use crate::{Buf, Busy, Cause, Event, Memory, Peer, RemoteSlice, Scope, SimPort, Token, Transport};

const A: Peer = Peer(0);
const B: Peer = Peer(1);
const LONG: Duration = Duration::from_secs(1);

fn pair(config: SimConfig) -> (Sim, SimPort, SimPort) {
    let sim = Sim::new(config);
    let (a, b) = (sim.port(A), sim.port(B));
    (sim, a, b)
}

/// Everything there is to hear, packets as their first byte.
fn hear(port: &mut SimPort, sim: &Sim) -> Vec<Event> {
    let mut heard = Vec::new();
    while !sim.idle() {
        match port.poll() {
            Some(event) => heard.push(event),
            None if sim.advance() => {}
            None => break,
        }
    }
    heard
}

fn first_bytes(port: &mut SimPort, sim: &Sim) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match port.poll() {
            Some(Event::Packet { slot, .. }) => {
                bytes.push(port.packet(&slot)[0]);
                port.release(slot);
            }
            Some(other) => panic!("{other:?}"),
            None if sim.advance() => {}
            None => return bytes,
        }
    }
}

fn shuffled(seed: u64) -> (Vec<u8>, u64) {
    let (sim, mut a, mut b) = pair(SimConfig { seed, ..SimConfig::default() });
    for n in 0..20 {
        a.send(B, &[n], Buf::EMPTY).unwrap();
    }
    (first_bytes(&mut b, &sim), sim.trace_hash())
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    assert_eq!(shuffled(7), shuffled(7));
    assert_ne!(shuffled(7), shuffled(8));
}

#[test]
fn packets_of_every_seed_overtake_each_other() {
    for seed in 0..100 {
        let (mut order, _) = shuffled(seed);
        assert_ne!(order, (0..20).collect::<Vec<_>>(), "seed {seed}");
        order.sort_unstable();
        assert_eq!(order, (0..20).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_full_queue_is_busy_until_the_receiver_polls() {
    let (sim, mut a, mut b) = pair(SimConfig { in_flight_max: 3, ..SimConfig::default() });
    for n in 0..3 {
        a.send(B, &[n], Buf::EMPTY).unwrap();
    }
    while sim.advance() {}
    assert_eq!(a.send(B, &[3], Buf::EMPTY), Err(Busy), "arrived packets count until they are polled for");
    a.send(A, &[9], Buf::EMPTY).expect("another pair has its own room");
    let Some(Event::Packet { slot, .. }) = b.poll() else { panic!("a packet is there") };
    a.send(B, &[3], Buf::EMPTY).expect("lent packets do not count");
    b.release(slot);
    assert_eq!(sim.stats().packets, 5);
    assert_eq!(sim.stats().busy, 1);
}

/// Two peers, and memory of the second that the first may reach.
fn with_memory(seed: u64) -> (Sim, SimPort, SimPort, Memory, RemoteSlice) {
    let (sim, a, mut b) = pair(SimConfig { seed, ..SimConfig::default() });
    let theirs = Memory::of(&[5; 64]);
    let key = b.register(theirs.buf(), A).unwrap();
    (sim, a, b, theirs, RemoteSlice { key, offset: 0, len: 64 })
}

#[test]
fn a_read_fetches_late_so_that_memory_changed_too_early_shows() {
    let mut mixed = 0;
    for seed in 0..50 {
        let (sim, mut a, _b, theirs, remote) = with_memory(seed);
        let mine = Memory::zeroed(64);
        a.read(B, remote, mine.buf(), Token(1)).unwrap();
        assert_ne!(mine.bytes(), [5; 64], "nothing has been fetched yet");
        sim.advance();
        theirs.buf().fill_with(6);
        assert!(matches!(hear(&mut a, &sim)[..], [Event::Done(Token(1))]));
        mixed += usize::from(mine.bytes() != [5; 64]);
    }
    assert!(mixed > 20, "only {mixed} of 50 show the hazard");
}

#[test]
fn a_write_fetches_late_so_that_a_buffer_used_again_too_early_shows() {
    for seed in 0..50 {
        let (sim, mut a, _b, theirs, remote) = with_memory(seed);
        let mine = Memory::of(&[1; 64]);
        a.write(B, mine.buf(), remote, Token(1)).unwrap();
        mine.buf().fill_with(2);
        assert!(matches!(hear(&mut a, &sim)[..], [Event::Done(Token(1))]));
        assert_eq!(theirs.bytes(), [2; 64], "seed {seed}");
    }
}

#[test]
fn a_one_sided_operation_on_a_deregistered_key_or_out_of_bounds_is_denied() {
    let (sim, mut a, mut b, _theirs, remote) = with_memory(0);
    let mine = Memory::zeroed(64);
    a.read(B, RemoteSlice { offset: 1, ..remote }, mine.buf(), Token(1)).unwrap();
    a.read(B, RemoteSlice { offset: u64::MAX, ..remote }, mine.buf(), Token(2)).unwrap();
    b.deregister(remote.key, A);
    a.write(B, mine.buf(), remote, Token(3)).unwrap();
    let heard = hear(&mut a, &sim);
    assert_eq!(heard.len(), 3);
    for event in heard {
        let Event::Failed(_, fault) = event else { panic!("{event:?}") };
        assert_eq!((fault.scope, fault.cause), (Scope::Peer(B), Cause::Denied));
    }
}

#[test]
fn registrations_have_a_limit() {
    let (_sim, mut a, _b) = pair(SimConfig { registrations_max: 1, ..SimConfig::default() });
    let memory = Memory::zeroed(8);
    let key = a.register(memory.buf(), B).unwrap();
    let fault = a.register(memory.buf(), B).unwrap_err();
    assert_eq!((fault.scope, fault.cause), (Scope::Local, Cause::Exhausted));
    a.deregister(key, B);
    a.register(memory.buf(), B).unwrap();
}

#[test]
fn packets_of_a_killed_peer_arrive_or_not_and_its_death_is_said_once() {
    let mut arrived = 0;
    for seed in 0..50 {
        let (sim, mut a, mut b) = pair(SimConfig { seed, ..SimConfig::default() });
        for n in 0..10 {
            a.send(B, &[n], Buf::EMPTY).unwrap();
        }
        sim.kill(A);
        sim.kill(A);
        let heard = hear(&mut b, &sim);
        arrived += heard.iter().filter(|event| matches!(event, Event::Packet { .. })).count();
        let faults: Vec<_> = heard.iter().filter(|event| matches!(event, Event::Fault(_))).collect();
        let [Event::Fault(fault)] = faults[..] else { panic!("{faults:?}") };
        assert_eq!((fault.scope, fault.cause), (Scope::Peer(A), Cause::PeerDied));
    }
    assert!((100..400).contains(&arrived), "{arrived} of 500 packets arrived");
}

#[test]
fn a_port_that_left_makes_sends_vanish_and_reads_fail() {
    let (sim, mut a, b, _theirs, remote) = with_memory(3);
    let mine = Memory::zeroed(64);
    a.read(B, remote, mine.buf(), Token(1)).unwrap();
    drop(b);
    for _ in 0..1000 {
        a.send(B, b"x", Buf::EMPTY).expect("accepted and dropped");
    }
    let heard = hear(&mut a, &sim);
    let failed =
        |event: &&Event| matches!(event, Event::Failed(Token(1), fault) if fault.cause == Cause::PeerLeft);
    let said = |event: &&Event| matches!(event, Event::Fault(fault) if fault.cause == Cause::PeerLeft);
    assert_eq!((heard.iter().filter(failed).count(), heard.iter().filter(said).count()), (1, 1), "{heard:?}");
    assert_eq!(heard.len(), 2);
    assert!(sim.idle());
}

#[test]
fn that_a_peer_left_is_said_behind_its_last_packet_however_late_that_is() {
    for seed in 0..50 {
        let (sim, mut a, mut b) = pair(SimConfig { seed, ..SimConfig::default() });
        (0..20).for_each(|_| b.send(A, b"x", Buf::EMPTY).unwrap());
        drop(b);
        let heard = hear(&mut a, &sim);
        let (last, packets) = heard.split_last().unwrap();
        assert!(matches!(last, Event::Fault(fault) if fault.cause == Cause::PeerLeft), "{last:?}");
        assert!(packets.len() == 20 && packets.iter().all(|event| matches!(event, Event::Packet { .. })));
    }
}

#[test]
fn waiting_on_an_idle_network_takes_all_the_time_and_on_a_busy_one_no_more_than_needed() {
    let (sim, mut a, mut b) = pair(SimConfig::default());
    a.wait(LONG);
    assert_eq!(sim.now(), LONG);
    a.send(B, b"x", Buf::EMPTY).unwrap();
    b.wait(LONG);
    assert!(sim.now() < LONG + Duration::from_millis(1));
    assert!(matches!(b.poll(), Some(Event::Packet { .. })));
}

#[test]
fn a_program_that_only_polls_sees_time_pass() {
    let (_sim, mut a, mut b) = pair(SimConfig::default());
    a.send(B, b"x", Buf::EMPTY).unwrap();
    assert!((0..10_000).any(|_| b.poll().is_some()));
}
