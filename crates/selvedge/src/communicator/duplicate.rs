//! Duplicates of communicators, waited for or not (MPI 5.0 section 7.4.2).

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use selvedge_coll::Rank;

use crate::communicator::contexts::Company;
use crate::communicator::extensions::Extensions;
use crate::communicator::{Communicator, Core};
use crate::error::{ErrorHandler, Result};
use crate::request::owned::Abandoned;
use crate::runtime::{Operation, Outcome, Started};

/// A communicator in the making, which nobody has before it is made. [`Communicator::idup`] begins it; waiting for it, or awaiting
/// it, gives the communicator.
///
/// It goes on whatever its rank waits for meanwhile. Dropped, it goes on as well, because the other ranks count on this one; the
/// communicator that it is made from waits for that when it is dropped in turn, and of the new one this rank has none.
///
/// ```
/// selvedge::local::run(3, |world| {
///     let mut first = world.idup().unwrap();
///     let second = world.idup().unwrap();
///     while !first.test() {
///         // Here is time for a little work.
///     }
///     let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
///     first.barrier().unwrap();
///     second.barrier().unwrap();
/// });
/// ```
#[must_use = "a request that is dropped makes no communicator"]
pub struct CommunicatorRequest<'c> {
    parent: &'c Communicator,
    /// The parent's when it was begun.
    handler: ErrorHandler,
    extensions: Extensions,
    state: State,
}

#[derive(Debug)]
enum State {
    Pending(Operation),
    /// With the first of its contexts.
    Complete(Result<u32>),
    /// The outcome is with the caller.
    Spent,
}

impl fmt::Debug for CommunicatorRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommunicatorRequest(of {:?}, {:?})", self.parent, self.state)
    }
}

impl Communicator {
    /// A communicator of the same ranks whose messages meet none of this one's (MPI_Comm_dup), with those of its
    /// [`extensions`](Communicator::extensions) that are passed on, and without a name. Collective; costs one allreduce of
    /// 16 bytes, and one more while this rank, or any other, makes other communicators or has a [`Team`](crate::Team).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let quiet = world.dup().unwrap();
    ///     world.send(&[1], world.rank(), 0).unwrap();
    ///     assert!(quiet.iprobe(selvedge::ANY_SOURCE, 0).unwrap().is_none());
    ///     world.recv(&mut [0], world.rank(), 0).unwrap();
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_dup")]
    pub fn dup(&self) -> Result<Communicator> {
        let _collecting = self.before_agreement()?;
        self.begin_duplicate(Company::None).wait()
    }

    /// Begins to make a [`dup`](Communicator::dup), with the extensions and the error handler of now (MPI_Comm_idup). Several may be
    /// under way, of this communicator and of others; those of one communicator, and its other collectives, are begun in the same
    /// order by all ranks (MPI 5.0 section 6.12). Costs two allreduces of 16 bytes, and now and then more, when two that are made at
    /// the same time would have got the same number.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let quiet = world.idup().unwrap();
    ///     world.barrier().unwrap(); // or anything else
    ///     assert_eq!(quiet.wait().unwrap().size(), 2);
    /// });
    /// ```
    ///
    /// The communicator that it is made from stays meanwhile:
    ///
    /// ```compile_fail,E0505
    /// # selvedge::local::run(1, |world| {
    /// let first = world.dup().unwrap();
    /// let second = first.idup().unwrap();
    /// drop(first);
    /// second.wait().unwrap();
    /// # });
    /// ```
    ///
    /// There is nothing to use before it is made, and it is made once:
    ///
    /// ```compile_fail,E0382
    /// # selvedge::local::run(1, |world| {
    /// let request = world.idup().unwrap();
    /// let (one, other) = (request.wait(), request.wait());
    /// # });
    /// ```
    ///
    /// And it is waited for by the thread that began it:
    ///
    /// ```compile_fail,E0277
    /// # selvedge::local::run(1, |world| {
    /// let request = world.idup().unwrap();
    /// std::thread::scope(|threads| {
    ///     threads.spawn(move || request.wait());
    /// });
    /// # });
    /// ```
    #[doc(alias = "MPI_Comm_idup")]
    pub fn idup(&self) -> Result<CommunicatorRequest<'_>> {
        Ok(self.begin_duplicate(Company::Possible))
    }

    fn begin_duplicate(&self, company: Company) -> CommunicatorRequest<'_> {
        self.forget_abandoned();
        let extensions = Extensions::default();
        extensions.pass_on(&self.core.extensions);
        let (parent, handler) = (self, self.core.handler());
        let mut request = CommunicatorRequest { parent, handler, extensions, state: State::Spent };
        request.state = match self.begin_agreement(self.offer(company), None) {
            Started::Pending(operation) => State::Pending(operation),
            Started::Done(outcome) => State::Complete(request.agreed(outcome)),
        };
        request
    }
}

impl CommunicatorRequest<'_> {
    /// Waits until the communicator is made (MPI_Wait).
    ///
    /// # Errors
    /// [`Error::Fault`](crate::Error::Fault) when a rank is gone that it takes; other ranks may then have theirs.
    pub fn wait(mut self) -> Result<Communicator> {
        let context = match mem::replace(&mut self.state, State::Spent) {
            State::Complete(outcome) => outcome,
            State::Pending(operation) => {
                let outcome = self.parent.wait_for(operation);
                self.agreed(outcome)
            }
            State::Spent => unreachable!("waiting takes the request"),
        };
        context.map(|context| self.made(context))
    }

    /// Whether it is made, or cannot be, so that waiting would not wait (MPI_Test). Makes progress.
    pub fn test(&mut self) -> bool {
        if let State::Pending(operation) = self.state {
            let mut runtime = self.parent.runtime.enter();
            if !runtime.is_done(operation) {
                runtime.progress();
            }
            let Some(outcome) = runtime.take(operation) else { return false };
            drop(runtime);
            self.state = State::Complete(self.agreed(outcome));
        }
        true
    }

    fn agreed(&self, outcome: Outcome) -> Result<u32> {
        outcome.map(|envelope| envelope.context.0).map_err(|trouble| self.parent.explain(trouble))
    }

    fn made(&self, context: u32) -> Communicator {
        let Communicator { core, group, .. } = self.parent;
        let (job, me) = (Arc::clone(&core.job), Rank(self.parent.rank() as u32));
        let core = Core::with(job, Arc::clone(group), me, context, self.handler.clone(), true);
        core.extensions.pass_on(&self.extensions);
        self.parent.of_this_mind(core)
    }
}

impl Drop for CommunicatorRequest<'_> {
    fn drop(&mut self) {
        match self.state {
            State::Pending(operation) => {
                let parent = self.parent;
                let (Some(mut runtime), Ok(mut abandoned)) =
                    (parent.runtime.try_enter(), parent.abandoned.try_borrow_mut())
                else {
                    // Inside of a reduction of the user's: nobody can wait now.
                    return;
                };
                match runtime.take(operation) {
                    Some(Ok(envelope)) => parent.core.job.contexts.release(envelope.context.0),
                    Some(Err(_)) => {}
                    None => {
                        runtime.disown(operation);
                        abandoned.push(Abandoned::without_memory(operation));
                    }
                }
            }
            State::Complete(Ok(context)) => self.parent.core.job.contexts.release(context),
            State::Complete(Err(_)) | State::Spent => {}
        }
    }
}

/// The communicator, for any executor; see [`Request`](crate::Request) for what it costs. Not to be polled again after that.
impl Future for CommunicatorRequest<'_> {
    type Output = Result<Communicator>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Communicator>> {
        if !self.test() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match mem::replace(&mut self.state, State::Spent) {
            State::Complete(context) => Poll::Ready(context.map(|context| self.made(context))),
            State::Pending(_) | State::Spent => {
                panic!("a request was polled after it had given its communicator")
            }
        }
    }
}
