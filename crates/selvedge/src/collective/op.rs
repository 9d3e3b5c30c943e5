//! Reduction operations: the built-in ones of MPI 5.0 section 6.9.2 to 6.9.4 and the user's own (6.9.5).

mod built_in;
mod located;

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use selvedge_coll::Side;
use selvedge_transport::Buf;

use crate::datatype::Datatype;
use crate::datatype::memory::{Invalid, Unfit, with_claims, with_elements};
use crate::error::{Misuse, Result};

pub use built_in::{Integer, Logical, Number, Ordered};
pub use located::Located;

/// A reduction of elements of type `T`.
///
/// | elements | built in |
/// |---|---|
/// | integers | `sum` `prod`, `min` `max`, `land` `lor` `lxor`, `band` `bor` `bxor` |
/// | floats, also half ones | `sum` `prod`, `min` `max` |
/// | complex numbers | `sum` `prod` |
/// | `bool` | `land` `lor` `lxor` |
/// | [`Located`] | `min_loc` `max_loc` |
/// | any | `replace`, `no_op` |
/// | any | the user's own: [`Op::commutative_each`], [`Op::ordered_each`], [`Op::commutative`], [`Op::ordered`] |
///
/// Built-in operations cost nothing to make. Integer sums and products wrap around, as in MPI's C binding; the result
/// of `min` and `max` with a NaN is one of the two operands. Every algorithm combines operands that do not commute in
/// order of ranks; how they are grouped depends on the algorithm, so sums of floats may differ in the last bits from one
/// number of ranks to another.
///
/// ```
/// # use selvedge::Op;
/// selvedge::local::run(3, |world| {
///     let mut sum = [0u64];
///     world.allreduce(&[world.rank() as u64 + 1], &mut sum, &Op::sum()).unwrap();
///     assert_eq!(sum, [6]);
///
///     // A user's own: the longest vector wins. It commutes, so any order of operands will do.
///     let longest = Op::commutative_each(|a: [f64; 2], b: [f64; 2]| {
///         if a[0].hypot(a[1]) > b[0].hypot(b[1]) { a } else { b }
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

// By hand, since the operation can be copied also where elements cannot.
impl<T> Clone for Op<T> {
    fn clone(&self) -> Op<T> {
        Op { reducer: self.reducer.clone(), commutative: self.commutative, element: PhantomData }
    }
}

impl<T> fmt::Debug for Op<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.commutative { "" } else { ", in order of ranks" };
        write!(f, "Op({}{order})", self.reducer.name())
    }
}

/// Combines `from` into `into`; the erased form of an operation that the executor runs.
#[derive(Clone)]
pub struct Reducer(Kind);

/// An operation that comes with the library.
struct BuiltIn {
    name: &'static str,
    /// `into = from op into` for [`Side::Left`], `into = into op from` for [`Side::Right`].
    reduce: fn(Buf, Buf, Side) -> Result<(), Invalid>,
}

#[derive(Clone)]
enum Kind {
    BuiltIn(&'static BuiltIn),
    User(Arc<dyn Fn(Buf, Buf, Side) -> Result<(), Invalid> + Send + Sync>),
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reducer({})", self.name())
    }
}

impl Reducer {
    /// Its name, as far as the library knows it.
    pub(crate) fn name(&self) -> &'static str {
        match self.0 {
            Kind::BuiltIn(built_in) => built_in.name,
            Kind::User(_) => "the program's own operation",
        }
    }

    /// `into = from op into` for [`Side::Left`], `into = into op from` for [`Side::Right`].
    #[inline]
    pub(crate) fn apply(&self, from: Buf, into: Buf, side: Side) -> Result<(), Invalid> {
        match &self.0 {
            Kind::BuiltIn(BuiltIn { reduce, .. }) => reduce(from, into, side),
            Kind::User(reduce) => reduce(from, into, side),
        }
    }
}

impl<T: Datatype> Op<T> {
    /// The user's own operation on one element at a time, which is associative and commutative: `f(a, b)` is `a op b`.
    /// Compiles to the same loop as a built-in operation where `f` is simple.
    ///
    /// If `f` panics, the collective goes on with whatever is there, so that no other rank hangs, and the panic continues
    /// in the caller when the collective is complete. `f` must not communicate. Where several threads of a rank
    /// communicate, any of them may be the one that runs it. The same holds for the three others.
    pub fn commutative_each(f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Op<T> {
        Op::user(true, move |from, into, _| each(from, into, &f))
    }

    /// As [`Op::commutative_each`], for an operation that is only associative: `f(left, right)`, where everything in
    /// `left` comes from lower ranks than anything in `right`. Some fast algorithms do not apply.
    ///
    /// ```
    /// # use selvedge::Op;
    /// // Affine maps: first 2x + 1, then what the next rank does.
    /// selvedge::local::run(3, |world| {
    ///     let then = Op::ordered_each(|f: [u64; 2], g: [u64; 2]| [g[0] * f[0], g[0] * f[1] + g[1]]);
    ///     let mut all = [[0; 2]];
    ///     world.allreduce(&[[2, world.rank() as u64]], &mut all, &then).unwrap();
    ///     assert_eq!(all, [[8, (0 * 2 + 1) * 2 + 2]]);
    /// });
    /// ```
    pub fn ordered_each(f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Op<T> {
        Op::user(false, move |from, into, side| match side {
            Side::Left => each(from, into, &f),
            Side::Right => each(from, into, |from, into| f(into, from)),
        })
    }

    /// The user's own operation on slices, which is associative and commutative: `f(from, into)` sets
    /// `into[i] = from[i] op into[i]` for two slices of equal length, as `MPI_User_function` does. Says more than
    /// [`Op::commutative_each`] to the processor where elements are better worked on together.
    pub fn commutative(f: impl Fn(&[T], &mut [T]) + Send + Sync + 'static) -> Op<T> {
        Op::user(true, move |from, into, _| with_elements::<T>(from, into, &f))
    }

    /// As [`Op::commutative`], for an operation that is only associative: `f(left, right)` sets
    /// `right[i] = left[i] op right[i]`, and operands are combined in order of ranks. Costs a copy where an algorithm
    /// brings the right operand to the left one; [`Op::ordered_each`] does not.
    ///
    /// ```
    /// # use selvedge::Op;
    /// let then = Op::ordered(|left: &[[u8; 2]], right: &mut [[u8; 2]]| {
    ///     right.iter_mut().zip(left).for_each(|(right, left)| right[0] = left[0]);
    /// });
    /// selvedge::local::run(3, |world| {
    ///     let mut ends = [[0; 2]];
    ///     world.allreduce(&[[world.rank() as u8; 2]], &mut ends, &then).unwrap();
    ///     assert_eq!(ends, [[0, 2]]); // of the first rank and of the last
    /// });
    /// ```
    pub fn ordered(f: impl Fn(&[T], &mut [T]) + Send + Sync + 'static) -> Op<T> {
        let spare = Mutex::new(Vec::new());
        Op::user(false, move |from, into, side| {
            with_elements::<T>(from, into, |from, into| match side {
                Side::Left => f(from, into),
                Side::Right => {
                    // `f` writes its right operand, but the result belongs in the left one. Memory of the last time is
                    // taken where nobody else has it, and not kept where `f` panics.
                    let mut right =
                        spare.try_lock().map(|mut spare| std::mem::take(&mut *spare)).unwrap_or_default();
                    right.clear();
                    right.extend_from_slice(from);
                    f(into, &mut right);
                    into.copy_from_slice(&right);
                    if let Ok(mut spare) = spare.try_lock() {
                        *spare = right;
                    }
                }
            })
        })
    }

    /// Combines two slices of this rank without communication: `into[i] = left[i] op into[i]` (MPI_Reduce_local, MPI 5.0
    /// section 6.9.7).
    ///
    /// ```
    /// # use selvedge::Op;
    /// let mut into = [1.0, 5.0];
    /// Op::max().reduce_local(&[3.0, 4.0], &mut into)?;
    /// assert_eq!(into, [3.0, 5.0]);
    /// # Ok::<(), selvedge::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Length`] when the slices are not of equal length.
    #[doc(alias = "MPI_Reduce_local")]
    pub fn reduce_local(&self, left: &[T], into: &mut [T]) -> Result<()> {
        if left.len() != into.len() {
            let (given, expected) = (into.len(), left.len());
            return Err(Misuse::Length { what: "into", given, expected, why: "as long as left" }.into());
        }
        let outcome = with_claims(left, into, |left, into| self.reducer.apply(left, into, Side::Left));
        Ok(outcome.map_err(|invalid| Misuse::from(Box::<Unfit>::from(invalid)))?)
    }

    /// The operation as the executor runs it. For code that drives [`crate::runtime`].
    #[doc(hidden)]
    pub fn reducer(&self) -> Reducer {
        self.reducer.clone()
    }

    const fn built_in(commutative: bool, built_in: &'static BuiltIn) -> Op<T> {
        Op { reducer: Reducer(Kind::BuiltIn(built_in)), commutative, element: PhantomData }
    }

    fn user(
        commutative: bool,
        reduce: impl Fn(Buf, Buf, Side) -> Result<(), Invalid> + Send + Sync + 'static,
    ) -> Op<T> {
        Op { reducer: Reducer(Kind::User(Arc::new(reduce))), commutative, element: PhantomData }
    }
}

/// `into[i] = f(from[i], into[i])`. One plain loop over two slices that do not overlap: it vectorises where `f` does.
#[inline]
fn each<T: Datatype>(from: Buf, into: Buf, f: impl Fn(T, T) -> T) -> Result<(), Invalid> {
    with_elements::<T>(from, into, |from, into| {
        for (from, into) in from.iter().zip(into) {
            *into = f(*from, *into);
        }
    })
}
