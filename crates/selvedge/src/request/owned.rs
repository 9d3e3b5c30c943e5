//! Nonblocking messages that own their buffers: no scope, and the buffer comes back with the outcome.
//!
//! Why safe code cannot misuse it: the buffer is inside the request until the operation is complete. A request that is
//! dropped leaves its buffer with the communicator; one that is leaked leaks the buffer too, and memory that is never
//! freed may be written to.

use std::any::Any;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::communicator::{Communicator, Road};
use crate::datatype::Datatype;
use crate::datatype::memory::{Aftermath, claim};
use crate::datatype::view::{Buffer, BufferMut};
use crate::error::Result;
use crate::message::staged::Body;
use crate::message::{Address, Source, Status, Tag};
use crate::request::Waiting;
use crate::runtime::{Operation, Outcome, Runtime, Started};

/// What can be given away for the time of an operation: a vector, or a boxed slice.
///
/// ```
/// selvedge::local::run(1, |world| {
///     let send = world.isend_owned(vec![1, 2].into_boxed_slice(), 0, 0);
///     let (status, buffer) = world.irecv_owned(vec![0; 2], 0, 0).wait();
///     assert_eq!((status.unwrap().count::<i32>(), buffer), (2, vec![1, 2]));
///     send.wait().0.unwrap();
/// });
/// ```
pub trait OwnedBuffer: Sized {
    /// What it is made of.
    type Element: Datatype;

    /// Its elements, which stay where they are.
    fn into_elements(self) -> Vec<Self::Element>;

    /// Itself again.
    fn from_elements(elements: Vec<Self::Element>) -> Self;
}

impl<T: Datatype> OwnedBuffer for Vec<T> {
    type Element = T;

    fn into_elements(self) -> Vec<T> {
        self
    }

    fn from_elements(elements: Vec<T>) -> Vec<T> {
        elements
    }
}

impl<T: Datatype> OwnedBuffer for Box<[T]> {
    type Element = T;

    fn into_elements(self) -> Vec<T> {
        self.into_vec()
    }

    fn from_elements(elements: Vec<T>) -> Box<[T]> {
        elements.into_boxed_slice()
    }
}

/// A nonblocking operation in flight, and its buffer. [`Communicator::isend_owned`] and its kin make it; waiting for it, or
/// awaiting it, gives the buffer back beside the outcome, also when the outcome is an error.
///
/// Dropping it takes back a receive that nothing has matched. Whatever has begun goes on, while calls of the library run, and
/// its buffer is freed behind it; at the latest when the communicator is dropped, which waits for it.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let other = 1 - world.rank();
///     let mut receive = world.irecv_owned(vec![0; 3], other, 0);
///     world.send(&[world.rank(); 3], other, 0).unwrap();
///     while !receive.test() {
///         // Here is time for a little work.
///     }
///     assert_eq!(receive.wait().1, [other; 3]);
/// });
/// ```
#[must_use = "a request that is dropped loses its outcome and its buffer"]
pub struct OwnedRequest<'c, B: OwnedBuffer> {
    communicator: &'c Communicator,
    elements: Vec<B::Element>,
    aftermath: Aftermath,
    is_receive: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Pending(Operation),
    Complete(Result<Status>),
    /// The outcome and the buffer are with the caller.
    Spent,
}

impl<B: OwnedBuffer> fmt::Debug for OwnedRequest<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedRequest({} elements, {:?})", self.elements.len(), self.state)
    }
}

impl<B: OwnedBuffer> Waiting for &[OwnedRequest<'_, B>] {
    fn each(&self, f: &mut dyn FnMut(Operation)) {
        self.iter().filter_map(OwnedRequest::operation).for_each(f);
    }
}

/// An operation that nobody waits for, with what it works on.
pub(crate) struct Abandoned {
    operation: Operation,
    aftermath: Aftermath,
    memory: Box<dyn Any>,
}

impl Abandoned {
    /// One that works on nothing of the caller's.
    pub(crate) fn without_memory(operation: Operation) -> Abandoned {
        Abandoned { operation, aftermath: Aftermath::NOTHING, memory: Box::new(()) }
    }
}

impl Communicator {
    /// Starts a send of a buffer that comes back when it is complete (MPI_Isend).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let other = 1 - world.rank();
    ///     let receive = world.irecv_owned(vec![0u64; 3], other, 0);
    ///     let send = world.isend_owned(vec![world.rank() as u64; 3], other, 0);
    ///     let (sent, mine) = send.wait();
    ///     let (received, theirs) = receive.wait();
    ///     assert_eq!((sent.is_ok(), received.unwrap().source), (true, other));
    ///     assert_eq!((mine[0] as usize, theirs[0] as usize), (world.rank(), other));
    /// });
    /// ```
    ///
    /// While it is under way nobody has the buffer:
    ///
    /// ```compile_fail,E0382
    /// # selvedge::local::run(1, |world| {
    /// let mut buffer = vec![1u8; 4];
    /// let send = world.isend_owned(buffer, 0, 0);
    /// buffer[0] = 2;
    /// # });
    /// ```
    ///
    /// And it is waited for once:
    ///
    /// ```compile_fail,E0382
    /// # selvedge::local::run(1, |world| {
    /// let send = world.isend_owned(vec![1u8; 4], 0, 0);
    /// let first = send.wait();
    /// let second = send.wait();
    /// # });
    /// ```
    ///
    /// Errors of the arguments are the request's outcome, so that the buffer comes back in any case.
    #[doc(alias = "MPI_Isend")]
    pub fn isend_owned<B: OwnedBuffer>(
        &self,
        buffer: B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> OwnedRequest<'_, B> {
        let to = self.destination(dest.into(), tag);
        OwnedRequest::send(self, buffer, to, |runtime, (peer, tag), buf| {
            runtime.send_body(peer, self.message_context(), tag, buf)
        })
    }

    /// As [`Communicator::isend_owned`], complete when a receive has met the message (MPI_Issend).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         let (outcome, buffer) = world.issend_owned(vec![1.5; 4], 1, 0).wait();
    ///         assert_eq!((outcome.is_ok(), buffer.len()), (true, 4)); // and rank 1 has begun to receive
    ///     } else {
    ///         world.recv(&mut [0.0; 4], 0, 0).unwrap();
    ///     }
    /// });
    /// ```
    #[doc(alias = "MPI_Issend")]
    pub fn issend_owned<B: OwnedBuffer>(
        &self,
        buffer: B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> OwnedRequest<'_, B> {
        let to = self.destination(dest.into(), tag);
        OwnedRequest::send(self, buffer, to, |runtime, (peer, tag), buf| {
            runtime.send_body_sync(peer, self.message_context(), tag, buf)
        })
    }

    /// Starts a receive into a buffer that comes back when it is complete (MPI_Irecv). It comes back as long as it was:
    /// [`Status::count`] says how much of it is new.
    #[doc(alias = "MPI_Irecv")]
    pub fn irecv_owned<B: OwnedBuffer>(
        &self,
        buffer: B,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> OwnedRequest<'_, B> {
        let mut elements = buffer.into_elements();
        self.forget_abandoned();
        let (source, tag) = match self.pattern(source.into(), tag.into()) {
            Ok(Some(pattern)) => pattern,
            Ok(None) => return OwnedRequest::complete(self, elements, Ok(self.null_status())),
            Err(error) => return OwnedRequest::complete(self, elements, Err(error)),
        };
        // SAFETY: the elements stay where they are and nobody has them until the operation is complete: `Drop` gives them
        // to the communicator.
        let (buf, aftermath) = unsafe { self.incoming(elements.as_view_mut()) };
        let started = self.runtime.enter().recv_body(source, self.message_context(), tag, buf);
        OwnedRequest { communicator: self, elements, aftermath, is_receive: true, state: State::Spent }
            .started(started)
    }

    /// Frees what abandoned operations worked on that are complete.
    pub(crate) fn forget_abandoned(&self) {
        let mut abandoned = self.abandoned.borrow_mut();
        if !abandoned.is_empty() {
            let mut runtime = self.runtime.enter();
            abandoned.retain(|left| runtime.take(left.operation).is_none());
        }
    }

    /// Waits for abandoned operations. In a panic their memory is left to them instead.
    pub(crate) fn wait_for_abandoned(&mut self) {
        for left in mem::take(self.abandoned.get_mut()) {
            if std::thread::panicking() {
                mem::forget(left);
                continue;
            }
            // Whoever wanted to know has not waited.
            let _ = self.wait_for(left.operation);
            drop((left.aftermath, left.memory));
        }
    }
}

impl<'c, B: OwnedBuffer> OwnedRequest<'c, B> {
    fn send(
        communicator: &'c Communicator,
        buffer: B,
        to: Result<Option<Address>>,
        send: impl FnOnce(&mut Runtime<Road>, Address, Body) -> Started,
    ) -> OwnedRequest<'c, B> {
        OwnedRequest::begin(communicator, buffer, to, true, send)
    }

    /// Of a message that the library itself receives: it has no stamp.
    pub(crate) fn send_plain(
        communicator: &'c Communicator,
        buffer: B,
        to: Result<Option<Address>>,
        send: impl FnOnce(&mut Runtime<Road>, Address, Body) -> Started,
    ) -> OwnedRequest<'c, B> {
        OwnedRequest::begin(communicator, buffer, to, false, send)
    }

    fn begin(
        communicator: &'c Communicator,
        buffer: B,
        to: Result<Option<Address>>,
        is_stamped: bool,
        send: impl FnOnce(&mut Runtime<Road>, Address, Body) -> Started,
    ) -> OwnedRequest<'c, B> {
        let elements = buffer.into_elements();
        communicator.forget_abandoned();
        let to = match to {
            Ok(Some(to)) => to,
            Ok(None) => return OwnedRequest::complete(communicator, elements, Ok(communicator.own_status())),
            Err(error) => return OwnedRequest::complete(communicator, elements, Err(error)),
        };
        let (buf, aftermath) = match is_stamped {
            // SAFETY: the elements stay where they are and nobody has them until the operation is complete: `Drop` gives them
            // to the communicator.
            true => unsafe { communicator.outgoing(&elements.as_view()) },
            // SAFETY: as above.
            false => (Body::One(unsafe { claim(&elements) }), Aftermath::NOTHING),
        };
        let started = send(&mut communicator.runtime.enter(), to, buf);
        OwnedRequest { communicator, elements, aftermath, is_receive: false, state: State::Spent }
            .started(started)
    }

    fn complete(
        communicator: &'c Communicator,
        elements: Vec<B::Element>,
        outcome: Result<Status>,
    ) -> OwnedRequest<'c, B> {
        let aftermath = Aftermath::NOTHING;
        OwnedRequest { communicator, elements, aftermath, is_receive: false, state: State::Complete(outcome) }
    }

    fn started(mut self, started: Started) -> OwnedRequest<'c, B> {
        self.state = match started {
            Started::Pending(operation) => State::Pending(operation),
            Started::Done(outcome) => State::Complete(self.ended(outcome)),
        };
        self
    }

    /// What an outcome means to the caller.
    fn ended(&mut self, outcome: Outcome) -> Result<Status> {
        let aftermath = mem::replace(&mut self.aftermath, Aftermath::NOTHING);
        match self.is_receive {
            true => self.communicator.received(outcome, aftermath),
            false => match outcome {
                Ok(_) => Ok(self.communicator.own_status()),
                Err(trouble) => Err(self.communicator.explain(trouble)),
            },
        }
    }

    /// Waits until the operation is complete: its outcome, and the buffer (MPI_Wait).
    #[doc(alias = "MPI_Wait")]
    pub fn wait(mut self) -> (Result<Status>, B) {
        let outcome = match mem::replace(&mut self.state, State::Spent) {
            State::Complete(outcome) => outcome,
            State::Pending(operation) => {
                let outcome = self.communicator.wait_for(operation);
                self.ended(outcome)
            }
            State::Spent => unreachable!("waiting takes the request"),
        };
        (outcome, self.take_buffer())
    }

    /// Whether it is complete, so that waiting would not wait (MPI_Test). Makes progress.
    #[doc(alias = "MPI_Test")]
    pub fn test(&mut self) -> bool {
        if let State::Pending(operation) = self.state {
            let mut runtime = self.communicator.runtime.enter();
            if !runtime.is_done(operation) {
                runtime.progress();
            }
            let Some(outcome) = runtime.take(operation) else { return false };
            drop(runtime);
            self.state = State::Complete(self.ended(outcome));
        }
        true
    }

    /// Waits until one of the requests is complete and removes it: the index it had, its outcome and its buffer (MPI_Waitany).
    /// `None` when there are no requests. The last request takes the place of the removed one.
    ///
    /// So a rank keeps receives open and uses their buffers again, while what the others send is on its way:
    ///
    /// ```
    /// use selvedge::{ANY_SOURCE, OwnedRequest};
    ///
    /// selvedge::local::run(3, |world| {
    ///     if world.rank() > 0 {
    ///         return (1..=10).for_each(|part| world.send(&[part], 0, 0).unwrap());
    ///     }
    ///     let mut open: Vec<_> = (0..4).map(|_| world.irecv_owned(vec![0; 1], ANY_SOURCE, 0)).collect();
    ///     let mut sum = 0;
    ///     for _ in 0..20 {
    ///         let (_, outcome, buffer) = OwnedRequest::wait_any(&mut open).expect("four are open");
    ///         assert!(outcome.unwrap().source > 0);
    ///         sum += buffer[0];
    ///         open.push(world.irecv_owned(buffer, ANY_SOURCE, 0));
    ///     }
    ///     assert_eq!(sum, 110);
    /// }); // the four that are open are taken back
    /// ```
    #[doc(alias = "MPI_Waitany")]
    pub fn wait_any(requests: &mut Vec<OwnedRequest<'c, B>>) -> Option<(usize, Result<Status>, B)> {
        loop {
            if let Some(index) = requests.iter_mut().position(OwnedRequest::test) {
                let (outcome, buffer) = requests.swap_remove(index).wait();
                return Some((index, outcome, buffer));
            }
            let communicator = requests.first()?.communicator;
            communicator.sleep_for(&requests.as_slice());
        }
    }

    fn operation(&self) -> Option<Operation> {
        if let State::Pending(operation) = self.state { Some(operation) } else { None }
    }

    /// Tries to end the operation before it is matched and waits for its end (MPI_Cancel). What it was is its outcome:
    /// [`Error::Cancelled`](crate::Error::Cancelled) if it was in time.
    #[doc(alias = "MPI_Cancel")]
    pub fn cancel(self) -> (Result<Status>, B) {
        if let State::Pending(operation) = self.state {
            self.communicator.runtime.enter().cancel(operation);
        }
        self.wait()
    }

    fn take_buffer(&mut self) -> B {
        B::from_elements(mem::take(&mut self.elements))
    }
}

impl<B: OwnedBuffer> Drop for OwnedRequest<'_, B> {
    fn drop(&mut self) {
        let State::Pending(operation) = self.state else { return };
        let memory: Box<dyn Any> = Box::new(mem::take(&mut self.elements));
        let aftermath = mem::replace(&mut self.aftermath, Aftermath::NOTHING);
        let left = Abandoned { operation, aftermath, memory };
        let (Some(mut runtime), Ok(mut abandoned)) =
            (self.communicator.runtime.try_enter(), self.communicator.abandoned.try_borrow_mut())
        else {
            // Inside of a reduction of the user's: nobody can wait now.
            return mem::forget(left);
        };
        if self.is_receive {
            runtime.cancel(operation);
        }
        runtime.progress();
        if runtime.take(operation).is_none() {
            abandoned.push(left);
        }
    }
}

/// The outcome and the buffer, for any executor; see [`Request`](crate::Request) for what it costs. Not to be polled again
/// after that.
impl<B: OwnedBuffer + Unpin> Future for OwnedRequest<'_, B>
where
    B::Element: Unpin,
{
    type Output = (Result<Status>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Result<Status>, B)> {
        if !self.test() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match mem::replace(&mut self.state, State::Spent) {
            State::Complete(outcome) => Poll::Ready((outcome, self.take_buffer())),
            State::Pending(_) | State::Spent => {
                panic!("a request was polled after it had given its buffer back")
            }
        }
    }
}
