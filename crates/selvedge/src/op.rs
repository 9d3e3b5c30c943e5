//! Reduction operations: the built-in ones of MPI 5.0 section 6.9.2 and the user's own (6.9.5).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use selvedge_coll::Side;
use selvedge_transport::Buf;

use crate::datatype::Datatype;
use crate::memory::{Invalid, with_elements};

/// A reduction of elements of type `T`.
///
/// Built-in operations cost nothing to make. Integer sums and products wrap around, as in MPI's C binding; the result
/// of `min` and `max` with a NaN is one of the two operands.
///
/// ```
/// # use selvedge::Op;
/// selvedge::local::run(3, |world| {
///     let mut sum = [0u64];
///     world.allreduce(&[world.rank() as u64 + 1], &mut sum, &Op::sum()).unwrap();
///     assert_eq!(sum, [6]);
///
///     // A user's own: the longest vector wins. It commutes, so any order of operands will do.
///     let longest = Op::commutative(|from: &[[f64; 2]], into: &mut [[f64; 2]]| {
///         for (from, into) in from.iter().zip(into) {
///             if from[0].hypot(from[1]) > into[0].hypot(into[1]) {
///                 *into = *from;
///             }
///         }
///     });
///     let mut winner = [[0.0; 2]];
///     world.allreduce(&[[world.rank() as f64, 1.0]], &mut winner, &longest).unwrap();
///     assert_eq!(winner, [[2.0, 1.0]]);
/// });
/// ```
pub struct Op<T> {
    pub(crate) reducer: Reducer,
    pub(crate) commutative: bool,
    element: PhantomData<fn(T)>,
}

impl<T> fmt::Debug for Op<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").field("commutative", &self.commutative).finish_non_exhaustive()
    }
}

/// Combines `from` into `into`; the erased form of an operation that the executor runs.
#[derive(Clone)]
pub struct Reducer(Kind);

type BuiltIn = fn(Buf, Buf) -> Result<(), Invalid>;

#[derive(Clone)]
enum Kind {
    BuiltIn(BuiltIn),
    User(Arc<dyn Fn(Buf, Buf, Side) -> Result<(), Invalid> + Send + Sync>),
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::BuiltIn(_) => "Reducer(built in)",
            Kind::User(_) => "Reducer(user)",
        })
    }
}

impl Reducer {
    /// `into = from op into` for [`Side::Left`], `into = into op from` for [`Side::Right`].
    #[inline]
    pub(crate) fn apply(&self, from: Buf, into: Buf, side: Side) -> Result<(), Invalid> {
        match &self.0 {
            Kind::BuiltIn(reduce) => reduce(from, into),
            Kind::User(reduce) => reduce(from, into, side),
        }
    }
}

impl<T: Datatype> Op<T> {
    /// The user's own operation, which is associative and commutative. `f(from, into)` sets
    /// `into[i] = from[i] op into[i]` for two slices of equal length, as `MPI_User_function` does.
    ///
    /// If `f` panics, the collective goes on with whatever is in `into`, so that no other rank hangs, and the panic
    /// continues in the caller when the collective is complete. `f` must not communicate. Where several threads of a rank
    /// communicate, any of them may be the one that runs it.
    pub fn commutative(f: impl Fn(&[T], &mut [T]) + Send + Sync + 'static) -> Op<T> {
        Op::user(true, f)
    }

    /// As [`Op::commutative`], for an operation that is only associative: operands are combined in order of ranks. Some
    /// fast algorithms do not apply.
    pub fn ordered(f: impl Fn(&[T], &mut [T]) + Send + Sync + 'static) -> Op<T> {
        Op::user(false, f)
    }

    /// The operation as the executor runs it. For code that drives [`crate::runtime`].
    #[doc(hidden)]
    pub fn reducer(&self) -> Reducer {
        self.reducer.clone()
    }

    fn user(commutative: bool, f: impl Fn(&[T], &mut [T]) + Send + Sync + 'static) -> Op<T> {
        let reduce = move |from: Buf, into: Buf, side| {
            with_elements::<T>(from, into, |from, into| {
                if commutative || side == Side::Left {
                    f(from, into);
                } else {
                    // `f` writes its right operand, but the result belongs in the left one.
                    let mut right = from.to_vec();
                    f(into, &mut right);
                    into.copy_from_slice(&right);
                }
            })
        };
        Op { reducer: Reducer(Kind::User(Arc::new(reduce))), commutative, element: PhantomData }
    }
}

/// Elements the built-in operations know: all integers and floats.
pub trait Number: Datatype + sealed::Number {}

mod sealed {
    /// The element-wise arithmetic behind the built-in operations.
    pub trait Number: Sized {
        fn sum(a: Self, b: Self) -> Self;
        fn prod(a: Self, b: Self) -> Self;
        fn min(a: Self, b: Self) -> Self;
        fn max(a: Self, b: Self) -> Self;
        fn land(a: Self, b: Self) -> Self;
        fn lor(a: Self, b: Self) -> Self;
        fn lxor(a: Self, b: Self) -> Self;
    }
    /// The bit-wise operations, which floats do not have.
    pub trait Integer: Sized {
        fn band(a: Self, b: Self) -> Self;
        fn bor(a: Self, b: Self) -> Self;
        fn bxor(a: Self, b: Self) -> Self;
    }
}

/// Elements the bit-wise operations know.
pub trait Integer: Number + sealed::Integer {}

/// An element-wise operation as a function on claims. The loop is monomorphic in `T` and the operation, so it vectorises.
macro_rules! built_in {
    ($bound:ident: $($(#[$doc:meta])* $name:ident)*) => {
        impl<T: $bound> Op<T> {$(
            $(#[$doc])*
            pub const fn $name() -> Op<T> {
                fn reduce<T: $bound>(from: Buf, into: Buf) -> Result<(), Invalid> {
                    with_elements::<T>(from, into, |from, into| {
                        for (from, into) in from.iter().zip(into) {
                            *into = T::$name(*from, *into);
                        }
                    })
                }
                Op { reducer: Reducer(Kind::BuiltIn(reduce::<T>)), commutative: true, element: PhantomData }
            }
        )*}
    };
}

built_in! { Number:
    /// MPI_SUM.
    sum
    /// MPI_PROD.
    prod
    /// MPI_MIN.
    min
    /// MPI_MAX.
    max
    /// MPI_LAND: 1 where both operands are not 0, else 0.
    land
    /// MPI_LOR: 1 where one of the operands is not 0, else 0.
    lor
    /// MPI_LXOR: 1 where exactly one of the operands is not 0, else 0.
    lxor
}

built_in! { Integer:
    /// MPI_BAND.
    band
    /// MPI_BOR.
    bor
    /// MPI_BXOR.
    bxor
}

macro_rules! number {
    ($($type:ty: $sum:expr, $prod:expr, $zero:literal, $one:literal;)*) => {$(
        impl Number for $type {}
        impl sealed::Number for $type {
            #[inline(always)]
            fn sum(a: $type, b: $type) -> $type { $sum(a, b) }
            #[inline(always)]
            fn prod(a: $type, b: $type) -> $type { $prod(a, b) }
            #[inline(always)]
            fn min(a: $type, b: $type) -> $type { if a < b { a } else { b } }
            #[inline(always)]
            fn max(a: $type, b: $type) -> $type { if a > b { a } else { b } }
            #[inline(always)]
            fn land(a: $type, b: $type) -> $type { if a != $zero && b != $zero { $one } else { $zero } }
            #[inline(always)]
            fn lor(a: $type, b: $type) -> $type { if a != $zero || b != $zero { $one } else { $zero } }
            #[inline(always)]
            fn lxor(a: $type, b: $type) -> $type { if (a != $zero) != (b != $zero) { $one } else { $zero } }
        }
    )*};
}

macro_rules! integer {
    ($($type:ident)*) => {
        number! { $($type: $type::wrapping_add, $type::wrapping_mul, 0, 1;)* }
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
    f32: std::ops::Add::add, std::ops::Mul::mul, 0.0, 1.0;
    f64: std::ops::Add::add, std::ops::Mul::mul, 0.0, 1.0;
}
