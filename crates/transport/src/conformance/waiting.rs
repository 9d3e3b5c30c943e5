//! Sleeping and being woken. A lost wake-up costs the whole time given to `wait`, and is seen by that.

use std::time::Duration;

use super::{Group, Harness};
use crate::{Buf, Busy, Peer};

const A: Peer = Peer(0);
const B: Peer = Peer(1);
/// Given to `wait` where the wait must be ended by something else.
const LONG: Duration = Duration::from_secs(10);
/// Times a refused call is tried again at once, for transports that are Busy for no reason.
const RETRIES: usize = 200;

/// Times a wait that took too long is tried again: a busy machine may take a thread off its processor for long, and not
/// each time; a transport that sleeps for too long does.
const TRIES: usize = 20;

/// With nobody talking, `poll` is empty and `wait` returns, if late then by less than a second.
pub fn a_quiet_transport_says_nothing_and_wait_ends_in_time(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            assert!(seat.transport.poll().is_none());
            let mut took = LONG;
            for _ in 0..TRIES {
                let before = seat.now();
                seat.transport.wait(Duration::from_millis(2));
                took = seat.now() - before;
                if took < Duration::from_secs(1) {
                    break;
                }
            }
            assert!(took < Duration::from_secs(1), "a wait of at most 2 ms took {took:?}");
            seat.transport.wait(Duration::ZERO);
            assert!(seat.transport.poll().is_none());
            seat.rest(100).await;
            seat.finish().await;
        })
    });
}

/// `wait` does not sleep over a packet that has come before it was called.
pub fn a_packet_that_is_there_ends_the_wait(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            if seat.me() == A {
                seat.send(B, b"here", Buf::EMPTY).await;
            } else {
                seat.rest(100).await;
                let before = seat.now();
                seat.transport.wait(LONG);
                while seat.packet_now().is_none() {
                    seat.transport.wait(LONG);
                }
                let took = seat.now() - before;
                assert!(took < LONG, "slept for {took:?} with a packet at the door");
            }
            seat.finish().await;
        })
    });
}

/// Two peers answer each other 300 times, each asleep until the other's packet comes.
pub fn a_waiting_peer_is_woken_by_a_packet(harness: &dyn Harness) {
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            let you = if seat.me() == A { B } else { A };
            let before = seat.now();
            for round in 0..300_u32 {
                for answering in [false, true] {
                    if answering != (seat.me() == A) {
                        // No turn is taken between hearing and answering: the other sleeps meanwhile.
                        let sent = (0..RETRIES)
                            .any(|_| seat.transport.send(you, &round.to_le_bytes(), Buf::EMPTY).is_ok());
                        assert!(sent, "no room for the only packet there is");
                        continue;
                    }
                    let (_, bytes) = loop {
                        match seat.packet_now() {
                            Some(packet) => break packet,
                            None => seat.transport.wait(LONG),
                        }
                        super::Seat::step_aside().await;
                    };
                    assert_eq!(bytes, round.to_le_bytes());
                }
            }
            let took = seat.now() - before;
            assert!(took < LONG, "a wake-up was lost: {took:?} for 300 rounds");
            seat.finish().await;
        })
    });
}

/// A sender that was refused sleeps until there is room, again and again, while the receiver takes its time.
pub fn a_waiting_sender_is_woken_by_room(harness: &dyn Harness) {
    const PACKETS: u32 = 1000;
    harness.run(Group::of(2), &|mut seat| {
        Box::pin(async move {
            if seat.me() == A {
                let before = seat.now();
                for number in 0..PACKETS {
                    while (0..RETRIES)
                        .all(|_| seat.transport.send(B, &number.to_le_bytes(), Buf::EMPTY) == Err(Busy))
                    {
                        seat.look();
                        seat.transport.wait(LONG);
                        super::Seat::step_aside().await;
                    }
                }
                let took = seat.now() - before;
                assert!(took < LONG, "a wake-up was lost: {took:?} for {PACKETS} packets");
            } else {
                for _ in 0..PACKETS {
                    seat.packet().await;
                }
            }
            seat.finish().await;
        })
    });
}
