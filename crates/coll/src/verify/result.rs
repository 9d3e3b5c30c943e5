//! Duty five: every output byte is what the collective promises.
//!
//! The steps are run in one possible order (hazards are excluded by now, so all orders give the same) over memory that
//! holds, instead of bytes, where they come from: a set of ranks whose contributions were reduced, and the offset in
//! their input. Sets are interned, so that a piece of memory is two numbers whatever it covers.

use std::collections::{BTreeMap, HashMap};

use super::pairing::Pairing;
use super::{Flaw, Provenance, Why, all};
use crate::{Action, Collective, Rank, Schedule, Shape, Side, Slice, Space};

/// Number of a set of ranks in [`Sets`].
type SetId = u32;

pub(super) fn check(
    shape: &Shape,
    schedules: &[Schedule],
    pairing: &Pairing,
    order: &[u32],
) -> Result<(), Box<Flaw>> {
    if shape.collective == Collective::Barrier {
        return check_barrier(schedules, pairing, order);
    }
    let mut world = World::new(shape);
    for &number in order {
        let (rank, step) = pairing.step(number);
        match schedules[rank.index()].action(step) {
            Action::Copy { from, into } => world.movement((rank, step, from), (rank, step, into))?,
            Action::Reduce { from, into, side } => world
                .reduce(rank, from, into, side)
                .map_err(|why| Box::new(Flaw { rank, step: Some(step), why }))?,
            here @ (Action::Send { .. } | Action::Recv { .. }) => {
                let (peer, peer_step) = pairing.step(pairing.partner(number));
                match (here, schedules[peer.index()].action(peer_step)) {
                    (Action::Send { from, .. }, Action::Recv { into, .. }) => {
                        world.movement((rank, step, from), (peer, peer_step, into))?;
                    }
                    (Action::Recv { into, .. }, Action::Send { from, .. }) => {
                        world.movement((peer, peer_step, from), (rank, step, into))?;
                    }
                    _ => unreachable!("pairing has paired a send with a receive"),
                }
            }
        }
    }
    (0..shape.ranks).map(Rank).try_for_each(|rank| world.check_output(shape, rank))
}

/// Some bytes of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    who: SetId,
    /// Offset in `who`'s input of the byte at `start`.
    origin: u64,
}

impl Piece {
    /// The part of it inside `start..end`.
    fn clip(self, start: u64, end: u64) -> Piece {
        let first = self.start.max(start);
        Piece { start: first, end: self.end.min(end), origin: self.origin + (first - self.start), ..self }
    }

    fn continues(self, before: Piece) -> bool {
        self.who == before.who
            && self.start == before.end
            && before.origin + (before.end - before.start) == self.origin
    }
}

/// What one space of one rank holds: disjoint pieces by their start. Gaps are undefined.
#[derive(Default)]
struct Memory(BTreeMap<u64, Piece>);

impl Memory {
    /// The pieces of `start..end` with neighbours of one origin joined, or the first undefined range.
    fn read(&self, start: u64, end: u64) -> Result<Vec<Piece>, (u64, u64)> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut covered = start;
        let begin = self.0.range(..=start).next_back().map_or(start, |(&key, _)| key);
        for &piece in self.0.range(begin..end).map(|(_, piece)| piece).filter(|piece| piece.end > start) {
            let piece = piece.clip(start, end);
            if piece.start > covered {
                return Err((covered, piece.start));
            }
            covered = piece.end;
            match pieces.last_mut() {
                Some(last) if piece.continues(*last) => last.end = piece.end,
                _ => pieces.push(piece),
            }
        }
        if covered < end { Err((covered, end)) } else { Ok(pieces) }
    }

    /// Forgets `start..end` and puts `pieces` there, which lie inside.
    fn write(&mut self, start: u64, end: u64, pieces: &[Piece]) {
        let begin = self.0.range(..=start).next_back().map_or(start, |(&key, _)| key);
        let old: Vec<Piece> =
            self.0.range(begin..end).map(|(_, &piece)| piece).filter(|piece| piece.end > start).collect();
        for piece in old {
            self.0.remove(&piece.start);
            if piece.start < start {
                self.0.insert(piece.start, piece.clip(piece.start, start));
            }
            if piece.end > end {
                self.0.insert(end, piece.clip(end, piece.end));
            }
        }
        self.0.extend(pieces.iter().map(|piece| (piece.start, *piece)));
    }
}

/// The memory of all ranks.
struct World {
    sets: Sets,
    element_bytes: u64,
    /// By rank: `Output` and `Scratch`.
    memory: Vec<[Memory; 2]>,
}

impl World {
    fn new(shape: &Shape) -> World {
        let mut world = World {
            sets: Sets::new(shape),
            element_bytes: u64::from(shape.element_bytes),
            memory: (0..shape.ranks).map(|_| Default::default()).collect(),
        };
        if let Collective::Broadcast { root } = shape.collective {
            let message = Piece { start: 0, end: shape.bytes(), who: root.0, origin: 0 };
            if shape.bytes() > 0 {
                world.memory[root.index()][0].write(0, message.end, &[message]);
            }
        }
        world
    }

    fn read(&self, rank: Rank, slice: Slice) -> Result<Vec<Piece>, Why> {
        let memory = match slice.space {
            Space::Input if slice.len == 0 => return Ok(Vec::new()),
            Space::Input => {
                let (start, end) = (slice.offset, slice.end());
                return Ok(vec![Piece { start, end, who: rank.0, origin: start }]);
            }
            Space::Output => &self.memory[rank.index()][0],
            Space::Scratch => &self.memory[rank.index()][1],
        };
        memory
            .read(slice.offset, slice.end())
            .map_err(|(start, end)| Why::Undefined(Slice { offset: start, len: end - start, ..slice }))
    }

    fn write(&mut self, rank: Rank, slice: Slice, pieces: &[Piece]) {
        let memory = match slice.space {
            Space::Input => unreachable!("bounds were checked: nobody writes the input"),
            Space::Output => &mut self.memory[rank.index()][0],
            Space::Scratch => &mut self.memory[rank.index()][1],
        };
        memory.write(slice.offset, slice.end(), pieces);
    }

    /// Moves bytes within a rank or between ranks.
    fn movement(
        &mut self,
        (rank, step, from): (Rank, u32, Slice),
        (peer, _, into): (Rank, u32, Slice),
    ) -> Result<(), Box<Flaw>> {
        let mut pieces =
            self.read(rank, from).map_err(|why| Box::new(Flaw { rank, step: Some(step), why }))?;
        for piece in &mut pieces {
            piece.start = piece.start - from.offset + into.offset;
            piece.end = piece.end - from.offset + into.offset;
        }
        self.write(peer, into, &pieces);
        Ok(())
    }

    fn reduce(&mut self, rank: Rank, from: Slice, into: Slice, side: Side) -> Result<(), Why> {
        let (ours, theirs) = (self.read(rank, into)?, self.read(rank, from)?);
        let mut sum = Vec::new();
        let (mut a, mut b, mut at) = (0, 0, 0);
        while at < into.len {
            let mine = ours[a].clip(into.offset + at, into.end());
            let other = theirs[b].clip(from.offset + at, from.end());
            let len = (mine.end - mine.start).min(other.end - other.start);
            // Half an element of one origin and half of another is not a value.
            let whole =
                len.is_multiple_of(self.element_bytes) && mine.origin.is_multiple_of(self.element_bytes);
            if !whole || mine.origin != other.origin {
                let (mine, other) = (self.provenance(mine), self.provenance(other));
                return Err(Why::DifferentElements(mine, other));
            }
            let (left, right) = if side == Side::Left { (other, mine) } else { (mine, other) };
            let who = self
                .sets
                .join(left.who, right.who)
                .map_err(|mistake| mistake(self.provenance(left), self.provenance(right)))?;
            sum.push(Piece { start: mine.start, end: mine.start + len, who, origin: mine.origin });
            at += len;
            a += usize::from(ours[a].end == into.offset + at);
            b += usize::from(theirs[b].end == from.offset + at);
        }
        self.write(rank, into, &sum);
        Ok(())
    }

    fn check_output(&mut self, shape: &Shape, rank: Rank) -> Result<(), Box<Flaw>> {
        let (bytes, everybody) = (shape.bytes(), self.sets.everybody(shape.ranks));
        let wanted: Vec<Piece> = match shape.collective {
            Collective::Barrier => return Ok(()),
            Collective::Broadcast { root } => vec![Piece { start: 0, end: bytes, who: root.0, origin: 0 }],
            Collective::Reduce { root } if rank != root => return Ok(()),
            Collective::Reduce { .. } | Collective::Allreduce => {
                vec![Piece { start: 0, end: bytes, who: everybody, origin: 0 }]
            }
            Collective::Allgather | Collective::Alltoall => (0..shape.ranks)
                .map(|from| {
                    let start = u64::from(from) * bytes;
                    let origin =
                        if shape.collective == Collective::Alltoall { u64::from(rank.0) * bytes } else { 0 };
                    Piece { start, end: start + bytes, who: from, origin }
                })
                .collect(),
        };
        let wrong = |why| Box::new(Flaw { rank, step: None, why });
        for want in wanted.iter().filter(|want| want.end > want.start) {
            let slice = Slice { space: Space::Output, offset: want.start, len: want.end - want.start };
            for found in self.read(rank, slice).map_err(wrong)? {
                let want = want.clip(found.start, found.end);
                if found != want {
                    let slice = Slice { offset: found.start, len: found.end - found.start, ..slice };
                    let (found, wanted) = (self.provenance(found), self.provenance(want));
                    return Err(wrong(Why::WrongResult { slice, found, wanted }));
                }
            }
        }
        Ok(())
    }

    fn provenance(&self, piece: Piece) -> Provenance {
        Provenance { ranks: self.sets.ranges[piece.who as usize].clone(), offset: piece.origin }
    }
}

/// Sets of ranks, each kept once. The first are those of one rank each, so a rank is the number of its own set.
struct Sets {
    ordered: bool,
    /// Half-open ranges, ascending, not adjacent.
    ranges: Vec<Vec<(u32, u32)>>,
    ids: HashMap<Vec<(u32, u32)>, SetId>,
    joined: HashMap<(SetId, SetId), SetId>,
}

/// What two sets that cannot be joined are: [`Why::Twice`] or [`Why::OutOfOrder`].
type Mistake = fn(Provenance, Provenance) -> Why;

impl Sets {
    fn new(shape: &Shape) -> Sets {
        let ranges: Vec<_> = (0..shape.ranks).map(|rank| vec![(rank, rank + 1)]).collect();
        let ids = ranges.iter().cloned().zip(0..).collect();
        Sets { ordered: !shape.commutative, ranges, ids, joined: HashMap::new() }
    }

    fn everybody(&mut self, ranks: u32) -> SetId {
        self.id(vec![(0, ranks)])
    }

    fn id(&mut self, ranges: Vec<(u32, u32)>) -> SetId {
        if let Some(&id) = self.ids.get(&ranges) {
            return id;
        }
        let id = self.ranges.len() as SetId;
        self.ranges.push(ranges.clone());
        self.ids.insert(ranges, id);
        id
    }

    /// The set of both, `left` in front of `right`.
    fn join(&mut self, left: SetId, right: SetId) -> Result<SetId, Mistake> {
        if let Some(&id) = self.joined.get(&(left, right)) {
            return Ok(id);
        }
        let (low, high) = (&self.ranges[left as usize], &self.ranges[right as usize]);
        let mut both: Vec<(u32, u32)> = low.iter().chain(high).copied().collect();
        both.sort_unstable();
        if both.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            return Err(Why::Twice);
        }
        // Ordered sets are single ranges: they can only be continued.
        if self.ordered && low[0].1 != high[0].0 {
            return Err(Why::OutOfOrder);
        }
        both.dedup_by(|next, last| {
            let adjacent = last.1 == next.0;
            if adjacent {
                last.1 = next.1;
            }
            adjacent
        });
        let id = self.id(both);
        self.joined.insert((left, right), id);
        Ok(id)
    }
}

/// Nobody may be done before everybody has entered: each rank must have heard of all others, directly or through
/// messages of messages.
fn check_barrier(schedules: &[Schedule], pairing: &Pairing, order: &[u32]) -> Result<(), Box<Flaw>> {
    let words = schedules.len().div_ceil(64);
    let mut heard = vec![0u64; pairing.len() * words];
    // A send is complete when it has left, so only its receive hears more than what the steps before have.
    let mut hear = |rank: Rank, step: u32, message: Option<u32>| {
        let here = pairing.number(rank, step) as usize * words;
        heard[here + rank.index() / 64] |= 1 << (rank.0 % 64);
        let before = schedules[rank.index()].after(step).iter().map(|&step| pairing.number(rank, step));
        for number in before.chain(message) {
            for word in 0..words {
                heard[here + word] |= heard[number as usize * words + word];
            }
        }
    };
    for &number in order {
        let (rank, step) = pairing.step(number);
        let partner = pairing.partner(number);
        let (peer, peer_step) = pairing.step(partner);
        match schedules[rank.index()].action(step) {
            Action::Send { .. } => {
                hear(rank, step, None);
                hear(peer, peer_step, Some(number));
            }
            Action::Recv { .. } => {
                hear(peer, peer_step, None);
                hear(rank, step, Some(partner));
            }
            Action::Copy { .. } | Action::Reduce { .. } => hear(rank, step, None),
        }
    }
    for (rank, schedule) in all(schedules) {
        let mut known = vec![0u64; words];
        known[rank.index() / 64] |= 1 << (rank.0 % 64);
        for step in 0..schedule.len() as u32 {
            let row = pairing.number(rank, step) as usize * words;
            known.iter_mut().zip(&heard[row..]).for_each(|(word, more)| *word |= more);
        }
        let missing = (0..schedules.len()).find(|&other| known[other / 64] >> (other % 64) & 1 == 0);
        if let Some(other) = missing {
            return Err(Box::new(Flaw { rank, step: None, why: Why::LeavesEarly(Rank(other as u32)) }));
        }
    }
    Ok(())
}
