//! Requests, and waiting for one, any, some or all of them (MPI 5.0 section 3.7). Below: the ways to have one (in a
//! scope, with a buffer that goes along, to be started again and again), and calls that wait at once.

pub(crate) mod blocking;
pub(crate) mod owned;
pub(crate) mod persistent;
pub(crate) mod scope;

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::communicator::Communicator;
use crate::error::Result;
use crate::message::Status;
use crate::request::blocking::{Outlook, Slept, sleep};
use crate::request::scope::{Place, Received, Scope};
use crate::runtime::Operation;

/// A nonblocking operation in flight (MPI_Request). Dropping it does not end the operation: its scope waits for it.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let other = 1 - world.rank();
///     let (mine, mut theirs) = ([world.rank()], [9]);
///     world.scope(|scope| {
///         let send = scope.isend(&mine, other, 0).unwrap();
///         let mut receive = scope.irecv(&mut theirs, other, 0).unwrap();
///         while receive.test().unwrap().is_none() {
///             // Here is time for a little work.
///         }
///         send.wait().unwrap();
///     });
///     assert_eq!(theirs, [other]);
/// });
/// ```
#[doc(alias = "MPI_Request")]
#[derive(Debug)]
#[must_use = "a request that is not waited for loses its outcome"]
pub struct Request<'scope> {
    scope: &'scope dyn Home,
    state: State,
}

#[derive(Debug)]
enum State {
    Pending { operation: Operation, place: Place, received: Received },
    Complete(Result<Status>),
}

/// What a request needs of its scope; hides the scope's second lifetime.
pub(crate) trait Home: std::fmt::Debug {
    /// Makes progress; takes the outcome if it is there.
    fn try_take(&self, operation: Operation, place: Place, received: Received) -> Option<Result<Status>>;
    /// Waits for the outcome.
    fn take(&self, operation: Operation, place: Place, received: Received) -> Result<Status>;
    /// Tries to end the operation early.
    fn cancel(&self, operation: Operation) -> bool;
    /// Sleeps until something may have happened; ends those of `waiting` that would wait for ever.
    fn sleep(&self, waiting: &dyn Waiting);
}

impl Home for Scope<'_, '_> {
    fn try_take(&self, operation: Operation, place: Place, received: Received) -> Option<Result<Status>> {
        let (outcome, settled) = {
            let mut runtime = self.communicator.runtime.enter();
            if !runtime.is_done(operation) {
                runtime.progress();
                if !runtime.is_done(operation) {
                    return None;
                }
            }
            let settled = self.taken(place).settle();
            (runtime.take(operation).expect("a done operation has an outcome"), settled)
        };
        Some(self.outcome(outcome, received, settled))
    }

    fn take(&self, operation: Operation, place: Place, received: Received) -> Result<Status> {
        let aftermath = self.taken(place);
        let outcome = self.communicator.wait_for(operation);
        self.outcome(outcome, received, aftermath.settle())
    }

    fn cancel(&self, operation: Operation) -> bool {
        self.communicator.runtime.enter().cancel(operation)
    }

    fn sleep(&self, waiting: &dyn Waiting) {
        self.communicator.sleep_for(waiting);
    }
}

/// Operations of which one is waited for.
pub(crate) trait Waiting {
    /// Each of them that was not over when it was asked last.
    fn each(&self, f: &mut dyn FnMut(Operation));
}

impl Waiting for &[Request<'_>] {
    fn each(&self, f: &mut dyn FnMut(Operation)) {
        self.iter().filter_map(Request::operation).for_each(f);
    }
}

impl Communicator {
    /// Sleeps until something may have happened; ends those of `waiting` that would wait for ever. Does not sleep if one of them is
    /// over: to ask a later one makes progress, in which an earlier one, asked before, may have ended.
    fn sleep_for(&self, waiting: &dyn Waiting) {
        let mut runtime = self.runtime.enter();
        let group = &self.group;
        if runtime.is_shared() {
            drop(runtime);
            let mut operations = Vec::new();
            waiting.each(&mut |operation| operations.push(operation));
            return self.runtime.wait_until(|runtime, outlook| {
                if outlook == Outlook::AmongTheGone {
                    operations.iter().for_each(|&operation| runtime.forsake(operation, group));
                }
                operations.iter().any(|&operation| runtime.is_done(operation)).then_some(())
            });
        }
        let mut is_over = false;
        waiting.each(&mut |operation| is_over |= runtime.is_done(operation));
        if !is_over && sleep(&mut runtime) == Slept::AmongTheGone {
            waiting.each(&mut |operation| runtime.forsake(operation, group));
        }
    }
}

/// Its outcome, for any executor. A rank makes progress only while somebody calls the library, and no thread of the
/// library's would wake a task: so a poll makes progress, and one that finds nothing complete asks to be polled again at
/// once. Cost: while tasks wait, their executor polls without rest, each poll a look at the network; to wait for one
/// request and nothing else [`Request::wait`] is the better call, because it sleeps.
///
/// ```
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
///
/// /// The smallest executor.
/// fn block_on<F: Future>(task: F) -> F::Output {
///     let mut task = pin!(task);
///     loop {
///         if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
///             return output;
///         }
///     }
/// }
///
/// selvedge::local::run(2, |world| {
///     let other = 1 - world.rank();
///     let (mine, mut theirs) = ([world.rank()], [9]);
///     world.scope(|scope| {
///         let receive = scope.irecv(&mut theirs, other, 0).unwrap();
///         let send = scope.isend(&mine, other, 0).unwrap();
///         block_on(async { send.await.and(receive.await) }).unwrap();
///     });
///     assert_eq!(theirs, [other]);
/// });
/// ```
impl Future for Request<'_> {
    type Output = Result<Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Status>> {
        match self.test() {
            Ok(None) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(Some(status)) => Poll::Ready(Ok(status)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<'scope> Request<'scope> {
    pub(crate) fn complete(scope: &'scope Scope<'scope, '_>, outcome: Result<Status>) -> Request<'scope> {
        Request { scope, state: State::Complete(outcome) }
    }

    pub(crate) fn pending(
        scope: &'scope Scope<'scope, '_>,
        operation: Operation,
        place: Place,
        received: Received,
    ) -> Request<'scope> {
        Request { scope, state: State::Pending { operation, place, received } }
    }

    /// Waits until the operation is complete (MPI_Wait).
    #[doc(alias = "MPI_Wait")]
    pub fn wait(self) -> Result<Status> {
        match self.state {
            State::Complete(outcome) => outcome,
            State::Pending { operation, place, received } => self.scope.take(operation, place, received),
        }
    }

    /// Whether the operation is complete, with its status if so (MPI_Test). Makes progress. May be asked again after
    /// that; the answer stays the same.
    #[doc(alias = "MPI_Test")]
    pub fn test(&mut self) -> Result<Option<Status>> {
        if let State::Pending { operation, place, received } = self.state {
            match self.scope.try_take(operation, place, received) {
                None => return Ok(None),
                Some(outcome) => self.state = State::Complete(outcome),
            }
        }
        match &self.state {
            State::Complete(outcome) => outcome.clone().map(Some),
            State::Pending { .. } => Ok(None),
        }
    }

    /// Tries to end the operation before it is matched (MPI_Cancel) and waits for its end. `true` when it was
    /// cancelled, `false` when it had been matched and went through. Collectives cannot be cancelled.
    ///
    /// # Errors
    /// What the operation ended with, if that is anything but having been cancelled.
    #[doc(alias = "MPI_Cancel")]
    pub fn cancel(self) -> Result<bool> {
        if let State::Pending { operation, .. } = self.state {
            self.scope.cancel(operation);
        }
        match self.wait() {
            Err(crate::Error::Cancelled) => Ok(true),
            Err(other) => Err(other),
            Ok(_) => Ok(false),
        }
    }

    /// The operation, and where the scope has it, of one that was not over at once.
    pub(crate) fn round(&self) -> Option<(Operation, Place)> {
        if let State::Pending { operation, place, .. } = self.state { Some((operation, place)) } else { None }
    }

    fn operation(&self) -> Option<Operation> {
        if let State::Pending { operation, .. } = self.state { Some(operation) } else { None }
    }

    fn is_complete(&mut self) -> bool {
        if let State::Pending { operation, place, received } = self.state
            && let Some(outcome) = self.scope.try_take(operation, place, received)
        {
            self.state = State::Complete(outcome);
        }
        matches!(self.state, State::Complete(_))
    }
}

/// Waits for all requests and returns their statuses in the same order (MPI_Waitall).
///
/// # Errors
/// The first error in that order. All requests are complete also then.
#[doc(alias = "MPI_Waitall")]
pub fn wait_all<'scope>(requests: impl IntoIterator<Item = Request<'scope>>) -> Result<Vec<Status>> {
    let outcomes: Vec<_> = requests.into_iter().map(Request::wait).collect();
    outcomes.into_iter().collect()
}

/// Waits until one request is complete, removes it and returns the index it had, with its status (MPI_Waitany). `None`
/// when there are no requests. The last request takes the place of the removed one. A buffer that shall be used anew while others are
/// still on their way is one that goes along: [`OwnedRequest::wait_any`](crate::OwnedRequest::wait_any).
#[doc(alias = "MPI_Waitany")]
pub fn wait_any(requests: &mut Vec<Request<'_>>) -> Result<Option<(usize, Status)>> {
    loop {
        if requests.is_empty() {
            return Ok(None);
        }
        if let Some(found) = test_any(requests)? {
            return Ok(Some(found));
        }
        requests[0].scope.sleep(&requests.as_slice());
    }
}

/// Waits until at least one request is complete, removes all complete ones and returns the indices they had, with
/// their statuses (MPI_Waitsome). The others keep their order.
///
/// ```
/// selvedge::local::run(3, |world| {
///     if world.rank() > 0 {
///         return world.send(&[world.rank()], 0, 0).unwrap();
///     }
///     let mut all = [[0_usize]; 2];
///     world.scope(|scope| {
///         let receives = all.iter_mut().zip(1..).map(|(one, rank)| scope.irecv(one, rank, 0));
///         let mut open = receives.collect::<selvedge::Result<Vec<_>>>().unwrap();
///         while !open.is_empty() {
///             for (_, status) in selvedge::wait_some(&mut open).unwrap() {
///                 assert!(status.source > 0); // one of those that are here
///             }
///         }
///     });
///     assert_eq!(all, [[1], [2]]);
/// });
/// ```
#[doc(alias = "MPI_Waitsome")]
pub fn wait_some(requests: &mut Vec<Request<'_>>) -> Result<Vec<(usize, Status)>> {
    loop {
        let found = test_some(requests)?;
        if !found.is_empty() || requests.is_empty() {
            return Ok(found);
        }
        requests[0].scope.sleep(&requests.as_slice());
    }
}

/// As [`wait_any`], but does not wait: `None` when nothing is complete (MPI_Testany).
///
/// ```
/// selvedge::local::run(2, |world| {
///     let (mine, mut theirs) = ([world.rank()], [9]);
///     world.scope(|scope| {
///         let other = 1 - world.rank();
///         let mut open = vec![scope.irecv(&mut theirs, other, 0).unwrap(), scope.isend(&mine, other, 0).unwrap()];
///         while !open.is_empty() {
///             // Here is time for a little work.
///             selvedge::test_any(&mut open).unwrap();
///         }
///     });
///     assert_eq!(theirs, [1 - world.rank()]);
/// });
/// ```
#[doc(alias = "MPI_Testany")]
pub fn test_any(requests: &mut Vec<Request<'_>>) -> Result<Option<(usize, Status)>> {
    for index in 0..requests.len() {
        if requests[index].is_complete() {
            return Ok(Some((index, requests.swap_remove(index).wait()?)));
        }
    }
    Ok(None)
}

/// As [`wait_some`], but does not wait: empty when nothing is complete (MPI_Testsome).
///
/// ```
/// selvedge::local::run(1, |world| {
///     let mut never = [0];
///     world.scope(|scope| {
///         let mut open = vec![scope.irecv(&mut never, 0, 1).unwrap(), scope.ibarrier().unwrap()];
///         while selvedge::test_some(&mut open).unwrap().is_empty() {}
///         assert!(open.pop().unwrap().cancel().unwrap(), "the receive is left");
///     });
/// });
/// ```
#[doc(alias = "MPI_Testsome")]
pub fn test_some(requests: &mut Vec<Request<'_>>) -> Result<Vec<(usize, Status)>> {
    let mut found = Vec::new();
    let mut trouble = None;
    let mut index = 0;
    requests.retain_mut(|request| {
        let complete = request.is_complete();
        if complete {
            match request.test() {
                Ok(status) => found.extend(status.map(|status| (index, status))),
                Err(error) => trouble = trouble.take().or(Some(error)),
            }
        }
        index += 1;
        !complete
    });
    trouble.map_or(Ok(found), Err)
}

/// The statuses of all requests if all are complete, and then removes them; else `None` and leaves them (MPI_Testall).
///
/// ```
/// selvedge::local::run(2, |world| {
///     let (mine, mut theirs) = ([world.rank()], [9]);
///     world.scope(|scope| {
///         let other = 1 - world.rank();
///         let mut open = vec![scope.irecv(&mut theirs, other, 0).unwrap(), scope.isend(&mine, other, 0).unwrap()];
///         let statuses = loop {
///             if let Some(statuses) = selvedge::test_all(&mut open).unwrap() {
///                 break statuses;
///             }
///         };
///         assert_eq!(statuses[0].source, other);
///     });
///     assert_eq!(theirs, [1 - world.rank()]);
/// });
/// ```
#[doc(alias = "MPI_Testall")]
pub fn test_all(requests: &mut Vec<Request<'_>>) -> Result<Option<Vec<Status>>> {
    let mut complete = true;
    for request in requests.iter_mut() {
        complete &= request.is_complete();
    }
    if !complete {
        return Ok(None);
    }
    wait_all(requests.drain(..)).map(Some)
}
