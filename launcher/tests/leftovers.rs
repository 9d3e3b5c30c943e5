//! Nothing is left behind, whoever dies.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
use common::{probe, shell};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Every rank has a child, a grandchild that has changed its process group, and one whose parent is gone.
const FAMILY: &str = "sleep 1001 & (setsid sleep 1002 &) ; sh -c 'sleep 1003 & wait' & wait";
/// Processes of a rank that runs FAMILY: the shell, the inner shell and three sleeps.
const FAMILY_SIZE: usize = 5;

#[test]
fn a_rank_that_ends_takes_with_it_what_it_started() {
    let start = Instant::now();
    let done = shell(2, "sleep 1001 & (setsid sleep 1002 &) ; echo done").run();
    assert_eq!((done.code(), done.lines().len()), (0, 2));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_rank_that_dies_takes_everybody_with_it() {
    let job = shell(2, &format!("[ $PMI_RANK = 1 ] && {{ sleep 0.5; kill -KILL $$; }}; {FAMILY}")).start();
    job.wait_for_others(FAMILY_SIZE);
    let done = job.finish();
    assert_eq!(done.code(), 137);
}

#[test]
fn mpirun_killed_by_sigkill_leaves_nothing() {
    let mut job = shell(3, FAMILY).start();
    job.wait_for_others(3 * FAMILY_SIZE + 1);
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    job.assert_nothing_left();
}

#[test]
fn mpirun_killed_while_it_starts_leaves_nothing() {
    for delay_ms in [0, 1, 2, 4, 8, 16, 32] {
        let mut job = shell(8, FAMILY).start();
        std::thread::sleep(Duration::from_millis(delay_ms));
        job.signal(Signal::KILL);
        job.child.wait().unwrap();
        job.assert_nothing_left();
    }
}

#[test]
fn the_agent_killed_by_sigkill_leaves_nothing_and_is_reported() {
    let job = shell(3, FAMILY).start();
    job.wait_for_others(3 * FAMILY_SIZE + 1);
    rustix::process::kill_process(job.agent(), Signal::KILL).unwrap();
    let done = job.finish();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("was killed by signal 9; its 3 ranks were ended"), "{}", done.err);
}

#[test]
fn mpirun_killed_while_ranks_wait_in_a_fence_leaves_nothing() {
    let mut job = probe(3, &["fence", "fence", "hang"]).start();
    job.wait_for_others(4);
    job.signal(Signal::KILL);
    job.child.wait().unwrap();
    job.assert_nothing_left();
}

#[test]
fn ranks_that_are_stopped_are_ended_too() {
    let job = shell(2, "[ $PMI_RANK = 1 ] && { sleep 0.3; exit 4; }; kill -STOP $$").start();
    let done = job.finish();
    assert_eq!(done.code(), 4);
}
