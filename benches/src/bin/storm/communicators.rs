//! Communicators that are made, used and dropped while messages go: all ranks of one do the same steps with it, drawn from the
//! seed, by every call of the public API that makes one out of others.
//!
//! Each rank keeps a few of them, in places that all ranks number alike; where a rank is not a member, its place is empty. Who
//! must be in a communicator is drawn with it, so every rank knows it, and what goes over it differs from what goes over others.

use selvedge::{Communicator, Comparison, Intercommunicator, Level, Op, balanced_dims};
use selvedge_transport::Rng;

use crate::collectives::{self, FORMS, Part};
use crate::ways::{LENGTHS, Line, Rounds, WAYS, Wrong};

/// Communicators that a rank keeps beside the first, at most.
const KEPT_MAX: usize = 6;
/// What the random numbers of a step are for.
const EXCHANGE: u64 = 1;
const COLLECTIVE: u64 = 2;
const MAKING: u64 = 3;
const CONTENT: u64 = 4;
const EVERYWHERE: u64 = 5;
/// In the messages by which communicators are made.
const MAKERS_TAG: i32 = 1 << 19;

/// A communicator and who is in it, as ranks of the first one, in order.
struct Kept {
    communicator: Communicator,
    members: Vec<usize>,
}

/// What a rank has of the communicators of a program.
pub(crate) struct Communicators<'a> {
    base: &'a Communicator,
    rng: Rng,
    tag: i32,
    /// Place 0 is the first one.
    places: Vec<Option<Kept>>,
    /// Messages that this rank has sent.
    messages: usize,
}

impl<'a> Communicators<'a> {
    /// A program on `base`, drawn from `rng`. `tag` is less than [`crate::ways::TAGS`].
    fn new(base: &'a Communicator, rng: Rng, tag: i32) -> Result<Communicators<'a>, String> {
        let first = base.dup().map_err(|error| format!("dup: {error}"))?;
        let members = (0..base.size()).collect();
        let places = vec![Some(Kept { communicator: first, members })];
        Ok(Communicators { base, rng, tag, places, messages: 0 })
    }

    /// So many steps of all ranks of `base`. Returns how many messages this rank has sent.
    pub(crate) fn play(base: &Communicator, rng: Rng, tag: i32, steps: u64) -> Result<usize, String> {
        let mut communicators = Communicators::new(base, rng, tag)?;
        (0..steps).try_for_each(|step| communicators.step(step))?;
        Ok(communicators.messages)
    }

    /// One step of all ranks.
    fn step(&mut self, step: u64) -> Result<(), String> {
        let mut rng = self.rng.child(step);
        let place = rng.index(self.places.len());
        let label = rng.bits();
        match rng.below(10) {
            0..3 => self.make(place, &Rng::new(label).child(MAKING)),
            3 => self.everywhere(&Rng::new(label).child(EVERYWHERE)),
            4..7 => self.exchange(place, &Rng::new(label).child(EXCHANGE)),
            _ => self.collective(place, &Rng::new(label).child(COLLECTIVE)),
        }
    }

    /// Every rank of a communicator sends to one and receives from one.
    fn exchange(&mut self, place: usize, rng: &Rng) -> Result<(), String> {
        let Some(Kept { communicator, members }) = &self.places[place] else { return Ok(()) };
        let mut draw = rng.child(0);
        let (me, ranks) = (communicator.rank(), communicator.size());
        let bytes = *draw.pick(&LENGTHS);
        let (name, messages, exchange) = *draw.pick(&WAYS);
        let shift = draw.index(ranks);
        let (to, from) = ((me + shift) % ranks, (me + ranks - shift) % ranks);
        let next = |round| content(rng, members[me], round, bytes);
        let judge = |round, got: &[u8]| match got == content(rng, members[from], round, bytes) {
            true => Ok(()),
            false => Err(format!("wrong bytes in round {round} of {bytes} from rank {from} by {name}")),
        };
        let line = Line { communicator, to, from, tag: self.tag };
        exchange(&line, &mut next(0), &mut vec![0; bytes], &Rounds { next: &next, judge: &judge })
            .map_err(|wrong| wrong.of(|| format!("{name} of {bytes} bytes to {to} and from {from}")))?;
        self.messages += messages;
        Ok(())
    }

    fn collective(&mut self, place: usize, rng: &Rng) -> Result<(), String> {
        let Some(Kept { communicator, members }) = &self.places[place] else { return Ok(()) };
        let mut draw = rng.child(0);
        let count = *draw.pick(&[0, 1, 1, 3, 64, 257, 3_000]);
        let (name, form) = *draw.pick(&FORMS);
        let root = draw.index(communicator.size());
        collectives::call(name, form, &Part { communicator, count, root, rng, salt: members[0] as u64 })
    }

    /// On all communicators at the same time: messages with the same tag, and a collective in the middle of them. Whoever got
    /// what belongs to another communicator would see other bytes.
    fn everywhere(&mut self, rng: &Rng) -> Result<(), String> {
        let bytes = *rng.child(0).pick(&[8, 1_200, 60_000]);
        let of = |place: usize, member: usize| content(rng, member, place as u64, bytes);
        let here = || self.places.iter().enumerate().filter_map(|(at, kept)| Some((at, kept.as_ref()?)));
        let neighbours = |kept: &Kept| {
            let (me, ranks) = (kept.communicator.rank(), kept.communicator.size());
            ((me + 1) % ranks, (me + ranks - 1) % ranks)
        };
        let receives: Vec<_> = here()
            .map(|(_, kept)| kept.communicator.irecv_owned(vec![0u8; bytes], neighbours(kept).1, self.tag))
            .collect();
        let sends: Vec<_> = here()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .map(|(at, kept)| {
                let message = of(at, kept.members[kept.communicator.rank()]);
                kept.communicator.isend_owned(message, neighbours(kept).0, self.tag)
            })
            .collect();
        let all = || "messages on all communicators".to_owned();
        for (_, kept) in here() {
            kept.communicator.barrier().map_err(|error| Wrong::Call(error).of(all))?;
        }
        self.messages += sends.len();
        for ((at, kept), receive) in here().zip(receives) {
            let (outcome, got) = receive.wait();
            outcome.map_err(|error| Wrong::Call(error).of(all))?;
            let from = neighbours(kept).1;
            if got != of(at, kept.members[from]) {
                return Err(format!("wrong bytes from rank {from} on communicator {at}"));
            }
        }
        sends
            .into_iter()
            .try_for_each(|send| send.wait().0.map(drop))
            .map_err(|error| Wrong::Call(error).of(all))
    }

    /// Makes a communicator out of another one, and drops one where there are too many.
    fn make(&mut self, place: usize, rng: &Rng) -> Result<(), String> {
        let mut draw = rng.child(0);
        let (name, make) = *draw.pick(&MAKERS);
        let made = match &self.places[place] {
            Some(kept) => make(&Making { kept, rng }).map_err(|wrong| wrong.of(|| name.to_owned()))?,
            None => None,
        };
        if let Some(kept) = &made {
            self.check(kept, name)?;
        }
        self.places.push(made);
        if self.places.len() > KEPT_MAX || (self.places.len() > 2 && draw.one_in(3)) {
            let leaves = 1 + draw.index(self.places.len() - 1);
            self.places.remove(leaves);
        }
        Ok(())
    }

    /// Whether it has the members that it must have.
    fn check(&self, kept: &Kept, name: &str) -> Result<(), String> {
        let (group, all) = (kept.communicator.group(), self.base.group());
        let members: Option<Vec<usize>> = (0..group.size()).map(|rank| group.translate(rank, &all)).collect();
        let me = kept.members.get(kept.communicator.rank());
        match members.as_ref() == Some(&kept.members) && me == Some(&self.base.rank()) {
            true => Ok(()),
            false => Err(format!("{name} made a communicator of {members:?}, not {:?}", kept.members)),
        }
    }
}

/// What a member of the first communicator sends.
fn content(rng: &Rng, member: usize, round: u64, bytes: usize) -> Vec<u8> {
    rng.child(CONTENT << 56 | (member as u64) << 16 | round).bytes(bytes)
}

/// What communicators are made of.
struct Making<'a> {
    kept: &'a Kept,
    /// The same on all ranks of it.
    rng: &'a Rng,
}

impl Making<'_> {
    fn size(&self) -> usize {
        self.kept.members.len()
    }

    /// A number of each rank, which all know.
    fn drawn(&self, rank: usize, below: u64) -> u64 {
        self.rng.child(1 << 32 | self.kept.members[rank] as u64).below(below)
    }

    /// Some of the ranks in some order, the same on all.
    fn some(&self) -> Vec<usize> {
        let mut ranks: Vec<usize> = (0..self.size()).collect();
        let mut rng = self.rng.child(2 << 32);
        rng.shuffle(&mut ranks);
        ranks.truncate(1 + rng.index(self.size()));
        ranks
    }

    /// A new communicator of these ranks of the old one.
    fn of(&self, communicator: Communicator, ranks: &[usize]) -> Kept {
        Kept { communicator, members: ranks.iter().map(|&rank| self.kept.members[rank]).collect() }
    }

    /// Those who say the same as this rank.
    fn like_me(&self, said: impl Fn(usize) -> u64) -> Vec<usize> {
        let mine = said(self.kept.communicator.rank());
        (0..self.size()).filter(|&rank| said(rank) == mine).collect()
    }
}

/// Makes a communicator; a rank may have no part in it.
type Maker = fn(&Making<'_>) -> Result<Option<Kept>, Wrong>;

/// Each way to make one.
const MAKERS: [(&str, Maker); 10] = [
    ("dup", |making| {
        let (old, all) = (&making.kept.communicator, Vec::from_iter(0..making.size()));
        let made = old.dup()?;
        match (old.compare(&made), made.group().compare(&old.group())) {
            (Comparison::Congruent, Comparison::Identical) => Ok(Some(making.of(made, &all))),
            other => Err(Wrong::Bytes(format!("a duplicate compares as {other:?}"))),
        }
    }),
    ("idup", |making| {
        let (old, all) = (&making.kept.communicator, Vec::from_iter(0..making.size()));
        // One is dropped while it is made, and one is made while others are.
        let (dropped, mut one, other) = (old.idup()?, old.idup()?, old.idup()?);
        drop(dropped);
        let blocking = old.dup()?;
        while !one.test() {
            std::hint::spin_loop();
        }
        let mut sum = [0];
        blocking.allreduce(&[1], &mut sum, &Op::sum())?;
        let (one, other) = (one.wait()?, other.wait()?);
        for copy in [&one, &other, &blocking] {
            if copy.compare(old) != Comparison::Congruent || sum != [making.size()] {
                return Err(Wrong::Bytes(format!("{copy:?} of {old:?}, and a sum of {sum:?}")));
            }
        }
        Ok(Some(making.of(other, &all)))
    }),
    ("split", |making| {
        let (old, color) = (&making.kept.communicator, |rank| making.drawn(rank, 3));
        let mut ranks = making.like_me(color);
        // Colour 2 is none.
        let mine = u32::try_from(color(old.rank())).ok().filter(|&color| color < 2);
        let made = old.split(mine, -(old.rank() as i64))?;
        ranks.reverse();
        Ok(made.map(|made| making.of(made, &ranks)))
    }),
    ("create", |making| {
        let (old, ranks) = (&making.kept.communicator, making.some());
        let group = old.group().include(ranks.iter().copied())?;
        Ok(old.create(&group)?.map(|made| making.of(made, &ranks)))
    }),
    ("create_group", |making| {
        let (old, ranks) = (&making.kept.communicator, making.some());
        let rest = old.group().exclude(ranks.iter().copied())?;
        let group = old.group().include(ranks.iter().copied())?;
        if group.union(&rest).size() != old.size() || !group.intersection(&rest).is_empty() {
            return Err(Wrong::Bytes(format!("{group:?} and {rest:?} are not all, or not apart")));
        }
        match ranks.contains(&old.rank()) {
            true => Ok(Some(making.of(old.create_group(&group, MAKERS_TAG)?, &ranks))),
            false => Ok(None),
        }
    }),
    ("split_by_host", |making| {
        let old = &making.kept.communicator;
        let host = old.host_of(old.rank());
        let ranks: Vec<usize> = (0..old.size()).filter(|&rank| old.host_of(rank) == host).collect();
        let made = old.split_by_host()?;
        if let Some(near) = made.split_by(Level::Numa)?
            && near.size() > made.size()
        {
            return Err(Wrong::Bytes("a part of a host has more ranks than the host".to_owned()));
        }
        Ok(Some(making.of(made, &ranks)))
    }),
    ("cartesian", |making| {
        let dims = balanced_dims(making.size(), &[0, 0])?;
        let grid = making.kept.communicator.cartesian(&dims, &[true, false])?.expect("all have a place");
        let (me, mut got) = (grid.rank(), [usize::MAX; 2]);
        for dimension in 0..2 {
            let (from, to) = grid.shift(dimension, 1);
            grid.sendrecv(&[me], to, 0, &mut got[dimension..=dimension], from, 0)?;
            if got[dimension] != from.unwrap_or(usize::MAX) {
                return Err(Wrong::Bytes(format!("{got:?} along dimension {dimension} from {from:?}")));
            }
        }
        let row = grid.sub(&[false, true])?;
        let mut ranks = vec![0; row.size()];
        row.allgather(&[me], &mut ranks)?;
        let coords = grid.coords(me);
        let expected = (0..dims[1]).map(|at| grid.rank_at(&[coords[0] as isize, at as isize]));
        if !expected.eq(ranks.iter().map(|&rank| Some(rank))) {
            return Err(Wrong::Bytes(format!("{ranks:?} in a row of {dims:?}")));
        }
        Ok(None)
    }),
    ("graph and neighborhood", |making| {
        let (old, ranks) = (&making.kept.communicator, making.size());
        let next = |rank: usize| (rank + 1) % ranks;
        let before = (old.rank() + ranks - 1) % ranks;
        // Each rank names the edge that begins behind it.
        let graph = old.graph(&[(next(old.rank()), next(next(old.rank())))])?;
        let ring = old.neighborhood(&[before], &[next(old.rank())])?;
        let heard = (graph.sources(), graph.destinations()) == (ring.sources(), ring.destinations());
        let (mut first, mut second) = ([0], [0]);
        let (from, to) = (ring.sources()[0], ring.destinations()[0]);
        graph.sendrecv(&[1 + old.rank()], to, 0, &mut first, from, 0)?;
        ring.sendrecv(&[2 + old.rank()], to, 0, &mut second, from, 0)?;
        match heard && first == [1 + before] && second == [2 + before] {
            true => Ok(None),
            false => Err(Wrong::Bytes(format!("{first:?} and {second:?} from {before} on {graph:?}"))),
        }
    }),
    ("intercommunicator", |making| {
        let (old, low) = (&making.kept.communicator, making.size() / 2);
        let is_low = old.rank() < low;
        let half = old.split(Some(u32::from(is_low)), 0)?.expect("every rank has a colour");
        if low == 0 {
            return Ok(None);
        }
        let there = half.intercommunicator(0, old, if is_low { low } else { 0 }, MAKERS_TAG)?;
        let (me, theirs) = (there.rank(), there.remote_size());
        for to in (0..theirs).filter(|to| to % there.size() == me) {
            there.send(&[me, to], to, 1)?;
            there.send_value(&(me, "value"), to, 2)?;
        }
        let (mut words, from) = ([0; 2], me % theirs);
        there.recv(&mut words, from, 1)?;
        let (value, _) = there.recv_value::<(usize, String)>(from, 2)?;
        let (mut news, mut sum) = ([0u64; 100], [0]);
        if is_low {
            there.broadcast_to(&[11u64; 100], low - 1)?;
            news = [11; 100];
        } else {
            there.broadcast_from(&mut news, low - 1)?;
        }
        there.allreduce(&[old.rank()], &mut sum, &Op::sum())?;
        let expected: usize = if is_low { (low..making.size()).sum() } else { (0..low).sum() };
        there.barrier()?;
        let said = (words, value, news, sum);
        if said != ([from, me], (from, "value".to_owned()), [11; 100], [expected]) {
            let shown: String = format!("between two groups: {said:?}").chars().take(120).collect();
            return Err(Wrong::Bytes(shown));
        }
        let others = if is_low { low..making.size() } else { 0..low };
        between_groups(&there, old.rank(), is_low.then_some(low - 1), &Vec::from_iter(others))?;
        // The upper half first.
        let ranks: Vec<usize> = (low..making.size()).chain(0..low).collect();
        Ok(Some(making.of(there.merge(is_low)?, &ranks)))
    }),
    ("extensions", |making| {
        let (old, all) = (&making.kept.communicator, Vec::from_iter(0..making.size()));
        old.extensions().insert_passed_on(making.size());
        old.extensions().insert("stays");
        let made = old.dup()?;
        old.extensions().remove::<usize>();
        made.set_name("a child");
        let passed_on = made.extensions().get::<usize>().map(|size| *size);
        let stayed = made.extensions().get::<&str>();
        match (passed_on, stayed, made.name().as_str()) {
            (Some(size), None, "a child") if size == made.size() => Ok(Some(making.of(made, &all))),
            other => Err(Wrong::Bytes(format!("passed on: {other:?}"))),
        }
    }),
];

/// Every collective between two groups that has roots, and those in which all give and get. `mine` is this rank in the
/// communicator of both, `others` are the ranks of the other group in it. `last`: of the lower group, which gives, the last rank.
fn between_groups(
    there: &Intercommunicator,
    mine: usize,
    last: Option<usize>,
    others: &[usize],
) -> Result<(), Wrong> {
    let (mut most, mut gathered, mut part) = ([mine], vec![0; others.len()], [mine]);
    match last {
        Some(last) => {
            there.reduce_to(&[mine], &Op::max(), 0)?;
            there.gather_to(&[mine], 0)?;
            there.scatter_to(others, last)?;
        }
        None => {
            there.reduce_from(&mut most, 0)?;
            there.gather_from(&mut gathered, 0)?;
            there.scatter_from(&mut part, others.len() - 1)?;
        }
    }
    let (mut all, mut exchanged) = (vec![0; others.len()], vec![0; others.len()]);
    there.allgather(&[mine], &mut all)?;
    there.alltoall(&vec![mine; others.len()], &mut exchanged)?;
    let is_root = last.is_none() && there.rank() == 0;
    let is_other = there.remote_group().size() == others.len() && there.remote_group().rank().is_none();
    let rooted = !is_root || (most == [others.len() - 1] && gathered == others);
    match is_other && rooted && part == [mine] && all == others && exchanged == others {
        true => Ok(()),
        false => Err(Wrong::Bytes(format!(
            "with {others:?}: {most:?} {gathered:?} {part:?} {all:?} {exchanged:?}"
        ))),
    }
}
