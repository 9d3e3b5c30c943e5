//! Whose signals are whose: a library that is loaded gets none.
//!
//! Debian's libfabric brings `libinfinipath`, whose initialiser takes SIGINT, SIGILL, SIGABRT, SIGBUS, SIGSEGV and SIGTERM,
//! prints a trace and leaves with 1. A program's own handler, for a checkpoint before it is ended, would be gone; so would Rust's
//! words on a stack that has overflowed, and the exit code by which a launcher tells what has killed a rank.

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// The signals of old; nobody takes a real-time signal that was not told to.
const SIGNALS: std::ops::Range<c_int> = 1..32;

/// Does `load`, after which every signal has the handler that it had before. Handlers that other threads set meanwhile are lost.
///
/// Cost: two system calls for each of 31 signals.
pub(crate) fn keeping_handlers<R>(load: impl FnOnce() -> R) -> R {
    let before: Vec<_> = SIGNALS.filter_map(|signal| Some((signal, action(signal)?))).collect();
    let loaded = load();
    for (signal, before) in before {
        if action(signal).is_some_and(|now| now.sa_sigaction != before.sa_sigaction) {
            // SAFETY: the kernel has filled in `before` for this signal, and whoever set it keeps its handler loaded.
            unsafe { libc::sigaction(signal, &before, std::ptr::null_mut()) };
        }
    }
    loaded
}

/// What happens at `signal`; `None` for a number that is no signal.
fn action(signal: c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and the answer is written into our own memory.
    let status = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: plain data, valid as zeroes; the kernel has filled it in where the status is 0.
    (status == 0).then(|| unsafe { action.assume_init() })
}

/// Whether anybody handles `signal`.
#[cfg(test)]
pub(crate) fn is_handled(signal: c_int) -> bool {
    action(signal).is_some_and(|action| ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction))
}
