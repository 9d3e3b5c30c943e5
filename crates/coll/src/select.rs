//! Which algorithm to take.

use selvedge_transport::Machine;

use crate::estimate::estimate;
use crate::price::Nanoseconds;
use crate::{Algorithm, Shape};

/// The algorithm that should be fastest for `shape` on `machine`.
///
/// Same arguments, same answer, on every rank: only additions, multiplications and comparisons of 64-bit floats in a
/// fixed order, which give the same bits everywhere. Nothing is generated; below 1 us.
///
/// ```
/// use selvedge_coll::{Algorithm, Collective, Shape, select};
/// use selvedge_transport::Machine;
/// let shape = |count| Shape { collective: Collective::Allreduce, ranks: 8, count, element_bytes: 8, commutative: true };
/// let roomy = Machine::one_host(8, 8);
/// assert_eq!(select(&shape(1), &roomy), Algorithm::AllreduceDirect);
/// assert_eq!(select(&shape(1 << 20), &roomy), Algorithm::AllreduceRabenseifner);
/// ```
pub fn select(shape: &Shape, machine: &Machine) -> Algorithm {
    let mut known = Algorithm::all_for(shape.collective).iter().filter(|algorithm| algorithm.applies(shape));
    let first = *known.next().expect("each collective has algorithms for all shapes");
    let mut best = (first, estimate(first, shape, machine));
    for &algorithm in known {
        let cost = estimate(algorithm, shape, machine);
        if cost < best.1 {
            best = (algorithm, cost);
        }
    }
    best.0
}

/// All algorithms for `shape` with what [`select`] thinks they cost, the cheapest first.
pub fn explain(shape: &Shape, machine: &Machine) -> Vec<(Algorithm, Nanoseconds)> {
    let known = Algorithm::all_for(shape.collective).iter().filter(|algorithm| algorithm.applies(shape));
    let mut all: Vec<_> = known.map(|&algorithm| (algorithm, estimate(algorithm, shape, machine))).collect();
    all.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
    all
}
