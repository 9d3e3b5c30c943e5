//! The sending end of a partitioned message, and the markers of its partitions.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::slice;

use super::{Line, whole};
use crate::datatype::Datatype;
use crate::datatype::memory::Aftermath;
use crate::request::Request;
use crate::request::persistent::{Round, Shared};
use crate::request::scope::{Received, Scope};

/// A message that is sent again and again, and whose partitions leave one by one as they are marked ready, by any thread
/// (MPI_Psend_init). [`Scope::psend_init`] makes it.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let mut data = vec![0u32; 4_000];
///     world.scope(|scope| -> selvedge::Result<()> {
///         if world.rank() == 0 {
///             let mut send = scope.psend_init(&mut data, 4, 1, 0)?;
///             for round in 1..4 {
///                 let (partitions, sent) = send.start();
///                 std::thread::scope(|threads| {
///                     for mut partition in partitions {
///                         threads.spawn(move || {
///                             partition.fill(round);
///                             partition.ready();
///                         });
///                     }
///                 });
///                 sent.wait()?;
///             }
///         } else {
///             let mut receive = scope.precv_init(&mut data, 2, 0, 0)?;
///             for round in 1..4 {
///                 let (view, received) = receive.start();
///                 assert_eq!(view.wait(1)?, [round; 2_000]);
///                 received.wait()?;
///             }
///         }
///         Ok(())
///     }).unwrap();
/// });
/// ```
///
/// What was marked ready can no longer be written to:
///
/// ```compile_fail,E0382
/// # selvedge::local::run(1, |world| {
/// # let mut data = [0u8; 4];
/// # world.scope(|scope| {
/// let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
/// let (mut partitions, sent) = send.start();
/// let mut first = partitions.next().unwrap();
/// first.ready();
/// first[0] = 1;
/// # });
/// # });
/// ```
///
/// Nor can a round begin while anything of the last one could still be used:
///
/// ```compile_fail,E0499
/// # selvedge::local::run(1, |world| {
/// # let mut data = [0u8; 4];
/// # world.scope(|scope| {
/// let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
/// let (first, _) = send.start();
/// let (second, _) = send.start();
/// first.for_each(|partition| partition.ready());
/// # });
/// # });
/// ```
///
/// Cost: a message for each partition, which leaves in the call that marks it. While one exists, at either end, the threads of
/// its rank take turns at a lock, as with a [`Team`](crate::Team).
#[doc(alias = "MPI_Psend_init")]
pub struct PartitionedSend<'scope, 'env, T> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) elements: Shared<'scope, T>,
    pub(super) partitions: usize,
    /// Nothing for nobody.
    pub(super) line: Option<Line>,
    pub(super) round: Round,
}

impl<'scope, T: Datatype> PartitionedSend<'scope, '_, T> {
    /// Begins a round (MPI_Start): the markers of its partitions, in order, and its request, which ends when all of them were
    /// marked and have left. If the request of the last round was dropped, waits for that first; what was not marked then leaves
    /// as it is.
    ///
    /// The request waits for markers wherever they are. A thread that waits for it and has one itself waits for ever, and
    /// is not told: which thread has a marker, and whether it will give it to another one, is nothing that this library
    /// could know. Mark first, or drop what will not be marked.
    ///
    /// # Errors
    /// Of the request: [`Misuse::PartitionWithheld`](crate::Misuse::PartitionWithheld) for a marker that was dropped; the
    /// rest as for any send.
    #[doc(alias = "MPI_Start")]
    pub fn start<'a>(&'a mut self) -> (Partitions<'a, T>, Request<'a>) {
        self.settle();
        let (scope, count) = (self.scope, self.partitions);
        let request = match &self.line {
            None => Request::complete(scope, Ok(scope.own_status())),
            Some(line) => {
                // SAFETY: the slice is lent for 'scope, and the scope does not end before the operation is complete. The
                // operation touches a partition when its marker is spent, and nobody else does from then on until the
                // round is over.
                let message = unsafe { whole(&self.elements) };
                let started = scope.communicator.runtime.enter().begin_round(line.channel, message);
                scope.request(started, Received::No, Aftermath::NOTHING)
            }
        };
        self.round = request.round();
        let this: &'a PartitionedSend<'scope, '_, T> = self;
        // SAFETY: `this` borrows the elements for 'a; the round that has begun touches them partition by partition, when
        // the marker that has the partition is gone.
        let rest: &'a mut [T] =
            unsafe { slice::from_raw_parts_mut(this.elements.start(), this.elements.count()) };
        let each = rest.len() / count;
        (Partitions { rest, each, next: 0, count, line: this.line.as_ref() }, request)
    }

    /// The elements (between rounds). Waits for a round whose request was dropped.
    pub fn buffer(&mut self) -> &mut [T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.elements.get_mut() }
    }

    fn settle(&mut self) {
        if let Some((operation, place)) = self.round.take() {
            self.scope.settle_with(operation, place, |runtime| runtime.withhold_the_rest(operation));
        }
    }
}

impl<T> Drop for PartitionedSend<'_, '_, T> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.close(self.scope.communicator);
        }
    }
}

impl<T> fmt::Debug for PartitionedSend<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionedSend({} elements in {})", self.elements.count(), self.partitions)
    }
}

/// The markers of a round's partitions, in order. Those that are not taken out are dropped with it. A thread pool takes
/// them as any iterator's items: `partitions.par_bridge()` with rayon.
///
/// ```
/// use selvedge::{PartitionedSend, Partitions};
///
/// /// A round in which the partitions leave from the last to the first.
/// fn backwards(send: &mut PartitionedSend<'_, '_, u8>) -> selvedge::Result<()> {
///     let (partitions, sent): (Partitions<'_, u8>, _) = send.start();
///     let mut partitions: Vec<_> = partitions.collect();
///     partitions.reverse();
///     partitions.into_iter().for_each(|partition| partition.ready());
///     sent.wait().map(drop)
/// }
///
/// selvedge::local::run(1, |world| {
///     let (mut mine, mut theirs) = ([1, 2, 3, 4], [0; 4]);
///     world.scope(|scope| {
///         let mut send = scope.psend_init(&mut mine, 4, 0, 0)?;
///         let mut receive = scope.precv_init(&mut theirs, 2, 0, 0)?;
///         let (_, received) = receive.start();
///         backwards(&mut send)?;
///         received.wait()
///     }).unwrap();
///     assert_eq!(theirs, mine);
/// });
/// ```
pub struct Partitions<'a, T> {
    rest: &'a mut [T],
    each: usize,
    next: usize,
    count: usize,
    line: Option<&'a Line>,
}

impl<'a, T> Iterator for Partitions<'a, T> {
    type Item = Partition<'a, T>;

    fn next(&mut self) -> Option<Partition<'a, T>> {
        let index = self.next;
        if index == self.count {
            return None;
        }
        self.next += 1;
        let (elements, rest) = mem::take(&mut self.rest).split_at_mut(self.each);
        self.rest = rest;
        Some(Partition { elements, index, line: self.line })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.next;
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Partitions<'_, T> {}

impl<T> Drop for Partitions<'_, T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<T> fmt::Debug for Partitions<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partitions({} of {} left)", self.len(), self.count)
    }
}

/// A partition of a message that is being sent: its elements, until it is [ready](Partition::ready). Any thread can have it.
///
/// Dropped without being marked, as by a panic, it leaves as it is, so that the receiver does not wait for ever, and the request
/// of the round ends with [`Misuse::PartitionWithheld`](crate::Misuse::PartitionWithheld).
///
/// ```
/// /// What a worker does with its part, whichever it is.
/// fn work(mut partition: selvedge::Partition<'_, f64>) {
///     let begin = partition.index() * partition.len();
///     for (place, element) in partition.iter_mut().enumerate() {
///         *element = (begin + place) as f64;
///     }
///     partition.ready();
/// }
///
/// selvedge::local::run(1, |world| {
///     let (mut mine, mut theirs) = ([0.0; 6], [0.0; 6]);
///     world.scope(|scope| {
///         let mut send = scope.psend_init(&mut mine, 3, 0, 0)?;
///         let mut receive = scope.precv_init(&mut theirs, 1, 0, 0)?;
///         let ((_, received), (partitions, sent)) = (receive.start(), send.start());
///         std::thread::scope(|threads| {
///             for partition in partitions {
///                 threads.spawn(|| work(partition));
///             }
///         });
///         selvedge::wait_all([sent, received])
///     }).unwrap();
///     assert_eq!(theirs, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
/// });
/// ```
pub struct Partition<'a, T> {
    elements: &'a mut [T],
    index: usize,
    /// Nothing when it is marked, or goes to nobody.
    line: Option<&'a Line>,
}

impl<T> Partition<'_, T> {
    /// Which one it is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Lets it leave (MPI_Pready). From any thread; it leaves in this call, whatever other threads do meanwhile.
    #[doc(alias = "MPI_Pready")]
    pub fn ready(mut self) {
        if let Some(line) = self.line.take() {
            line.mark(self.index, false);
        }
    }
}

/// Lets several partitions of one round leave (MPI_Pready_range, MPI_Pready_list): as [`Partition::ready`] for each, at the price
/// of going to the lock once.
///
/// ```
/// selvedge::local::run(1, |world| {
///     let (mut mine, mut theirs) = ([7u8; 12], [0u8; 12]);
///     world.scope(|scope| {
///         let mut send = scope.psend_init(&mut mine, 6, 0, 0)?;
///         let mut receive = scope.precv_init(&mut theirs, 3, 0, 0)?;
///         let (view, received) = receive.start();
///         let (mut partitions, sent) = send.start();
///         selvedge::ready_all(partitions.by_ref().take(4));
///         assert!(view.get(1)?.is_some() && view.get(2)?.is_none());
///         selvedge::ready_all(partitions);
///         selvedge::wait_all([sent, received])
///     }).unwrap();
///     assert_eq!(theirs, mine);
/// });
/// ```
#[doc(alias("MPI_Pready_range", "MPI_Pready_list"))]
pub fn ready_all<'a, T: 'a>(partitions: impl IntoIterator<Item = Partition<'a, T>>) {
    let mut partitions: Vec<_> = partitions.into_iter().collect();
    let Some(line) = partitions.iter().find_map(|partition| partition.line) else { return };
    let door = line.pass.door();
    let mut runtime = door.enter();
    for partition in &mut partitions {
        if partition.line.is_some_and(|other| std::ptr::eq(other, line)) {
            partition.line = None;
            runtime.mark(line.channel, partition.index, false);
        }
    }
    drop(runtime);
    // Those of other rounds, if there are any.
    partitions.into_iter().for_each(Partition::ready);
}

impl<T> Deref for Partition<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.elements
    }
}

impl<T> DerefMut for Partition<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.elements
    }
}

impl<T> Drop for Partition<'_, T> {
    fn drop(&mut self) {
        if let Some(line) = self.line {
            line.mark(self.index, true);
        }
    }
}

impl<T> fmt::Debug for Partition<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({}: {} elements)", self.index, self.elements.len())
    }
}
