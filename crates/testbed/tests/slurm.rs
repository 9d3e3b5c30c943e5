//! A real Slurm on hosts.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::time::Duration;

use common::{everything_that_refers_to, networks_of, text_of};
use selvedge_testbed::{Hosts, Slurm};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn one_node_runs_jobs_and_serves_every_start_up_protocol() {
    let slurm = Slurm::one_node().unwrap();
    let networks = networks_of(slurm.hosts().folder());
    let srun = |words: &[&str]| {
        let text = text_of(slurm.hosts().command("node1", "srun").args(words));
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        srun(&["-n", "3", "sh", "-c", "echo $SLURM_PROCID of $SLURM_NTASKS"]),
        ["0 of 3", "1 of 3", "2 of 3"]
    );
    assert_eq!(srun(&["-n", "2", "sh", "-c", "echo [$PMI_SIZE]"]), ["[]", "[]"], "none, without the option");
    assert_eq!(srun(&["-n", "2", "--mpi=pmi2", "sh", "-c", "echo $PMI_RANK/$PMI_SIZE"]), ["0/2", "1/2"]);
    let pmix =
        srun(&["-n", "2", "--mpi=pmix", "sh", "-c", "echo $PMIX_RANK ${PMIX_NAMESPACE:+in a namespace}"]);
    assert_eq!(pmix, ["0 in a namespace", "1 in a namespace"]);
    slurm.hosts().assert_nothing_is_left(SOON);
    drop(slurm);
    assert_eq!(everything_that_refers_to(&networks), Vec::<String>::new());
}

#[test]
fn two_nodes_share_a_job() {
    let hosts = Hosts::new(2).unwrap();
    let slurm = Slurm::on(&hosts).unwrap();
    let text = text_of(hosts.command("node2", "srun").args([
        "-N",
        "2",
        "--ntasks-per-node=2",
        "sh",
        "-c",
        "hostname",
    ]));
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["node1", "node1", "node2", "node2"]);
    let text = text_of(hosts.command("node1", "salloc").args([
        "-Q",
        "-N",
        "2",
        "sh",
        "-c",
        "echo $SLURM_JOB_NODELIST",
    ]));
    assert_eq!(text, "node[1-2]");
    drop(slurm);
    hosts.assert_nothing_is_left(SOON);
}
