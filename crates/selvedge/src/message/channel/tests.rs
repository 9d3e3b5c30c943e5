//! What a receiver makes of a sender that says or sends the wrong thing, and what is left of a channel.

use selvedge_engine::Config;
use selvedge_transport::{Memory, Rng, Sim, SimConfig, SimPort};

use super::*;
use crate::runtime::{Outcome, Runtime, Started};

const ENDS: Ends = Ends { peer: Peer(0), context: Context(3), tag: Tag(5) };

fn pair() -> (Sim, Runtime<SimPort>, Runtime<SimPort>) {
    let sim = Sim::new(SimConfig::shm_like());
    let mut ranks = sim.ports().into_iter().map(|port| Runtime::new(Engine::new(port, Config::default())));
    let (zero, one) = (ranks.next().unwrap(), ranks.next().unwrap());
    (sim, zero, one)
}

fn settle(sim: &Sim, zero: &mut Runtime<SimPort>, one: &mut Runtime<SimPort>) {
    while sim.advance() {
        zero.progress();
        one.progress();
    }
}

/// How a round of 12 bytes ends on a rank that is told so of its sender, if it does.
fn round_after(said: &[u8]) -> Option<Outcome> {
    let (sim, mut zero, mut one) = pair();
    let (said, into, board) = (Memory::of(said), Memory::zeroed(12), Board::new(2, Arrival::Awaited));
    zero.send(Peer(1), ENDS.context, ENDS.tag, said.buf());
    let channel = one.open_receiver(ENDS, 12, 1, Arc::clone(&board));
    let Started::Pending(operation) = one.begin_round(channel, into.buf()) else { unreachable!("too early") };
    settle(&sim, &mut zero, &mut one);
    let outcome = one.take(operation);
    let lost = (0..2).all(|partition| board.arrival(partition) == Arrival::Lost);
    assert_eq!(outcome.is_some(), lost, "those who read are told as well");
    outcome
}

#[test]
fn a_sender_that_says_nonsense_is_refused() {
    assert!(round_after(&hello(7, 12, 3)).is_none(), "sense, and the partitions are awaited");
    let mut long = hello(7, 12, 3).to_vec();
    long.push(0);
    let short = &long[..16];
    for said in [&hello(7, 12, 0)[..], &hello(7, 12, 5), &hello(7, 24, 3), short, &long, &[]] {
        let outcome = round_after(said);
        let is_refused = matches!(
            outcome,
            Some(Err(Trouble::Partitioning { .. } | Trouble::Engine(Failure::Truncated { .. })))
        );
        assert!(is_refused, "{said:?}: {outcome:?}");
    }
    let mut rng = Rng::new(1);
    for _ in 0..200 {
        let words = [rng.bits(), rng.pick(&[12, 0, 13, u64::MAX]).to_owned(), rng.bits() >> rng.below(64)];
        let said: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let makes_sense = words[1] == 12 && [1, 2, 3, 4, 6, 12].contains(&words[2]);
        assert_eq!(round_after(&said).is_none(), makes_sense, "{words:?}");
    }
}

#[test]
fn a_partition_of_another_length_than_was_said_ends_the_round() {
    let (sim, mut zero, mut one) = pair();
    let (said, piece) = (Memory::of(&hello(7, 12, 3)), Memory::zeroed(3));
    zero.send(Peer(1), ENDS.context, ENDS.tag, said.buf());
    for part in 0..3 {
        zero.send_step(Peer(1), ENDS.context, piece_tag(7, 0, part), piece.buf());
    }
    let (into, board) = (Memory::zeroed(12), Board::new(2, Arrival::Awaited));
    let channel = one.open_receiver(ENDS, 12, 1, board);
    let Started::Pending(operation) = one.begin_round(channel, into.buf()) else { unreachable!("too early") };
    settle(&sim, &mut zero, &mut one);
    let outcome = one.take(operation);
    assert!(matches!(outcome, Some(Err(Trouble::Disagreement { given: 3, expected: 4, .. }))), "{outcome:?}");
}

#[test]
fn a_channel_that_was_never_met_is_given_back_when_it_is_closed() {
    let (_, _, mut one) = pair();
    for _ in 0..3 {
        let channel = one.open_receiver(ENDS, 12, 1, Board::new(2, Arrival::Awaited));
        one.close_channel(channel);
        one.progress();
    }
    assert_eq!((one.channels(), one.engine().pending()), (1, 0), "one place, used again");
}
