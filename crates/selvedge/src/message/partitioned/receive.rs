//! The receiving end of a partitioned message, and the view of those of its partitions that are here.

use std::fmt;
use std::marker::PhantomData;
use std::slice;
use std::sync::Arc;

use selvedge_transport::Buf;

use super::{Line, whole};
use crate::datatype::Datatype;
use crate::datatype::memory::{Aftermath, aftermath};
use crate::error::{Misuse, Result};
use crate::request::Request;
use crate::request::persistent::{Round, Shared};
use crate::request::scope::{Received, Scope};
use crate::runtime::station::Entrance;
use crate::runtime::{Arrival, Board};

/// A message that is received again and again, and whose partitions can be read as they come, by any thread (MPI_Precv_init).
/// [`Scope::precv_init`] makes it; see [`PartitionedSend`](crate::PartitionedSend) for both ends at work. Its partitions
/// need not be those of the sender: one is here when all of the sender's that reach into it are.
#[doc(alias = "MPI_Precv_init")]
pub struct PartitionedRecv<'scope, 'env, T> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) elements: Shared<'scope, T>,
    pub(super) board: Arc<Board>,
    /// Nothing for nobody.
    pub(super) line: Option<Line>,
    pub(super) round: Round,
}

impl<'scope, T: Datatype> PartitionedRecv<'scope, '_, T> {
    /// Begins a round (MPI_Start): a view of its partitions, for whoever reads them, and its request, which ends when all of
    /// them are here. If the request of the last round was dropped, waits for that first.
    ///
    /// # Errors
    /// Of the request: [`Misuse::Partitioning`] when the sender's message has another length; the rest as for any receive.
    #[doc(alias = "MPI_Start")]
    pub fn start<'a>(&'a mut self) -> (PartitionView<'a, T>, Request<'a>) {
        self.settle();
        let scope = self.scope;
        let request = match &self.line {
            None => Request::complete(scope, Ok(scope.communicator.null_status())),
            Some(line) => {
                // SAFETY: the slice is lent for 'scope, and the scope does not end before the operation is complete. A
                // partition is shown when the operation is done with it.
                let message = unsafe { whole(&self.elements) };
                let due = self.aftermaths(message);
                let started = scope.communicator.runtime.enter().begin_round_then(line.channel, message, due);
                scope.request(started, Received::Yes, Aftermath::NOTHING)
            }
        };
        self.round = request.round();
        let this: &'a PartitionedRecv<'scope, '_, T> = self;
        let start = this.elements.start().cast_const();
        let each = this.elements.count() / this.board.count();
        (
            PartitionView { start, each, board: &this.board, line: this.line.as_ref(), lent: PhantomData },
            request,
        )
    }

    /// The elements (between rounds). Waits for a round whose request was dropped.
    pub fn buffer(&mut self) -> &mut [T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.elements.get_mut() }
    }

    /// What is left to do with each partition that has come, before it is shown.
    fn aftermaths(&self, message: Buf) -> Vec<Aftermath> {
        if T::PLAIN {
            return Vec::new();
        }
        // SAFETY: no round is under way, and the one that begins has not begun.
        let first = unsafe { self.elements.get() }.first().copied();
        let each = message.len() / self.board.count();
        let part = |partition: usize| message.slice(partition * each..(partition + 1) * each);
        // SAFETY: a partition is a slice of `T`; the channel has the aftermaths until the operation is complete.
        let aftermath = |partition| unsafe { aftermath(part(partition), first) };
        (0..self.board.count()).map(aftermath).collect()
    }

    fn settle(&mut self) {
        if let Some((operation, place)) = self.round.take() {
            self.scope.settle(operation, place);
        }
    }
}

impl<T> Drop for PartitionedRecv<'_, '_, T> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.close(self.scope.communicator);
        }
    }
}

impl<T> fmt::Debug for PartitionedRecv<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionedRecv({} elements: {:?})", self.elements.count(), self.board)
    }
}

/// The partitions of a round that are here; for any thread.
///
/// ```
/// use selvedge::{PartitionView, PartitionedRecv};
///
/// /// Adds up partitions in the order in which they come, without waiting for one while another is here.
/// fn sum(view: PartitionView<'_, u64>) -> selvedge::Result<u64> {
///     let (mut sum, mut left) = (0, (0..view.count()).collect::<Vec<_>>());
///     while let Some(&first) = left.first() {
///         let here = left.iter().position(|&index| matches!(view.get(index), Ok(Some(_))));
///         let index = here.map_or(first, |place| left[place]);
///         sum += view.wait(index)?.iter().sum::<u64>();
///         left.retain(|&other| other != index);
///     }
///     Ok(sum)
/// }
///
/// fn round(receive: &mut PartitionedRecv<'_, '_, u64>) -> selvedge::Result<u64> {
///     let (view, received) = receive.start();
///     let sum = sum(view)?;
///     received.wait()?;
///     assert_eq!(sum, receive.buffer().iter().sum::<u64>());
///     Ok(sum)
/// }
///
/// selvedge::local::run(2, |world| {
///     let mut data = [1, 2, 3, 4];
///     world.scope(|scope| -> selvedge::Result<()> {
///         if world.rank() == 0 {
///             let mut send = scope.psend_init(&mut data, 4, 1, 0)?;
///             let (partitions, sent) = send.start();
///             selvedge::ready_all(partitions);
///             sent.wait()?;
///         } else {
///             let mut receive = scope.precv_init(&mut data, 2, 0, 0)?;
///             assert_eq!(round(&mut receive)?, 10);
///         }
///         Ok(())
///     }).unwrap();
/// });
/// ```
pub struct PartitionView<'a, T> {
    start: *const T,
    each: usize,
    board: &'a Board,
    line: Option<&'a Line>,
    lent: PhantomData<&'a [T]>,
}

// SAFETY: it gives out nothing but shared slices of `T`, each after the board has said that nobody writes to it.
unsafe impl<T: Sync> Send for PartitionView<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for PartitionView<'_, T> {}

impl<T> Clone for PartitionView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for PartitionView<'_, T> {}

impl<'a, T> PartitionView<'a, T> {
    /// Number of partitions.
    pub fn count(&self) -> usize {
        self.board.count()
    }

    /// Partition `index` if it is here (MPI_Parrived). Makes progress if it is not. Panics when there is no such partition.
    ///
    /// # Errors
    /// [`Misuse::PartitionLost`] when it never comes, because the round has ended in an error.
    #[doc(alias = "MPI_Parrived")]
    pub fn get(&self, index: usize) -> Result<Option<&'a [T]>> {
        if let (Arrival::Awaited, Some(line)) = (self.board.arrival(index), self.line) {
            line.pass.door().enter().progress();
        }
        self.seen(index)
    }

    /// Partition `index`, when it is here. Other threads go on meanwhile. Panics when there is no such partition.
    ///
    /// # Errors
    /// As [`PartitionView::get`].
    pub fn wait(&self, index: usize) -> Result<&'a [T]> {
        if let (Arrival::Awaited, Some(line)) = (self.board.arrival(index), self.line) {
            let is_known = || self.board.arrival(index) != Arrival::Awaited;
            Entrance::by(&line.pass).wait_until(|_, _| is_known().then_some(()));
        }
        Ok(self.seen(index)?.expect("waited for"))
    }

    fn seen(&self, index: usize) -> Result<Option<&'a [T]>> {
        match self.board.arrival(index) {
            Arrival::Awaited => Ok(None),
            Arrival::Lost => {
                let lost = Misuse::PartitionLost { partition: index }.into();
                let line = self.line.expect("what comes from nobody is here");
                Err(line.core.raise(lost))
            }
            Arrival::Here => {
                let start = self.start.wrapping_add(index * self.each);
                // SAFETY: the slice that the receive holds has so many partitions of this length; no operation writes to
                // one that is here before the next round, which borrows the receive exclusively.
                Ok(Some(unsafe { slice::from_raw_parts(start, self.each) }))
            }
        }
    }
}

impl<T> fmt::Debug for PartitionView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionView({:?})", self.board)
    }
}
