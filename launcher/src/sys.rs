//! The system calls that have no safe binding, and all unsafe code of this crate.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

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

/// A new process, which runs `child` and then ends with code 127. Our own side of it: its number.
///
/// # Errors
/// The system has no room for another process.
///
/// # Safety
/// `child` makes system calls on what was prepared before, and nothing else: it takes no memory and no lock, and drops
/// nothing, because another thread may have held any of them in the middle of a change.
pub unsafe fn fork(child: impl FnOnce()) -> io::Result<Pid> {
    // SAFETY: the child runs `child`, which keeps to what is safe here, by the caller's promise, and ends below.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        // SAFETY: ends the process at once: nothing of the parent's that it has a copy of is flushed or dropped.
        unsafe { libc::_exit(127) };
    }
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// Strings as the kernel wants them: an array of pointers that ends with null.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const libc::c_char>,
    /// What they point to; never changed.
    _texts: Vec<CString>,
}

impl Strings {
    /// In this order.
    pub fn new(texts: impl IntoIterator<Item = CString>) -> Strings {
        let texts: Vec<CString> = texts.into_iter().collect();
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Strings { pointers, _texts: texts }
    }
}

/// Becomes another program; comes back with the reason when that fails. Takes no memory.
pub fn execute(file: &CStr, words: &Strings, variables: &Strings) -> Errno {
    // SAFETY: `file` ends with a zero; the arrays end with null and point to strings that end with a zero, by `Strings`.
    unsafe { libc::execve(file.as_ptr(), words.pointers.as_ptr(), variables.pointers.as_ptr()) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOEXEC)
}

/// Makes a process that was forked from one of ours forget what we do about signals: none is blocked, and a broken pipe
/// ends it.
pub fn forget_signals() -> Result<(), Errno> {
    // SAFETY: the default action is none of our functions.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let none = signal_set(&[]);
    // SAFETY: `none` is an initialised signal set; the old one is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(error)),
    }
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

/// A copy of this process, which goes on from here too: its number, and `None` in the copy.
///
/// # Errors
/// The system's; or this process has more than one thread, of which the copy would lack all but this one.
pub fn divide() -> io::Result<Option<Pid>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("{threads} threads cannot be copied")));
    }
    // SAFETY: there is only this thread, so the copy lacks none that could hold a lock or be in the middle of something.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        copy => Ok(Pid::from_raw(copy)),
    }
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
