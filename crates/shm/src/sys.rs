//! The system calls: each a safe function with the kernel's answer as a value. Unsafe code is here and in `map.rs`.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

use crate::doorbell::Futex;
use crate::sync::AtomicU32;

/// Processors that an affinity mask of ours can name.
pub(crate) const PROCESSORS_MAX: usize = 1024;

/// The kernel's futex on a word that several processes have mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

impl Futex for Kernel {
    fn wait(&self, word: &AtomicU32, expected: u32, at_most: Duration) {
        let at_most = futex::Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        // Rung already, interrupted, time is up: all the same to who looks again anyway.
        let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&at_most));
    }

    fn wake(&self, word: &AtomicU32) {
        // It can only fail for an address that is not mapped, and `word` is a reference.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }
}

/// Registers this process for [`fence_everywhere`] of others. Whether it could be.
pub(crate) fn register_for_fences() -> bool {
    rustix::thread::membarrier(rustix::thread::MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// A full fence on every running thread of every registered process. membarrier(2): cannot fail where registering did
/// not. Cost: one interrupt per core that runs such a thread.
pub(crate) fn fence_everywhere() {
    let fenced = rustix::thread::membarrier(rustix::thread::MembarrierCommand::GlobalExpedited);
    debug_assert_eq!(fenced, Ok(()), "registered, and then refused");
}

/// Lets any process of the same user read and write our memory where the Yama module would allow only ancestors
/// (ptrace_scope 1, the default of Ubuntu). Without Yama there is nothing to allow.
pub(crate) fn allow_copies_by_peers() {
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any);
}

/// Which way [`copy`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the other process into ours.
    Fetch,
    /// From ours into the other process.
    Store,
}

/// Copies `len` bytes between `here` in this process and `there` in process `pid`; process_vm_readv(2). The kernel
/// checks both addresses.
///
/// # Safety
/// `here` is a claim (see `selvedge_transport::Buf::claim`) on `len` bytes of this process, to be written for `Fetch`.
/// Likewise `there` in the other process, by a promise of its owner.
pub(crate) unsafe fn copy(
    pid: i32,
    direction: Direction,
    here: u64,
    there: u64,
    len: usize,
) -> Result<(), Errno> {
    let mut copied = 0;
    while copied < len {
        let vector = |start: u64| libc::iovec {
            iov_base: (start as usize + copied) as *mut libc::c_void,
            iov_len: len - copied,
        };
        let (here, there) = (vector(here), vector(there));
        let call = match direction {
            Direction::Fetch => libc::process_vm_readv,
            Direction::Store => libc::process_vm_writev,
        };
        // SAFETY: both vectors live until the call returns; what they point to is the caller's promise.
        let moved = unsafe { call(pid, &raw const here, 1, &raw const there, 1, 0) };
        match usize::try_from(moved) {
            // Nothing moved and no error: the first page is already out of reach.
            Ok(0) => return Err(Errno::FAULT),
            Ok(moved) => copied += moved,
            Err(_) => match last_error() {
                Errno::INTR => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Marks byte `offset` of the file as held by this open file (fcntl(2), open file description locks). The kernel takes
/// the mark away when the last process that holds the open file is gone, whatever ended it, before its parent knows.
pub(crate) fn hold(file: BorrowedFd<'_>, offset: u64) -> Result<(), Errno> {
    let mut lock = lock_of(offset);
    // SAFETY: the descriptor is borrowed and `lock` lives until the call returns.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
    if answer == 0 { Ok(()) } else { Err(last_error()) }
}

/// Whether another open file holds byte `offset`.
pub(crate) fn is_held(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut lock = lock_of(offset);
    // SAFETY: the descriptor is borrowed and `lock` lives until the call returns.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    // An answer that is none is no proof of a death.
    answer != 0 || lock.l_type != libc::F_UNLCK as libc::c_short
}

fn lock_of(offset: u64) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(offset).expect("a peer's number"),
        l_len: 1,
        l_pid: 0,
    }
}

/// The processors this thread may run on, as a mask.
pub(crate) fn processors() -> [u64; PROCESSORS_MAX / 64] {
    let mut mask = [0; PROCESSORS_MAX / 64];
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        for processor in (0..PROCESSORS_MAX).filter(|&processor| set.is_set(processor)) {
            mask[processor / 64] |= 1 << (processor % 64);
        }
    }
    mask
}

/// When process `pid` was started, in clock ticks since boot: with the number itself it names a process for good.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may hold anything, brackets and spaces too; what follows its last bracket is field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}
