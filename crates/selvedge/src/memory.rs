//! Where the user's typed slices become claims and claims become typed slices again. Unsafe code lives here and in
//! the few calls of [`claim`] and [`claim_mut`] (`blocking.rs`, `scope.rs`).

use std::mem::{align_of, size_of};

use selvedge_transport::Buf;

/// What a message may be made of: plain old data, any bit pattern valid, no padding and no pointers.
///
/// All integers and floats, arrays of them, and structs that derive [`bytemuck::Pod`]. Implemented for every such type.
///
/// ```
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Particle { position: [f64; 3], charge: f64 }
///
/// fn is_datatype<T: selvedge::Datatype>() {}
/// is_datatype::<Particle>();
/// ```
pub trait Datatype: bytemuck::Pod {}

impl<T: bytemuck::Pod> Datatype for T {}

/// Claims a message that an operation will read.
///
/// # Safety
/// The borrow must last until the operation is complete, as for [`Buf::claim`]; and the operation must not write.
pub(crate) unsafe fn claim<T: Datatype>(message: &[T]) -> Buf {
    // SAFETY: the caller keeps the shared borrow, so the bytes stay readable and nobody writes them; the operation
    // does not write, so that the address came from a shared borrow does not matter.
    unsafe { Buf::claim(message.as_ptr().cast_mut().cast(), size_of_val(message)) }
}

/// Claims a message that an operation will write (and may read).
///
/// # Safety
/// The borrow must last until the operation is complete, as for [`Buf::claim`].
pub(crate) unsafe fn claim_mut<T: Datatype>(message: &mut [T]) -> Buf {
    let bytes = size_of_val(message);
    // SAFETY: the caller keeps the exclusive borrow, so nobody else touches the bytes; `T` is plain old data, so any
    // bytes that arrive are a value of it.
    unsafe { Buf::claim(message.as_mut_ptr().cast(), bytes) }
}

/// Memory of a schedule's own: initialised, aligned for any element, kept for reuse.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

/// 64 bytes with the largest alignment an element can need (128-bit and vector types have 16).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u64; 8]);

impl Scratch {
    /// A claim on `bytes` bytes of it, growing it first if needed. The caller keeps the `Scratch` until the claim is no
    /// longer used, and asks for no second claim meanwhile.
    pub(crate) fn claim(&mut self, bytes: usize) -> Buf {
        let lines = bytes.div_ceil(size_of::<Line>());
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::default());
        }
        // SAFETY: the vector owns that many initialised bytes, any bytes are valid in it, and by the contract above
        // it is neither resized nor dropped nor claimed again while the claim is in use.
        unsafe { Buf::claim(self.lines.as_mut_ptr().cast(), bytes) }
    }
}

/// Shows two claims as slices of `T` for the time of one call. Panics when they are not whole aligned elements of equal
/// number or when they overlap; the verifier of schedules excludes all three.
pub(crate) fn with_elements<T: Datatype>(from: Buf, into: Buf, f: impl FnOnce(&[T], &mut [T])) {
    let count = whole_elements::<T>(from);
    assert_eq!(count, whole_elements::<T>(into), "operands of a reduction have different lengths");
    let (a, b) = (from.as_ptr().addr(), into.as_ptr().addr());
    assert!(a + from.len() <= b || b + into.len() <= a, "operands of a reduction overlap");
    // SAFETY: the claim promises `from.len()` readable bytes that nobody writes; count and alignment are checked by
    // `whole_elements`, any bit pattern is a `T`.
    let from = unsafe { std::slice::from_raw_parts(from.as_ptr().cast::<T>(), count) };
    // SAFETY: as above, writable by the claim, and disjoint from `from` by the assertion.
    let into = unsafe { std::slice::from_raw_parts_mut(into.as_ptr().cast::<T>(), count) };
    f(from, into);
}

/// Number of elements of `T` in a claim. Panics when it is not a whole number or not aligned.
fn whole_elements<T>(buf: Buf) -> usize {
    if buf.is_empty() {
        return 0;
    }
    assert!(buf.len().is_multiple_of(size_of::<T>()), "{buf:?} cuts an element of {} bytes", size_of::<T>());
    assert!(buf.as_ptr().addr().is_multiple_of(align_of::<T>()), "{buf:?} is not aligned for its element");
    buf.len() / size_of::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_aligned_and_grows() {
        let mut scratch = Scratch::default();
        for bytes in [1, 64, 65, 1000, 8] {
            let buf = scratch.claim(bytes);
            assert_eq!((buf.len(), buf.as_ptr().addr() % 64), (bytes, 0));
        }
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_operands_are_refused() {
        let mut scratch = Scratch::default();
        let buf = scratch.claim(24);
        with_elements::<u64>(buf.slice(0..16), buf.slice(8..24), |_, _| ());
    }
}
