//! What the engine promises, one sentence at a time.

use std::collections::VecDeque;
use std::time::Duration;

use selvedge_engine::{Config, Context, Engine, Failure, Order, RoadConfig, Submitted, Tag};
use selvedge_transport::{
    Buf, Busy, Caps, Event, Fault, Key, Peer, RemoteSlice, SimConfig, Slot, Token, Transport,
};

use crate::world::{UNTOUCHED, World};

const ORDERED: Order = Order::Ordered;

/// One configuration for each way a long message can travel that was announced.
fn rendezvous_roads() -> Vec<(&'static str, SimConfig, Config)> {
    let network = |read, write| SimConfig {
        read_bytes_max: read,
        write_bytes_max: write,
        packet_bytes_max: 256,
        ..SimConfig::default()
    };
    let road = RoadConfig {
        pregranted_bytes_max: 0,
        piece_bytes_max: 700,
        window_packets: 4,
        ..RoadConfig::default()
    };
    let both = RoadConfig { both_bytes_min: 0, ..road.clone() };
    let [config, both] = [road, both].map(|road| Config { road, ..Config::default() });
    vec![
        ("window", network(0, 0), config.clone()),
        ("read", network(1 << 20, 0), config.clone()),
        ("write", network(0, 1 << 20), config.clone()),
        ("both", network(1 << 20, 1 << 20), both),
    ]
}

/// One configuration for each way a long message can travel.
fn roads() -> Vec<(&'static str, SimConfig, Config)> {
    let mut roads = rendezvous_roads();
    let (_, network, _) = roads[0].clone();
    let road = RoadConfig { pregranted_bytes_max: usize::MAX, ..RoadConfig::default() };
    roads.push(("train", network, Config { road, ..Config::default() }));
    roads
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn two() -> World {
    World::new(SimConfig::default(), &Config::default())
}

/// So little credit that a few messages use it up.
fn poor() -> Config {
    Config { unexpected_bytes_limit: 0, ..Config::default() }
}

#[test]
fn an_eager_message_is_sent_at_once_and_kept_until_its_receive() {
    let mut world = two();
    let sent = world.send(0, 1, 0, 5, ORDERED, b"hello");
    assert!(world.outcome(0, sent).is_some(), "done before anything was polled");
    world.settle();
    assert_eq!(world.engines[1].stats().unexpected, 1);
    let received = world.recv(1, Some(0), 0, Some(5), 5);
    assert!(world.outcome(1, received).is_some(), "done at once");
    assert_eq!(world.received(1, received), b"hello");
    assert_eq!(world.engines[1].stats().unexpected_bytes, 0);
}

#[test]
fn a_receive_posted_first_takes_the_message_without_a_copy_in_between() {
    let mut world = two();
    let received = world.recv(1, None, 0, None, 5);
    world.send(0, 1, 0, 5, ORDERED, b"hello");
    world.settle();
    assert_eq!(world.received(1, received), b"hello");
    assert_eq!(world.engines[1].stats().unexpected, 0);
}

#[test]
fn messages_of_every_length_arrive_whole_on_every_road() {
    for (road, network, config) in roads() {
        let mut world = World::new(network, &config);
        for bytes in [0, 1, 239, 240, 241, 699, 700, 701, 5_000, 100_003] {
            let before = world.recv(1, Some(0), 0, Some(1), bytes);
            world.send(0, 1, 0, 1, ORDERED, &pattern(bytes));
            world.send(0, 1, 0, 2, ORDERED, &pattern(bytes));
            world.settle();
            let after = world.recv(1, Some(0), 0, Some(2), bytes);
            world.settle();
            for received in [before, after] {
                assert!(
                    matches!(world.outcome(1, received), Some(Ok(e)) if e.bytes == bytes as u64),
                    "{road} {bytes}"
                );
                assert_eq!(world.received(1, received), pattern(bytes), "{road}, {bytes} bytes");
            }
        }
        assert_eq!(world.engines[0].pending() + world.engines[1].pending(), 0, "{road}");
    }
}

#[test]
fn a_receive_that_is_too_short_gets_the_front_and_is_told_on_every_road() {
    for (road, network, config) in roads() {
        let mut world = World::new(network, &config);
        for (bytes, capacity) in [(100, 99), (100, 0), (5_000, 4_999), (5_000, 10), (5_000, 0)] {
            let received = world.recv(1, Some(0), 0, Some(1), capacity);
            let sent = world.send(0, 1, 0, 1, ORDERED, &pattern(bytes));
            world.settle();
            assert!(matches!(world.outcome(0, sent), Some(Ok(_))), "{road}: the sender does not notice");
            let Some(Err(Failure::Truncated { sent, capacity: told, envelope })) = world.outcome(1, received)
            else {
                panic!("{road}: {:?}", world.outcome(1, received));
            };
            assert_eq!((*sent, *told, envelope.bytes), (bytes as u64, capacity as u64, bytes as u64));
            assert_eq!(world.received(1, received), &pattern(bytes)[..capacity]);
        }
        assert_eq!(world.late_writes(), None);
    }
}

#[test]
fn a_receive_longer_than_the_message_keeps_its_rest() {
    for (road, network, config) in roads() {
        let mut world = World::new(network, &config);
        for bytes in [10, 3_000] {
            let received = world.recv(1, Some(0), 0, Some(1), bytes + 7);
            world.send(0, 1, 0, 1, ORDERED, &pattern(bytes));
            world.settle();
            assert_eq!(world.received(1, received)[bytes..], [UNTOUCHED; 7], "{road}");
        }
    }
}

#[test]
fn a_thousand_messages_that_nobody_receives_do_not_hold_up_the_next() {
    for network in [SimConfig::default(), SimConfig::tiny(), SimConfig::efa_like()] {
        let mut world = World::new(network, &poor());
        let stuck: Vec<u64> = (0..1_000).map(|_| world.send(0, 1, 0, 1, ORDERED, b"later")).collect();
        world.send(0, 1, 0, 2, ORDERED, b"now");
        let received = world.recv(1, Some(0), 0, Some(2), 3);
        world.settle();
        assert_eq!(world.received(1, received), b"now");
        let stats = world.engines[0].stats();
        assert!(stats.sent_demoted > 900, "{stats:?}");
        let later: Vec<u64> = (0..1_000).map(|_| world.recv(1, Some(0), 0, Some(1), 5)).collect();
        world.settle();
        assert!(later.iter().all(|&user| world.received(1, user) == b"later"));
        assert!(stuck.iter().all(|&user| matches!(world.outcome(0, user), Some(Ok(_)))));
    }
}

#[test]
fn memory_for_unexpected_messages_stays_within_its_limit() {
    for (limit, bytes) in [(64 << 10, 8), (64 << 10, 1_000), (256 << 10, 4_000), (256 << 10, 9_000), (0, 100)]
    {
        let peers = 5;
        let config = Config { unexpected_bytes_limit: limit, ..Config::default() };
        let mut world = World::new(SimConfig { peers, ..SimConfig::default() }, &config);
        for round in 0..400 {
            for from in 1..peers {
                world.send(from, 0, 0, round, ORDERED, &pattern(bytes));
            }
            world.poll(0);
        }
        world.settle();
        let stats = world.engines[0].stats().clone();
        let bound = limit.max(peers as u64 * selvedge_engine::credit::BYTES_MIN);
        assert!(stats.unexpected_bytes_max <= bound, "{} of {bound}", stats.unexpected_bytes_max);
        assert!(stats.unexpected_bytes_max >= bound / peers as u64 / 2, "it is used: {stats:?}");
        for round in 0..400 {
            for from in 1..peers {
                let received = world.recv(0, Some(from), 0, Some(round), bytes);
                world.settle_if_pending(0, received);
                assert_eq!(world.received(0, received), pattern(bytes));
            }
        }
        assert_eq!(world.engines[0].stats().unexpected_bytes, 0);
    }
}

#[test]
fn a_stream_of_short_messages_costs_few_packets_of_credit() {
    let mut world = two();
    for _ in 0..100 {
        let received: Vec<u64> = (0..100).map(|_| world.recv(1, Some(0), 0, Some(0), 8)).collect();
        for _ in 0..100 {
            world.send(0, 1, 0, 0, ORDERED, b"8 bytes.");
        }
        world.settle();
        assert!(received.iter().all(|&user| world.received(1, user) == b"8 bytes."));
    }
    let (sender, receiver) = (world.engines[0].stats(), world.engines[1].stats());
    assert_eq!((sender.sent_eager, sender.sent_rendezvous), (10_000, 0));
    assert!(receiver.credit_packets <= 10, "{receiver:?}");
}

#[test]
fn messages_to_oneself_arrive_on_every_road() {
    for (road, network, config) in roads() {
        let mut world = World::new(SimConfig { peers: 1, ..network }, &config);
        for bytes in [3, 10_000] {
            let received = world.recv(0, Some(0), 0, Some(1), bytes);
            world.send(0, 0, 0, 1, ORDERED, &pattern(bytes));
            world.settle();
            assert_eq!(world.received(0, received), pattern(bytes), "{road}");
        }
    }
}

#[test]
fn unordered_messages_are_told_apart_by_all_64_bits_of_their_tag() {
    let mut world = two();
    let (low, high) = (7, 1 << 63 | 7);
    let long = pattern(50_000);
    world.send(0, 1, 0, high, Order::Unordered, b"high");
    world.send(0, 1, 0, low, Order::Unordered, &long);
    let first = world.recv(1, Some(0), 0, Some(low), 50_000);
    let second = world.recv(1, Some(0), 0, Some(high), 4);
    world.settle();
    assert_eq!(world.received(1, first), long);
    assert_eq!(world.received(1, second), b"high");
}

#[test]
#[should_panic(expected = "the tag of an ordered message has 32 bits")]
fn an_ordered_message_with_a_wide_tag_is_refused() {
    two().send(0, 1, 0, 1 << 32, ORDERED, b"");
}

#[test]
fn a_probe_sees_the_message_that_the_next_receive_takes() {
    let mut world = two();
    assert_eq!(world.probe(1, None, 0, None), None);
    world.send(0, 1, 0, 5, ORDERED, b"short");
    world.send(0, 1, 0, 5, ORDERED, &pattern(100_000));
    world.settle();
    for bytes in [5, 100_000] {
        let seen = world.probe(1, None, 0, Some(5)).expect("it is here");
        assert_eq!((seen.source, seen.tag, seen.bytes), (Peer(0), Tag(5), bytes));
        let received = world.recv(1, Some(0), 0, Some(5), bytes as usize);
        world.settle();
        assert!(matches!(world.outcome(1, received), Some(Ok(envelope)) if *envelope == seen));
    }
    assert_eq!(world.probe(1, None, 0, None), None);
}

#[test]
fn a_probe_alone_makes_progress() {
    let mut world = two();
    world.send(0, 1, 0, 5, ORDERED, b"short");
    world.sim.advance();
    assert!(world.probe(1, None, 0, None).is_some());
}

#[test]
fn a_receive_is_cancelled_before_it_is_matched_and_not_after() {
    let mut world = two();
    let (first, second) = (world.recv(1, None, 0, None, 5), world.recv(1, None, 0, None, 5));
    let (first_id, second_id) = (world.request(1, first), world.request(1, second));
    assert!(world.engines[1].cancel(first_id));
    assert!(!world.engines[1].cancel(first_id), "once only");
    world.send(0, 1, 0, 0, ORDERED, b"hello");
    world.settle();
    assert_eq!(world.outcome(1, first), Some(&Err(Failure::Cancelled)));
    assert_eq!(world.received(1, second), b"hello");
    assert!(!world.engines[1].cancel(second_id), "too late");
    let third = world.recv(1, None, 0, None, 5);
    assert!(!world.engines[1].cancel(second_id), "an old id does not name a new receive");
    assert_eq!(world.outcome(1, third), None);
}

#[test]
fn a_send_is_cancelled_before_it_begins_and_not_after() {
    let mut world = World::new(SimConfig { in_flight_max: 1, ..SimConfig::default() }, &Config::default());
    world.send(0, 1, 0, 0, ORDERED, b"first");
    let waiting = world.send(0, 1, 0, 1, ORDERED, b"waits for room");
    let last = world.send(0, 1, 0, 2, ORDERED, b"last");
    let id = world.request(0, waiting);
    assert!(world.engines[0].cancel(id));
    world.settle();
    assert_eq!(world.outcome(0, waiting), Some(&Err(Failure::Cancelled)));
    assert!(matches!(world.outcome(0, last), Some(Ok(_))));
    world.settle();
    let tags: Vec<u64> = std::iter::from_fn(|| {
        let seen = world.probe(1, None, 0, None)?;
        world.recv(1, None, 0, None, 20);
        Some(seen.tag.0)
    })
    .collect();
    assert_eq!(tags, [0, 2], "the gap does not hold up what follows");
    let begun = world.send(0, 1, 0, 3, ORDERED, &pattern(100_000));
    let id = world.request(0, begun);
    assert!(!world.engines[0].cancel(id), "its announcement has left");
}

#[test]
fn waiting_sleeps_only_when_there_is_nothing_to_return_or_to_try() {
    let mut world = two();
    let hour = Duration::from_secs(3_600);
    let received = world.recv(1, None, 0, None, 5);
    let id = world.request(1, received);
    assert!(world.engines[1].cancel(id));
    let before = world.sim.now();
    world.engines[1].wait(hour);
    assert_eq!(world.sim.now(), before, "there is a completion to return");
    world.settle();
    let before = world.sim.now();
    world.engines[1].wait(hour);
    assert_eq!(world.sim.now(), before + hour, "nothing will happen");
}

#[test]
fn a_long_message_leaves_its_buffer_alone_until_it_was_fetched() {
    // The world overwrites a send buffer as soon as it comes back; here it must not come back early.
    for (road, network, config) in rendezvous_roads() {
        let mut world = World::new(network, &config);
        let sent = world.send(0, 1, 0, 1, ORDERED, &pattern(9_000));
        world.settle();
        assert_eq!(world.outcome(0, sent), None, "{road}: nobody has asked for it");
        let received = world.recv(1, Some(0), 0, Some(1), 9_000);
        world.settle();
        assert!(world.outcome(0, sent).is_some(), "{road}");
        assert_eq!(world.received(1, received), pattern(9_000), "{road}");
    }
}

/// A network on which every packet takes 10 us, and no packet has more than 256 bytes.
fn slow(seed: u64) -> SimConfig {
    let latency_ns = 10_000..=10_000;
    SimConfig { seed, latency_ns, packet_bytes_max: 256, ..SimConfig::default() }
}

fn pregranted(pregranted_bytes_max: usize) -> Config {
    let road = RoadConfig { pregranted_bytes_max, ..RoadConfig::default() };
    Config { road, ..Config::default() }
}

#[test]
fn a_train_takes_one_way_time_where_an_announced_message_takes_three() {
    let times = |config: &Config| {
        // One packet in 32 is late, so the usual time is asked for.
        let mut times: Vec<Duration> = (0..21)
            .map(|seed| {
                let mut world = World::new(slow(seed), config);
                let received = world.recv(1, Some(0), 0, Some(1), 1_000);
                world.send(0, 1, 0, 1, ORDERED, &pattern(1_000));
                world.settle_if_pending(1, received);
                assert_eq!(world.received(1, received), pattern(1_000));
                world.sim.now()
            })
            .collect();
        times.sort_unstable();
        times[10].as_micros()
    };
    let (train, announced) = (times(&pregranted(1_000)), times(&pregranted(999)));
    assert!(train < 20 && announced > 30, "{train} and {announced} us");
}

#[test]
fn a_train_is_over_for_its_sender_when_its_last_part_has_left() {
    let mut world = World::new(slow(0), &pregranted(1_000));
    let sent = world.send(0, 1, 0, 1, ORDERED, &pattern(1_000));
    world.poll(0);
    assert!(matches!(world.outcome(0, sent), Some(Ok(_))), "nobody has received it");
    let stats = world.engines[0].stats();
    assert_eq!((stats.sent_trains, stats.sent_rendezvous), (1, 0));
    world.settle();
    assert_eq!(world.probe(1, None, 0, None).map(|seen| seen.bytes), Some(1_000));
    let received = world.recv(1, None, 0, None, 1_000);
    assert_eq!(world.received(1, received), pattern(1_000));
    assert_eq!(world.engines[1].stats().unexpected_bytes, 0);
}

#[test]
fn a_train_that_finds_no_room_holds_up_nobody_else() {
    let network = SimConfig { peers: 3, in_flight_max: 1, ..slow(0) };
    let mut world = World::new(network, &pregranted(10_000));
    let train = world.send(0, 1, 0, 1, ORDERED, &pattern(10_000));
    let other = world.send(0, 2, 0, 1, ORDERED, b"hello");
    assert!(matches!((world.outcome(0, train), world.outcome(0, other)), (None, Some(Ok(_)))));
    let behind = world.send(0, 1, 0, 2, ORDERED, b"behind it");
    let id = world.request(0, train);
    assert!(!world.engines[0].cancel(id), "it has begun");
    let received = [world.recv(1, None, 0, None, 10_000), world.recv(1, None, 0, None, 10_000)];
    world.settle();
    assert!(matches!((world.outcome(0, train), world.outcome(0, behind)), (Some(Ok(_)), Some(Ok(_)))));
    assert_eq!(world.received(1, received[0]), pattern(10_000));
    assert_eq!(&world.received(1, received[1])[..9], b"behind it");
}

#[test]
fn a_train_that_credit_does_not_pay_for_is_announced() {
    let config = Config { unexpected_bytes_limit: 0, ..pregranted(usize::MAX) };
    let mut world = World::new(slow(0), &config);
    for tag in 0..20 {
        world.send(0, 1, 0, tag, ORDERED, &pattern(1_000));
    }
    world.settle();
    let stats = world.engines[0].stats();
    assert!(stats.sent_trains >= 2 && stats.sent_demoted >= 10, "{stats:?}");
    let received: Vec<u64> = (0..20).rev().map(|tag| world.recv(1, Some(0), 0, Some(tag), 1_000)).collect();
    world.settle();
    assert!(received.iter().all(|&user| world.received(1, user) == pattern(1_000)));
}

#[test]
fn a_road_without_room_for_registrations_carries_long_messages_in_windows() {
    for (road, network, config) in roads() {
        let network = SimConfig { registrations_max: 1, ..network };
        let mut world = World::new(network, &config);
        let received: Vec<u64> = (0..8).map(|tag| world.recv(1, Some(0), 0, Some(tag), 3_000)).collect();
        for tag in 0..8 {
            world.send(0, 1, 0, tag, ORDERED, &pattern(3_000));
        }
        world.settle();
        assert!(received.iter().all(|&user| world.received(1, user) == pattern(3_000)), "{road}");
    }
}

#[test]
fn several_engines_of_one_process_do_not_know_of_each_other() {
    let (mut one, mut other) = (two(), two());
    one.send(0, 1, 0, 1, ORDERED, b"one");
    other.send(0, 1, 0, 1, ORDERED, b"other");
    one.settle();
    other.settle();
    let (a, b) = (one.recv(1, None, 0, None, 5), other.recv(1, None, 0, None, 5));
    assert_eq!((&one.received(1, a)[..3], other.received(1, b)), (&b"one"[..], &b"other"[..]));
}

/// A transport that copies nothing: it takes note of what it was asked for, and says that it is done.
struct Ledger {
    caps: Vec<Caps>,
    asked: Vec<(u64, u64)>,
    packets: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Transport for Ledger {
    fn roads(&self) -> &[Caps] {
        &self.caps
    }

    fn peers(&self) -> usize {
        2
    }

    fn me(&self) -> Peer {
        Peer(0)
    }

    fn register(&mut self, _: Buf, _: Peer) -> Result<Key, Box<Fault>> {
        Ok(Key::default())
    }

    fn deregister(&mut self, _: Key, _: Peer) {}

    fn send(&mut self, _: Peer, header: &[u8], _: Buf) -> Result<(), Busy> {
        self.packets.push_back(header.to_vec());
        Ok(())
    }

    fn read(&mut self, _: Peer, remote: RemoteSlice, local: Buf, token: Token) -> Result<(), Busy> {
        assert_eq!(local.len() as u64, remote.len);
        self.asked.push((remote.offset, remote.len));
        self.events.push_back(Event::Done(token));
        Ok(())
    }

    fn write(&mut self, to: Peer, local: Buf, remote: RemoteSlice, token: Token) -> Result<(), Busy> {
        self.read(to, remote, local, token)
    }

    fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn packet(&self, slot: &Slot) -> &[u8] {
        &self.packets[slot.number() as usize]
    }

    fn release(&mut self, _: Slot) {}

    fn wait(&mut self, _: Duration) {}
}

#[test]
fn a_message_of_more_than_four_gibibytes_is_counted_in_64_bits_from_end_to_end() {
    // Never touched, so that it takes no memory.
    const BYTES: u64 = (5 << 30) + 3;
    let untouched = Buf::leaked(Box::leak(vec![0; BYTES as usize].into_boxed_slice()));
    let caps = Caps {
        name: "ledger",
        packet_bytes_max: 256,
        inline_bytes_max: 64,
        slots_max: 8,
        read_bytes_max: 1 << 30,
        write_bytes_max: 0,
        one_sided_max: 8,
    };
    let ledger =
        Ledger { caps: vec![caps], asked: Vec::new(), packets: VecDeque::new(), events: VecDeque::new() };
    let road = RoadConfig { piece_bytes_max: 1 << 30, ..RoadConfig::default() };
    let mut engine = Engine::new(ledger, Config { road, ..Config::default() });

    // The announcement that leaves comes in again, as if rank 1 had sent it.
    let sent = engine.send(Peer(1), Context(0), Tag(7), ORDERED, untouched, 1);
    assert!(matches!(sent, Submitted::Pending(_)));
    engine.transport_mut().events.push_back(Event::Packet { from: Peer(1), slot: Slot::new(0) });
    let seen = engine.probe(None, Context(0), None).unwrap().expect("it is announced");
    assert_eq!(seen.bytes, BYTES);
    assert!(matches!(engine.recv(None, Context(0), None, untouched, 2), Submitted::Pending(_)));
    let received = engine.poll().expect("every read is done");
    assert_eq!((received.user, received.outcome), (2, Ok(seen)));
    let pieces: Vec<u64> = engine.transport().asked.iter().map(|&(offset, _)| offset).collect();
    assert_eq!(pieces, (0..6).map(|piece| piece << 30).collect::<Vec<u64>>());
    assert_eq!(engine.transport().asked.iter().map(|&(_, bytes)| bytes).sum::<u64>(), BYTES);
}
