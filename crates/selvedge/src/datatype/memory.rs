//! Where the user's typed slices become claims and claims become typed slices again. Unsafe code lives here and in
//! the few calls of [`claim`] and [`claim_mut`] (those in `request`).

use std::any::type_name;
use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

use selvedge_transport::Buf;

use crate::datatype::Datatype;
use crate::datatype::signature::{Misfit, Stamp};

/// Claims a message that an operation will read.
///
/// # Safety
/// The borrow must last until the operation is complete, as for [`Buf::claim`]; and the operation must not write.
#[inline]
pub(crate) unsafe fn claim<T: Datatype>(message: &[T]) -> Buf {
    let _has_no_padding = T::PLAIN;
    // SAFETY: the caller keeps the shared borrow, so the bytes stay readable and nobody writes them; the operation
    // does not write, so that the address came from a shared borrow does not matter.
    unsafe { Buf::claim(message.as_ptr().cast_mut().cast(), size_of_val(message)) }
}

/// Claims a message that an operation will write (and may read), and says what is left to do when it is complete.
///
/// # Safety
/// The borrow must last until the operation is complete, as for [`Buf::claim`], and the [`Aftermath`] must be kept until
/// then and be settled or dropped before the borrow ends: until then the bytes may be no values of `T`.
#[inline]
pub(crate) unsafe fn claim_mut<T: Datatype>(message: &mut [T]) -> (Buf, Aftermath) {
    let bytes = size_of_val(message);
    let first = message.first().copied();
    // SAFETY: the caller keeps the exclusive borrow, so nobody else touches the bytes; what arrives is a value of `T`
    // either whatever it is, or nobody reads it as one before the aftermath has looked.
    let buf = unsafe { Buf::claim(message.as_mut_ptr().cast(), bytes) };
    // SAFETY: the claim is on a slice of `T`, and the caller keeps the aftermath.
    let aftermath = unsafe { aftermath(buf, first) };
    (buf, aftermath)
}

/// What is left to do when an operation that writes to a claim on elements is complete. `first`: the value that takes the
/// place of what is none.
///
/// # Safety
/// The claim is on a slice of `T`; the rest as for [`claim_mut`].
#[inline]
pub(crate) unsafe fn aftermath<T: Datatype>(written: Buf, first: Option<T>) -> Aftermath {
    match first {
        Some(first) if !T::PLAIN && !written.is_empty() => Aftermath::of(Repair { written, first }),
        _ => Aftermath::NOTHING,
    }
}

/// What is left to do when an operation that writes is complete, before the caller may look. Done when it is dropped,
/// and that must not be before. Costs nothing where nothing is left to do.
#[derive(Debug)]
pub(crate) struct Aftermath(Option<Box<dyn Settle + Send>>);

/// What came of it. A word, since it travels with every outcome.
pub(crate) type Settled = Result<(), Box<Unfit>>;

/// Something to do after an operation.
pub(crate) trait Settle: fmt::Debug {
    /// Does it. Called once, when the operation is complete.
    fn settle(&mut self) -> Settled;
}

/// What has arrived is not what was to be received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// An element that is no value of its type.
    Invalid(Invalid),
    /// A message of other types, or of more elements than there is room for, as its stamp says.
    Mismatch { sent: Option<Stamp>, receive: Stamp, why: Misfit },
}

impl From<Invalid> for Box<Unfit> {
    fn from(invalid: Invalid) -> Box<Unfit> {
        Box::new(Unfit::Invalid(invalid))
    }
}

/// An element that is no value of its type has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) index: usize,
    pub(crate) type_name: &'static str,
}

impl Aftermath {
    /// Nothing is left to do.
    pub(crate) const NOTHING: Aftermath = Aftermath(None);

    /// `what` is left to do.
    pub(crate) fn of(what: impl Settle + Send + 'static) -> Aftermath {
        Aftermath(Some(Box::new(what)))
    }

    /// `what` is dropped, and not before: bytes that the operation sends.
    pub(crate) fn keep(what: Vec<u8>) -> Aftermath {
        Aftermath::of(Kept(what))
    }

    /// Whether nothing is left to do.
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// The operation is complete.
    #[inline]
    pub(crate) fn settle(mut self) -> Settled {
        match self.0.take() {
            None => Ok(()),
            Some(what) => settle_now(what),
        }
    }
}

#[cold]
fn settle_now(mut what: Box<dyn Settle + Send>) -> Settled {
    what.settle()
}

impl Drop for Aftermath {
    #[inline]
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            // Whoever drops it is not interested in the outcome, but the memory must be in order.
            let _ = settle_now(what);
        }
    }
}

/// Bytes that are kept.
struct Kept(Vec<u8>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes)", self.0.len())
    }
}

impl Settle for Kept {
    fn settle(&mut self) -> Settled {
        Ok(())
    }
}

/// Looks for elements that are no values and makes them one.
struct Repair<T> {
    written: Buf,
    /// What the first element was before: a value.
    first: T,
}

impl<T> fmt::Debug for Repair<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repair({:?} of {})", self.written, type_name::<T>())
    }
}

impl<T: Datatype> Settle for Repair<T> {
    fn settle(&mut self) -> Settled {
        let Err(invalid) = check::<T>(self.written) else { return Ok(()) };
        let elements = self.written.as_ptr().cast::<T>();
        for index in 0..self.written.len() / size_of::<T>() {
            let element = self.written.slice(index * size_of::<T>()..(index + 1) * size_of::<T>());
            if !T::is_valid(bytes_of(&element)) {
                // SAFETY: the claim is on a slice of `T` and this is the place of one of its elements; the operation,
                // which alone could touch it, is complete.
                unsafe { elements.wrapping_add(index).write(self.first) };
            }
        }
        Err(invalid.into())
    }
}

/// The first element in `memory` that is no value of `T`, as an error. A part of an element at the end is not looked at.
#[inline]
pub(crate) fn check<T: Datatype>(memory: Buf) -> Result<(), Invalid> {
    if T::PLAIN || size_of::<T>() == 0 {
        return Ok(());
    }
    match bytes_of(&memory).chunks_exact(size_of::<T>()).position(|bytes| !T::is_valid(bytes)) {
        None => Ok(()),
        Some(index) => Err(Invalid { index, type_name: type_name::<T>() }),
    }
}

/// What lies there, while `memory` is borrowed. Only for claims whose operation is complete or being reduced.
pub(crate) fn bytes_of(memory: &Buf) -> &[u8] {
    // SAFETY: a claim promises that many readable bytes that only its holder writes. They are initialised: every claim
    // is on elements without padding or on memory that was zeroed.
    unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) }
}

/// A vector that will be received into: as long as it has to be, and no values yet.
pub(crate) struct Arriving<T> {
    elements: Vec<MaybeUninit<T>>,
}

impl<T: Datatype> Arriving<T> {
    /// Room for `count` elements, of zero bytes. Cost: they are written once.
    pub(crate) fn new(count: usize) -> Arriving<T> {
        Arriving { elements: vec![MaybeUninit::zeroed(); count] }
    }

    /// The claim on it. The caller keeps the `Arriving` where it is until the operation is complete.
    pub(crate) fn claim(&mut self) -> Buf {
        let bytes = size_of_val(self.elements.as_slice());
        // SAFETY: the vector owns that many initialised (zeroed) bytes, any bytes may lie in it, and by the contract
        // above it lasts.
        unsafe { Buf::claim(self.elements.as_mut_ptr().cast(), bytes) }
    }

    /// What has arrived.
    pub(crate) fn finish(mut self) -> Result<Vec<T>, Invalid> {
        check::<T>(self.claim())?;
        let mut elements = ManuallyDrop::new(self.elements);
        let (start, count, room) = (elements.as_mut_ptr(), elements.len(), elements.capacity());
        // SAFETY: the parts of a vector that is not dropped; `MaybeUninit<T>` is laid out as `T`, and the elements were
        // just found to be values.
        Ok(unsafe { Vec::from_raw_parts(start.cast::<T>(), count, room) })
    }
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

/// Shows two claims as slices of `T` for the time of one call, if what lies there are values of `T`. Panics when they are
/// not whole aligned elements of equal number or when they overlap; the verifier of schedules excludes all three.
#[inline]
pub(crate) fn with_elements<T: Datatype>(
    from: Buf,
    into: Buf,
    f: impl FnOnce(&[T], &mut [T]),
) -> Result<(), Invalid> {
    let count = whole_elements::<T>(from);
    assert_eq!(count, whole_elements::<T>(into), "operands of a reduction have different lengths");
    let (a, b) = (from.as_ptr().addr(), into.as_ptr().addr());
    assert!(a + from.len() <= b || b + into.len() <= a, "operands of a reduction overlap");
    if count == 0 {
        f(&[], &mut []);
        return Ok(());
    }
    check::<T>(from)?;
    check::<T>(into)?;
    // SAFETY: the claim promises `from.len()` readable bytes that nobody writes; count and alignment are checked by
    // `whole_elements`, and each was found to be a `T`.
    let from = unsafe { std::slice::from_raw_parts(from.as_ptr().cast::<T>(), count) };
    // SAFETY: as above, writable by the claim, and disjoint from `from` by the assertion.
    let into = unsafe { std::slice::from_raw_parts_mut(into.as_ptr().cast::<T>(), count) };
    f(from, into);
    Ok(())
}

/// Claims two slices for the time of one call, which may write values of `T` to `into` and nothing else.
pub(crate) fn with_claims<T: Datatype, R>(from: &[T], into: &mut [T], f: impl FnOnce(Buf, Buf) -> R) -> R {
    // SAFETY: the borrow lasts longer than the call, and nothing is written there.
    let from = unsafe { claim(from) };
    // SAFETY: the borrow lasts longer than the call.
    let (into, aftermath) = unsafe { claim_mut(into) };
    let outcome = f(from, into);
    drop(aftermath);
    outcome
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
        let _ = with_elements::<u64>(buf.slice(0..16), buf.slice(8..24), |_, _| ());
    }
}
