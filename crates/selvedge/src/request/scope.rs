//! Nonblocking communication that safe Rust cannot misuse.
//!
//! A buffer given to a nonblocking call is borrowed until the scope it was started in has ended, and a scope ends only
//! when everything started in it has. So a buffer can be neither dropped, nor changed, nor read too early, even if the
//! request is leaked (`std::mem::forget`); the same argument as for [`std::thread::scope`].

mod collectives;

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::collective::values::encode;
use crate::communicator::{Communicator, Road};
use crate::datatype::memory::{Aftermath, Settled, claim, claim_mut};
use crate::datatype::view::{Buffer, BufferMut};
use crate::error::{Misuse, Refused, Result};
use crate::message::matched::Message;
use crate::message::{Source, Status, Tag};
use crate::request::Request;
use crate::runtime::{Operation, Outcome, Runtime, Started};

/// How long a scope that is left after an error waits for its operations before it says so.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a scope that is left by a panic waits for its operations before it ends the process.
const UNWIND_WAIT: Duration = Duration::from_secs(2);

/// Where nonblocking operations live; see [`Communicator::scope`].
///
/// ```
/// selvedge::local::run(2, |world| {
///     let other = 1 - world.rank();
///     let (mine, mut theirs) = (vec![world.rank(); 1000], vec![9; 1000]);
///     world.scope(|scope| {
///         let both = [scope.irecv(&mut theirs, other, 0)?, scope.isend(&mine, other, 0)?];
///         // Here is time to compute. Mine can be read, theirs cannot be touched.
///         assert_eq!(mine[999], world.rank());
///         selvedge::wait_all(both)
///     })
///     .unwrap();
///     assert_eq!(theirs, [other; 1000]);
/// });
/// ```
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    pub(crate) communicator: &'env Communicator,
    table: RefCell<Table>,
    left: Cell<usize>,
    /// How many errors this rank had been told before.
    told_before: u32,
    /// Invariant in both lifetimes, so that neither can be shortened to smuggle in a shorter borrow.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Operations of a scope that nobody has taken yet. Bound: what the caller has in flight. A communicator keeps the memory
/// from one scope to the next.
#[derive(Debug, Default)]
pub(crate) struct Table {
    open: Vec<Option<Operation>>,
    free: Vec<usize>,
    /// What is left to do when an operation is complete, by its index. Most have nothing.
    aftermaths: Vec<(usize, Aftermath)>,
}

impl Table {
    #[cold]
    fn aftermath_of(&mut self, place: usize) -> Aftermath {
        let index = self.aftermaths.iter().position(|(of, _)| *of == place);
        index.map_or(Aftermath::NOTHING, |index| self.aftermaths.swap_remove(index).1)
    }
}

/// Index of an operation in its scope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(usize);

impl Communicator {
    /// Runs `f` with a [`Scope`] in which nonblocking operations can be started, and returns after all of them are
    /// complete. What was not waited for inside is waited for here; its outcome is then lost.
    ///
    /// ```
    /// selvedge::local::run(4, |world| {
    ///     let (me, size) = (world.rank(), world.size());
    ///     let mine = [me as u32; 1000];
    ///     let mut left = [0u32; 1000];
    ///     world.scope(|scope| {
    ///         let receive = scope.irecv(&mut left, (me + size - 1) % size, 0)?;
    ///         let send = scope.isend(&mine, (me + 1) % size, 0)?;
    ///         // ... work that does not need `left` ...
    ///         selvedge::wait_all([receive, send])
    ///     }).unwrap();
    ///     assert_eq!(left[999] as usize, (me + size - 1) % size);
    /// });
    /// ```
    ///
    /// Waiting at the end can be in vain where an error has ended `f` early, before the others were sent what they wait for. So a
    /// rank that was told an error in a scope, and waits at its end for longer than a second, says on standard error which error
    /// that was.
    ///
    /// A buffer cannot be touched while the scope lasts:
    ///
    /// ```compile_fail
    /// # selvedge::local::run(1, |world| {
    /// let mut message = [0u8; 4];
    /// world.scope(|scope| {
    ///     let request = scope.irecv(&mut message, 0, 0).unwrap();
    ///     message[0] = 1;
    /// });
    /// # });
    /// ```
    ///
    /// Nor may it end before the scope does:
    ///
    /// ```compile_fail
    /// # selvedge::local::run(1, |world| {
    /// world.scope(|scope| {
    ///     let mut message = [0u8; 4];
    ///     drop(scope.irecv(&mut message, 0, 0));
    /// });
    /// # });
    /// ```
    pub fn scope<'env, R>(&'env self, f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
        let scope = Scope {
            communicator: self,
            table: RefCell::new(self.spare_table.take()),
            left: Cell::new(0),
            told_before: self.core.job.told.count(),
            scope: PhantomData,
            env: PhantomData,
        };
        let guard = Leave(&scope);
        let result = f(guard.0);
        drop(guard);
        let mut table = scope.table.take();
        table.open.clear();
        table.free.clear();
        self.spare_table.set(table);
        result
    }
}

/// Starting sends and receives. Arguments, errors and meaning are those of the blocking calls of the same name without `i`.
impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a send (MPI_Isend).
    #[doc(alias = "MPI_Isend")]
    #[inline]
    pub fn isend<B: Buffer + ?Sized>(
        &'scope self,
        message: &'scope B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<Request<'scope>> {
        let Some((peer, tag)) = self.communicator.destination(dest.into(), tag)? else {
            return Ok(Request::complete(self, Ok(self.own_status())));
        };
        let context = self.communicator.message_context();
        if let Some(slice) = self.communicator.direct(&message.as_view()) {
            // SAFETY: as below.
            let buf = unsafe { claim(slice) };
            let started = self.communicator.runtime.enter().send(peer, context, tag, buf);
            return Ok(self.request(started, Received::No, Aftermath::NOTHING));
        }
        // SAFETY: the borrow lasts for 'scope, and `Leave` keeps the scope from ending before the operation is complete.
        let (buf, aftermath) = unsafe { self.communicator.outgoing(&message.as_view()) };
        let started = self.communicator.runtime.enter().send_body(peer, context, tag, buf);
        Ok(self.request(started, Received::No, aftermath))
    }

    /// Starts a synchronous send (MPI_Issend): complete when a receive has met the message. See [`Communicator::ssend`].
    #[doc(alias = "MPI_Issend")]
    pub fn issend<B: Buffer + ?Sized>(
        &'scope self,
        message: &'scope B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<Request<'scope>> {
        let Some((peer, tag)) = self.communicator.destination(dest.into(), tag)? else {
            return Ok(Request::complete(self, Ok(self.own_status())));
        };
        // SAFETY: the borrow lasts for 'scope, and `Leave` keeps the scope from ending before the operation is complete.
        let (buf, aftermath) = unsafe { self.communicator.outgoing(&message.as_view()) };
        let context = self.communicator.message_context();
        let started = self.communicator.runtime.enter().send_body_sync(peer, context, tag, buf);
        Ok(self.request(started, Received::No, aftermath))
    }

    /// Starts a ready send (MPI_Irsend). See [`Communicator::rsend`].
    #[doc(alias = "MPI_Irsend")]
    #[inline]
    pub fn irsend<B: Buffer + ?Sized>(
        &'scope self,
        message: &'scope B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<Request<'scope>> {
        self.isend(message, dest, tag)
    }

    /// Starts to send a value of any type that serde knows; [`Communicator::recv_value`] receives it. The value itself is free
    /// at once: what travels is its encoding, which lasts as long as it has to.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     world.scope(|scope| {
    ///         let sent = scope.isend_value(&"a shuttle", 1 - world.rank(), 0)?;
    ///         let (word, _) = world.recv_value::<String>(1 - world.rank(), 0)?;
    ///         assert_eq!(word, "a shuttle");
    ///         sent.wait()
    ///     }).unwrap();
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Encoding`] when serde refuses the value; the rest as for [`Communicator::send`].
    pub fn isend_value<V: Serialize + ?Sized>(
        &'scope self,
        value: &V,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<Request<'scope>> {
        let bytes = encode(value).refused_by(self.communicator)?;
        let Some((peer, tag)) = self.communicator.destination(dest.into(), tag)? else {
            return Ok(Request::complete(self, Ok(self.own_status())));
        };
        // SAFETY: the bytes are on the heap, and the aftermath keeps them, or a copy, until the operation is complete.
        let (buf, stamped) = unsafe { self.communicator.outgoing(&bytes.as_view()) };
        let aftermath = if stamped.is_nothing() { Aftermath::keep(bytes) } else { stamped };
        let context = self.communicator.message_context();
        let started = self.communicator.runtime.enter().send_body(peer, context, tag, buf);
        Ok(self.request(started, Received::No, aftermath))
    }

    /// Starts a receive (MPI_Irecv).
    #[doc(alias = "MPI_Irecv")]
    #[inline]
    pub fn irecv<B: BufferMut + ?Sized>(
        &'scope self,
        message: &'scope mut B,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Request<'scope>> {
        let Some((source, tag)) = self.communicator.pattern(source.into(), tag.into())? else {
            return Ok(Request::complete(self, Ok(self.communicator.null_status())));
        };
        let context = self.communicator.message_context();
        let message = match self.communicator.direct_mut(message.as_view_mut()) {
            Err(message) => message,
            Ok(slice) => {
                // SAFETY: as below.
                let (buf, aftermath) = unsafe { claim_mut(slice) };
                let started = self.communicator.runtime.enter().recv(source, context, tag, buf);
                return Ok(self.request(started, Received::Yes, aftermath));
            }
        };
        // SAFETY: the borrow lasts for 'scope, and `Leave` keeps the scope from ending before the operation is complete.
        let (buf, aftermath) = unsafe { self.communicator.incoming(message) };
        let started = self.communicator.runtime.enter().recv_body(source, context, tag, buf);
        Ok(self.request(started, Received::Yes, aftermath))
    }

    /// Starts to receive a message that a probe has found (MPI_Imrecv).
    ///
    /// # Errors
    /// [`crate::Misuse::OtherCommunicator`] when it was found on another communicator than the scope's; it then stays there, as
    /// if it had not been probed.
    #[doc(alias = "MPI_Imrecv")]
    pub fn imrecv<B: BufferMut + ?Sized>(
        &'scope self,
        message: Message<'_>,
        into: &'scope mut B,
    ) -> Result<Request<'scope>> {
        let Some(matched) = message.into_matched(self.communicator)? else {
            return Ok(Request::complete(self, Ok(self.communicator.null_status())));
        };
        // SAFETY: the borrow lasts for 'scope, and `Leave` keeps the scope from ending before the operation is complete.
        let (buf, aftermath) = unsafe { self.communicator.incoming(into.as_view_mut()) };
        let started = self.communicator.runtime.enter().recv_matched_body(matched, buf);
        Ok(self.request(started, Received::Yes, aftermath))
    }

    #[inline]
    pub(crate) fn request(
        &'scope self,
        started: Started,
        received: Received,
        aftermath: Aftermath,
    ) -> Request<'scope> {
        match started {
            // What is sent at once.
            Started::Done(Ok(_)) if received == Received::No && aftermath.is_nothing() => {
                Request::complete(self, Ok(self.own_status()))
            }
            Started::Done(outcome) => {
                Request::complete(self, self.outcome(outcome, received, aftermath.settle()))
            }
            Started::Pending(operation) => {
                Request::pending(self, operation, self.enter(operation, aftermath), received)
            }
        }
    }

    /// What an outcome, and what was left to do then, mean to the caller.
    #[inline]
    pub(crate) fn outcome(&self, outcome: Outcome, received: Received, settled: Settled) -> Result<Status> {
        if received == Received::Yes {
            return self.communicator.told(outcome, settled);
        }
        outcome.map_err(|trouble| self.communicator.explain(trouble))?;
        settled.map_err(Misuse::from).refused_by(self.communicator)?;
        Ok(self.own_status())
    }

    #[inline]
    pub(crate) fn own_status(&self) -> Status {
        self.communicator.own_status()
    }

    /// Notes an operation that the scope has to wait for.
    #[inline]
    fn enter(&self, operation: Operation, aftermath: Aftermath) -> Place {
        self.left.set(self.left.get() + 1);
        let Table { open, free, aftermaths } = &mut *self.table.borrow_mut();
        let place = match free.pop() {
            Some(place) => {
                open[place] = Some(operation);
                place
            }
            None => {
                open.push(Some(operation));
                open.len() - 1
            }
        };
        if !aftermath.is_nothing() {
            aftermaths.push((place, aftermath));
        }
        Place(place)
    }

    /// Returns when an operation that was entered there is over, if nobody has seen to that yet. Its outcome is then lost.
    #[inline]
    pub(crate) fn settle(&self, operation: Operation, place: Place) {
        if self.is_open(operation, place) {
            self.settle_now(operation, place);
        }
    }

    /// Whether nobody has taken the operation that was entered there, or another one since.
    #[inline]
    fn is_open(&self, operation: Operation, place: Place) -> bool {
        self.table.borrow().open.get(place.0) == Some(&Some(operation))
    }

    /// As [`Scope::settle`], after having done something about it.
    pub(crate) fn settle_with(
        &self,
        operation: Operation,
        place: Place,
        act: impl FnOnce(&mut Runtime<Road>),
    ) {
        if self.is_open(operation, place) {
            act(&mut self.communicator.runtime.enter());
            self.settle_now(operation, place);
        }
    }

    #[cold]
    fn settle_now(&self, operation: Operation, place: Place) {
        let aftermath = self.taken(place);
        let _ = self.communicator.wait_for(operation);
        drop(aftermath);
    }

    /// Takes note that somebody takes the outcome, now that the operation is complete or he waits until it is. What is
    /// left to do then.
    #[inline]
    pub(crate) fn taken(&self, place: Place) -> Aftermath {
        self.left.set(self.left.get() - 1);
        let mut table = self.table.borrow_mut();
        table.open[place.0] = None;
        table.free.push(place.0);
        if table.aftermaths.is_empty() { Aftermath::NOTHING } else { table.aftermath_of(place.0) }
    }
}

/// Whether an operation's envelope says what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Yes,
    No,
}

/// Keeps a scope from ending before its operations, also when it is left by a panic.
struct Leave<'a, 'scope, 'env>(&'a Scope<'scope, 'env>);

impl Drop for Leave<'_, '_, '_> {
    fn drop(&mut self) {
        if self.0.left.get() == 0 {
            return;
        }
        // What is left to do is done when this function ends, by returning or by a panic: everything is complete then.
        let Table { open, aftermaths: _aftermaths, .. } = self.0.table.take();
        let open: Vec<Operation> = open.into_iter().flatten().collect();
        let communicator = self.0.communicator;
        if !std::thread::panicking() {
            // Of partitions that nobody has marked no marker is left.
            open.iter().for_each(|&operation| communicator.runtime.enter().withhold_the_rest(operation));
            if communicator.core.job.told.count() != self.0.told_before {
                say_what_was_told(communicator, &open);
            }
            // A user's reduction may panic when its outcome is taken; the others must be waited for all the same.
            let mut panic = None;
            for operation in open {
                let waited = catch_unwind(AssertUnwindSafe(|| communicator.wait_for(operation)));
                panic = panic.or(waited.err());
            }
            if let Some(panic) = panic {
                resume_unwind(panic);
            }
        } else if !abandon(communicator, &open) {
            eprintln!(
                "selvedge: rank {} panicked while messages were in flight; the process ends to protect its memory",
                communicator.rank()
            );
            std::process::abort();
        }
    }
}

/// Waits a little; if anything is open then, says what may be the reason, since the error that the caller is about to return is
/// held up here.
#[cold]
fn say_what_was_told(communicator: &Communicator, open: &[Operation]) {
    let Some(error) = communicator.core.job.told.last() else { return };
    let begin = Instant::now();
    let are_over = communicator.wait_until(|runtime, _| {
        let are_over = open.iter().all(|&operation| runtime.is_done(operation));
        (are_over || begin.elapsed() >= PATIENCE).then_some(are_over)
    });
    if !are_over {
        eprintln!(
            "selvedge: rank {} waits at the end of a scope for what was begun in it, after this error: {error}",
            communicator.rank()
        );
    }
}

/// Calls back what can be called back and waits a little for the rest. Says whether nothing is left in flight.
#[cold]
fn abandon(communicator: &Communicator, open: &[Operation]) -> bool {
    const LOOKS: u32 = 200;
    for look in 0..LOOKS {
        let Some(mut runtime) = communicator.runtime.try_enter() else { return false };
        if look == 0 {
            open.iter().for_each(|&operation| runtime.abandon(operation));
        }
        runtime.progress();
        if open.iter().all(|&operation| runtime.is_done(operation)) {
            return true;
        }
        if !runtime.is_shared() {
            runtime.wait(UNWIND_WAIT / LOOKS);
        } else {
            drop(runtime);
            std::thread::sleep(UNWIND_WAIT / LOOKS);
        }
    }
    false
}
