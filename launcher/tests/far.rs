//! What goes wrong between hosts with networks of their own and real ssh: nothing hangs, the culprit is named, and on no
//! host anything is left: no process, no entry of `/dev/shm`, no socket. Needs root, and the packages that the testbed names
//! where they are missing.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use common::far::Far;
use common::{Running, eventually, probe_path, read_lines};
use rustix::process::{Signal, kill_process};

/// Every rank has a child, and one that has left its group and lost its parent.
const FAMILY: &str = "sleep 1001 & (setsid sleep 1002 &) ; echo ready; wait";
/// The comm names of the two processes that a far host has of ours.
const AGENT: &str = "selvedge-agent";
const GUARDIAN: &str = "selvedge-guard";

/// FAMILY on three hosts, all of them ready.
fn families(far: &Far) -> Running {
    let words = ["--host-timeout", "2", "sh", "-c", FAMILY];
    let mut job = far.job("node1:2,node2:2,node3:2", &words).start();
    read_lines(&mut job, 6);
    job
}

#[test]
fn a_far_agent_killed_leaves_nothing_even_of_what_its_ranks_have_started() {
    let far = Far::new(3);
    let job = families(&far);
    far.signal("node2", AGENT, Signal::KILL);
    let done = far.finish(job);
    assert_eq!(done.code(), 1);
    let verdict = done.verdict();
    assert!(verdict.starts_with("mpirun: the node agent on node2 has gone"), "{verdict}");
    assert!(verdict.contains("killed by signal 9; its 2 ranks were ended"), "{verdict}");
}

#[test]
fn the_guardian_of_a_far_agent_killed_ends_the_job_and_leaves_nothing() {
    let far = Far::new(3);
    let job = families(&far);
    far.signal("node3", GUARDIAN, Signal::KILL);
    let done = far.finish(job);
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("the node agent on node3 has gone"), "{}", done.err);
}

#[test]
fn a_far_agent_that_is_stopped_is_lost_and_ended_by_its_guardian() {
    let far = Far::new(3);
    let job = families(&far);
    far.signal("node2", AGENT, Signal::STOP);
    let done = far.finish(job);
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("the node agent on node2 was silent for 2 s"), "{}", done.err);
}

#[test]
fn the_far_end_of_ssh_killed_ends_the_job_and_leaves_nothing() {
    let far = Far::new(3);
    let job = families(&far);
    let servers = eventually("ssh has a server", || {
        Some(far.processes("node3", "sshd")).filter(|pids| !pids.is_empty())
    });
    for pid in servers {
        let _ = kill_process(pid, Signal::KILL);
    }
    let done = far.finish(job);
    assert_eq!(done.code(), 1);
    let verdict = done.verdict();
    assert!(
        verdict.contains("the node agent on node3 has gone: `ssh") && verdict.contains("code 255"),
        "{verdict}"
    );
}

#[test]
fn mpirun_ended_in_any_way_leaves_nothing_on_any_host() {
    let far = Far::new(3);
    for signal in [Signal::KILL, Signal::TERM, Signal::HUP, Signal::INT] {
        let words = ["sh", "-c", FAMILY];
        let mut job = far.job("node1:2,node2:2,node3:2", &words).start();
        read_lines(&mut job, 6);
        job.signal(signal);
        if signal == Signal::KILL {
            job.child.wait().unwrap();
            far.assert_nothing_left(&job);
        } else {
            assert_eq!(far.finish(job).code(), 128 + signal.as_raw(), "{signal:?}");
        }
    }
}

#[test]
fn a_second_interrupt_ends_ranks_of_all_hosts_that_ignore_the_first() {
    let far = Far::new(2);
    let script = "trap '' INT TERM; echo ready; while :; do sleep 0.1; done";
    let mut job = far.shell("node1:2,node2:2", script).start();
    read_lines(&mut job, 4);
    job.signal(Signal::INT);
    // Signals within a tenth of a second are one.
    std::thread::sleep(Duration::from_millis(300));
    job.signal(Signal::INT);
    let done = far.finish(job);
    assert_eq!(done.code(), 130);
    assert!(done.verdict().ends_with("(4 by SIGKILL)"), "{}", done.err);
}

#[test]
fn a_host_behind_a_firewall_is_lost_and_named() {
    let far = Far::new(3);
    let job = families(&far);
    // What it says is dropped; what it is told arrives.
    far.hosts.block("node3", "node1").unwrap();
    let done = job.finish();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("the node agent on node3 was silent for 2 s"), "{}", done.err);
    far.hosts.unblock("node3", "node1").unwrap();
    far.hosts.assert_nothing_is_left(Duration::from_secs(20));
}

#[test]
fn a_host_behind_a_firewall_from_the_start_is_named_when_the_time_is_over() {
    let far = Far::new(3);
    far.hosts.block("node3", "node1").unwrap();
    let done = far.run(far.job("node1,node2,node3", &["--start-timeout", "3", "true"]));
    assert_eq!(done.code(), 1);
    assert_eq!(done.verdict(), "mpirun: no answer within 3 s from node3");
    far.hosts.unblock("node3", "node1").unwrap();
}

#[test]
fn ranks_whose_hosts_no_longer_hear_each_other_say_so_while_the_launcher_hears_both() {
    let far = Far::new(3);
    let program = probe_path().with_file_name("ranks").display().to_string();
    let mut job = far.job("node2:2,node3:2", &["-q", &program, "talk"]).start();
    read_lines(&mut job, 1);
    far.hosts.block("node3", "node2").unwrap();
    let done = far.finish(job);
    assert_eq!(done.code(), 1);
    for words in ["reached by tcp: its host does not answer: Connection timed out", "(since 15.0 s)"] {
        assert!(done.err.contains(words), "{}", done.err);
    }
    far.hosts.unblock("node3", "node2").unwrap();
}

#[test]
fn ten_megabytes_of_input_cross_the_network_or_are_thrown_away() {
    let far = Far::new(2);
    for (script, said) in
        [("wc -c", &["10485760"][..]), ("exec true", &[]), ("exec <&-; sleep 0.5; echo late", &["late"])]
    {
        let mut job = far.shell("node2:1", script);
        job.command.stdin(Stdio::piped());
        let mut job = job.start();
        let mut input = job.child.stdin.take().unwrap();
        // Whether it is still taken or not.
        let writer = std::thread::spawn(move || drop(input.write_all(&vec![b'x'; 10 << 20])));
        let done = far.finish(job);
        writer.join().unwrap();
        assert_eq!(
            (done.code(), done.lines()),
            (0, said.iter().map(|line| (*line).to_owned()).collect()),
            "{script}"
        );
    }
}

#[test]
fn a_storm_of_exits_on_eight_hosts_is_one_verdict() {
    let far = Far::new(8);
    let list = far.hosts.names().join(":32,") + ":32";
    let done = far.run(far.shell(&list, "exit 5"));
    assert_eq!(done.code(), 5);
    assert!(done.verdict().contains("exited with code 5"), "{}", done.err);
    let done =
        far.run(far.shell(&list, "[ $PMI_RANK = 100 ] && { sleep 1; kill -SEGV $$; }; exec sleep 1000"));
    assert_eq!(done.code(), 139);
    assert!(
        done.verdict().contains("rank 100 on node4") && done.verdict().contains("SIGSEGV"),
        "{}",
        done.err
    );
}

#[test]
fn a_disk_that_fills_up_with_output_ends_the_job_and_names_the_file() {
    let far = Far::new(2);
    let place = far.hosts.folder().join("small");
    std::fs::create_dir(&place).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", place.to_str().unwrap()];
    assert!(far.hosts.command("node1", "mount").args(mount).status().unwrap().success());
    let pattern = place.join("out.%r").display().to_string();
    let words = ["-outfile-pattern", &pattern, "sh", "-c", "echo begin; exec yes"];
    let done = far.run(far.job("node1:2,node2:2", &words));
    assert_eq!(done.code(), 1);
    let verdict = done.verdict();
    assert!(verdict.contains("cannot write ") && verdict.contains("small/out."), "{verdict}");
    assert!(verdict.contains("No space left on device"), "{verdict}");
}

#[test]
fn a_full_dev_shm_is_no_matter_to_ranks_that_share_memory() {
    let far = Far::new(1);
    let program = probe_path().with_file_name("ranks").display().to_string();
    let full = format!(
        "mount -t tmpfs -o size=4k tmpfs /dev/shm; dd if=/dev/zero of=/dev/shm/full 2>&-; exec {} -n 4 {program} sum",
        env!("CARGO_BIN_EXE_mpirun")
    );
    let mut command = far.hosts.command("node1", "unshare");
    command
        .args(["--mount", "sh", "-c", &full])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let done = far.run(common::Job::of(command));
    assert_eq!((done.code(), done.text().as_str()), (0, "4 ranks, sum 6\n"), "{}", done.err);
}

#[test]
fn half_of_the_ranks_saying_goodbye_while_the_others_wait_is_a_verdict() {
    let far = Far::new(2);
    let probe = probe_path().display().to_string();
    // Ranks 0 and 1, on the first host, wait for all others in a fence; those have said goodbye.
    let done = far.run(far.job("node1:2,node2:2", &[&probe, "fence", "fence", "finish=0", "finish=0"]));
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("on node2") && done.verdict().contains("has left while"), "{}", done.err);
    // A far rank that dies in the fence.
    let done = far.run(far.job("node1:2,node2:2", &[&probe, "fence", "fence", "fence", "leave=3"]));
    assert_eq!(done.code(), 3);
    assert!(done.verdict().contains("rank 3 on node2"), "{}", done.err);
}

#[test]
fn a_missing_program_or_another_version_there_is_named_with_its_host() {
    let far = Far::new(2);
    let done = far.run(far.job("node1,node2", &["--agent-program", "/no/such/mpirun", "true"]));
    assert_eq!(done.code(), 1);
    let verdict = done.verdict();
    assert!(
        verdict.contains("the node agent on node2 cannot be started") && verdict.contains("127"),
        "{verdict}"
    );
    let other = far.hosts.folder().join("other-mpirun");
    std::fs::write(&other, "#!/bin/sh\nprintf '\\nselvedge-node-agent 0\\n'; exec cat >/dev/null\n").unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let done = far.run(far.job("node1,node2", &["--agent-program", other.to_str().unwrap(), "true"]));
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("node2") && done.verdict().contains("another version"), "{}", done.err);
}

/// Eight ranks of `examples/ranks.rs` on two hosts, four each, all of them ready.
fn eight(far: &Far, words: &[&str]) -> Running {
    let program = probe_path().with_file_name("ranks").display().to_string();
    let mut all = vec!["-q", &program];
    all.extend(words);
    let mut job = far.job("node1:4,node2:4", &all).start();
    read_lines(&mut job, 8);
    job
}

/// Asks where mpirun is, of the job that `which` names, until all these words are said.
fn until_said_of(far: &Far, which: &[&str], words: &[&str]) -> String {
    let mut last = String::new();
    for _ in 0..100 {
        let (code, text, complaint) = far.selvedge("node1", &[&["where"], which].concat());
        if code == 0 && words.iter().all(|word| text.contains(word)) {
            return text;
        }
        last = text + &complaint;
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never said {words:?}, but\n{last}");
}

fn until_said(far: &Far, words: &[&str]) -> String {
    until_said_of(far, &[], words)
}

#[test]
fn where_names_the_culprit_of_a_deadlock_of_eight_ranks_on_two_hosts() {
    let far = Far::new(2);
    let job = eight(&far, &["circle"]);
    until_said(&far, &["ranks 2 -> 5 -> 2 wait for each other: deadlock; both receive"]);
    // Each rank says so when it has waited long enough; until then it may be one that others wait for.
    let text = eventually("all have waited", || {
        Some(until_said(&far, &[])).filter(|text| text.lines().count() == 10)
    });
    println!("{text}");
    let line = text.lines().find(|line| line.trim_start().starts_with("5 ")).unwrap();
    assert!(line.contains("node2") && line.contains("receive (tag 6) from rank 2"), "{text}");
    job.signal(Signal::TERM);
    far.finish(job);
}

#[test]
fn where_names_the_rank_of_another_host_that_is_out_of_step() {
    let far = Far::new(2);
    for (how, place, why) in [
        ("communicator", "is in barrier #", ", another communicator"),
        ("broadcast", "is in broadcast #", "while 7 ranks are in allreduce #"),
    ] {
        let job = eight(&far, &["astray", "6", how]);
        let text = until_said(&far, &["out of step: rank 6 on node2", place, why]);
        println!("{text}");
        job.signal(Signal::TERM);
        far.finish(job);
    }
}

#[test]
fn where_names_a_host_that_does_not_answer() {
    let far = Far::new(2);
    let job = eight(&far, &["hang", "1", "sleep"]);
    until_said(&far, &["held up by: rank 1 on node1", "7 ranks wait for it"]);
    far.signal("node2", AGENT, Signal::STOP);
    let text = until_said(&far, &["its host has not answered"]);
    assert_eq!(
        text.lines().filter(|line| line.contains("unknown") && line.contains("node2")).count(),
        4,
        "{text}"
    );
    far.signal("node2", AGENT, Signal::CONT);
    until_said(&far, &["7 ranks wait for it"]);
    job.signal(Signal::TERM);
    far.finish(job);
}

#[test]
fn asked_elsewhere_it_says_where_to_ask() {
    let far = Far::new(3);
    let job = eight(&far, &["circle"]);
    let (code, _, complaint) = far.selvedge("node2", &["where"]);
    assert_ne!(code, 0);
    assert!(
        complaint.contains("only 4 ranks are on this host") && complaint.contains("ask on node1"),
        "{complaint}"
    );
    let (_, list, _) = far.selvedge("node2", &["ps"]);
    assert!(list.contains("its mpirun is on node1"), "{list}");
    let (code, _, complaint) = far.selvedge("node3", &["where"]);
    assert_ne!(code, 0);
    assert!(complaint.contains("no job of yours is running on this host"), "{complaint}");
    job.signal(Signal::TERM);
    far.finish(job);
}

#[test]
fn of_several_jobs_one_has_to_be_named() {
    let far = Far::new(2);
    let jobs = [eight(&far, &["circle"]), eight(&far, &["hang", "6", "spin"])];
    let (_, list, _) = far.selvedge("node1", &["ps"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    let (code, _, complaint) = far.selvedge("node1", &["where"]);
    assert_ne!(code, 0);
    assert!(complaint.contains("several jobs could be meant"), "{complaint}");
    let second = format!("selvedge-{}-", jobs[1].child.id());
    let text = until_said_of(&far, &[&second], &["held up by: rank 6 on node2", "7 ranks wait for it"]);
    assert!(!text.contains("deadlock"), "{text}");
    for job in jobs {
        job.signal(Signal::TERM);
        job.finish();
    }
    far.hosts.assert_nothing_is_left(Duration::from_secs(20));
}
