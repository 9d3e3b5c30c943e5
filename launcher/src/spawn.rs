//! From a block of the command line to running processes: where the program is, and what each rank is born with.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use rustix::process::{Pid, Resource, Rlimit};

use crate::cores::Cores;
use crate::env;
use crate::proto::{Block, Launch, Seat};
use crate::supervise::code;
use crate::sys::{self, Birth};

/// Why a job cannot be started, with the exit code for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What mpirun should exit with.
    pub code: u8,
    /// What is wrong and what to do.
    pub why: String,
}

/// A block whose program has been found.
#[derive(Debug)]
pub struct Plan<'a> {
    block: &'a Block,
    program: PathBuf,
    wdir: PathBuf,
}

impl Plan<'_> {
    /// The file that is to be executed.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// Our ends of what connects us with a rank. The two outputs are nonblocking, as is the PMI connection.
#[derive(Debug)]
pub struct Newborn {
    /// Its process, also its process group.
    pub pid: Pid,
    /// Its PMI connection; none where it speaks PMIx.
    pub pmi: Option<UnixStream>,
    /// What it writes to standard output.
    pub out: OwnedFd,
    /// What it writes to standard error.
    pub err: OwnedFd,
    /// Its standard input, where it has one of its own.
    pub input: Option<OwnedFd>,
}

/// What all ranks of a host share.
#[derive(Debug)]
pub struct Nursery<'a> {
    /// The job.
    pub launch: &'a Launch,
    /// How many ranks this host has.
    pub locals: u32,
    /// Limit of descriptors that the user had.
    pub descriptors: Rlimit,
    /// Name of this host.
    pub host: &'a str,
    /// This process.
    pub agent: Pid,
    /// The board that ranks write down on what they wait for, where there is one.
    pub board: Option<RawFd>,
    /// Where ranks may run; unknown where the system does not say.
    pub cores: Option<Cores>,
    /// Variables that only ranks of this host have, as far as the user does not set them.
    pub extras: Vec<(&'static str, String)>,
}

/// Finds the program and the working directory of a block.
///
/// # Errors
/// 127 where there is no such program, 126 where it cannot be executed, 2 where there is no such directory.
pub fn plan<'a>(launch: &Launch, block: &'a Block) -> Result<Plan<'a>, Refusal> {
    let dir = Path::new(OsStr::from_bytes(&launch.dir));
    let wdir = match &block.wdir {
        Some(wdir) => dir.join(OsStr::from_bytes(wdir)),
        None => dir.to_owned(),
    };
    if !wdir.is_dir() {
        let what = if wdir.exists() { "is not a directory" } else { "does not exist" };
        let why = format!("the working directory {} {what}", wdir.display());
        return Err(Refusal { code: code::USAGE, why });
    }
    let wished = launch.env(block).iter().find(|(name, _)| name == b"PATH");
    let path = wished.map_or(&launch.path, |(_, path)| path);
    let near = block.path.iter().flatten().chain(block.path.iter().map(|_| &b':')).chain(path);
    let path: Vec<u8> = near.copied().collect();
    let program = find(OsStr::from_bytes(&block.program), dir, &wdir, OsStr::from_bytes(&path))?;
    Ok(Plan { block, program, wdir })
}

/// A program as a shell finds it: by its path where it has a slash (from the launch directory, then from the working
/// directory), else along PATH.
fn find(program: &OsStr, dir: &Path, wdir: &Path, path: &OsStr) -> Result<PathBuf, Refusal> {
    let shown = program.display();
    let refuse = |code, why| Err(Refusal { code, why });
    if program.as_bytes().contains(&b'/') {
        let near = dir.join(program);
        let found = if near.exists() { near } else { wdir.join(program) };
        return match judge(&found) {
            Fit::Program => Ok(found),
            Fit::Nothing => refuse(code::NOT_FOUND, format!("cannot find the program {shown}: no such file")),
            Fit::Directory => refuse(
                code::NOT_EXECUTABLE,
                format!("cannot run {shown}: it is a directory; name a program in it"),
            ),
            Fit::Forbidden => refuse(
                code::NOT_EXECUTABLE,
                format!(
                    "cannot run {shown}: it is not executable (or its folder is closed to you); chmod +x {shown}"
                ),
            ),
        };
    }
    let mut best = Fit::Nothing;
    for folder in std::env::split_paths(path) {
        let candidate = dir.join(folder).join(program);
        match judge(&candidate) {
            Fit::Program => return Ok(candidate),
            Fit::Nothing => {}
            fit => best = fit,
        }
    }
    if let Fit::Forbidden = best {
        return refuse(
            code::NOT_EXECUTABLE,
            format!("cannot run {shown}: the one on PATH is not executable"),
        );
    }
    match judge(&dir.join(program)) {
        Fit::Program => refuse(
            code::NOT_FOUND,
            format!("cannot find the program {shown} on PATH; for the one in this folder write ./{shown}"),
        ),
        Fit::Directory => refuse(
            code::NOT_EXECUTABLE,
            format!("cannot run {shown}: it is a directory, and no program of that name is on PATH"),
        ),
        _ => refuse(
            code::NOT_FOUND,
            format!("cannot find the program {shown}: it is not on PATH, nor in this folder"),
        ),
    }
}

enum Fit {
    Program,
    Nothing,
    Directory,
    Forbidden,
}

fn judge(path: &Path) -> Fit {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Fit::Directory,
        Ok(_) if rustix::fs::access(path, Access::EXEC_OK).is_ok() => Fit::Program,
        Ok(_) => Fit::Forbidden,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Fit::Forbidden,
        Err(_) => Fit::Nothing,
    }
}

impl Nursery<'_> {
    /// Starts `rank` on its seat. `has_input`: its standard input comes through us; else it is empty. `pmix`: what its
    /// PMIx server wants in its environment; without it, it gets a PMI connection. Never both: MPICH refuses to choose.
    ///
    /// # Errors
    /// 126 where the system does not take it for a program, 1 where the system has no room for it.
    pub fn start(
        &self,
        plan: &Plan<'_>,
        rank: u32,
        seat: &Seat,
        has_input: bool,
        pmix: Option<Vec<(OsString, OsString)>>,
    ) -> Result<Newborn, Refusal> {
        let trouble = |error: io::Error| Refusal {
            code: code::INTERNAL,
            why: format!("cannot start rank {rank}: {error}; {}", advice(&error)),
        };
        let mut command = self.command(plan, rank, seat, pmix.is_some());
        let (pmi, theirs) = match pmix {
            Some(variables) => {
                command.envs(variables).envs(self.as_open_mpi_has_it(rank, seat));
                (None, None)
            }
            None => {
                let (pmi, theirs) = UnixStream::pair().map_err(trouble)?;
                pmi.set_nonblocking(true).map_err(trouble)?;
                command.envs(self.as_pmi_has_it(rank, seat, theirs.as_raw_fd()));
                (Some(pmi), Some(theirs))
            }
        };
        let pmi_fd = theirs.as_ref().map(AsRawFd::as_raw_fd);
        sys::bear(&mut command, Birth { pmi_fd, descriptors: self.descriptors, agent: self.agent });
        command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
        let confined = self.cores.as_ref().and_then(|cores| cores.bind(&seat.cpus));
        let child = command.spawn();
        drop(confined);
        let mut child = child.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => self.not_a_program(plan, "the interpreter that it names does not exist"),
            Some(libc::EACCES) => self.not_a_program(plan, "permission denied"),
            _ => trouble(error),
        })?;
        let pid =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("the pid of a child is positive");
        let ours = |fd: Option<OwnedFd>| {
            let fd = fd.expect("asked for a pipe above");
            rustix::io::ioctl_fionbio(&fd, true).map(|()| fd)
        };
        let out = ours(child.stdout.take().map(OwnedFd::from)).map_err(|errno| trouble(errno.into()))?;
        let err = ours(child.stderr.take().map(OwnedFd::from)).map_err(|errno| trouble(errno.into()))?;
        let input = match child.stdin.take() {
            Some(input) => Some(ours(Some(input.into())).map_err(|errno| trouble(errno.into()))?),
            None => None,
        };
        Ok(Newborn { pid, pmi, out, err, input })
    }

    fn command(&self, plan: &Plan<'_>, rank: u32, seat: &Seat, is_pmix: bool) -> Command {
        let os = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let size = self.launch.size();
        let mut command = Command::new(&plan.program);
        command
            .arg0(os(&plan.block.program))
            .args(plan.block.args.iter().map(os))
            .current_dir(&plan.wdir)
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            .envs(self.launch.env(plan.block).iter().map(|(name, value)| (os(name), os(value))));
        if is_pmix {
            // The user may set them, and then there would be two places.
            let names = self.launch.env(plan.block).iter().map(|(name, _)| os(name));
            for name in names.filter(|name| env::is_a_place(name)) {
                command.env_remove(name);
            }
        }
        command
            .env("SELVEDGE_RANK", rank.to_string())
            .env("SELVEDGE_SIZE", size.to_string())
            .env("SELVEDGE_LOCAL_RANK", seat.local.to_string());
        let is_wished =
            |name: &str| self.launch.env(plan.block).iter().any(|(known, _)| known == name.as_bytes());
        command
            .envs(self.extras.iter().filter(|(name, _)| !is_wished(name)).map(|(name, value)| (name, value)));
        command.env("SELVEDGE_JOB", &self.launch.job);
        if let Some(board) = self.board {
            command.env("SELVEDGE_STATUS", format!("{board}:{}", seat.local));
            sys::hand_down(&mut command, board);
        }
        if plan.block.wdir.is_some() {
            command.env("PWD", &plan.wdir);
        }
        command
    }

    /// Where a rank finds its PMI connection, and what else MPICH's launcher tells it.
    fn as_pmi_has_it(&self, rank: u32, seat: &Seat, pmi_fd: i32) -> Vec<(&'static str, String)> {
        let spawned = self.launch.spawner.as_ref().map(|_| ("PMI_SPAWNED", "1".to_owned()));
        let place = [
            ("PMI_FD", pmi_fd.to_string()),
            ("PMI_RANK", rank.to_string()),
            ("PMI_SIZE", self.launch.size().to_string()),
            ("MPI_LOCALRANKID", seat.local.to_string()),
            ("MPI_LOCALNRANKS", self.locals.to_string()),
            ("PMI_HOSTNAME", self.host.to_owned()),
        ];
        place.into_iter().chain(spawned).collect()
    }

    /// What scripts around programs of Open MPI look at: its launcher sets these beside PMIx.
    fn as_open_mpi_has_it(&self, rank: u32, seat: &Seat) -> [(&'static str, String); 5] {
        [
            ("OMPI_COMM_WORLD_RANK", rank.to_string()),
            ("OMPI_COMM_WORLD_SIZE", self.launch.size().to_string()),
            ("OMPI_COMM_WORLD_LOCAL_RANK", seat.local.to_string()),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", self.locals.to_string()),
            ("OMPI_COMM_WORLD_NODE_RANK", seat.local.to_string()),
        ]
    }

    fn not_a_program(&self, plan: &Plan<'_>, why: &str) -> Refusal {
        let why = format!("cannot run {}: {why}", plan.program.display());
        Refusal { code: code::NOT_EXECUTABLE, why }
    }
}

/// What to do about a system that has no room for another process.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            "raise the limit of processes (ulimit -u, or the container's) or use fewer ranks"
        }
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of descriptors (ulimit -n) or use fewer ranks",
        Some(libc::ENOMEM) => "use fewer ranks, or a machine with more memory",
        Some(libc::E2BIG) => "the arguments and the environment together are too long",
        _ => "this is the system's answer",
    }
}

/// Descriptors an agent needs: for each rank two outputs and the PMI connection; for all of them input; its own ten, and
/// eight that are open while a rank is being started. Those of links to agents below come on top, 3 for each.
pub fn descriptors_for(ranks: u32) -> u64 {
    3 * u64::from(ranks) + 1 + 10 + 8
}

/// Raises the soft limit of descriptors to the hard one. Gives back what it was.
pub fn raise_limit() -> Rlimit {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    // Where it cannot be raised, what there is may do.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    before
}

/// Whether there is room for the descriptors of so many ranks.
///
/// # Errors
/// 1 where the limit is too low for them.
pub fn check_room(ranks: u32) -> Result<(), Refusal> {
    let needed = descriptors_for(ranks);
    match rustix::process::getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(Refusal {
            code: code::INTERNAL,
            why: format!(
                "{ranks} ranks need {needed} file descriptors and the limit is {limit}; raise it (ulimit -Hn) or use \
                 fewer ranks"
            ),
        }),
        _ => Ok(()),
    }
}
