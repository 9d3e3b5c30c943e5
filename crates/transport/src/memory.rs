//! Memory that claims can be made on without unsafe code.

use std::cell::RefCell;
use std::fmt;

use crate::Buf;

/// Bytes to make claims on in tests and simulations, where nobody wants to write unsafe code.
///
/// The bytes are only reached through claims and copies, never through a reference, and go back to a pool of this
/// thread when the `Memory` is dropped, never to the allocator. A claim that outlives its `Memory` therefore reads
/// bytes that may be somebody else's by now - a wrong result that a test sees - but never freed memory. Use the claims
/// of one `Memory` from one thread at a time.
///
/// ```
/// use selvedge_transport::Memory;
/// let from = Memory::of(b"selvedge");
/// let to = Memory::zeroed(8);
/// from.buf().copy_to_buf(to.buf());
/// assert_eq!(to.bytes(), b"selvedge");
/// ```
pub struct Memory {
    /// All of the allocation: a power of two, at least [`SMALLEST`].
    whole: Buf,
    len: usize,
}

/// Smallest allocation, one cache line.
const SMALLEST: usize = 64;

/// One list of idle allocations per power of two. Bounded by the most that was ever alive on this thread.
type Pool = Vec<Vec<Buf>>;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Vec::new()) };
}

impl Memory {
    /// `len` bytes, all zero.
    pub fn zeroed(len: usize) -> Memory {
        let memory = Memory::take(len);
        memory.buf().fill_with(0);
        memory
    }

    /// A copy of `bytes`.
    pub fn of(bytes: &[u8]) -> Memory {
        let memory = Memory::take(bytes.len());
        memory.buf().fill_from(bytes);
        memory
    }

    /// A claim on all of it.
    pub fn buf(&self) -> Buf {
        self.whole.slice(0..self.len)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of what is in it now.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.buf().copy_to(&mut bytes);
        bytes
    }

    fn take(len: usize) -> Memory {
        let whole_bytes = len.next_power_of_two().max(SMALLEST);
        let idle = POOL.with_borrow_mut(|pool| pool.get_mut(class(whole_bytes)).and_then(Vec::pop));
        let whole = idle.unwrap_or_else(|| Buf::leaked(vec![0; whole_bytes].leak()));
        Memory { whole, len }
    }
}

/// Index of the list of allocations of `whole_bytes`, a power of two.
fn class(whole_bytes: usize) -> usize {
    whole_bytes.trailing_zeros() as usize
}

impl Drop for Memory {
    fn drop(&mut self) {
        let class = class(self.whole.len());
        // A thread that is ending has no pool any more; then the allocation stays leaked.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() <= class {
                pool.resize_with(class + 1, Vec::new);
            }
            pool[class].push(self.whole);
        });
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_taken_again_after_a_drop_is_zero() {
        let first = Memory::of(&[7; 100]);
        let start = first.buf().as_ptr();
        drop(first);
        let second = Memory::zeroed(90);
        assert_eq!(second.buf().as_ptr(), start, "the pool gives it out again");
        assert_eq!(second.bytes(), [0; 90]);
    }

    #[test]
    fn memory_of_no_bytes_can_be_claimed() {
        let memory = Memory::zeroed(0);
        assert!(memory.is_empty() && memory.buf().is_empty() && memory.bytes().is_empty());
    }
}
