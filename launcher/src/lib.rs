//! `mpirun`: starts the ranks of a job on one host or many, gives each its place by PMI, passes on what they read and
//! write, and leaves nothing behind, whoever dies.
//!
//! ```text
//!   terminal, pipe, file          this host
//!         |            +---------------------------------+
//!   +-----------+      |  +-------+     PMI, pipes    +------+
//!   |   front   |<------->| agent |<----------------->| rank | ...
//!   +-----------+ socket  +-------+                   +------+
//!      ^    ^          +---------------------------------+
//!      |    |  pipes of ssh, srun, ...    +-------+      +------+
//!      |    `---------------------------->| agent |<---->| rank | ...      another host
//!      v                                  +-------+      +------+
//!     ...                                   ^   ^
//!                                           v   v
//!                                       agents of further hosts
//! ```
//! Two processes of one program: [`front`] is what the user talks to, [`agent`] is the parent of the ranks of a host.
//! Agents form a tree with the front at its root. Anybody may be killed at any moment: an agent sees the end of its
//! connection, or its silence, and ends the ranks and all that they have started; the ranks die with their agent by the
//! kernel's hand, and what they have started falls to the front where that is on the same host, and elsewhere to a guardian.
//!
//! Read [`supervise`] for what decides the exit code, [`proto`] for what front and agents say to each other, [`tree`] and
//! [`start`] for how agents are brought about, `guard` for who stays when one is killed, [`hosts`] and [`place`] for who sits where,
//! [`output`] for how lines stay whole, [`pmix`] for programs of Open MPI, [`join`] for hosts that come by themselves. What is *not*
//! here: the PMI protocol (`selvedge-boot`) and PMIx (`selvedge-pmix`).
//! Nothing listens on a port, but libpmix on the loopback interface for ranks that speak PMIx, agents there where `-pmi-port`
//! asks for it, and the first host of a joined job while the others come. All unsafe code is in `sys.rs`. This crate is a library only so that its two programs, its tests and its examples share it.

pub mod agent;
pub mod args;
pub mod channel;
pub mod cores;
pub mod display;
pub mod elf;
pub mod env;
pub mod files;
pub mod fork;
pub mod front;
mod guard;
pub mod hosts;
pub mod join;
mod kin;
pub mod output;
pub mod place;
pub mod pmix;
pub mod proto;
pub mod pulse;
pub mod reap;
mod remarks;
pub mod sink;
pub mod spawn;
pub mod start;
pub mod supervise;
pub mod sys;
pub mod topology;
pub mod tree;
pub mod whereabouts;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use crate::args::{AgentKind, Export, Inherit, JobWish, Usage, Wish};
use crate::hosts::HostWish;
use crate::join::{Join, Role};
use crate::proto::Environment;
use crate::supervise::code;

/// The argument that makes this program a node agent. Not for people.
pub(crate) const AGENT_ARGUMENT: &str = "--selvedge-node-agent";

/// How long hosts may take to be there, where nobody says: ssh with a slow name service, and then some.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a host may be silent: a network that is being repaired, or a machine that swaps.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// `mpirun`, from the command line to the exit code.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == AGENT_ARGUMENT).is_some() {
        return agent::run().into();
    }
    match args::parse(words) {
        Ok(Wish::NewSecret(path)) => match join::secret::Secret::create(path.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(usage) => complain(&usage.to_string(), code::USAGE),
        },
        Ok(Wish::Job(job)) => start(job),
        Ok(wish) => print(&wish.text().unwrap_or_default()),
        Err(usage) => complain(&usage.to_string(), code::USAGE),
    }
}

fn start(mut wish: JobWish) -> ExitCode {
    if let Err(usage) = args::settle_time_limit(&mut wish, std::env::var_os("MPIEXEC_TIMEOUT")) {
        return complain(&usage.to_string(), code::USAGE);
    }
    if let Err(why) = report_pid(wish.report_pid.as_deref()) {
        return complain(&why, code::INTERNAL);
    }
    let limit = wish.start_limit.unwrap_or(START_LIMIT);
    let join = match join::wished(&wish, &|name| std::env::var_os(name)) {
        // Where there is only one host, nobody is waited for.
        Ok(Some(join)) if join.hosts() > 1 => match join.role(limit) {
            Ok(Role::First(address)) => Some((join, address)),
            Ok(Role::Other) => return join.attend(limit).into(),
            Err(why) => return complain(&why, code::INTERNAL),
        },
        Ok(_) => None,
        Err(usage) => return complain(&usage.to_string(), code::USAGE),
    };
    let job = match job_name() {
        Ok(job) => job,
        Err(error) => {
            return complain(&format!("no random number for the job's name: {error}"), code::INTERNAL);
        }
    };
    match order(wish, job, join).map(front::run) {
        Ok(Ok(code)) => code.into(),
        Ok(Err(error)) => complain(&format!("cannot start: {error}"), code::INTERNAL),
        Err(usage) => complain(&usage.to_string(), code::USAGE),
    }
}

/// Our process number, for whoever wants to send us signals.
fn report_pid(place: Option<&OsStr>) -> Result<(), String> {
    let line = format!("{}\n", std::process::id());
    match place {
        None => Ok(()),
        Some(place) if place == "-" => {
            print(&line);
            Ok(())
        }
        Some(place) if place == "+" => {
            tell(line.trim_end());
            Ok(())
        }
        Some(file) => {
            std::fs::write(file, line).map_err(|error| format!("cannot write {}: {error}", file.display()))
        }
    }
}

/// What the front needs: the wish, with its hosts and environments, and how to get there.
fn order(wish: JobWish, name: String, join: Option<(Join, SocketAddr)>) -> Result<front::Order, Usage> {
    let Ok(dir) = std::env::current_dir() else {
        return Err(Usage::new("the directory it was called in does not exist any more"));
    };
    let (envs, env_of_block) = environments(&wish);
    let variable = |name: &str| std::env::var_os(name);
    let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut hosts = match wish.join.place {
        Some(_) => Vec::new(),
        None => hosts::wished(&wish, &variable, &|path| std::fs::read(path))?,
    };
    if hosts.is_empty() {
        hosts.push(HostWish::named(nodename.clone()));
    }
    let is_here = |host: &HostWish| host.user.is_none() && start::is_here(&host.name, &nodename);
    let here = front::merge_here(&mut hosts, is_here);
    if wish.agent.kind == AgentKind::Fork
        && let Some(other) =
            hosts.iter().enumerate().find(|(index, _)| Some(*index) != here).map(|(_, host)| host)
    {
        let name = &other.name;
        return Err(Usage::new(format!("-launcher fork reaches no other host than this, and {name} is one")));
    }
    let limits = (wish.start_limit.unwrap_or(START_LIMIT), wish.host_limit.unwrap_or(SILENCE_LIMIT));
    let ways = start::ways(&wish.agent, &variable, limits, wish.tree_width.0)?;
    let dir = dir.into_os_string().into_vec();
    Ok(front::Order { wish, name, envs, env_of_block, dir, hosts, here, ways, join })
}

/// The environments of the blocks, each different one once, and which of them each block has.
fn environments(wish: &JobWish) -> (Vec<Environment>, Vec<u32>) {
    // Where every host has variables of its own, those of this one are for its own ranks.
    let is_passed = |name: &OsString| wish.join.place.is_none() || !env::is_of_a_host(name);
    let here: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| is_passed(name)).collect();
    let mut envs: Vec<Environment> = Vec::new();
    let mut kinds: Vec<(&Inherit, &[Export])> = Vec::new();
    let mut env_of_block = Vec::new();
    let mut warned: Vec<OsString> = Vec::new();
    for block in &wish.blocks {
        let kind = (block.inherit.as_ref().unwrap_or(&wish.inherit), block.exports.as_slice());
        let at = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            let (env, missing) = env::for_block(&here, wish, block);
            for name in missing.into_iter().filter(|name| !warned.contains(name)).collect::<Vec<_>>() {
                let name_shown = name.display();
                tell(format_args!("mpirun: warning: -x {name_shown}: there is no such variable to pass on"));
                warned.push(name);
            }
            envs.push(env.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect());
            kinds.push(kind);
            kinds.len() - 1
        });
        env_of_block.push(u32::try_from(at).expect("there are fewer environments than blocks"));
    }
    (envs, env_of_block)
}

/// A name that no other job has, on this host or any other, now or later.
fn job_name() -> rustix::io::Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("selvedge-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random)))
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let mut output = std::io::stdout();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        // Half a text in a file must not look like all of it; a reader that has gone away did not want the rest.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write standard output: {error}"), code::INTERNAL)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn complain(what: &str, code: u8) -> ExitCode {
    tell(format_args!("mpirun: {what}"));
    code.into()
}

/// Says a line on standard error. Where that is closed, or its disk is full, there is nobody to tell, and what is to be done is
/// done all the same: `eprintln!` would panic.
pub(crate) fn tell(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
