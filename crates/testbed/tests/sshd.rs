//! Real ssh between hosts.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::time::Duration;

use common::{everything_that_refers_to, networks_of, text_of};
use selvedge_testbed::{Hosts, Sshd};

#[test]
fn ssh_leads_from_host_to_host_and_a_session_that_ended_leaves_nothing() {
    let hosts = Hosts::new(3).unwrap();
    let networks = networks_of(hosts.folder());
    let sshd = Sshd::on(&hosts).unwrap();
    let config = sshd.ssh_config().to_str().unwrap();
    let ssh = |from: &str, to: &str, command: &str| {
        text_of(hosts.command(from, "ssh").args(["-F", config, to, command]))
    };
    assert_eq!(ssh("node1", "node2", "hostname"), "node2");
    assert_eq!(ssh("node2", "10.77.0.3", "hostname; echo $SELVEDGE_SECRET"), "node3");
    assert_eq!(ssh("node1", "node3", &format!("ssh -F {config} nodeb hostname")), "node2");
    let code = hosts.command("node1", "ssh").args(["-F", config, "node2", "exit 9"]).status().unwrap();
    assert_eq!(code.code(), Some(9));
    hosts.assert_nothing_is_left(Duration::from_secs(5));
    drop(sshd);
    drop(hosts);
    assert_eq!(everything_that_refers_to(&networks), Vec::<String>::new());
}

#[test]
fn ssh_notices_that_a_host_is_cut() {
    let hosts = Hosts::new(2).unwrap();
    let sshd = Sshd::on(&hosts).unwrap();
    hosts.cut("node2").unwrap();
    let mut ssh = hosts.command("node1", "ssh");
    ssh.arg("-F").arg(sshd.ssh_config()).args(["-o", "ConnectTimeout=1", "node2", "hostname"]);
    let output = ssh.output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
}
