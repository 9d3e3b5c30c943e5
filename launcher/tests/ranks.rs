//! The whole: real ranks that communicate, under our mpirun.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{Job, mpirun, probe_path};
use rustix::process::Signal;

fn program() -> PathBuf {
    probe_path().with_file_name("ranks")
}

/// `mpirun -n N ranks WORDS`.
fn ranks(count: u32, words: &[&str]) -> Job {
    let (count, program) = (count.to_string(), program());
    let mut all = vec!["-n", &count, program.to_str().unwrap()];
    all.extend(words);
    mpirun(all)
}

#[test]
fn ranks_find_each_other_and_communicate() {
    for count in [1, 2, 3, 5, 8, 16] {
        let done = ranks(count, &["sum"]).run();
        assert_eq!(
            (done.code(), done.text()),
            (0, format!("{count} ranks, sum {}\n", count * (count - 1) / 2))
        );
        assert_eq!(done.err, "");
    }
}

#[test]
fn ranks_spawn_others_talk_to_them_and_become_one_with_them() {
    for (parents, children) in [(1, 1), (2, 3)] {
        let done = ranks(parents, &["spawn", &children.to_string()]).run();
        assert_eq!(done.code(), 0, "{}", done.err);
        let (all, text) = (parents + children + 1, done.text());
        let mut lines = text.lines();
        for child in 0..=children {
            let word = if child < children { "warp" } else { "a weft = 2" };
            assert_eq!(lines.next(), Some(&*format!("child {child} of {}: {word}", children + 1)), "{text}");
        }
        let sum = all * (all - 1) / 2;
        assert_eq!(lines.next(), Some(&*format!("together {all} ranks, sum {sum}")), "{text}");
    }
}

#[test]
fn a_spawn_that_is_refused_is_an_error_of_all_ranks_and_the_job_goes_on() {
    let done = ranks(2, &["spawn-nothing"]).run();
    assert_eq!(done.code(), 0, "{}", done.err);
    let text = done.text();
    assert!(text.starts_with("cannot join the job: the launcher refused spawn (rc=1 "), "{text}");
}

#[test]
fn a_rank_that_dies_while_all_are_talking_ends_the_job_within_a_second() {
    for (how, code, why) in [
        ("panic", 101, "exited with code 101"),
        ("exit", 3, "exited with code 3"),
        ("abort", 7, "abort"),
        ("kill", 137, "SIGKILL"),
        ("segv", 139, "SIGSEGV"),
    ] {
        let before = shared_memory_files();
        let done = ranks(4, &["die", "2", how]).run();
        assert_eq!(done.code(), code, "{how}: {}", done.err);
        let verdict = done.verdict();
        assert!(verdict.contains("rank 2") && verdict.contains("pid"), "{how}: {verdict}");
        assert!(verdict.contains(why), "{how}: {verdict}");
        assert_eq!(shared_memory_files(), before, "{how} has left something in /dev/shm");
    }
}

#[test]
fn mpirun_killed_while_all_are_talking_leaves_nothing() {
    let before = shared_memory_files();
    let job = ranks(4, &["talk"]).start();
    job.wait_for_others(5);
    std::thread::sleep(Duration::from_millis(300));
    job.signal(Signal::KILL);
    job.assert_nothing_left();
    assert_eq!(shared_memory_files(), before);
}

fn shared_memory_files() -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir("/dev/shm").unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

#[test]
fn ranks_that_wait_for_two_seconds_take_next_to_no_processor_time() {
    for count in [2, 4, 8] {
        let done = ranks(count, &["idle", "2"]).run();
        let text = done.text();
        let micros: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
        assert!(micros < 60_000, "{count} ranks, 2 s: {text}");
        println!("{count} ranks wait for 2 s: at most {micros} us of processor time each");
    }
}

#[test]
fn two_hundred_and_fifty_six_ranks_start_reduce_and_leave() {
    let done = ranks(256, &["memory"]).run();
    assert_eq!(done.code(), 0, "{}", done.err);
    let text = done.text();
    assert!(text.starts_with("256 ranks, sum 32640\n"), "{text}");
    let most: u64 = text.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(most < 4 * 1024, "{text}");
    println!("256 ranks in {:.2} s; {}", done.took.as_secs_f64(), text.lines().nth(1).unwrap());
}

#[test]
fn a_program_that_nobody_launched_is_a_job_of_one() {
    let out = Command::new(program()).arg("sum").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1 ranks, sum 0\n");
    assert!(out.status.success());
}

#[test]
fn a_launcher_we_do_not_speak_with_is_an_error_and_not_many_jobs_of_one() {
    let srun = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "4"), ("SLURM_STEP_NUM_TASKS", "4")];
    let open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_RANK", "1")];
    for launcher in [srun, open_mpi] {
        let out = Command::new(program()).arg("sum").envs(launcher).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && out.stdout.is_empty(), "{launcher:?}: {err}");
        assert!(err.contains("cannot join the job"), "{launcher:?}: {err}");
    }
}

#[test]
fn no_room_for_the_shared_memory_is_said_with_the_limit_and_the_remedy() {
    let script = format!("ulimit -f 16; exec {} sum", program().display());
    let done = mpirun(["-n", "2", "sh", "-c", &script]).run();
    assert_eq!(done.code(), 1, "{}", done.err);
    assert!(done.err.contains("ulimit -f"), "{}", done.err);
}
