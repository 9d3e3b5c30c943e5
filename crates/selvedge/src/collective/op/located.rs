//! The smallest or largest value and where it is (MPI 5.0 section 6.9.4).

use selvedge_coll::Side;
use selvedge_transport::Buf;

use super::{BuiltIn, Integer, Op, Ordered, each};
use crate::Datatype;
use crate::datatype::memory::Invalid;

/// A value and where it comes from, for [`Op::min_loc`] and [`Op::max_loc`]. The index is whatever the program makes of it:
/// a rank, a place in an array.
///
/// Plain data without padding, so the index is as wide as the value: `Located<f64>` with a `u64`, `Located<f32, u32>`. The others
/// do not compile:
///
/// ```compile_fail,E0080
/// use selvedge::{Located, Op};
///
/// let op: Op<Located<f32>> = Op::min_loc();
/// ```
///
/// ```
/// use selvedge::{Located, Op};
///
/// selvedge::local::run(3, |world| {
///     let rank = world.rank();
///     let mine = Located { value: [2.0, -1.0, -1.0][rank], index: rank as u64 };
///     let mut least = [mine];
///     world.allreduce(&[mine], &mut least, &Op::min_loc()).unwrap();
///     assert_eq!(least, [Located { value: -1.0, index: 1 }]);
/// });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Datatype)]
#[repr(C)]
pub struct Located<T, I = u64> {
    /// What is compared.
    pub value: T,
    /// Where it is.
    pub index: I,
}

impl<T: Ordered, I: Integer + Ord> Op<Located<T, I>> {
    /// The smaller value with its index; of equal values the smaller index (MPI_MINLOC). Any number wins over a NaN.
    #[doc(alias = "MPI_MINLOC")]
    pub const fn min_loc() -> Op<Located<T, I>> {
        const { assert_dense::<T, I>() }
        fn reduce<T: Ordered, I: Integer + Ord>(from: Buf, into: Buf, _: Side) -> Result<(), Invalid> {
            each(from, into, |a: Located<T, I>, b: Located<T, I>| choose(a, b, a.value < b.value))
        }
        Op::built_in(true, const { &BuiltIn { name: "min_loc", reduce: reduce::<T, I> } })
    }

    /// The larger value with its index; of equal values the smaller index (MPI_MAXLOC). Any number wins over a NaN.
    ///
    /// ```
    /// use selvedge::{Located, Op};
    ///
    /// selvedge::local::run(3, |world| {
    ///     let (mine, mut most) = ([Located { value: [5, 9, 9][world.rank()], index: world.rank() as i32 }], [Located::default()]);
    ///     world.allreduce(&mine, &mut most, &Op::max_loc()).unwrap();
    ///     assert_eq!(most, [Located { value: 9, index: 1 }]);
    /// });
    /// ```
    #[doc(alias = "MPI_MAXLOC")]
    pub const fn max_loc() -> Op<Located<T, I>> {
        const { assert_dense::<T, I>() }
        fn reduce<T: Ordered, I: Integer + Ord>(from: Buf, into: Buf, _: Side) -> Result<(), Invalid> {
            each(from, into, |a: Located<T, I>, b: Located<T, I>| choose(a, b, a.value > b.value))
        }
        Op::built_in(true, const { &BuiltIn { name: "max_loc", reduce: reduce::<T, I> } })
    }
}

/// Says how to write the type, where the compiler would only say that it has padding.
const fn assert_dense<T, I>() {
    assert!(
        size_of::<Located<T, I>>() == size_of::<T>() + size_of::<I>(),
        "the index of a Located is as wide as its value: write Located<f32, u32>, or Located<i32, i32>; where no index is \
         named it is a u64, for values of eight bytes"
    );
}

/// `a` if it is better, or as good and further in front. The same whichever comes first, so that all ranks agree.
#[inline(always)]
fn choose<T: Ordered, I: Ord>(a: Located<T, I>, b: Located<T, I>, a_is_better: bool) -> Located<T, I> {
    let is_nan = |value: T| value.partial_cmp(&value).is_none();
    let a_is_in_front = match (is_nan(a.value), is_nan(b.value)) {
        (false, true) => true,
        (true, false) => false,
        (true, true) => a.index < b.index,
        (false, false) => a_is_better || a.value == b.value && a.index < b.index,
    };
    if a_is_in_front { a } else { b }
}
