//! Builds a schedule in program order and derives the dependencies from what the steps touch.
//!
//! A generator writes down its steps as a sequential program would run them. The builder remembers for every byte who
//! wrote it last and who has read it since, and makes each new step run after exactly those it conflicts with:
//!
//! ```text
//! reads  bytes  -> after their last writer
//! writes bytes  -> after their last writer and everybody who has read them since
//! ```
//!
//! So a receive into bytes that nobody touched before is posted at once, a send from them waits for the receive, and
//! what reuses them waits for the send. All parallelism that the choice of buffers allows is there, and no more. The
//! verifier does not trust this: it proves the outcome again from the finished schedule.

use crate::{Action, Rank, Schedule, Side, Slice, Space, StepIndex};

/// Bytes that were all touched by the same steps.
#[derive(Clone, Debug)]
struct Region {
    start: u64,
    end: u64,
    writer: Option<StepIndex>,
    readers: Vec<StepIndex>,
}

/// A schedule under construction.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    schedule: Schedule,
    scratch_bytes: u64,
    /// Per space, disjoint and sorted by start.
    regions: [Vec<Region>; 3],
    after: Vec<StepIndex>,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder::default()
    }

    /// The finished schedule.
    pub(crate) fn finish(mut self) -> Schedule {
        self.schedule.set_scratch_bytes(self.scratch_bytes);
        self.schedule
    }

    /// Fresh scratch memory. Aligned to elements when all requests are whole elements.
    pub(crate) fn scratch(&mut self, len: u64) -> Slice {
        let offset = self.scratch_bytes;
        self.scratch_bytes += len;
        Slice { space: Space::Scratch, offset, len }
    }

    /// Sends `from`; nothing when it is empty.
    pub(crate) fn send(&mut self, to: Rank, from: Slice, label: u32) -> Option<StepIndex> {
        self.send_after(to, from, label, &[])
    }

    /// Sends `from` after some more steps than its bytes demand.
    pub(crate) fn send_after(
        &mut self,
        to: Rank,
        from: Slice,
        label: u32,
        after: &[StepIndex],
    ) -> Option<StepIndex> {
        (from.len > 0).then(|| self.push(Action::Send { to, from, label }, after))
    }

    /// Receives into `into`; nothing when it is empty.
    pub(crate) fn recv(&mut self, from: Rank, into: Slice, label: u32) -> Option<StepIndex> {
        self.recv_after(from, into, label, &[])
    }

    /// Receives into `into` after some more steps than its bytes demand.
    pub(crate) fn recv_after(
        &mut self,
        from: Rank,
        into: Slice,
        label: u32,
        after: &[StepIndex],
    ) -> Option<StepIndex> {
        (into.len > 0).then(|| self.push(Action::Recv { from, into, label }, after))
    }

    /// Copies; nothing when it is empty.
    pub(crate) fn copy(&mut self, from: Slice, into: Slice) {
        if from.len > 0 {
            self.push(Action::Copy { from, into }, &[]);
        }
    }

    /// Reduces a contribution of lower (`Side::Left`) or higher (`Side::Right`) ranks into `into`.
    pub(crate) fn reduce(&mut self, from: Slice, into: Slice, side: Side) {
        if from.len > 0 {
            self.push(Action::Reduce { from, into, side }, &[]);
        }
    }

    /// Sends a message of no bytes after `after`.
    pub(crate) fn signal(&mut self, to: Rank, label: u32, after: &[StepIndex]) -> StepIndex {
        self.push(Action::Send { to, from: NOTHING, label }, after)
    }

    /// Receives a message of no bytes.
    pub(crate) fn await_signal(&mut self, from: Rank, label: u32) -> StepIndex {
        self.push(Action::Recv { from, into: NOTHING, label }, &[])
    }

    fn push(&mut self, action: Action, extra: &[StepIndex]) -> StepIndex {
        let index = self.schedule.len() as StepIndex;
        let mut after = std::mem::take(&mut self.after);
        after.clear();
        after.extend_from_slice(extra);
        match action {
            Action::Send { from, .. } => self.read(from, index, &mut after),
            Action::Recv { into, .. } => self.write(into, index, &mut after),
            Action::Copy { from, into } | Action::Reduce { from, into, .. } => {
                self.read(from, index, &mut after);
                self.write(into, index, &mut after);
            }
        }
        after.sort_unstable();
        after.dedup();
        self.drop_implied(&mut after);
        self.schedule.push(action, &after);
        self.after = after;
        index
    }

    /// Drops steps that another one in the list directly runs after: each edge costs the executor a counter.
    fn drop_implied(&self, after: &mut Vec<StepIndex>) {
        let mut at = 0;
        while at < after.len() {
            let implied =
                after[at + 1..].iter().any(|&later| self.schedule.after(later).contains(&after[at]));
            if implied {
                after.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn read(&mut self, slice: Slice, step: StepIndex, after: &mut Vec<StepIndex>) {
        for region in self.touch(slice) {
            after.extend(region.writer);
            region.readers.push(step);
        }
    }

    fn write(&mut self, slice: Slice, step: StepIndex, after: &mut Vec<StepIndex>) {
        for region in self.touch(slice) {
            if region.readers.is_empty() {
                after.extend(region.writer);
            } else {
                // Each reader already runs after the writer.
                after.extend(region.readers.drain(..).filter(|&reader| reader != step));
            }
            region.writer = Some(step);
        }
    }

    /// The regions that make up `slice`, created or split where needed.
    fn touch(&mut self, slice: Slice) -> &mut [Region] {
        let regions = &mut self.regions[slice.space as usize];
        if slice.len == 0 {
            return &mut [];
        }
        let first = split(regions, slice.offset);
        let mut at = first;
        let mut covered = slice.offset;
        while covered < slice.end() {
            match regions.get(at).map(|region| (region.start, region.end)) {
                Some((start, end)) if start == covered => {
                    if end > slice.end() {
                        split(regions, slice.end());
                    }
                    covered = regions[at].end;
                }
                next => {
                    let end = next.map_or(slice.end(), |(start, _)| start.min(slice.end()));
                    regions.insert(at, Region { start: covered, end, writer: None, readers: Vec::new() });
                    covered = end;
                }
            }
            at += 1;
        }
        &mut regions[first..at]
    }
}

/// Makes `offset` a border between regions; returns the index of the first region that starts at or behind it.
fn split(regions: &mut Vec<Region>, offset: u64) -> usize {
    let at = regions.partition_point(|region| region.end <= offset);
    match regions.get(at) {
        Some(region) if region.start < offset => {
            let mut behind = region.clone();
            behind.start = offset;
            regions[at].end = offset;
            regions.insert(at + 1, behind);
            at + 1
        }
        _ => at,
    }
}

/// The slice of messages that carry no bytes.
pub(crate) const NOTHING: Slice = Slice { space: Space::Scratch, offset: 0, len: 0 };

/// All `len` bytes of the caller's contribution.
pub(crate) fn input(len: u64) -> Slice {
    Slice { space: Space::Input, offset: 0, len }
}

/// All `len` bytes of the caller's result.
pub(crate) fn output(len: u64) -> Slice {
    Slice { space: Space::Output, offset: 0, len }
}

/// Equal parts of `count` elements, the larger ones first; no part cuts an element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    count: u64,
    parts: u64,
    element_bytes: u64,
}

impl Blocks {
    pub(crate) fn new(count: u64, parts: u32, element_bytes: u32) -> Blocks {
        Blocks { count, parts: u64::from(parts), element_bytes: u64::from(element_bytes) }
    }

    /// Where part `index` starts, in bytes; `parts` gives the end of all.
    fn start(self, index: u32) -> u64 {
        let (index, each) = (u64::from(index), self.count / self.parts);
        (index * each + index.min(self.count % self.parts)) * self.element_bytes
    }

    /// The parts `first..end` of `whole`.
    pub(crate) fn of(self, whole: Slice, first: u32, end: u32) -> Slice {
        let start = self.start(first);
        whole.part(start, self.start(end) - start)
    }

    /// Part `index` of `whole`.
    pub(crate) fn one(self, whole: Slice, index: u32) -> Slice {
        self.of(whole, index, index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(offset: u64, len: u64) -> Slice {
        Slice { space: Space::Scratch, offset, len }
    }

    #[test]
    fn a_reader_runs_after_the_writer_and_the_next_writer_after_all_readers() {
        let mut builder = Builder::new();
        builder.recv(Rank(1), bytes(0, 8), 0);
        builder.send(Rank(2), bytes(0, 4), 0);
        builder.send(Rank(3), bytes(4, 4), 0);
        builder.recv(Rank(1), bytes(2, 4), 1);
        let schedule = builder.finish();
        assert_eq!(schedule.after(0), []);
        assert_eq!(schedule.after(1), [0]);
        assert_eq!(schedule.after(2), [0]);
        assert_eq!(schedule.after(3), [1, 2]);
    }

    #[test]
    fn steps_on_disjoint_bytes_do_not_wait_for_each_other() {
        let mut builder = Builder::new();
        for block in [3, 0, 2, 1] {
            builder.recv(Rank(1), bytes(block * 8, 8), block as u32);
        }
        builder.reduce(bytes(8, 8), bytes(16, 8), Side::Left);
        let schedule = builder.finish();
        assert!((0..4).all(|step| schedule.after(step).is_empty()));
        assert_eq!(schedule.after(4), [2, 3]);
    }

    #[test]
    fn parts_are_whole_elements_and_cover_everything_once() {
        let blocks = Blocks::new(10, 4, 3);
        let whole = output(30);
        let lens: Vec<u64> = (0..4).map(|index| blocks.one(whole, index).len).collect();
        assert_eq!(lens, [9, 9, 6, 6]);
        assert_eq!(blocks.of(whole, 1, 3), Slice { space: Space::Output, offset: 9, len: 15 });
    }
}
