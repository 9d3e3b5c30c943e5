//! A peer leaves in order. Peer 2 of three does; every harness can drop an endpoint.

use super::one_sided::{hear_key, open, slice, ways};
use super::seat::content;
use super::{Group, Harness, Seat};
use crate::{Buf, Cause, Memory, Peer, Scope, Token, Transport};

const A: Peer = Peer(0);
const B: Peer = Peer(1);
const LEAVER: Peer = Peer(2);
const STAYERS: [Peer; 2] = [A, B];

/// Three peers of which the last leaves when its program returns.
const GROUP: Group = Group { peers: 3, dies: None, leaves: Some(LEAVER) };

/// Waits for the news and checks whom it is about.
async fn hear_of_the_leaving(seat: &mut Seat<'_>) {
    let fault = seat.fault().await;
    assert_eq!((fault.scope, fault.cause), (Scope::Peer(LEAVER), Cause::PeerLeft), "{fault}");
    assert!(!fault.detail.is_empty() && !fault.next_step.is_empty(), "{fault:?}");
}

/// Both that stay hear of it, each once and behind all it was sent, also when it had not looked for a while.
pub fn a_peer_that_left_is_told_after_its_last_packet(harness: &dyn Harness) {
    const PACKETS: u64 = 200;
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            seat.meet(&[A, B, LEAVER]).await;
            if seat.me() == LEAVER {
                for number in 0..PACKETS {
                    for to in STAYERS {
                        seat.send(to, &content(LEAVER, number, 50), Buf::EMPTY).await;
                    }
                }
                return;
            }
            seat.rest(if seat.me() == A { 30 } else { 0 }).await;
            hear_of_the_leaving(&mut seat).await;
            assert_eq!(seat.kept() as u64, PACKETS, "packets that came before the news");
            let mut arrived = Vec::new();
            while seat.kept() > 0 {
                arrived.push(seat.packet().await);
            }
            let mut expected: Vec<_> =
                (0..PACKETS).map(|number| (LEAVER, content(LEAVER, number, 50))).collect();
            arrived.sort();
            expected.sort();
            assert!(arrived == expected, "packets of the one that left");
            seat.finish_among(&STAYERS).await;
        })
    });
}

/// Before the news and after it any number of packets to it is accepted; those that stay talk on.
pub fn packets_to_a_peer_that_left_are_accepted_and_dropped(harness: &dyn Harness) {
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            seat.meet(&[A, B, LEAVER]).await;
            if seat.me() == LEAVER {
                return;
            }
            for number in 0..3_000 {
                seat.send(LEAVER, &content(seat.me(), number, 50), Buf::EMPTY).await;
            }
            hear_of_the_leaving(&mut seat).await;
            for number in 0..3_000 {
                seat.send(LEAVER, &content(seat.me(), number, 50), Buf::EMPTY).await;
            }
            let (me, you) = if seat.me() == A { (A, B) } else { (B, A) };
            seat.send(you, &content(me, 0, 50), Buf::EMPTY).await;
            assert_eq!(seat.packet().await, (you, content(you, 0, 50)));
            seat.finish_among(&STAYERS).await;
        })
    });
}

/// Operations that are begun after the news fail with its cause, and leave no operation in flight.
pub fn one_sided_operations_with_a_peer_that_left_fail(harness: &dyn Harness) {
    const LEN: usize = 200;
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            let reaches = |seat: &Seat<'_>, peer| !ways(&seat.caps(peer)).is_empty();
            if seat.me() == LEAVER {
                let memory = Memory::zeroed(LEN);
                for peer in STAYERS {
                    if reaches(&seat, peer) {
                        open(&mut seat, &memory, peer).await;
                    }
                }
                seat.meet(&[A, B, LEAVER]).await;
                return;
            }
            if !reaches(&seat, LEAVER) {
                seat.meet(&[A, B, LEAVER]).await;
                hear_of_the_leaving(&mut seat).await;
                return seat.finish_among(&STAYERS).await;
            }
            let caps = seat.caps(LEAVER);
            let (_, key) = hear_key(&mut seat).await;
            let mine = Memory::zeroed(LEN);
            let there = slice(key, 0, LEN);
            seat.meet(&[A, B, LEAVER]).await;
            hear_of_the_leaving(&mut seat).await;
            let start = |transport: &mut dyn Transport, number: u64| match caps.read_bytes_max {
                0 => transport.write(LEAVER, mine.buf(), there, Token(number)),
                _ => transport.read(LEAVER, there, mine.buf(), Token(number)),
            };
            for number in 0..2 * caps.one_sided_max.min(1000) as u64 {
                seat.start(|transport| start(transport, number)).await;
                let fault = seat.end_of(Token(number)).await.expect_err("the peer has left");
                assert_eq!((fault.scope, fault.cause), (Scope::Peer(LEAVER), Cause::PeerLeft), "{fault}");
            }
            seat.finish_among(&STAYERS).await;
        })
    });
}
