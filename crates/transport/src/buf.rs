//! Claims on memory. The only unsafe code of this crate.
//!
//! The engine and the schedules move bytes they must never look at. They hold a [`Buf`]: where the bytes are, how many,
//! and whose promise it is that they stay there. The promise is made once, in [`Buf::claim`] (the one unsafe
//! constructor, called by the public API, which knows the borrow), and is used everywhere else through safe methods
//! that check bounds.

use std::fmt;
use std::ops::Range;

/// A claim on `len` bytes of this process's memory. Plain value: copying it copies the claim, not the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Buf {
    start: *mut u8,
    len: usize,
}

// SAFETY: a claim is an address and a length; whether another thread may touch the bytes is part of the promise that
// the caller of `Buf::claim` gives ("by whoever holds the claim"). The simulator moves claims between ranks.
unsafe impl Send for Buf {}

impl Buf {
    /// A claim on nothing. Any operation with it moves zero bytes.
    pub const EMPTY: Buf = Buf { start: std::ptr::NonNull::dangling().as_ptr(), len: 0 };

    /// Claims `len` bytes at `start` for an operation.
    ///
    /// # Safety
    /// From now until the operation that the claim is handed to has been reported complete (or failed, or cancelled):
    /// 1. the `len` bytes at `start` are readable, and writable if the operation writes (a receive, the target of a
    ///    read, a registration that peers write to);
    /// 2. nobody but the holder of the claim writes them, and if the operation writes, nobody else reads them either;
    /// 3. any bit pattern is a valid value of what lies there, if the operation writes.
    pub unsafe fn claim(start: *mut u8, len: usize) -> Buf {
        if len == 0 { Buf::EMPTY } else { Buf { start, len } }
    }

    /// A claim on memory that nobody else has and that is never freed: what `Box::leak` and `Vec::leak` give. Safe,
    /// because giving up the only reference is the promise of [`Buf::claim`].
    pub fn leaked(bytes: &'static mut [u8]) -> Buf {
        if bytes.is_empty() { Buf::EMPTY } else { Buf { start: bytes.as_mut_ptr(), len: bytes.len() } }
    }

    /// Number of bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether it is a claim on nothing.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The part `range` of it. Panics when `range` is not inside.
    #[inline]
    pub fn slice(self, range: Range<usize>) -> Buf {
        if range.start > range.end || range.end > self.len {
            is_outside(range, self.len);
        }
        if range.is_empty() {
            return Buf::EMPTY;
        }
        Buf { start: self.start.wrapping_add(range.start), len: range.end - range.start }
    }

    /// Address, for transports and the public API; never put in a log or on the wire other than inside a [`Key`].
    pub fn as_ptr(self) -> *mut u8 {
        self.start
    }

    /// Overwrites the first `bytes.len()` bytes. Panics when there are fewer.
    pub fn fill_from(self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len, "{} bytes into a claim on {}", bytes.len(), self.len);
        // SAFETY: `claim` promised that our bytes are writable and untouched by others; `bytes` is a live shared
        // borrow, so by promise 2 it does not overlap them; the length was checked above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) }
    }

    /// Overwrites all of it with `byte`.
    pub fn fill_with(self, byte: u8) {
        // SAFETY: `claim` promised that our bytes are writable and untouched by others.
        unsafe { std::ptr::write_bytes(self.start, byte, self.len) }
    }

    /// Copies all of it into the first bytes of `out`. Panics when `out` is shorter.
    pub fn copy_to(self, out: &mut [u8]) {
        assert!(self.len <= out.len(), "a claim on {} bytes into {}", self.len, out.len());
        // SAFETY: `claim` promised that our bytes are readable; `out` is a live exclusive borrow, so it does not
        // overlap them; the length was checked above.
        unsafe { std::ptr::copy_nonoverlapping(self.start, out.as_mut_ptr(), self.len) }
    }

    /// Copies all of it over the first bytes of `to`. The two may overlap. Panics when `to` is shorter.
    pub fn copy_to_buf(self, to: Buf) {
        assert!(self.len <= to.len, "a claim on {} bytes into {}", self.len, to.len);
        // SAFETY: `claim` promised that our bytes are readable and those of `to` writable; `copy` allows overlap.
        unsafe { std::ptr::copy(self.start, to.start, self.len) }
    }
}

/// By value: an assertion would have its caller write the range to memory, to be shown.
#[cold]
fn is_outside(range: Range<usize>, len: usize) -> ! {
    panic!("slice {range:?} of {len} bytes")
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

/// What a peer needs to reach memory opened with [`crate::Transport::register`]. Travels in packets; opaque to all but
/// the transport that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Key {
    /// Where the registered memory starts, in whatever terms the transport uses (an address, an offset).
    pub base: u64,
    /// The transport's name for the registration (an rkey, a process, an index).
    pub name: u64,
}

/// `len` bytes at `offset` of a peer's registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteSlice {
    /// The registration.
    pub key: Key,
    /// First byte, counted from the start of the registration.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(bytes: &mut [u8]) -> Buf {
        // SAFETY: the tests below do not touch `bytes` while they use the claim.
        unsafe { Buf::claim(bytes.as_mut_ptr(), bytes.len()) }
    }

    #[test]
    fn a_slice_of_a_claim_reaches_just_its_own_bytes() {
        let mut bytes = [1, 2, 3, 4, 5];
        claim(&mut bytes).slice(1..3).fill_from(&[8, 9]);
        assert_eq!(bytes, [1, 8, 9, 4, 5]);
    }

    #[test]
    #[should_panic(expected = "slice 3..6 of 5 bytes")]
    fn a_slice_outside_of_a_claim_is_refused() {
        let mut bytes = [0; 5];
        let _ = claim(&mut bytes).slice(3..6);
    }

    #[test]
    fn an_empty_claim_moves_nothing() {
        Buf::EMPTY.copy_to(&mut []);
        Buf::EMPTY.fill_from(&[]);
        assert!(Buf::EMPTY.slice(0..0).is_empty());
    }
}
