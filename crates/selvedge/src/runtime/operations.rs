//! The operations that callers have in flight: a table of names, each with who works on it or how it ended.

use crate::runtime::outcome::End;

/// The caller's name for something in flight. Spent by the [`Runtime::take`](super::Runtime::take) that returns its
/// outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub(super) index: u32,
    generation: u32,
}

/// Who works on a running operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Engine(selvedge_engine::RequestId),
    Run,
    Channel(u32),
    Agreement(u32),
}

/// How it is with an operation.
#[derive(Debug)]
pub(super) enum State {
    Free,
    Running(Owner),
    Done(End),
}

/// An entry of the table.
#[derive(Debug)]
struct Entry {
    /// Changes when the operation is taken, so that its name is known to be spent.
    generation: u32,
    state: State,
}

/// Everything that the caller has in flight, which is its bound. Entries are used again.
#[derive(Debug, Default)]
pub(super) struct Operations {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Operations {
    /// The entry that [`Operations::enter`] takes, if what is being started is not over at once.
    #[inline]
    pub(super) fn next(&mut self) -> u32 {
        match self.free.last() {
            Some(&index) => index,
            None => self.add(),
        }
    }

    #[cold]
    fn add(&mut self) -> u32 {
        let index = self.entries.len() as u32;
        self.entries.push(Entry { generation: 0, state: State::Free });
        self.free.push(index);
        index
    }

    /// Takes the entry that [`Operations::next`] has named.
    #[inline]
    pub(super) fn enter(&mut self, index: u32, owner: Owner) -> Operation {
        let taken = self.free.pop();
        debug_assert_eq!(taken, Some(index), "nothing was started in between");
        let entry = &mut self.entries[index as usize];
        entry.state = State::Running(owner);
        Operation { index, generation: entry.generation }
    }

    /// Who works on an operation; nobody when it is over.
    #[inline]
    pub(super) fn owner(&self, operation: Operation) -> Option<Owner> {
        match self.entry(operation).state {
            State::Running(owner) => Some(owner),
            _ => None,
        }
    }

    /// Which agreement the operation with that entry is, if it is one.
    #[inline]
    pub(super) fn agreement_of(&self, index: u32) -> Option<u32> {
        match self.entries[index as usize].state {
            State::Running(Owner::Agreement(agreement)) => Some(agreement),
            _ => None,
        }
    }

    /// Whether an operation is over; its end stays where it is.
    #[inline]
    pub(super) fn is_done(&self, operation: Operation) -> bool {
        matches!(self.entry(operation).state, State::Done(_))
    }

    #[inline]
    fn entry(&self, operation: Operation) -> &Entry {
        let entry = &self.entries[operation.index as usize];
        assert_eq!(entry.generation, operation.generation, "an operation was named after it was taken");
        entry
    }

    /// This is how the operation with that entry has ended.
    #[inline]
    pub(super) fn conclude(&mut self, index: u32, end: End) {
        self.entries[index as usize].state = State::Done(end);
    }

    /// Gives the entry of an operation back, whose name is spent with that; how it was with it.
    #[inline]
    pub(super) fn leave(&mut self, operation: Operation) -> State {
        let entry = &mut self.entries[operation.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(operation.index);
        std::mem::replace(&mut entry.state, State::Free)
    }
}
