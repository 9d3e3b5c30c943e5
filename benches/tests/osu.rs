//! `osu` as its users run it: under mpirun, with the flags they know, checking the data.

#[path = "../../examples/tests/support/mod.rs"]
mod support;

use std::{fs, thread};

use serde_json::Value;
use support::{Finished, alone, mpirun, scratch};

const OSU: &str = env!("CARGO_BIN_EXE_osu");

/// A few iterations, data checked.
fn osu(ranks: usize, words: &str) -> Finished {
    let arguments: Vec<&str> = words.split_whitespace().collect();
    mpirun(ranks, OSU, &arguments)
}

/// The rows of a table, in words.
fn rows(stdout: &str) -> Vec<Vec<&str>> {
    let rows = stdout.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|line| line.split_whitespace().collect()).collect()
}

/// Asserts that there is a row for each of `sizes`, with `figures` positive figures, and that the data was right.
#[track_caller]
fn all_pass(stdout: &str, sizes: &[&str], figures: usize) {
    let rows = rows(stdout);
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), sizes, "{stdout}");
    for row in rows {
        assert_eq!(row.len(), 2 + figures, "{stdout}");
        let positive = |figure: &&str| figure.parse::<f64>().is_ok_and(|figure| figure > 0.0);
        assert!(row[1..=figures].iter().all(positive), "{stdout}");
        assert_eq!(row[1 + figures], "Pass", "{stdout}");
    }
}

#[test]
fn pairs_pass_with_small_messages_and_large_ones() {
    for bench in ["latency", "bw", "bibw"] {
        let stdout = osu(2, &format!("{bench} -m 1:4 -i 20 -x 2 -c")).ok();
        all_pass(&stdout, &["1", "2", "4"], 1);
        let stdout = osu(2, &format!("{bench} -m 8192:262144 -i 3 -x 1 -c")).ok();
        all_pass(&stdout, &["8192", "16384", "32768", "65536", "131072", "262144"], 1);
    }
}

#[test]
fn a_message_of_nothing_can_be_measured() {
    for bench in ["latency", "bw", "bibw"] {
        let stdout = osu(2, &format!("{bench} -m 0:1 -i 5 -x 0")).ok();
        assert_eq!(rows(&stdout).len(), 2, "{stdout}");
    }
}

#[test]
fn a_window_whose_receives_do_not_fit_the_pool_at_once_passes() {
    for bench in ["bw", "bibw"] {
        all_pass(&osu(2, &format!("{bench} -m 4194304:4194304 -W 9 -i 1 -x 0 -c")).ok(), &["4194304"], 1);
    }
}

#[test]
fn mbw_mr_passes_on_any_number_of_ranks_from_two() {
    for ranks in [2, 3, 4] {
        let stdout = osu(ranks, "mbw_mr -m 8:16 -i 5 -x 1 -W 16 -c").ok();
        all_pass(&stdout, &["8", "16"], 2);
        assert!(stdout.contains(&format!("# [ pairs: {} ] [ window size: 16 ]", ranks / 2)), "{stdout}");
    }
}

#[test]
fn collectives_pass_on_any_number_of_ranks() {
    for bench in ["bcast", "reduce", "allreduce", "allgather", "alltoall"] {
        for ranks in [1, 2, 3, 4] {
            let stdout = osu(ranks, &format!("{bench} -m 4:8 -i 10 -x 1 -c")).ok();
            all_pass(&stdout, &["4", "8"], 1);
        }
        all_pass(&osu(3, &format!("{bench} -m 65536:65536 -i 2 -x 0 -c")).ok(), &["65536"], 1);
    }
}

#[test]
fn nonblocking_collectives_pass_on_any_number_of_ranks() {
    for bench in ["ibcast", "ireduce", "iallreduce", "iallgather", "ialltoall"] {
        for ranks in [2, 3, 4] {
            let stdout = osu(ranks, &format!("{bench} -m 8:8 -i 10 -x 1 -t 3 -c")).ok();
            let rows = rows(&stdout);
            assert_eq!((rows[0].len(), rows[0][0], rows[0][5]), (6, "8", "Pass"), "{stdout}");
            assert!(stdout.contains("Overlap(%)"), "{stdout}");
        }
    }
}

#[test]
fn persistent_forms_and_pairs_at_the_same_time_pass() {
    let lines =
        [(2, "latency_persistent"), (3, "multi_lat"), (3, "allreduce_persistent"), (2, "bcast_persistent")];
    for (ranks, bench) in lines {
        all_pass(&osu(ranks, &format!("{bench} -m 8:8 -i 10 -x 1 -c")).ok(), &["8"], 1);
    }
}

#[test]
fn barriers_have_no_size() {
    let stdout = osu(4, "barrier -i 10 -x 1").ok();
    assert_eq!(rows(&stdout)[0].len(), 1, "{stdout}");
    assert_eq!(rows(&osu(2, "barrier_persistent -i 10 -x 1").ok())[0].len(), 1);
    let stdout = osu(3, "ibarrier -i 10 -x 1").ok();
    assert_eq!(rows(&stdout)[0].len(), 4, "{stdout}");
}

#[test]
fn the_start_of_a_job_is_timed_and_greeted() {
    let stdout = osu(3, "init").ok();
    let row: Vec<f64> = rows(&stdout)[0].iter().map(|figure| figure.parse().unwrap()).collect();
    let [mean, min, max] = row[..] else { panic!("{stdout}") };
    assert!(0.0 < min && min <= mean && mean <= max, "{stdout}");
    let stdout = osu(2, "hello").ok();
    assert!(stdout.contains("# This is a test with 2 processes\n") && rows(&stdout).is_empty(), "{stdout}");
}

#[test]
fn full_and_tail_add_their_columns_in_the_order_of_their_values() {
    let stdout = osu(2, "allreduce -m 8:8 -i 50 -f --tail").ok();
    let title = stdout.lines().find(|line| line.starts_with("# Size")).unwrap();
    let expected =
        "# Size Avg Latency(us) Min Latency(us) Max Latency(us) P50(us) P99(us) P99.9(us) Max(us) Iterations";
    assert_eq!(title.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    let row: Vec<f64> = rows(&stdout)[0].iter().map(|figure| figure.parse().unwrap()).collect();
    let [_, mean, min, max, p50, p99, p999, longest, iterations] = row[..] else { panic!("{stdout}") };
    assert!(min <= mean && mean <= max, "{stdout}");
    assert!(p50 <= p99 && p99 <= p999 && p999 <= longest, "{stdout}");
    assert_eq!(iterations, 50.0);
}

#[test]
fn every_rank_says_where_it_runs() {
    let stdout = osu(3, "barrier -i 1").ok();
    for rank in 0..3 {
        let start = format!("# rank {rank}: ");
        let line = stdout.lines().find(|line| line.starts_with(&start)).unwrap();
        assert!(line.contains(" pid ") && line.contains(" cpu "), "{line}");
    }
}

#[test]
fn json_on_standard_output_is_alone_there() {
    let stdout = osu(2, "latency -m 8:16 -i 20 -c --tail --json -").ok();
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&document["bench"], &document["ranks"]), (&"latency".into(), &2.into()));
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["bytes"].as_u64().unwrap()).collect::<Vec<_>>(), [8, 16]);
    for row in rows {
        for key in ["avg_us", "p50_us", "p99_us", "p999_us", "max_us"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{row}");
        }
        assert_eq!((&row["valid"], &row["iterations"]), (&true.into(), &20.into()));
    }
    assert_eq!(document["places"].as_array().unwrap().len(), 2);
}

#[test]
fn json_in_a_file_comes_beside_the_table() {
    let path = scratch("allreduce.json");
    let stdout = osu(2, &format!("allreduce -m 8:8 -i 5 --json {}", path.display())).ok();
    assert_eq!(rows(&stdout).len(), 1, "{stdout}");
    let document: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(document["rows"][0]["avg_us"].as_f64().unwrap() > 0.0, "{document}");
}

#[test]
fn a_file_that_cannot_be_written_is_noticed_before_anything_is_measured() {
    osu(2, "latency -i 1000000000 --json no/such/folder/x.json")
        .refused(1, "cannot write no/such/folder/x.json");
}

#[test]
fn the_floor_needs_no_launcher() {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        return;
    }
    let stdout = alone(OSU, &["floor", "-m", "1024:4096", "--json", "-"]).ok();
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["bench"], "floor");
    assert!(document["cache_line_us"].as_f64().unwrap() > 0.0, "{document}");
    let sizes = document["memcpy"].as_array().unwrap().iter().map(|row| {
        assert!(row["us"].as_f64().unwrap() > 0.0 && row["remote_us"].as_f64().unwrap() > 0.0, "{row}");
        row["bytes"].as_u64().unwrap()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [1024, 2048, 4096]);
}

#[test]
fn a_pair_benchmark_on_another_number_of_ranks_is_refused() {
    for (ranks, bench) in [(1, "latency"), (3, "bw"), (4, "bibw")] {
        osu(ranks, bench).refused(1, &format!("{bench} needs exactly 2 ranks, this job has {ranks}"));
    }
    osu(1, "mbw_mr").refused(1, "mbw_mr needs at least 2 ranks");
    alone(OSU, &["latency"]).refused(1, "mpirun -n 2 osu latency");
}

#[test]
fn a_command_line_that_makes_no_sense_is_one_error_and_exit_code_2() {
    osu(3, "nothing").refused(2, "invalid value 'nothing'");
    osu(3, "allreduce -m 9:8").refused(2, "9 is more than 8");
    osu(3, "allreduce -m eight").refused(2, "`eight` is not a number of bytes");
    osu(3, "allreduce -W 8").refused(2, "-W means nothing to allreduce");
    osu(3, "allreduce -m 1:3").refused(2, "multiple of 4 bytes");
    osu(2, "latency -i 0").refused(2, "invalid value '0'");
}

#[test]
fn help_is_printed_once_and_names_every_benchmark() {
    let stdout = osu(2, "--help").ok();
    assert_eq!(stdout.matches("Usage:").count(), 1, "{stdout}");
    for bench in
        ["latency", "multi_lat", "mbw_mr", "ialltoall", "alltoall_persistent", "init", "hello", "floor"]
    {
        assert!(stdout.contains(&format!("- {bench}:")), "{bench} in {stdout}");
    }
}
