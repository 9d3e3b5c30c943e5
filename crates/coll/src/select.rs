//! Which algorithm to take.

use selvedge_transport::Machine;

use crate::{Algorithm, Collective, FLAT, Shape};

/// The algorithm that should be fastest for `shape` on `machine`. Same arguments, same answer, on every rank.
pub fn select(shape: &Shape, machine: &Machine) -> Algorithm {
    let crowded = machine.ranks_per_host.min(shape.ranks) > machine.cores_per_host;
    let large = shape.bytes() >= 64 << 10;
    match shape.collective {
        Collective::Barrier if crowded => Algorithm::BarrierTree { radix: FLAT },
        Collective::Barrier => Algorithm::BarrierDissemination,
        Collective::Broadcast { .. } if large => Algorithm::BroadcastScatterRing,
        Collective::Broadcast { .. } if crowded => Algorithm::BroadcastTree { radix: FLAT },
        Collective::Broadcast { .. } => Algorithm::BroadcastTree { radix: 2 },
        Collective::Reduce { .. } if large => Algorithm::ReduceRabenseifner,
        Collective::Reduce { .. } if crowded => Algorithm::ReduceTree { radix: FLAT },
        Collective::Reduce { .. } => Algorithm::ReduceTree { radix: 2 },
        Collective::Allreduce if large => Algorithm::AllreduceRabenseifner,
        Collective::Allreduce if crowded => Algorithm::AllreduceTree { radix: FLAT },
        Collective::Allreduce => Algorithm::AllreduceDoubling,
        Collective::Allgather if large => Algorithm::AllgatherRing,
        Collective::Allgather => Algorithm::AllgatherBruck,
        Collective::Alltoall => Algorithm::AlltoallScattered { window: FLAT },
    }
}
