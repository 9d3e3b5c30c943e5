//! Around a ring, and along a line: every rank talks to its two neighbours only.

use crate::builder::{Blocks, Builder, input, output};
use crate::tree::Turned;
use crate::{Rank, Schedule, Shape, Side};

/// The neighbours of a rank on the ring.
fn neighbours(shape: &Shape, me: Rank) -> (Rank, Rank) {
    (Rank((me.0 + shape.ranks - 1) % shape.ranks), Rank((me.0 + 1) % shape.ranks))
}

/// Block `me - distance`, around the ring.
fn back(shape: &Shape, me: Rank, distance: u32) -> u32 {
    ((u64::from(me.0) + 2 * u64::from(shape.ranks) - u64::from(distance)) % u64::from(shape.ranks)) as u32
}

/// Reduce-scatter, then allgather. Each rank moves 2(n-1)/n of the vector each way, the least possible.
///
/// A block lands where its result is wanted and takes our own contribution from `Input`: no scratch, no copy. It
/// starts its journey at the rank after it, so operands are in the order of the ring and not of the ranks.
pub(crate) fn allreduce(shape: &Shape, me: Rank) -> Schedule {
    let (left, right) = neighbours(shape, me);
    let blocks = Blocks::new(shape.count, shape.ranks, shape.element_bytes);
    let (own, whole) = (input(shape.bytes()), output(shape.bytes()));
    let mut builder = Builder::new();
    let rounds = shape.ranks - 1;
    for round in 0..rounds {
        let (out, inn) = (back(shape, me, round), back(shape, me, round + 1));
        builder.send(right, blocks.one(if round == 0 { own } else { whole }, out), round);
        builder.recv(left, blocks.one(whole, inn), round);
        builder.reduce(blocks.one(own, inn), blocks.one(whole, inn), Side::Right);
    }
    for round in rounds..2 * rounds {
        builder.send(right, blocks.one(whole, back(shape, me, round)), round);
        builder.recv(left, blocks.one(whole, back(shape, me, round + 1)), round);
    }
    builder.finish()
}

/// Each block travels once around the ring.
pub(crate) fn allgather(shape: &Shape, me: Rank) -> Schedule {
    let (left, right) = neighbours(shape, me);
    let own = input(shape.bytes());
    let whole = output(own.len * u64::from(shape.ranks));
    let block = |index: u32| whole.part(u64::from(index) * own.len, own.len);
    let mut builder = Builder::new();
    for round in 0..shape.ranks - 1 {
        builder.send(right, if round == 0 { own } else { block(back(shape, me, round)) }, round);
        builder.recv(left, block(back(shape, me, round + 1)), round);
    }
    builder.copy(own, block(me.0));
    builder.finish()
}

/// A schedule has at most this many segments; larger messages get larger segments.
pub(crate) const SEGMENTS_MAX: u64 = 1024;

/// Bytes per segment of a chain, after [`SEGMENTS_MAX`].
pub(crate) fn segment_bytes(bytes: u64, segment_bytes: u32) -> u64 {
    u64::from(segment_bytes).max(bytes.div_ceil(SEGMENTS_MAX))
}

/// Along a line that starts at the root, segment after segment.
pub(crate) fn broadcast_chain(shape: &Shape, me: Rank, root: Rank, segment: u32) -> Schedule {
    let turned = Turned::new(root, shape.ranks);
    let node = turned.node(me);
    let whole = output(shape.bytes());
    let segment = segment_bytes(whole.len, segment);
    let mut builder = Builder::new();
    for index in 0..whole.len.div_ceil(segment) {
        let start = index * segment;
        let piece = whole.part(start, segment.min(whole.len - start));
        if node > 0 {
            builder.recv(turned.rank(node - 1), piece, index as u32);
        }
        if node + 1 < shape.ranks {
            builder.send(turned.rank(node + 1), piece, index as u32);
        }
    }
    builder.finish()
}
