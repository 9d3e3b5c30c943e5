//! Two groups that talk to each other (MPI 5.0 sections 7.6 and 11.8): an intercommunicator.
//!
//! It is an ordinary communicator of both groups, of which each side sees the other by the other's own ranks. So there is one
//! way for messages, and a merge is there already.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::error::{Misuse, Result};
use crate::message::{Source, Status, Tag};

/// A connection between two groups of ranks: sources and destinations are ranks of the *other* group.
///
/// [`Communicator::spawn`] gives one to those who spawned, [`World::parent`](crate::World::parent) to those who were spawned.
pub struct Intercommunicator {
    /// Both groups, the parents' first.
    both: Communicator,
    /// Ranks of the first group.
    first: usize,
}

impl fmt::Debug for Intercommunicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Intercommunicator(rank {} of {}, and {} others)",
            self.rank(),
            self.size(),
            self.remote_size()
        )
    }
}

impl Intercommunicator {
    pub(crate) fn new(both: Communicator, first: usize) -> Intercommunicator {
        assert!((1..both.size()).contains(&first), "both groups have ranks");
        Intercommunicator { both, first }
    }

    fn is_first(&self) -> bool {
        self.both.rank() < self.first
    }

    /// What to add to a rank of the other group.
    fn offset(&self) -> usize {
        if self.is_first() { self.first } else { 0 }
    }

    /// This process's rank in its own group (MPI_Comm_rank).
    pub fn rank(&self) -> usize {
        if self.is_first() { self.both.rank() } else { self.both.rank() - self.first }
    }

    /// Ranks of the own group (MPI_Comm_size).
    pub fn size(&self) -> usize {
        if self.is_first() { self.first } else { self.both.size() - self.first }
    }

    /// Ranks of the other group (MPI_Comm_remote_size).
    pub fn remote_size(&self) -> usize {
        self.both.size() - self.size()
    }

    fn there(&self, what: &'static str, rank: usize) -> Result<usize> {
        match rank < self.remote_size() {
            true => Ok(rank + self.offset()),
            false => {
                let size = self.remote_size();
                Err(self.both.refuse(Misuse::RankOutOfRange { what, given: rank, size }))
            }
        }
    }

    fn source(&self, source: Source) -> Result<Source> {
        source.map_rank(|rank| self.there("source", rank))
    }

    fn status(&self, status: Status) -> Status {
        if status.is_null() { status } else { Status { source: status.source - self.offset(), ..status } }
    }

    /// Sends to a rank of the other group; else as [`Communicator::send`].
    ///
    /// # Errors
    /// As [`Communicator::send`].
    pub fn send<T: Datatype>(&self, message: &[T], dest: usize, tag: i32) -> Result<()> {
        self.both.send(message, self.there("destination", dest)?, tag)
    }

    /// Receives from the other group; else as [`Communicator::recv`].
    ///
    /// # Errors
    /// As [`Communicator::recv`].
    pub fn recv<T: Datatype>(
        &self,
        message: &mut [T],
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Status> {
        self.both.recv(message, self.source(source.into())?, tag).map(|status| self.status(status))
    }

    /// Receives from the other group what is as long as it is; else as [`Communicator::recv_vec`].
    ///
    /// # Errors
    /// As [`Communicator::recv_vec`].
    pub fn recv_vec<T: Datatype>(
        &self,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(Vec<T>, Status)> {
        let (message, status) = self.both.recv_vec(self.source(source.into())?, tag)?;
        Ok((message, self.status(status)))
    }

    /// Sends any serde value to a rank of the other group; else as [`Communicator::send_value`].
    ///
    /// # Errors
    /// As [`Communicator::send_value`].
    pub fn send_value<V: Serialize + ?Sized>(&self, value: &V, dest: usize, tag: i32) -> Result<()> {
        self.both.send_value(value, self.there("destination", dest)?, tag)
    }

    /// Receives a value from the other group; else as [`Communicator::recv_value`].
    ///
    /// # Errors
    /// As [`Communicator::recv_value`].
    pub fn recv_value<V: DeserializeOwned>(
        &self,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(V, Status)> {
        let (value, status) = self.both.recv_value(self.source(source.into())?, tag)?;
        Ok((value, self.status(status)))
    }

    /// Whether a message of the other group is here, and which; does not wait (MPI_Iprobe).
    ///
    /// # Errors
    /// As [`Communicator::iprobe`].
    pub fn iprobe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Option<Status>> {
        let seen = self.both.iprobe(self.source(source.into())?, tag)?;
        Ok(seen.map(|status| self.status(status)))
    }

    /// Returns after every rank of both groups has called it (MPI_Barrier on an intercommunicator).
    ///
    /// # Errors
    /// As [`Communicator::barrier`].
    pub fn barrier(&self) -> Result<()> {
        self.both.barrier()
    }

    /// One communicator of both groups (MPI_Intercomm_merge): first the ranks of the group that says `high: false`, then the
    /// others; where both say the same, those who spawned come first. All ranks of a group say the same. Collective over both.
    ///
    /// # Errors
    /// As [`Communicator::split`].
    pub fn merge(&self, high: bool) -> Result<Communicator> {
        Ok(self.both.split(Some(0), i64::from(high))?.expect("every rank has a colour"))
    }
}
