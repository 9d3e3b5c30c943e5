//! Collectives between two groups (MPI 5.0 section 6.2.2): what one group gives goes to the other one.
//!
//! Those with a root have two halves, one for each group: `*_to` for who gives, `*_from` for who gets. So no rank has to say
//! MPI_ROOT or MPI_PROC_NULL, and no argument of a call is without a meaning in its half.

use std::mem;

use crate::collective::op::Op;
use crate::communicator::inter::Intercommunicator;
use crate::datatype::Datatype;
use crate::error::{Misuse, Refused, Result};
use crate::message::Status;
use crate::request::scope::Scope;
use crate::request::{Request, wait_all};

/// Tags of messages of collectives. One would do, as all ranks call them in the same order; several let a wrong order be seen.
const BROADCAST: i32 = 0;
const ALLREDUCE: i32 = 1;
const REDUCE: i32 = 2;
const GATHER: i32 = 3;
const SCATTER: i32 = 4;
const ALLGATHER: i32 = 5;
const ALLTOALL: i32 = 6;

/// Called by all ranks of both groups, in the same order. All ranks of a group name the same root and give as many elements.
impl Intercommunicator {
    /// Gives `message` of rank `root` of this group to every rank of the other one, which calls
    /// [`broadcast_from`](Intercommunicator::broadcast_from) (MPI_Bcast on an intercommunicator, with MPI_ROOT and MPI_PROC_NULL).
    /// All ranks of this group call it; the messages of the others do not count.
    ///
    /// # Errors
    /// As [`Communicator::send`](crate::Communicator::send).
    #[doc(alias("MPI_Bcast", "MPI_ROOT", "MPI_PROC_NULL"))]
    pub fn broadcast_to<T: Datatype>(&self, message: &[T], root: usize) -> Result<()> {
        let root = self.local.checked_peer("root", root).map(|_| root)?;
        if self.rank() == root { self.inner.send(message, self.offset(), BROADCAST) } else { Ok(()) }
    }

    /// The other half of [`broadcast_to`](Intercommunicator::broadcast_to): `root` is a rank of the other group. Cost: one message
    /// between the groups, and a broadcast in this one.
    ///
    /// # Errors
    /// As [`Communicator::recv`](crate::Communicator::recv) and [`Communicator::broadcast`](crate::Communicator::broadcast).
    pub fn broadcast_from<T: Datatype>(&self, message: &mut [T], root: usize) -> Result<()> {
        let root = self.there("root", root)?;
        if self.rank() == 0 {
            self.inner.recv(message, root, BROADCAST)?;
        }
        self.local.broadcast(message, 0)
    }

    /// Combines the input of the *other* group's ranks into everybody's `output` (MPI_Allreduce on an intercommunicator, MPI
    /// 5.0 section 6.9.6). Inputs and outputs of both groups are as long as each other. Cost: a reduction, one message each way
    /// between the groups, and a broadcast.
    ///
    /// # Errors
    /// As [`Communicator::reduce`](crate::Communicator::reduce) and [`Communicator::broadcast`](crate::Communicator::broadcast).
    #[doc(alias = "MPI_Allreduce")]
    pub fn allreduce<T: Datatype>(&self, input: &[T], output: &mut [T], op: &Op<T>) -> Result<()> {
        let (size, here) = (self.offset(), self.rank());
        if here != 0 {
            self.local.reduce(input, None, op, 0)?;
        } else {
            let mut ours = input.to_vec();
            self.local.reduce(input, Some(&mut ours), op, 0)?;
            self.inner.sendrecv(&ours, size, ALLREDUCE, output, size, ALLREDUCE)?;
        }
        self.local.broadcast(output, 0)
    }

    /// Returns after every rank of both groups has called it (MPI_Barrier on an intercommunicator).
    ///
    /// # Errors
    /// As [`Communicator::barrier`](crate::Communicator::barrier).
    #[doc(alias = "MPI_Barrier")]
    pub fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }

    /// Combines the inputs of this group's ranks for rank `root` of the other one, whose ranks call
    /// [`reduce_from`](Intercommunicator::reduce_from) (MPI_Reduce on an intercommunicator). Cost: a reduction in this group, and one
    /// message between the groups.
    ///
    /// # Errors
    /// As [`Communicator::reduce`](crate::Communicator::reduce).
    #[doc(alias = "MPI_Reduce")]
    pub fn reduce_to<T: Datatype>(&self, input: &[T], op: &Op<T>, root: usize) -> Result<()> {
        let root = self.there("root", root)?;
        if self.rank() != 0 {
            return self.local.reduce(input, None, op, 0);
        }
        let mut ours = input.to_vec();
        self.local.reduce(input, Some(&mut ours), op, 0)?;
        self.inner.send(&ours, root, REDUCE)
    }

    /// The other half of [`reduce_to`](Intercommunicator::reduce_to): `root` is a rank of this group, and the outputs of its other
    /// ranks stay as they are.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let is_first = world.rank() == 0;
    ///     let group = world.split(Some(u32::from(is_first)), 0).unwrap().unwrap();
    ///     let there = group.intercommunicator(0, &world, usize::from(is_first), 0).unwrap();
    ///     let mut sum = [0usize];
    ///     match is_first {
    ///         true => there.reduce_from(&mut sum, 0).unwrap(),
    ///         false => there.reduce_to(&[world.rank()], &selvedge::Op::sum(), 0).unwrap(),
    ///     }
    ///     assert_eq!(sum, [if is_first { 3 } else { 0 }]);
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::recv`](crate::Communicator::recv); [`Misuse::Disagreement`] when the inputs have another length than `output`.
    pub fn reduce_from<T: Datatype>(&self, output: &mut [T], root: usize) -> Result<()> {
        self.local.checked_peer("root", root)?;
        if self.rank() != root {
            return Ok(());
        }
        let bytes = size_of_val(output);
        let status = self.inner.recv(output, self.offset(), REDUCE)?;
        self.came_whole(&[status], bytes)
    }

    /// Gives `message` to rank `root` of the other group, whose ranks call [`gather_from`](Intercommunicator::gather_from)
    /// (MPI_Gather on an intercommunicator).
    ///
    /// # Errors
    /// As [`Communicator::send`](crate::Communicator::send).
    #[doc(alias = "MPI_Gather")]
    pub fn gather_to<T: Datatype>(&self, message: &[T], root: usize) -> Result<()> {
        self.inner.send(message, self.there("root", root)?, GATHER)
    }

    /// The other half of [`gather_to`](Intercommunicator::gather_to): `root` is a rank of this group, and gets the messages of the
    /// other one in order of its ranks. The outputs of other ranks stay as they are. Cost: a message from each rank of the
    /// other group, straight to where it belongs.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let is_first = world.rank() == 0;
    ///     let group = world.split(Some(u32::from(is_first)), 0).unwrap().unwrap();
    ///     let there = group.intercommunicator(0, &world, usize::from(is_first), 0).unwrap();
    ///     if is_first {
    ///         let mut all = [0usize; 2];
    ///         there.gather_from(&mut all, 0).unwrap();
    ///         assert_eq!(all, [1, 2]);
    ///         there.scatter_to(&[10_usize, 20], 0).unwrap();
    ///     } else {
    ///         let mut mine = [0];
    ///         there.gather_to(&[world.rank()], 0).unwrap();
    ///         there.scatter_from(&mut mine, 0).unwrap();
    ///         assert_eq!(mine, [10 * world.rank()]);
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Length`] when `output` cannot be divided among the other group's ranks; [`Misuse::Disagreement`] when a message has
    /// another length than its part; as [`Communicator::recv`](crate::Communicator::recv).
    pub fn gather_from<T: Datatype>(&self, output: &mut [T], root: usize) -> Result<()> {
        self.local.checked_peer("root", root)?;
        if self.rank() != root {
            return Ok(());
        }
        let each = self.part_of("output", output.len())?;
        let statuses =
            self.inner.scope(|scope| wait_all(self.receive_parts(scope, output, each, GATHER)?))?;
        self.came_whole(&statuses, each * size_of::<T>())
    }

    /// Gives every rank of the other group its part of `message` of rank `root` of this one, in order of ranks; the others call
    /// [`scatter_from`](Intercommunicator::scatter_from) (MPI_Scatter on an intercommunicator). The messages of other ranks of this
    /// group do not count. Cost: a message to each rank of the other group.
    ///
    /// # Errors
    /// [`Misuse::Length`] when `message` cannot be divided among the other group's ranks; as
    /// [`Communicator::send`](crate::Communicator::send).
    #[doc(alias = "MPI_Scatter")]
    pub fn scatter_to<T: Datatype>(&self, message: &[T], root: usize) -> Result<()> {
        self.local.checked_peer("root", root)?;
        if self.rank() != root {
            return Ok(());
        }
        let each = self.part_of("message", message.len())?;
        self.inner.scope(|scope| wait_all(self.send_parts(scope, message, each, SCATTER)?)).map(drop)
    }

    /// The other half of [`scatter_to`](Intercommunicator::scatter_to): `root` is a rank of the other group.
    ///
    /// # Errors
    /// [`Misuse::Disagreement`] when this rank's part has another length than `output`; as
    /// [`Communicator::recv`](crate::Communicator::recv).
    pub fn scatter_from<T: Datatype>(&self, output: &mut [T], root: usize) -> Result<()> {
        let root = self.there("root", root)?;
        let bytes = size_of_val(output);
        let status = self.inner.recv(output, root, SCATTER)?;
        self.came_whole(&[status], bytes)
    }

    /// Everybody gets the inputs of the *other* group, in order of its ranks (MPI_Allgather on an intercommunicator). Ranks of one
    /// group give as many elements as each other; the two groups may differ. Cost: an allgather, one message each way between the
    /// groups, and a broadcast.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let is_first = world.rank() == 0;
    ///     let group = world.split(Some(u32::from(is_first)), 0).unwrap().unwrap();
    ///     let there = group.intercommunicator(0, &world, usize::from(is_first), 0).unwrap();
    ///     let mut theirs = vec![9; there.remote_size()];
    ///     there.allgather(&[world.rank()], &mut theirs).unwrap();
    ///     assert_eq!(theirs, if is_first { vec![1, 2] } else { vec![0] });
    ///     there.alltoall(&vec![world.rank(); theirs.len()], &mut theirs).unwrap();
    ///     assert_eq!(theirs, if is_first { vec![1, 2] } else { vec![0] });
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`gather_from`](Intercommunicator::gather_from) and
    /// [`Communicator::allgather`](crate::Communicator::allgather).
    #[doc(alias = "MPI_Allgather")]
    pub fn allgather<T: Datatype>(&self, input: &[T], output: &mut [T]) -> Result<()> {
        self.part_of("output", output.len())?;
        // Room for everybody's, filled with what is at hand.
        let mut ours = input.repeat(self.size());
        self.local.allgather(input, &mut ours)?;
        if self.rank() == 0 {
            let (leader, bytes) = (self.offset(), size_of_val(output));
            let status = self.inner.sendrecv(&ours, leader, ALLGATHER, output, leader, ALLGATHER)?;
            self.came_whole(&[status], bytes)?;
        }
        self.local.broadcast(output, 0)
    }

    /// Every rank gives each of the other group its part of `input`, and gets one of each in `output`, both in order of the other
    /// group's ranks (MPI_Alltoall on an intercommunicator). Parts may be longer one way than the other. Cost: a message each way
    /// with each rank of the other group.
    ///
    /// # Errors
    /// As [`gather_from`](Intercommunicator::gather_from), for both buffers.
    #[doc(alias = "MPI_Alltoall")]
    pub fn alltoall<T: Datatype>(&self, input: &[T], output: &mut [T]) -> Result<()> {
        let sent = self.part_of("input", input.len())?;
        let received = self.part_of("output", output.len())?;
        let statuses = self.inner.scope(|scope| {
            let receives = self.receive_parts(scope, output, received, ALLTOALL)?;
            wait_all(self.send_parts(scope, input, sent, ALLTOALL)?)?;
            wait_all(receives)
        })?;
        self.came_whole(&statuses, received * size_of::<T>())
    }

    /// Elements of each rank of the other group in a buffer of so many.
    fn part_of(&self, what: &'static str, given: usize) -> Result<usize> {
        let ranks = self.remote_size();
        let (expected, why) = (given.next_multiple_of(ranks), "as many for each rank of the other group");
        match given == expected {
            true => Ok(given / ranks),
            false => Err(Misuse::Length { what, given, expected, why }).refused_by(&self.inner),
        }
    }

    /// Starts to send to each rank of the other group its part.
    fn send_parts<'scope, T: Datatype>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        message: &'scope [T],
        each: usize,
        tag: i32,
    ) -> Result<Vec<Request<'scope>>> {
        let part = |rank: usize| &message[rank * each..(rank + 1) * each];
        (0..self.remote_size()).map(|rank| scope.isend(part(rank), self.offset() + rank, tag)).collect()
    }

    /// Starts to receive from each rank of the other group its part.
    fn receive_parts<'scope, T: Datatype>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        mut output: &'scope mut [T],
        each: usize,
        tag: i32,
    ) -> Result<Vec<Request<'scope>>> {
        let mut receive = |rank: usize| {
            let (part, rest) = mem::take(&mut output).split_at_mut(each);
            output = rest;
            scope.irecv(part, self.offset() + rank, tag)
        };
        (0..self.remote_size()).map(&mut receive).collect()
    }

    /// Whether each message was as long as this rank expects.
    fn came_whole(&self, statuses: &[Status], expected: usize) -> Result<()> {
        let Some(other) = statuses.iter().find(|status| status.bytes != expected) else { return Ok(()) };
        let (source_rank, given) = (other.source - self.offset(), other.bytes as u64);
        Err(Misuse::Disagreement { source_rank, given, expected: expected as u64 }).refused_by(&self.inner)
    }
}
