//! Starting collectives in a scope.

use selvedge_coll::{Collective, Shape};
use selvedge_transport::Buf;

use crate::collective::Prepared;
use crate::collective::op::{Op, Reducer};
use crate::datatype::Datatype;
use crate::datatype::memory::{Aftermath, claim, claim_mut};
use crate::datatype::view::BufferMut;
use crate::error::{Refused, Result};
use crate::message::staged::scattered_room;
use crate::request::Request;
use crate::request::scope::{Received, Scope};
use crate::runtime::Call;

/// Starting collectives. Arguments, errors and meaning are those of the blocking calls of the same name without `i`.
impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a barrier (MPI_Ibarrier): complete when every rank has started it.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     world.scope(|scope| {
    ///         let barrier = scope.ibarrier()?;
    ///         // Others need not wait for what is done here.
    ///         barrier.wait()
    ///     })
    ///     .unwrap();
    /// });
    /// ```
    #[doc(alias = "MPI_Ibarrier")]
    pub fn ibarrier(&'scope self) -> Result<Request<'scope>> {
        Ok(self.start(self.communicator.prepare_barrier()))
    }

    /// Starts a broadcast (MPI_Ibcast).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let mut message = [world.rank()];
    ///     world.scope(|scope| scope.ibroadcast(&mut message, 1)?.wait()).unwrap();
    ///     assert_eq!(message, [1]);
    /// });
    /// ```
    #[doc(alias = "MPI_Ibcast")]
    pub fn ibroadcast<B: BufferMut + ?Sized>(
        &'scope self,
        message: &'scope mut B,
        root: usize,
    ) -> Result<Request<'scope>> {
        let communicator = self.communicator;
        let message = match message.as_view_mut().into_slice() {
            Ok(message) => return Ok(self.start(communicator.prepare_broadcast(message, root)?)),
            Err(message) => message,
        };
        let shape = communicator.broadcast_shape::<B::Element>(message.len(), root)?;
        // SAFETY: the borrow lasts for 'scope, and `Leave` keeps the scope from ending before the operation is complete.
        let claimed = unsafe { scattered_room(message) };
        Ok(self.start_claimed(shape, Buf::EMPTY, claimed, None))
    }

    /// Starts a reduction (MPI_Ireduce).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let (mine, mut sum) = ([world.rank() + 1], [0]);
    ///     let output = (world.rank() == 0).then_some(&mut sum[..]);
    ///     world.scope(|scope| scope.ireduce(&mine, output, &selvedge::Op::sum(), 0)?.wait()).unwrap();
    ///     assert_eq!(sum[0], if world.rank() == 0 { 3 } else { 0 });
    /// });
    /// ```
    #[doc(alias = "MPI_Ireduce")]
    pub fn ireduce<T: Datatype>(
        &'scope self,
        input: &'scope [T],
        output: Option<&'scope mut [T]>,
        op: &Op<T>,
        root: usize,
    ) -> Result<Request<'scope>> {
        Ok(self.start(self.communicator.prepare_reduce(input, output, op, root)?))
    }

    /// Starts a reduction to all (MPI_Iallreduce).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let (mine, mut sum) = ([world.rank() + 1], [0]);
    ///     world.scope(|scope| scope.iallreduce(&mine, &mut sum, &selvedge::Op::sum())?.wait()).unwrap();
    ///     assert_eq!(sum, [3]);
    /// });
    /// ```
    #[doc(alias = "MPI_Iallreduce")]
    pub fn iallreduce<T: Datatype>(
        &'scope self,
        input: &'scope [T],
        output: &'scope mut [T],
        op: &Op<T>,
    ) -> Result<Request<'scope>> {
        Ok(self.start(self.communicator.prepare_allreduce(input, output, op)?))
    }

    /// Starts an allgather (MPI_Iallgather).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let (mine, mut all) = ([world.rank()], [9; 2]);
    ///     world.scope(|scope| scope.iallgather(&mine, &mut all)?.wait()).unwrap();
    ///     assert_eq!(all, [0, 1]);
    /// });
    /// ```
    #[doc(alias = "MPI_Iallgather")]
    pub fn iallgather<T: Datatype>(
        &'scope self,
        input: &'scope [T],
        output: &'scope mut [T],
    ) -> Result<Request<'scope>> {
        Ok(self.start(self.communicator.prepare_allgather(input, output)?))
    }

    /// Starts an all-to-all exchange (MPI_Ialltoall).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let (out, mut inn) = ([10 * world.rank(), 10 * world.rank() + 1], [0; 2]);
    ///     world.scope(|scope| scope.ialltoall(&out, &mut inn)?.wait()).unwrap();
    ///     assert_eq!(inn, [world.rank(), 10 + world.rank()]);
    /// });
    /// ```
    #[doc(alias = "MPI_Ialltoall")]
    pub fn ialltoall<T: Datatype>(
        &'scope self,
        input: &'scope [T],
        output: &'scope mut [T],
    ) -> Result<Request<'scope>> {
        Ok(self.start(self.communicator.prepare_alltoall(input, output)?))
    }

    fn start<T: Datatype>(&'scope self, prepared: Prepared<'scope, T>) -> Request<'scope> {
        let Prepared { shape, input, output, reducer } = prepared;
        // SAFETY: the borrow lasts for 'scope, `Leave` keeps the scope from ending before the operation is complete, and a
        // verified schedule does not write its input.
        let input = unsafe { claim(input) };
        // SAFETY: as above; the output may be written.
        let claimed = unsafe { claim_mut(output) };
        self.start_claimed(shape, input, claimed, reducer)
    }

    fn start_claimed(
        &'scope self,
        shape: Shape,
        input: Buf,
        (output, aftermath): (Buf, Aftermath),
        reducer: Option<Reducer>,
    ) -> Request<'scope> {
        let communicator = self.communicator;
        if shape.count == 0 && shape.collective != Collective::Barrier {
            return Request::complete(self, Ok(self.own_status()));
        }
        let (group, context) = (&communicator.group, communicator.collective_context());
        let find = || communicator.plans.find(&shape).refused_by(communicator);
        let started = communicator.plans.with(&shape, find, |plan| {
            let mut runtime = communicator.runtime.enter();
            let (sequence, reducer) = (communicator.next_sequence(&runtime), reducer.as_ref());
            Ok(runtime.collective(Call { plan, group, context, sequence, input, output, reducer }))
        });
        match started {
            Ok(started) => self.request(started, Received::No, aftermath),
            Err(error) => Request::complete(self, Err(error)),
        }
    }
}
