//! k-nomial trees: barrier, broadcast, reduce, allreduce and allgather with the fewest messages.
//!
//! Written in radix r, a node's parent is the node with the lowest non-zero digit set to zero. The subtree of a node
//! is a contiguous range that starts with the node, and the children in ascending order continue it. So a tree that
//! reduces its children in that order never changes the order of operands.

use crate::builder::{Blocks, Builder, input, output};
use crate::{Rank, Schedule, Shape, Side, Slice, StepIndex};

/// One node of a k-nomial tree over `0..ranks`, rooted at 0.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) parent: Option<u32>,
    /// Ascending; together with the node itself they cover its subtree without gaps.
    pub(crate) children: Vec<u32>,
    /// The subtree is `node..end`.
    pub(crate) end: u32,
}

impl Node {
    pub(crate) fn new(node: u32, ranks: u32, radix: u32) -> Node {
        let (here, all, radix) = (u64::from(node), u64::from(ranks), u64::from(radix));
        let mut children = Vec::new();
        let mut weight = 1;
        while weight < all {
            let digit = here / weight % radix;
            if digit != 0 {
                let parent = (here - digit * weight) as u32;
                return Node { parent: Some(parent), children, end: all.min(here + weight) as u32 };
            }
            let siblings = (1..radix).map(|digit| here + digit * weight).take_while(|&child| child < all);
            children.extend(siblings.map(|child| child as u32));
            weight *= radix;
        }
        Node { parent: None, children, end: ranks }
    }
}

/// Ranks renumbered so that the root is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turned {
    root: u32,
    ranks: u32,
}

impl Turned {
    pub(crate) fn new(root: Rank, ranks: u32) -> Turned {
        Turned { root: root.0, ranks }
    }

    pub(crate) fn node(self, rank: Rank) -> u32 {
        ((u64::from(rank.0) + u64::from(self.ranks) - u64::from(self.root)) % u64::from(self.ranks)) as u32
    }

    pub(crate) fn rank(self, node: u32) -> Rank {
        Rank(((u64::from(node) + u64::from(self.root)) % u64::from(self.ranks)) as u32)
    }
}

const UP: u32 = 0;
const DOWN: u32 = 1;
/// From rank 0 to the root of a reduction that must keep the order of operands.
const FORWARD: u32 = 2;

/// Messages up the tree may come into different memory, so that they need not wait for each other, as long as that
/// memory is at most this much (or two messages, if that is more).
const SCRATCH_BYTES_MAX: u64 = 256 << 10;

/// Gather signals, then release.
pub(crate) fn barrier(shape: &Shape, rank: Rank, radix: u32) -> Schedule {
    let node = Node::new(rank.0, shape.ranks, radix);
    let mut builder = Builder::new();
    let mut entered: Vec<StepIndex> =
        node.children.iter().map(|&child| builder.await_signal(Rank(child), UP)).collect();
    if let Some(parent) = node.parent {
        builder.signal(Rank(parent), UP, &entered);
        entered = vec![builder.await_signal(Rank(parent), DOWN)];
    }
    for &child in node.children.iter().rev() {
        builder.signal(Rank(child), DOWN, &entered);
    }
    builder.finish()
}

/// Down the tree, the largest subtree first.
pub(crate) fn broadcast(shape: &Shape, rank: Rank, root: Rank, radix: u32) -> Schedule {
    let turned = Turned::new(root, shape.ranks);
    let node = Node::new(turned.node(rank), shape.ranks, radix);
    let mut builder = Builder::new();
    spread(&mut builder, &node, turned, output(shape.bytes()));
    builder.finish()
}

/// Up the tree. An operation that does not commute goes up a tree rooted at rank 0, which forwards the result.
pub(crate) fn reduce(shape: &Shape, rank: Rank, root: Rank, radix: u32) -> Schedule {
    let top = if shape.commutative { root } else { Rank(0) };
    let turned = Turned::new(top, shape.ranks);
    let node = Node::new(turned.node(rank), shape.ranks, radix);
    let mut builder = Builder::new();
    let bytes = shape.bytes();
    let home = (rank == root && rank == top).then(|| output(bytes));
    let sum = collect(&mut builder, shape, &node, turned, home);
    if let Some(parent) = node.parent {
        builder.send(turned.rank(parent), sum, UP);
    }
    if rank == top && top != root {
        builder.send(root, sum, FORWARD);
    }
    if rank == root && top != root {
        builder.recv(top, output(bytes), FORWARD);
    }
    builder.finish()
}

/// Up the tree and down again.
pub(crate) fn allreduce(shape: &Shape, rank: Rank, radix: u32) -> Schedule {
    let turned = Turned::new(Rank(0), shape.ranks);
    let node = Node::new(rank.0, shape.ranks, radix);
    let mut builder = Builder::new();
    let whole = output(shape.bytes());
    let sum = collect(&mut builder, shape, &node, turned, Some(whole));
    if let Some(parent) = node.parent {
        builder.send(Rank(parent), sum, UP);
    }
    spread(&mut builder, &node, turned, whole);
    builder.finish()
}

/// Gathers the blocks of each subtree in place, then sends the whole down again.
pub(crate) fn allgather(shape: &Shape, rank: Rank, radix: u32) -> Schedule {
    let turned = Turned::new(Rank(0), shape.ranks);
    let node = Node::new(rank.0, shape.ranks, radix);
    let mut builder = Builder::new();
    let own = input(shape.bytes());
    let whole = output(shape.bytes() * u64::from(shape.ranks));
    let blocks = Blocks::new(u64::from(shape.ranks), shape.ranks, 1);
    let part = |first: u32, end: u32| {
        let of_ranks = blocks.of(output(u64::from(shape.ranks)), first, end);
        whole.part(of_ranks.offset * shape.bytes(), of_ranks.len * shape.bytes())
    };
    for (index, &child) in node.children.iter().enumerate() {
        let end = node.children.get(index + 1).copied().unwrap_or(node.end);
        builder.recv(Rank(child), part(child, end), UP);
    }
    match node.parent {
        Some(parent) if node.children.is_empty() => {
            builder.send(Rank(parent), own, UP);
        }
        parent => {
            builder.copy(own, part(rank.0, rank.0 + 1));
            if let Some(parent) = parent {
                builder.send(Rank(parent), part(rank.0, node.end), UP);
            }
        }
    }
    spread(&mut builder, &node, turned, whole);
    builder.finish()
}

/// Receives `whole` from the parent, if there is one, and sends it to the children.
fn spread(builder: &mut Builder, node: &Node, turned: Turned, whole: Slice) {
    if let Some(parent) = node.parent {
        builder.recv(turned.rank(parent), whole, DOWN);
    }
    for &child in node.children.iter().rev() {
        builder.send(turned.rank(child), whole, DOWN);
    }
}

/// Reduces the contributions of a node's subtree and says where the result is: in `home`, in scratch where there
/// is no home, or in `Input` where nothing is to be reduced.
///
/// The first message lands where the result is wanted and takes the node's own contribution from the left, so nothing
/// is ever copied.
fn collect(builder: &mut Builder, shape: &Shape, node: &Node, turned: Turned, home: Option<Slice>) -> Slice {
    let own = input(shape.bytes());
    let Some((&first, others)) = node.children.split_first() else { return own };
    let sum = home.unwrap_or_else(|| builder.scratch(own.len));
    builder.recv(turned.rank(first), sum, UP);
    builder.reduce(own, sum, Side::Left);
    let slots_max = (SCRATCH_BYTES_MAX / own.len.max(1)).max(2) as usize;
    let slots: Vec<Slice> = (0..others.len().min(slots_max)).map(|_| builder.scratch(own.len)).collect();
    for (index, &child) in others.iter().enumerate() {
        let slot = slots[index % slots.len()];
        builder.recv(turned.rank(child), slot, UP);
        builder.reduce(slot, sum, Side::Right);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_their_node_cover_the_subtree_without_gaps() {
        for radix in [2, 3, 4, 8, u32::MAX] {
            for ranks in 1..70 {
                for here in 0..ranks {
                    let node = Node::new(here, ranks, radix);
                    let mut next = here + 1;
                    for &child in &node.children {
                        assert_eq!(child, next);
                        let below = Node::new(child, ranks, radix);
                        assert_eq!(below.parent, Some(here));
                        next = below.end;
                    }
                    assert_eq!(next, node.end);
                }
            }
        }
    }
}
