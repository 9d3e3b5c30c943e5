//! What a message may be made of (MPI 5.0 section 3.2.2 for the predefined ones, chapter 5 for those of the program).
//! Below: where its elements lie, how claims on them are made, and the check that both sides mean the same.
//!
//! Bytes that arrive come from another process, so nothing is believed about them: a type says which bytes are a value
//! of it, and `memory.rs` looks before the program may.

#[cfg(feature = "ndarray")]
pub(crate) mod arrays;
pub(crate) mod layout;
pub(crate) mod memory;
pub(crate) mod signature;
pub(crate) mod view;

use std::marker::PhantomData;
use std::mem::size_of;
use std::num::{NonZero, Wrapping};

use crate::datatype::signature::{Basic, Signature};

#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel as it lies in memory",
    label = "not a `Datatype`",
    note = "a struct of numbers, `bool`s, `char`s and arrays of them can, with `#[repr(C)]` and `#[derive(selvedge::Datatype)]`",
    note = "a type of another crate that is `bytemuck::Pod` can, inside `selvedge::Plain`",
    note = "`Vec`, `String`, `Rc` and references lead to memory of this process: send what they lead to, or the value with `send_value`"
)]
/// A type whose values travel as they lie in memory.
///
/// All integers and floats, `bool`, `char`, [`NonZero`] integers, arrays of such types and structs of them with
/// `#[repr(C)]` and `#[derive(Datatype)]`, also nested and generic; enums without fields that have an integer as their
/// representation; with the features `complex` and `half` the numbers of those crates. Types of other crates that are
/// [`bytemuck::Pod`] travel inside [`Plain`], values of any other kind with [`crate::Communicator::send_value`].
///
/// ```
/// use selvedge::Datatype;
///
/// #[derive(Clone, Copy, Debug, PartialEq, Datatype)]
/// #[repr(u8)]
/// enum Kind { Free, Fixed }
///
/// #[derive(Clone, Copy, Debug, PartialEq, Datatype)]
/// #[repr(C)]
/// struct Particle<const D: usize> {
///     position: [f64; D],
///     name: char,
///     kind: Kind,
///     alive: [bool; 3],
/// }
///
/// selvedge::local::run(2, |world| {
///     let mut it = Particle { position: [0.5; 3], name: 'ψ', kind: Kind::Fixed, alive: [true; 3] };
///     if world.rank() == 1 {
///         it.name = ' ';
///     }
///     world.broadcast(std::slice::from_mut(&mut it), 0).unwrap();
///     assert_eq!(it.name, 'ψ');
/// });
/// ```
///
/// Padding is refused while compiling: those bytes have no value that could travel. The remedy is another order of the
/// fields, largest first, or a field that takes their place.
///
/// Cost: types of which any bytes are a value are received where they belong and never looked at. Of the others
/// (`bool`, `char`, [`NonZero`], enums and what contains them) each element that may have been written is looked at
/// once; one that is no value becomes what the first element of the buffer was before, and the call ends with
/// [`crate::Misuse::InvalidElement`].
///
/// # Safety
/// For every value of the type:
/// 1. all `size_of::<Self>()` bytes are initialised: no padding, also not inside fields. A generic type may check this
///    by refusing to evaluate [`Datatype::PLAIN`];
/// 2. it means the same in another process: no pointer, no reference, no handle; and a shared reference permits no write
///    (no `Cell`, no atomic).
///
/// And [`Datatype::PLAIN`] is true only where every sequence of bytes is a value, and [`Datatype::is_valid`] returns true
/// only for bytes that are one.
pub unsafe trait Datatype: Copy + Send + Sync + 'static {
    /// Whether any bytes are a value. Every call that moves elements evaluates it, which is where a generic struct whose
    /// parameters give it padding is refused.
    const PLAIN: bool;

    /// Whether these `size_of::<Self>()` bytes are a value.
    fn is_valid(bytes: &[u8]) -> bool;

    /// Says what a value is made of, for the check that both sides of a message mean the same (`SELVEDGE_CHECK=1`, see
    /// [`crate::init`]). `#[derive(Datatype)]` writes it. Without it the type matches itself and bytes of any type.
    fn describe(signature: &mut Signature) {
        signature.opaque::<Self>();
    }
}

/// Types of which any bytes are a value.
macro_rules! plain {
    ($basic:expr; $($type:ty)*) => {$(
        // SAFETY: numbers have neither padding nor pointers, and any bits are one.
        unsafe impl Datatype for $type {
            const PLAIN: bool = true;

            #[inline(always)]
            fn is_valid(_: &[u8]) -> bool {
                true
            }

            fn describe(signature: &mut Signature) {
                signature.basic($basic(size_of::<Self>() as u8));
            }
        }
    )*};
}

plain! { Basic::Unsigned; u8 u16 u32 u64 u128 usize }
plain! { Basic::Signed; i8 i16 i32 i64 i128 isize }
plain! { Basic::Float; f32 f64 }

// SAFETY: of no size.
unsafe impl Datatype for () {
    const PLAIN: bool = true;

    #[inline(always)]
    fn is_valid(_: &[u8]) -> bool {
        true
    }

    fn describe(_: &mut Signature) {}
}

#[cfg(feature = "half")]
plain! { Basic::Float; half::f16 }
#[cfg(feature = "half")]
plain! { |_| Basic::Brain; half::bf16 }

// SAFETY: one byte without padding; it is 0 or 1 and nothing else.
unsafe impl Datatype for bool {
    const PLAIN: bool = false;

    #[inline(always)]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes[0] < 2
    }

    fn describe(signature: &mut Signature) {
        signature.basic(Basic::Bool);
    }
}

// SAFETY: four bytes without padding, of which `from_u32` knows which are a scalar value of Unicode.
unsafe impl Datatype for char {
    const PLAIN: bool = false;

    #[inline(always)]
    fn is_valid(bytes: &[u8]) -> bool {
        let bits = bytes.try_into().expect("a char has four bytes");
        char::from_u32(u32::from_ne_bytes(bits)).is_some()
    }

    fn describe(signature: &mut Signature) {
        signature.basic(Basic::Char);
    }
}

/// `NonZero` integers: the integer, and not 0. Neither `Option` of one nor the integer itself needs a look.
macro_rules! non_zero {
    ($($type:ty)*) => {$(
        // SAFETY: laid out as the integer, of which only 0 is no value.
        unsafe impl Datatype for NonZero<$type> {
            const PLAIN: bool = false;

            #[inline(always)]
            fn is_valid(bytes: &[u8]) -> bool {
                bytes.iter().any(|byte| *byte != 0)
            }

            fn describe(signature: &mut Signature) {
                signature.elements::<$type>(1);
            }
        }

        // SAFETY: laid out as the integer, with 0 as `None`, which std guarantees for `NonZero`.
        unsafe impl Datatype for Option<NonZero<$type>> {
            const PLAIN: bool = true;

            #[inline(always)]
            fn is_valid(_: &[u8]) -> bool {
                true
            }

            fn describe(signature: &mut Signature) {
                signature.elements::<$type>(1);
            }
        }
    )*};
}

non_zero! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }

// SAFETY: an array is its elements without anything between them.
unsafe impl<T: Datatype, const N: usize> Datatype for [T; N] {
    const PLAIN: bool = T::PLAIN;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        size_of::<T>() == 0 || bytes.chunks_exact(size_of::<T>()).all(T::is_valid)
    }

    fn describe(signature: &mut Signature) {
        signature.elements::<T>(N);
    }
}

// SAFETY: `repr(transparent)` over its one field.
unsafe impl<T: Datatype> Datatype for Wrapping<T> {
    const PLAIN: bool = T::PLAIN;

    #[inline(always)]
    fn is_valid(bytes: &[u8]) -> bool {
        T::is_valid(bytes)
    }

    fn describe(signature: &mut Signature) {
        signature.elements::<T>(1);
    }
}

// SAFETY: of no size.
unsafe impl<T: Send + Sync + 'static> Datatype for PhantomData<T> {
    const PLAIN: bool = true;

    #[inline(always)]
    fn is_valid(_: &[u8]) -> bool {
        true
    }

    fn describe(_: &mut Signature) {}
}

// SAFETY: `repr(C)`, two fields of one type: an array of two (the crate documents it).
#[cfg(feature = "complex")]
unsafe impl<T: Datatype> Datatype for num_complex::Complex<T> {
    const PLAIN: bool = T::PLAIN;

    #[inline(always)]
    fn is_valid(bytes: &[u8]) -> bool {
        <[T; 2]>::is_valid(bytes)
    }

    fn describe(signature: &mut Signature) {
        signature.elements::<T>(2);
    }
}

/// A type of another crate that is [`bytemuck::Pod`], as a [`Datatype`]: vectors of geometry crates, for example.
///
/// ```
/// use selvedge::Plain;
///
/// #[derive(Clone, Copy, Default, PartialEq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Vec3 { x: f32, y: f32, z: f32 } // imagine it in a crate that you do not own
///
/// selvedge::local::run(2, |world| {
///     let mine = [Vec3 { x: world.rank() as f32, ..Vec3::default() }; 2];
///     let mut all = [Vec3::default(); 4];
///     world.allgather(Plain::slice(&mine), Plain::slice_mut(&mut all)).unwrap();
///     assert_eq!(all[3].x, 1.0);
/// });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Plain<T: bytemuck::Pod>(pub T);

// SAFETY: `repr(transparent)` over its one field.
unsafe impl<T: bytemuck::Pod> bytemuck::TransparentWrapper<T> for Plain<T> {}

// SAFETY: `Pod` promises no padding, no pointers, no interior mutability, and that any bytes are a value.
unsafe impl<T: bytemuck::Pod + Send + Sync> Datatype for Plain<T> {
    const PLAIN: bool = true;

    #[inline(always)]
    fn is_valid(_: &[u8]) -> bool {
        true
    }

    /// Bytes, which match any type.
    fn describe(signature: &mut Signature) {
        signature.bytes(size_of::<T>());
    }
}

impl<T: bytemuck::Pod> Plain<T> {
    /// The same elements as a message. Costs nothing.
    pub fn slice(elements: &[T]) -> &[Plain<T>] {
        bytemuck::TransparentWrapper::wrap_slice(elements)
    }

    /// The same elements as a buffer to receive into. Costs nothing.
    pub fn slice_mut(elements: &mut [T]) -> &mut [Plain<T>] {
        bytemuck::TransparentWrapper::wrap_slice_mut(elements)
    }
}

/// What does not compile. Each is one line away from code that does.
///
/// A pointer to the memory of this process:
///
/// ```compile_fail,E0277
/// selvedge::local::run(1, |world| world.send(&[std::rc::Rc::new(1)], 0, 0));
/// ```
///
/// ```compile_fail,E0277
/// selvedge::local::run(1, |world| world.send(&["text"], 0, 0));
/// ```
///
/// A struct whose layout is the compiler's own business, and one with a pointer in it:
///
/// ```compile_fail
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// struct Loose { x: u32, y: u32 }
/// ```
///
/// ```compile_fail,E0277
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Pointing { to: *const u32 }
/// ```
///
/// Padding, between fields and behind them; the same with the padding given a name compiles:
///
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Padded { small: u8, large: u32 }
/// ```
///
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Padded { large: u32, small: u8 }
/// ```
///
/// ```
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Full { large: u32, small: u8, reserved: [u8; 3] }
/// ```
///
/// Padding that depends on a parameter, where it is used:
///
/// ```compile_fail,E0080
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Pair<T> { value: T, index: u64 }
///
/// fn main() {
///     selvedge::local::run(1, |world| world.send(&[Pair { value: 1u32, index: 2 }], 0, 0));
/// }
/// ```
///
/// ```
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Pair<T> { value: T, index: u64 }
///
/// fn main() {
///     selvedge::local::run(1, |world| world.send(&[Pair { value: 1i64, index: 2 }], 0, 0));
/// }
/// ```
///
/// An enum without an integer to be represented by:
///
/// ```compile_fail
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// enum Choice { A, B }
/// ```
#[cfg(doctest)]
mod refused {}
