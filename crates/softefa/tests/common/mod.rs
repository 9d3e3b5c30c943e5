//! Running other people's programs on software devices: libfabric's `fi_info` and `fi_pingpong`, with the libfabric of the
//! distribution or one out of a wheel. Everything is bounded in time and its process group ends with it.

use std::ffi::OsString;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use softefa::tally::Tallies;

/// A libfabric to test with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fabric {
    /// The distribution's, with the programs.
    Distribution,
    /// 2.x, out of the wheel of MPICH.
    Wheel,
    /// 2.x, as Intel builds it.
    Intel,
}

impl Fabric {
    /// Makes a program use this libfabric. Panics, saying what to install, when it is not there.
    fn choose(self, command: &mut Command) {
        let (variable, place) = match self {
            Fabric::Distribution => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let here = std::env::split_paths(&path).any(|folder| folder.join("fi_pingpong").exists());
                assert!(
                    here,
                    "install the packages libfabric1, libfabric-bin and ibverbs-providers (Debian, Ubuntu)"
                );
                return;
            }
            Fabric::Wheel => ("SELVEDGE_TEST_LIBFABRIC_2", "wheels/mpich/lib/mpich/libfabric.so.1"),
            Fabric::Intel => ("SELVEDGE_TEST_LIBFABRIC_INTEL", "wheels/impi-rt/lib/libfabric.so.1"),
        };
        let given = std::env::var_os(variable).map(PathBuf::from).or_else(|| below_target(place));
        let library = given.unwrap_or_else(|| {
            panic!("{variable} is not set; `cargo xtask test` brings the wheels and sets it to the path of a libfabric.so.1 of version 2")
        });
        let folder = library.parent().expect("a file has a folder");
        // Where the plug-ins are: beside the library or one below.
        let below = folder.join("libfabric");
        let plugins = if below.exists() { below } else { folder.to_path_buf() };
        command.env("LD_LIBRARY_PATH", folder).env("FI_PROVIDER_PATH", plugins);
    }
}

/// The device as a library. Cargo builds it with the tests and leaves it beside them, not beside the program.
pub(crate) fn device() -> PathBuf {
    below_target("libsoftefa.so").expect("cargo has built it with this test")
}

/// A file below the target directory that this test was built in.
fn below_target(place: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().map(|folder| folder.join(place)).find(|path| path.exists())
}

/// A folder that is removed with the value.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("softefa-test-{}-{}", std::process::id(), number()));
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A number that this process has not used.
fn number() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Two addresses of the loop that no other test uses.
fn hosts() -> String {
    let ([high, low], own) = ((std::process::id() as u16).to_be_bytes(), number());
    let [_, last] = (2 * own).to_be_bytes();
    format!("127.{}.{low}.{},127.{}.{low}.{}", 128 | high, last, 128 | high, last | 1)
}

/// What a program left.
pub(crate) struct Outcome {
    /// `None` when it was stopped for taking too long.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn is_ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// For messages of failed tests.
    pub(crate) fn text(&self) -> String {
        format!("{:?}\n{}\n{}", self.status, self.stdout, self.stderr)
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    readers: [std::thread::JoinHandle<String>; 2],
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    fn start(command: &mut Command) -> Running {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program exists");
        let out = child.stdout.take().expect("it was piped");
        let errors = child.stderr.take().expect("it was piped");
        Running { child, readers: [reader(out), reader(errors)] }
    }

    /// Kills it and what it has started, without a word.
    pub(crate) fn kill(&self) {
        let group = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).expect("it runs");
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end until `deadline`; then its whole group is killed.
    fn finish(mut self, deadline: Instant) -> Outcome {
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.child.try_wait().expect("it is our child");
        let group = rustix::process::Pid::from_child(&self.child);
        // What it has started and left behind, too.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
        let [stdout, stderr] = self.readers.map(|reader| reader.join().expect("it does not panic"));
        Outcome { status, stdout, stderr }
    }
}

/// A way to run programs on devices.
pub(crate) struct Bench {
    fabric: Fabric,
    options: Vec<OsString>,
    variables: Vec<(&'static str, &'static str)>,
    hosts: String,
    work: Folder,
    pub(crate) limit: Duration,
}

impl Bench {
    pub(crate) fn new(fabric: Fabric) -> Bench {
        Bench {
            fabric,
            options: Vec::new(),
            variables: Vec::new(),
            hosts: hosts(),
            work: Folder::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// Adds options of `softefa run`.
    pub(crate) fn with(mut self, options: &[&str]) -> Bench {
        self.options.extend(options.iter().map(OsString::from));
        self
    }

    /// Adds a variable for the program.
    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Bench {
        self.variables.push((name, value));
        self
    }

    fn command(&self, host: u16, tree: Option<&Path>, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_softefa"));
        command.args(["run", "--addresses", &self.hosts, "--host", &host.to_string()]);
        command.arg("--library").arg(device());
        // PSM, which is part of the distribution's libfabric, leaves the trace of a crash in the working directory.
        command.current_dir(&self.work.0);
        command.args(&self.options);
        if let Some(tree) = tree {
            command.arg("--tree").arg(tree);
        }
        command.arg("--").args(words);
        self.fabric.choose(&mut command);
        command.env("FI_PROVIDER", "efa").envs(self.variables.iter().copied());
        command
    }

    /// Runs one program on host 0.
    pub(crate) fn run(&self, words: &[&str]) -> Outcome {
        Running::start(&mut self.command(0, None, words)).finish(Instant::now() + self.limit)
    }

    /// Runs `fi_pingpong` between hosts 0 and 1: how server and client ended, and what the devices counted.
    pub(crate) fn pingpong(&self, options: &[&str]) -> (Outcome, Outcome, Tallies) {
        let tree = Folder::new();
        let port = free_port();
        let deadline = Instant::now() + self.limit;
        let words = |rest: &[&str]| -> Vec<String> {
            let all = ["fi_pingpong", "-p", "efa"].iter().chain(options).chain(rest);
            all.map(|word| word.to_string()).collect()
        };
        let start = |host, words: Vec<String>| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Running::start(&mut self.command(host, Some(&tree.0), &words))
        };
        let mut server = start(0, words(&["-B", &port.to_string()]));
        while !is_listening(port) && !server.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let client = start(1, words(&["-P", &port.to_string(), "127.0.0.1"]));
        let client = client.finish(deadline);
        // A server whose client has failed may wait for ever.
        let grace = Instant::now() + Duration::from_secs(if client.is_ok() { 10 } else { 1 });
        let server = server.finish(grace.min(deadline + Duration::from_secs(1)));
        let tallies = Tallies::read(&tree.0).expect("the folder is there");
        (server, client, tallies)
    }

    /// The address of host 1.
    pub(crate) fn second_host(&self) -> &str {
        self.hosts.split(',').nth(1).expect("there are two")
    }

    /// An endless `fi_pingpong`, in the middle of which `act` is called with the server. How the client ended, and
    /// how long after that.
    pub(crate) fn interrupted(&self, options: &[&str], act: impl FnOnce(&Running)) -> (Outcome, Duration) {
        let tree = Folder::new();
        let port = free_port().to_string();
        let deadline = Instant::now() + self.limit;
        let all = [&["fi_pingpong", "-p", "efa", "-I", "100000000"], options].concat();
        let start = |host, rest: &[&str]| {
            Running::start(&mut self.command(host, Some(&tree.0), &[all.as_slice(), rest].concat()))
        };
        let mut server = start(0, &["-B", &port]);
        while !is_listening(port.parse().expect("a number"))
            && !server.has_ended()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut client = start(1, &["-P", &port, "127.0.0.1"]);
        // Both have exchanged a good many messages.
        let runs = || Tallies::read(&tree.0).is_ok_and(|tallies| tallies.total("recv_wrs") > 200);
        while !runs() && !client.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        act(&server);
        let began = Instant::now();
        let client = client.finish(deadline);
        let took = began.elapsed();
        server.finish(Instant::now());
        (client, took)
    }
}

/// A port of the loop that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loop has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// Whether somebody listens on `port`, without talking to it: `fi_pingpong` takes one connection only.
fn is_listening(port: u16) -> bool {
    let ends = format!(":{port:04X}");
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&ends)) && fields.get(3) == Some(&"0A")
    })
}
