//! Packets arrive exactly once, whole and unchanged, from and to whom they should.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::seat::{content, sizes};
use super::{Group, Harness, Seat};
use crate::{Buf, Busy, Caps, Memory, Peer, Rng};

const A: Peer = Peer(0);
const B: Peer = Peer(1);

/// Packets expected, with how often.
#[derive(Default)]
struct Expected(BTreeMap<(Peer, Vec<u8>), usize>);

impl Expected {
    fn add(&mut self, from: Peer, bytes: Vec<u8>) {
        *self.0.entry((from, bytes)).or_default() += 1;
    }

    /// Ticks one off; panics when it is not among them.
    fn arrived(&mut self, (from, bytes): (Peer, Vec<u8>)) {
        let len = bytes.len();
        let left = self.0.get_mut(&(from, bytes));
        let left =
            left.unwrap_or_else(|| panic!("{len} bytes from {from:?} that it never sent, or sent once"));
        *left -= 1;
        self.0.retain(|_, left| *left > 0);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The limits of a road, as a packet.
fn described(caps: &Caps) -> Vec<u8> {
    let sizes = [caps.packet_bytes_max, caps.inline_bytes_max, caps.slots_max, caps.one_sided_max];
    let sizes = sizes.map(|size| size as u64);
    let words = sizes.into_iter().chain([caps.read_bytes_max, caps.write_bytes_max]);
    words.flat_map(u64::to_le_bytes).chain(caps.name.bytes()).collect()
}

/// Roads and peers are in order on every side, and both ends of a road see the same.
pub fn limits_are_those_of_the_contract(harness: &dyn Harness) {
    harness.run(Group::of(3), &|mut seat| {
        Box::pin(async move {
            assert_eq!(seat.transport.peers(), 3);
            assert!(seat.me().index() < 3);
            let roads = seat.transport.roads();
            assert!((1..=256).contains(&roads.len()), "{} roads", roads.len());
            for (number, caps) in roads.iter().enumerate() {
                assert!(!caps.name.is_empty());
                assert!(
                    roads[..number].iter().all(|other| other.name != caps.name),
                    "two roads {}",
                    caps.name
                );
                assert!(caps.packet_bytes_max >= 256, "{caps:?}");
                assert!(caps.inline_bytes_max <= caps.packet_bytes_max, "{caps:?}");
                assert!(caps.slots_max >= 1, "{caps:?}");
                assert!(
                    caps.read_bytes_max.max(caps.write_bytes_max) == 0 || caps.one_sided_max >= 1,
                    "{caps:?}"
                );
            }
            // Everybody says who he is to the next one, so that no two have the same index.
            let next = Peer((seat.me().0 + 1) % 3);
            seat.send(next, &seat.me().0.to_le_bytes(), Buf::EMPTY).await;
            let (from, bytes) = seat.packet().await;
            assert_eq!((from.0 + 1) % 3, seat.me().0);
            assert_eq!(bytes, from.0.to_le_bytes());
            let everybody = seat.everybody();
            seat.meet(&everybody).await;
            for &to in &everybody {
                assert_eq!(seat.caps(to), seat.transport.roads()[seat.transport.road(to)]);
                let mine = described(&seat.caps(to));
                seat.send(to, &mine, Buf::EMPTY).await;
            }
            for _ in &everybody {
                let (from, theirs) = seat.packet().await;
                assert_eq!(theirs, described(&seat.caps(from)), "both ends see the same road");
            }
            seat.finish().await;
        })
    });
}

/// One packet of each size, split at random into header and payload.
pub fn packets_of_every_size_arrive_once_whole_and_unchanged(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let sizes = sizes(&seat.caps(seat.other()));
            if seat.me() == A {
                let mut rng = Rng::new(1);
                for &size in &sizes {
                    let bytes = content(A, size as u64, size);
                    let (header, payload) = bytes.split_at(rng.index(size + 1));
                    seat.send(B, header, Memory::of(payload).buf()).await;
                }
            } else {
                let mut expected = Expected::default();
                sizes.iter().for_each(|&size| expected.add(A, content(A, size as u64, size)));
                while !expected.is_empty() {
                    expected.arrived(seat.packet().await);
                }
            }
            seat.finish().await;
        })
    });
}

/// Every way to split a packet gives the same bytes, header only and payload only included.
pub fn header_and_payload_arrive_as_one(harness: &dyn Harness) {
    const LEN: usize = 100;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let packets = (0..=LEN).map(|split| content(A, split as u64, LEN));
            if seat.me() == A {
                for (split, bytes) in packets.enumerate() {
                    seat.send(B, &bytes[..split], Memory::of(&bytes[split..]).buf()).await;
                }
            } else {
                let mut expected = Expected::default();
                packets.for_each(|bytes| expected.add(A, bytes));
                while !expected.is_empty() {
                    expected.arrived(seat.packet().await);
                }
            }
            seat.finish().await;
        })
    });
}

/// A group of one can talk to itself.
pub fn a_packet_to_oneself_arrives(harness: &dyn Harness) {
    harness.run(Group::of(1), &|mut seat| {
        Box::pin(async move {
            let mut expected = Expected::default();
            for size in sizes(&seat.caps(seat.other())) {
                let bytes = content(A, size as u64, size);
                seat.send(A, &bytes, Buf::EMPTY).await;
                expected.add(A, bytes);
            }
            while !expected.is_empty() {
                expected.arrived(seat.packet().await);
            }
            seat.finish().await;
        })
    });
}

/// Four send to one at the same time, each its own bytes.
pub fn packets_of_many_senders_arrive_with_the_right_name(harness: &dyn Harness) {
    const EACH: u64 = 100;
    harness.run(Group::of(5), &|mut seat| {
        Box::pin(async move {
            let me = seat.me();
            if me == A {
                let mut expected = Expected::default();
                for from in (1..5).map(Peer) {
                    (0..EACH)
                        .for_each(|number| expected.add(from, content(from, number, 8 + number as usize)));
                }
                while !expected.is_empty() {
                    expected.arrived(seat.packet().await);
                }
            } else {
                for number in 0..EACH {
                    seat.send(A, &content(me, number, 8 + number as usize), Buf::EMPTY).await;
                }
            }
            seat.finish().await;
        })
    });
}

/// Four peers, each sends to each, itself included, and nobody waits for anybody to begin.
pub fn everybody_may_talk_to_everybody_at_once(harness: &dyn Harness) {
    const EACH: u64 = 50;
    harness.run(Group::of(4), &|mut seat| {
        Box::pin(async move {
            let (me, everybody) = (seat.me(), seat.everybody());
            let mut expected = Expected::default();
            for &from in &everybody {
                (0..EACH).for_each(|number| expected.add(from, content(from, number, 40)));
            }
            for number in 0..EACH {
                for &to in &everybody {
                    seat.send(to, &content(me, number, 40), Buf::EMPTY).await;
                }
                while let Some(packet) = seat.packet_now() {
                    expected.arrived(packet);
                }
            }
            while !expected.is_empty() {
                expected.arrived(seat.packet().await);
            }
            seat.finish().await;
        })
    });
}

/// Enough packets, both ways at once, that every queue and ring goes round many times.
pub fn a_long_conversation_loses_nothing(harness: &dyn Harness) {
    const PACKETS: u64 = 1500;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let (me, you) = if seat.me() == A { (A, B) } else { (B, A) };
            let size = |from: Peer, number: u64| 8 + Rng::new(number).child(from.0.into()).index(240);
            let mut missing: BTreeMap<Vec<u8>, ()> =
                (0..PACKETS).map(|number| (content(you, number, size(you, number)), ())).collect();
            for number in 0..PACKETS {
                let bytes = content(me, number, size(me, number));
                seat.send(you, &bytes[..8], Memory::of(&bytes[8..]).buf()).await;
                while let Some((_, bytes)) = seat.packet_now() {
                    missing.remove(&bytes).expect("sent, and not arrived before");
                }
            }
            while !missing.is_empty() {
                let (_, bytes) = seat.packet().await;
                missing.remove(&bytes).expect("sent, and not arrived before");
            }
            seat.finish().await;
        })
    });
}

/// A sender goes on until it is refused, while nobody polls. Each attempt has its number: refused ones never show up.
pub fn a_refused_packet_was_not_sent_and_busy_ends(harness: &dyn Harness) {
    const ATTEMPTS_MAX: u64 = 5_000;
    const AFTERWARDS: u64 = 50;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            if seat.me() == A {
                let (mut accepted, mut refused) = (Vec::new(), 0);
                for attempt in 0..ATTEMPTS_MAX {
                    match seat.transport.send(B, &attempt.to_le_bytes(), Buf::EMPTY) {
                        Ok(()) => accepted.push(attempt),
                        Err(Busy) => refused += 1,
                    }
                    if refused == 10 {
                        break;
                    }
                }
                for number in ATTEMPTS_MAX..ATTEMPTS_MAX + AFTERWARDS {
                    seat.send(B, &number.to_le_bytes(), Buf::EMPTY).await;
                    accepted.push(number);
                }
                let sum: u64 = accepted.iter().sum();
                seat.send(B, &[accepted.len() as u64, sum].map(u64::to_le_bytes).concat(), Buf::EMPTY).await;
            } else {
                seat.rest(50).await;
                let (mut numbers, mut told) = (Vec::new(), None);
                while told.is_none_or(|(count, _)| (numbers.len() as u64) < count) {
                    let words = words(&seat.packet().await.1);
                    match words[..] {
                        [number] => numbers.push(number),
                        [count, sum] => told = Some((count, sum)),
                        _ => panic!("a packet of {} words", words.len()),
                    }
                }
                assert_eq!(
                    told,
                    Some((numbers.len() as u64, numbers.iter().sum())),
                    "a refused packet arrived"
                );
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(
                    Some(numbers.len() as u64),
                    told.map(|(count, _)| count),
                    "a packet arrived twice"
                );
            }
            seat.finish().await;
        })
    });
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// Header and payload are overwritten as soon as `send` has returned.
pub fn a_send_borrows_nothing(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let size = |number: u64| 40 + 3 * number as usize;
            if seat.me() == A {
                let payload = Memory::zeroed(256);
                for number in 0..60 {
                    let mut bytes = content(A, number, size(number));
                    let part = payload.buf().slice(0..bytes.len() - 20);
                    part.fill_from(&bytes[20..]);
                    seat.send(B, &bytes[..20], part).await;
                    bytes.fill(0xEE);
                    payload.buf().fill_with(0xEE);
                }
            } else {
                seat.rest(20).await;
                let mut expected = Expected::default();
                (0..60).for_each(|number| expected.add(A, content(A, number, size(number))));
                while !expected.is_empty() {
                    expected.arrived(seat.packet().await);
                }
            }
            seat.finish().await;
        })
    });
}

/// One byte more than allowed is the caller's mistake, and the transport goes on working after it.
pub fn a_packet_that_is_too_long_is_a_panic(harness: &dyn Harness) {
    harness.run(Group::of(1), &|mut seat: Seat<'_>| {
        Box::pin(async move {
            let bytes = vec![0; seat.caps(seat.other()).packet_bytes_max];
            let too_long = Memory::of(&[0]);
            let sent = catch_unwind(AssertUnwindSafe(|| seat.transport.send(A, &bytes, too_long.buf())));
            assert!(sent.is_err(), "accepted");
            seat.finish().await;
        })
    });
}
