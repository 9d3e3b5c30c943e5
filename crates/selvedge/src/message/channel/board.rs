//! Which partitions are here: what threads that wait for one look at, beside the runtime.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Which partitions of a receive are here, for any thread.
pub struct Board {
    /// SYNC: the release store of [`Board::set`] pairs with the acquire load of [`Board::arrival`].
    partitions: Box<[AtomicU8]>,
}

/// What a [`Board`] says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is on its way, or has not left.
    Awaited,
    /// It is here: nothing writes to it before the next round.
    Here,
    /// The round is over without it.
    Lost,
}

impl Board {
    /// Of so many partitions, which are all in one state.
    pub fn new(partitions: usize, arrival: Arrival) -> Arc<Board> {
        let partitions = (0..partitions).map(|_| AtomicU8::new(arrival as u8)).collect();
        Arc::new(Board { partitions })
    }

    /// Number of partitions.
    pub fn count(&self) -> usize {
        self.partitions.len()
    }

    /// How it stands with a partition. Panics when there is no such one.
    pub fn arrival(&self, partition: usize) -> Arrival {
        const HERE: u8 = Arrival::Here as u8;
        const LOST: u8 = Arrival::Lost as u8;
        match self.partitions[partition].load(Ordering::Acquire) {
            HERE => Arrival::Here,
            LOST => Arrival::Lost,
            _ => Arrival::Awaited,
        }
    }

    pub(super) fn set(&self, partition: usize, arrival: Arrival) {
        self.partitions[partition].store(arrival as u8, Ordering::Release);
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.count()).map(|partition| self.arrival(partition))).finish()
    }
}
