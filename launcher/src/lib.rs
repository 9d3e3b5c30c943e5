//! `mpirun`: starts the ranks of a job, gives each its place by PMI-1, passes on what they read and write, and leaves
//! nothing behind, whoever dies.
//!
//! ```text
//!   terminal, pipe, file                 one node
//!         |                  +---------------------------------+
//!   +-----------+   frames   |  +-------+  PMI-1, pipes  +------+
//!   |   front   |<---------->|  | agent |<-------------->| rank | ...
//!   +-----------+ socketpair |  +-------+                +------+
//!                            +---------------------------------+
//! ```
//! Two processes of one program: [`front`] is what the user talks to, [`agent`] is the parent of the ranks. Either may
//! be killed at any moment: the agent sees the end of its connection and ends the ranks and all that they have started;
//! the ranks die with their agent by the kernel's hand, and what they have started falls to the front. With many hosts
//! there will be an agent on each.
//!
//! Read [`supervise`] for what decides the exit code, [`proto`] for what the two say to each other, [`output`] for how
//! lines stay whole. What is *not* here: the PMI protocol (`selvedge-boot`), placement on several hosts. All unsafe code
//! is in `sys.rs`. This crate is a library only so that its two programs, its tests and its examples share it.

pub mod agent;
pub mod args;
pub mod cores;
pub mod display;
pub mod env;
pub mod front;
pub mod hosts;
pub mod output;
pub mod place;
pub mod proto;
pub mod reap;
pub mod sink;
pub mod spawn;
pub mod supervise;
pub mod sys;
pub mod topology;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use crate::args::{BlockWish, JobWish, Wish};
use crate::proto::{Block, Launch};
use crate::supervise::code;

/// The argument that makes this program a node agent. Not for people.
pub(crate) const AGENT_ARGUMENT: &str = "--selvedge-node-agent";

/// `mpirun`, from the command line to the exit code.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == AGENT_ARGUMENT).is_some() {
        return agent::run().into();
    }
    match args::parse(words) {
        Ok(Wish::Help) => print(args::HELP),
        Ok(Wish::Version) => print(&format!("mpirun (Selvedge) {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Wish::Job(job)) => start(job),
        Err(usage) => complain(&usage.to_string(), code::USAGE),
    }
}

fn start(wish: JobWish) -> ExitCode {
    let (env, missing) = env::for_ranks(std::env::vars_os(), &wish.exports);
    for name in missing {
        eprintln!("mpirun: warning: -x {}: there is no such variable to pass on", name.display());
    }
    let Ok(dir) = std::env::current_dir() else {
        return complain("the directory it was called in does not exist any more", code::USAGE);
    };
    let job = match job_name() {
        Ok(job) => job,
        Err(error) => {
            return complain(&format!("no random number for the job's name: {error}"), code::INTERNAL);
        }
    };
    let launch = Launch {
        job,
        blocks: wish.blocks.into_iter().map(block).collect(),
        env: env.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect(),
        dir: dir.into_os_string().into_vec(),
        binding: wish.binding,
    };
    let manner = front::Manner { labels: wish.labels, time_limit: wish.time_limit };
    match front::run(launch, manner) {
        Ok(code) => code.into(),
        Err(error) => complain(&format!("cannot start: {error}"), code::INTERNAL),
    }
}

fn block(wish: BlockWish) -> Block {
    Block {
        ranks: wish.ranks.unwrap_or_else(cores),
        program: wish.program.into_vec(),
        args: wish.args.into_iter().map(OsString::into_vec).collect(),
        wdir: wish.wdir.map(OsString::into_vec),
    }
}

/// One rank for each core that we may use.
fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(1)
}

/// A name that no other job has, on this host or any other, now or later.
fn job_name() -> rustix::io::Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("selvedge-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random)))
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    // A reader that has gone away did not want the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(what: &str, code: u8) -> ExitCode {
    eprintln!("mpirun: {what}");
    code.into()
}
