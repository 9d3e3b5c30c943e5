//! `pipeline` as its users run it: any number of ranks and workers finds the same chain.

#[allow(dead_code, reason = "other examples write files")]
mod support;

use support::{alone, mpirun};

const PIPELINE: &str = env!("CARGO_BIN_EXE_pipeline");

#[test]
fn any_number_of_ranks_and_workers_finds_the_same_chain() {
    for (ranks, threads) in [(1, "1"), (1, "4"), (2, "2"), (4, "3")] {
        let words = ["--below", "100000", "--chunk", "700", "--threads", threads];
        let found = mpirun(ranks, PIPELINE, &words).ok();
        let known = "of the chains below 100000, that of 77031 is the longest: 351 numbers\n";
        assert_eq!(found, known, "{ranks} ranks of {threads} workers");
    }
}

#[test]
fn more_workers_than_work_all_come_to_an_end() {
    let found = mpirun(3, PIPELINE, &["--below", "10", "--chunk", "4", "--threads", "5"]).ok();
    assert_eq!(found, "of the chains below 10, that of 9 is the longest: 20 numbers\n");
}

#[test]
fn chunks_of_nothing_are_refused() {
    mpirun(2, PIPELINE, &["--chunk", "0"]).refused(2, "invalid value '0'");
}

#[test]
fn without_a_launcher_one_rank_finds_it() {
    let found = alone(PIPELINE, &["--below", "3", "--threads", "2"]).ok();
    assert_eq!(found, "of the chains below 3, that of 2 is the longest: 2 numbers\n");
}
