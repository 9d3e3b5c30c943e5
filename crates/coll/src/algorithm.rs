//! The ways to do a collective, by name.

use std::fmt;
use std::str::FromStr;

use crate::choice::{Unfit, advice};
use crate::{Collective, Rank, Shape};

/// A way to do one collective. Prints as `collective/way`, with a parameter behind a colon where there is one:
/// `allreduce/ring`, `broadcast/binomial`, `broadcast/knomial:4`, `broadcast/chain:65536`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Everybody signals at distance 1, 2, 4, ... (Hensgen, Finkel, Manber 1988). ceil(log2 n) rounds, n messages each.
    BarrierDissemination,
    /// Signals up a k-nomial tree and down again. 2(n-1) messages, the fewest possible; each leaf waits once.
    BarrierTree {
        /// Children per level plus one; at least 2, [`FLAT`] for one level.
        radix: u32,
    },
    /// Down a k-nomial tree.
    BroadcastTree {
        /// As in [`Algorithm::BarrierTree`].
        radix: u32,
    },
    /// Rank to rank in a line, in segments, so that all links are busy at the same time.
    BroadcastChain {
        /// Bytes per segment; at least 1.
        segment_bytes: u32,
    },
    /// Scatter down a binomial tree, then allgather around a ring (van de Geijn).
    BroadcastScatterRing,
    /// Scatter down a binomial tree, then allgather by recursive doubling. Powers of two only.
    BroadcastScatterDoubling,
    /// Up a k-nomial tree.
    ReduceTree {
        /// As in [`Algorithm::BarrierTree`].
        radix: u32,
    },
    /// Reduce-scatter by recursive halving, then gather to the root (Rabenseifner).
    ReduceRabenseifner,
    /// Recursive doubling; the ranks beyond a power of two are folded into their neighbours.
    AllreduceDoubling,
    /// Reduce-scatter by recursive halving, then allgather by recursive doubling (Rabenseifner).
    AllreduceRabenseifner,
    /// Reduce-scatter and allgather around a ring. Commutative operations only.
    AllreduceRing,
    /// Reduce up a k-nomial tree, broadcast down the same tree. 2(n-1) messages; each leaf waits once.
    AllreduceTree {
        /// As in [`Algorithm::BarrierTree`].
        radix: u32,
    },
    /// Everybody sends to everybody and reduces alone. One round, n(n-1) messages.
    AllreduceDirect,
    /// Around a ring, n-1 rounds.
    AllgatherRing,
    /// Bruck's concatenation (1997): ceil(log2 n) rounds for any number of ranks. No scratch, no final rotation.
    AllgatherBruck,
    /// Recursive doubling. Powers of two only.
    AllgatherDoubling,
    /// Gathers up a k-nomial tree, broadcasts down the same tree.
    AllgatherTree {
        /// As in [`Algorithm::BarrierTree`].
        radix: u32,
    },
    /// Everybody sends to everybody. One round.
    AllgatherDirect,
    /// Bruck's index algorithm (1997): ceil(log2 n) rounds, each block travels up to that many times.
    AlltoallBruck,
    /// n-1 rounds, one partner per round.
    AlltoallPairwise,
    /// Everybody sends to everybody, at most `window` sends and `window` receives at a time.
    AlltoallScattered {
        /// Messages in flight each way; at least 1, [`FLAT`] for no limit.
        window: u32,
    },
}

/// As a radix: a tree of one level. As a window: no limit.
pub const FLAT: u32 = u32::MAX;

use Algorithm::*;

const BARRIER: &[Algorithm] = &[
    BarrierDissemination,
    BarrierTree { radix: 2 },
    BarrierTree { radix: 4 },
    BarrierTree { radix: 8 },
    BarrierTree { radix: FLAT },
];
const BROADCAST: &[Algorithm] = &[
    BroadcastTree { radix: 2 },
    BroadcastTree { radix: 4 },
    BroadcastTree { radix: 8 },
    BroadcastTree { radix: FLAT },
    BroadcastScatterDoubling,
    BroadcastScatterRing,
    BroadcastChain { segment_bytes: 16 << 10 },
    BroadcastChain { segment_bytes: 128 << 10 },
];
const REDUCE: &[Algorithm] = &[
    ReduceTree { radix: 2 },
    ReduceTree { radix: 4 },
    ReduceTree { radix: 8 },
    ReduceTree { radix: FLAT },
    ReduceRabenseifner,
];
const ALLREDUCE: &[Algorithm] = &[
    AllreduceDoubling,
    AllreduceDirect,
    AllreduceTree { radix: 2 },
    AllreduceTree { radix: 4 },
    AllreduceTree { radix: 8 },
    AllreduceTree { radix: FLAT },
    AllreduceRabenseifner,
    AllreduceRing,
];
const ALLGATHER: &[Algorithm] = &[
    AllgatherDoubling,
    AllgatherBruck,
    AllgatherDirect,
    AllgatherTree { radix: 2 },
    AllgatherTree { radix: FLAT },
    AllgatherRing,
];
const ALLTOALL: &[Algorithm] =
    &[AlltoallScattered { window: FLAT }, AlltoallScattered { window: 32 }, AlltoallPairwise, AlltoallBruck];

impl Algorithm {
    /// The algorithms that are chosen from for `collective`, of whatever root. Other parameters than those listed work
    /// too. Where two cost the same, the earlier one is chosen.
    pub fn all_for(collective: Collective) -> &'static [Algorithm] {
        match collective {
            Collective::Barrier => BARRIER,
            Collective::Broadcast { .. } => BROADCAST,
            Collective::Reduce { .. } => REDUCE,
            Collective::Allreduce => ALLREDUCE,
            Collective::Allgather => ALLGATHER,
            Collective::Alltoall => ALLTOALL,
        }
    }

    /// All that are chosen from, collective by collective.
    pub fn known() -> impl Iterator<Item = Algorithm> {
        Collective::all(Rank(0)).into_iter().flat_map(Algorithm::all_for).copied()
    }

    /// Whether it can do what is asked.
    pub fn applies(self, shape: &Shape) -> bool {
        self.fits(shape).is_ok()
    }

    /// Whether it can do what is asked, and if not, why: the same collective, a number of ranks it knows, an order of operands
    /// it keeps, and parameters in range.
    pub fn fits(self, shape: &Shape) -> Result<(), Unfit> {
        let same = match self {
            BarrierDissemination | BarrierTree { .. } => shape.collective == Collective::Barrier,
            BroadcastTree { .. }
            | BroadcastChain { .. }
            | BroadcastScatterRing
            | BroadcastScatterDoubling => {
                matches!(shape.collective, Collective::Broadcast { .. })
            }
            ReduceTree { .. } | ReduceRabenseifner => matches!(shape.collective, Collective::Reduce { .. }),
            AllreduceDoubling
            | AllreduceRabenseifner
            | AllreduceRing
            | AllreduceTree { .. }
            | AllreduceDirect => shape.collective == Collective::Allreduce,
            AllgatherRing | AllgatherBruck | AllgatherDoubling | AllgatherTree { .. } | AllgatherDirect => {
                shape.collective == Collective::Allgather
            }
            AlltoallBruck | AlltoallPairwise | AlltoallScattered { .. } => {
                shape.collective == Collective::Alltoall
            }
        };
        if !same {
            return Err(Unfit::Collective);
        }
        match self {
            BarrierTree { radix }
            | BroadcastTree { radix }
            | ReduceTree { radix }
            | AllreduceTree { radix }
            | AllgatherTree { radix }
                if radix < 2 =>
            {
                Err(Unfit::Parameter)
            }
            BroadcastChain { segment_bytes: 0 } | AlltoallScattered { window: 0 } => Err(Unfit::Parameter),
            BroadcastScatterDoubling | AllgatherDoubling if !shape.ranks.is_power_of_two() => {
                Err(Unfit::Ranks)
            }
            AllreduceRing if !shape.commutative => Err(Unfit::Order),
            _ => Ok(()),
        }
    }
}

/// Names without parameters. Those with one are in `Display` and `FromStr`.
const NAMES: &[(&str, Algorithm)] = &[
    ("barrier/dissemination", BarrierDissemination),
    ("broadcast/scatter-ring", BroadcastScatterRing),
    ("broadcast/scatter-doubling", BroadcastScatterDoubling),
    ("reduce/rabenseifner", ReduceRabenseifner),
    ("allreduce/doubling", AllreduceDoubling),
    ("allreduce/rabenseifner", AllreduceRabenseifner),
    ("allreduce/ring", AllreduceRing),
    ("allreduce/direct", AllreduceDirect),
    ("allgather/ring", AllgatherRing),
    ("allgather/bruck", AllgatherBruck),
    ("allgather/doubling", AllgatherDoubling),
    ("allgather/direct", AllgatherDirect),
    ("alltoall/bruck", AlltoallBruck),
    ("alltoall/pairwise", AlltoallPairwise),
];

/// An algorithm for each radix.
type TreeFamily = fn(u32) -> Algorithm;

/// Families of trees by the word before the slash.
const TREES: &[(&str, TreeFamily)] = &[
    ("barrier", |radix| BarrierTree { radix }),
    ("broadcast", |radix| BroadcastTree { radix }),
    ("reduce", |radix| ReduceTree { radix }),
    ("allreduce", |radix| AllreduceTree { radix }),
    ("allgather", |radix| AllgatherTree { radix }),
];

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, algorithm)| algorithm == self) {
            return f.pad(name);
        }
        let (family, radix) = match *self {
            BarrierTree { radix } => ("barrier", radix),
            BroadcastTree { radix } => ("broadcast", radix),
            ReduceTree { radix } => ("reduce", radix),
            AllreduceTree { radix } => ("allreduce", radix),
            AllgatherTree { radix } => ("allgather", radix),
            BroadcastChain { segment_bytes } => return f.pad(&format!("broadcast/chain:{segment_bytes}")),
            AlltoallScattered { window: FLAT } => return f.pad("alltoall/linear"),
            AlltoallScattered { window } => return f.pad(&format!("alltoall/scattered:{window}")),
            _ => unreachable!("{self:?} has neither a name nor a parameter"),
        };
        f.pad(&match radix {
            2 => format!("{family}/binomial"),
            FLAT => format!("{family}/flat"),
            _ => format!("{family}/knomial:{radix}"),
        })
    }
}

/// No algorithm has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no algorithm is called {name:?}; {}", advice(name))]
pub struct UnknownAlgorithm {
    name: String,
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Algorithm, UnknownAlgorithm> {
        if let Some((_, algorithm)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*algorithm);
        }
        with_parameter(text).ok_or_else(|| UnknownAlgorithm { name: text.to_owned() })
    }
}

fn with_parameter(text: &str) -> Option<Algorithm> {
    let (family, way) = text.split_once('/')?;
    let (way, parameter) = match way.split_once(':') {
        Some((way, digits)) => (way, Some(digits.parse::<u32>().ok()?)),
        None => (way, None),
    };
    let tree = |radix| TREES.iter().find(|(name, _)| *name == family).map(|(_, tree)| tree(radix));
    match (family, way, parameter) {
        ("broadcast", "chain", Some(segment_bytes)) if segment_bytes >= 1 => {
            Some(BroadcastChain { segment_bytes })
        }
        ("alltoall", "linear", None) => Some(AlltoallScattered { window: FLAT }),
        ("alltoall", "scattered", Some(window)) if window >= 1 => Some(AlltoallScattered { window }),
        (_, "binomial", None) => tree(2),
        (_, "flat", None) => tree(FLAT),
        (_, "knomial", Some(radix)) if radix >= 2 => tree(radix),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_as_the_algorithm_that_printed_it() {
        for collective in Collective::all(Rank(0)) {
            for &algorithm in Algorithm::all_for(collective) {
                let shape = Shape { collective, ranks: 4, count: 1, element_bytes: 1, commutative: true };
                assert!(algorithm.applies(&shape), "{algorithm} is listed for another collective");
                assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
            }
        }
    }

    #[test]
    fn nonsense_is_no_algorithm() {
        for text in ["", "/", "allreduce", "allreduce/", "allreduce/knomial:1", "alltoall/binomial", "x/y:z"]
        {
            assert!(text.parse::<Algorithm>().is_err(), "{text:?} was accepted");
        }
    }
}
