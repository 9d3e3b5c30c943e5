//! Hosts with networks of their own that join by themselves: no ssh, no command that reaches another host, only the same
//! secret in a file. Needs root, and the packages that the testbed names where they are missing.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Job, Running, eventually, mpirun, probe_path, read_lines};
use rustix::process::Signal;
use selvedge_testbed::Hosts;

const SOON: Duration = Duration::from_secs(10);

/// The same command on every host, and nothing that tells one from the other but their addresses.
struct Cluster {
    hosts: Hosts,
    secret: PathBuf,
}

impl Cluster {
    fn new(count: usize) -> Cluster {
        let hosts = Hosts::new(count).unwrap();
        let secret = hosts.folder().join("secret");
        common::party::new_secret(&secret);
        Cluster { hosts, secret }
    }

    fn job(&self, host: &str, words: &[&str]) -> Job {
        let count = self.hosts.count().to_string();
        let mut all =
            vec!["--join", "node1", "--join-hosts", &count, "--secret-file", self.secret.to_str().unwrap()];
        all.extend(words);
        mpirun(all).through(|program| self.hosts.command(host, program))
    }

    /// On all hosts, the first of them last.
    fn start(&self, words: &[&str]) -> Vec<Running> {
        let mut jobs: Vec<Running> =
            self.hosts.names().iter().rev().map(|host| self.job(host, words).start()).collect();
        jobs.reverse();
        jobs
    }
}

#[test]
fn eight_hosts_join_in_the_order_of_their_addresses_and_exchange_cards() {
    let cluster = Cluster::new(8);
    let words = ["-ppn", "2", "sh", "-c", "echo $PMI_RANK/$PMI_SIZE $(hostname) $SELVEDGE_INTERFACE"];
    let done: Vec<_> = cluster.start(&words).into_iter().map(Running::finish).collect();
    assert_eq!((done[0].code(), done[0].err.as_str()), (0, ""));
    let mut expected: Vec<String> =
        (0..16).map(|rank| format!("{rank}/16 node{} 10.77.0.{}", rank / 2 + 1, rank / 2 + 1)).collect();
    expected.sort();
    assert_eq!(done[0].lines(), expected);
    assert!(done[1..].iter().all(|done| (done.code(), done.err.as_str()) == (0, "")));
    let probe = probe_path();
    let done: Vec<_> = cluster
        .start(&["-ppn", "1", probe.to_str().unwrap(), "card"])
        .into_iter()
        .map(Running::finish)
        .collect();
    assert_eq!((done[0].code(), done[0].err.as_str()), (0, ""));
    assert!(done[0].text().contains("on 8 node: cards exchanged"), "{}", done[0].text());
    println!("8 ranks on 8 hosts that join: {:.2} s", done[0].took.as_secs_f64());
    cluster.hosts.assert_nothing_is_left(SOON);
}

#[test]
fn two_hosts_that_have_joined_talk_over_the_wire() {
    let cluster = Cluster::new(2);
    let before = cluster.hosts.tx_bytes("node2").unwrap();
    let ranks = probe_path().with_file_name("ranks");
    let jobs = cluster.start(&["-q", "-ppn", "2", ranks.to_str().unwrap(), "sum"]);
    let done: Vec<_> = jobs.into_iter().map(Running::finish).collect();
    assert_eq!((done[0].code(), done[0].text().as_str()), (0, "4 ranks, sum 6\n"), "{}", done[0].err);
    assert_eq!(done[1].code(), 0, "{}", done[1].err);
    assert!(cluster.hosts.tx_bytes("node2").unwrap() > before);
    cluster.hosts.assert_nothing_is_left(SOON);
}

/// Every rank has a child and one that has left its group.
const FAMILY: &[&str] = &[
    "--host-timeout",
    "2",
    "-ppn",
    "1",
    "sh",
    "-c",
    "sleep 1001 & (setsid sleep 1002 &) ; echo ready; wait",
];

#[test]
fn a_cable_or_a_firewall_between_hosts_ends_both_sides() {
    for how in ["cable", "firewall"] {
        let cluster = Cluster::new(2);
        let mut jobs = cluster.start(FAMILY);
        read_lines(&mut jobs[0], 2);
        match how {
            "cable" => cluster.hosts.cut("node2").unwrap(),
            _ => cluster.hosts.block("node2", "node1").unwrap(),
        }
        let start = Instant::now();
        let done: Vec<_> = jobs.into_iter().map(Running::finish).collect();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!((done[0].code(), done[1].code()), (1, 1));
        assert!(done[0].verdict().contains("the node agent on node2 was silent for 2 s"), "{}", done[0].err);
        // Behind the firewall node1's last word still comes: then the job has ended, for node2 as well.
        let said = done[1].verdict();
        assert!(
            said.contains("nothing was heard from mpirun for 2 s") || said.contains("has gone"),
            "{said}"
        );
        if how == "cable" {
            cluster.hosts.mend("node2").unwrap();
        }
        cluster.hosts.assert_nothing_is_left(SOON);
    }
}

#[test]
fn a_host_behind_a_firewall_is_missed_and_comes_when_it_may() {
    let cluster = Cluster::new(3);
    cluster.hosts.block("node3", "node1").unwrap();
    let done: Vec<_> =
        cluster.start(&["--start-timeout", "3", "true"]).into_iter().map(Running::finish).collect();
    let codes: Vec<i32> = done.iter().map(common::Done::code).collect();
    assert_eq!(codes, [1, 1, 1]);
    let said = done[0].verdict();
    assert!(said.ends_with("not joined within 3 s: 1 of 3 hosts; there are this host and node2"), "{said}");
    assert!(done[2].verdict().contains("--join node1:17358: not admitted within 3 s"), "{}", done[2].err);
    let jobs = cluster.start(&["-ppn", "1", "sh", "-c", "hostname"]);
    std::thread::sleep(Duration::from_secs(1));
    cluster.hosts.unblock("node3", "node1").unwrap();
    let done: Vec<_> = jobs.into_iter().map(Running::finish).collect();
    assert_eq!((done[0].code(), done[0].lines().len()), (0, 3), "{}", done[0].err);
    cluster.hosts.assert_nothing_is_left(SOON);
}

#[test]
fn whoever_is_killed_leaves_nothing_on_any_host() {
    let cluster = Cluster::new(3);
    for victim in [0, 1] {
        let mut jobs = cluster.start(FAMILY);
        read_lines(&mut jobs[0], 3);
        jobs[victim].signal(Signal::KILL);
        jobs[victim].child.wait().unwrap();
        let killed = jobs.remove(victim);
        for job in jobs {
            assert_eq!(job.finish().code(), 1);
        }
        killed.assert_nothing_left();
        cluster.hosts.assert_nothing_is_left(SOON);
    }
}

#[test]
fn the_door_is_open_to_the_jobs_network_only_and_the_same_host_does_not_join_twice() {
    let cluster = Cluster::new(2);
    let first = cluster.job("node1", &["-ppn", "1", "true"]).start();
    let reach = |host: &str, address: &'static str| {
        let connect =
            || std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(1));
        cluster.hosts.inside(host, move || connect().is_ok()).unwrap()
    };
    eventually("the door is open", || reach("node2", "10.77.0.1:17358").then_some(()));
    assert!(!reach("node1", "127.0.0.1:17358") && !reach("node1", "[::1]:17358"));
    let second = cluster.job("node2", &["true"]).start();
    assert_eq!((first.finish().code(), second.finish().code()), (0, 0));
    let three = Cluster::new(3);
    let first = three.job("node1", &["-ppn", "1", "true"]).start();
    let twins = [(); 2].map(|()| three.job("node2", &["true"]).start());
    let (once, refused) = common::party::one_of_two_is_refused(twins);
    assert!(refused.verdict().contains("this host has joined already: node2 (10.77.0.2)"), "{}", refused.err);
    let third = three.job("node3", &["true"]).start();
    assert_eq!([first, once, third].map(|job| job.finish().code()), [0, 0, 0]);
    cluster.hosts.assert_nothing_is_left(SOON);
    three.hosts.assert_nothing_is_left(SOON);
}
