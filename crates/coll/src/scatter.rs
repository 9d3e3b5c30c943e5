//! Broadcast of large messages as scatter and allgather (Barnett, Shuler, van de Geijn et al. 1994).
//!
//! The message is cut into one block per rank. A binomial tree brings each rank the blocks of its subtree, so some
//! ranks have more than their own block when the allgather begins; what a rank has is not sent to it again.

use crate::builder::{Blocks, Builder, output};
use crate::tree::{Node, Turned};
use crate::{Rank, Schedule, Shape, Slice};

const SCATTER: u32 = 0;
/// Labels of the allgather start here.
const ROUND: u32 = 1;

/// A broadcast under way at one rank.
struct Scatter {
    builder: Builder,
    turned: Turned,
    blocks: Blocks,
    whole: Slice,
    node: u32,
    ranks: u32,
}

impl Scatter {
    /// The scatter itself. Blocks are numbered by nodes, not by ranks.
    fn new(shape: &Shape, me: Rank, root: Rank) -> Scatter {
        let turned = Turned::new(root, shape.ranks);
        let mut scatter = Scatter {
            builder: Builder::new(),
            turned,
            blocks: Blocks::new(shape.count, shape.ranks, shape.element_bytes),
            whole: output(shape.bytes()),
            node: turned.node(me),
            ranks: shape.ranks,
        };
        let node = Node::new(scatter.node, shape.ranks, 2);
        if let Some(parent) = node.parent {
            let subtree = scatter.blocks.of(scatter.whole, scatter.node, node.end);
            scatter.builder.recv(turned.rank(parent), subtree, SCATTER);
        }
        let mut end = node.end;
        for &child in node.children.iter().rev() {
            let subtree = scatter.blocks.of(scatter.whole, child, end);
            scatter.builder.send(turned.rank(child), subtree, SCATTER);
            end = child;
        }
        scatter
    }

    /// Whether `node` has all of the blocks `first..end` from the scatter.
    fn has(&self, node: u32, first: u32, end: u32) -> bool {
        node <= first && end <= Node::new(node, self.ranks, 2).end
    }

    fn send(&mut self, node: u32, first: u32, end: u32, label: u32) {
        if !self.has(node, first, end) {
            let blocks = self.blocks.of(self.whole, first, end);
            self.builder.send(self.turned.rank(node), blocks, label);
        }
    }

    fn recv(&mut self, node: u32, first: u32, end: u32, label: u32) {
        if !self.has(self.node, first, end) {
            let blocks = self.blocks.of(self.whole, first, end);
            self.builder.recv(self.turned.rank(node), blocks, label);
        }
    }
}

/// The allgather goes around a ring: n-1 rounds of one block.
pub(crate) fn broadcast_ring(shape: &Shape, me: Rank, root: Rank) -> Schedule {
    let mut scatter = Scatter::new(shape, me, root);
    let (node, ranks) = (scatter.node, shape.ranks);
    let (left, right) = ((node + ranks - 1) % ranks, (node + 1) % ranks);
    for round in 0..ranks - 1 {
        let out = (node + ranks - round) % ranks;
        let inn = (left + ranks - round) % ranks;
        scatter.send(right, out, out + 1, ROUND + round);
        scatter.recv(left, inn, inn + 1, ROUND + round);
    }
    scatter.builder.finish()
}

/// The allgather goes by recursive doubling: log2 n rounds. Powers of two only.
pub(crate) fn broadcast_doubling(shape: &Shape, me: Rank, root: Rank) -> Schedule {
    let mut scatter = Scatter::new(shape, me, root);
    for round in 0..shape.ranks.ilog2() {
        let (len, node) = (1 << round, scatter.node);
        let peer = node ^ len;
        let (ours, theirs) = (node & !(len - 1), peer & !(len - 1));
        scatter.send(peer, ours, ours + len, ROUND + round);
        scatter.recv(peer, theirs, theirs + len, ROUND + round);
    }
    scatter.builder.finish()
}
