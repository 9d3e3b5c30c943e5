//! Who cleans up: a process of its own, which notices the end of the test however it comes.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use crate::error::{Doing, Error, not_started};

/// What it does, in the language that every machine has: so there is no program to build before a test can run.
const SCRIPT: &str = include_str!("guardian.sh");

/// Longest that cleaning up may take: the script's own five seconds, and as much again for a busy machine.
const CLEANING_MAX: Duration = Duration::from_secs(10);

/// A folder of a testbed's own, and the process that empties the networks and removes the folder.
#[derive(Debug)]
pub(crate) struct Guardian {
    folder: PathBuf,
    process: Child,
    /// Its closing is the sign. No other process has it.
    sign: Option<ChildStdin>,
}

impl Guardian {
    /// A new folder with its guardian.
    pub(crate) fn new() -> Result<Guardian, Error> {
        static TESTBEDS: AtomicU32 = AtomicU32::new(0);
        let number = TESTBEDS.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("selvedge-testbed-{}-{number}", process::id()));
        fs::create_dir(&folder).doing(format!("make {}", folder.display()))?;
        fs::write(folder.join("networks"), "").doing("write the list of networks")?;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guardian"]).arg(&folder).current_dir("/");
        // Ctrl-C at a terminal is for the test.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(|cause| not_started(&command, cause, "dash"))?;
        let sign = process.stdin.take();
        Ok(Guardian { folder, process, sign })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts a network into its care. To be called before a process is there.
    pub(crate) fn watch(&self, network: u64) -> Result<(), Error> {
        let mut list = fs::OpenOptions::new()
            .append(true)
            .open(self.folder.join("networks"))
            .doing("open the list of networks")?;
        writeln!(list, "{network}").doing("extend the list of networks")
    }

    /// Everything away, now.
    fn clean(&mut self) -> Result<(), String> {
        drop(self.sign.take());
        let deadline = Instant::now() + CLEANING_MAX;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("its guardian ended with {status}")),
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(format!("its guardian cannot be waited for: {error}")),
            }
        }
        Err(format!("its guardian was not done after {} s", CLEANING_MAX.as_secs()))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if let Err(reason) = self.clean() {
            let text = format!("the testbed in {} was not removed: {reason}", self.folder.display());
            assert!(thread::panicking(), "{text}");
            eprintln!("{text}");
        }
    }
}
