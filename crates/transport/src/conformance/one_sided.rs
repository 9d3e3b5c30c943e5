//! Read and write straight between the memories of two processes. On a road that has neither the cases do nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::seat::content;
use super::{Group, Harness, Seat};
use crate::{Buf, Busy, Caps, Key, Memory, Peer, RemoteSlice, Rng, Token, Transport};

const A: Peer = Peer(0);
const B: Peer = Peer(1);
/// What lies around and under memory that an operation writes.
const GUARD: u8 = 0xEE;
/// Memory the small operations happen in.
const FIELD_BYTES: usize = 10_000;
/// Of a road without limit, so many bytes or operations are tried.
const LONG_BYTES: u64 = (3 << 20) + 13;
const IN_FLIGHT_TRIED_MAX: usize = 1024;

/// One of the two operations, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

/// The ways there are on this road, with the most bytes each may move.
pub(super) fn ways(caps: &Caps) -> Vec<(Way, u64)> {
    let ways = [(Way::Read, caps.read_bytes_max), (Way::Write, caps.write_bytes_max)];
    ways.into_iter().filter(|&(_, bytes_max)| bytes_max > 0).collect()
}

fn bytes_max(caps: &Caps, way: Way) -> u64 {
    if way == Way::Read { caps.read_bytes_max } else { caps.write_bytes_max }
}

impl Way {
    fn try_start(
        self,
        transport: &mut dyn Transport,
        (peer, remote): (Peer, RemoteSlice),
        local: Buf,
        token: Token,
    ) -> Result<(), Busy> {
        match self {
            Way::Read => transport.read(peer, remote, local, token),
            Way::Write => transport.write(peer, local, remote, token),
        }
    }

    async fn start(self, seat: &mut Seat<'_>, there: (Peer, RemoteSlice), local: Buf, token: Token) {
        seat.start(|transport| self.try_start(transport, there, local, token)).await;
    }

    async fn finish(self, seat: &mut Seat<'_>, there: (Peer, RemoteSlice), local: Buf, token: Token) {
        self.start(seat, there, local, token).await;
        let end = seat.end_of(token).await;
        assert!(end.is_ok(), "{self:?} {token:?}: {end:?}");
    }
}

/// Opens `memory` to `to` and tells it its key.
pub(super) async fn open(seat: &mut Seat<'_>, memory: &Memory, to: Peer) -> Key {
    let key = seat.transport.register(memory.buf(), to).expect("room for a registration");
    seat.send(to, &[key.base, key.name].map(u64::to_le_bytes).concat(), Buf::EMPTY).await;
    key
}

/// The key that the next packet brings, and who sent it.
pub(super) async fn hear_key(seat: &mut Seat<'_>) -> (Peer, Key) {
    let (from, bytes) = seat.packet().await;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let [base, name] = words[..] else { panic!("{} bytes for a key", bytes.len()) };
    (from, Key { base, name })
}

pub(super) fn slice(key: Key, offset: usize, len: usize) -> RemoteSlice {
    RemoteSlice { key, offset: offset as u64, len: len as u64 }
}

/// Sizes and offsets for small operations, at most `bytes_max` long.
fn spans(bytes_max: u64) -> Vec<(usize, usize)> {
    let sizes = [
        0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 255, 256, 1000, 4095, 4096, 4097,
        8200,
    ];
    let sizes = sizes.into_iter().filter(|&size| size as u64 <= bytes_max);
    sizes.flat_map(|size| [0, 1, 4, 7, 63].map(|offset| (offset + size % 5, size))).collect()
}

/// Reads at many sizes and alignments bring just the bytes asked for.
pub fn a_read_brings_bytes_of_every_size_and_alignment_and_no_others(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let spans = spans(seat.caps(seat.other()).read_bytes_max);
            if seat.caps(seat.other()).read_bytes_max == 0 {
                return;
            }
            let field = content(B, 0, FIELD_BYTES);
            let theirs = Memory::of(&field);
            if seat.me() == B {
                open(&mut seat, &theirs, A).await;
            } else {
                let (_, key) = hear_key(&mut seat).await;
                for (number, &(offset, size)) in spans.iter().enumerate() {
                    let at = (number * 3) % 64;
                    let mine = Memory::of(&vec![GUARD; at + size + 9]);
                    let there = (B, slice(key, offset, size));
                    Way::Read
                        .finish(&mut seat, there, mine.buf().slice(at..at + size), Token(number as u64))
                        .await;
                    let bytes = mine.bytes();
                    assert!(bytes[at..at + size] == field[offset..offset + size], "{size} bytes at {offset}");
                    assert!(
                        bytes[..at].iter().chain(&bytes[at + size..]).all(|&byte| byte == GUARD),
                        "others too"
                    );
                }
            }
            seat.finish().await;
        })
    });
}

/// Writes at many sizes and alignments put just the bytes given. The target is told by a packet after Done.
pub fn a_write_puts_bytes_of_every_size_and_alignment_and_no_others(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let spans = spans(seat.caps(seat.other()).write_bytes_max);
            if seat.caps(seat.other()).write_bytes_max == 0 {
                return;
            }
            if seat.me() == B {
                let field = Memory::of(&vec![GUARD; FIELD_BYTES]);
                open(&mut seat, &field, A).await;
                for (number, &(offset, size)) in spans.iter().enumerate() {
                    seat.packet().await;
                    let mut expected = vec![GUARD; FIELD_BYTES];
                    expected[offset..offset + size].copy_from_slice(&content(A, number as u64, size));
                    assert!(field.bytes() == expected, "{size} bytes at {offset}");
                    field.buf().fill_with(GUARD);
                    seat.send(A, b"next", Buf::EMPTY).await;
                }
            } else {
                let (_, key) = hear_key(&mut seat).await;
                for (number, &(offset, size)) in spans.iter().enumerate() {
                    let at = (number * 3) % 64;
                    let mine = Memory::zeroed(at + size);
                    let part = mine.buf().slice(at..at + size);
                    part.fill_from(&content(A, number as u64, size));
                    Way::Write
                        .finish(&mut seat, (B, slice(key, offset, size)), part, Token(number as u64))
                        .await;
                    seat.send(B, b"done", Buf::EMPTY).await;
                    seat.packet().await;
                }
            }
            seat.finish().await;
        })
    });
}

/// The longest operation the road allows, or some megabytes where it allows more.
pub fn the_longest_read_and_write_arrive_whole(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            for (way, bytes_max) in ways(&seat.caps(seat.other())) {
                let len = usize::try_from(bytes_max.min(LONG_BYTES)).expect("some megabytes");
                let source = if way == Way::Read { B } else { A };
                let memory =
                    if seat.me() == source { Memory::of(&content(A, 1, len)) } else { Memory::zeroed(len) };
                if seat.me() == B {
                    let key = open(&mut seat, &memory, A).await;
                    seat.packet().await;
                    seat.transport.deregister(key, A);
                } else {
                    let (_, key) = hear_key(&mut seat).await;
                    way.finish(&mut seat, (B, slice(key, 0, len)), memory.buf(), Token(u64::MAX)).await;
                    seat.send(B, b"done", Buf::EMPTY).await;
                }
                assert!(memory.bytes() == content(A, 1, len), "{way:?} of {len} bytes");
            }
            seat.finish().await;
        })
    });
}

/// `one_sided_max` operations are accepted without a poll, one more is not, and each ends once with its own bytes.
pub fn as_many_as_promised_are_in_flight_and_the_next_is_busy(harness: &dyn Harness) {
    const EACH: usize = 48;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let caps = seat.caps(seat.other());
            if caps.one_sided_max > IN_FLIGHT_TRIED_MAX {
                return;
            }
            for (way, _) in ways(&caps) {
                let len = EACH * caps.one_sided_max;
                let source = if way == Way::Read { B } else { A };
                let memory =
                    if seat.me() == source { Memory::of(&content(A, 1, len)) } else { Memory::zeroed(len) };
                if seat.me() == B {
                    open(&mut seat, &memory, A).await;
                    seat.packet().await;
                } else {
                    let (_, key) = hear_key(&mut seat).await;
                    let try_start = |transport: &mut dyn Transport, number: usize, place: usize| {
                        let local = memory.buf().slice(place * EACH..(place + 1) * EACH);
                        way.try_start(
                            transport,
                            (B, slice(key, place * EACH, EACH)),
                            local,
                            Token(number as u64),
                        )
                    };
                    for number in 0..caps.one_sided_max {
                        let accepted = (0..200).any(|_| try_start(seat.transport, number, number).is_ok());
                        assert!(accepted, "Busy with {number} in flight, {} promised", caps.one_sided_max);
                    }
                    assert_eq!(
                        try_start(seat.transport, caps.one_sided_max, 0),
                        Err(Busy),
                        "more than promised"
                    );
                    for number in (0..caps.one_sided_max).rev() {
                        seat.end_of(Token(number as u64)).await.expect("nothing is wrong with the peer");
                    }
                    seat.send(B, b"done", Buf::EMPTY).await;
                }
                assert!(memory.bytes() == content(A, 1, len), "{way:?}");
            }
            seat.finish().await;
        })
    });
}

/// A group of one.
pub fn one_may_read_and_write_oneself(harness: &dyn Harness) {
    harness.run(Group::of(1), &|mut seat| {
        Box::pin(async move {
            let field = Memory::of(&content(A, 1, 500));
            let key = seat.transport.register(field.buf(), A).expect("room for a registration");
            for (way, _) in ways(&seat.caps(seat.other())) {
                let mine = Memory::of(&content(A, 2, 100));
                way.finish(&mut seat, (A, slice(key, 200, 100)), mine.buf(), Token(7)).await;
                assert_eq!(mine.bytes(), field.bytes()[200..300], "{way:?}");
            }
            seat.transport.deregister(key, A);
            seat.finish().await;
        })
    });
}

/// Each of two peers reads from and writes to the other at random while packets fly; every byte is accounted for.
pub fn reads_writes_and_packets_go_both_ways_at_once(harness: &dyn Harness) {
    const ROUNDS: usize = 60;
    const EACH: usize = 200;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let caps = seat.caps(seat.other());
            if ways(&caps).is_empty() {
                return;
            }
            let (me, you) = if seat.me() == A { (A, B) } else { (B, A) };
            // First half: mine, to be read. Second half: yours, to be written.
            let field = Memory::zeroed(2 * ROUNDS * EACH);
            field.buf().fill_from(&content(me, 0, ROUNDS * EACH));
            open(&mut seat, &field, you).await;
            let (_, key) = hear_key(&mut seat).await;
            seat.meet(&[A, B]).await;
            let readable = content(you, 0, ROUNDS * EACH);
            let writable = Memory::of(&content(me, 1, ROUNDS * EACH));
            let (mut reading, mut packets) = (Vec::new(), 0);
            for round in 0..ROUNDS {
                let place = round * EACH..(round + 1) * EACH;
                if bytes_max(&caps, Way::Read) > 0 {
                    let target = Memory::zeroed(EACH);
                    let there = (you, slice(key, place.start, EACH));
                    Way::Read.start(&mut seat, there, target.buf(), Token(round as u64)).await;
                    reading.push((round, target));
                }
                if bytes_max(&caps, Way::Write) > 0 {
                    let there = (you, slice(key, ROUNDS * EACH + place.start, EACH));
                    let token = Token((ROUNDS + round) as u64);
                    Way::Write.start(&mut seat, there, writable.buf().slice(place), token).await;
                }
                seat.send(you, &[0; 16], Buf::EMPTY).await;
                while reading.len() > Rng::new(round as u64).index(8) {
                    let (round, target) = reading.swap_remove(Rng::new(round as u64).index(reading.len()));
                    seat.end_of(Token(round as u64)).await.expect("nothing is wrong with the peer");
                    assert!(target.bytes() == readable[round * EACH..(round + 1) * EACH], "read {round}");
                }
                while seat.packet_now().is_some() {
                    packets += 1;
                }
            }
            for (round, target) in reading {
                seat.end_of(Token(round as u64)).await.expect("nothing is wrong with the peer");
                assert!(target.bytes() == readable[round * EACH..(round + 1) * EACH], "read {round}");
            }
            if bytes_max(&caps, Way::Write) > 0 {
                for round in 0..ROUNDS {
                    seat.end_of(Token((ROUNDS + round) as u64))
                        .await
                        .expect("nothing is wrong with the peer");
                }
            }
            while packets < ROUNDS {
                seat.packet().await;
                packets += 1;
            }
            seat.meet(&[A, B]).await;
            let written = if bytes_max(&caps, Way::Write) > 0 {
                content(you, 1, ROUNDS * EACH)
            } else {
                vec![0; ROUNDS * EACH]
            };
            assert!(field.bytes()[ROUNDS * EACH..] == written, "what the peer wrote");
            assert!(field.bytes()[..ROUNDS * EACH] == content(me, 0, ROUNDS * EACH), "what the peer read");
            seat.finish().await;
        })
    });
}

/// Thousands of registrations, one after the other: each gives its room back.
pub fn memory_may_be_registered_again(harness: &dyn Harness) {
    harness.run(Group::of(1), &|mut seat| {
        Box::pin(async move {
            let memory = Memory::of(&[3; 100]);
            for _ in 0..5_000 {
                let key = seat.transport.register(memory.buf(), A).expect("room for a registration");
                seat.transport.deregister(key, A);
            }
            let empty = seat.transport.register(Buf::EMPTY, A).expect("no bytes may be registered as well");
            seat.transport.deregister(empty, A);
            let key = seat.transport.register(memory.buf(), A).expect("room for a registration");
            for (way, _) in ways(&seat.caps(seat.other())) {
                let mine = Memory::of(&[3; 100]);
                way.finish(&mut seat, (A, slice(key, 0, 100)), mine.buf(), Token(0)).await;
                assert_eq!(mine.bytes(), [3; 100], "{way:?}");
            }
            seat.transport.deregister(key, A);
            seat.finish().await;
        })
    });
}

/// Lengths that differ, or are beyond the limit, are the caller's mistake.
pub fn a_read_or_write_that_is_too_long_is_a_panic(harness: &dyn Harness) {
    harness.run(Group::of(1), &|mut seat| {
        Box::pin(async move {
            let caps = seat.caps(seat.other());
            let memory = Memory::zeroed(2048);
            let key = seat.transport.register(memory.buf(), A).expect("room for a registration");
            for way in [Way::Read, Way::Write] {
                let too_long = usize::try_from(bytes_max(&caps, way) + 1).unwrap_or(usize::MAX);
                if too_long > memory.len() {
                    continue;
                }
                let local = memory.buf().slice(0..too_long);
                let there = (A, slice(key, 0, too_long));
                let started =
                    catch_unwind(AssertUnwindSafe(|| way.try_start(seat.transport, there, local, Token(0))));
                assert!(started.is_err(), "{way:?} of {too_long} bytes was accepted");
            }
            seat.transport.deregister(key, A);
            seat.finish().await;
        })
    });
}
