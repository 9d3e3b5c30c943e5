//! Collectives (MPI 5.0 chapter 6): arguments checked and made into a shape, once for the blocking and the nonblocking
//! form of each. Below: which algorithm, the executor of its schedule, what is reduced by, and collectives of values.

pub(crate) mod algorithms;
pub(crate) mod compare;
pub(crate) mod executor;
pub(crate) mod op;
pub(crate) mod plan;
pub(crate) mod steps;
pub(crate) mod values;

use std::mem::size_of;

use selvedge_coll::{Collective, Rank, Shape};

use crate::collective::op::{Op, Reducer};
use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::datatype::view::BufferMut;
use crate::error::{Misuse, Refused, Result};

/// A collective whose arguments are right.
#[derive(Debug)]
pub(crate) struct Prepared<'a, T> {
    pub(crate) shape: Shape,
    pub(crate) input: &'a [T],
    pub(crate) output: &'a mut [T],
    pub(crate) reducer: Option<Reducer>,
}

/// Every rank of the communicator calls the same collective with the same counts, types, root and operation; calls that
/// disagree end in [`Misuse::Disagreement`] where a message shows it, and wait for each other where none does.
impl Communicator {
    /// Returns after every rank has called it (MPI_Barrier).
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    ///
    /// let arrived = AtomicUsize::new(0);
    /// selvedge::local::run(3, |world| {
    ///     arrived.fetch_add(1, Relaxed);
    ///     world.barrier().unwrap();
    ///     assert_eq!(arrived.load(Relaxed), 3);
    /// });
    /// ```
    #[doc(alias = "MPI_Barrier")]
    pub fn barrier(&self) -> Result<()> {
        self.run(self.prepare_barrier())
    }

    /// Gives every rank the root's `message` (MPI_Bcast). Shape: ranks x `message.len()` elements.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let mut settings = if world.rank() == 2 { [0.5, 8.0] } else { [0.0; 2] };
    ///     world.broadcast(&mut settings, 2).unwrap();
    ///     assert_eq!(settings, [0.5, 8.0]);
    /// });
    /// ```
    #[doc(alias = "MPI_Bcast")]
    pub fn broadcast<B: BufferMut + ?Sized>(&self, message: &mut B, root: usize) -> Result<()> {
        match message.as_view_mut().into_slice() {
            Ok(message) => self.run(self.prepare_broadcast(message, root)?),
            Err(message) => {
                self.run_scattered(self.broadcast_shape::<B::Element>(message.len(), root)?, message)
            }
        }
    }

    /// Combines everybody's `input` element by element into the root's `output`, `Some` there and `None` elsewhere
    /// (MPI_Reduce). Shape: ranks x `input.len()` elements.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let (mine, mut sum) = ([1, world.rank()], [0; 2]);
    ///     let output = (world.rank() == 0).then_some(&mut sum[..]);
    ///     world.reduce(&mine, output, &selvedge::Op::sum(), 0).unwrap();
    ///     assert_eq!(sum, if world.rank() == 0 { [3, 3] } else { [0, 0] });
    /// });
    /// ```
    #[doc(alias = "MPI_Reduce")]
    pub fn reduce<T: Datatype>(
        &self,
        input: &[T],
        output: Option<&mut [T]>,
        op: &Op<T>,
        root: usize,
    ) -> Result<()> {
        self.run(self.prepare_reduce(input, output, op, root)?)
    }

    /// Combines everybody's `input` element by element into everybody's `output`, which is as long (MPI_Allreduce).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let (mine, mut most) = ([world.rank() as f64, -1.0], [0.0; 2]);
    ///     world.allreduce(&mine, &mut most, &selvedge::Op::max()).unwrap();
    ///     assert_eq!(most, [2.0, -1.0]);
    /// });
    /// ```
    #[doc(alias = "MPI_Allreduce")]
    pub fn allreduce<T: Datatype>(&self, input: &[T], output: &mut [T], op: &Op<T>) -> Result<()> {
        self.run(self.prepare_allreduce(input, output, op)?)
    }

    /// Gives every rank everybody's `input` in order of ranks; `output` has `size * input.len()` elements
    /// (MPI_Allgather).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let mut all = [' '; 6];
    ///     world.allgather(&[['a', 'A'], ['b', 'B'], ['c', 'C']][world.rank()], &mut all).unwrap();
    ///     assert_eq!(all, ['a', 'A', 'b', 'B', 'c', 'C']);
    /// });
    /// ```
    #[doc(alias = "MPI_Allgather")]
    pub fn allgather<T: Datatype>(&self, input: &[T], output: &mut [T]) -> Result<()> {
        self.run(self.prepare_allgather(input, output)?)
    }

    /// Gives rank `i` block `i` of everybody's `input`, in order of ranks; both buffers have a multiple of `size`
    /// elements (MPI_Alltoall).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let (me, mut inn) = (10 * world.rank(), [0; 3]);
    ///     world.alltoall(&[me, me + 1, me + 2], &mut inn).unwrap();
    ///     assert_eq!(inn, [world.rank(), 10 + world.rank(), 20 + world.rank()]);
    /// });
    /// ```
    #[doc(alias = "MPI_Alltoall")]
    pub fn alltoall<T: Datatype>(&self, input: &[T], output: &mut [T]) -> Result<()> {
        self.run(self.prepare_alltoall(input, output)?)
    }

    pub(crate) fn prepare_barrier(&self) -> Prepared<'static, u8> {
        Prepared {
            shape: self.shape::<u8>(Collective::Barrier, 0),
            input: &[],
            output: &mut [],
            reducer: None,
        }
    }

    pub(crate) fn prepare_broadcast<'a, T: Datatype>(
        &self,
        message: &'a mut [T],
        root: usize,
    ) -> Result<Prepared<'a, T>> {
        let shape = self.broadcast_shape::<T>(message.len(), root)?;
        Ok(Prepared { shape, input: &[], output: message, reducer: None })
    }

    /// Of a broadcast of so many elements.
    pub(crate) fn broadcast_shape<T: Datatype>(&self, count: usize, root: usize) -> Result<Shape> {
        let root = self.checked_root(root)?;
        Ok(self.shape::<T>(Collective::Broadcast { root }, count))
    }

    pub(crate) fn prepare_reduce<'a, T: Datatype>(
        &self,
        input: &'a [T],
        output: Option<&'a mut [T]>,
        op: &Op<T>,
        root: usize,
    ) -> Result<Prepared<'a, T>> {
        let root_rank = self.checked_root(root)?;
        if output.is_some() != (self.rank() == root) {
            return Err(self.refuse(Misuse::RootOutput { rank: self.rank(), root }));
        }
        let output = match output {
            Some(output) => same_length(input, output).refused_by(self)?,
            None => &mut [],
        };
        let shape = self.shape::<T>(Collective::Reduce { root: root_rank }, input.len());
        Ok(reducing(shape, input, output, op))
    }

    pub(crate) fn prepare_allreduce<'a, T: Datatype>(
        &self,
        input: &'a [T],
        output: &'a mut [T],
        op: &Op<T>,
    ) -> Result<Prepared<'a, T>> {
        let output = same_length(input, output).refused_by(self)?;
        Ok(reducing(self.shape::<T>(Collective::Allreduce, input.len()), input, output, op))
    }

    pub(crate) fn prepare_allgather<'a, T: Datatype>(
        &self,
        input: &'a [T],
        output: &'a mut [T],
    ) -> Result<Prepared<'a, T>> {
        if output.len() != self.size() * input.len() {
            let (given, expected) = (output.len(), self.size() * input.len());
            let why = "size * input.len()";
            return Err(self.refuse(Misuse::Length { what: "output", given, expected, why }));
        }
        let shape = self.shape::<T>(Collective::Allgather, input.len());
        Ok(Prepared { shape, input, output, reducer: None })
    }

    pub(crate) fn prepare_alltoall<'a, T: Datatype>(
        &self,
        input: &'a [T],
        output: &'a mut [T],
    ) -> Result<Prepared<'a, T>> {
        let output = same_length(input, output).refused_by(self)?;
        if !input.len().is_multiple_of(self.size()) {
            let (given, expected) = (input.len(), input.len().next_multiple_of(self.size()));
            let why = "a block for each rank";
            return Err(self.refuse(Misuse::Length { what: "input", given, expected, why }));
        }
        let shape = self.shape::<T>(Collective::Alltoall, input.len() / self.size());
        Ok(Prepared { shape, input, output, reducer: None })
    }

    fn shape<T: Datatype>(&self, collective: Collective, count: usize) -> Shape {
        // Elements of no bytes make a message of no bytes.
        let count = if size_of::<T>() == 0 { 0 } else { count as u64 };
        let element_bytes = size_of::<T>().max(1) as u32;
        Shape { collective, ranks: self.size() as u32, count, element_bytes, commutative: true }
    }

    fn checked_root(&self, root: usize) -> Result<Rank> {
        if root >= self.size() {
            return Err(self.refuse(Misuse::RankOutOfRange { what: "root", given: root, size: self.size() }));
        }
        Ok(Rank(root as u32))
    }
}

fn reducing<'a, T: Datatype>(
    shape: Shape,
    input: &'a [T],
    output: &'a mut [T],
    op: &Op<T>,
) -> Prepared<'a, T> {
    let shape = Shape { commutative: op.commutative, ..shape };
    Prepared { shape, input, output, reducer: Some(op.reducer.clone()) }
}

fn same_length<'a, T>(input: &[T], output: &'a mut [T]) -> Result<&'a mut [T], Misuse> {
    if input.len() != output.len() {
        let (given, expected) = (output.len(), input.len());
        return Err(Misuse::Length { what: "output", given, expected, why: "as long as the input" });
    }
    Ok(output)
}
