//! From (algorithm, shape, rank) to a schedule.

use crate::builder::{Builder, input, output};
use crate::{Algorithm, Collective, Rank, Schedule, Shape, bruck, butterfly, pairwise, ring, scatter, tree};

/// What `rank` does when `shape` is done by `algorithm`. A pure function; all ranks must ask for the same.
///
/// Cost: time and memory proportional to the number of steps, about 0.1 us each; keep the schedule where the same
/// shape is asked again. Nothing to move (one rank alone apart from its own copy, or a count of 0 in anything but a
/// barrier) gives a schedule without messages.
///
/// # Panics
/// When the shape is not [valid](Shape::is_valid), the algorithm does not [apply](Algorithm::applies) to it, or `rank`
/// is not in `0..shape.ranks`.
///
/// ```
/// use selvedge_coll::{Algorithm, Collective, Rank, Shape, generate};
/// let shape = Shape { collective: Collective::Allreduce, ranks: 2, count: 1, element_bytes: 8, commutative: true };
/// let schedule = generate(Algorithm::AllreduceDoubling, &shape, Rank(0));
/// assert_eq!(schedule.len(), 3); // send, receive, reduce: nothing is copied
/// assert_eq!(schedule.scratch_bytes(), 0);
/// ```
pub fn generate(algorithm: Algorithm, shape: &Shape, rank: Rank) -> Schedule {
    let root = shape.root().unwrap_or(Rank(0));
    assert!(shape.is_valid(), "nobody can ask for {shape:?}");
    assert!(algorithm.applies(shape), "{algorithm} is not for {shape:?}");
    assert!(rank.0 < shape.ranks, "{rank:?} of {} ranks", shape.ranks);
    if shape.ranks == 1 {
        return alone(shape);
    }
    if shape.count == 0 && shape.collective != Collective::Barrier {
        return Schedule::default();
    }
    match algorithm {
        Algorithm::BarrierDissemination => bruck::barrier_dissemination(shape, rank),
        Algorithm::BarrierTree { radix } => tree::barrier(shape, rank, radix),
        Algorithm::BroadcastTree { radix } => tree::broadcast(shape, rank, root, radix),
        Algorithm::BroadcastChain { segment_bytes } => {
            ring::broadcast_chain(shape, rank, root, segment_bytes)
        }
        Algorithm::BroadcastScatterRing => scatter::broadcast_ring(shape, rank, root),
        Algorithm::BroadcastScatterDoubling => scatter::broadcast_doubling(shape, rank, root),
        Algorithm::ReduceTree { radix } => tree::reduce(shape, rank, root, radix),
        Algorithm::ReduceRabenseifner => butterfly::reduce_rabenseifner(shape, rank, root),
        Algorithm::AllreduceDoubling => butterfly::allreduce_doubling(shape, rank),
        Algorithm::AllreduceRabenseifner => butterfly::allreduce_rabenseifner(shape, rank),
        Algorithm::AllreduceRing => ring::allreduce(shape, rank),
        Algorithm::AllreduceTree { radix } => tree::allreduce(shape, rank, radix),
        Algorithm::AllreduceDirect => pairwise::allreduce(shape, rank),
        Algorithm::AllgatherRing => ring::allgather(shape, rank),
        Algorithm::AllgatherBruck => bruck::allgather(shape, rank),
        Algorithm::AllgatherDoubling => butterfly::allgather_doubling(shape, rank),
        Algorithm::AllgatherTree { radix } => tree::allgather(shape, rank, radix),
        Algorithm::AllgatherDirect => pairwise::allgather(shape, rank),
        Algorithm::AlltoallBruck => bruck::alltoall(shape, rank),
        Algorithm::AlltoallPairwise => pairwise::alltoall_pairwise(shape, rank),
        Algorithm::AlltoallScattered { window } => pairwise::alltoall_scattered(shape, rank, window),
    }
}

/// The schedules of all ranks, as [`crate::verify`] and [`crate::price`] want them.
pub fn generate_all(algorithm: Algorithm, shape: &Shape) -> Vec<Schedule> {
    (0..shape.ranks).map(|rank| generate(algorithm, shape, Rank(rank))).collect()
}

/// A communicator of one rank: at most a copy.
fn alone(shape: &Shape) -> Schedule {
    let mut builder = Builder::new();
    match shape.collective {
        Collective::Barrier | Collective::Broadcast { .. } => {}
        _ => builder.copy(input(shape.bytes()), output(shape.bytes())),
    }
    builder.finish()
}
