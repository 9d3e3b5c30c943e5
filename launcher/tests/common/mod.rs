//! Running jobs from tests: every job has a marker in its environment by which processes that it leaves behind are found, a
//! folder for its temporary files, and a deadline after which it has failed. When it has ended nothing of it may be left:
//! no process, no entry of `/dev/shm`, no socket, no file.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

pub mod asking;
pub mod devices;
pub mod far;
pub mod party;
mod traces;

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use traces::Traces;

/// Generous: machines are busy, and what hangs, hangs for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// A job that has not started yet.
pub struct Job {
    pub command: Command,
    marker: String,
    traces: Traces,
}

/// How a job went.
pub struct Done {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: String,
    pub took: Duration,
}

impl Done {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("mpirun itself died: {}", self.status))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The lines of standard output, sorted: ranks write in any order.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// What mpirun itself has said: exactly one line.
    pub fn verdict(&self) -> &str {
        let own: Vec<&str> = self.err.lines().filter(|line| line.starts_with("mpirun: ")).collect();
        assert_eq!(own.len(), 1, "one line of mpirun's in {:?}", self.err);
        own[0]
    }
}

/// A running job.
pub struct Running {
    pub child: Child,
    marker: String,
    traces: Traces,
    started: Instant,
}

/// `mpirun` with these words.
pub fn mpirun<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Job {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpirun"));
    command.args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Job::of(command)
}

fn new_marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// `mpirun -n N sh -c SCRIPT`.
pub fn shell(ranks: u32, script: &str) -> Job {
    mpirun(["-n", &ranks.to_string(), "sh", "-c", script])
}

/// `mpirun -n N pmi_probe MODES`.
pub fn probe(ranks: u32, modes: &[&str]) -> Job {
    let ranks = ranks.to_string();
    let program = probe_path();
    let mut words = vec!["-n", &ranks, program.to_str().unwrap()];
    words.extend(modes);
    mpirun(words)
}

/// The example of that name, which `cargo test` builds beside us.
pub fn probe_path() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_mpirun")).with_file_name("examples").join("pmi_probe");
    assert!(path.exists(), "{} is not built; cargo build --examples does", path.display());
    path
}

/// Waits until so many lines have come on standard output.
pub fn read_lines(job: &mut Running, lines: usize) {
    let until = Instant::now() + DEADLINE;
    let out = job.child.stdout.as_mut().unwrap();
    let mut seen = 0;
    let mut byte = [0];
    while seen < lines {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap();
        let come = poll(&mut [PollFd::new(out, PollFlags::IN)], Some(&left)).unwrap();
        assert!(come > 0, "{seen} of {lines} lines in {DEADLINE:?}");
        out.read_exact(&mut byte).unwrap();
        seen += usize::from(byte[0] == b'\n');
    }
}

impl Job {
    /// Whatever command, watched like a job.
    pub fn of(mut command: Command) -> Job {
        let marker = new_marker();
        let traces = Traces::before(&marker);
        command.env("SELVEDGE_TEST_MARKER", &marker).env("TMPDIR", traces.tmp());
        Job { command, marker, traces }
    }

    pub fn env(mut self, name: &str, value: &str) -> Job {
        self.command.env(name, value);
        self
    }

    /// Signals do to it what they do to a program of a terminal, whatever this test was started by: under `nohup`, or in the
    /// background of a script, some are ignored by everybody who does not say otherwise.
    pub fn undisturbed(self) -> Job {
        self.through(|program| {
            let mut command = Command::new("env");
            command.arg("--default-signal").arg(program);
            command
        })
    }

    /// The same job by a command that runs the program it is given: on another host, or prepared in some way.
    pub fn through(mut self, wrapper: impl FnOnce(&OsStr) -> Command) -> Job {
        let mut command = wrapper(self.command.get_program());
        command.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap());
        }
        self.command.get_current_dir().map(|dir| command.current_dir(dir));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command = command;
        self
    }

    pub fn dir(mut self, dir: &std::path::Path) -> Job {
        self.command.current_dir(dir);
        self
    }

    pub fn input(mut self, input: Stdio) -> Job {
        self.command.stdin(input);
        self
    }

    pub fn start(mut self) -> Running {
        let started = Instant::now();
        let child = self.command.spawn().unwrap();
        Running { child, marker: self.marker, traces: self.traces, started }
    }

    /// Runs it to its end, and makes sure that nothing of it is left.
    pub fn run(self) -> Done {
        self.start().finish()
    }
}

impl Drop for Running {
    /// A test that has failed leaves nothing either.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// All processes of the job but mpirun itself, found by its marker.
    pub fn others(&self) -> Vec<i32> {
        let me = self.pid().as_raw_nonzero().get();
        processes_of(&self.marker).into_iter().filter(|pid| *pid != me).collect()
    }

    /// Waits until so many other processes of the job run.
    pub fn wait_for_others(&self, count: usize) -> Vec<i32> {
        eventually("all processes have started", || {
            let others = self.others();
            (others.len() >= count).then_some(others)
        })
    }

    /// The node agent: the only child of mpirun.
    pub fn agent(&self) -> rustix::process::Pid {
        let pid = self.pid().as_raw_nonzero().get();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let child = eventually("the agent has started", || {
            std::fs::read_to_string(&path).unwrap().split_whitespace().next()?.parse().ok()
        });
        rustix::process::Pid::from_raw(child).unwrap()
    }

    /// Waits for its end within the deadline; then nothing of it may be left.
    pub fn finish(mut self) -> Done {
        let drain = |pipe: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).unwrap();
                }
                bytes
            })
        };
        let out = drain(self.child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let err = drain(self.child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > DEADLINE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("mpirun was still running after {DEADLINE:?}");
            }
            thread::sleep(Duration::from_millis(2));
        };
        let took = self.started.elapsed();
        self.assert_nothing_left();
        let err = String::from_utf8_lossy(&err.join().unwrap()).into_owned();
        Done { status, out: out.join().unwrap(), err, took }
    }

    pub fn assert_nothing_left(&self) {
        eventually("no process of the job is left", || self.others().is_empty().then_some(()));
        let mut left = Vec::new();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            left = self.traces.left(self.child.id());
            if left.is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("left behind: {}", left.join(", "));
    }
}

/// Processes that were started with this marker in their environment.
fn processes_of(marker: &str) -> Vec<i32> {
    let wanted = format!("SELVEDGE_TEST_MARKER={marker}");
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        // Empty for a zombie, which is as good as gone.
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    })
    .collect()
}

/// What the processes of a job listen on: ports, and Unix sockets but the one for questions.
pub fn listening(job: &Running) -> Vec<String> {
    let mut pids = job.others();
    pids.push(job.pid().as_raw_nonzero().get());
    let mut found = Vec::new();
    for pid in pids {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = fds.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.to_owned()));
        let sockets: Vec<String> = links
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let table =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        for name in ["tcp", "tcp6", "udp", "udp6"] {
            for row in table(name).lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
                // 0A: listening. A datagram socket listens as soon as it has a port.
                let listens = row[3] == "0A" || name.starts_with("udp");
                if listens && sockets.iter().any(|inode| inode == row[9]) {
                    found.push(format!("{name} {}", row[1]));
                }
            }
        }
        for row in table("unix").lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            // The flag of a socket that listens.
            let listens = row[3] == "00010000" && sockets.iter().any(|inode| inode == row[6]);
            let path = row.get(7).copied().unwrap_or_default();
            if listens && !path.starts_with("@selvedge/") {
                found.push(format!("unix {path}"));
            }
        }
    }
    found
}

/// Asks until there is an answer; fails after some seconds.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that is removed when the test is over.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// In `/tmp`, where users without rights to our folders see it.
    pub fn in_tmp(name: &str) -> Folder {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("selvedge-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Folder(path)
    }

    /// Writes a file into it.
    pub fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
