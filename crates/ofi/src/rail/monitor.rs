//! Tells when memory that was registered is unmapped, moved or thrown away, so that a registration of it is not used again.
//!
//! # How
//!
//! The kernel tells a userfaultfd (userfaultfd(2)) of three things that happen to ranges it watches: `munmap`, `mremap` and
//! `madvise(MADV_DONTNEED)`. Ranges are watched in write-protect mode, of which nothing is used: no page is ever
//! protected, so no access ever faults, and an unprivileged process may have it (`UFFD_USER_MODE_ONLY`, Linux 5.11). Nothing
//! is intercepted: it does not matter which allocator unmaps, or whether it is a system call made by hand.
//!
//! # Why a stale hit cannot happen
//!
//! The thread that unmaps does not return from its call before somebody has read the event. The reader, a thread of its own,
//! makes `turn` odd, reads, notes the ranges, and makes it even. A lookup waits while `turn` is odd, and takes the notes when it
//! is another than last time. So for anything that the program does after unmapping:
//!
//! 1. the unmapping call has returned, hence the event was read, hence `turn` was made odd before: the lookup, which
//!    comes after the unmapping, sees that or something later;
//! 2. if it sees it odd, it waits;
//! 3. if it sees it even, that is a later value: the ranges were noted before, and it takes the notes first.
//!
//! What is left is a program in which one thread maps an address while the `munmap` of another thread for the same address has
//! not returned. Watching belongs to the mapping and not to the address, so the new one is not watched, and that is asked of
//! the kernel at every hit, for one page of the buffer ([`Monitor::is_watched`]). That costs 0.4 microseconds; to ask for all
//! pages would cost 5 for each MiB.
//!
//! # Why nobody waits for himself
//!
//! Allocators unmap while they hold their locks. So the reader allocates and frees nothing, and a lookup holds the lock of the
//! notes only while it copies them.
//!
//! Children of a fork are not followed: what they unmap is theirs. Cost to the program: unmapping a watched range waits for
//! the reader to wake, some ten microseconds.

use std::ffi::{c_int, c_ulong};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

/// Changes that are kept until somebody asks. More than that counts as "everything".
const NOTES: usize = 512;

/// Messages that one read takes.
const MESSAGES: usize = 32;

/// Everything there is.
const EVERYTHING: Range<usize> = 0..usize::MAX;

/// A page of the smallest kind.
const PAGE_BYTES: usize = 4096;

/// See the top of the file.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// `None` only while being dropped.
    watch: Option<Arc<OwnedFd>>,
    stop: Arc<OwnedFd>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    /// The turn up to which changes were taken.
    taken: u64,
    /// What was taken last; its memory is used again.
    changes: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Shared {
    /// Odd while the reader has events that are not noted.
    turn: AtomicU64,
    notes: Mutex<Notes>,
}

/// Changes, in memory that was there from the beginning.
#[derive(Debug)]
struct Notes {
    ranges: [Range<usize>; NOTES],
    count: usize,
}

impl Monitor {
    /// Begins.
    ///
    /// # Errors
    /// What the kernel says: it is too old, or this process may not.
    pub(crate) fn start() -> Result<Monitor, Errno> {
        let watch = Arc::new(userfaultfd()?);
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let notes = Notes { ranges: std::array::from_fn(|_| 0..0), count: 0 };
        let shared = Arc::new(Shared { turn: AtomicU64::new(0), notes: Mutex::new(notes) });
        let reader = {
            let (watch, stop, shared) = (watch.clone(), stop.clone(), shared.clone());
            let spawned = std::thread::Builder::new()
                .name("selvedge-unmapped".to_string())
                .spawn(move || read_events(&watch, &stop, &shared));
            spawned.map_err(|_| Errno::AGAIN)?
        };
        Ok(Monitor {
            watch: Some(watch),
            stop,
            shared,
            reader: Some(reader),
            taken: 0,
            changes: Vec::with_capacity(NOTES),
        })
    }

    /// From now on changes of these pages are told. False when they cannot be watched: they are of a kind of file, or
    /// somebody else watches them.
    pub(crate) fn watch(&self, pages: &Range<usize>) -> bool {
        let Some(watch) = &self.watch else { return false };
        let mut request = Register {
            start: pages.start as u64,
            len: pages.len() as u64,
            mode: WRITE_PROTECT_MODE,
            ioctls: 0,
        };
        ask(watch, REGISTER, &mut request).is_ok()
    }

    /// Whether the mapping that this page lies in is one that is watched. One system call.
    pub(crate) fn is_watched(&self, page: usize) -> bool {
        let Some(watch) = &self.watch else { return false };
        // To lift a protection that was never there changes nothing, and is refused where nothing is watched.
        let mut request = WriteProtect { start: page as u64, len: PAGE_BYTES as u64, mode: 0 };
        ask(watch, WRITE_PROTECT, &mut request).is_ok()
    }

    /// What has changed since the last call. One load when nothing has.
    #[inline]
    pub(crate) fn changes(&mut self) -> &[Range<usize>] {
        // SYNC: pairs with the stores of `read_events`.
        let turn = self.shared.turn.load(Ordering::Acquire);
        if turn == self.taken { &[] } else { self.take_changes() }
    }

    #[cold]
    fn take_changes(&mut self) -> &[Range<usize>] {
        loop {
            // SYNC: as above.
            self.taken = self.shared.turn.load(Ordering::Acquire);
            if self.taken.is_multiple_of(2) {
                break;
            }
            std::thread::yield_now();
        }
        self.changes.clear();
        let mut notes = self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // There is room for all of them: nothing is allocated while the lock is held.
        self.changes.extend_from_slice(&notes.ranges[..notes.count]);
        notes.count = 0;
        drop(notes);
        &self.changes
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // What the reader is waiting for; it cannot be full.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        let watch = self.watch.take().expect("dropped once");
        // From the moment that the reader has stopped until the descriptor is closed, whoever unmaps waits. So nothing is
        // freed in between: no waiting for the thread itself, which frees its stack.
        while Arc::strong_count(&watch) > 1 {
            std::thread::yield_now();
        }
        drop(watch);
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has stopped as well.
            let _ = reader.join();
        }
    }
}

impl Notes {
    fn add(&mut self, range: Range<usize>) {
        if self.count == NOTES {
            self.ranges[0] = EVERYTHING;
            self.count = 1;
        }
        self.ranges[self.count.min(NOTES - 1)] = range;
        self.count = (self.count + 1).min(NOTES);
    }
}

/// The life of the reader. Allocates nothing.
fn read_events(watch: &OwnedFd, stop: &OwnedFd, shared: &Shared) {
    loop {
        let mut fds = [PollFd::new(watch, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        // SYNC: pairs with the loads of `changes`. Before the read, which lets the unmapping thread go on.
        shared.turn.fetch_add(1, Ordering::SeqCst);
        let mut messages = [[0_u8; MESSAGE_BYTES]; MESSAGES];
        let read = rustix::io::read(watch, messages.as_flattened_mut()).unwrap_or(0);
        {
            let mut notes = shared.notes.lock().unwrap_or_else(PoisonError::into_inner);
            for message in &messages[..read / MESSAGE_BYTES] {
                if let Some(range) = changed_by(message) {
                    notes.add(range);
                }
            }
        }
        // SYNC: as above. After the ranges were noted.
        shared.turn.fetch_add(1, Ordering::SeqCst);
    }
}

/// Bytes of `struct uffd_msg`.
const MESSAGE_BYTES: usize = 32;

/// The range that a `struct uffd_msg` speaks of: the event in byte 0, its arguments in words from byte 8 on.
fn changed_by(message: &[u8; MESSAGE_BYTES]) -> Option<Range<usize>> {
    const REMAP: u8 = 0x14;
    const REMOVE: u8 = 0x15;
    const UNMAP: u8 = 0x16;
    let word = |index: usize| {
        let bytes = message[8 + 8 * index..16 + 8 * index].try_into().expect("eight bytes");
        u64::from_ne_bytes(bytes) as usize
    };
    match message[0] {
        // From, to, length.
        REMAP => Some(word(0)..word(0) + word(2)),
        REMOVE | UNMAP => Some(word(0)..word(1)),
        _ => None,
    }
}

// From linux/userfaultfd.h.
const API: c_ulong = request(3, 0x3F, 24);
const REGISTER: c_ulong = request(3, 0x00, 32);
const WRITE_PROTECT: c_ulong = request(3, 0x06, 24);
const WRITE_PROTECT_MODE: u64 = 1 << 1;
const EVENT_REMAP: u64 = 1 << 2;
const EVENT_REMOVE: u64 = 1 << 3;
const EVENT_UNMAP: u64 = 1 << 6;

/// `_IOC(direction, UFFDIO, number, bytes)` of linux/ioctl.h: 3 is both ways.
const fn request(direction: c_ulong, number: c_ulong, bytes: c_ulong) -> c_ulong {
    direction << 30 | bytes << 16 | 0xAA << 8 | number
}

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

/// A structure that the request of its size reads and writes.
trait Request {}
impl Request for Api {}
impl Request for Register {}
impl Request for WriteProtect {}

fn userfaultfd() -> Result<OwnedFd, Errno> {
    use rustix::mm::UserfaultfdFlags;
    const USER_MODE_ONLY: u32 = 1;
    let flags = UserfaultfdFlags::CLOEXEC
        | UserfaultfdFlags::NONBLOCK
        | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
    // SAFETY: with this descriptor we watch and never fill in or protect a page, so no memory is changed by it.
    let watch = unsafe { rustix::mm::userfaultfd(flags) }?;
    let mut api = Api { api: 0xAA, features: EVENT_UNMAP | EVENT_REMOVE | EVENT_REMAP, ioctls: 0 };
    ask(&watch, API, &mut api)?;
    Ok(watch)
}

fn ask<R: Request>(watch: &OwnedFd, number: c_ulong, request: &mut R) -> Result<(), Errno> {
    let at: *mut R = request;
    // SAFETY: the descriptor is a userfaultfd; the request is the structure of that number (each caller, above), which the
    // kernel reads and writes during the call. Ranges in it are only watched.
    let answer: c_int = unsafe { libc::ioctl(watch.as_fd().as_raw_fd(), number as _, at) };
    if answer == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::ptr::null_mut;

    use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};

    use super::*;

    const LEN: usize = 16 * PAGE_BYTES;

    fn map_at(place: *mut c_void) -> *mut c_void {
        let flags = if place.is_null() { MapFlags::PRIVATE } else { MapFlags::PRIVATE | MapFlags::FIXED };
        // SAFETY: new memory, or in the place of what the test has mapped there.
        unsafe { rustix::mm::mmap_anonymous(place, LEN, ProtFlags::READ | ProtFlags::WRITE, flags) }
            .expect("memory")
    }

    fn unmap(place: *mut c_void) {
        // SAFETY: mapped by the test, and used by nobody any more.
        unsafe { rustix::mm::munmap(place, LEN) }.expect("it was mapped");
    }

    fn pages(place: *mut c_void) -> Range<usize> {
        place as usize..place as usize + LEN
    }

    fn covers(changes: &[Range<usize>], page: usize) -> bool {
        changes.iter().any(|range| range.contains(&page))
    }

    fn started() -> Monitor {
        Monitor::start().expect("Linux 5.11 or later, and a container that allows userfaultfd")
    }

    #[test]
    fn memory_unmapped_and_mapped_again_at_the_same_address_has_changed_each_time() {
        let mut monitor = started();
        for _ in 0..200 {
            let place = map_at(null_mut());
            assert!(monitor.watch(&pages(place)) && monitor.is_watched(place as usize));
            assert!(!covers(monitor.changes(), place as usize), "nothing has happened to it");
            // In one call, so that no other test can get the address in between.
            let again = map_at(place);
            assert!(!monitor.is_watched(again as usize), "watching belongs to the mapping");
            assert!(covers(monitor.changes(), place as usize), "the lookup after the call knows");
            unmap(again);
        }
    }

    #[test]
    fn memory_that_was_thrown_away_or_moved_has_changed() {
        let mut monitor = started();
        let place = map_at(null_mut());
        assert!(monitor.watch(&pages(place)));
        // SAFETY: the content of the test's memory is not needed.
        unsafe { rustix::mm::madvise(place, LEN, Advice::LinuxDontNeed) }.expect("it is mapped");
        assert!(covers(monitor.changes(), place as usize));
        assert!(monitor.changes().is_empty(), "told once");
        // SAFETY: the test has no reference into it.
        let moved = unsafe { rustix::mm::mremap(place, LEN, 64 * LEN, MremapFlags::MAYMOVE) }.expect("room");
        if moved != place {
            assert!(covers(monitor.changes(), place as usize));
        }
        // SAFETY: mapped by the test, and used by nobody any more.
        unsafe { rustix::mm::munmap(moved, 64 * LEN) }.expect("it is mapped");
    }

    #[test]
    fn more_changes_than_can_be_noted_are_everything() {
        let mut monitor = started();
        let elsewhere = map_at(null_mut());
        for _ in 0..NOTES + 10 {
            let place = map_at(null_mut());
            assert!(monitor.watch(&pages(place)));
            unmap(place);
        }
        assert!(covers(monitor.changes(), elsewhere as usize));
        unmap(elsewhere);
    }

    #[test]
    fn several_threads_that_unmap_wait_for_nobody_for_ever() {
        let mut monitor = started();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let monitor = &monitor;
                scope.spawn(move || {
                    for _ in 0..100 {
                        let place = map_at(null_mut());
                        assert!(monitor.watch(&pages(place)));
                        unmap(place);
                    }
                });
            }
        });
        assert!(!monitor.changes().is_empty());
    }

    #[test]
    fn a_monitor_that_has_ended_keeps_nobody_waiting() {
        let place = map_at(null_mut());
        let monitor = started();
        assert!(monitor.watch(&pages(place)));
        drop(monitor);
        unmap(place);
    }
}
