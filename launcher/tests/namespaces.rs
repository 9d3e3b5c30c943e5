//! Hosts with networks of their own, real ssh and a real Slurm between them. Needs root, and the packages that the
//! testbed names where they are missing.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Done, Job, eventually, mpirun, probe_path};
use selvedge_testbed::{Hosts, Slurm, Sshd};

const SOON: Duration = Duration::from_secs(10);

/// The job, called on a host.
fn on(hosts: &Hosts, host: &str, job: Job) -> Job {
    job.through(|program| hosts.command(host, program))
}

/// `mpirun --agent AGENT -H HOSTS WORDS` on the first host.
fn job(hosts: &Hosts, agent: &str, list: &str, words: &[&str]) -> Job {
    let mut all = vec!["--agent", agent, "-H", list];
    all.extend(words);
    on(hosts, "node1", mpirun(all))
}

fn probe() -> String {
    probe_path().to_str().unwrap().to_owned()
}

fn assert_silent_success(done: &Done) {
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
}

#[test]
fn ranks_learn_by_which_address_other_hosts_reach_them() {
    let hosts = Hosts::new(3).unwrap();
    let rsh = hosts.rsh().to_str().unwrap().to_owned();
    let script = "echo $PMI_RANK $(hostname) $PMI_HOSTNAME $SELVEDGE_INTERFACE";
    let done = job(&hosts, &rsh, "node1,nodeb:2,10.77.0.3", &["sh", "-c", script]).run();
    assert_silent_success(&done);
    let expected = [
        "0 node1 node1 10.77.0.1",
        "1 node2 node2 10.77.0.2",
        "2 node2 node2 10.77.0.2",
        "3 node3 node3 10.77.0.3",
    ];
    assert_eq!(done.lines(), expected);
    let words = ["-x", "SELVEDGE_INTERFACE=lo", "sh", "-c", "echo $SELVEDGE_INTERFACE"];
    let done = job(&hosts, &rsh, "node1,node2", &words).run();
    assert_eq!(done.lines(), ["lo", "lo"], "what the user says counts: {}", done.err);
    hosts.assert_nothing_is_left(SOON);
}

#[test]
fn ranks_talk_over_the_wire_between_hosts() {
    let hosts = Hosts::new(2).unwrap();
    let rsh = hosts.rsh().to_str().unwrap().to_owned();
    let before = hosts.tx_bytes("node2").unwrap();
    let ranks = probe_path().with_file_name("ranks");
    let done = job(&hosts, &rsh, "node1:2,node2:2", &["-q", ranks.to_str().unwrap(), "sum"]).run();
    assert_eq!((done.code(), done.text().as_str()), (0, "4 ranks, sum 6\n"), "{}", done.err);
    assert!(hosts.tx_bytes("node2").unwrap() > before);
    hosts.assert_nothing_is_left(SOON);
}

#[test]
fn ranks_of_each_host_connect_at_a_port_of_their_own_loop() {
    let hosts = Hosts::new(2).unwrap();
    let rsh = hosts.rsh().to_str().unwrap().to_owned();
    let script = "echo $PMI_ID ${PMI_PORT%:*}; exec \"$0\" card";
    let done = job(&hosts, &rsh, "node1:2,node2:2", &["-pmi-port", "sh", "-c", script, &probe()]).run();
    assert_silent_success(&done);
    let (places, cards) = done.lines().into_iter().partition::<Vec<_>, _>(|line| line.ends_with("127.0.0.1"));
    assert_eq!(places, [0, 1, 2, 3].map(|rank| format!("{rank} 127.0.0.1")));
    assert_eq!(cards.len(), 4, "{cards:?}");
    hosts.assert_nothing_is_left(SOON);
}

#[test]
fn names_of_this_host_are_one_host() {
    let hosts = Hosts::new(2).unwrap();
    let rsh = hosts.rsh().to_str().unwrap().to_owned();
    let script = "echo $PMI_RANK $MPI_LOCALRANKID/$MPI_LOCALNRANKS $(hostname)";
    let done =
        job(&hosts, &rsh, "node1,node2,10.77.0.1,localhost", &["--oversubscribe", "sh", "-c", script]).run();
    assert_silent_success(&done);
    assert_eq!(done.lines(), ["0 0/3 node1", "1 0/1 node2", "2 1/3 node1", "3 2/3 node1"]);
    let done = job(&hosts, &rsh, "node1,node2,nodeb", &["true"]).run();
    assert_eq!(done.code(), 0);
    assert!(done.verdict().contains("node2 and nodeb are one host"), "{}", done.err);
}

#[test]
fn thirty_two_hosts_exchange_cards_over_a_tree() {
    let hosts = Hosts::new(32).unwrap();
    let rsh = hosts.rsh().to_str().unwrap().to_owned();
    let list = hosts.names().join(":2,") + ":2";
    for width in ["2", "32"] {
        let done = job(&hosts, &rsh, &list, &["--tree-width", width, &probe(), "card"]).run();
        assert_silent_success(&done);
        assert_eq!(done.lines().len(), 64);
        assert!(done.text().contains("on 32 node: cards exchanged"), "{}", done.text());
        println!("64 ranks on 32 hosts, tree of width {width}: {:.2} s", done.took.as_secs_f64());
    }
    hosts.assert_nothing_is_left(SOON);
}

#[test]
fn ssh_starts_a_job_and_an_unknown_host_ends_it() {
    let hosts = Hosts::new(4).unwrap();
    let sshd = Sshd::on(&hosts).unwrap();
    let ssh = format!("ssh -F {}", sshd.ssh_config().display());
    let words = ["--tree-width", "2", &probe(), "card"];
    let done = job(&hosts, &ssh, "node1:2,node2:2,node3:2,node4:2", &words).run();
    assert_silent_success(&done);
    assert_eq!(done.lines().len(), 8);
    let done = job(&hosts, &ssh, "node1,node2,node77", &["true"]).run();
    assert_eq!(done.code(), 1);
    assert!(done.verdict().contains("node77") && done.verdict().contains("code 255"), "{}", done.err);
    hosts.assert_nothing_is_left(SOON);
}

#[test]
fn a_host_that_is_cut_off_is_lost_and_ends_its_ranks_by_itself() {
    let hosts = Hosts::new(3).unwrap();
    let sshd = Sshd::on(&hosts).unwrap();
    let ssh = format!("ssh -F {}", sshd.ssh_config().display());
    let words = ["--host-timeout", "2", "sh", "-c", "sleep 1001 & echo ready; exec sleep 1000"];
    let mut running = job(&hosts, &ssh, "node1,node2,node3", &words).start();
    common::read_lines(&mut running, 3);
    hosts.cut("node3").unwrap();
    let start = Instant::now();
    let status = eventually("the job has ended", || running.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let done = running.finish();
    assert!(done.verdict().contains("the node agent on node3 was silent for 2 s"), "{}", done.err);
    hosts.mend("node3").unwrap();
    hosts.assert_nothing_is_left(SOON);
}

#[test]
fn a_job_of_slurms_is_started_by_srun_on_its_own_hosts() {
    let hosts = Hosts::new(2).unwrap();
    let slurm = Slurm::on(&hosts).unwrap();
    let mpirun = env!("CARGO_BIN_EXE_mpirun");
    let salloc = |words: &[&str]| {
        let mut command = Command::new("salloc");
        command.args(["-Q", "-N", "2", "--ntasks-per-node=1", mpirun]).args(words);
        on(&hosts, "node1", Job::of(command)).run()
    };
    let done = salloc(&["sh", "-c", "echo $PMI_RANK/$PMI_SIZE $(hostname)"]);
    assert_silent_success(&done);
    assert_eq!(done.lines(), ["0/2 node1", "1/2 node2"]);
    let done = salloc(&["-n", "4", "--oversubscribe", &probe(), "card"]);
    assert_silent_success(&done);
    assert_eq!(done.lines().len(), 4);
    assert_eq!(salloc(&["sh", "-c", "[ $PMI_RANK = 1 ] && exit 7; exec sleep 1000"]).code(), 7);
    drop(slurm);
    hosts.assert_nothing_is_left(SOON);
}
