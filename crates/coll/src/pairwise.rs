//! Everybody with everybody, each block straight to its place.

use std::collections::VecDeque;

use crate::builder::{Builder, input, output};
use crate::{Rank, Schedule, Shape, Side, StepIndex};

/// The only message between two ranks.
const BLOCK: u32 = 0;

/// `rank + distance` and `rank - distance`, around the ring.
fn partners(shape: &Shape, me: Rank, distance: u32) -> (Rank, Rank) {
    let (me, ranks, distance) = (u64::from(me.0), u64::from(shape.ranks), u64::from(distance));
    (Rank(((me + distance) % ranks) as u32), Rank(((me + ranks - distance) % ranks) as u32))
}

/// Every rank has every contribution and reduces them in order of ranks, so all get the same bits. One round.
/// Scratch: n-2 messages.
pub(crate) fn allreduce(shape: &Shape, me: Rank) -> Schedule {
    let (own, whole) = (input(shape.bytes()), output(shape.bytes()));
    let mut builder = Builder::new();
    for distance in 1..shape.ranks {
        builder.send(partners(shape, me, distance).0, own, BLOCK);
    }
    // The lowest of the others lands where the result is wanted and joins with our own if that is lower still.
    let mut others = (0..shape.ranks).filter(|&rank| rank != me.0).map(Rank);
    let lowest = others.next().expect("there are at least two ranks");
    builder.recv(lowest, whole, BLOCK);
    if me < lowest {
        builder.reduce(own, whole, Side::Left);
    }
    for other in lowest.0 + 1..shape.ranks {
        if other == me.0 {
            builder.reduce(own, whole, Side::Right);
        } else {
            let theirs = builder.scratch(own.len);
            builder.recv(Rank(other), theirs, BLOCK);
            builder.reduce(theirs, whole, Side::Right);
        }
    }
    builder.finish()
}

/// One message to and from everybody else.
pub(crate) fn allgather(shape: &Shape, me: Rank) -> Schedule {
    let own = input(shape.bytes());
    let whole = output(own.len * u64::from(shape.ranks));
    let block = |rank: Rank| whole.part(u64::from(rank.0) * own.len, own.len);
    let mut builder = Builder::new();
    for distance in 1..shape.ranks {
        let (to, from) = partners(shape, me, distance);
        builder.send(to, own, BLOCK);
        builder.recv(from, block(from), BLOCK);
    }
    builder.copy(own, block(me));
    builder.finish()
}

/// One partner at a time: by exclusive-or for a power of two, so that both exchange with each other, else one to send
/// to and one to receive from.
pub(crate) fn alltoall_pairwise(shape: &Shape, me: Rank) -> Schedule {
    let block = |rank: Rank| u64::from(rank.0) * shape.bytes();
    let all = shape.bytes() * u64::from(shape.ranks);
    let mut builder = Builder::new();
    let mut previous: Vec<StepIndex> = Vec::new();
    for distance in 1..shape.ranks {
        let (to, from) = if shape.ranks.is_power_of_two() {
            (Rank(me.0 ^ distance), Rank(me.0 ^ distance))
        } else {
            partners(shape, me, distance)
        };
        let sent = builder.send_after(to, input(all).part(block(to), shape.bytes()), BLOCK, &previous);
        let got = builder.recv_after(from, output(all).part(block(from), shape.bytes()), BLOCK, &previous);
        previous = sent.into_iter().chain(got).collect();
    }
    builder.copy(input(all).part(block(me), shape.bytes()), output(all).part(block(me), shape.bytes()));
    builder.finish()
}

/// All partners at once, but only `window` sends and `window` receives at a time.
pub(crate) fn alltoall_scattered(shape: &Shape, me: Rank, window: u32) -> Schedule {
    let block = |rank: Rank| u64::from(rank.0) * shape.bytes();
    let all = shape.bytes() * u64::from(shape.ranks);
    let mut builder = Builder::new();
    let (mut sends, mut recvs) = (VecDeque::new(), VecDeque::new());
    for distance in 1..shape.ranks {
        let (to, from) = partners(shape, me, distance);
        let before = if distance > window { recvs.pop_front() } else { None };
        let into = output(all).part(block(from), shape.bytes());
        recvs.extend(builder.recv_after(from, into, BLOCK, before.as_slice()));
        let before = if distance > window { sends.pop_front() } else { None };
        let bytes = input(all).part(block(to), shape.bytes());
        sends.extend(builder.send_after(to, bytes, BLOCK, before.as_slice()));
    }
    builder.copy(input(all).part(block(me), shape.bytes()), output(all).part(block(me), shape.bytes()));
    builder.finish()
}
