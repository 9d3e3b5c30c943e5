//! Bruck's algorithms (Bruck, Ho, Kipnis, Upfal, Weathersby 1997) and dissemination: ceil(log2 n) rounds at distance
//! 1, 2, 4, ... around the ring, for any number of ranks.

use crate::builder::{Builder, input, output};
use crate::{Rank, Schedule, Shape, Slice};

/// `rank + distance`, around the ring.
fn ahead(shape: &Shape, rank: u32, distance: u32) -> u32 {
    ((u64::from(rank) + u64::from(distance)) % u64::from(shape.ranks)) as u32
}

/// `rank - distance`, around the ring.
fn behind(shape: &Shape, rank: u32, distance: u32) -> u32 {
    ahead(shape, rank, shape.ranks - distance)
}

/// The distances 1, 2, 4, ... below the number of ranks, each with its round.
fn rounds(shape: &Shape) -> impl Iterator<Item = (u32, u32)> {
    let ranks = shape.ranks;
    (0..32).map(|round| (round, 1u32 << round)).take_while(move |&(_, distance)| distance < ranks)
}

/// Signal `distance` ahead, wait for the signal from `distance` behind, double the distance. After round k a rank has
/// heard of the 2^(k+1) ranks that end with itself.
pub(crate) fn barrier_dissemination(shape: &Shape, me: Rank) -> Schedule {
    let mut builder = Builder::new();
    let mut heard = Vec::new();
    for (round, distance) in rounds(shape) {
        let sent = builder.signal(Rank(ahead(shape, me.0, distance)), round, &heard);
        let got = builder.await_signal(Rank(behind(shape, me.0, distance)), round);
        // The send stands for all receives before it; the first one waited for nothing and stands for nothing.
        let first = heard.is_empty();
        heard = if first { vec![got] } else { vec![sent, got] };
    }
    builder.finish()
}

/// After round k a rank has its own block and those of the next 2^(k+1) - 1 ranks.
///
/// The original gathers in scratch, starting with the own block, and rotates at the end. Sender and receiver of a
/// message agree on where its blocks belong, so here they go straight to their place in `Output`: one message, or two
/// where the blocks wrap around its end. A round's sends wait for all receives of the round before, also where half of
/// a wrapped message could go earlier: sent early it would be taken in before more urgent ones.
pub(crate) fn allgather(shape: &Shape, me: Rank) -> Schedule {
    let own = input(shape.bytes());
    let whole = output(own.len * u64::from(shape.ranks));
    let mut builder = Builder::new();
    let mut before = Vec::new();
    for (round, distance) in rounds(shape) {
        let blocks = distance.min(shape.ranks - distance);
        let (to, from) = (behind(shape, me.0, distance), ahead(shape, me.0, distance));
        // The own block need not wait for its copy.
        let out = if round == 0 { [own, own.part(0, 0)] } else { pieces(shape, whole, me.0, blocks) };
        let inn = pieces(shape, whole, from, blocks);
        let halves = [(out[0], inn[0], 2 * round), (out[1], inn[1], 2 * round + 1)];
        for (ours, _, label) in halves {
            builder.send_after(Rank(to), ours, label, &before);
        }
        if round == 0 {
            builder.copy(own, whole.part(u64::from(me.0) * own.len, own.len));
        }
        before = halves
            .into_iter()
            .filter_map(|(_, theirs, label)| builder.recv(Rank(from), theirs, label))
            .collect();
    }
    builder.finish()
}

/// The `len` blocks that start with block `first`, around the end of `whole`. The second piece is mostly empty.
fn pieces(shape: &Shape, whole: Slice, first: u32, len: u32) -> [Slice; 2] {
    let straight = len.min(shape.ranks - first);
    let bytes = |blocks: u32| u64::from(blocks) * shape.bytes();
    [whole.part(bytes(first), bytes(straight)), whole.part(0, bytes(len - straight))]
}

/// Block j is what is meant for the rank j ahead. In round k all blocks with bit k in their number travel 2^k ahead in
/// one message.
///
/// The original keeps the blocks in one array, packs and unpacks. Here a received block stays in the message it came
/// in until it is packed again or has arrived, which saves the unpacking. Scratch: two messages per round, together
/// about `ranks * ceil(log2(ranks))` blocks.
pub(crate) fn alltoall(shape: &Shape, me: Rank) -> Schedule {
    let bytes = shape.bytes();
    let all = bytes * u64::from(shape.ranks);
    let block = |of: Slice, index: u32| of.part(u64::from(index) * bytes, bytes);
    let mut builder = Builder::new();
    let mut places: Vec<Slice> = (0..shape.ranks).map(|j| block(input(all), ahead(shape, me.0, j))).collect();
    for (round, distance) in rounds(shape) {
        let travelling: Vec<u32> = (0..shape.ranks).filter(|j| j & distance != 0).collect();
        let message_bytes = bytes * travelling.len() as u64;
        let (packed, arrived) = (builder.scratch(message_bytes), builder.scratch(message_bytes));
        let moves = travelling.iter().zip(0..).map(|(&j, at)| (places[j as usize], block(packed, at)));
        copy_runs(&mut builder, moves);
        builder.send(Rank(ahead(shape, me.0, distance)), packed, round);
        builder.recv(Rank(behind(shape, me.0, distance)), arrived, round);
        for (&j, at) in travelling.iter().zip(0..) {
            places[j as usize] = block(arrived, at);
        }
    }
    let home = |j: u32| block(output(all), behind(shape, me.0, j));
    copy_runs(&mut builder, (0..shape.ranks).map(|j| (places[j as usize], home(j))));
    builder.finish()
}

/// Copies in as few steps as possible: neighbours that stay neighbours go together.
fn copy_runs(builder: &mut Builder, moves: impl Iterator<Item = (Slice, Slice)>) {
    let mut run: Option<(Slice, Slice)> = None;
    for (from, into) in moves {
        run = match run {
            Some((first, target))
                if first.space == from.space && first.end() == from.offset && target.end() == into.offset =>
            {
                let len = first.len + from.len;
                Some((Slice { len, ..first }, Slice { len, ..target }))
            }
            Some((first, target)) => {
                builder.copy(first, target);
                Some((from, into))
            }
            None => Some((from, into)),
        };
    }
    if let Some((first, target)) = run {
        builder.copy(first, target);
    }
}
