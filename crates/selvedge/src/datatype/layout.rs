//! Where the elements of a message lie in an array, as a value (MPI 5.0 chapter 5).

use selvedge_transport::Places;

use crate::datatype::Datatype;
use crate::datatype::view::{View, ViewMut};
use crate::error::{Misuse, Result};

/// Which elements of a slice belong together, in which order: a column of a matrix, a part of a grid, every third element.
///
/// Everything is counted in elements, not bytes. [`Layout::of`] and [`Layout::of_mut`] bind it to a slice, and every send,
/// receive and broadcast takes what they return in the place of a slice. Two sides may use different layouts of as many
/// elements.
///
/// ```
/// use selvedge::Layout;
///
/// // A grid of 3 rows and 4 columns; rank 0 gives its last column for rank 1's first.
/// let (first, last) = (Layout::vector(3, 1, 4), Layout::subarray(&[3, 4], &[3, 1], &[0, 3]).unwrap());
/// selvedge::local::run(2, |world| {
///     let mut grid: Vec<usize> = (0..12).map(|i| 100 * world.rank() + i).collect();
///     if world.rank() == 0 {
///         world.send(&last.of(&grid).unwrap(), 1, 0).unwrap();
///     } else {
///         world.recv(&mut first.of_mut(&mut grid).unwrap(), 0, 0).unwrap();
///         assert_eq!((grid[0], grid[4], grid[8], grid[1]), (3, 7, 11, 101));
///     }
/// });
/// ```
///
/// Memory: 40 bytes for runs of equal length at equal distances, however many there are. Copying it copies a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    places: Places,
    /// Where the next one begins, when it is repeated.
    extent: usize,
}

impl Layout {
    /// `count` neighbours (MPI_Type_contiguous).
    ///
    /// ```
    /// assert_eq!(selvedge::Layout::contiguous(2).pack(&['a', 'b', 'c']).unwrap(), ['a', 'b']);
    /// ```
    #[doc(alias = "MPI_Type_contiguous")]
    pub fn contiguous(count: usize) -> Layout {
        Layout::from_runs([(0, count)])
    }

    /// `count` blocks of `len` neighbours, whose beginnings are `stride` elements apart (MPI_Type_vector).
    ///
    /// ```
    /// let every_third = selvedge::Layout::vector(2, 1, 3);
    /// assert_eq!(every_third.pack(&[1, 2, 3, 4]).unwrap(), [1, 4]);
    /// ```
    ///
    /// # Panics
    /// When the last element is beyond what a `usize` counts.
    #[doc(alias = "MPI_Type_vector")]
    pub fn vector(count: usize, len: usize, stride: usize) -> Layout {
        Layout::contiguous(len).resized(stride).repeated(count).trimmed()
    }

    /// Blocks of (first element, number of neighbours), in this order (MPI_Type_indexed).
    ///
    /// ```
    /// let layout = selvedge::Layout::indexed(&[(3, 1), (0, 2)]);
    /// assert_eq!(layout.pack(&[1, 2, 3, 4]).unwrap(), [4, 1, 2]);
    /// ```
    ///
    /// # Panics
    /// When the last element is beyond what a `usize` counts.
    #[doc(alias = "MPI_Type_indexed")]
    pub fn indexed(blocks: &[(usize, usize)]) -> Layout {
        Layout::from_runs(blocks.iter().copied())
    }

    /// Several layouts, each from its own first element on, in this order (MPI_Type_create_struct).
    ///
    /// ```
    /// use selvedge::Layout;
    /// let pairs = Layout::vector(2, 1, 2);
    /// let layout = Layout::joined(&[(4, Layout::contiguous(1)), (0, pairs)]);
    /// assert_eq!(layout.pack(&[1, 2, 3, 4, 5]).unwrap(), [5, 1, 3]);
    /// ```
    ///
    /// # Panics
    /// When the last element is beyond what a `usize` counts.
    #[doc(alias = "MPI_Type_create_struct")]
    pub fn joined(parts: &[(usize, Layout)]) -> Layout {
        Layout::from_runs(parts.iter().flat_map(|(first, part)| {
            part.places.runs().map(|(start, len)| (checked_sum(*first, start), len))
        }))
    }

    /// The part of an array that has `lens` elements from `starts` on in each dimension, of `sizes`; the last dimension is
    /// the one of neighbours (MPI_Type_create_subarray with MPI_ORDER_C). Its extent is the whole array.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the part is not inside the array, or the three are not as long as each other.
    #[doc(alias("MPI_Type_create_subarray", "MPI_ORDER_C"))]
    pub fn subarray(sizes: &[usize], lens: &[usize], starts: &[usize]) -> Result<Layout> {
        for (what, given) in [("lens", lens.len()), ("starts", starts.len())] {
            if given != sizes.len() {
                let why = "one for each dimension";
                return Err(Misuse::Length { what, given, expected: sizes.len(), why }.into());
            }
        }
        let mut layout = Layout::contiguous(1);
        for ((&size, &len), &start) in sizes.iter().zip(lens).zip(starts).rev() {
            let end = start.checked_add(len).filter(|&end| end <= size);
            let Some(_) = end else {
                let given = start.saturating_add(len);
                let why = "a part ends inside its dimension";
                return Err(Misuse::Length { what: "starts + lens", given, expected: size, why }.into());
            };
            let element = layout.extent;
            let whole = element.checked_mul(size).expect("an array has less than 2^64 elements");
            layout = Layout::joined(&[(start * element, layout.repeated(len))]).resized(whole);
        }
        Ok(layout)
    }

    /// The same elements `count` times, each time one extent further on (MPI_Type_contiguous of a layout).
    ///
    /// ```
    /// let layout = selvedge::Layout::indexed(&[(1, 1)]).resized(2).repeated(2);
    /// assert_eq!(layout.pack(&[1, 2, 3, 4]).unwrap(), [2, 4]);
    /// ```
    ///
    /// # Panics
    /// When the last element is beyond what a `usize` counts.
    #[doc(alias = "MPI_Type_contiguous")]
    pub fn repeated(&self, count: usize) -> Layout {
        let extent = self.extent.checked_mul(count).expect("an array has less than 2^64 elements");
        let times = (0..count).flat_map(|turn| {
            self.places.runs().map(move |(start, len)| (checked_sum(turn * self.extent, start), len))
        });
        Layout::from_runs(times).resized(extent)
    }

    /// The same elements with another extent (MPI_Type_create_resized).
    #[doc(alias = "MPI_Type_create_resized")]
    pub fn resized(self, extent: usize) -> Layout {
        Layout { extent, ..self }
    }

    /// Number of elements that travel.
    pub fn elements(&self) -> usize {
        self.places.elements()
    }

    /// How much further on the next one begins when it is repeated (MPI_Type_get_extent).
    #[doc(alias = "MPI_Type_get_extent")]
    pub fn extent(&self) -> usize {
        self.extent
    }

    /// The first element it has and the number from there to behind the last one (MPI_Type_get_true_extent).
    ///
    /// ```
    /// let column = selvedge::Layout::subarray(&[3, 4], &[3, 1], &[0, 2]).unwrap();
    /// assert_eq!((column.elements(), column.extent()), (3, 12));
    /// let (start, len) = column.true_extent();
    /// assert_eq!((start, len), (2, 9));
    /// ```
    #[doc(alias = "MPI_Type_get_true_extent")]
    pub fn true_extent(&self) -> (usize, usize) {
        (self.places.first(), self.places.end() - self.places.first())
    }

    /// Its elements of `buffer`, to be sent from where they are.
    ///
    /// ```
    /// let every_third = selvedge::Layout::vector(2, 1, 3);
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.send(&every_third.of(&[1, 2, 3, 4]).unwrap(), 1, 0).unwrap();
    ///     } else {
    ///         assert_eq!(world.recv_vec::<i32>(0, 0).unwrap().0, [1, 4]);
    ///     }
    /// });
    /// ```
    ///
    /// Cost: nothing; sending neighbours costs what sending a slice does, others are packed as they leave, a packet at a time.
    /// A broadcast packs all of them first.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `buffer` ends before it does.
    pub fn of<'a, T: Datatype>(&self, buffer: &'a [T]) -> Result<View<'a, T>> {
        self.is_inside("buffer", buffer.len())?;
        Ok(View::new(buffer, &self.places))
    }

    /// Its elements of `buffer`, to be received into where they are; the others stay as they are. For several parts of
    /// one buffer at the same time see [`Parts`](crate::Parts).
    ///
    /// ```
    /// let every_third = selvedge::Layout::vector(2, 1, 3);
    /// selvedge::local::run(2, |world| {
    ///     let mut buffer = [world.rank() as i32; 5];
    ///     world.broadcast(&mut every_third.of_mut(&mut buffer).unwrap(), 1).unwrap();
    ///     assert!(world.rank() == 1 || buffer == [1, 0, 0, 1, 0]);
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Length`] when `buffer` ends before it does, [`Misuse::Overlap`] when it names an element twice.
    pub fn of_mut<'a, T: Datatype>(&self, buffer: &'a mut [T]) -> Result<ViewMut<'a, T>> {
        self.is_inside("buffer", buffer.len())?;
        self.is_distinct()?;
        Ok(ViewMut::new(buffer, &self.places))
    }

    /// Brings its elements of `from` together (MPI_Pack).
    ///
    /// # Errors
    /// [`Misuse::Length`] when `from` ends before it does.
    #[doc(alias = "MPI_Pack")]
    pub fn pack<T: Datatype>(&self, from: &[T]) -> Result<Vec<T>> {
        self.is_inside("from", from.len())?;
        let mut packed = Vec::with_capacity(self.elements());
        for (start, len) in self.places.runs() {
            packed.extend_from_slice(&from[start..start + len]);
        }
        Ok(packed)
    }

    /// Puts packed elements in their places in `into` and leaves the others there as they are (MPI_Unpack). Elements that
    /// it names twice get the later value.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `into` ends before it does, or `packed` has not its number of elements; then nothing is
    /// written.
    #[doc(alias = "MPI_Unpack")]
    pub fn unpack<T: Datatype>(&self, packed: &[T], into: &mut [T]) -> Result<()> {
        self.is_inside("into", into.len())?;
        let expected = self.elements();
        if packed.len() != expected {
            let given = packed.len();
            return Err(Misuse::Length { what: "packed", given, expected, why: "all of the layout" }.into());
        }
        let mut rest = packed;
        for (start, len) in self.places.runs() {
            let (these, behind) = rest.split_at(len);
            into[start..start + len].copy_from_slice(these);
            rest = behind;
        }
        Ok(())
    }

    /// A layout of these runs, whose extent ends with the last element.
    fn from_runs(runs: impl IntoIterator<Item = (usize, usize)>) -> Layout {
        Layout { places: Places::of(runs), extent: 0 }.trimmed()
    }

    /// With the extent that ends with the last element.
    fn trimmed(self) -> Layout {
        let extent = self.places.end();
        self.resized(extent)
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Whether it can be received into.
    pub(crate) fn is_distinct(&self) -> Result<()> {
        match self.places.is_distinct() {
            true => Ok(()),
            false => Err(Misuse::Overlap { index: self.places.twice().unwrap_or(0) }.into()),
        }
    }

    pub(crate) fn is_inside(&self, what: &'static str, given: usize) -> Result<()> {
        let expected = self.places.end();
        if given < expected {
            return Err(
                Misuse::Length { what, given, expected, why: "up to the layout's last element" }.into()
            );
        }
        Ok(())
    }
}

fn checked_sum(a: usize, b: usize) -> usize {
    a.checked_add(b).expect("an array has less than 2^64 elements")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extents_count_gaps_and_true_extents_do_not() {
        let layout = Layout::indexed(&[(5, 2), (2, 1)]);
        assert_eq!((layout.elements(), layout.extent(), layout.true_extent()), (3, 7, (2, 5)));
        assert_eq!(Layout::vector(3, 2, 4).extent(), 10);
        assert_eq!(Layout::contiguous(0).true_extent(), (0, 0));
    }

    #[test]
    fn neighbours_become_one_run() {
        assert_eq!(Layout::vector(3, 2, 2), Layout::contiguous(6));
        assert_eq!(Layout::subarray(&[4, 5], &[2, 5], &[1, 0]).unwrap().places.as_run(), Some((5, 10)));
    }

    #[test]
    fn a_part_outside_of_its_array_and_slices_too_short_are_refused() {
        let refused = |result: Result<Layout>| {
            assert!(matches!(result, Err(crate::Error::Misuse(Misuse::Length { .. }))));
        };
        refused(Layout::subarray(&[4], &[3], &[2]));
        refused(Layout::subarray(&[4], &[1], &[usize::MAX]));
        refused(Layout::subarray(&[4, 4], &[1], &[0, 0]));
        let (layout, mut short) = (Layout::vector(2, 1, 3), [0; 3]);
        assert!(layout.pack(&short).is_err() && layout.unpack(&[1, 2], &mut short).is_err());
        assert!(layout.unpack(&[1], &mut [0; 4]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_subarray_is_what_nested_loops_visit(
            dimensions in prop::collection::vec((1..6usize, 0..6usize, 0..6usize), 0..4),
        ) {
            let sizes: Vec<usize> = dimensions.iter().map(|(size, ..)| *size).collect();
            let starts: Vec<usize> = dimensions.iter().map(|(size, start, _)| start % size).collect();
            let lens: Vec<usize> = dimensions.iter().map(|(size, start, len)| len % (size - start % size + 1)).collect();
            let layout = Layout::subarray(&sizes, &lens, &starts).unwrap();
            let all: Vec<usize> = (0..sizes.iter().product()).collect();
            let is_inside = |&place: &usize| {
                let mut rest = place;
                sizes.iter().zip(&starts).zip(&lens).rev().all(|((size, start), len)| {
                    let at = rest % size;
                    rest /= size;
                    (*start..start + len).contains(&at)
                })
            };
            let expected: Vec<usize> = all.iter().copied().filter(is_inside).collect();
            prop_assert_eq!(layout.pack(&all).unwrap(), expected);
            prop_assert_eq!(layout.extent(), all.len());
        }

        #[test]
        fn what_is_packed_comes_back_to_its_place_and_nothing_else_changes(
            blocks in prop::collection::vec((0..40usize, 0..5usize), 0..8),
            count in 0..4usize,
            more in 0..5usize,
        ) {
            let layout = Layout::indexed(&blocks);
            let extent = layout.extent() + more;
            let layout = layout.resized(extent).repeated(count);
            let places: Vec<usize> = (0..count)
                .flat_map(|turn| blocks.iter().flat_map(move |&(start, len)| (start..start + len).map(move |at| turn * extent + at)))
                .collect();
            let all: Vec<usize> = (0..extent * count).collect();
            let packed = layout.pack(&all).unwrap();
            prop_assert_eq!(&packed, &places);
            let mut back = vec![usize::MAX; all.len()];
            layout.unpack(&packed, &mut back).unwrap();
            for (at, value) in back.iter().enumerate() {
                prop_assert_eq!(*value, if places.contains(&at) { at } else { usize::MAX });
            }
        }
    }
}
