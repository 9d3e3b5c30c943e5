//! Every algorithm is proved for every rank count up to 64 and for some primes beyond.

use selvedge_coll::{Algorithm, Collective, Rank, Shape, generate_all, verify};

fn prove(algorithm: Algorithm, shape: &Shape) {
    if algorithm.applies(shape)
        && let Err(flaw) = verify(shape, &generate_all(algorithm, shape))
    {
        panic!("{algorithm}, {shape:?}\n{flaw}");
    }
}

/// Counts and element sizes that differ in everything a generator may depend on, two per rank count in turn.
fn counts(ranks: u32) -> Vec<(u64, u32)> {
    const COUNTS: [(u64, u32); 8] =
        [(1, 8), (0, 4), (7, 3), (64, 1), (1_000_003, 16), (12, 4), (255, 8), (2, 16)];
    let first = ranks as usize % COUNTS.len();
    let mut some = vec![COUNTS[first], COUNTS[(first + 3) % COUNTS.len()]];
    // Blocks of which none, some and all are empty or uneven.
    some.extend([(u64::from(ranks) - 1, 2), (u64::from(ranks) * 3 + 1, 4)]);
    some
}

fn prove_all(collective: Collective, ranks: u32, orders: &[bool]) {
    let counts = if collective == Collective::Barrier { vec![(0, 1)] } else { counts(ranks) };
    for (count, element_bytes) in counts {
        for &commutative in orders {
            let shape = Shape { collective, ranks, count, element_bytes, commutative };
            Algorithm::all_for(collective).iter().for_each(|&algorithm| prove(algorithm, &shape));
        }
    }
}

/// Up to 64, and primes.
fn rank_counts() -> impl Iterator<Item = u32> {
    (1..=64).chain([67, 97, 127])
}

fn roots(ranks: u32) -> impl Iterator<Item = Rank> {
    let some = [0, ranks / 2, ranks - 1];
    (0..some.len()).filter(move |&i| !some[..i].contains(&some[i])).map(move |i| Rank(some[i]))
}

#[test]
fn barriers_are_right_for_every_rank_count() {
    rank_counts().chain([251, 256]).for_each(|ranks| prove_all(Collective::Barrier, ranks, &[true]));
}

#[test]
fn broadcasts_are_right_for_every_rank_count_and_root() {
    for ranks in rank_counts() {
        roots(ranks).for_each(|root| prove_all(Collective::Broadcast { root }, ranks, &[true]));
    }
}

#[test]
fn reductions_are_right_for_every_rank_count_root_and_order() {
    for ranks in rank_counts() {
        roots(ranks).for_each(|root| prove_all(Collective::Reduce { root }, ranks, &[true, false]));
    }
}

#[test]
fn allreduces_are_right_for_every_rank_count_and_order() {
    rank_counts().for_each(|ranks| prove_all(Collective::Allreduce, ranks, &[true, false]));
}

#[test]
fn allgathers_are_right_for_every_rank_count() {
    rank_counts().for_each(|ranks| prove_all(Collective::Allgather, ranks, &[true]));
}

#[test]
fn alltoalls_are_right_for_every_rank_count() {
    rank_counts().for_each(|ranks| prove_all(Collective::Alltoall, ranks, &[true]));
}

#[test]
fn cheap_algorithms_are_right_for_a_large_prime() {
    let collectives = [
        Collective::Broadcast { root: Rank(13) },
        Collective::Reduce { root: Rank(13) },
        Collective::Allreduce,
    ];
    for collective in collectives {
        let shape = Shape { collective, ranks: 251, count: 1003, element_bytes: 8, commutative: false };
        for &algorithm in Algorithm::all_for(collective) {
            if !matches!(algorithm, Algorithm::AllreduceDirect) {
                prove(algorithm, &shape);
            }
        }
    }
}

#[test]
fn parameters_other_than_the_listed_ones_work() {
    let broadcast = Collective::Broadcast { root: Rank(3) };
    for ranks in [4, 9, 13] {
        for count in [1, 40, 5000] {
            let shape = |collective| Shape { collective, ranks, count, element_bytes: 4, commutative: false };
            for radix in [3, 5, 7, 100] {
                prove(Algorithm::BroadcastTree { radix }, &shape(broadcast));
                prove(Algorithm::ReduceTree { radix }, &shape(Collective::Reduce { root: Rank(2) }));
                prove(Algorithm::AllreduceTree { radix }, &shape(Collective::Allreduce));
                prove(Algorithm::AllgatherTree { radix }, &shape(Collective::Allgather));
            }
            for segment_bytes in [1, 7, 4096] {
                prove(Algorithm::BroadcastChain { segment_bytes }, &shape(broadcast));
            }
            for window in [1, 2, 5] {
                prove(Algorithm::AlltoallScattered { window }, &shape(Collective::Alltoall));
            }
        }
    }
}
