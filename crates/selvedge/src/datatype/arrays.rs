//! Arrays and views of the `ndarray` crate as buffers, of any number of dimensions and with any strides.

use std::ptr::NonNull;

use ndarray::{Array, ArrayBase, Data, DataMut, Dimension, ShapeBuilder};
use selvedge_transport::Places;

use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::datatype::view::{Buffer, BufferMut, View, ViewMut, raw};
use crate::error::{Misuse, Result};
use crate::message::{Source, Status, Tag};

/// Arrays and views send their elements in logical order, the last index fastest, however they lie in memory.
///
/// ```
/// use ndarray::{Array2, s};
///
/// selvedge::local::run(2, |world| {
///     let (me, other) = (world.rank() as f64, 1 - world.rank());
///     let mut grid = Array2::from_elem((100, 8), me);
///     let (mut rim, inner) = grid.multi_slice_mut((s![.., 0], s![.., 1]));
///     world.sendrecv(&inner, other, 0, &mut rim, other, 0).unwrap();
///     assert!(grid.column(0).iter().all(|&it| it == other as f64) && grid.column(2).iter().all(|&it| it == me));
/// });
/// ```
///
/// Cost: where the elements lie in logical order without gaps, that of a slice. Otherwise that of a
/// [`Layout`](crate::Layout), and the making of one: a step for each run of neighbours, 40 bytes for runs at equal distances.
impl<T: Datatype, S: Data<Elem = T>, D: Dimension> Buffer for ArrayBase<S, D> {
    type Element = T;

    fn as_view(&self) -> View<'_, T> {
        if let Some(slice) = self.as_slice() {
            return View::from(slice);
        }
        let (lowest, places) = places(self.shape(), self.strides());
        let start = front(self.as_ptr(), lowest);
        // SAFETY: the array lends its elements for as long as `self` is borrowed, and `places` visits just those.
        unsafe { raw::view(start, places) }
    }
}

impl<T: Datatype, S: DataMut<Elem = T>, D: Dimension> BufferMut for ArrayBase<S, D> {
    type Element = T;

    fn as_view_mut(&mut self) -> ViewMut<'_, T> {
        if self.is_standard_layout() {
            let slice = self.as_slice_mut().expect("an array in standard layout is a slice");
            return ViewMut::from(slice);
        }
        let (lowest, places) = places(self.shape(), self.strides());
        let start = front(self.as_mut_ptr(), lowest);
        // SAFETY: the array lends its elements for as long as `self` is borrowed, exclusively; `places` visits just those, and
        // an array that can be written to has each once.
        unsafe { raw::view_mut(start, places) }
    }
}

impl Communicator {
    /// Receives one message into a new array of this shape (MPI_Recv). The elements of the message are in logical order.
    ///
    /// ```
    /// use ndarray::{Array2, Array3};
    ///
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         let matrix = Array2::from_shape_fn((3, 4), |(row, column)| 10 * row + column);
    ///         world.send(&matrix.t(), 1, 0).unwrap();
    ///     } else {
    ///         let (matrix, _) = world.recv_array::<usize, _>((4, 3), 0, 0).unwrap();
    ///         assert_eq!(matrix[[1, 2]], 21);
    ///     }
    /// });
    /// ```
    ///
    /// Cost: that of [`Communicator::recv_vec`].
    ///
    /// # Errors
    /// [`Misuse::Length`] when the message has another number of elements than the shape; it is received all the same. The rest
    /// as for [`Communicator::recv_vec`].
    #[doc(alias = "MPI_Recv")]
    pub fn recv_array<T: Datatype, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(Array<T, Sh::Dim>, Status)> {
        let shape = shape.into_shape_with_order();
        let expected = shape.size();
        let (elements, status) = self.recv_vec::<T>(source, tag)?;
        if elements.len() != expected {
            let (given, why) = (elements.len(), "the elements of the shape");
            return Err(Misuse::Length { what: "message", given, expected, why }.into());
        }
        let array =
            Array::from_shape_vec(shape, elements).expect("the number of elements is that of the shape");
        Ok((array, status))
    }
}

/// The places that a walk in logical order visits, counted from the lowest address, and how many elements the first of the walk
/// is above that.
fn places(shape: &[usize], strides: &[isize]) -> (usize, Places) {
    if shape.contains(&0) {
        return (0, Places::of([]));
    }
    let below = |(&len, &stride): (&usize, &isize)| stride.min(0).unsigned_abs() * (len - 1);
    let lowest: usize = shape.iter().zip(strides).map(below).sum();
    let rows: usize = shape.iter().rev().skip(1).product();
    let (len, stride) = (shape.last().copied().unwrap_or(1), strides.last().copied().unwrap_or(1));
    let row = move |row: usize| {
        let mut rest = row;
        let mut at = lowest as isize;
        for (&len, &stride) in shape.iter().zip(strides).rev().skip(1) {
            at += (rest % len) as isize * stride;
            rest /= len;
        }
        at
    };
    // A row of neighbours is one run.
    let (runs, run) = if stride == 1 || len == 1 { (1, len) } else { (len, 1) };
    let walk = (0..rows).flat_map(move |index| {
        let begin = row(index);
        (0..runs).map(move |turn| ((begin + turn as isize * stride) as usize, run))
    });
    (lowest, Places::of(walk))
}

/// The element number 0 of places, so many below the first of the array.
fn front<T>(first: *const T, lowest: usize) -> NonNull<T> {
    NonNull::new(first.wrapping_sub(lowest).cast_mut()).expect("elements of an array have an address")
}

#[cfg(test)]
mod tests {
    use ndarray::{ArcArray2, Array2, Array3, Axis, s};
    use proptest::prelude::*;

    use super::*;

    fn copied<B: Buffer<Element = u16> + ?Sized>(buffer: &B) -> Vec<u16> {
        let view = buffer.as_view();
        let into = selvedge_transport::Memory::zeroed(2 * view.len());
        crate::message::staged::copy_to(&view, into.buf());
        into.bytes().chunks(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn what_lies_in_order_is_a_slice_and_what_does_not_is_few_blocks() {
        let cube = Array3::from_shape_fn((4, 5, 6), |(x, y, z)| (100 * x + 10 * y + z) as u16);
        assert!(cube.as_view().as_slice().is_some());
        assert!(cube.index_axis(Axis(0), 2).as_view().as_slice().is_some());
        assert!(cube.t().as_view().as_slice().is_none());
        let empty = Array2::<u16>::zeros((3, 0));
        assert!(empty.t().as_view().is_empty());
        let shared: ArcArray2<u16> = Array2::zeros((2, 2)).into_shared();
        assert_eq!(shared.as_view().len(), 4);
        assert_eq!(copied(&ndarray::arr0(7)), [7]);
    }

    /// Receives `message` into an array.
    fn place<B: BufferMut<Element = u16> + ?Sized>(message: &[u16], into: &mut B) {
        let view = into.as_view_mut();
        match view.into_slice() {
            Ok(slice) => slice.copy_from_slice(message),
            Err(view) => {
                // SAFETY: the borrow outlives the claim.
                let (buf, aftermath) = unsafe { crate::message::staged::scattered_room(view) };
                crate::message::staged::copy_to(&message.into(), buf);
                assert!(aftermath.settle().is_ok());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_slice_of_an_array_is_sent_and_received_in_logical_order(
            axes in prop::sample::select(vec![[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1], [1, 2, 0]]),
            starts in [0..2isize, 0..2isize, 0..2isize],
            steps in [1..4isize, 1..4isize, 1..4isize],
            turned in any::<[bool; 3]>(),
        ) {
            let mut cube = Array3::from_shape_fn((5, 4, 6), |(x, y, z)| (100 * x + 10 * y + z) as u16);
            let untouched = cube.clone();
            let step = |axis: usize| if turned[axis] { -steps[axis] } else { steps[axis] };
            let part = s![starts[0]..;step(0), starts[1]..;step(1), starts[2]..;step(2)];
            let view = cube.slice(part).permuted_axes(axes);
            let expected: Vec<u16> = view.iter().copied().collect();
            prop_assert_eq!(copied(&view), expected.clone());
            let mut view = cube.slice_mut(part).permuted_axes(axes);
            let mut message: Vec<u16> = expected.iter().map(|element| element + 1000).collect();
            place(&message, &mut view);
            prop_assert_eq!(view.iter().copied().collect::<Vec<_>>(), message.clone());
            message.clear();
            let mut changed = untouched;
            changed.slice_mut(part).iter_mut().for_each(|element| *element += 1000);
            prop_assert_eq!(cube, changed);
        }
    }
}
