//! Collectives of values, against what they should give; and what is said of values that are none.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use selvedge::{Error, Misuse, Result, World};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    name: String,
    parts: BTreeMap<u32, Vec<f64>>,
    next: Option<Box<Report>>,
}

/// A value of a rank; about `bytes` bytes long.
fn report(rank: usize, bytes: usize) -> Report {
    let parts = BTreeMap::from([(rank as u32, vec![rank as f64; bytes / 8])]);
    let next = Report { name: "ß".repeat(rank), parts: BTreeMap::new(), next: None };
    Report { name: format!("rank {rank}"), parts, next: Some(Box::new(next)) }
}

/// Below the first message of a broadcast, about it, a packet, a train, a rendezvous.
const BYTES: [usize; 6] = [0, 200, 256, 5_000, 50_000, 400_000];

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn every_rank_gets_the_roots_value(world: World) {
    for (root, bytes) in (0..world.size()).cycle().zip(BYTES.into_iter().cycle()).take(14) {
        let value = (world.rank() == root).then(|| report(root, bytes));
        assert_eq!(
            world.broadcast_value(value, root).unwrap(),
            report(root, bytes),
            "root {root}, {bytes} bytes"
        );
    }
    world.broadcast_value((world.rank() == 0).then_some(()), 0).unwrap();
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 8, 13])]
fn values_are_gathered_and_scattered_in_order_of_ranks(world: World) {
    let (me, size) = (world.rank(), world.size());
    for root in 0..size {
        for most in [0, 3_000, 100_000] {
            let all: Vec<Report> = (0..size).map(|rank| report(rank, most * rank / size)).collect();
            let gathered = world.gather_values(all[me].clone(), root).unwrap();
            assert_eq!(gathered, (me == root).then(|| all.clone()), "root {root}, up to {most} bytes");
            let mine = world.scatter_values((me == root).then(|| all.clone()), root).unwrap();
            assert_eq!(mine, all[me], "root {root}, up to {most} bytes");
            assert_eq!(world.all_gather_values(mine).unwrap(), all);
        }
    }
}

#[selvedge::test(ranks = [1, 2, 3, 5, 8])]
fn values_are_exchanged_by_everybody_with_everybody(world: World) {
    let (me, size) = (world.rank(), world.size());
    for bytes in BYTES {
        let value = |from: usize, to: usize| report(from, if to.is_multiple_of(2) { bytes } else { 10 * to });
        let received = world.all_to_all_values((0..size).map(|to| value(me, to)).collect()).unwrap();
        assert_eq!(received, (0..size).map(|from| value(from, me)).collect::<Vec<_>>());
    }
    assert_eq!(world.all_to_all_values(vec![(); size]).unwrap().len(), size);
}

#[selvedge::test(ranks = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13])]
fn values_are_combined_in_order_of_ranks(world: World) {
    let (me, size) = (world.rank(), world.size());
    let words = |rank: usize| format!("{rank} ").repeat(rank * rank);
    let all: String = (0..size).map(words).collect();
    for root in 0..size {
        let combined = world.reduce_value(words(me), |left, right| left + &right, root).unwrap();
        assert_eq!(combined, (me == root).then(|| all.clone()), "root {root}");
    }
    assert_eq!(world.all_reduce_value(words(me), |left, right| left + &right).unwrap(), all);
}

/// A value that serde refuses, if it says so.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Moody(bool);

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 { Err(S::Error::custom("not today")) } else { serializer.serialize_bool(self.0) }
    }
}

/// The rank that has nothing to give is told why, and the others who it was.
fn nothing_from<T: Debug>(world: &World, culprit: usize, outcome: Result<T>) {
    match outcome {
        Err(Error::Misuse(Misuse::Encoding(_))) => assert_eq!(world.rank(), culprit),
        Err(Error::Misuse(Misuse::NothingGiven { source_rank })) => {
            assert_eq!(source_rank, culprit);
            assert_ne!(world.rank(), culprit);
        }
        other => panic!("{other:?} instead of nothing from rank {culprit}"),
    }
}

#[selvedge::test(ranks = [2, 3, 5, 8])]
fn a_value_that_serde_refuses_keeps_nobody_waiting_and_its_rank_is_named(world: World) {
    let (me, size) = (world.rank(), world.size());
    for culprit in 0..size {
        let mine = || Moody(me == culprit);
        nothing_from(&world, culprit, world.broadcast_value((me == culprit).then(mine), culprit));
        nothing_from(&world, culprit, world.all_gather_values(mine()));
        nothing_from(&world, culprit, world.all_to_all_values(vec![mine(); size]));
        let all = (me == culprit).then(|| vec![Moody(true); size]);
        nothing_from(&world, culprit, world.scatter_values(all, culprit));
        let root = (culprit + 1) % size;
        let gathered = world.gather_values(mine(), root);
        if me == root || me == culprit {
            nothing_from(&world, culprit, gathered);
        } else {
            assert_eq!(gathered.unwrap(), None);
        }
        // Combined values would be in order, so the one who cannot encode his must be a leaf or its way to the root.
        if culprit % 2 == 1 {
            nothing_from(&world, culprit, world.all_reduce_value(mine(), |left, _| left));
        }
        world.barrier().unwrap();
    }
}

/// Says of whom it is said that his value is none.
fn no_value_from<T: Debug>(outcome: Result<T>) -> usize {
    match outcome {
        Err(Error::Misuse(Misuse::NoValue { source_rank, why, .. })) => {
            assert!(!why.is_empty());
            source_rank
        }
        other => panic!("{other:?} instead of a value that is none"),
    }
}

#[selvedge::test(ranks = [2, 3, 5])]
fn bytes_that_are_no_such_value_name_the_rank_they_came_from(world: World) {
    let (me, last) = (world.rank(), world.size() - 1);
    // The last rank has another type in mind: one byte that is no `bool`.
    if me == last {
        assert_eq!(world.broadcast_value(Some(7u8), last).unwrap(), 7);
        assert_eq!(world.gather_values(7u8, 0).unwrap(), None);
        world.all_gather_values(7u8).unwrap();
    } else {
        assert_eq!(no_value_from(world.broadcast_value(None::<bool>, last)), last);
        let gathered = world.gather_values(true, 0);
        if me == 0 {
            assert_eq!(no_value_from(gathered), last);
        }
        assert_eq!(no_value_from(world.all_gather_values(true)), last);
    }
    // Combined: everybody hears which rank it was.
    let outcome = if me == last {
        world.all_reduce_value(7u8, |left, _| left).map(drop)
    } else {
        world.all_reduce_value(true, |left, right| left & right).map(drop)
    };
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(&format!("the value of rank {last} is no ")), "{error}");
}

#[selvedge::test(ranks = [1, 3])]
fn roots_without_a_value_and_values_without_a_root_are_refused_without_a_hang(world: World) {
    let (me, size) = (world.rank(), world.size());
    let misplaced =
        |outcome: Result<u8>| matches!(outcome, Err(Error::Misuse(Misuse::RootValue { root: 0, .. })));
    let nothing =
        |outcome: Result<u8>| matches!(outcome, Err(Error::Misuse(Misuse::NothingGiven { source_rank: 0 })));
    assert!(if me == 0 {
        misplaced(world.broadcast_value(None, 0))
    } else {
        nothing(world.broadcast_value(None, 0))
    });
    let everybody = world.broadcast_value(Some(1), 0);
    assert!(if me == 0 { everybody.is_ok() } else { misplaced(everybody) });
    let short = world.scatter_values((me == 0).then(|| vec![1u8; size + 1]), 0);
    assert!(if me == 0 {
        matches!(short, Err(Error::Misuse(Misuse::Length { what: "values", .. })))
    } else {
        nothing(short)
    });
    assert!(matches!(
        world.gather_values(1, size),
        Err(Error::Misuse(Misuse::RankOutOfRange { what: "root", .. }))
    ));
}
