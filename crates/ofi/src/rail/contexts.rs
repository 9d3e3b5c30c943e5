//! The bytes that a provider has to itself while an operation is in flight, and which operations are.

use std::cell::UnsafeCell;
use std::ffi::c_void;

use crate::sys::{CONTEXT_BYTES, FiContext2};

/// A cache line for the provider.
#[repr(C, align(64))]
#[derive(Debug)]
struct Line(UnsafeCell<FiContext2>);

const _: () = assert!(size_of::<Line>() == CONTEXT_BYTES);

/// One line for each operation that may be in flight. Lives as long as the endpoint that uses it, and never moves.
#[derive(Debug)]
pub(crate) struct Contexts {
    lines: Box<[Line]>,
    in_flight: Box<[bool]>,
}

// SAFETY: the lines are written by the provider only, during calls of the thread that has the endpoint (or by a thread of
// its own, under its own locks); we only compare their addresses.
unsafe impl Send for Contexts {}

impl Contexts {
    /// Lines for operations `0..count`.
    pub(crate) fn new(count: usize) -> Contexts {
        let line = || Line(UnsafeCell::new(FiContext2 { internal: [0; 8] }));
        Contexts {
            lines: (0..count).map(|_| line()).collect(),
            in_flight: vec![false; count].into_boxed_slice(),
        }
    }

    /// The line of `operation`, which is in flight from now on. Panics when it already was: two operations in one line would
    /// be memory that two write.
    #[inline]
    pub(crate) fn take(&mut self, operation: u32) -> *mut c_void {
        let flag = &mut self.in_flight[operation as usize];
        assert!(!*flag, "operation {operation} is in flight already");
        *flag = true;
        self.address(operation)
    }

    /// Undoes [`Contexts::take`] for an operation that was refused.
    #[inline]
    pub(crate) fn give_back(&mut self, operation: u32) {
        self.in_flight[operation as usize] = false;
    }

    /// Where the line of `operation` is.
    #[inline]
    pub(crate) fn address(&self, operation: u32) -> *mut c_void {
        self.lines[operation as usize].0.get().cast()
    }

    /// Which operation has ended, by the address that a completion carries. `None` for addresses that are no line of ours and for
    /// operations that are not in flight.
    #[inline]
    pub(crate) fn end(&mut self, line: *mut c_void) -> Option<u32> {
        let offset = (line as usize).wrapping_sub(self.lines.as_ptr() as usize);
        let index = offset / CONTEXT_BYTES;
        let flag = self.in_flight.get_mut(index)?;
        if !offset.is_multiple_of(CONTEXT_BYTES) || !*flag {
            return None;
        }
        *flag = false;
        u32::try_from(index).ok()
    }

    /// Operations in flight. Cost: looks at all.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.iter().filter(|flag| **flag).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_ends_once_and_its_line_is_free_again() {
        let mut contexts = Contexts::new(3);
        let line = contexts.take(2);
        assert_eq!(line as usize % CONTEXT_BYTES, 0);
        assert_eq!(contexts.in_flight(), 1);
        assert_eq!(contexts.end(line), Some(2));
        assert_eq!(contexts.end(line), None, "it has ended already");
        assert_eq!(contexts.take(2), line);
    }

    #[test]
    fn completions_that_belong_to_no_operation_are_told_apart() {
        let mut contexts = Contexts::new(2);
        let line = contexts.take(1);
        assert_eq!(contexts.end(std::ptr::null_mut()), None);
        assert_eq!(contexts.end(line.wrapping_byte_add(8)), None);
        assert_eq!(contexts.end(line.wrapping_byte_add(CONTEXT_BYTES)), None);
        assert_eq!(contexts.end(line), Some(1));
    }

    #[test]
    #[should_panic(expected = "operation 1 is in flight already")]
    fn an_operation_in_flight_cannot_be_used_again() {
        let mut contexts = Contexts::new(2);
        contexts.take(1);
        contexts.take(1);
    }
}
