//! Who is everybody waiting for? Out of what each rank has written down of itself and what its agent sees of it: a table of
//! all ranks, and who holds the others up.
//!
//! Read [`Whereabouts`] first, which has the ranks of one world; [`Worlds`] has those of a job. Who waits for whom, and what follows
//! from it, is in `graph.rs`; the sentences are in `words.rs`. Nothing here reads a file or a clock.

mod graph;
mod words;
mod worlds;

use std::time::Duration;

use selvedge_boot::asking;
use selvedge_boot::status::Status;
use serde::{Deserialize, Serialize};

use graph::Graph;
pub use graph::{Culprit, Outsider, Verdict};
pub use worlds::Worlds;

/// How long after a rank has died those that were told of it count as waiting for it.
const JUST_NOW: Duration = Duration::from_millis(200);

/// What an agent finds out about a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its number in the job.
    pub rank: u32,
    /// Its process.
    pub pid: u32,
    /// What the kernel says of that.
    pub process: Process,
    /// The function of the kernel that it sleeps in; empty where it does not, or where the kernel does not tell.
    pub kernel: String,
    /// The system call that it is in, and what that is about; empty where it is in none, or where the kernel does not tell.
    pub call: String,
    /// The process that debugs it; 0: none does.
    pub tracer: u32,
    /// Threads of it that compute, beside its first.
    pub busy_threads: u32,
    /// How far it has come in its conversation with its launcher.
    pub pmi: Pmi,
    /// What it has written down of itself; `None`: nothing ever.
    pub status: Option<Status>,
    /// Since when that is so; without a status, since when it has been running.
    pub age: Duration,
}

/// State of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Process {
    /// It computes, or could.
    Running,
    /// It sleeps until something happens.
    Sleeping,
    /// It hangs in the kernel: a disk, a network file system.
    Disk,
    /// Somebody has stopped it.
    Stopped,
    /// It has ended.
    Gone,
}

impl Process {
    /// Out of `/proc/PID/stat`: the letter after the name of the program, which may hold anything.
    pub fn parse(stat: &str) -> Option<Process> {
        let (_, rest) = stat.rsplit_once(')')?;
        Some(match rest.trim_start().chars().next()? {
            'R' => Process::Running,
            'D' => Process::Disk,
            'T' | 't' => Process::Stopped,
            'Z' | 'X' | 'x' => Process::Gone,
            _ => Process::Sleeping,
        })
    }
}

/// How far a rank has come in its conversation with its launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pmi {
    /// It has not said a word.
    Silent,
    /// In conversation.
    Active,
    /// It waits in a fence.
    Fence,
    /// It has said goodbye.
    Finalized,
}

/// A rank in its place.
#[derive(Clone, Debug, Serialize)]
struct Row {
    rank: u32,
    host: u32,
    /// `None`: its host has not answered.
    found: Option<Found>,
}

/// What is known of all ranks of a world.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    job: String,
    hosts: Vec<String>,
    /// By rank.
    rows: Vec<Row>,
}

/// The answer for programs: what is told to people, and what it follows from.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    told: asking::Whereabouts,
    hosts: &'a [String],
    #[serde(flatten)]
    reasons: &'a Verdict,
    ranks: &'a [Row],
}

impl Whereabouts {
    /// Of the job of that name on these hosts, with the host of each rank.
    pub fn new(job: &str, hosts: Vec<String>, host_of_rank: impl IntoIterator<Item = u32>) -> Whereabouts {
        let rows = (0..).zip(host_of_rank).map(|(rank, host)| Row { rank, host, found: None }).collect();
        Whereabouts { job: job.to_owned(), hosts, rows }
    }

    /// A rank has been found. Nothing where there is no such rank.
    pub fn add(&mut self, found: Found) {
        if let Some(row) = self.rows.get_mut(found.rank as usize) {
            row.found = Some(found);
        }
    }

    /// Whether some rank has written down that it waits.
    pub fn has_waiting(&self) -> bool {
        self.rows.iter().filter_map(Row::status).any(Status::is_waiting)
    }

    /// Who holds the others up. Cost: a few steps for each rank and each partner of one.
    pub fn verdict(&self) -> Verdict {
        Graph::of(&self.rows).verdict(&self.rows)
    }

    /// The verdict in sentences. Never empty.
    pub fn sentences(&self) -> Vec<String> {
        words::sentences(self, &self.verdict())
    }

    /// A table of at most `rows_max` ranks, those that hold others up among them, and the verdict below it.
    pub fn text(&self, rows_max: usize) -> String {
        words::text(self, &self.verdict(), rows_max)
    }

    /// All of it as JSON.
    pub fn json(&self) -> Vec<u8> {
        let reasons = self.verdict();
        serde_json::to_vec(&self.answer(&reasons)).expect("plain data can be written as JSON")
    }

    fn answer<'a>(&'a self, reasons: &'a Verdict) -> Answer<'a> {
        let told = asking::Whereabouts {
            job: self.job.clone(),
            verdict: words::sentences(self, reasons),
            text: words::text(self, reasons, usize::MAX),
        };
        Answer { told, hosts: &self.hosts, reasons, ranks: &self.rows }
    }
}

impl Row {
    fn status(&self) -> Option<&Status> {
        self.found.as_ref()?.status.as_ref()
    }

    /// Its status if it waits, and neither its process nor its launcher says otherwise.
    fn waiting(&self) -> Option<&Status> {
        let found = self.found.as_ref()?;
        let can_wait = !matches!(found.process, Process::Gone | Process::Stopped) && found.pmi != Pmi::Fence;
        found.status.as_ref().filter(|status| can_wait && status.is_waiting())
    }

    fn is_in_fence(&self) -> bool {
        let alive = |found: &&Found| !matches!(found.process, Process::Gone | Process::Stopped);
        self.found.as_ref().filter(alive).is_some_and(|found| found.pmi == Pmi::Fence)
    }

    /// Its process has ended without a goodbye.
    fn has_died(&self) -> bool {
        let dead = |found: &Found| found.process == Process::Gone && found.pmi == Pmi::Active;
        self.found.as_ref().is_some_and(dead)
    }

    /// It has come out of a call a moment ago: from a rank that has died others hear sooner than this question reaches them.
    fn is_just_back(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.status.is_some() && found.age < JUST_NOW)
    }

    /// It will answer nobody any more.
    fn is_gone(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.process == Process::Gone || found.pmi == Pmi::Finalized)
    }
}

#[cfg(test)]
mod tests;
