//! From a block of the command line to running processes: where the program is, and what each rank is born with.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit};

use crate::cores::Cores;
use crate::env;
use crate::fork::{Birth, Image, Litter};
use crate::proto::{Block, Launch, Seat};
use crate::supervise::code;

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
    /// Its PMI connection; none where it speaks PMIx, or is to connect at a port.
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
    pub board: Option<BorrowedFd<'a>>,
    /// Where ranks connect for PMI, where they inherit no connection.
    pub port: Option<SocketAddr>,
    /// Where ranks may run; unknown where the system does not say.
    pub cores: Option<Cores>,
    /// Variables that only ranks of this host have, as far as the user does not set them.
    pub extras: Vec<(&'static str, String)>,
    /// Those that have been started.
    pub litter: Litter,
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
        Fit::Forbidden => refuse(
            code::NOT_FOUND,
            format!(
                "cannot find the program {shown} on PATH, and the one in this folder is not executable; chmod +x {shown}, and write ./{shown}"
            ),
        ),
        Fit::Nothing => refuse(
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

/// Why the system says of a program that is there that it is not: what is to run it is missing.
fn no_interpreter(program: &Path) -> String {
    // As much as the kernel reads of the line (execve(2)).
    let mut first = Vec::new();
    let _ = File::open(program).and_then(|file| file.take(256).read_to_end(&mut first));
    let script =
        first.strip_prefix(b"#!").map(|rest| rest.split(|byte| *byte == b'\n').next().unwrap_or(rest));
    let Some(line) = script else { return "the interpreter that it names does not exist".into() };
    let line = line.trim_ascii_start();
    if line.ends_with(b"\r") {
        return format!(
            "its lines end as on Windows, and with that mark its interpreter is not found; sed -i 's/\\r$//' {}",
            program.display()
        );
    }
    let name = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    format!("its first line names {}, which does not exist", OsStr::from_bytes(name).display())
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
    /// Starts `rank` on its seat, and does not wait for it: [`settle`](Nursery::settle) does. `has_input`: its standard input
    /// comes through us; else it is empty. `pmix`: what its PMIx server wants in its environment; without it, it gets a PMI
    /// connection, or is told where. Never both: MPICH refuses to choose.
    ///
    /// # Errors
    /// 1 where the system has no room for it.
    pub fn start(
        &self,
        plan: &Plan<'_>,
        rank: u32,
        seat: &Seat,
        has_input: bool,
        pmix: Option<Vec<(OsString, OsString)>>,
    ) -> Result<Newborn, Refusal> {
        self.bear(plan, rank, seat, has_input, pmix).map_err(|error| trouble(rank, &error))
    }

    fn bear(
        &self,
        plan: &Plan<'_>,
        rank: u32,
        seat: &Seat,
        has_input: bool,
        pmix: Option<Vec<(OsString, OsString)>>,
    ) -> io::Result<Newborn> {
        let mut variables = self.variables(plan, rank, seat, pmix.is_some());
        let (pmi, theirs) = match (pmix, self.port) {
            (Some(own), _) => {
                variables.extend(own);
                variables.extend(owned(self.as_open_mpi_has_it(rank, seat)));
                (None, None)
            }
            (None, Some(port)) => {
                variables.extend(owned(self.as_pmi_has_it(seat)));
                variables.extend(owned([("PMI_PORT", port.to_string()), ("PMI_ID", rank.to_string())]));
                (None, None)
            }
            (None, None) => {
                let (pmi, theirs) = UnixStream::pair()?;
                pmi.set_nonblocking(true)?;
                variables.extend(owned(self.as_pmi_has_it(seat)));
                variables.extend(owned([
                    ("PMI_FD", theirs.as_raw_fd().to_string()),
                    ("PMI_RANK", rank.to_string()),
                    ("PMI_SIZE", self.launch.size().to_string()),
                ]));
                (Some(pmi), Some(theirs))
            }
        };
        let os = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let words = [&plan.block.program].into_iter().chain(&plan.block.args).map(os);
        let image = Image::new(&plan.program, words, &variables, &plan.wdir)?;
        let (out, their_out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, their_err) = pipe_with(PipeFlags::CLOEXEC)?;
        let (their_input, input) = match has_input {
            true => pipe_with(PipeFlags::CLOEXEC).map(|(theirs, ours)| (Some(theirs), Some(ours)))?,
            false => (None, None),
        };
        for ours in [&out, &err].into_iter().chain(&input) {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let birth = Birth {
            stdio: [
                their_input.as_ref().map_or(self.litter.nothing(), AsFd::as_fd),
                their_out.as_fd(),
                their_err.as_fd(),
            ],
            kept: [theirs.as_ref().map(AsFd::as_fd), self.board],
            descriptors: self.descriptors,
            parent: self.agent,
            cpus: self.cores.as_ref().and_then(|cores| cores.set_of(&seat.cpus)),
        };
        let pid = self.litter.fork(&image, &birth, rank)?;
        Ok(Newborn { pid, pmi, out, err, input })
    }

    /// Waits until all that were started run their programs. `program`: what a rank was to become.
    ///
    /// # Errors
    /// 126 where the system does not take it for a program, 1 where it has no room for it; of the first rank.
    pub fn settle<'p>(self, program: impl FnOnce(u32) -> Option<&'p Path>) -> Result<(), Refusal> {
        let waited = self.litter.settle().map_err(|error| trouble(0, &error))?;
        let Some((rank, error)) = waited else { return Ok(()) };
        let path = program(rank).unwrap_or(Path::new("the program"));
        let why = match error.raw_os_error() {
            Some(libc::ENOENT) => no_interpreter(path),
            Some(libc::EACCES) => "permission denied".into(),
            _ => return Err(trouble(rank, &error)),
        };
        Err(Refusal { code: code::NOT_EXECUTABLE, why: format!("cannot run {}: {why}", path.display()) })
    }

    /// What a rank finds in its environment, but for how it reaches its launcher.
    fn variables(
        &self,
        plan: &Plan<'_>,
        rank: u32,
        seat: &Seat,
        is_pmix: bool,
    ) -> BTreeMap<OsString, OsString> {
        let os = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let wished = self.launch.env(plan.block).iter().map(|(name, value)| (os(name), os(value)));
        // The user may set what says where a rank is, and then there would be two places.
        let mut all: BTreeMap<_, _> =
            wished.filter(|(name, _)| !(is_pmix && env::is_a_place(name))).collect();
        for (name, value) in &self.extras {
            all.entry(OsString::from(*name)).or_insert_with(|| value.into());
        }
        all.extend(owned([
            ("SELVEDGE_RANK", rank.to_string()),
            ("SELVEDGE_SIZE", self.launch.size().to_string()),
            ("SELVEDGE_LOCAL_RANK", seat.local.to_string()),
            ("SELVEDGE_JOB", self.launch.job.clone()),
        ]));
        if let Some(board) = self.board {
            all.extend(owned([("SELVEDGE_STATUS", format!("{}:{}", board.as_raw_fd(), seat.local))]));
        }
        if plan.block.wdir.is_some() {
            all.insert("PWD".into(), plan.wdir.clone().into_os_string());
        }
        all
    }

    /// What MPICH's launcher tells a rank beside how it reaches its PMI server.
    fn as_pmi_has_it(&self, seat: &Seat) -> Vec<(&'static str, String)> {
        let spawned = self.launch.spawner.as_ref().map(|_| ("PMI_SPAWNED", "1".to_owned()));
        let place = [
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
}

/// For the ranks of this host.
///
/// # Errors
/// 1 where there are not even descriptors for it.
pub fn litter() -> Result<Litter, Refusal> {
    Litter::new().map_err(|error| trouble(0, &error))
}

fn owned(
    variables: impl IntoIterator<Item = (&'static str, String)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.into_iter().map(|(name, value)| (name.into(), value.into()))
}

fn trouble(rank: u32, error: &io::Error) -> Refusal {
    let why = format!("cannot start rank {rank}: {error}; {}", advice(error));
    Refusal { code: code::INTERNAL, why }
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
