//! Two groups that talk to each other (MPI 5.0 sections 7.6 and 11.8): an intercommunicator.
//!
//! It is an ordinary communicator of both groups, of which each side sees the other by the other's own ranks. So there is one
//! way for messages, and a merge is there already.

mod collective;

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::communicator::group::Group;
use crate::datatype::Datatype;
use crate::datatype::view::{Buffer, BufferMut};
use crate::error::{Misuse, Refused, Result};
use crate::message::{Source, Status, Tag};

/// A connection between two groups of ranks: sources and destinations are ranks of the *other* group.
///
/// [`Communicator::spawn`] gives one to those who spawned, [`World::parent`](crate::World::parent) to those who were spawned,
/// and [`Communicator::intercommunicator`] one to two groups of a communicator. What it has no call for (nonblocking and persistent
/// messages, matched probes, threads) is done on the communicator of both groups that [`merge`](Intercommunicator::merge) gives.
///
/// ```
/// selvedge::local::run(3, |world| {
///     let is_first = world.rank() == 0;
///     let group = world.split(Some(u32::from(is_first)), 0).unwrap().unwrap();
///     let there = group.intercommunicator(0, &world, usize::from(is_first), 0).unwrap();
///     let mut word = [7];
///     if is_first {
///         there.broadcast_to(&word, 0).unwrap();
///     } else {
///         word = [0];
///         there.broadcast_from(&mut word, 0).unwrap();
///     }
///     assert_eq!(word, [7]);
///     assert_eq!(there.merge(is_first).unwrap().size(), 3);
/// });
/// ```
pub struct Intercommunicator {
    /// Both groups, one after the other.
    both: Communicator,
    /// The same, for the messages of its collectives.
    inner: Communicator,
    /// The own group.
    local: Communicator,
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
    /// Of a communicator whose first ranks, so many, are one of the groups. Collective.
    pub(crate) fn new(both: Communicator, first: usize) -> Result<Intercommunicator> {
        assert!((1..both.size()).contains(&first), "both groups have ranks");
        let inner = both.dup()?;
        let is_first = both.rank() < first;
        let local = both.split(Some(u32::from(!is_first)), 0)?.expect("every rank has a colour");
        Ok(Intercommunicator { both, inner, local, first })
    }

    /// The own group as a communicator of its own (MPI_Comm_group, for whoever wants to talk in it).
    #[doc(alias = "MPI_Comm_group")]
    pub fn local(&self) -> &Communicator {
        &self.local
    }

    fn is_first(&self) -> bool {
        self.both.rank() < self.first
    }

    /// What to add to a rank of the other group.
    fn offset(&self) -> usize {
        if self.is_first() { self.first } else { 0 }
    }

    /// This process's rank in its own group (MPI_Comm_rank).
    #[doc(alias = "MPI_Comm_rank")]
    pub fn rank(&self) -> usize {
        self.local.rank()
    }

    /// Ranks of the own group (MPI_Comm_size).
    #[doc(alias = "MPI_Comm_size")]
    pub fn size(&self) -> usize {
        self.local.size()
    }

    /// Ranks of the other group (MPI_Comm_remote_size).
    #[doc(alias = "MPI_Comm_remote_size")]
    pub fn remote_size(&self) -> usize {
        self.both.size() - self.size()
    }

    /// The other group, in the order in which its ranks are named here (MPI_Comm_remote_group). Local. To be compared with, and
    /// translated to, groups of [`merge`](Intercommunicator::merge)d communicators and of what is made from them.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let half = world.split(Some(u32::from(world.rank() == 0)), 0).unwrap().unwrap();
    ///     let there = half.intercommunicator(0, &world, usize::from(world.rank() == 0), 0).unwrap();
    ///     let (ours, theirs) = (there.local().group(), there.remote_group());
    ///     assert_eq!((theirs.size(), theirs.rank()), (there.remote_size(), None)); // this rank is not in it
    ///     assert_eq!(ours.union(&theirs).size(), 3);
    ///     assert_eq!(theirs.translate(0, &world.group()), Some(usize::from(world.rank() == 0)));
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_remote_group")]
    pub fn remote_group(&self) -> Group {
        let theirs = self.offset()..self.offset() + self.remote_size();
        self.both.group().include(theirs).expect("both groups are in the communicator of both")
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

    fn destination(&self, dest: Option<usize>) -> Result<Option<usize>> {
        dest.map(|rank| self.there("destination", rank)).transpose()
    }

    fn source(&self, source: Source) -> Result<Source> {
        source.map_rank(|rank| self.there("source", rank))
    }

    fn status(&self, status: Status) -> Status {
        if status.is_null() { status } else { Status { source: status.source - self.offset(), ..status } }
    }

    /// Sends to a rank of the other group; else as [`Communicator::send`].
    ///
    /// ```
    /// use selvedge::{ANY_SOURCE, Layout};
    ///
    /// selvedge::local::run(3, |world| {
    ///     let is_server = world.rank() == 0;
    ///     let group = world.split(Some(u32::from(is_server)), 0).unwrap().unwrap();
    ///     let there = group.intercommunicator(0, &world, usize::from(is_server), 0).unwrap();
    ///     if is_server {
    ///         let mut table = [0; 4];
    ///         for column in 0..2 {
    ///             let mut column = Layout::subarray(&[2, 2], &[2, 1], &[0, column]).unwrap().of_mut(&mut table).unwrap();
    ///             there.recv(&mut column, ANY_SOURCE, 0).unwrap();
    ///         }
    ///         assert_eq!(table, [7; 4]);
    ///     } else {
    ///         there.send(&[7, 7], 0, 0).unwrap();
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::send`].
    pub fn send<B: Buffer + ?Sized>(
        &self,
        message: &B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        self.both.send(message, self.destination(dest.into())?, tag)
    }

    /// Receives from the other group; else as [`Communicator::recv`].
    ///
    /// # Errors
    /// As [`Communicator::recv`].
    pub fn recv<B: BufferMut + ?Sized>(
        &self,
        message: &mut B,
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
    pub fn send_value<V: Serialize + ?Sized>(
        &self,
        value: &V,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        self.both.send_value(value, self.destination(dest.into())?, tag)
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

    /// Waits until a message of the other group is here, and says which (MPI_Probe).
    ///
    /// # Errors
    /// As [`Communicator::probe`].
    #[doc(alias = "MPI_Probe")]
    pub fn probe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Status> {
        let seen = self.both.probe(self.source(source.into())?, tag)?;
        Ok(self.status(seen))
    }

    /// Whether a message of the other group is here, and which; does not wait (MPI_Iprobe).
    ///
    /// # Errors
    /// As [`Communicator::iprobe`].
    #[doc(alias = "MPI_Iprobe")]
    pub fn iprobe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Option<Status>> {
        let seen = self.both.iprobe(self.source(source.into())?, tag)?;
        Ok(seen.map(|status| self.status(status)))
    }

    /// One communicator of both groups (MPI_Intercomm_merge): first the ranks of the group that says `high: false`, then the
    /// others; where both say the same, those who spawned come first, or those whose leader has the lower rank. All ranks of a group say the same. Collective over both.
    ///
    /// # Errors
    /// As [`Communicator::split`].
    #[doc(alias = "MPI_Intercomm_merge")]
    pub fn merge(&self, high: bool) -> Result<Communicator> {
        Ok(self.inner.split(Some(0), i64::from(high))?.expect("every rank has a colour"))
    }
}

impl Communicator {
    /// Connects this group to another one (MPI_Intercomm_create). `all`: a communicator that has all ranks of both groups, which
    /// have none in common. `leader`: a rank of this group, `other_leader`: that of the other group's leader in `all`. Collective
    /// over both groups; all ranks of a group say the same, and both the same tag, under which the leaders talk on `all`.
    ///
    /// ```
    /// selvedge::local::run(5, |world| {
    ///     let is_low = world.rank() < 2;
    ///     let half = world.split(Some(u32::from(is_low)), 0).unwrap().unwrap();
    ///     let there = half.intercommunicator(0, &world, if is_low { 2 } else { 0 }, 7).unwrap();
    ///     assert_eq!((there.size(), there.remote_size()), if is_low { (2, 3) } else { (3, 2) });
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::RankOutOfRange`] for a leader that there is not, [`Misuse::NotAMember`] when `all` has not all of this group,
    /// [`Misuse::RankTwice`] when the groups have a rank in common.
    #[doc(alias = "MPI_Intercomm_create")]
    pub fn intercommunicator(
        &self,
        leader: usize,
        all: &Communicator,
        other_leader: usize,
        tag: i32,
    ) -> Result<Intercommunicator> {
        self.checked_peer("leader", leader)?;
        all.checked_peer("other leader", other_leader)?;
        let (group, everybody) = (self.group(), all.group());
        let mine: Option<Vec<usize>> =
            (0..self.size()).map(|rank| group.translate(rank, &everybody)).collect();
        let mine = mine.ok_or(Misuse::NotAMember).refused_by(self)?;
        if mine.contains(&other_leader) {
            return Err(self.refuse(Misuse::RankTwice { rank: other_leader }));
        }
        let theirs = match self.rank() == leader {
            true => {
                let theirs = all.swap_values(&mine, other_leader, tag);
                self.broadcast_value(Some(theirs.as_ref().ok().cloned()), leader)?;
                theirs?
            }
            false => {
                let theirs: Option<Vec<usize>> = self.broadcast_value(None, leader)?;
                theirs.ok_or(Misuse::NothingGiven { source_rank: leader }).refused_by(self)?
            }
        };
        if let Some(&rank) = theirs.iter().find(|rank| mine.contains(rank)) {
            return Err(self.refuse(Misuse::RankTwice { rank }));
        }
        let (first, second) = if mine[leader] < other_leader { (mine, theirs) } else { (theirs, mine) };
        let both = everybody.include(first.iter().chain(&second).copied())?;
        Intercommunicator::new(all.create_group(&both, tag)?, first.len())
    }

    /// Sends a list and receives one, whatever their lengths.
    fn swap_values(&self, mine: &Vec<usize>, other: usize, tag: i32) -> Result<Vec<usize>> {
        self.scope(|scope| {
            let sent = scope.isend_value(mine, other, tag)?;
            let theirs = self.recv_value(other, tag)?.0;
            sent.wait()?;
            Ok(theirs)
        })
    }
}
