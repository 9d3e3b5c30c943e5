//! The system calls that have no safe binding, and all unsafe code of this crate.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Signals of this process, as a descriptor that becomes readable: they are blocked from now on, and
/// [`next_signal`] takes them one by one. Call before the first thread is started.
///
/// # Errors
/// The system's: no descriptor left.
pub fn signal_fd(signals: &[Signal]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is an initialised signal set; the old one is not asked for.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: -1 asks for a new descriptor; `set` is an initialised signal set.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal that a [`signal_fd`] holds; `None` when there is none.
pub fn next_signal(fd: impl AsFd) -> Option<Signal> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    let got = rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut info)).ok()?;
    // The number is the first field of the record.
    let number = info.first_chunk().filter(|_| got == size_of::<libc::signalfd_siginfo>())?;
    Signal::from_named_raw(i32::from_ne_bytes(*number))
}

/// Whether whoever started us wants `signal` ignored, as `nohup` does with hang-ups.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action is given, and the old one is written to a place made for it.
    let rc = unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: a sigaction is plain data, valid as zeroes, and the kernel has filled it in where `rc` is 0.
    let action = unsafe { action.assume_init() };
    rc == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// What a rank's process does between fork and exec, beyond what [`Command`] does itself.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// The descriptor of its PMI connection, where it has one: it stays open over exec.
    pub pmi_fd: Option<RawFd>,
    /// Limit of descriptors that the user had, before the agent raised its own.
    pub descriptors: Rlimit,
    /// The agent: when it is gone, so is the rank.
    pub agent: Pid,
}

/// Makes `command` start its process as `birth` says: it dies with its parent, blocks no signals, and keeps its PMI
/// connection.
pub fn bear(command: &mut Command, birth: Birth) {
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(birth.agent) {
            // The agent died before the line above, so nobody would tell us.
            return Err(io::ErrorKind::NotConnected.into());
        }
        rustix::process::setrlimit(Resource::Nofile, birth.descriptors)?;
        unblock_all()?;
        birth.pmi_fd.map_or(Ok(()), keep_over_exec)
    };
    // SAFETY: between fork and exec only functions that are safe in a signal handler may run: `prepare` makes system
    // calls on copied values, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Makes the process of `command` inherit a descriptor, under its number.
pub fn hand_down(command: &mut Command, fd: RawFd) {
    // SAFETY: between fork and exec only functions that are safe in a signal handler may run: this makes one system call.
    unsafe { command.pre_exec(move || keep_over_exec(fd)) };
}

fn unblock_all() -> io::Result<()> {
    let none = signal_set(&[]);
    // SAFETY: `none` is an initialised signal set; the old one is not asked for.
    check(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) })
}

fn keep_over_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: touches no memory; a number that is not open is an error.
    let rc = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An owned duplicate of an inherited descriptor, for [`selvedge_boot::Boot::from_env`].
///
/// # Errors
/// The number is not open.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: touches no memory; a number that is not open is an error.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn signal_set(signals: &[Signal]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: writes an empty set to a place made for one.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised above, and `signal` is the number of a signal.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal.as_raw()) };
    }
    // SAFETY: initialised by sigemptyset.
    unsafe { set.assume_init() }
}

/// pthread functions give the error back instead of setting it.
fn check(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sent_to_ourselves_is_read_from_the_descriptor() {
        let fd = signal_fd(&[Signal::WINCH]).unwrap();
        assert_eq!(next_signal(&fd), None);
        // SAFETY: sends a signal that this thread has just blocked.
        assert_eq!(unsafe { libc::raise(libc::SIGWINCH) }, 0);
        assert_eq!(next_signal(&fd), Some(Signal::WINCH));
        assert_eq!(next_signal(&fd), None);
    }

    #[test]
    fn signals_are_not_ignored_unless_somebody_said_so() {
        assert!(!is_ignored(Signal::USR1));
        assert!(is_ignored(Signal::PIPE), "Rust programs start with SIGPIPE ignored");
    }

    #[test]
    fn a_number_that_is_not_open_cannot_be_duplicated() {
        assert!(duplicate(0).is_ok());
        assert!(duplicate(9999).is_err());
        assert!(duplicate(-1).is_err());
    }
}
