//! Butterflies: partners at distance 1, 2, 4, ... Recursive doubling and Rabenseifner's halving and doubling.
//!
//! Distances grow, so a rank's partial result always covers a contiguous range of ranks and no operand changes its
//! place: all of these serve operations that do not commute. Rank counts that are no power of two fold `ranks - 2^k`
//! ranks into their neighbours first (Thakur, Rabenseifner, Gropp 2005), and neighbours are contiguous too.

use crate::builder::{Builder, input, output};
use crate::{Rank, Schedule, Shape, Side, Slice};

const FOLD_IN: u32 = 0;
const FOLD_OUT: u32 = 1;
/// Labels of the rounds of halving or doubling start here.
const ROUND: u32 = 2;
/// Labels of the way back start here; there are at most 32 rounds.
const BACK: u32 = ROUND + 32;

/// Who takes part when the ranks are folded down to a power of two.
#[derive(Clone, Copy, Debug)]
struct Fold {
    /// Ranks that take part: a power of two.
    size: u32,
    /// The first `2 * pairs` ranks fold in pairs.
    pairs: u32,
    /// Takes part whatever happens.
    root: Rank,
}

/// What folding makes of a rank.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Hands its contribution to that neighbour.
    Folded { into: Rank },
    /// Takes part at a place in `0..size`, perhaps for a neighbour too.
    Takes { place: u32, folded: Option<Rank> },
}

impl Fold {
    fn new(ranks: u32, root: Rank) -> Fold {
        let size = 1 << ranks.ilog2();
        Fold { size, pairs: ranks - size, root }
    }

    fn rounds(self) -> u32 {
        self.size.ilog2()
    }

    /// The rank at a place.
    fn rank(self, place: u32) -> Rank {
        if place >= self.pairs {
            Rank(place + self.pairs)
        } else if self.root.0 / 2 == place {
            self.root
        } else {
            Rank(2 * place + 1)
        }
    }

    fn role(self, rank: Rank) -> Role {
        if rank.0 >= 2 * self.pairs {
            return Role::Takes { place: rank.0 - self.pairs, folded: None };
        }
        let place = rank.0 / 2;
        let (taker, neighbour) = (self.rank(place), Rank(rank.0 ^ 1));
        if taker == rank {
            Role::Takes { place, folded: Some(neighbour) }
        } else {
            Role::Folded { into: taker }
        }
    }
}

/// Reduces what came from `peer` and lies in `theirs` with our own `mine`, into the memory of either.
fn join(builder: &mut Builder, me: Rank, mine: Slice, peer: Rank, theirs: Slice, into_mine: bool) {
    match (into_mine, peer < me) {
        (false, true) => builder.reduce(mine, theirs, Side::Right),
        (false, false) => builder.reduce(mine, theirs, Side::Left),
        (true, true) => builder.reduce(theirs, mine, Side::Left),
        (true, false) => builder.reduce(theirs, mine, Side::Right),
    }
}

/// Recursive doubling. Every message has memory of its own, the last one `Output`, so that all receives are posted at
/// once and no step waits for the end of a send. Scratch: `log2(ranks)` messages.
pub(crate) fn allreduce_doubling(shape: &Shape, me: Rank) -> Schedule {
    let fold = Fold::new(shape.ranks, Rank(1));
    let mut builder = Builder::new();
    let (own, whole) = (input(shape.bytes()), output(shape.bytes()));
    match fold.role(me) {
        Role::Folded { into } => {
            builder.send(into, own, FOLD_IN);
            builder.recv(into, whole, FOLD_OUT);
        }
        Role::Takes { place, folded } => {
            let mut sum = own;
            if let Some(neighbour) = folded {
                let theirs = if fold.rounds() == 0 { whole } else { builder.scratch(own.len) };
                builder.recv(neighbour, theirs, FOLD_IN);
                join(&mut builder, me, sum, neighbour, theirs, false);
                sum = theirs;
            }
            for round in 0..fold.rounds() {
                let peer = fold.rank(place ^ 1 << round);
                let theirs = if round + 1 == fold.rounds() { whole } else { builder.scratch(own.len) };
                builder.send(peer, sum, ROUND + round);
                builder.recv(peer, theirs, ROUND + round);
                join(&mut builder, me, sum, peer, theirs, false);
                sum = theirs;
            }
            if let Some(neighbour) = folded {
                builder.send(neighbour, whole, FOLD_OUT);
            }
        }
    }
    builder.finish()
}

/// Rabenseifner's allreduce: each round of halving exchanges half of what is left with a partner, then doubling
/// brings the halves back. Each rank moves and reduces about one vector instead of `log2(ranks)`.
pub(crate) fn allreduce_rabenseifner(shape: &Shape, me: Rank) -> Schedule {
    let fold = Fold::new(shape.ranks, Rank(1));
    let mut builder = Builder::new();
    let (own, whole) = (input(shape.bytes()), output(shape.bytes()));
    match fold.role(me) {
        Role::Folded { into } => {
            builder.send(into, own, FOLD_IN);
            builder.recv(into, whole, FOLD_OUT);
        }
        Role::Takes { place, folded } => {
            let halves = halve(&mut builder, shape, fold, me, place, folded, whole);
            for (round, half) in halves.iter().enumerate().rev() {
                let (peer, label) = (fold.rank(place ^ 1 << round), BACK + round as u32);
                builder.send(peer, half.kept, label);
                builder.recv(peer, half.given, label);
            }
            if let Some(neighbour) = folded {
                builder.send(neighbour, whole, FOLD_OUT);
            }
        }
    }
    builder.finish()
}

/// Rabenseifner's reduce: halving, then the halves go to the root only. The root takes part whatever folding says.
pub(crate) fn reduce_rabenseifner(shape: &Shape, me: Rank, root: Rank) -> Schedule {
    let fold = Fold::new(shape.ranks, root);
    let mut builder = Builder::new();
    match fold.role(me) {
        Role::Folded { into } => {
            builder.send(into, input(shape.bytes()), FOLD_IN);
        }
        Role::Takes { place, folded } => {
            let Role::Takes { place: target, .. } = fold.role(root) else {
                unreachable!("the root takes part");
            };
            let home = if me == root { output(shape.bytes()) } else { builder.scratch(shape.bytes()) };
            let halves = halve(&mut builder, shape, fold, me, place, folded, home);
            for (round, half) in halves.iter().enumerate().rev() {
                let (peer, label) = (fold.rank(place ^ 1 << round), BACK + round as u32);
                if (place ^ target) >> round == 0 {
                    builder.recv(peer, half.given, label);
                } else {
                    builder.send(peer, half.kept, label);
                    break;
                }
            }
        }
    }
    builder.finish()
}

/// One round of halving, where the bytes are.
#[derive(Clone, Copy, Debug)]
struct Half {
    /// Reduced further here.
    kept: Slice,
    /// Reduced further by the partner.
    given: Slice,
}

/// Reduce-scatter by recursive halving into parts of `home`; returns the halves, round by round.
///
/// The first message lands in `home` and takes our own contribution from `Input`, so nothing is copied. Later ones
/// land in scratch of their own (together less than half a vector), so that all receives are posted at once.
fn halve(
    builder: &mut Builder,
    shape: &Shape,
    fold: Fold,
    me: Rank,
    place: u32,
    folded: Option<Rank>,
    home: Slice,
) -> Vec<Half> {
    let element_bytes = u64::from(shape.element_bytes);
    let own = input(shape.bytes());
    let mut sum = own;
    if let Some(neighbour) = folded {
        builder.recv(neighbour, home, FOLD_IN);
        join(builder, me, own, neighbour, home, false);
        sum = home;
    }
    let mut halves = Vec::new();
    let (mut first, mut end) = (0, shape.count);
    for round in 0..fold.rounds() {
        let peer = fold.rank(place ^ 1 << round);
        let middle = first + (end - first).div_ceil(2);
        let (keep, give) =
            if place >> round & 1 == 0 { (first..middle, middle..end) } else { (middle..end, first..middle) };
        let part = |of: Slice, elements: &std::ops::Range<u64>| {
            of.part(elements.start * element_bytes, (elements.end - elements.start) * element_bytes)
        };
        builder.send(peer, part(sum, &give), ROUND + round);
        if sum == own {
            builder.recv(peer, part(home, &keep), ROUND + round);
            join(builder, me, part(own, &keep), peer, part(home, &keep), false);
        } else {
            let theirs = builder.scratch(part(home, &keep).len);
            builder.recv(peer, theirs, ROUND + round);
            join(builder, me, part(home, &keep), peer, theirs, true);
        }
        halves.push(Half { kept: part(home, &keep), given: part(home, &give) });
        (sum, first, end) = (home, keep.start, keep.end);
    }
    halves
}

/// Recursive doubling over a power of two: groups of 1, 2, 4, ... ranks exchange what they have.
pub(crate) fn allgather_doubling(shape: &Shape, me: Rank) -> Schedule {
    let mut builder = Builder::new();
    let own = input(shape.bytes());
    let whole = output(shape.bytes() * u64::from(shape.ranks));
    let group = |first: u32, len: u32| whole.part(u64::from(first) * own.len, u64::from(len) * own.len);
    for round in 0..shape.ranks.ilog2() {
        let (len, peer) = (1 << round, Rank(me.0 ^ 1 << round));
        let ours = if round == 0 { own } else { group(me.0 & !(len - 1), len) };
        builder.send(peer, ours, ROUND + round);
        if round == 0 {
            builder.copy(own, group(me.0, 1));
        }
        builder.recv(peer, group(peer.0 & !(len - 1), len), ROUND + round);
    }
    builder.finish()
}
