//! Who gets signals: a child those of its parent, so that the parent lives long enough to clean up; a thread of ours none.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal};

/// Signals that ask for an end.
const ENDS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Signals of the parent go to the child.
#[derive(Debug)]
pub struct Forward;

impl Forward {
    /// Runs `command` to its end. HUP, INT, QUIT and TERM that come meanwhile are passed on. The mask of signals of the calling
    /// thread is the same afterwards.
    pub fn to_child(command: &mut Command) -> io::Result<ExitStatus> {
        let mut ends = empty();
        for signal in ENDS.iter().chain([&Signal::CHILD]) {
            // SAFETY: changes the set given, by a number that is a signal.
            unsafe { libc::sigaddset(&mut ends, signal.as_raw()) };
        }
        let before = mask(libc::SIG_BLOCK, &ends);
        // SAFETY: between fork and exec only sigprocmask(2) is called, which is safe there.
        unsafe {
            command.pre_exec(move || {
                mask(libc::SIG_SETMASK, &before);
                Ok(())
            })
        };
        let result = command.spawn().and_then(|mut child| {
            let pid = Pid::from_child(&child);
            loop {
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
                // Another thread that does not block it may have swallowed the child's end, so look again now and then.
                let time = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                // SAFETY: waits for a signal of the set, all of which are blocked here; nothing is written.
                let number = unsafe { libc::sigtimedwait(&ends, std::ptr::null_mut(), &time) };
                let forward = ENDS.iter().find(|signal| signal.as_raw() == number);
                if let Some(signal) = forward {
                    let _ = rustix::process::kill_process(pid, *signal);
                }
            }
        });
        mask(libc::SIG_SETMASK, &before);
        result
    }
}

/// Calls `act` while this thread gets no signals. A thread that is started meanwhile never gets any.
pub fn deaf<T>(act: impl FnOnce() -> T) -> T {
    let mut all = empty();
    // SAFETY: writes to the set given.
    unsafe { libc::sigfillset(&mut all) };
    let before = mask(libc::SIG_SETMASK, &all);
    let result = act();
    mask(libc::SIG_SETMASK, &before);
    result
}

/// A set without signals.
fn empty() -> libc::sigset_t {
    // SAFETY: a set of all zeros is sound, and is made empty by the system's rules below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes to the set given.
    unsafe { libc::sigemptyset(&mut set) };
    set
}

/// Changes this thread's mask; the one before.
fn mask(how: i32, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = empty();
    // SAFETY: reads one set and writes another.
    unsafe { libc::pthread_sigmask(how, set, &mut before) };
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_child_is_seen_with_its_code() {
        let status = Forward::to_child(Command::new("sh").args(["-c", "exit 7"])).expect("sh exists");
        assert_eq!(status.code(), Some(7));
        assert!(Forward::to_child(&mut Command::new("/does/not/exist")).is_err());
    }
}
