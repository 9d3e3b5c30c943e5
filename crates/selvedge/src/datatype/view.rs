//! What can stand where a message is sent from or received to: slices, vectors and arrays, and parts of them that do not
//! lie in one piece.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use selvedge_transport::Places;

use crate::datatype::Datatype;
use crate::datatype::layout::Layout;
use crate::error::{Misuse, Result};

/// What can be sent: slices, vectors, arrays, boxes of them, and a [`View`] of some of their elements.
///
/// Implement it for a type of your own by saying which elements it shows:
///
/// ```
/// use selvedge::{Buffer, Layout, View};
///
/// struct Matrix { rows: usize, columns: usize, elements: Vec<f64> }
///
/// struct Column<'a>(&'a Matrix, usize);
///
/// impl Buffer for Column<'_> {
///     type Element = f64;
///
///     fn as_view(&self) -> View<'_, f64> {
///         let Column(matrix, index) = self;
///         let column = Layout::vector(matrix.rows, 1, matrix.columns);
///         column.of(&matrix.elements[*index..]).expect("the column is inside")
///     }
/// }
///
/// selvedge::local::run(2, |world| {
///     if world.rank() == 0 {
///         let matrix = Matrix { rows: 2, columns: 3, elements: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
///         world.send(&Column(&matrix, 1), 1, 0).unwrap();
///     } else {
///         assert_eq!(world.recv_vec::<f64>(0, 0).unwrap().0, [2.0, 5.0]);
///     }
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent from where it is",
    label = "no `Buffer`",
    note = "slices, vectors and arrays of a `Datatype` can, and `Layout::of` shows parts of them",
    note = "one value can as `std::slice::from_ref(&value)`, and any value that serde knows by `send_value`"
)]
pub trait Buffer {
    /// What it is made of.
    type Element: Datatype;

    /// The elements to be sent, in this order.
    fn as_view(&self) -> View<'_, Self::Element>;
}

/// What can be received into. See [`Buffer`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be received into where it is",
    label = "no `BufferMut`",
    note = "slices, vectors and arrays of a `Datatype` can, and `Layout::of_mut` shows parts of them",
    note = "one value can as `std::slice::from_mut(&mut value)`; a message of any length comes by `recv_vec`"
)]
pub trait BufferMut {
    /// What it is made of.
    type Element: Datatype;

    /// The elements to be received into, in this order.
    fn as_view_mut(&mut self) -> ViewMut<'_, Self::Element>;
}

/// Some elements of a buffer, borrowed to be sent. [`Layout::of`] makes it; a slice is one as well.
pub struct View<'a, T> {
    /// Of a run its first element; of places the element number 0, which may be none of them.
    start: NonNull<T>,
    extent: Extent,
    lent: PhantomData<&'a [T]>,
}

/// Some elements of a buffer, borrowed to be received into. [`Layout::of_mut`] and [`Parts::lend_mut`] make it; a slice is
/// one as well.
pub struct ViewMut<'a, T> {
    start: NonNull<T>,
    /// Places are distinct.
    extent: Extent,
    lent: PhantomData<&'a mut [T]>,
}

/// Where the elements are.
#[derive(Clone)]
pub(crate) enum Extent {
    /// So many neighbours.
    Run(usize),
    /// In several places.
    Places(Places),
}

impl Extent {
    fn len(&self) -> usize {
        match self {
            Extent::Run(count) => *count,
            Extent::Places(places) => places.elements(),
        }
    }
}

impl<'a, T: Datatype> View<'a, T> {
    /// The elements of `buffer` at `places`, which end inside.
    pub(crate) fn new(buffer: &'a [T], places: &Places) -> View<'a, T> {
        assert!(places.end() <= buffer.len(), "places end at {} of {} elements", places.end(), buffer.len());
        let (start, extent) = extent_of(NonNull::from(buffer).cast(), places);
        View { start, extent, lent: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.extent.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, when they are neighbours in order.
    ///
    /// ```
    /// use selvedge::Layout;
    /// assert_eq!(Layout::indexed(&[(1, 2)]).of(&[1, 2, 3]).unwrap().as_slice(), Some(&[2, 3][..]));
    /// assert_eq!(Layout::vector(2, 1, 2).of(&[1, 2, 3]).unwrap().as_slice(), None);
    /// ```
    #[inline]
    pub fn as_slice(&self) -> Option<&'a [T]> {
        match self.extent {
            // SAFETY: so many elements from there on are borrowed for 'a.
            Extent::Run(count) => Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), count) }),
            Extent::Places(_) => None,
        }
    }

    /// Where the elements are, when they are in several places.
    pub(crate) fn places(&self) -> Option<(NonNull<T>, &Places)> {
        match &self.extent {
            Extent::Run(_) => None,
            Extent::Places(places) => Some((self.start, places)),
        }
    }
}

impl<'a, T: Datatype> ViewMut<'a, T> {
    /// The elements of `buffer` at `places`, which end inside and are distinct.
    pub(crate) fn new(buffer: &'a mut [T], places: &Places) -> ViewMut<'a, T> {
        assert!(places.end() <= buffer.len(), "places end at {} of {} elements", places.end(), buffer.len());
        assert!(places.is_distinct(), "an element is received into once");
        let (start, extent) = extent_of(NonNull::from(buffer).cast(), places);
        ViewMut { start, extent, lent: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.extent.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, when they are neighbours in order, and else what it was.
    ///
    /// ```
    /// let mut buffer = [1, 2, 3];
    /// let behind = selvedge::Layout::indexed(&[(1, 2)]).of_mut(&mut buffer).unwrap();
    /// assert_eq!(behind.into_slice().unwrap(), [2, 3]);
    /// ```
    #[inline]
    pub fn into_slice(self) -> Result<&'a mut [T], ViewMut<'a, T>> {
        match self.extent {
            // SAFETY: so many elements from there on are borrowed for 'a, by nobody else.
            Extent::Run(count) => Ok(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), count) }),
            Extent::Places(_) => Err(self),
        }
    }

    /// Where the elements are, when they are in several places.
    pub(crate) fn places(&self) -> Option<(NonNull<T>, &Places)> {
        match &self.extent {
            Extent::Run(_) => None,
            Extent::Places(places) => Some((self.start, places)),
        }
    }
}

/// Where the elements at `places` of an array are, which begins at `start`: neighbours as such. Elements of no size are
/// neighbours wherever they are.
fn extent_of<T>(start: NonNull<T>, places: &Places) -> (NonNull<T>, Extent) {
    let run = if size_of::<T>() == 0 { Some((0, places.elements())) } else { places.as_run() };
    match run {
        Some((first, count)) => {
            let first = NonNull::new(start.as_ptr().wrapping_add(first));
            (first.expect("an element of an array has an address"), Extent::Run(count))
        }
        None => (start, Extent::Places(places.clone())),
    }
}

impl<'a, T: Datatype> From<&'a [T]> for View<'a, T> {
    #[inline]
    fn from(elements: &'a [T]) -> View<'a, T> {
        View { start: NonNull::from(elements).cast(), extent: Extent::Run(elements.len()), lent: PhantomData }
    }
}

impl<'a, T: Datatype> From<&'a mut [T]> for ViewMut<'a, T> {
    #[inline]
    fn from(elements: &'a mut [T]) -> ViewMut<'a, T> {
        let count = elements.len();
        ViewMut { start: NonNull::from(elements).cast(), extent: Extent::Run(count), lent: PhantomData }
    }
}

impl<T> fmt::Debug for View<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} elements)", self.extent.len())
    }
}

impl<T> fmt::Debug for ViewMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewMut({} elements)", self.extent.len())
    }
}

/// One buffer in several parts, of which some are sent while others are received: a grid and the rim that neighbours send.
///
/// ```
/// use selvedge::{Layout, Parts};
///
/// // Two rows of four columns; the outer columns belong to the neighbours.
/// let column = |index| Layout::subarray(&[2, 4], &[2, 1], &[0, index]).unwrap();
/// selvedge::local::run(2, |world| {
///     let (me, other) = (world.rank(), 1 - world.rank());
///     let mut grid = [me; 8];
///     let mut parts = Parts::of(&mut grid);
///     let mine = parts.lend(&column(1)).unwrap();
///     let mut theirs = parts.lend_mut(&column(0)).unwrap();
///     world.sendrecv(&mine, other, 0, &mut theirs, other, 0).unwrap();
///     assert_eq!(grid, [other, me, me, me, other, me, me, me]);
/// });
/// ```
///
/// Cost: to lend a part its runs, and those lent before, are sorted to see that nothing that is received overlaps.
#[derive(Debug)]
pub struct Parts<'a, T> {
    buffer: NonNull<T>,
    count: usize,
    /// What has been lent, and whether to be received into.
    lent: Vec<(Places, bool)>,
    owner: PhantomData<&'a mut [T]>,
}

impl<'a, T: Datatype> Parts<'a, T> {
    /// Nothing is lent yet.
    pub fn of(buffer: &'a mut [T]) -> Parts<'a, T> {
        let count = buffer.len();
        Parts { buffer: NonNull::from(buffer).cast(), count, lent: Vec::new(), owner: PhantomData }
    }

    /// A part to be sent. Parts that are sent may overlap each other.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the buffer ends before it does, [`Misuse::Overlap`] with what was lent to be received into.
    pub fn lend(&mut self, part: &Layout) -> Result<View<'a, T>> {
        self.take(part, false)?;
        let (start, extent) = extent_of(self.buffer, part.places());
        Ok(View { start, extent, lent: PhantomData })
    }

    /// A part to be received into.
    ///
    /// # Errors
    /// [`Misuse::Length`] when the buffer ends before it does, [`Misuse::Overlap`] when it names an element twice, or one
    /// that was lent before.
    pub fn lend_mut(&mut self, part: &Layout) -> Result<ViewMut<'a, T>> {
        part.is_distinct()?;
        self.take(part, true)?;
        let (start, extent) = extent_of(self.buffer, part.places());
        Ok(ViewMut { start, extent, lent: PhantomData })
    }

    fn take(&mut self, part: &Layout, is_received: bool) -> Result<()> {
        part.is_inside("buffer", self.count)?;
        let others = self.lent.iter().filter(|(_, received)| is_received || *received);
        for (other, _) in others {
            if let Some(index) = part.places().meets(other) {
                return Err(Misuse::Overlap { index }.into());
            }
        }
        self.lent.push((part.places().clone(), is_received));
        Ok(())
    }
}

/// A part in several places as raw memory, for arrays whose places are not counted from the front of a slice.
#[cfg(feature = "ndarray")]
pub(crate) mod raw {
    use super::*;

    /// # Safety
    /// The elements at `places`, counted from `start`, are borrowed for 'a.
    pub(crate) unsafe fn view<'a, T: Datatype>(start: NonNull<T>, places: Places) -> View<'a, T> {
        let (start, extent) = extent_of(start, &places);
        View { start, extent, lent: PhantomData }
    }

    /// # Safety
    /// The elements at `places`, counted from `start`, are borrowed for 'a by nobody else, and distinct.
    pub(crate) unsafe fn view_mut<'a, T: Datatype>(start: NonNull<T>, places: Places) -> ViewMut<'a, T> {
        let (start, extent) = extent_of(start, &places);
        ViewMut { start, extent, lent: PhantomData }
    }
}

impl<T: Datatype> Buffer for [T] {
    type Element = T;

    #[inline]
    fn as_view(&self) -> View<'_, T> {
        View::from(self)
    }
}

impl<T: Datatype> BufferMut for [T] {
    type Element = T;

    #[inline]
    fn as_view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::from(self)
    }
}

impl<T: Datatype, const N: usize> Buffer for [T; N] {
    type Element = T;

    #[inline]
    fn as_view(&self) -> View<'_, T> {
        View::from(&self[..])
    }
}

impl<T: Datatype, const N: usize> BufferMut for [T; N] {
    type Element = T;

    #[inline]
    fn as_view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::from(&mut self[..])
    }
}

impl<T: Datatype> Buffer for Vec<T> {
    type Element = T;

    #[inline]
    fn as_view(&self) -> View<'_, T> {
        View::from(&self[..])
    }
}

impl<T: Datatype> BufferMut for Vec<T> {
    type Element = T;

    #[inline]
    fn as_view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::from(&mut self[..])
    }
}

impl<T: Datatype> Buffer for View<'_, T> {
    type Element = T;

    fn as_view(&self) -> View<'_, T> {
        View { start: self.start, extent: self.extent.clone(), lent: PhantomData }
    }
}

impl<T: Datatype> Buffer for ViewMut<'_, T> {
    type Element = T;

    fn as_view(&self) -> View<'_, T> {
        View { start: self.start, extent: self.extent.clone(), lent: PhantomData }
    }
}

impl<T: Datatype> BufferMut for ViewMut<'_, T> {
    type Element = T;

    fn as_view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { start: self.start, extent: self.extent.clone(), lent: PhantomData }
    }
}

/// What shows what another shows.
macro_rules! through {
    ($($pointer:ty)*) => {$(
        impl<B: Buffer + ?Sized> Buffer for $pointer {
            type Element = B::Element;

            #[inline]
            fn as_view(&self) -> View<'_, B::Element> {
                (**self).as_view()
            }
        }
    )*};
}

through! { &B &mut B Box<B> Rc<B> Arc<B> }

impl<B: BufferMut + ?Sized> BufferMut for &mut B {
    type Element = B::Element;

    #[inline]
    fn as_view_mut(&mut self) -> ViewMut<'_, B::Element> {
        (**self).as_view_mut()
    }
}

impl<B: BufferMut + ?Sized> BufferMut for Box<B> {
    type Element = B::Element;

    #[inline]
    fn as_view_mut(&mut self) -> ViewMut<'_, B::Element> {
        (**self).as_view_mut()
    }
}
