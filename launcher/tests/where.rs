//! Who is everybody waiting for: asked of jobs that hang, and said unasked by jobs that end.
//!
//! Hosts are make-believe, as in `hosts.rs`. Questions go the way `selvedge where` asks them, over mpirun's socket.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::os::unix::net::UnixStream;

use common::asking::{ask, connect, until_said, whereabouts};
use common::{Folder, Job, Running, eventually, mpirun, probe_path, read_lines};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_boot::asking::{JobFacts, Question, Whereabouts};

/// In place of ssh: `HOST COMMAND`.
const AGENT: &str = "#!/bin/sh
host=$1; shift
exec env -i PATH=\"$PATH\" SELVEDGE_TEST_MARKER=\"$SELVEDGE_TEST_MARKER\" SELVEDGE_HOST=\"$host\" sh -c \"exec $*\"
";

/// Eight ranks of `examples/ranks.rs` on two hosts, four each.
fn eight(folder: &Folder, options: &[&str], words: &[&str]) -> Job {
    let agent = folder.file("agent", AGENT, 0o755);
    let program = probe_path().with_file_name("ranks");
    let mut all = vec!["-H", "nodea:4,nodeb:4", "--agent", agent.to_str().unwrap()];
    all.extend(options);
    all.extend(["-q", program.to_str().unwrap()]);
    all.extend(words);
    mpirun(all)
}

fn end(job: Running) {
    job.signal(Signal::TERM);
    job.finish();
}

#[test]
fn a_deadlock_of_two_hosts_is_named_with_its_ranks_and_what_does_not_fit() {
    let folder = Folder::new("where-circle");
    let mut job = eight(&folder, &[], &["circle"]).start();
    read_lines(&mut job, 8);
    until_said(&job, &["ranks 2 -> 5 -> 2 wait for each other: deadlock; both receive"]);
    // Each rank says so when it has waited long enough; until then it may be one that others wait for.
    let told =
        eventually("all have waited", || Some(whereabouts(&job)).filter(|told| told.verdict.len() == 1));
    let line = told.text.lines().find(|line| line.trim_start().starts_with("5 ")).unwrap();
    assert!(line.contains("nodeb") && line.contains("receive (tag 6) from rank 2"), "{}", told.text);
    assert_eq!(told.text.lines().count(), 1 + 8 + 1);
    end(job);
}

#[test]
fn a_rank_that_runs_code_of_its_own_is_the_one_that_seven_wait_for() {
    let folder = Folder::new("where-hang");
    for (how, doing) in [
        ("spin", "(it computes)"),
        ("thread", "(it computes in another thread)"),
        ("sleep", "(it sleeps in sleep"),
        ("read", "(it sleeps in read of pipe:["),
    ] {
        let mut job = eight(&folder, &[], &["hang", "6", how]).start();
        read_lines(&mut job, 8);
        until_said(&job, &["7 ranks wait for it", doing]);
        let told =
            eventually("all have waited", || Some(whereabouts(&job)).filter(|told| told.verdict.len() == 1));
        assert!(told.verdict[0].starts_with("held up by: rank 6 on nodeb (pid "), "{}", told.text);
        assert!(told.text.contains("allreduce #4"), "{}", told.text);
        end(job);
    }
}

#[test]
fn a_stopped_rank_is_said_to_be_stopped() {
    let folder = Folder::new("where-stop");
    let mut job = eight(&folder, &[], &["hang", "1", "sleep"]).start();
    read_lines(&mut job, 8);
    let told = until_said(&job, &["7 ranks wait for it"]);
    let line = told.text.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap();
    let pid = Pid::from_raw(line.split_whitespace().nth(2).unwrap().parse().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let told = until_said(&job, &["it is stopped"]);
    assert!(told.verdict[0].contains(&format!("kill -CONT {pid} lets it go on")), "{}", told.text);
    kill_process(pid, Signal::CONT).unwrap();
    end(job);
}

#[test]
fn foreign_programs_are_said_not_to_speak() {
    let job = mpirun(["-n", "3", "sleep", "1000"]).start();
    job.wait_for_others(4);
    until_said(&job, &["none of the ranks speaks with mpirun"]);
    let asleep = |told: Whereabouts| told.text.matches("has not spoken with mpirun, in sleep").count();
    eventually("all sleep", || (asleep(whereabouts(&job)) == 3).then_some(()));
    let facts: JobFacts = serde_json::from_slice(&ask(&job, Question::Job.line().as_bytes())).unwrap();
    assert_eq!((facts.ranks, facts.programs, facts.pid), (3, vec!["sleep".to_owned()], job.child.id()));
    end(job);
}

#[test]
fn ranks_of_ours_that_never_waited_are_told_from_those_of_other_libraries() {
    let folder = Folder::new("where-ours");
    // Those of ours have joined before they wait for the sleeper.
    let mut job = eight(&folder, &[], &["hang", "6", "sleep"]).start();
    read_lines(&mut job, 8);
    let told = until_said(&job, &["held up by: rank 6", "it is in no call of Selvedge since"]);
    assert!(told.text.contains("code of its own, in sleep"), "{}", told.text);
    end(job);
    // The probe speaks PMI, and Selvedge it does not speak.
    let job = common::probe(2, &["hang"]).start();
    job.wait_for_others(3);
    eventually("both speak PMI", || {
        let told = whereabouts(&job);
        let is_said = told.verdict[0].starts_with("the ranks do not say what they wait for");
        (is_said && told.text.matches("says nothing of itself").count() == 2).then_some(())
    });
    end(job);
}

#[test]
fn a_rank_in_a_debugger_is_said_to_be_in_one() {
    let folder = Folder::new("where-debugger");
    let mut job = eight(&folder, &[], &["hang", "1", "sleep"]).start();
    read_lines(&mut job, 8);
    let told = until_said(&job, &["7 ranks wait for it"]);
    let line = told.text.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap();
    let pid = line.split_whitespace().nth(2).unwrap();
    let mut gdb = std::process::Command::new("gdb");
    gdb.args(["-q", "-nx", "-p", pid]).stdin(std::process::Stdio::piped());
    gdb.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut gdb = gdb.spawn().unwrap_or_else(|error| panic!("the test needs gdb, install gdb: {error}"));
    let debugs = format!("it is stopped by process {}, which debugs it; 7 ranks wait for it", gdb.id());
    until_said(&job, &[&debugs]);
    drop(gdb.stdin.take());
    gdb.wait().unwrap();
    until_said(&job, &["it is in no call of Selvedge"]);
    end(job);
}

#[test]
fn a_job_whose_time_is_over_says_who_held_it_up() {
    let folder = Folder::new("where-time");
    let done = eight(&folder, &["--timeout", "4"], &["hang", "3", "sleep"]).run();
    assert_eq!(done.code(), 124);
    assert!(done.err.contains("held up by: rank 3 on nodea (pid "), "{}", done.err);
    assert!(done.err.contains("7 ranks wait for it") && done.err.contains("rank  host"), "{}", done.err);
    let (table, verdict) = (done.err.find("held up by").unwrap(), done.err.find("mpirun: ").unwrap());
    assert!(table < verdict && done.verdict().contains("the time limit of 4 s is over"), "{}", done.err);
}

#[test]
fn a_rank_that_dies_while_others_wait_is_told_with_one_sentence() {
    let folder = Folder::new("where-death");
    let done = eight(&folder, &[], &["hang", "3", "die"]).run();
    assert_eq!(done.code(), 3);
    assert!(done.err.contains("when it happened, held up by: rank 3 on nodea"), "{}", done.err);
    // On a busy machine not all have waited long enough to have written it down.
    let waiting = done.err.contains("it has ended; ") && done.err.contains(" ranks wait for it");
    assert!(waiting && !done.err.contains("rank  host"), "{}", done.err);
    assert!(done.verdict().contains("exited with code 3"), "{}", done.err);
}

#[test]
fn who_asks_nonsense_or_nothing_or_comes_in_crowds_is_no_harm() {
    let job = mpirun(["-n", "1", "sleep", "1000"]).start();
    job.wait_for_others(2);
    for nonsense in [&b"what\n"[..], b"\n", b"where\nwhere\n", &[b'x'; 1000]] {
        assert_eq!(ask(&job, nonsense), b"", "{nonsense:?}");
    }
    // Eight who say nothing fill the room until their time is over, and those who come after them are shown out.
    let crowd: Vec<UnixStream> = (0..8).map(|_| connect(&job)).collect();
    assert_eq!(ask(&job, Question::Job.line().as_bytes()), b"");
    drop(crowd);
    eventually("there is room again", || {
        Some(ask(&job, Question::Job.line().as_bytes())).filter(|answer| !answer.is_empty())
    });
    end(job);
}
