//! A server that runs for many jobs, in the foreground of a host, until it is stopped.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, fs::File};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Doing, Error, not_started};

/// How long a server may take to end when it is asked to, before it is made to.
const GRACE: Duration = Duration::from_secs(3);

/// A server, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    process: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Starts `command`, which must stay in the foreground. What it says goes to `log`.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        package: &'static str,
    ) -> Result<Daemon, Error> {
        let said = File::create(log).doing(format!("make {}", log.display()))?;
        let both = said.try_clone().doing("share a log")?;
        command.stdin(Stdio::null()).stdout(said).stderr(both);
        let process = command.spawn().map_err(|cause| not_started(&command, cause, package))?;
        Ok(Daemon { name: name.to_string(), process, log: log.to_path_buf() })
    }

    /// Waits until `is_up` says so.
    ///
    /// # Errors
    /// The server has ended, or `limit` has passed. Both come with the last lines of its log.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut is_up: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        while !is_up() {
            let ended = self.process.try_wait().doing(format!("look after {}", self.name))?;
            if let Some(status) = ended {
                let said = format!("{status}: {}", self.last_words());
                return Err(Error::Failed { command: self.name.clone(), said });
            }
            if Instant::now() > deadline {
                let (what, last) = (self.name.clone(), self.last_words());
                return Err(Error::Late { what, seconds: limit.as_secs(), last });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    fn stop(&mut self) -> io::Result<()> {
        if self.process.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a number"), Signal::TERM)?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if self.process.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.process.kill()?;
        self.process.wait().map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{} cannot be stopped: {error}", self.name);
        }
    }
}
