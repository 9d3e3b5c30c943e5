//! The command line. Taken apart by hand because mpirun's habits are older than getopt: one dash or two mean the same,
//! a value follows as the next word or after `=`, and the first word that is no option is the program.
//!
//! The words of both families are understood, Open MPI's and hydra's; `docs/guide-launcher.md` has them side by side.
//! `table` has those there are, with what `--help` and shells say about them; `options` what each does; `foreign` those that
//! only others have, each with what to write instead.

mod complete;
mod config;
mod foreign;
mod help;
mod options;
mod settings;
mod table;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::cores::Binding;
use crate::display::Display;
use crate::files::{Files, Pattern};
use crate::hosts::{self, HostWish, Read};
use crate::place::policy::{MapBy, RankBy};
use crate::place::rankfile::RankLine;
use crate::proto::{Readers, Stream};

pub use complete::Shell;
use options::Given;

/// What the user wants.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a process")]
pub enum Wish {
    /// `--help`.
    Help {
        /// `--help all`.
        all: bool,
    },
    /// `--completions`.
    Completions(Shell),
    /// `--version`.
    Version,
    /// `--new-secret`: the file.
    NewSecret(OsString),
    /// A job.
    Job(JobWish),
}

impl Wish {
    /// What is to be printed on standard output, where that is all; else `None`.
    pub fn text(&self) -> Option<String> {
        match self {
            Wish::Help { all: false } => Some(help::short()),
            Wish::Help { all: true } => Some(help::long()),
            Wish::Completions(shell) => Some(complete::script(*shell)),
            Wish::Version => Some(format!("mpirun (Selvedge) {}\n", env!("CARGO_PKG_VERSION"))),
            Wish::NewSecret(_) | Wish::Job(_) => None,
        }
    }
}

/// A job as the command line describes it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct JobWish {
    /// The blocks between colons, in rank order.
    pub blocks: Vec<BlockWish>,
    /// `-x` and `-genv`, in order; for all blocks.
    pub exports: Vec<Export>,
    /// What blocks that say nothing else pass on of our environment.
    pub inherit: Inherit,
    /// Put `[rank] ` before every line.
    pub labels: bool,
    /// What stands before every line in place of `[rank] `.
    pub label: Option<Pattern>,
    /// Put the seconds since the start before every line.
    pub timestamps: bool,
    /// Files for what ranks write.
    pub files: Files,
    /// What ranks write to standard error goes where their standard output goes.
    pub merges_errors: bool,
    /// Who gets what mpirun reads.
    pub readers: Readers,
    /// End the job after so long. 0 until [`settle_time_limit`]: never, whatever the environment says.
    pub time_limit: Option<Duration>,
    /// How ranks are bound to cores.
    pub binding: Binding,
    /// In which order ranks are dealt to hosts and their parts.
    pub map_by: MapBy,
    /// In which order they are numbered.
    pub rank_by: RankBy,
    /// Ranks for each host before the next host's turn, whatever its slots.
    pub per_host: Option<u32>,
    /// Host and cores by rank.
    pub rank_file: Option<Vec<RankLine>>,
    /// Index of the host by rank.
    pub rank_map: Option<Vec<u32>>,
    /// The hosts of the command line and of its host files, for blocks that name none of their own.
    pub hosts: Vec<HostWish>,
    /// Hosts for when neither the command line nor a batch system names any.
    pub default_hosts: Vec<HostWish>,
    /// Pictures to show before the start.
    pub display: Display,
    /// How agents are started on other hosts.
    pub agent: AgentWish,
    /// How many agents each agent starts, mpirun included.
    pub tree_width: TreeWidth,
    /// What programs hear when they ask how many ranks there can be; as many as there are, where nobody says.
    pub universe: Option<Universe>,
    /// Where mpirun says its process number.
    pub report_pid: Option<OsString>,
    /// How programs learn their place.
    pub pmi: Pmi,
    /// They connect for PMI-1 at a port of the loopback interface.
    pub pmi_port: bool,
    /// How long all agents together may take to be there.
    pub start_limit: Option<Duration>,
    /// How long a host may be silent before it counts as lost.
    pub host_limit: Option<Duration>,
    /// Hosts that come by themselves.
    pub join: JoinWish,
}

impl JobWish {
    /// Whether lines say whose they are.
    pub fn has_labels(&self) -> bool {
        self.labels || self.label.is_some()
    }

    /// Whether anything stands before lines.
    pub fn marks_lines(&self) -> bool {
        self.has_labels() || self.timestamps
    }

    /// What a world of `size` ranks hears when it asks how many there can be. `None`: nobody knows.
    pub fn universe_of(&self, size: u32) -> Option<u32> {
        match self.universe {
            None => Some(size),
            Some(Universe::Of(size)) => Some(size),
            Some(Universe::Unknown) => None,
        }
    }

    /// Where what a rank writes to `stream` goes.
    pub fn stream(&self, stream: Stream) -> Stream {
        if self.merges_errors { Stream::Out } else { stream }
    }
}

/// What the command line says about hosts that come by themselves. What it does not say the environment may.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JoinWish {
    /// `--join`: where the first host is.
    pub place: Option<String>,
    /// `--join-hosts`: how many there are.
    pub hosts: Option<u32>,
    /// `--join-index`: our place among them.
    pub index: Option<u32>,
    /// `--secret-file`: what all of them share.
    pub secret_file: Option<OsString>,
}

/// One block of the command line.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct BlockWish {
    /// `-n`.
    pub ranks: Option<u32>,
    /// `--wdir`.
    pub wdir: Option<OsString>,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The hosts of this block only; empty where it uses the job's.
    pub hosts: Vec<HostWish>,
    /// `-env`, in order, after the job's exports.
    pub exports: Vec<Export>,
    /// What this block passes on of our environment, where it says so.
    pub inherit: Option<Inherit>,
}

/// Which variables of our environment the ranks get.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Inherit {
    /// All but other launchers' own.
    #[default]
    All,
    /// These only.
    Only(Vec<OsString>),
}

/// A variable for the ranks' environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// `-x NAME`: as it is here.
    Same(OsString),
    /// `-x NAME*`: all that start so, as they are here.
    Prefix(OsString),
    /// `-x NAME=VALUE`.
    Value(OsString, OsString),
}

/// How agents are started on other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AgentWish {
    /// By which kind of command.
    pub kind: AgentKind,
    /// The command in its place, with its first arguments: `ssh -F config`.
    pub command: Option<OsString>,
    /// Where mpirun is on the other hosts; where it is here, if nobody says.
    pub program: Option<OsString>,
}

/// A kind of command that starts agents on other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AgentKind {
    /// `srun` inside a job of Slurm's, else ssh.
    #[default]
    Auto,
    /// `ssh [user@]HOST COMMAND`, and whatever takes the same arguments.
    Ssh,
    /// `srun -w HOST -N 1 -n 1 COMMAND`.
    Srun,
    /// None: all ranks are on this host.
    Fork,
}

/// Sons of each node of the tree of agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeWidth(pub u32);

impl Default for TreeWidth {
    fn default() -> TreeWidth {
        TreeWidth(32)
    }
}

/// How many ranks there can be (MPI_UNIVERSE_SIZE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Universe {
    /// So many.
    Of(u32),
    /// Nobody knows.
    Unknown,
}

/// How programs learn their place in the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pmi {
    /// What the program is made for: PMIx for Open MPI's, PMI-1 for all others.
    #[default]
    Auto,
    /// PMI-1; clients that speak PMI-2 on the same connection are answered too.
    One,
    /// PMI-2.
    Two,
    /// PMIx, by way of libpmix.
    X,
}

/// A command line that cannot be followed: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    pub(crate) fn new(what: impl Into<String>) -> Usage {
        Usage(what.into())
    }
}

/// No machine runs so many processes; a larger number is a slip of the finger.
const RANKS_MAX: u32 = 1 << 20;

/// Takes the words after the program's name apart, and reads the files that they name.
///
/// # Errors
/// One sentence that says what is wrong and what to write.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Wish, Usage> {
    parse_with(words, &|path| std::fs::read(path))
}

/// The same, with another way to read files.
///
/// # Errors
/// One sentence that says what is wrong and what to write.
pub fn parse_with(words: impl IntoIterator<Item = OsString>, read: Read<'_>) -> Result<Wish, Usage> {
    let mut line = Line { words: words.into_iter().collect(), read, in_file: false };
    let mut job = JobWish::default();
    let mut asked = Asked::default();
    let mut asked_of_blocks = Vec::new();
    loop {
        let mut block =
            Given { job: &mut job, block: BlockWish::default(), hosts: Asked::default(), all: &mut asked };
        let end = line.block(&mut block)?;
        let Given { block, hosts, .. } = block;
        if let BlockEnd::Wish(wish) = end {
            return Ok(wish);
        }
        job.blocks.push(block);
        asked_of_blocks.push(hosts);
        if let BlockEnd::Line = end {
            break;
        }
    }
    for (block, mut own) in job.blocks.iter_mut().zip(asked_of_blocks) {
        if own.list.is_some() && own.file.is_none() {
            own.file.clone_from(&asked.file);
        }
        block.hosts = own.resolve()?;
    }
    job.hosts = asked.resolve()?;
    settle_line(&mut job)?;
    Ok(Wish::Job(job))
}

/// Takes the time limit from `MPIEXEC_TIMEOUT`, in seconds, where the line has none. Nothing, 0, and less mean none, as in
/// hydra; so does 0 on the line, as in Open MPI.
///
/// # Errors
/// The variable is no number of seconds.
pub fn settle_time_limit(job: &mut JobWish, variable: Option<OsString>) -> Result<(), Usage> {
    if let Some(text) = variable.filter(|text| job.time_limit.is_none() && !text.is_empty()) {
        let seconds = text.to_str().and_then(|text| text.parse::<f64>().ok());
        let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let is_number = seconds.is_some_and(|seconds| !seconds.is_nan());
        job.time_limit = Some(limit.filter(|_| is_number).ok_or_else(|| {
            Usage(format!("MPIEXEC_TIMEOUT={}: expected a number of seconds", text.display()))
        })?);
    }
    job.time_limit = job.time_limit.filter(|limit| !limit.is_zero());
    Ok(())
}

/// What follows from the whole line: contradictions, and numbers of ranks.
fn settle_line(job: &mut JobWish) -> Result<(), Usage> {
    if job.rank_file.is_some() && job.rank_map.is_some() {
        return Err(Usage::new("--rankfile and -rankmap both say where ranks go; leave one out"));
    }
    if job.pmi_port && matches!(job.pmi, Pmi::Two | Pmi::X) {
        return Err(Usage::new("-pmi-port is a way of PMI-1, and --pmi asks for another; leave one out"));
    }
    if job.blocks.len() > 1 {
        // As everywhere else: one rank for a block that does not say.
        job.blocks.iter_mut().for_each(|block| block.ranks = block.ranks.or(Some(1)));
    }
    let ranks: u64 = job.blocks.iter().filter_map(|block| block.ranks).map(u64::from).sum();
    if ranks > u64::from(RANKS_MAX) {
        return Err(Usage(format!("{ranks} ranks are more than the {RANKS_MAX} that can be started")));
    }
    Ok(())
}

/// Hosts that were asked for in a list and in files.
#[derive(Debug, Default)]
struct Asked {
    list: Option<Vec<HostWish>>,
    file: Option<Vec<HostWish>>,
}

impl Asked {
    fn resolve(self) -> Result<Vec<HostWish>, Usage> {
        match (self.list, self.file) {
            (Some(list), Some(file)) => hosts::choose(list, &file),
            (Some(hosts), None) | (None, Some(hosts)) => Ok(hosts),
            (None, None) => Ok(Vec::new()),
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one of them for each block of a command line")]
enum BlockEnd {
    Wish(Wish),
    Colon,
    Line,
}

/// The words that are left.
struct Line<'a> {
    words: VecDeque<OsString>,
    read: Read<'a>,
    /// They are out of a file of blocks.
    in_file: bool,
}

impl Line<'_> {
    fn block(&mut self, given: &mut Given<'_>) -> Result<BlockEnd, Usage> {
        given.block.program = loop {
            let Some(word) = self.words.pop_front() else {
                let after = if given.job.blocks.is_empty() { "" } else { " after ':'" };
                return Err(Usage(format!("no program given{after}; write: mpirun -n 4 ./program")));
            };
            if word == "--" {
                match self.words.pop_front() {
                    Some(program) => break program,
                    None => continue,
                }
            }
            if word == ":" {
                return Err(Usage::new("a program is missing before \":\""));
            }
            if word.is_empty() {
                return Err(Usage::new("the program's name is empty; is a variable not set?"));
            }
            let bytes = word.as_bytes();
            match bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-")) {
                None | Some([]) => break word,
                Some(option) => {
                    if let Some(wish) = self.option(&word, option, given)? {
                        return Ok(BlockEnd::Wish(wish));
                    }
                }
            }
        };
        while let Some(word) = self.words.pop_front() {
            if word == ":" {
                return Ok(BlockEnd::Colon);
            }
            given.block.args.push(word);
        }
        Ok(BlockEnd::Line)
    }
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[cfg(test)]
mod rows;
#[cfg(test)]
mod tests;
