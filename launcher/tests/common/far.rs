//! Hosts with networks of their own and real ssh between them, and jobs on them. Needs root.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use selvedge_testbed::{Hosts, Sshd, Thing};

use super::{Done, Job, Running, eventually, mpirun};

/// How long what is left of a job may take to go.
const SOON: Duration = Duration::from_secs(20);

/// Some hosts with ssh.
pub struct Far {
    pub hosts: Hosts,
    sshd: Sshd,
}

impl Far {
    pub fn new(count: usize) -> Far {
        let hosts = Hosts::new(count).unwrap();
        let sshd = Sshd::on(&hosts).unwrap();
        Far { hosts, sshd }
    }

    pub fn ssh(&self) -> String {
        format!("ssh -F {}", self.sshd.ssh_config().display())
    }

    /// `mpirun -H LIST WORDS` on the first host.
    pub fn job(&self, list: &str, words: &[&str]) -> Job {
        let ssh = self.ssh();
        let mut all = vec!["--agent", &ssh, "-H", list];
        all.extend(words);
        self.on("node1", mpirun(all).undisturbed())
    }

    pub fn shell(&self, list: &str, script: &str) -> Job {
        self.job(list, &["sh", "-c", script])
    }

    /// The same job, called on a host.
    pub fn on(&self, host: &str, job: Job) -> Job {
        job.through(|program| self.hosts.command(host, program))
    }

    /// Processes of a host, the testbed's own not counted, whose name or command line has this in it.
    pub fn processes(&self, host: &str, word: &str) -> Vec<Pid> {
        let left = self.hosts.leftovers().unwrap();
        let all = left.iter().filter(|left| left.host == host).filter_map(|left| match &left.thing {
            Thing::Process { pid, command } => Some((*pid, command)),
            _ => None,
        });
        let is_meant = |(pid, command): &(u32, &String)| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == word || command.contains(word)
        };
        let pids: BTreeSet<i32> = all.filter(is_meant).map(|(pid, _)| pid.cast_signed()).collect();
        pids.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// The only such process.
    pub fn process(&self, host: &str, word: &str) -> Pid {
        eventually(word, || match self.processes(host, word)[..] {
            [one] => Some(one),
            _ => None,
        })
    }

    pub fn signal(&self, host: &str, word: &str, signal: Signal) {
        kill_process(self.process(host, word), signal).unwrap();
    }

    /// The end of a job; then nothing of it may be left on any host.
    pub fn finish(&self, job: Running) -> Done {
        let done = job.finish();
        self.hosts.assert_nothing_is_left(SOON);
        done
    }

    pub fn run(&self, job: Job) -> Done {
        self.finish(job.start())
    }

    /// mpirun was killed, and its end seen.
    pub fn assert_nothing_left(&self, job: &Running) {
        job.assert_nothing_left();
        self.hosts.assert_nothing_is_left(SOON);
    }

    /// `selvedge WORDS` on a host: its exit code, what it prints, and what it complains of.
    pub fn selvedge(&self, host: &str, words: &[&str]) -> (i32, String, String) {
        let out = Command::output(self.hosts.command(host, selvedge()).args(words)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    }
}

/// The program `selvedge`, which `cargo test --workspace` builds beside mpirun.
pub fn selvedge() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_mpirun")).with_file_name("selvedge");
    assert!(path.exists(), "{} is not built; cargo build -p selvedge-doctor does", path.display());
    path
}
