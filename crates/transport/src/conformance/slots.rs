//! Received packets on loan.

use std::collections::BTreeSet;

use super::seat::content;
use super::{Group, Harness, Seat};
use crate::{Buf, Busy, Peer, Rng, Slot};

const A: Peer = Peer(0);
const B: Peer = Peer(1);
/// Of a transport that lends without limit, so many are tried.
const TRIED_MAX: usize = 1000;
const LEN: usize = 100;

async fn send_numbered(seat: &mut Seat<'_>, to: Peer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let bytes = [&number.to_le_bytes()[..], &content(seat.me(), number, LEN)].concat();
        seat.send(to, &bytes, Buf::EMPTY).await;
    }
}

/// The number of a packet of [`send_numbered`]; panics when its bytes are others.
fn number_of(seat: &Seat<'_>, from: Peer, slot: &Slot) -> u64 {
    let (number, bytes) = seat.transport.packet(slot).split_first_chunk().expect("a number comes first");
    let number = u64::from_le_bytes(*number);
    assert_eq!(bytes, content(from, number, LEN), "bytes of packet {number} of {from:?}");
    number
}

/// Looks at the next packet, if there is one, and gives it back.
fn pass_one(seat: &mut Seat<'_>) -> bool {
    let Some((from, slot)) = seat.slot_now() else { return false };
    number_of(seat, from, &slot);
    seat.transport.release(slot);
    true
}

/// As many slots as allowed (but one) stay on loan, unchanged, while a hundred other packets pass.
pub fn slots_on_loan_keep_their_bytes_while_others_come_and_go(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let held_max = (seat.caps(seat.other()).slots_max - 1).min(TRIED_MAX);
            let total = held_max as u64 + 100;
            if seat.me() == A {
                send_numbered(&mut seat, B, 0..total).await;
            } else {
                let mut held = Vec::new();
                let mut seen = BTreeSet::new();
                while (seen.len() as u64) < total {
                    let (from, slot) = seat.slot().await;
                    assert!(seen.insert(number_of(&seat, from, &slot)), "a packet twice");
                    match held.len() < held_max {
                        true => held.push((from, number_of(&seat, from, &slot), slot)),
                        false => seat.transport.release(slot),
                    }
                }
                for (from, number, slot) in held {
                    assert_eq!(number_of(&seat, from, &slot), number, "a packet on loan has changed");
                    seat.transport.release(slot);
                }
            }
            seat.finish().await;
        })
    });
}

/// Slots come back in another order than they went, many times over.
pub fn slots_may_be_given_back_in_any_order(harness: &dyn Harness) {
    const PACKETS: u64 = 600;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            if seat.me() == A {
                send_numbered(&mut seat, B, 0..PACKETS).await;
            } else {
                let mut rng = Rng::new(4);
                let held_max = seat.caps(seat.other()).slots_max.min(16);
                let mut held = Vec::new();
                let mut seen = BTreeSet::new();
                while (seen.len() as u64) < PACKETS {
                    let (from, slot) = seat.slot().await;
                    assert!(seen.insert(number_of(&seat, from, &slot)), "a packet twice");
                    held.push((from, number_of(&seat, from, &slot), slot));
                    while held.len() >= held_max || (!held.is_empty() && rng.one_in(3)) {
                        let (from, number, slot) = held.swap_remove(rng.index(held.len()));
                        assert_eq!(number_of(&seat, from, &slot), number, "a packet on loan has changed");
                        seat.transport.release(slot);
                    }
                }
                held.into_iter().for_each(|(.., slot)| seat.transport.release(slot));
            }
            seat.finish().await;
        })
    });
}

/// All slots but one are filled with packets of one sender; then that sender and another both get on.
pub fn with_all_but_one_slot_on_loan_every_sender_makes_progress(harness: &dyn Harness) {
    const EACH: u64 = 60;
    harness.run(Group::of(3), &|mut seat| {
        Box::pin(async move {
            let of_first = if seat.me() == A { B } else { A };
            let held_max = (seat.caps(of_first).slots_max - 1).min(TRIED_MAX);
            if seat.me() == A {
                let mut held = Vec::new();
                while held.len() < held_max {
                    held.push(seat.slot().await.1);
                }
                let mut arrived = 0;
                for to in [B, Peer(2)] {
                    while seat.transport.send(to, b"go", Buf::EMPTY) == Err(Busy) {
                        arrived += u64::from(pass_one(&mut seat));
                        seat.turn().await;
                    }
                }
                while arrived < 2 * EACH {
                    match pass_one(&mut seat) {
                        true => arrived += 1,
                        false => seat.turn().await,
                    }
                }
                held.into_iter().for_each(|slot| seat.transport.release(slot));
            } else {
                if seat.me() == B {
                    send_numbered(&mut seat, A, 0..held_max as u64).await;
                }
                seat.packet().await;
                send_numbered(&mut seat, A, 10_000..10_000 + EACH).await;
            }
            seat.finish().await;
        })
    });
}

/// At the limit the transport lends no more; when slots come back it goes on where it was.
pub fn with_every_slot_on_loan_no_more_are_lent_and_nothing_is_lost(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let slots_max = seat.caps(seat.other()).slots_max;
            if slots_max > TRIED_MAX {
                return;
            }
            let total = slots_max as u64 + 40;
            if seat.me() == A {
                send_numbered(&mut seat, B, 0..total).await;
            } else {
                let mut held = Vec::new();
                for _ in 0..400 {
                    while let Some((from, slot)) = seat.slot_now() {
                        held.push((from, slot));
                        assert!(held.len() <= slots_max, "{} slots on loan of {slots_max}", held.len());
                    }
                    seat.turn().await;
                }
                let mut seen = BTreeSet::new();
                while (seen.len() as u64) < total {
                    let (from, slot) = match held.pop() {
                        Some(lent) => lent,
                        None => seat.slot().await,
                    };
                    assert!(seen.insert(number_of(&seat, from, &slot)), "a packet twice");
                    seat.transport.release(slot);
                }
            }
            seat.finish().await;
        })
    });
}
