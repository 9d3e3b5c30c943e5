//! A peer dies without a goodbye. Peer 2 of three does; harnesses that cannot kill skip these.

use super::one_sided::{hear_key, open, slice, ways};
use super::seat::content;
use super::{Group, Harness, Seat};
use crate::{Buf, Cause, Memory, Peer, Scope, Token, Transport};

const A: Peer = Peer(0);
const B: Peer = Peer(1);
const VICTIM: Peer = Peer(2);
const SURVIVORS: [Peer; 2] = [A, B];

/// Three peers of which the last is killed when its program returns.
const GROUP: Group = Group { peers: 3, dies: Some(VICTIM), leaves: None };

/// Waits for the news and checks whom it is about.
async fn hear_of_the_death(seat: &mut Seat<'_>) {
    let fault = seat.fault().await;
    assert_eq!(fault.scope, Scope::Peer(VICTIM), "{fault}");
    assert!(matches!(fault.cause, Cause::PeerDied | Cause::Injected), "{fault}");
    assert!(!fault.detail.is_empty() && !fault.next_step.is_empty(), "{fault:?}");
}

/// Both survivors hear of it, each once.
pub fn a_death_is_said_once_to_each_survivor(harness: &dyn Harness) {
    if !harness.can_kill() {
        return;
    }
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            seat.meet(&[A, B, VICTIM]).await;
            if seat.me() != VICTIM {
                hear_of_the_death(&mut seat).await;
                seat.finish_among(&SURVIVORS).await;
            }
        })
    });
}

/// The others talk to each other before, while and after they hear of it.
pub fn survivors_go_on(harness: &dyn Harness) {
    const PACKETS: u64 = 300;
    if !harness.can_kill() {
        return;
    }
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            seat.meet(&[A, B, VICTIM]).await;
            if seat.me() == VICTIM {
                return;
            }
            let (me, you) = if seat.me() == A { (A, B) } else { (B, A) };
            let mut arrived = Vec::new();
            for number in 0..PACKETS {
                seat.send(you, &content(me, number, 50), Buf::EMPTY).await;
                arrived.extend(seat.packet_now());
            }
            while (arrived.len() as u64) < PACKETS {
                arrived.push(seat.packet().await);
            }
            let mut expected: Vec<_> = (0..PACKETS).map(|number| (you, content(you, number, 50))).collect();
            arrived.sort();
            expected.sort();
            assert!(arrived == expected, "packets between survivors");
            hear_of_the_death(&mut seat).await;
            seat.finish_among(&SURVIVORS).await;
        })
    });
}

/// After the news any number of packets to the dead is accepted.
pub fn packets_to_a_dead_peer_are_accepted_and_dropped(harness: &dyn Harness) {
    if !harness.can_kill() {
        return;
    }
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            seat.meet(&[A, B, VICTIM]).await;
            if seat.me() == VICTIM {
                return;
            }
            // Before the news the queue may fill up, and Busy ends with the news at the latest.
            for number in 0..3_000 {
                seat.send(VICTIM, &content(seat.me(), number, 50), Buf::EMPTY).await;
            }
            hear_of_the_death(&mut seat).await;
            for number in 0..3_000 {
                seat.send(VICTIM, &content(seat.me(), number, 50), Buf::EMPTY).await;
            }
            seat.finish_among(&SURVIVORS).await;
        })
    });
}

/// Operations under way end one way or the other; those begun after the news fail, and leave no operation in flight.
pub fn one_sided_operations_with_a_dead_peer_end(harness: &dyn Harness) {
    const LEN: usize = 200;
    if !harness.can_kill() {
        return;
    }
    harness.run(GROUP, &|mut seat| {
        Box::pin(async move {
            let reaches = |seat: &Seat<'_>, peer| !ways(&seat.caps(peer)).is_empty();
            if seat.me() == VICTIM {
                let memory = Memory::zeroed(LEN);
                for peer in SURVIVORS {
                    if reaches(&seat, peer) {
                        open(&mut seat, &memory, peer).await;
                    }
                }
                seat.meet(&[A, B, VICTIM]).await;
                return;
            }
            if !reaches(&seat, VICTIM) {
                seat.meet(&[A, B, VICTIM]).await;
                hear_of_the_death(&mut seat).await;
                return seat.finish_among(&SURVIVORS).await;
            }
            let caps = seat.caps(VICTIM);
            let (_, key) = hear_key(&mut seat).await;
            let mine = Memory::zeroed(LEN);
            let there = slice(key, 0, LEN);
            let start = |transport: &mut dyn Transport, number: u64| match caps.read_bytes_max {
                0 => transport.write(VICTIM, mine.buf(), there, Token(number)),
                _ => transport.read(VICTIM, there, mine.buf(), Token(number)),
            };
            seat.meet(&[A, B, VICTIM]).await;
            seat.start(|transport| start(transport, 0)).await;
            let _ = seat.end_of(Token(0)).await;
            hear_of_the_death(&mut seat).await;
            for number in 1..2 * caps.one_sided_max.min(1000) as u64 {
                seat.start(|transport| start(transport, number)).await;
                let fault = seat.end_of(Token(number)).await.expect_err("the peer is dead");
                assert_eq!(fault.scope, Scope::Peer(VICTIM), "{fault}");
            }
            seat.finish_among(&SURVIVORS).await;
        })
    });
}
