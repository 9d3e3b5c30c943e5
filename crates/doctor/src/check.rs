//! The checks: each a pure function from what was read to a verdict, its evidence and its cure.

mod efa;
mod fabric;
mod host;
mod memory;
mod net;
mod remedy;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::scene::Scene;

/// What a check came to. Ordered by how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Pass,
    /// A job will run, slower or more fragile than it could.
    Warn,
    /// A job will not run, or not as it was asked to.
    Fail,
}

/// What a check found: always what was read, and where something is amiss always what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it came to.
    pub verdict: Verdict,
    /// What was read, and where.
    pub evidence: String,
    /// A command, or a line for a file that is named.
    pub remedy: Option<String>,
}

impl Finding {
    fn pass(evidence: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Pass, evidence: evidence.into(), remedy: None }
    }

    fn warn(evidence: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warn, evidence: evidence.into(), remedy: Some(remedy.into()) }
    }

    fn fail(evidence: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Fail, evidence: evidence.into(), remedy: Some(remedy.into()) }
    }

    /// A failure where `is_needed`, else a warning.
    fn amiss(is_needed: bool, evidence: impl Into<String>, remedy: impl Into<String>) -> Finding {
        if is_needed { Finding::fail(evidence, remedy) } else { Finding::warn(evidence, remedy) }
    }
}

/// What the job will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ask {
    /// Ranks on this host.
    pub ranks: u32,
    /// Whether it must run over EFA.
    pub needs_efa: bool,
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name: the anchor of its section in `docs/EC2.md`.
    pub id: &'static str,
    /// What is well when it passes, in a few words.
    pub title: &'static str,
    /// The check.
    pub judge: fn(&Scene, &Ask) -> Finding,
}

const fn check(id: &'static str, title: &'static str, judge: fn(&Scene, &Ask) -> Finding) -> Check {
    Check { id, title, judge }
}

/// All of them, in the order in which they are told: the host, what its ranks share, the network, EFA.
pub const CHECKS: &[Check] = &[
    check("kernel", "Linux, and recent enough", host::kernel),
    check("clock", "the clock is read without a system call", host::clock),
    check("processors", "a processor for every rank", host::processors),
    check("processes", "room for that many processes", host::processes),
    check("limits", "limits of a process", host::limits),
    check("memory", "memory for that many ranks", memory::memory),
    check("shared-memory", "two processes can share memory", memory::sharing),
    check("single-copy", "large messages are copied once", memory::single_copy),
    check("namespaces", "ranks see each other", memory::namespaces),
    check("dev-shm", "/dev/shm for other libraries", memory::dev_shm),
    check("huge-pages", "huge pages", memory::huge_pages),
    check("environment", "no variable that hurts", fabric::environment),
    check("interfaces", "an interface that other hosts reach", net::interfaces),
    check("own-name", "our own name leads to us", net::own_name),
    check("ena", "Amazon's network interface", net::ena),
    check("libfabric", "libfabric, and recent enough", fabric::libfabric),
    check("one-libfabric", "only one libfabric around", fabric::only_one),
    check("roads", "roads to other hosts", fabric::roads),
    check("efa-device", "EFA devices", efa::devices),
    check("efa-driver", "the EFA driver has them", efa::driver),
    check("efa-verbs", "programs can open them", efa::verbs),
    check("efa-counters", "their counters can be read", efa::counters),
    check("memlock", "memory can be locked for the device", efa::memlock),
    check("queue-pairs", "a queue pair for every rank", efa::queue_pairs),
    check("foreign-verbs", "no other verbs devices", efa::foreign),
];

/// A check and what it found.
#[derive(Clone, Debug, Serialize)]
pub struct Examined {
    /// [`Check::id`].
    pub id: &'static str,
    /// [`Check::title`].
    pub title: &'static str,
    /// What it found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Runs all checks. Pure: the same scene and the same question have the same answer.
pub fn examine(scene: &Scene, ask: &Ask) -> Vec<Examined> {
    let run =
        |check: &Check| Examined { id: check.id, title: check.title, finding: (check.judge)(scene, ask) };
    CHECKS.iter().map(run).collect()
}

/// A number of bytes for people: `64 KiB`, `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value.fract() != 0.0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// "1 rank", "2 ranks".
fn ranks(count: u32) -> String {
    if count == 1 { "1 rank".to_owned() } else { format!("{count} ranks") }
}
