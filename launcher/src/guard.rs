//! Who stays when the agent of another host dies. What the ranks have started themselves would fall to that host's init
//! process, which nobody of ours is there to empty; so the process that was started there divides itself in two:
//!
//! ```text
//!   ssh, srun, ...            this host, far from mpirun
//!        |            +--------------------------------------+
//!        `------------>  guardian                            |
//!                     |      `--- agent                      |
//!                     |             `--- rank                |
//!                     |                    `--- whatever     |
//!                     +--------------------------------------+
//! ```
//! Each of the two inherits the orphans below it. If the agent is killed, its ranks die with it by the kernel's hand and what
//! they have started falls to the guardian, which kills it and ends as the agent has. If the guardian is killed, the agent is
//! told and ends everything itself. An agent that is stopped for longer than mpirun waits for a silent host has been given up by
//! mpirun, so its guardian kills it. On mpirun's own host mpirun is the guardian.
//!
//! What this does not cover: both killed in the same instant, as by `kill -9 -1`. Then the ranks die, and what they have started
//! may stay.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, set_parent_process_death_signal,
    setpgid, wait,
};

use crate::supervise::code;
use crate::{reap, sys};

/// Which of the two this process has become.
#[derive(Debug)]
pub(crate) enum Half {
    /// The agent, with its guardian.
    Agent(Guardian),
    /// The guardian of this process. What the agent talks through is not its business: it should be closed.
    Guardian(Pid),
}

/// The guardian as its agent knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guardian(Pid);

impl Guardian {
    /// Whether it was killed.
    pub(crate) fn is_gone(self) -> bool {
        getppid() != Some(self.0)
    }
}

/// Divides this process. Costs one fork of a small process, before there is any rank.
///
/// # Errors
/// The system's: no room for another process; or this one has several threads.
pub(crate) fn divide() -> io::Result<Half> {
    reap::become_subreaper()?;
    let guardian = getpid();
    match sys::divide()? {
        Some(agent) => Ok(Half::Guardian(agent)),
        None => {
            // A `kill -9` of the group hits one of us only.
            let _ = setpgid(None, None);
            reap::become_subreaper()?;
            // One of the signals that the agent reads and otherwise ignores.
            set_parent_process_death_signal(Some(Signal::HUP))?;
            let guardian = Guardian(guardian);
            if guardian.is_gone() {
                // It died before the line above, so nobody would tell us.
                return Err(io::ErrorKind::NotConnected.into());
            }
            Ok(Half::Agent(guardian))
        }
    }
}

/// The guardian's whole life: until nothing is left of its agent. The exit code is the agent's, or as a shell says it for one
/// that was killed. `signals`: blocked ones, of which SIGCHLD wakes it. `silence_limit`: after which mpirun gives a host up.
pub(crate) fn stay(agent: Pid, signals: &OwnedFd, silence_limit: Duration) -> u8 {
    let _ = rustix::thread::set_name(c"selvedge-guard");
    if let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") {
        // Only the agent holds its connections, so that they end with it.
        let _ = rustix::stdio::dup2_stdin(&nothing);
        let _ = rustix::stdio::dup2_stdout(&nothing);
    }
    // mpirun first: it knows what to say.
    let stop_limit = silence_limit * 3 / 2;
    let mut stopped_at = None;
    loop {
        while let Some((pid, status)) = wait(any_change()).ok().flatten() {
            if pid != agent {
                continue;
            }
            if status.stopped() {
                stopped_at = Some(Instant::now());
            } else if status.continued() {
                stopped_at = None;
            } else {
                let left = reap::kill_children(&[]);
                if left > 0 {
                    crate::tell(format_args!("mpirun: {left} processes hang in the kernel and do not die"));
                }
                return code_of(status);
            }
        }
        let left = stopped_at.map(|at: Instant| stop_limit.saturating_sub(at.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            let _ = kill_process(agent, Signal::KILL);
            stopped_at = None;
            continue;
        }
        sleep(signals, left);
        while sys::next_signal(signals).is_some() {}
    }
}

fn any_change() -> WaitOptions {
    WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED
}

fn sleep(signals: &OwnedFd, at_most: Option<Duration>) {
    let at_most = at_most.map(|wait| Timespec {
        tv_sec: wait.as_secs().cast_signed(),
        tv_nsec: i64::from(wait.subsec_nanos()),
    });
    // Interrupted: the next turn of the loop asks again.
    let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], at_most.as_ref());
}

fn code_of(status: WaitStatus) -> u8 {
    let low = |number: i32| u8::try_from(number & 0xff).unwrap_or(code::INTERNAL);
    match status.terminating_signal() {
        Some(signal) => code::SIGNAL.saturating_add(low(signal)),
        None => status.exit_status().map_or(code::INTERNAL, low),
    }
}
