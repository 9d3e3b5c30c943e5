//! A peer that speaks the wire protocol by hand: well-formed, malformed, and anything between.

use proptest::prelude::*;
use selvedge_engine::wire::{self, CONTROL_BYTES_MAX, Control, Head, Mode, Offer, Packet, Part};
use selvedge_engine::{Completion, Config, Context, Engine, Failure, Order, RoadConfig, Submitted, Tag};
use selvedge_transport::{Buf, Cause, Event, Key, Memory, Peer, Scope, Sim, SimConfig, SimPort, Transport};

const HEAD: Head = Head { credit: 0, seq: Some(0), context: 0, tag: 0 };

/// An engine, and a peer whose packets are made by hand.
struct Table {
    sim: Sim,
    engine: Engine<SimPort>,
    raw: SimPort,
}

impl Table {
    fn new() -> Table {
        let sim = Sim::new(SimConfig { in_flight_max: 10_000, ..SimConfig::default() });
        let road = RoadConfig { pregranted_bytes_max: 0, both_bytes_min: 0, ..RoadConfig::default() };
        let engine = Engine::new(sim.port(Peer(0)), Config { road, ..Config::default() });
        let raw = sim.port(Peer(1));
        Table { sim, engine, raw }
    }

    /// Sends bytes to the engine and lets it work.
    fn say(&mut self, bytes: &[u8]) -> Vec<Completion> {
        self.raw.send(Peer(0), bytes, Buf::EMPTY).expect("there is room");
        self.work()
    }

    fn say_control(&mut self, control: Control) -> Vec<Completion> {
        let mut bytes = [0; CONTROL_BYTES_MAX];
        let packet = control.encode(0, &mut bytes).to_vec();
        self.say(&packet)
    }

    fn work(&mut self) -> Vec<Completion> {
        let mut ended = Vec::new();
        for _ in 0..20 {
            ended.extend(std::iter::from_fn(|| self.engine.poll()));
            while self.sim.advance() {
                ended.extend(std::iter::from_fn(|| self.engine.poll()));
            }
        }
        ended
    }

    /// The next control packet that the engine said to the raw peer.
    fn heard(&mut self) -> Option<Control> {
        for _ in 0..100 {
            match self.raw.poll() {
                Some(Event::Packet { slot, .. }) => {
                    let control = match wire::parse(self.raw.packet(&slot)) {
                        Ok(Packet::Control { control, .. }) => Some(control),
                        _ => None,
                    };
                    self.raw.release(slot);
                    return control;
                }
                _ => drop(self.sim.advance()),
            }
        }
        None
    }

    fn recv(&mut self, memory: &Memory, user: u64) {
        let submitted = self.engine.recv(Some(Peer(1)), Context(0), None, memory.buf(), user);
        assert!(matches!(submitted, Submitted::Pending(_)));
    }
}

fn is_fault(completion: &Completion, cause: Cause) -> bool {
    matches!(&completion.outcome, Err(Failure::Fault(fault)) if fault.cause == cause)
}

#[test]
fn bytes_that_are_no_packet_are_a_fault_of_their_sender_said_once() {
    let mut table = Table::new();
    let memory = Memory::zeroed(10);
    table.recv(&memory, 1);
    let ended = table.say(b"nonsense");
    assert!(ended.len() == 1 && is_fault(&ended[0], Cause::Version), "{ended:?}");
    assert!(table.say(&[1, wire::VERSION, 0, 0]).is_empty());
    let faults = table.engine.take_faults();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].scope, Scope::Peer(Peer(1)));
    assert_eq!(table.engine.stats().malformed, 2);
    let later = table.engine.send(Peer(1), Context(0), Tag(0), Order::Ordered, Buf::EMPTY, 2);
    assert!(matches!(later, Submitted::Done(Err(Failure::Fault(_)))), "{later:?}");
}

#[test]
fn more_messages_than_credit_are_a_fault_and_take_no_memory() {
    let mut table = Table::new();
    let limit = 64 << 20;
    let payload = [7; 4_000];
    for seq in 0..20_000 {
        let packet = [&wire::eager(&Head { seq: Some(seq), ..HEAD })[..], &payload].concat();
        table.raw.send(Peer(0), &packet, Buf::EMPTY).expect("there is room");
        if seq % 100 == 0 {
            table.work();
        }
    }
    table.work();
    assert_eq!(table.engine.take_faults()[0].cause, Cause::Malformed);
    assert!(table.engine.stats().unexpected_bytes_max <= limit);
}

#[test]
fn a_sequence_number_used_twice_or_far_ahead_is_a_fault() {
    for (first, second) in [(0, 0), (5, 5), (0, 1 << 20), (0, u32::MAX)] {
        let mut table = Table::new();
        table.say(&wire::eager(&Head { seq: Some(first), ..HEAD }));
        assert!(table.engine.take_faults().is_empty());
        table.say(&wire::eager(&Head { seq: Some(second), ..HEAD }));
        assert_eq!(table.engine.take_faults().len(), 1, "{first} then {second}");
    }
}

#[test]
fn credit_that_was_never_given_is_a_fault() {
    let mut table = Table::new();
    table.say(&wire::eager(&Head { credit: 1, ..HEAD }));
    assert_eq!(table.engine.take_faults().len(), 1);
}

#[test]
fn memory_lent_to_a_confused_peer_comes_back_after_its_last_word() {
    let mut table = Table::new();
    let memory = Memory::zeroed(50_000);
    table.recv(&memory, 1);
    let offer = Offer { mode: Mode::Write, bytes: 50_000, sender: 77, key: Key::default() };
    assert!(table.say(&wire::rts(&HEAD, &offer)).is_empty());
    let Some(Control::CtsWrite { sender: 77, receiver, offset: 0, bytes: 50_000, .. }) = table.heard() else {
        panic!("the engine lends its memory");
    };
    assert!(table.say(b"nonsense").is_empty(), "the peer may still write: nothing is given back");
    assert_eq!(table.engine.take_faults().len(), 1);
    let ended = table.say_control(Control::Written { receiver });
    assert!(ended.len() == 1 && ended[0].user == 1 && ended[0].outcome.is_ok(), "{ended:?}");
}

#[test]
fn memory_lent_to_a_confused_peer_comes_back_when_it_dies() {
    let mut table = Table::new();
    let memory = Memory::zeroed(50_000);
    table.recv(&memory, 1);
    let offer = Offer { mode: Mode::Write, bytes: 50_000, sender: 77, key: Key::default() };
    table.say(&wire::rts(&HEAD, &offer));
    assert!(table.say(b"nonsense").is_empty());
    table.sim.kill(Peer(1));
    let ended = table.work();
    assert!(ended.len() == 1 && is_fault(&ended[0], Cause::PeerDied), "{ended:?}");
}

#[test]
fn a_read_that_is_refused_becomes_a_window() {
    let mut table = Table::new();
    let memory = Memory::zeroed(5_000);
    table.recv(&memory, 1);
    let offer = Offer { mode: Mode::Read, bytes: 5_000, sender: 77, key: Key { base: 1, name: 2 } };
    assert!(table.say(&wire::rts(&HEAD, &offer)).is_empty());
    let Some(Control::Cts { sender: 77, receiver, wanted: 5_000, granted: 5_000 }) = table.heard() else {
        panic!("the engine asks for datagrams");
    };
    let data = |offset| [&wire::data(0, receiver, offset)[..], &[9; 2_500]].concat();
    assert!(table.say(&data(2_500)).is_empty());
    let ended = table.say(&data(0));
    assert!(ended.len() == 1 && ended[0].outcome.is_ok(), "{ended:?}");
    assert_eq!(memory.bytes(), [9; 5_000]);
    assert_eq!(table.engine.stats().refused, 1);
}

#[test]
fn a_write_that_is_refused_is_said_and_becomes_a_window() {
    let mut table = Table::new();
    let memory = Memory::of(&[5; 5_000]);
    let submitted = table.engine.send(Peer(1), Context(0), Tag(0), Order::Ordered, memory.buf(), 1);
    assert!(matches!(submitted, Submitted::Pending(_)));
    while table.sim.advance() {}
    let Some(Event::Packet { slot, .. }) = table.raw.poll() else { panic!("it is announced") };
    let Ok(Packet::Rts { offer, .. }) = wire::parse(table.raw.packet(&slot)) else {
        panic!("it is announced")
    };
    table.raw.release(slot);
    assert_eq!(offer.mode, Mode::Both);
    let (sender, key) = (offer.sender, Key { base: 1, name: 2 });
    table.say_control(Control::CtsWrite { sender, receiver: 88, offset: 100, bytes: 4_900, key });
    assert_eq!(table.heard(), Some(Control::Refused { receiver: 88 }));
    let ended = table.say_control(Control::Cts { sender, receiver: 88, wanted: 5_000, granted: 5_000 });
    assert!(ended.len() == 1 && ended[0].outcome.is_ok(), "{ended:?}");
}

/// Payload of a part on this road.
const PART_BYTES: u32 = 4096 - wire::PART_HEADER_BYTES as u32;

/// A part of 7 of a train of ten bytes more than two parts.
fn part(sender: u64, index: u32) -> Vec<u8> {
    let bytes = 2 * PART_BYTES + 10;
    let offset = index * PART_BYTES;
    let len = PART_BYTES.min(bytes - offset) as usize;
    [&wire::part(&HEAD, &Part { sender, bytes, offset })[..], &vec![7; len]].concat()
}

#[test]
fn parts_arrive_in_any_order_and_the_last_one_ends_the_receive() {
    let mut table = Table::new();
    let memory = Memory::zeroed(10_000);
    table.recv(&memory, 1);
    assert!(table.say(&part(5, 2)).is_empty());
    assert!(table.say(&part(5, 0)).is_empty());
    let ended = table.say(&part(5, 1));
    assert!(ended.len() == 1 && ended[0].outcome.is_ok(), "{ended:?}");
    assert_eq!(memory.bytes()[..8_138], [7; 8_138]);
    assert_eq!(table.engine.stats().unexpected, 0);
}

#[test]
fn parts_that_no_message_has_are_a_fault() {
    let packet = |bytes, offset, len: usize| {
        [&wire::part(&HEAD, &Part { sender: 5, bytes, offset })[..], &vec![7; len]].concat()
    };
    let unpaid = |sender| {
        let part = Part { sender, bytes: 64 * PART_BYTES, offset: 0 };
        [&wire::part(&Head { seq: None, ..HEAD }, &part)[..], &[7; PART_BYTES as usize]].concat()
    };
    let lies: [(&str, Vec<Vec<u8>>); 8] = [
        ("a part twice", vec![part(5, 1), part(5, 1)]),
        ("two lengths", vec![part(5, 0), packet(2 * PART_BYTES + 11, PART_BYTES, PART_BYTES as usize)]),
        ("off the grid", vec![packet(10_000, 1, PART_BYTES as usize)]),
        ("a short part", vec![packet(10_000, 0, 100)]),
        ("behind the end", vec![packet(10, PART_BYTES, 10)]),
        ("of nothing", vec![packet(0, 0, 10)]),
        ("too many parts", vec![packet(64 * PART_BYTES + 1, 0, PART_BYTES as usize)]),
        ("more than credit", (0..100).map(unpaid).collect()),
    ];
    for (lie, packets) in lies {
        let mut table = Table::new();
        for packet in packets {
            table.say(&packet);
        }
        let faults = table.engine.take_faults();
        assert!(faults.len() == 1 && faults[0].cause == Cause::Malformed, "{lie}: {faults:?}");
    }
}

#[test]
fn a_receive_of_half_a_train_is_told_when_its_sender_is_confused_and_the_rest_goes_nowhere() {
    for posted_first in [true, false] {
        let mut table = Table::new();
        let memory = Memory::zeroed(10_000);
        if posted_first {
            table.recv(&memory, 1);
        }
        table.say(&part(5, 1));
        let mut ended = table.say(b"nonsense");
        if !posted_first {
            let submitted = table.engine.recv(Some(Peer(1)), Context(0), None, memory.buf(), 1);
            let Submitted::Done(outcome) = submitted else { panic!("{submitted:?}") };
            ended.push(Completion { user: 1, outcome });
        }
        assert!(ended.len() == 1 && is_fault(&ended[0], Cause::Version), "{ended:?}");
        let before = memory.bytes().to_vec();
        assert!(table.say(&part(5, 0)).is_empty() && table.say(&part(5, 2)).is_empty());
        assert_eq!(memory.bytes(), before, "the memory is the caller's again");
    }
}

/// A packet whose fields are small numbers, so that some of them name what is there.
fn plausible_packet() -> impl Strategy<Value = Vec<u8>> {
    let head = (0..3_u16, prop::option::of(0..4_u32), 0..2_u32, 0..3_u64)
        .prop_map(|(credit, seq, context, tag)| Head { credit, seq, context, tag });
    let word = prop_oneof![8 => 0..4_u64, 1 => 4_990..5_010_u64, 1 => any::<u64>()];
    let words = prop::collection::vec(word, 4);
    let mode = prop::sample::select(vec![Mode::Window, Mode::Read, Mode::Write, Mode::Both]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (0..12_u8, head, words, mode, payload).prop_map(|(kind, head, w, mode, payload)| {
        let key = Key { base: w[2], name: w[3] };
        let control = |control: Control| control.encode(head.credit, &mut [0; CONTROL_BYTES_MAX]).to_vec();
        match kind {
            0 => [&wire::eager(&head)[..], &payload].concat(),
            1 => {
                wire::rts(&head, &Offer { mode, bytes: w[0].wrapping_mul(1_000), sender: w[1], key }).to_vec()
            }
            2 => [&wire::data(head.credit, w[0], w[1])[..], &payload].concat(),
            3 => control(Control::Cts { sender: w[0], receiver: w[1], wanted: w[2], granted: w[3] }),
            4 => control(Control::CtsWrite { sender: w[0], receiver: w[1], offset: w[2], bytes: w[3], key }),
            5 => control(Control::Grant { sender: w[0], granted: w[1] }),
            6 => control(Control::Fin { sender: w[0] }),
            7 => control(Control::Written { receiver: w[0] }),
            8 => control(Control::Refused { receiver: w[0] }),
            9 => control(Control::Credit),
            10 => plausible_part(&head, &w, &payload),
            _ => payload,
        }
    })
}

/// A part of a train of one to four; one in many is none.
fn plausible_part(head: &Head, w: &[u64], payload: &[u8]) -> Vec<u8> {
    let (parts, index) = ((w[1] % 4) as u32 + 1, (w[2] % 4) as u32);
    let bytes = (parts - 1) * PART_BYTES + payload.len() as u32 + u32::from(w[3] > 4_000);
    let part = Part { sender: w[0], bytes, offset: index * PART_BYTES + u32::from(w[2] > 4_000) };
    let payload = if index + 1 < parts { &[6; PART_BYTES as usize] } else { payload };
    [&wire::part(head, &part)[..], payload].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_sequence_of_packets_makes_the_engine_panic_or_write_where_it_may_not(
        packets in prop::collection::vec(plausible_packet(), 1..25),
    ) {
        let mut table = Table::new();
        let whole = Memory::of(&[0xCC; 3_000]);
        let long = Memory::of(&[5; 5_000]);
        for user in 0..3 {
            let tag = Some(Tag(user));
            let _ = table.engine.recv(None, Context(0), tag, whole.buf().slice(0..1_000 * user as usize), user);
            let _ = table.engine.send(Peer(1), Context(0), Tag(0), Order::Ordered, long.buf(), 10 + user);
        }
        for packet in packets {
            table.say(&packet);
            while table.heard().is_some() {}
        }
        prop_assert_eq!(&whole.bytes()[2_000..], &[0xCC; 1_000]);
        table.sim.kill(Peer(1));
        table.work();
        prop_assert_eq!(table.engine.pending(), 0, "when the peer is gone, nothing waits for it");
    }
}
