//! Persistent requests: what is the same every time is said once (MPI 5.0 sections 3.9 and 6.13).
//!
//! A persistent request holds its buffers for as long as its scope lasts. Between rounds it shows them; while a round is
//! under way the [`Request`] borrows it, so that nobody can look. If that request is leaked the next look waits for the
//! round, so that it is not early either way.

mod collective;

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use selvedge_coll::{Collective, Shape};

use crate::collective::Prepared;
use crate::collective::compare::Called;
use crate::collective::op::{Op, Reducer};
use crate::datatype::Datatype;
use crate::error::Result;
use crate::message::{Address, Pattern, Source, Tag};
use crate::request::Request;
pub use crate::request::persistent::collective::PersistentCollective;
use crate::request::scope::{Place, Received, Scope};
use crate::runtime::Operation;

/// A slice that its owner and operations have in turns.
pub(crate) struct Shared<'scope, T> {
    start: NonNull<T>,
    count: usize,
    lent: PhantomData<&'scope mut [T]>,
}

impl<'scope, T> Shared<'scope, T> {
    pub(crate) fn new(elements: &'scope mut [T]) -> Shared<'scope, T> {
        let count = elements.len();
        Shared { start: NonNull::from(elements).cast(), count, lent: PhantomData }
    }

    /// Number of elements.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where they begin.
    pub(crate) fn start(&self) -> *mut T {
        self.start.as_ptr()
    }

    /// # Safety
    /// No operation writes to it while the reference lives.
    pub(crate) unsafe fn get(&self) -> &[T] {
        // SAFETY: it was made of a slice whose exclusive borrow lasts for 'scope; the caller answers for operations.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }

    /// # Safety
    /// No operation uses it while the reference lives, but for one that it is claimed for.
    pub(crate) unsafe fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: it was made of a slice whose exclusive borrow lasts for 'scope; the caller answers for operations.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count) }
    }
}

/// The operation of a round that was not over at once.
pub(crate) type Round = Option<(Operation, Place)>;

/// What a persistent request starts, again and again.
#[derive(Clone, Copy)]
enum What {
    Send {
        to: Address,
        is_sync: bool,
    },
    Receive {
        from: Pattern,
    },
    /// To or from nobody.
    Nothing {
        is_receive: bool,
    },
}

/// A message that is sent, or received, many times with the same arguments (MPI_Send_init, MPI_Recv_init).
/// [`Scope::send_init`] and its kin make it.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let other = 1 - world.rank();
///     let (mut mine, mut theirs) = ([world.rank(); 100], [0; 100]);
///     world.scope(|scope| -> selvedge::Result<()> {
///         let mut send = scope.send_init(&mut mine, other, 0)?;
///         let mut receive = scope.recv_init(&mut theirs, other, 0)?;
///         for round in 0..10 {
///             selvedge::wait_all([receive.start(), send.start()])?;
///             assert_eq!(receive.buffer(), [other + round; 100]);
///             send.buffer_mut().iter_mut().for_each(|element| *element += 1);
///         }
///         Ok(())
///     }).unwrap();
/// });
/// ```
///
/// The buffer is nobody's while a round is under way:
///
/// ```compile_fail,E0502
/// # selvedge::local::run(1, |world| {
/// # let mut theirs = [0u8; 4];
/// # world.scope(|scope| {
/// let mut receive = scope.recv_init(&mut theirs, 0, 0).unwrap();
/// let round = receive.start();
/// println!("{}", receive.buffer()[0]);
/// round.wait().unwrap();
/// # });
/// # });
/// ```
///
/// Nor can a second round be started then:
///
/// ```compile_fail,E0499
/// # selvedge::local::run(1, |world| {
/// # let mut mine = [0u8; 4];
/// # world.scope(|scope| {
/// let mut send = scope.send_init(&mut mine, 0, 0).unwrap();
/// let (first, second) = (send.start(), send.start());
/// selvedge::wait_all([first, second]).unwrap();
/// # });
/// # });
/// ```
///
/// And the slice it was made of belongs to it until the scope ends:
///
/// ```compile_fail,E0499
/// # selvedge::local::run(1, |world| {
/// # let mut mine = [0u8; 4];
/// # world.scope(|scope| {
/// let send = scope.send_init(&mut mine, 0, 0).unwrap();
/// let again = scope.send_init(&mut mine, 0, 1).unwrap();
/// # });
/// # });
/// ```
///
/// Cost of a round: that of [`Scope::isend`] or [`Scope::irecv`], less the checks of rank and tag.
#[doc(alias("MPI_Send_init", "MPI_Recv_init"))]
pub struct Persistent<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    elements: Shared<'scope, T>,
    what: What,
    round: Round,
}

impl<T> fmt::Debug for Persistent<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Send { is_sync: false, .. } | What::Nothing { is_receive: false } => "send",
            What::Send { is_sync: true, .. } => "synchronous send",
            What::Receive { .. } | What::Nothing { is_receive: true } => "receive",
        };
        write!(f, "Persistent({what} of {} elements)", self.elements.count)
    }
}

impl<T: Datatype> Persistent<'_, '_, T> {
    /// Begins a round (MPI_Start). If the request of the last one was dropped, waits for it first.
    #[doc(alias = "MPI_Start")]
    #[inline]
    pub fn start(&mut self) -> Request<'_> {
        self.settle();
        let (scope, communicator) = (self.scope, self.scope.communicator);
        let context = communicator.message_context();
        let request = match self.what {
            What::Send { to: (peer, tag), is_sync } => {
                // SAFETY: no round is under way, and the one that begins does not write.
                let elements = unsafe { self.elements.get() };
                // SAFETY: the slice is lent for 'scope, and the scope does not end before the operation is complete; until
                // then the elements are shown to nobody.
                let (buf, aftermath) = unsafe { communicator.outgoing_slice(elements) };
                let mut runtime = communicator.runtime.enter();
                let started = match is_sync {
                    false => runtime.send(peer, context, tag, buf),
                    true => runtime.send_sync(peer, context, tag, buf),
                };
                drop(runtime);
                scope.request(started, Received::No, aftermath)
            }
            What::Receive { from: (source, tag) } => {
                // SAFETY: no round is under way but the one that begins, which the claim is for.
                let elements = unsafe { self.elements.get_mut() };
                // SAFETY: as for a send; the scope keeps the aftermath.
                let (buf, aftermath) = unsafe { communicator.incoming_slice(elements) };
                let started = communicator.runtime.enter().recv(source, context, tag, buf);
                scope.request(started, Received::Yes, aftermath)
            }
            What::Nothing { is_receive: true } => Request::complete(scope, Ok(communicator.null_status())),
            What::Nothing { is_receive: false } => Request::complete(scope, Ok(communicator.own_status())),
        };
        self.round = request.round();
        request
    }

    /// The elements: what will be sent, or was received. Waits for a round whose request was dropped.
    pub fn buffer(&self) -> &[T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.elements.get() }
    }

    /// As [`Persistent::buffer`], to be changed.
    pub fn buffer_mut(&mut self) -> &mut [T] {
        self.settle();
        // SAFETY: no round is under way, and none can begin while `self` is borrowed.
        unsafe { self.elements.get_mut() }
    }

    #[inline]
    fn settle(&self) {
        if let Some((operation, place)) = self.round {
            self.scope.settle(operation, place);
        }
    }
}

/// Begins a round of each (MPI_Startall). What has other elements, and collectives, is begun one by one.
///
/// ```
/// selvedge::local::run(3, |world| {
///     let (me, size) = (world.rank(), world.size());
///     let mut halos = [[me as f32; 8]; 2];
///     let [mine, theirs] = &mut halos;
///     world.scope(|scope| {
///         let mut both = [
///             scope.send_init(mine, (me + 1) % size, 0).unwrap(),
///             scope.recv_init(theirs, (me + size - 1) % size, 0).unwrap(),
///         ];
///         for _ in 0..3 {
///             selvedge::wait_all(selvedge::start_all(&mut both)).unwrap();
///         }
///     });
///     assert_eq!(halos[1], [((me + size - 1) % size) as f32; 8]);
/// });
/// ```
#[doc(alias = "MPI_Startall")]
pub fn start_all<'a, 'scope: 'a, 'env: 'scope, T: Datatype + 'a>(
    requests: impl IntoIterator<Item = &'a mut Persistent<'scope, 'env, T>>,
) -> Vec<Request<'a>> {
    requests.into_iter().map(Persistent::start).collect()
}

/// Persistent requests. Arguments, errors and meaning are those of the blocking calls of the same name without `_init`;
/// nothing is sent before the first [`start`](Persistent::start).
impl<'scope, 'env> Scope<'scope, 'env> {
    /// A send to be started many times (MPI_Send_init; MPI_Rsend_init is the same).
    #[doc(alias("MPI_Send_init", "MPI_Rsend_init"))]
    pub fn send_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<Persistent<'scope, 'env, T>> {
        self.send_init_as(message, dest.into(), tag, false)
    }

    /// A synchronous send to be started many times (MPI_Ssend_init).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     let mut message = [world.rank()];
    ///     world.scope(|scope| match world.rank() {
    ///         0 => scope.ssend_init(&mut message, 1, 0).unwrap().start().wait().unwrap(),
    ///         _ => scope.recv_init(&mut message, 0, 0).unwrap().start().wait().unwrap(),
    ///     });
    ///     assert_eq!(message, [0]);
    /// });
    /// ```
    #[doc(alias = "MPI_Ssend_init")]
    pub fn ssend_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<Persistent<'scope, 'env, T>> {
        self.send_init_as(message, dest.into(), tag, true)
    }

    fn send_init_as<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        dest: Option<usize>,
        tag: i32,
        is_sync: bool,
    ) -> Result<Persistent<'scope, 'env, T>> {
        let to = self.communicator.destination(dest, tag)?;
        let what = to.map_or(What::Nothing { is_receive: false }, |to| What::Send { to, is_sync });
        Ok(Persistent { scope: self, elements: Shared::new(message), what, round: None })
    }

    /// A receive to be started many times (MPI_Recv_init).
    #[doc(alias = "MPI_Recv_init")]
    pub fn recv_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Persistent<'scope, 'env, T>> {
        let from = self.communicator.pattern(source.into(), tag.into())?;
        let what = from.map_or(What::Nothing { is_receive: true }, |from| What::Receive { from });
        Ok(Persistent { scope: self, elements: Shared::new(message), what, round: None })
    }

    /// A barrier to be started many times (MPI_Barrier_init).
    #[doc(alias = "MPI_Barrier_init")]
    pub fn barrier_init(&'scope self) -> Result<PersistentCollective<'scope, 'env, u8>> {
        let Prepared { shape, .. } = self.communicator.prepare_barrier();
        self.again(shape, None, &mut [], &mut [])
    }

    /// A broadcast to be started many times (MPI_Bcast_init). The message is the
    /// [output](PersistentCollective::output), on the root too.
    #[doc(alias = "MPI_Bcast_init")]
    pub fn broadcast_init<T: Datatype>(
        &'scope self,
        message: &'scope mut [T],
        root: usize,
    ) -> Result<PersistentCollective<'scope, 'env, T>> {
        let Prepared { shape, .. } = self.communicator.prepare_broadcast(&mut *message, root)?;
        self.again(shape, None, &mut [], message)
    }

    /// A reduction to be started many times (MPI_Reduce_init).
    #[doc(alias = "MPI_Reduce_init")]
    pub fn reduce_init<T: Datatype>(
        &'scope self,
        input: &'scope mut [T],
        mut output: Option<&'scope mut [T]>,
        op: &Op<T>,
        root: usize,
    ) -> Result<PersistentCollective<'scope, 'env, T>> {
        let prepared = self.communicator.prepare_reduce(&*input, output.as_deref_mut(), op, root)?;
        let Prepared { shape, reducer, .. } = prepared;
        self.again(shape, reducer, input, output.unwrap_or_default())
    }

    /// A reduction to all to be started many times (MPI_Allreduce_init).
    #[doc(alias = "MPI_Allreduce_init")]
    pub fn allreduce_init<T: Datatype>(
        &'scope self,
        input: &'scope mut [T],
        output: &'scope mut [T],
        op: &Op<T>,
    ) -> Result<PersistentCollective<'scope, 'env, T>> {
        let prepared = self.communicator.prepare_allreduce(&*input, &mut *output, op)?;
        let Prepared { shape, reducer, .. } = prepared;
        self.again(shape, reducer, input, output)
    }

    /// An allgather to be started many times (MPI_Allgather_init).
    #[doc(alias = "MPI_Allgather_init")]
    pub fn allgather_init<T: Datatype>(
        &'scope self,
        input: &'scope mut [T],
        output: &'scope mut [T],
    ) -> Result<PersistentCollective<'scope, 'env, T>> {
        let Prepared { shape, .. } = self.communicator.prepare_allgather(&*input, &mut *output)?;
        self.again(shape, None, input, output)
    }

    /// An all-to-all exchange to be started many times (MPI_Alltoall_init).
    #[doc(alias = "MPI_Alltoall_init")]
    pub fn alltoall_init<T: Datatype>(
        &'scope self,
        input: &'scope mut [T],
        output: &'scope mut [T],
    ) -> Result<PersistentCollective<'scope, 'env, T>> {
        let Prepared { shape, .. } = self.communicator.prepare_alltoall(&*input, &mut *output)?;
        self.again(shape, None, input, output)
    }

    fn again<T: Datatype>(
        &'scope self,
        shape: Shape,
        reducer: Option<Reducer>,
        input: &'scope mut [T],
        output: &'scope mut [T],
    ) -> Result<PersistentCollective<'scope, 'env, T>> {
        let (plans, moves) =
            (&self.communicator.plans, shape.count > 0 || shape.collective == Collective::Barrier);
        let call = Called::of::<T>(&shape, reducer.as_ref());
        if !moves {
            self.communicator.compare_calls(call)?;
        }
        let plan =
            moves.then(|| plans.with(&shape, || self.communicator.plan(call), |plan| Ok(Arc::clone(plan))));
        let plan = plan.transpose()?;
        Ok(PersistentCollective {
            scope: self,
            input: Shared::new(input),
            output: Shared::new(output),
            plan,
            reducer,
            number: self.communicator.next_persistent(),
            rounds: 0,
            round: None,
        })
    }
}
