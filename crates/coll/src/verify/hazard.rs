//! Duty four: steps that may run at the same time do not disturb each other.
//!
//! A receive writes for its whole life, from being posted to being complete; a send reads for its whole life, which for
//! a large message ends only when the receiver has fetched it. Two steps of a rank may overlap in time unless one is
//! reachable from the other through `after`.

use super::{Flaw, Why};
use crate::{Action, Rank, Schedule, Slice, StepIndex};

/// One step's use of some bytes.
#[derive(Clone, Copy)]
struct Access {
    slice: Slice,
    step: StepIndex,
    writes: bool,
}

pub(super) fn check(rank: Rank, schedule: &Schedule) -> Result<(), Box<Flaw>> {
    let mut accesses = accesses(schedule);
    accesses.sort_unstable_by_key(|access| (access.slice.space, access.slice.offset));
    let mut reach = Reach::new(schedule);
    // Sweep over the bytes; these are the accesses that reach the current one or beyond.
    let (mut reads, mut writes): (Vec<Access>, Vec<Access>) = (Vec::new(), Vec::new());
    for now in accesses {
        let reaches = |old: &Access| old.slice.space == now.slice.space && old.slice.end() > now.slice.offset;
        writes.retain(reaches);
        if now.writes {
            reads.retain(reaches);
        }
        let others = writes.iter().chain(if now.writes { &reads[..] } else { &[] });
        for other in others {
            if other.step != now.step
                && other.slice.overlaps(now.slice)
                && !reach.ordered(other.step, now.step)
            {
                let (early, late) = if other.step < now.step { (*other, now) } else { (now, *other) };
                let why = Why::Race { other: early.step, slice: late.slice, other_slice: early.slice };
                return Err(Box::new(Flaw { rank, step: Some(late.step), why }));
            }
        }
        if now.writes { writes.push(now) } else { reads.push(now) }
    }
    Ok(())
}

fn accesses(schedule: &Schedule) -> Vec<Access> {
    let mut accesses = Vec::with_capacity(schedule.len() * 2);
    for (step, action, _) in schedule.iter() {
        let (read, written) = match action {
            Action::Send { from, .. } => (Some(from), None),
            Action::Recv { into, .. } => (None, Some(into)),
            Action::Copy { from, into } | Action::Reduce { from, into, .. } => (Some(from), Some(into)),
        };
        let reads = read.into_iter().map(|slice| Access { slice, step, writes: false });
        let writes = written.into_iter().map(|slice| Access { slice, step, writes: true });
        accesses.extend(reads.chain(writes).filter(|access| access.slice.len > 0));
    }
    accesses
}

/// Answers which steps come before which. The whole relation is worked out only when a question is not answered by one
/// edge.
struct Reach<'a> {
    schedule: &'a Schedule,
    /// Row by row, a bit for each step that comes before the row's step.
    before: Vec<u64>,
    words: usize,
}

impl<'a> Reach<'a> {
    fn new(schedule: &'a Schedule) -> Reach<'a> {
        Reach { schedule, before: Vec::new(), words: schedule.len().div_ceil(64) }
    }

    /// Whether one of two different steps is complete before the other starts.
    fn ordered(&mut self, a: StepIndex, b: StepIndex) -> bool {
        let (early, late) = (a.min(b), a.max(b));
        if self.schedule.after(late).contains(&early) {
            return true;
        }
        if self.before.is_empty() {
            self.work_out();
        }
        self.before[late as usize * self.words + early as usize / 64] >> (early % 64) & 1 == 1
    }

    fn work_out(&mut self) {
        self.before = vec![0; self.schedule.len() * self.words];
        for (step, _, after) in self.schedule.iter() {
            let (rows, row) = self.before.split_at_mut(step as usize * self.words);
            for &earlier in after {
                let row_before = &rows[earlier as usize * self.words..][..self.words];
                for (word, &more) in row.iter_mut().zip(row_before) {
                    *word |= more;
                }
                row[earlier as usize / 64] |= 1 << (earlier % 64);
            }
        }
    }
}
