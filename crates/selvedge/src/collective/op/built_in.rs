//! The operations that come with the library, and the elements that know them (MPI 5.0 section 6.9.2).

use selvedge_coll::Side;
use selvedge_transport::Buf;

use super::{BuiltIn, Op, each};
use crate::datatype::Datatype;
use crate::datatype::memory::{Invalid, with_elements};

/// Elements that can be added and multiplied: integers, floats, with the features `half` and `complex` those too.
///
/// ```
/// fn total<T: selvedge::Number + Default>(world: &selvedge::Communicator, mine: T) -> T {
///     let mut sum = [T::default()];
///     world.allreduce(&[mine], &mut sum, &selvedge::Op::sum()).unwrap();
///     sum[0]
/// }
/// assert_eq!(selvedge::local::run(2, |world| total(&world, 1.5)), [3.0; 2]);
/// ```
pub trait Number: Datatype + sealed::Number {}

/// Elements that can be compared: integers and floats, with the feature `half` those too.
///
/// ```
/// fn span<T: selvedge::Ordered>(values: &mut [T; 2], others: &[T]) {
///     let (low, high) = values.split_at_mut(1);
///     others.iter().for_each(|other| {
///         selvedge::Op::min().reduce_local(&[*other], low).unwrap();
///         selvedge::Op::max().reduce_local(&[*other], high).unwrap();
///     });
/// }
/// let mut values = [2, 2];
/// span(&mut values, &[5, 1, 3]);
/// assert_eq!(values, [1, 5]);
/// ```
pub trait Ordered: Datatype + sealed::Ordered {}

/// Elements that are true or false: `bool`, and integers, of which 0 is false.
///
/// ```
/// fn any<T: selvedge::Logical>(left: T, right: T) -> T {
///     let mut into = [right];
///     selvedge::Op::lor().reduce_local(&[left], &mut into).unwrap();
///     into[0]
/// }
/// assert_eq!((any(false, true), any(0, 7)), (true, 1));
/// ```
pub trait Logical: Datatype + sealed::Logical {}

/// Elements with bits: integers.
///
/// ```
/// fn join<T: selvedge::Integer>(left: T, right: T) -> T {
///     let mut into = [right];
///     selvedge::Op::bor().reduce_local(&[left], &mut into).unwrap();
///     into[0]
/// }
/// assert_eq!(join(0b01_u8, 0b10), 0b11);
/// ```
pub trait Integer: Number + sealed::Integer {}

/// The element-wise arithmetic behind the built-in operations.
mod sealed {
    pub trait Number: Sized {
        fn sum(a: Self, b: Self) -> Self;
        fn prod(a: Self, b: Self) -> Self;
    }
    pub trait Ordered: PartialOrd + Sized {
        fn min(a: Self, b: Self) -> Self;
        fn max(a: Self, b: Self) -> Self;
    }
    pub trait Logical: Sized {
        fn land(a: Self, b: Self) -> Self;
        fn lor(a: Self, b: Self) -> Self;
        fn lxor(a: Self, b: Self) -> Self;
    }
    pub trait Integer: Sized {
        fn band(a: Self, b: Self) -> Self;
        fn bor(a: Self, b: Self) -> Self;
        fn bxor(a: Self, b: Self) -> Self;
    }
}

/// An element-wise operation as a function on claims.
macro_rules! built_in {
    ($bound:ident: $($(#[$doc:meta])* $name:ident)*) => {
        impl<T: $bound> Op<T> {$(
            $(#[$doc])*
            pub const fn $name() -> Op<T> {
                fn reduce<T: $bound>(from: Buf, into: Buf, _: Side) -> Result<(), Invalid> {
                    each(from, into, T::$name)
                }
                Op::built_in(true, const { &BuiltIn { name: stringify!($name), reduce: reduce::<T> } })
            }
        )*}
    };
}

built_in! { Number:
    /// `a + b` (MPI_SUM).
    #[doc(alias = "MPI_SUM")]
    sum
    /// `a * b` (MPI_PROD).
    #[doc(alias = "MPI_PROD")]
    prod
}

built_in! { Ordered:
    /// The smaller one (MPI_MIN).
    #[doc(alias = "MPI_MIN")]
    min
    /// The larger one (MPI_MAX).
    #[doc(alias = "MPI_MAX")]
    max
}

built_in! { Logical:
    /// Whether both are true (MPI_LAND). Of integers: 1 or 0.
    #[doc(alias = "MPI_LAND")]
    land
    /// Whether one is true (MPI_LOR). Of integers: 1 or 0.
    #[doc(alias = "MPI_LOR")]
    lor
    /// Whether exactly one is true (MPI_LXOR). Of integers: 1 or 0.
    #[doc(alias = "MPI_LXOR")]
    lxor
}

built_in! { Integer:
    /// `a & b` (MPI_BAND).
    #[doc(alias = "MPI_BAND")]
    band
    /// `a | b` (MPI_BOR).
    #[doc(alias = "MPI_BOR")]
    bor
    /// `a ^ b` (MPI_BXOR).
    #[doc(alias = "MPI_BXOR")]
    bxor
}

impl<T: Datatype> Op<T> {
    /// The right operand: what the highest rank gave (MPI_REPLACE, MPI 5.0 section 12.3.4, where it is for windows only).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let mut last = [0];
    ///     world.allreduce(&[world.rank()], &mut last, &selvedge::Op::replace()).unwrap();
    ///     assert_eq!(last, [2]);
    /// });
    /// ```
    #[doc(alias = "MPI_REPLACE")]
    pub const fn replace() -> Op<T> {
        fn reduce<T: Datatype>(from: Buf, into: Buf, side: Side) -> Result<(), Invalid> {
            with_elements::<T>(from, into, |from, into| {
                if side == Side::Right {
                    into.copy_from_slice(from);
                }
            })
        }
        Op::built_in(false, const { &BuiltIn { name: "replace", reduce: reduce::<T> } })
    }

    /// The left operand: what the lowest rank gave (MPI_NO_OP, as above).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let mut first = [9];
    ///     world.allreduce(&[world.rank()], &mut first, &selvedge::Op::no_op()).unwrap();
    ///     assert_eq!(first, [0]);
    /// });
    /// ```
    #[doc(alias = "MPI_NO_OP")]
    pub const fn no_op() -> Op<T> {
        fn reduce<T: Datatype>(from: Buf, into: Buf, side: Side) -> Result<(), Invalid> {
            with_elements::<T>(from, into, |from, into| {
                if side == Side::Left {
                    into.copy_from_slice(from);
                }
            })
        }
        Op::built_in(false, const { &BuiltIn { name: "no_op", reduce: reduce::<T> } })
    }
}

macro_rules! number {
    ($($type:ty: $sum:expr, $prod:expr;)*) => {$(
        impl Number for $type {}
        impl sealed::Number for $type {
            #[inline(always)]
            fn sum(a: $type, b: $type) -> $type { $sum(a, b) }
            #[inline(always)]
            fn prod(a: $type, b: $type) -> $type { $prod(a, b) }
        }
    )*};
}

/// Comparisons as the processor has them: for floats one instruction, and with a NaN one of the operands.
macro_rules! ordered {
    ($($type:ty)*) => {$(
        impl Ordered for $type {}
        impl sealed::Ordered for $type {
            #[inline(always)]
            fn min(a: $type, b: $type) -> $type { if a < b { a } else { b } }
            #[inline(always)]
            fn max(a: $type, b: $type) -> $type { if a > b { a } else { b } }
        }
    )*};
}

macro_rules! logical {
    ($($type:ty: $is_true:expr, $of:expr;)*) => {$(
        impl Logical for $type {}
        impl sealed::Logical for $type {
            #[inline(always)]
            fn land(a: $type, b: $type) -> $type { $of($is_true(a) & $is_true(b)) }
            #[inline(always)]
            fn lor(a: $type, b: $type) -> $type { $of($is_true(a) | $is_true(b)) }
            #[inline(always)]
            fn lxor(a: $type, b: $type) -> $type { $of($is_true(a) ^ $is_true(b)) }
        }
    )*};
}

macro_rules! integer {
    ($($type:ident)*) => {
        number! { $($type: $type::wrapping_add, $type::wrapping_mul;)* }
        ordered! { $($type)* }
        logical! { $($type: |a: $type| a != 0, |truth: bool| truth as $type;)* }
        $(
            impl Integer for $type {}
            impl sealed::Integer for $type {
                #[inline(always)]
                fn band(a: $type, b: $type) -> $type { a & b }
                #[inline(always)]
                fn bor(a: $type, b: $type) -> $type { a | b }
                #[inline(always)]
                fn bxor(a: $type, b: $type) -> $type { a ^ b }
            }
        )*
    };
}

integer! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }
number! {
    f32: std::ops::Add::add, std::ops::Mul::mul;
    f64: std::ops::Add::add, std::ops::Mul::mul;
}
ordered! { f32 f64 }
logical! { bool: |a: bool| a, |truth: bool| truth; }

#[cfg(feature = "half")]
number! {
    half::f16: std::ops::Add::add, std::ops::Mul::mul;
    half::bf16: std::ops::Add::add, std::ops::Mul::mul;
}
#[cfg(feature = "half")]
ordered! { half::f16 half::bf16 }

#[cfg(feature = "complex")]
number! {
    num_complex::Complex<f32>: std::ops::Add::add, std::ops::Mul::mul;
    num_complex::Complex<f64>: std::ops::Add::add, std::ops::Mul::mul;
}
