//! The mapped segment as typed references. Unsafe code is here and in `sys.rs`.

use std::fmt;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use selvedge_transport::Buf;

use crate::baton::{BatonMemory, Small};
use crate::ring::{LINE_BYTES, RingMemory, WORD_BYTES};
use crate::sync::{AtomicU32, AtomicU64};

/// Bytes of one ring, its control line included. What a pair of peers costs in memory when it has talked much.
pub(crate) const RING_BYTES: usize = 64 << 10;

/// Lines of one ring before those that carry packets: `head` and `starved` in the first, the baton in the second.
const CONTROL_LINES: usize = 2;

/// Lines of one ring that carry packets.
pub(crate) const RING_LINES: u32 = (RING_BYTES / LINE_BYTES - CONTROL_LINES) as u32;

/// Types that can lie in memory shared with other processes.
///
/// # Safety
/// The implementor promises that every bit pattern is a value of the type, and that it consists of atomics only, so
/// that a shared reference allows for changes by others.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU64 {}
// SAFETY: atomic integers and nothing else, as its definition shows.
unsafe impl Shared for crate::job::JobSlot {}

/// A shared mapping of a whole file; unmapped when dropped.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; all that is handed out are atomics and claims on bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`. Pages are taken when they are first touched.
    pub(crate) fn new(file: impl AsFd, len: usize) -> Result<Mapping, Errno> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so nothing that exists is replaced.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, 0) }?;
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the range is the one just mapped. Neither advice changes what we see: one keeps gigabytes of
            // holes out of core dumps, the other keeps the segment from living on in a child that forgot about it.
            let advised = unsafe { rustix::mm::madvise(start, len, advice) };
            // Advice is not an order.
            let _ = advised;
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { start, len })
    }

    /// The value at `offset`.
    #[inline]
    pub(crate) fn view<T: Shared>(&self, offset: usize) -> &T {
        &self.view_slice(offset, 1)[0]
    }

    /// The `count` values at `offset`.
    #[inline]
    pub(crate) fn view_slice<T: Shared>(&self, offset: usize, count: usize) -> &[T] {
        let end = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.len), "{count} values at {offset} of {} bytes", self.len);
        assert!(offset.is_multiple_of(align_of::<T>()), "offset {offset} is not aligned");
        // SAFETY: inside of the mapping, by the first assertion.
        let first = unsafe { self.start.add(offset) }.cast::<T>();
        // SAFETY: mapped for as long as `self` lives; aligned, by the second assertion and since a mapping starts on a
        // page; any bit pattern is a value and changes by others are allowed for, by `Shared`.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), count) }
    }
}

/// A value in a mapping that it keeps alive: looked for once, then no more than a reference.
pub(crate) struct Mapped<T> {
    value: NonNull<T>,
    /// Keeps the mapping.
    _map: Arc<Mapping>,
}

// SAFETY: an address in a mapping that it keeps alive; what lies there is atomics, by `Shared`, which `new` asks for.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// The value at `offset`.
    pub(crate) fn new(map: &Arc<Mapping>, offset: usize) -> Mapped<T> {
        Mapped { value: NonNull::from(map.view(offset)), _map: Arc::clone(map) }
    }
}

impl<T: Shared> Deref for Mapped<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` took the address from a reference into the mapping, which `self` keeps.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Shared + fmt::Debug> fmt::Debug for Mapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new`, and every reference into it borrowed `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(unmapped, Ok(()), "a range that was mapped");
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len)
    }
}

/// A ring in a mapping: [`CONTROL_LINES`], then [`RING_LINES`] lines of packets.
#[derive(Debug)]
pub(crate) struct MappedRing {
    start: NonNull<u8>,
    /// Keeps the mapping.
    _map: Arc<Mapping>,
}

// SAFETY: an address in a mapping that it keeps alive; the mapping may be used from any thread.
unsafe impl Send for MappedRing {}

impl MappedRing {
    /// The ring at `offset`.
    pub(crate) fn new(map: &Arc<Mapping>, offset: usize) -> MappedRing {
        assert!(offset.is_multiple_of(RING_BYTES) && offset < map.len && map.len - offset >= RING_BYTES);
        // SAFETY: inside of the mapping, by the assertion.
        let start = unsafe { map.start.add(offset) };
        MappedRing { start, _map: Arc::clone(map) }
    }

    /// The word at `byte` of the ring.
    #[inline]
    fn at(&self, byte: usize) -> NonNull<u8> {
        assert!(byte <= RING_BYTES - WORD_BYTES);
        // SAFETY: inside of the ring, by the assertion, and so inside of the mapping, by `new`.
        unsafe { self.start.add(byte) }
    }

    /// The `bytes` bytes behind the word of `line`.
    ///
    /// # Safety
    /// They are a packet that `Inbound::pop` returned from this ring and that is not given back while the slice is
    /// in use.
    #[inline]
    pub(crate) unsafe fn packet(&self, line: u32, bytes: usize) -> &[u8] {
        let first = line_offset(line) + WORD_BYTES;
        assert!(first + bytes <= RING_BYTES);
        // SAFETY: inside of the ring, by the assertion.
        let first = unsafe { self.start.add(first) };
        // SAFETY: inside of the ring; the writer does not touch a record from when it stored its word (which `pop`
        // acquired) until it is given back, which the caller promises not to have happened.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), bytes) }
    }
}

/// Where a line starts in its ring.
#[inline]
fn line_offset(line: u32) -> usize {
    (line as usize + CONTROL_LINES) * LINE_BYTES
}

impl RingMemory for MappedRing {
    #[inline]
    fn lines(&self) -> u32 {
        RING_LINES
    }

    #[inline]
    fn word(&self, line: u32) -> &AtomicU64 {
        let word = self.at(line_offset(line)).cast::<AtomicU64>();
        // SAFETY: mapped, since `self` keeps the mapping; aligned to a line; an atomic allows for changes by others.
        unsafe { word.as_ref() }
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        let head = self.at(0).cast::<AtomicU64>();
        // SAFETY: as in `word`.
        unsafe { head.as_ref() }
    }

    #[inline]
    fn starved(&self) -> &AtomicU32 {
        let starved = self.at(WORD_BYTES).cast::<AtomicU32>();
        // SAFETY: as in `word`.
        unsafe { starved.as_ref() }
    }

    #[inline]
    fn fill(&self, line: u32, header: &[u8], payload: Buf) {
        let first = line_offset(line) + WORD_BYTES;
        // SAFETY: the bytes are the writer's, which is the caller (see `RingMemory`).
        unsafe { self.put(first, RING_BYTES, header, payload) }
    }
}

impl MappedRing {
    /// Copies `header`, then `payload`, to byte `first` of the ring. Panics when they would pass byte `end`.
    ///
    /// # Safety
    /// Nobody else reads or writes those bytes meanwhile.
    #[inline]
    unsafe fn put(&self, first: usize, end: usize, header: &[u8], payload: Buf) {
        let room = end.min(RING_BYTES).saturating_sub(first);
        assert!(header.len() <= room && payload.len() <= room - header.len());
        // SAFETY: inside of the ring, by the assertion.
        let first = unsafe { self.start.add(first) };
        // SAFETY: `header.len()` bytes are inside of the ring, by the assertion, and nobody else's, by the caller's
        // promise; so a borrowed `header` cannot lie there.
        unsafe { std::ptr::copy_nonoverlapping(header.as_ptr(), first.as_ptr(), header.len()) };
        // SAFETY: inside of the ring, by the assertion.
        let second = unsafe { first.add(header.len()) };
        // SAFETY: `payload.len()` bytes are inside of the ring and nobody else's, as above, until this function
        // returns; any bit pattern is a byte.
        let room = unsafe { Buf::claim(second.as_ptr(), payload.len()) };
        payload.copy_to_buf(room);
    }
}

/// The baton of two peers, in the control lines of the ring from the lower to the higher of them.
#[derive(Debug)]
pub(crate) struct MappedBaton(MappedRing);

impl MappedBaton {
    /// The one in this ring.
    pub(crate) fn new(ring: MappedRing) -> MappedBaton {
        MappedBaton(ring)
    }
}

/// Where the baton starts in its ring.
const BATON: usize = LINE_BYTES;

impl BatonMemory for MappedBaton {
    #[inline]
    fn word(&self) -> &AtomicU64 {
        let word = self.0.at(BATON).cast::<AtomicU64>();
        // SAFETY: as in `MappedRing::word`.
        unsafe { word.as_ref() }
    }

    #[inline]
    fn fill(&self, header: &[u8], payload: Buf) {
        // SAFETY: the bytes are those of who holds the baton, which is the caller (see `BatonMemory`).
        unsafe { self.0.put(BATON + WORD_BYTES, BATON + LINE_BYTES, header, payload) }
    }

    #[inline]
    fn small(&self) -> Small {
        let small = self.0.at(BATON + WORD_BYTES).cast::<Small>();
        // SAFETY: mapped; bytes need no alignment and any pattern is a value; the caller holds the baton, so nobody
        // writes them.
        unsafe { small.read() }
    }
}
