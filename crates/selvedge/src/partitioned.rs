//! Partitioned messages: one message whose parts are filled, and read, by several threads (MPI 5.0 section 4.2).
//!
//! The thread that makes them begins each round and has its request; markers of the partitions go to other threads. A
//! sender's partition is written through its marker and leaves when the marker is spent, so that nobody can write to what is
//! on its way. A receiver's partitions are read through a view that shows those that are here. What moves them is below, in
//! `channel.rs`.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Arc;

use selvedge_gate::Pass;
use selvedge_transport::Buf;

use crate::communicator::{Communicator, Core};
use crate::datatype::Datatype;
use crate::error::{Misuse, Refused, Result};
use crate::memory::{Aftermath, aftermath};
use crate::message::Address;
use crate::owned::OwnedRequest;
use crate::persistent::{Round, Shared};
use crate::request::Request;
use crate::runtime::{Arrival, Board, ChannelId, Ends, PARTITIONS_MAX, hello};
use crate::scope::{Received, Scope};
use crate::station::{Alarm, Entrance, Station};

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
pub struct PartitionedSend<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    elements: Shared<'scope, T>,
    partitions: usize,
    /// Nothing for nobody.
    line: Option<Line>,
    round: Round,
}

/// The way to the channel below, from any thread.
struct Line {
    pass: Pass<Station, Alarm>,
    channel: ChannelId,
    /// Whose handler sees what goes wrong.
    core: Arc<Core>,
}

impl Line {
    fn open(communicator: &Communicator, open: impl FnOnce(&mut Station) -> ChannelId) -> Line {
        let pass = communicator.runtime.pass();
        let channel = open(&mut communicator.runtime.enter());
        Line { pass, channel, core: Arc::clone(&communicator.core) }
    }

    /// Says of a partition that it may leave.
    fn mark(&self, partition: usize, is_withheld: bool) {
        self.pass.door().enter().mark(self.channel, partition, is_withheld);
    }

    fn close(&self, communicator: &Communicator) {
        // Inside of a reduction of the user's nobody can go in again: the channel stays for as long as the world.
        if let Some(mut runtime) = communicator.runtime.try_enter() {
            runtime.close_channel(self.channel);
        }
    }
}

impl<'scope, T: Datatype> PartitionedSend<'scope, '_, T> {
    /// Begins a round (MPI_Start): the markers of its partitions, in order, and its request, which ends when all of them were
    /// marked and have left. If the request of the last round was dropped, waits for that first; what was not marked then leaves
    /// as it is.
    ///
    /// The request waits for markers wherever they are. A thread that waits for it and has one itself waits for ever, and is not told:
    /// which thread has a marker, and whether it will give it to another one, is nothing that this library could know. Mark first,
    /// or drop what will not be marked.
    ///
    /// # Errors
    /// Of the request: [`Misuse::PartitionWithheld`] for a marker that was dropped; the rest as for any send.
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

/// The markers of a round's partitions, in order. Those that are not taken out are dropped with it.
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
/// of the round ends with [`Misuse::PartitionWithheld`].
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

/// A message that is received again and again, and whose partitions can be read as they come, by any thread (MPI_Precv_init).
/// [`Scope::precv_init`] makes it; see [`PartitionedSend`] for both ends at work. Its partitions need not be those of the
/// sender: one is here when all of the sender's that reach into it are.
pub struct PartitionedRecv<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    elements: Shared<'scope, T>,
    board: Arc<Board>,
    /// Nothing for nobody.
    line: Option<Line>,
    round: Round,
}

impl<'scope, T: Datatype> PartitionedRecv<'scope, '_, T> {
    /// Begins a round (MPI_Start): a view of its partitions, for whoever reads them, and its request, which ends when all of
    /// them are here. If the request of the last round was dropped, waits for that first.
    ///
    /// # Errors
    /// Of the request: [`Misuse::Partitioning`] when the sender's message has another length; the rest as for any receive.
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

/// A claim on all of a message.
///
/// # Safety
/// As for [`Buf::claim`], partition by partition; and what arrives becomes values of `T` before it is shown.
unsafe fn whole<T: Datatype>(elements: &Shared<'_, T>) -> Buf {
    let _has_no_padding = T::PLAIN;
    // SAFETY: so many elements lie there; the caller answers for the rest. The address is that which all other accesses
    // are derived from, so that none of them ends the claim.
    unsafe { Buf::claim(elements.start().cast(), elements.count() * size_of::<T>()) }
}

/// Partitioned messages (MPI 5.0 section 4.2). The sending and the receiving end meet by rank, tag and the order in which
/// they were made, each among its own kind; they never meet other messages. There are no wildcards.
impl<'scope, 'env> Scope<'scope, 'env> {
    /// A send of `message` in so many equal partitions, to be started many times (MPI_Psend_init).
    ///
    /// # Errors
    /// [`Misuse::Length`] when the elements cannot be divided so; a rank or tag out of range as for a send.
    pub fn psend_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        partitions: usize,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<PartitionedSend<'scope, 'env, T>> {
        let communicator = self.communicator;
        let to = communicator.destination(dest.into(), tag)?;
        divisible(message.len(), partitions).refused_by(communicator)?;
        let bytes = size_of_val(message);
        let line = to.map(|to| {
            let (number, ends) = (communicator.next_channel(), self.ends(to));
            let line =
                Line::open(communicator, |runtime| runtime.open_sender(ends, number, bytes, partitions));
            let said = hello(number, bytes, partitions).to_vec();
            // Dropped at once: the communicator sees to it that it leaves.
            drop(OwnedRequest::send_plain(communicator, said, Ok(Some(to)), |runtime, (peer, tag), body| {
                runtime.send_body(peer, ends.context, tag, body)
            }));
            line
        });
        Ok(PartitionedSend { scope: self, elements: Shared::new(message), partitions, line, round: None })
    }

    /// A receive into `message` in so many equal partitions, to be started many times (MPI_Precv_init).
    ///
    /// # Errors
    /// As [`Scope::psend_init`].
    pub fn precv_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        partitions: usize,
        source: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<PartitionedRecv<'scope, 'env, T>> {
        let from = self.communicator.destination(source.into(), tag)?;
        divisible(message.len(), partitions).refused_by(self.communicator)?;
        let arrival = if from.is_some() { Arrival::Awaited } else { Arrival::Here };
        let board = Board::new(partitions, arrival);
        let line = from.map(|from| {
            let (ends, bytes, board) = (self.ends(from), size_of_val(message), Arc::clone(&board));
            Line::open(self.communicator, |runtime| runtime.open_receiver(ends, bytes, size_of::<T>(), board))
        });
        Ok(PartitionedRecv { scope: self, elements: Shared::new(message), board, line, round: None })
    }

    fn ends(&self, (peer, tag): Address) -> Ends {
        Ends { peer, context: self.communicator.partitioned_context(), tag }
    }
}

fn divisible(elements: usize, partitions: usize) -> Result<(), Misuse> {
    if (1..=PARTITIONS_MAX).contains(&partitions) && elements.is_multiple_of(partitions) {
        return Ok(());
    }
    let expected = elements.next_multiple_of(partitions.clamp(1, PARTITIONS_MAX));
    let why = "as many in each partition, of which there are 1 to 2^24";
    Err(Misuse::Length { what: "message", given: elements, expected, why })
}
