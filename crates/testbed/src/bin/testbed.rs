//! `testbed HOSTS [--ssh] [--slurm] [-- COMMAND..]`: hosts to try things on by hand, gone when the command ends.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use selvedge_testbed::{Error, Hosts, Slurm, Sshd};

/// Make hosts out of network namespaces and run a command on the first, with the others in reach.
///
/// The command finds the drop-in for ssh in TESTBED_RSH, the configuration for a real ssh in TESTBED_SSH_CONFIG, and a
/// folder that all hosts share in TESTBED_FOLDER.
#[derive(Debug, Parser)]
#[command(name = "testbed")]
struct Arguments {
    /// How many hosts: node1, node2 and so on
    hosts: usize,
    /// Start an ssh server on each
    #[arg(long)]
    ssh: bool,
    /// Start a Slurm on them
    #[arg(long)]
    slurm: bool,
    /// What to run on node1
    #[arg(last = true, default_value = "bash")]
    command: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let hosts = Hosts::new(arguments.hosts)?;
    let _slurm = arguments.slurm.then(|| Slurm::on(&hosts)).transpose()?;
    let sshd = arguments.ssh.then(|| Sshd::on(&hosts)).transpose()?;
    let mut command = hosts.command("node1", &arguments.command[0]);
    command.args(&arguments.command[1..]);
    command.env("TESTBED_FOLDER", hosts.folder()).env("TESTBED_RSH", hosts.rsh());
    if let Some(sshd) = &sshd {
        command.env("TESTBED_SSH_CONFIG", sshd.ssh_config());
    }
    match command.status() {
        Ok(status) => Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into()),
        Err(cause) => Err(Error::System { doing: format!("run {}", arguments.command[0].display()), cause }),
    }
}
