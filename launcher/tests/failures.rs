//! What goes wrong on one host, and what other launchers do wrong there: the exit code, the line that says why, and nothing
//! left. docs/FAILURES.md has all such tests in a table.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Done, Folder, Job, eventually, mpirun, probe, probe_path, read_lines, shell};
use rustix::process::{Signal, kill_process};

const MPIRUN: &str = env!("CARGO_BIN_EXE_mpirun");

/// Runs `program`, whoever calls it needs no rights to our folders: a copy in `/tmp`.
fn job_of(program: &str, words: &[&str]) -> Job {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Job::of(command)
}

fn with_input(mut job: Job, bytes: usize) -> Done {
    job.command.stdin(Stdio::piped());
    let mut job = job.start();
    let mut input = job.child.stdin.take().unwrap();
    // Whether it is still taken or not.
    let writer = std::thread::spawn(move || drop(input.write_all(&vec![b'x'; bytes])));
    let done = job.finish();
    writer.join().unwrap();
    done
}

#[test]
fn ten_megabytes_of_input_reach_rank_0_or_are_thrown_away() {
    const BYTES: usize = 10 << 20;
    let done = with_input(shell(3, "echo $PMI_RANK $(wc -c)"), BYTES);
    assert_eq!((done.code(), done.lines().join(",").as_str()), (0, "0 10485760,1 0,2 0"));
    for script in ["exec true", "exec <&-; sleep 0.5", "sleep 0.5", "read line; exit 0"] {
        let done = with_input(shell(2, script), BYTES);
        assert_eq!((done.code(), done.err.as_str()), (0, ""), "{script}");
    }
}

#[test]
fn a_storm_of_256_exits_is_one_verdict() {
    let done = shell(256, "exit 5").run();
    assert_eq!(done.code(), 5);
    assert!(done.verdict().contains("exited with code 5"), "{}", done.err);
    let done = shell(256, "[ $PMI_RANK = 200 ] && kill -KILL $$; exec sleep 1000").run();
    assert_eq!(done.code(), 137);
    assert!(done.verdict().starts_with("mpirun: rank 200 on "), "{}", done.err);
    let done = mpirun(["-n", "256", "true"]).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
}

#[test]
fn codes_of_several_ranks_are_not_mixed() {
    // hydra gives 7, the bits of both.
    let done = shell(2, "[ $PMI_RANK = 0 ] && exit 5; sleep 0.5; exit 3").run();
    assert_eq!(done.code(), 5);
    assert!(done.verdict().starts_with("mpirun: rank 0 on "), "{}", done.err);
    let done = shell(2, "[ $PMI_RANK = 1 ] && exit 3; sleep 0.5; exit 5").run();
    assert_eq!(done.code(), 3);
}

#[test]
fn a_rank_that_we_have_ended_is_never_the_reason() {
    // Intel's launcher reports the rank that it has killed, with 255.
    let done =
        shell(3, "[ $PMI_RANK = 2 ] && { sleep 0.3; exit 3; }; trap '' TERM; while :; do sleep 0.1; done")
            .run();
    assert_eq!(done.code(), 3);
    assert!(done.verdict().starts_with("mpirun: rank 2 on "), "{}", done.err);
}

#[test]
fn half_of_the_ranks_saying_goodbye_while_the_others_wait_is_a_verdict() {
    let done = probe(4, &["fence", "finish=0", "fence", "finish=0"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("has left while rank "), "{}", done.err);
}

#[test]
fn a_rank_that_dies_in_its_first_fence_ends_those_that_wait_in_it() {
    for (mode, code) in [("leave=3", 3), ("silent=4", 4), ("abort=7", 7)] {
        let done = probe(4, &["fence", "fence", mode, "fence"]).run();
        assert_eq!(done.code(), code, "{mode}: {}", done.err);
        assert!(done.verdict().contains("rank 2 on "), "{mode}: {}", done.err);
    }
    let script = format!(
        "[ $PMI_RANK = 2 ] && {{ sleep 0.5; kill -SEGV $$; }}; exec {} fence",
        probe_path().display()
    );
    let done = shell(4, &script).run();
    assert_eq!(done.code(), 139, "{}", done.err);
}

#[test]
fn ranks_of_ours_that_lose_one_while_they_start_are_ended() {
    let ranks = probe_path().with_file_name("ranks");
    let script =
        format!("[ $PMI_RANK = 1 ] && {{ sleep 0.5; kill -KILL $$; }}; exec {} sum", ranks.display());
    let done = shell(4, &script).run();
    assert_eq!(done.code(), 137, "{}", done.err);
    assert!(done.verdict().starts_with("mpirun: rank 1 on "), "{}", done.err);
}

#[test]
fn mpirun_stopped_and_continued_goes_on() {
    let script = "trap 'echo saved; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let mut job = shell(2, script).undisturbed().start();
    read_lines(&mut job, 2);
    job.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(300));
    job.signal(Signal::CONT);
    job.signal(Signal::USR1);
    let done = job.finish();
    assert_eq!((done.code(), done.lines()), (0, vec!["saved".to_owned(); 2]));
}

#[test]
fn an_agent_that_is_stopped_does_not_keep_mpirun_from_ending() {
    let mut job = shell(2, "sleep 1001 & (setsid sleep 1002 &) ; echo ready; wait").undisturbed().start();
    read_lines(&mut job, 2);
    kill_process(job.agent(), Signal::STOP).unwrap();
    // Nobody passes them on; the second one asks to end whatever happens.
    job.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130, "{}", done.err);
    assert!(done.took < Duration::from_secs(40), "{:?}", done.took);
}

#[test]
fn a_limit_of_processes_is_said_with_the_rank_it_hits() {
    if !rustix::process::geteuid().is_root() {
        panic!("the limit of processes is tried as a user that has none; run the tests as root");
    }
    // Somebody who has no other process on this machine, and who need not see our folders.
    let (uid, place) = ("64917", Folder::in_tmp("limit"));
    let mine = place.0.join("mpirun");
    std::fs::copy(MPIRUN, &mine).unwrap();
    let words = ["--reuid", uid, "--regid", uid, "--clear-groups", "prlimit", "--nproc=12:12"];
    let words = words.into_iter().chain([mine.to_str().unwrap(), "-n", "64", "sleep", "1000"]);
    let done = job_of("setpriv", &words.collect::<Vec<_>>()).dir(Path::new("/")).env("TMPDIR", "/tmp").run();
    assert_eq!(done.code(), 1, "{}", done.err);
    let verdict = done.verdict();
    assert!(verdict.contains("cannot start rank ") && verdict.contains("ulimit -u"), "{verdict}");
}

#[test]
fn few_descriptors_are_enough_for_mpirun_and_too_few_are_named() {
    let done = job_of("prlimit", &["--nofile=64:4096", MPIRUN, "-n", "100", "true"]).run();
    assert_eq!((done.code(), done.err.as_str()), (0, ""), "the soft limit is ours to raise");
    let done = job_of("prlimit", &["--nofile=24:24", MPIRUN, "-n", "30", "true"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("ulimit -Hn"), "{}", done.err);
}

/// In front of the C library's clock: the date jumps to and fro by years, a step at each look.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int looks;
    int rc = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME) time->tv_sec += (looks++ & 1) ? 400000000 : -400000000;
    return rc;
}
";

#[test]
fn a_date_that_is_set_while_a_job_runs_changes_nothing() {
    let folder = Folder::new("clock");
    let (source, library) = (folder.file("clock.c", CLOCK, 0o644), folder.0.join("clock.so"));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(
        cc.status()
            .unwrap_or_else(|error| panic!("the test needs a C compiler, install gcc: {error}"))
            .success()
    );
    let ranks = probe_path().with_file_name("ranks").display().to_string();
    let words = ["--timeout", "40", "--output", "timestamp", "-n", "3", &ranks, "sum"];
    let done = mpirun(words).env("LD_PRELOAD", library.to_str().unwrap()).run();
    assert_eq!(done.code(), 0, "{}", done.err);
    let text = done.text();
    let (time, sum) = text.trim_start_matches('[').split_once("] ").unwrap();
    assert!(
        (0.0..40.0).contains(&time.trim().parse::<f64>().unwrap()) && sum == "3 ranks, sum 3\n",
        "{text}"
    );
    let date = mpirun(["-n", "1", "date", "+%Y"]).env("LD_PRELOAD", library.to_str().unwrap()).run();
    let year = date.text().trim().parse::<i32>().unwrap();
    let now = Command::new("date").arg("+%Y").output().unwrap();
    assert_ne!(
        year,
        String::from_utf8_lossy(&now.stdout).trim().parse::<i32>().unwrap(),
        "the library is used"
    );
}

#[test]
fn a_disk_that_is_full_for_the_output_of_mpirun_is_a_failure_with_a_name() {
    let folder = Folder::new("disk");
    std::os::unix::fs::symlink("/dev/full", folder.0.join("o.0.out")).unwrap();
    let done =
        mpirun(["--output-filename", "o", "-n", "2", "sh", "-c", "echo x; sleep 20"]).dir(&folder.0).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("cannot write ") && done.verdict().contains("o.0.out"), "{}", done.err);
}

#[test]
fn a_launcher_that_is_killed_leaves_no_temporary_file() {
    // hydra leaves hydra_hwloc_xmlfile_*; the folder for temporary files of a job is looked at after every test.
    let mut job = probe(2, &["hang"]).start();
    job.wait_for_others(3);
    for pid in job.others() {
        let _ = kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL);
    }
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    job.assert_nothing_left();
}

#[test]
fn a_rank_that_hangs_in_the_kernel_for_its_child_is_ended_with_it() {
    // A parent that waits in vfork is in uninterruptible sleep.
    let folder = Folder::new("vfork");
    let text =
        "#include <unistd.h>\nint main(void) { if (vfork() == 0) { sleep(1000); _exit(0); } return 0; }\n";
    let (source, program) = (folder.file("v.c", text, 0o644), folder.0.join("v"));
    assert!(Command::new("cc").arg("-o").arg(&program).arg(&source).status().unwrap().success());
    let job = mpirun(["-n", "2", program.to_str().unwrap()]).undisturbed().start();
    job.wait_for_others(5);
    eventually("they wait in the kernel", || {
        let state = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let hang = job.others().iter().filter(|pid| state(pid).contains(") D ")).count();
        (hang == 2).then_some(())
    });
    job.signal(Signal::TERM);
    let done = job.finish();
    assert_eq!(done.code(), 143, "{}", done.err);
}
