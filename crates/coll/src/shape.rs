//! What is asked of a collective, as a value.

use std::fmt;

/// A place in a communicator, `0..ranks`. Not a peer: that is an index at the transport.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

impl Rank {
    /// The index, for use with slices.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.0)
    }
}

/// Which collective (MPI 5.0 chapter 6), with the rank it is rooted at if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Nobody leaves before everybody has entered. No bytes: `count` is 0.
    Barrier,
    /// The root's `count` elements to everybody. In place: `Output` is the message on every rank, `Input` is not used.
    Broadcast {
        /// Whose elements.
        root: Rank,
    },
    /// Element-wise reduction of everybody's `Input` (`count` elements) into the root's `Output`. `Output` of the other
    /// ranks does not exist.
    Reduce {
        /// Who gets the result.
        root: Rank,
    },
    /// Element-wise reduction of everybody's `Input` (`count` elements) into everybody's `Output`.
    Allreduce,
    /// Everybody's `Input` (`count` elements) to everybody's `Output` (`ranks * count` elements), in order of ranks.
    Allgather,
    /// Block `i` of `Input` (`count` elements) to rank `i`; block `j` of `Output` from rank `j`. Both buffers have
    /// `ranks * count` elements.
    Alltoall,
}

/// What is asked: the whole input of a generator besides the rank. Equal on all ranks, or the program is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Which collective.
    pub collective: Collective,
    /// Ranks in the communicator; at least 1.
    pub ranks: u32,
    /// Elements each rank contributes (to each destination, for alltoall).
    pub count: u64,
    /// Bytes in an element; at least 1. Reductions never cut one.
    pub element_bytes: u32,
    /// Whether the reduction may change the order of its operands (MPI 5.0 section 6.9.5). `true` where nothing is
    /// reduced.
    pub commutative: bool,
}

impl Collective {
    /// Each of them, at `root` those that have one: for whoever tries them all, so that a new one is not forgotten.
    pub const fn all(root: Rank) -> [Collective; 6] {
        [
            Collective::Barrier,
            Collective::Broadcast { root },
            Collective::Reduce { root },
            Collective::Allreduce,
            Collective::Allgather,
            Collective::Alltoall,
        ]
    }

    /// As the call is named in MPI and the names of its algorithms begin.
    pub const fn name(self) -> &'static str {
        match self {
            Collective::Barrier => "barrier",
            Collective::Broadcast { .. } => "broadcast",
            Collective::Reduce { .. } => "reduce",
            Collective::Allreduce => "allreduce",
            Collective::Allgather => "allgather",
            Collective::Alltoall => "alltoall",
        }
    }
}

impl Shape {
    /// `count * element_bytes`: bytes each rank contributes (to each destination, for alltoall).
    pub fn bytes(&self) -> u64 {
        self.count * u64::from(self.element_bytes)
    }

    /// Bytes of `Input` of `rank`.
    pub fn input_bytes(&self, _rank: Rank) -> u64 {
        match self.collective {
            Collective::Barrier | Collective::Broadcast { .. } => 0,
            Collective::Reduce { .. } | Collective::Allreduce | Collective::Allgather => self.bytes(),
            Collective::Alltoall => self.bytes() * u64::from(self.ranks),
        }
    }

    /// Bytes of `Output` of `rank`; 0 where there is none.
    pub fn output_bytes(&self, rank: Rank) -> u64 {
        match self.collective {
            Collective::Barrier => 0,
            Collective::Reduce { root } if rank != root => 0,
            Collective::Broadcast { .. } | Collective::Reduce { .. } | Collective::Allreduce => self.bytes(),
            Collective::Allgather | Collective::Alltoall => self.bytes() * u64::from(self.ranks),
        }
    }

    /// Whether something is reduced.
    pub fn reduces(&self) -> bool {
        matches!(self.collective, Collective::Reduce { .. } | Collective::Allreduce)
    }

    /// The root, where there is one.
    pub fn root(&self) -> Option<Rank> {
        match self.collective {
            Collective::Broadcast { root } | Collective::Reduce { root } => Some(root),
            _ => None,
        }
    }

    /// Whether it can be asked at all: at least one rank, elements of at least one byte, a root that exists, no
    /// elements in a barrier, and buffers (and a few of them as scratch) that fit 64 bits.
    pub fn is_valid(&self) -> bool {
        let total = self.count.checked_mul(u64::from(self.element_bytes)).and_then(|bytes| {
            // Bruck's alltoall takes the most scratch: two half messages for each of at most 32 rounds.
            bytes.checked_mul(u64::from(self.ranks))?.checked_mul(64)
        });
        self.ranks >= 1
            && self.element_bytes >= 1
            && total.is_some()
            && self.root().is_none_or(|root| root.0 < self.ranks)
            && (self.count == 0 || self.collective != Collective::Barrier)
    }
}
