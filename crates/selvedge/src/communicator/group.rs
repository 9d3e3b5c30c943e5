//! Groups as values, and their algebra (MPI 5.0 section 7.3). Nothing here communicates.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use selvedge_coll::Rank;
use selvedge_transport::Peer;

use crate::communicator::Communicator;
use crate::communicator::members::Members;
use crate::error::{Misuse, Result};

/// Some processes of a job in an order: what a communicator is made of, without the communicator (MPI_Group).
///
/// A plain value: it costs no communication, may cross threads, and nothing has to be freed. [`Communicator::create`] makes a
/// communicator of one.
///
/// ```
/// selvedge::local::run(5, |world| {
///     let all = world.group();
///     let even = all.include((0..all.size()).step_by(2)).unwrap();
///     let odd = all.difference(&even);
///     assert_eq!((even.size(), odd.size()), (3, 2));
///     assert_eq!(even.rank().is_some(), world.rank() % 2 == 0);
///     assert_eq!(even.translate(2, &all), Some(4));
/// });
/// ```
#[doc(alias = "MPI_Group")]
#[derive(Clone, Debug)]
pub struct Group {
    members: Arc<Members>,
    me: Peer,
}

/// How like each other two groups or two communicators are (MPI 5.0 sections 7.3.1 and 7.4.1).
///
/// ```
/// selvedge::local::run(2, |world| {
///     use selvedge::Comparison;
///     let (same, mirror) = (world.dup().unwrap(), world.group().include([1, 0]).unwrap());
///     assert_eq!(world.compare(&world), Comparison::Identical);
///     assert_eq!(world.compare(&same), Comparison::Congruent);
///     assert_eq!(world.group().compare(&mirror), Comparison::Similar);
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same: communicators whose messages meet; groups with the same members in the same order.
    Identical,
    /// Communicators of identical groups whose messages do not meet. Never of groups.
    Congruent,
    /// The same members in another order.
    Similar,
    /// Different members.
    Unequal,
}

impl Communicator {
    /// The group of this communicator (MPI_Comm_group). Local.
    #[doc(alias = "MPI_Comm_group")]
    pub fn group(&self) -> Group {
        Group { members: Arc::clone(&self.group), me: self.peer_of(self.rank()) }
    }

    /// How like each other two communicators are (MPI_Comm_compare). Local. Those that threads of a rank have made from one
    /// team are identical.
    ///
    /// ```
    /// use selvedge::Comparison;
    /// selvedge::local::run(2, |world| {
    ///     let dup = world.dup().unwrap();
    ///     assert_eq!(world.compare(&dup), Comparison::Congruent);
    ///     assert_eq!(world.compare(&world), Comparison::Identical);
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_compare")]
    pub fn compare(&self, other: &Communicator) -> Comparison {
        if Arc::ptr_eq(&self.core, &other.core) {
            return Comparison::Identical;
        }
        match self.group().compare(&other.group()) {
            Comparison::Identical => Comparison::Congruent,
            other => other,
        }
    }
}

impl Group {
    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Number of members (MPI_Group_size).
    #[doc(alias = "MPI_Group_size")]
    pub fn size(&self) -> usize {
        self.members.size()
    }

    /// Whether nobody is in it (MPI_GROUP_EMPTY).
    #[doc(alias = "MPI_GROUP_EMPTY")]
    pub fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// This process's place in it, if it has one (MPI_Group_rank).
    #[doc(alias = "MPI_Group_rank")]
    pub fn rank(&self) -> Option<usize> {
        self.members.rank(self.me).map(Rank::index)
    }

    /// The members of both, those of this one first (MPI_Group_union).
    ///
    /// ```
    /// selvedge::local::run(4, |world| {
    ///     let all = world.group();
    ///     let (low, even) = (all.include(0..2).unwrap(), all.exclude([1, 3]).unwrap());
    ///     assert_eq!((low.union(&even).size(), low.intersection(&even).size(), low.difference(&even).size()), (3, 1, 1));
    ///     assert_eq!(low.intersection(&even).rank(), (world.rank() == 0).then_some(0));
    /// });
    /// ```
    #[doc(alias = "MPI_Group_union")]
    pub fn union(&self, other: &Group) -> Group {
        let more = other.peers().filter(|&peer| !self.has(peer));
        self.of(self.peers().chain(more).collect())
    }

    /// The members of this one that are also in the other, in this one's order (MPI_Group_intersection).
    #[doc(alias = "MPI_Group_intersection")]
    pub fn intersection(&self, other: &Group) -> Group {
        self.of(self.peers().filter(|&peer| other.has(peer)).collect())
    }

    /// The members of this one that are not in the other, in this one's order (MPI_Group_difference).
    #[doc(alias = "MPI_Group_difference")]
    pub fn difference(&self, other: &Group) -> Group {
        self.of(self.peers().filter(|&peer| !other.has(peer)).collect())
    }

    /// The members with these ranks, in the order given (MPI_Group_incl). For MPI's ranges, give an iterator:
    /// `group.include((0..n).step_by(2))`.
    ///
    /// # Errors
    /// [`Misuse::RankOutOfRange`], [`Misuse::RankTwice`].
    #[doc(alias = "MPI_Group_incl")]
    pub fn include(&self, ranks: impl IntoIterator<Item = usize>) -> Result<Group> {
        Ok(self.of(self.named(ranks)?))
    }

    /// All members but those with these ranks (MPI_Group_excl).
    ///
    /// # Errors
    /// [`Misuse::RankOutOfRange`], [`Misuse::RankTwice`].
    #[doc(alias = "MPI_Group_excl")]
    pub fn exclude(&self, ranks: impl IntoIterator<Item = usize>) -> Result<Group> {
        let out: FxHashSet<Peer> = self.named(ranks)?.into_iter().collect();
        Ok(self.of(self.peers().filter(|peer| !out.contains(peer)).collect()))
    }

    /// The rank in `other` of the member with this rank here (MPI_Group_translate_ranks). `None` when it is not in it, or there
    /// is no such member.
    #[doc(alias = "MPI_Group_translate_ranks")]
    pub fn translate(&self, rank: usize, other: &Group) -> Option<usize> {
        let peer = (rank < self.size()).then(|| self.members.peer(Rank(rank as u32)))?;
        other.members.rank(peer).map(Rank::index)
    }

    /// How like each other two groups are (MPI_Group_compare): identical, similar or unequal.
    #[doc(alias = "MPI_Group_compare")]
    pub fn compare(&self, other: &Group) -> Comparison {
        if Arc::ptr_eq(&self.members, &other.members) || self.peers().eq(other.peers()) {
            Comparison::Identical
        } else if self.size() == other.size() && self.peers().all(|peer| other.has(peer)) {
            Comparison::Similar
        } else {
            Comparison::Unequal
        }
    }

    fn of(&self, peers: Vec<Peer>) -> Group {
        Group { members: Arc::new(Members::of(peers)), me: self.me }
    }

    fn has(&self, peer: Peer) -> bool {
        self.members.rank(peer).is_some()
    }

    fn peers(&self) -> impl Iterator<Item = Peer> {
        (0..self.size()).map(|rank| self.members.peer(Rank(rank as u32)))
    }

    fn named(&self, ranks: impl IntoIterator<Item = usize>) -> Result<Vec<Peer>> {
        let mut seen = FxHashSet::default();
        let named = ranks.into_iter().map(|rank| {
            if rank >= self.size() {
                return Err(Misuse::RankOutOfRange { what: "member", given: rank, size: self.size() }.into());
            }
            match seen.insert(rank) {
                true => Ok(self.members.peer(Rank(rank as u32))),
                false => Err(Misuse::RankTwice { rank }.into()),
            }
        });
        named.collect()
    }
}

impl PartialEq for Group {
    /// The same members in the same order.
    fn eq(&self, other: &Group) -> bool {
        self.compare(other) == Comparison::Identical
    }
}
