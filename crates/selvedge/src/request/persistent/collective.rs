//! Collectives that are called many times with the same arguments.

use std::fmt;
use std::sync::Arc;

use crate::collective::op::Reducer;
use crate::datatype::Datatype;
use crate::datatype::memory::{claim, claim_mut};
use crate::request::Request;
use crate::request::persistent::{Round, Shared};
use crate::request::scope::{Received, Scope};
use crate::runtime::{Call, Plan};

/// A collective that is called many times with the same arguments (MPI_Allreduce_init and its kin). The algorithm is chosen
/// and its schedule made when it is made; a round allocates nothing. [`Scope::allreduce_init`] and its kin make it.
///
/// All ranks make the persistent collectives of a communicator in the same order. Rounds of different ones may be started in
/// any order.
///
/// ```
/// selvedge::local::run(4, |world| {
///     let (mut mine, mut sum) = ([world.rank() as u64], [0]);
///     world.scope(|scope| -> selvedge::Result<()> {
///         let mut total = scope.allreduce_init(&mut mine, &mut sum, &selvedge::Op::sum())?;
///         for round in 0..10 {
///             total.start().wait()?;
///             assert_eq!(total.output(), [6 + 4 * round]);
///             total.input_mut()[0] += 1;
///         }
///         Ok(())
///     }).unwrap();
/// });
/// ```
///
/// Neither buffer can be touched during a round:
///
/// ```compile_fail,E0502
/// # selvedge::local::run(1, |world| {
/// # let (mut mine, mut sum) = ([1u64], [0]);
/// # world.scope(|scope| {
/// let mut total = scope.allreduce_init(&mut mine, &mut sum, &selvedge::Op::sum()).unwrap();
/// let round = total.start();
/// total.input_mut()[0] = 2;
/// round.wait().unwrap();
/// # });
/// # });
/// ```
#[doc(alias = "MPI_Allreduce_init")]
pub struct PersistentCollective<'scope, 'env, T> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    pub(super) input: Shared<'scope, T>,
    pub(super) output: Shared<'scope, T>,
    /// Nothing where there is nothing to do anywhere.
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) reducer: Option<Reducer>,
    /// Which persistent collective of its communicator it is: the upper half of what its rounds are called. The lower half
    /// is the number of the round; both go round after 2^16, which is more than credit lets any rank be ahead.
    pub(super) number: u16,
    pub(super) rounds: u16,
    pub(super) round: Round,
}

impl<T> fmt::Debug for PersistentCollective<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collective = self.plan.as_ref().map(|plan| plan.shape().collective);
        write!(f, "PersistentCollective({collective:?}, round {})", self.rounds)
    }
}

impl<T: Datatype> PersistentCollective<'_, '_, T> {
    /// Begins a round (MPI_Start). If the request of the last one was dropped, waits for it first.
    #[doc(alias = "MPI_Start")]
    pub fn start(&mut self) -> Request<'_> {
        self.settle();
        let (scope, communicator) = (self.scope, self.scope.communicator);
        let Some(plan) = &self.plan else { return Request::complete(scope, Ok(communicator.own_status())) };
        let sequence = u32::from(self.number) << 16 | u32::from(self.rounds);
        self.rounds = self.rounds.wrapping_add(1);
        // SAFETY: no round is under way, and the one that begins does not write to its input.
        let input = unsafe { self.input.get() };
        // SAFETY: the slice is lent for 'scope, and the scope does not end before the operation is complete; until then the
        // elements are shown to nobody.
        let input = unsafe { claim(input) };
        // SAFETY: no round is under way but the one that begins, which the claim is for.
        let output = unsafe { self.output.get_mut() };
        // SAFETY: as for the input; the scope keeps the aftermath.
        let (output, aftermath) = unsafe { claim_mut(output) };
        let (group, context) = (&communicator.group, communicator.persistent_context());
        let call = Call { plan, group, context, sequence, input, output, reducer: self.reducer.as_ref() };
        let started = communicator.runtime.enter().collective(call);
        let request = scope.request(started, Received::No, aftermath);
        self.round = request.round();
        request
    }

    /// What goes in. Waits for a round whose request was dropped, as all of these do.
    pub fn input(&self) -> &[T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.input.get() }
    }

    /// What goes in, to be changed.
    pub fn input_mut(&mut self) -> &mut [T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.input.get_mut() }
    }

    /// What came out; of a broadcast, the message.
    pub fn output(&self) -> &[T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.output.get() }
    }

    /// What came out, to be changed; of a broadcast, the message.
    pub fn output_mut(&mut self) -> &mut [T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.output.get_mut() }
    }

    #[inline]
    fn settle(&self) {
        if let Some((operation, place)) = self.round {
            self.scope.settle(operation, place);
        }
    }
}
