//! A collective as a value: what one rank does, as a graph of steps over named slices.
//!
//! A schedule says *what*, never *when*: a step may run as soon as the steps it names in `after` are complete, and no
//! other order exists. Steps of different ranks meet by label: the send of `a` to `b` labelled `x` fills the receive of
//! `b` from `a` labelled `x`, whatever arrives first.

use std::ops::Range;

use crate::Rank;

/// The memory a schedule works on. Which ranks have which, and how large, is said at [`crate::Collective`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// What the caller contributes. Never written.
    Input,
    /// What the caller gets.
    Output,
    /// The schedule's own, [`Schedule::scratch_bytes`] large, contents undefined at the start.
    Scratch,
}

/// `len` bytes at `offset` of one of the three spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// In which memory.
    pub space: Space,
    /// First byte.
    pub offset: u64,
    /// Number of bytes; may be 0.
    pub len: u64,
}

impl Slice {
    /// `len` bytes at `offset` of `space`.
    pub const fn new(space: Space, offset: u64, len: u64) -> Slice {
        Slice { space, offset, len }
    }

    /// The `len` bytes that start `offset` bytes into this slice. Panics when they are not all inside.
    pub fn part(self, offset: u64, len: u64) -> Slice {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} bytes at {offset} of a slice of {} bytes", self.len);
        Slice { offset: self.offset + offset, len, ..self }
    }

    /// First byte behind it.
    pub fn end(self) -> u64 {
        self.offset + self.len
    }

    /// Whether the two have a byte in common.
    pub fn overlaps(self, other: Slice) -> bool {
        self.space == other.space
            && self.len > 0
            && other.len > 0
            && self.offset < other.end()
            && other.offset < self.end()
    }
}

/// Which operand the accumulated value is, for operations that do not commute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `into = from op into`: `from` comes from lower ranks.
    Left,
    /// `into = into op from`: `from` comes from higher ranks.
    Right,
}

/// What one step does. `from` and `into` of a step have equal lengths and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sends `from` to a rank. Complete when `from` may be overwritten, which for a large message is only after the
    /// receiver has fetched it.
    Send {
        /// The receiver.
        to: Rank,
        /// The bytes.
        from: Slice,
        /// Pairs with the receive of that label; unique per (sender, receiver) within one schedule.
        label: u32,
    },
    /// Receives exactly `into.len` bytes from a rank.
    Recv {
        /// The sender.
        from: Rank,
        /// Where to.
        into: Slice,
        /// Pairs with the send of that label.
        label: u32,
    },
    /// Copies bytes.
    Copy {
        /// Source.
        from: Slice,
        /// Target.
        into: Slice,
    },
    /// Reduces whole elements of `from` into `into`.
    Reduce {
        /// One operand.
        from: Slice,
        /// The other operand, and the result.
        into: Slice,
        /// Which of the two comes first.
        side: Side,
    },
}

/// Index of a step in its schedule.
pub type StepIndex = u32;

/// What one rank does. Made with [`Schedule::new`] and the methods that append.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    steps: Vec<(Action, Range<u32>)>,
    after: Vec<StepIndex>,
    scratch_bytes: u64,
}

impl Schedule {
    /// A schedule of no steps that needs `scratch_bytes` of memory of its own.
    pub fn new(scratch_bytes: u64) -> Schedule {
        Schedule { scratch_bytes, ..Schedule::default() }
    }

    /// Appends a step that runs after the steps `after` (all appended before) and returns its index.
    pub fn push(&mut self, action: Action, after: &[StepIndex]) -> StepIndex {
        let index = u32::try_from(self.steps.len()).expect("a schedule has less than 2^32 steps");
        let first = u32::try_from(self.after.len()).expect("a schedule has less than 2^32 edges");
        assert!(after.iter().all(|&earlier| earlier < index), "a step runs after later ones: {after:?}");
        self.after.extend_from_slice(after);
        self.steps.push((action, first..first + after.len() as u32));
        index
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What step `index` does.
    pub fn action(&self, index: StepIndex) -> Action {
        self.steps[index as usize].0
    }

    /// The steps that must be complete before step `index` starts.
    pub fn after(&self, index: StepIndex) -> &[StepIndex] {
        let range = &self.steps[index as usize].1;
        &self.after[range.start as usize..range.end as usize]
    }

    /// All steps in the order they were appended, which is a topological order.
    pub fn iter(&self) -> impl Iterator<Item = (StepIndex, Action, &[StepIndex])> {
        (0..self.steps.len() as u32).map(|index| (index, self.action(index), self.after(index)))
    }

    /// Bytes of [`Space::Scratch`] it needs.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    /// Sets what [`Schedule::new`] was given, for builders that know it only at the end.
    pub fn set_scratch_bytes(&mut self, bytes: u64) {
        self.scratch_bytes = bytes;
    }
}
