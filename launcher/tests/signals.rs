//! Signals reach the ranks, and the job ends as the user wants it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
use common::{Running, eventually, shell};
use rustix::process::Signal;
use std::io::Read;
use std::time::Duration;

/// Starts a job whose ranks say `ready` when their traps are set, and waits for all of them.
fn ready(ranks: u32, script: &str) -> Running {
    let mut job = shell(ranks, script).undisturbed().start();
    let out = job.child.stdout.as_mut().unwrap();
    let mut seen = String::new();
    let mut byte = [0];
    while seen.matches("ready\n").count() < ranks as usize {
        out.read_exact(&mut byte).unwrap();
        seen.push(char::from(byte[0]));
    }
    job
}

#[test]
fn an_interrupt_ends_ranks_that_do_not_handle_it_with_130() {
    let job = ready(3, "echo ready; exec sleep 1000");
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130);
    assert!(done.verdict().contains("stopped by SIGINT (interrupt); all ranks have left"), "{}", done.err);
}

#[test]
fn ranks_may_handle_the_signals_that_ask_them_to_end() {
    for (signal, name) in [(Signal::INT, "INT"), (Signal::TERM, "TERM"), (Signal::HUP, "HUP")] {
        let script = format!("trap 'echo saved; exit 0' {name}; echo ready; while :; do sleep 0.05; done");
        let job = ready(2, &script);
        job.signal(signal);
        let done = job.finish();
        assert_eq!(done.code(), 0);
        assert!(!done.err.contains("mpirun"), "{}", done.err);
        assert_eq!(done.lines(), ["saved", "saved"]);
    }
}

#[test]
fn a_second_interrupt_kills_ranks_that_ignore_the_first() {
    let job = ready(2, "trap '' INT; echo ready; while :; do sleep 0.05; done");
    job.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130);
    assert!(done.verdict().ends_with("(2 by SIGKILL)"), "{}", done.err);
    assert!(done.took < Duration::from_secs(4), "{:?}", done.took);
}

#[test]
fn an_interrupt_that_is_ignored_kills_after_its_grace() {
    let job = ready(1, "trap '' INT; echo ready; while :; do sleep 0.05; done");
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130);
    assert!(done.verdict().contains("not all ranks have heeded"), "{}", done.err);
}

#[test]
fn user_signals_are_passed_on_and_change_nothing_else() {
    let script =
        "trap 'echo one' USR1; trap 'echo two; exit 0' USR2; echo ready; while :; do sleep 0.05; done";
    let mut job = ready(2, script);
    job.signal(Signal::USR1);
    let mut ones = [0; 8];
    job.child.stdout.as_mut().unwrap().read_exact(&mut ones).unwrap();
    assert_eq!(&ones, b"one\none\n");
    job.signal(Signal::USR2);
    let done = job.finish();
    assert_eq!(done.code(), 0);
    assert!(!done.err.contains("mpirun"), "{}", done.err);
    assert_eq!(done.lines(), ["two", "two"]);
}

#[test]
fn a_stop_stops_mpirun_and_the_ranks_and_a_continue_wakes_them() {
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
    };
    let job = ready(1, "echo ready; exec sleep 1000");
    let agent = job.agent().as_raw_nonzero().get();
    let me = job.pid().as_raw_nonzero().get();
    // While it becomes `sleep` its environment cannot be read, and so it cannot be found.
    let rank = eventually("the rank is there", || job.others().into_iter().find(|pid| *pid != agent));
    job.signal(Signal::TSTP);
    eventually("mpirun and the rank are stopped", || (state(me) == 'T' && state(rank) == 'T').then_some(()));
    job.signal(Signal::CONT);
    eventually("mpirun and the rank run again", || (state(me) != 'T' && state(rank) != 'T').then_some(()));
    job.signal(Signal::TERM);
    assert_eq!(job.finish().code(), 143);
}

#[test]
fn a_signal_that_our_parent_ignores_is_ignored() {
    let mut job = shell(1, "echo ready; exec sleep 1000");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(job.command.get_program());
    command.args(job.command.get_args());
    for (name, value) in job.command.get_envs() {
        command.env(name, value.unwrap());
    }
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    job.command = command;
    let mut job = job.start();
    let mut line = [0; 6];
    job.child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    job.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert!(job.child.try_wait().unwrap().is_none(), "mpirun ended by a hang-up under nohup");
    job.signal(Signal::TERM);
    assert_eq!(job.finish().code(), 143);
}
