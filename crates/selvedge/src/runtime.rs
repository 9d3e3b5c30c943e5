//! One rank's engine and whatever it has in flight: what is below the public API, generic over the transport.
//!
//! Programs have no use for it. It is public because the storm (`benches`) runs it on the simulated network, which it
//! can because nothing in here waits by itself, and on the roads of a real job as a [`Guest`].
//!
//! Requests flow down: [`Runtime::send`], [`Runtime::recv`], [`Runtime::collective`]. Results flow up: after
//! [`Runtime::progress`], [`Runtime::take`] says whether an operation is complete. Everything in flight is named by one
//! 64-bit word given to the engine: an operation of the caller's, a step of a run, or a piece of a channel.

pub(crate) mod agreement;
mod channels;
mod operations;
mod outcome;
pub(crate) mod station;
mod waiting;

use std::sync::Arc;

use selvedge_engine::matching::Pattern;
use selvedge_engine::{Completion, Context, Engine, Envelope, Failure, Matched, Order, Submitted, Tag};
use selvedge_transport::{Buf, Peer, Scattered, Transport};

use crate::collective::executor::{Run, Running};
pub use crate::collective::op::Reducer;
pub use crate::collective::plan::Plan;
pub use crate::communicator::contexts::{Company, Contexts, Offer};
pub use crate::communicator::members::Members;
use crate::message::channel::Channel;
pub use crate::message::channel::{Arrival, Board, Ends, PARTITIONS_MAX, hello};
use crate::runtime::agreement::Agreements;
pub use crate::runtime::agreement::{Agree, agreement_shape};
pub use crate::runtime::channels::ChannelId;
pub use crate::runtime::operations::Operation;
use crate::runtime::operations::{Operations, Owner, State};
pub(crate) use crate::runtime::outcome::End;
pub use crate::runtime::outcome::{Outcome, Trouble};
use crate::world::report::Remarks;
use crate::world::watch::Watch;

/// What runs on the runtime of a joined world, below its communicators, whatever its roads are made of.
pub trait Guest {
    /// What comes of it.
    type Output;

    /// Runs, and leaves nothing in flight. Contexts below 2^31 belong to the communicators.
    fn visit<T: Transport>(self, runtime: &mut Runtime<T>) -> Self::Output;
}

impl crate::World {
    /// Lends the runtime of this rank to `guest`. For tools: it can starve or confuse communicators, and nothing else can
    /// be called on them meanwhile.
    pub fn host_guest<G: Guest>(&self, guest: G) -> G::Output {
        guest.visit(&mut self.runtime.enter())
    }
}

/// The answer to starting something.
#[derive(Debug)]
pub enum Started {
    /// It is complete; the buffers are the caller's again.
    Done(Outcome),
    /// It goes on; the buffers stay claimed until [`Runtime::take`] returns its outcome.
    Pending(Operation),
}

/// What a collective works on; which of the buffers exist is said at [`selvedge_coll::Collective`].
#[derive(Debug)]
pub struct Call<'a> {
    /// What to do.
    pub plan: &'a Arc<Plan>,
    /// With whom.
    pub group: &'a Arc<Members>,
    /// The communicator's context for collectives.
    pub context: Context,
    /// Number of this collective in its communicator: equal on all ranks because all call in the same order.
    pub sequence: u32,
    /// [`selvedge_coll::Space::Input`].
    pub input: Buf,
    /// [`selvedge_coll::Space::Output`].
    pub output: Buf,
    /// How to reduce, where the collective does.
    pub reducer: Option<&'a Reducer>,
}

/// Set in the words that name a step of a run: bit 63, then 31 bits of run, then 32 bits of step.
pub(crate) const STEP: u64 = 1 << 63;

/// The word of the first step of a run.
fn run_word(run: u32) -> u64 {
    STEP | u64::from(run) << 32
}

/// Of the word of a step, the run.
pub(crate) fn run_of(word: u64) -> usize {
    (word >> 32) as usize & (u32::MAX >> 1) as usize
}

/// One rank's engine, the operations its caller waits for and the schedules it runs.
#[derive(Debug)]
pub struct Runtime<T: Transport> {
    engine: Engine<T>,
    operations: Operations,
    /// Bound: the collectives the caller has in flight. Runs keep their memory for reuse.
    runs: Vec<Run>,
    free_runs: Vec<u32>,
    /// Bound: the partitioned messages that the caller has made.
    channels: Vec<Option<Channel>>,
    free_channels: Vec<u32>,
    agreements: Agreements,
    /// Waits since something was last taken. 0 for a rank that need not wait, so that it pays for a comparison.
    waits: u32,
    /// Changes when an operation has ended or a message was put back.
    news: u64,
    /// What the last probe looked for.
    probed: Option<Pattern>,
    watch: Option<Box<Watch>>,
    remarks: Option<Remarks>,
}

impl<T: Transport> Runtime<T> {
    /// A runtime with nothing in flight.
    pub fn new(engine: Engine<T>) -> Runtime<T> {
        Runtime {
            engine,
            operations: Operations::default(),
            runs: Vec::new(),
            free_runs: Vec::new(),
            channels: Vec::new(),
            free_channels: Vec::new(),
            agreements: Agreements::default(),
            waits: 0,
            news: 0,
            probed: None,
            watch: None,
            remarks: None,
        }
    }

    /// The transport, for how it waits.
    pub(crate) fn transport_mut(&mut self) -> &mut T {
        self.engine.transport_mut()
    }

    /// A number that changes when there may be something for a thread that waits for anything.
    pub(crate) fn stamp(&self) -> u64 {
        self.news.wrapping_add(self.engine.stats().unexpected)
    }

    /// From now on what goes wrong on this side, and with no peer, is said there.
    pub(crate) fn set_remarks(&mut self, remarks: Remarks) {
        self.remarks = Some(remarks);
    }

    /// The engine, for its counters.
    pub fn engine(&self) -> &Engine<T> {
        &self.engine
    }

    /// Sends a message. In order with all others of this kind to the same peer (MPI 5.0 section 3.5).
    #[inline]
    pub fn send(&mut self, to: Peer, context: Context, tag: Tag, message: Buf) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.send(to, context, tag, Order::Ordered, message, u64::from(index));
        self.started(index, submitted)
    }

    /// As [`Runtime::send`], over only when a receive has met the message.
    pub fn send_sync(&mut self, to: Peer, context: Context, tag: Tag, message: Buf) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.send_sync(to, context, tag, message, u64::from(index));
        self.started(index, submitted)
    }

    /// As [`Runtime::send`] or [`Runtime::send_sync`], of a message in several places.
    pub fn send_scattered(
        &mut self,
        to: Peer,
        context: Context,
        tag: Tag,
        is_sync: bool,
        message: Scattered,
    ) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.send_scattered(to, (context, tag), is_sync, message, u64::from(index));
        self.started(index, submitted)
    }

    /// As [`Runtime::recv`], into several places.
    pub fn recv_scattered(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
        room: Scattered,
    ) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.recv_scattered(source, context, tag, room, u64::from(index));
        self.started(index, submitted)
    }

    /// As [`Runtime::recv_matched`], into several places.
    pub fn recv_matched_scattered(&mut self, matched: Matched, room: Scattered) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.recv_matched_scattered(matched, room, u64::from(index));
        self.started(index, submitted)
    }

    /// Sends a message in no order with others: its tag, all 64 bits of it, is its own (a step of a collective).
    pub fn send_step(&mut self, to: Peer, context: Context, tag: Tag, message: Buf) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.send(to, context, tag, Order::Unordered, message, u64::from(index));
        self.started(index, submitted)
    }

    /// Receives a message; `None` matches anybody, any tag.
    #[inline]
    pub fn recv(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
        message: Buf,
    ) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.recv(source, context, tag, message, u64::from(index));
        self.started(index, submitted)
    }

    /// The first message that a receive with these arguments would get, if it is already here. Makes progress.
    ///
    /// # Errors
    /// What that receive would be told at once: that nobody is left who could send it.
    pub fn probe(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
    ) -> Result<Option<Envelope>, Trouble> {
        self.probed = Some(Pattern { context, source, tag });
        self.engine.probe(source, context, tag).map_err(|failure| self.heard_bad_news(failure))
    }

    /// As [`Runtime::probe`], and takes the message out, so that nobody else receives it.
    ///
    /// # Errors
    /// As [`Runtime::probe`].
    pub fn probe_matched(
        &mut self,
        source: Option<Peer>,
        context: Context,
        tag: Option<Tag>,
    ) -> Result<Option<Matched>, Trouble> {
        self.probed = Some(Pattern { context, source, tag });
        self.engine.probe_matched(source, context, tag).map_err(|failure| self.heard_bad_news(failure))
    }

    /// Receives a message that a probe has taken out.
    pub fn recv_matched(&mut self, matched: Matched, message: Buf) -> Started {
        let index = self.operations.next();
        let submitted = self.engine.recv_matched(matched, message, u64::from(index));
        self.started(index, submitted)
    }

    /// Undoes [`Runtime::probe_matched`].
    pub fn put_back(&mut self, matched: Matched) {
        self.engine.put_back(matched);
        // Another thread may be looking for just this one.
        self.news = self.news.wrapping_add(1);
    }

    /// Starts a collective.
    pub fn collective(&mut self, call: Call<'_>) -> Started {
        let operation = self.operations.next();
        let index = self.next_run();
        let run = &mut self.runs[index as usize];
        run.start(call, 0, operation, run_word(index));
        match run.advance(&mut self.engine) {
            Running::Yes => Started::Pending(self.operations.enter(operation, Owner::Run)),
            Running::No if run.panicked() => {
                let operation = self.operations.enter(operation, Owner::Run);
                self.finish_run(index);
                Started::Pending(operation)
            }
            Running::No => {
                let End { outcome, .. } = run.end(self.engine.transport().me());
                self.free_runs.push(index);
                Started::Done(outcome)
            }
        }
    }

    #[inline]
    fn next_run(&mut self) -> u32 {
        self.free_runs.pop().unwrap_or_else(|| {
            self.runs.push(Run::default());
            (self.runs.len() - 1) as u32
        })
    }

    fn heard_of(&mut self, outcome: &Outcome) {
        if let Err(Trouble::Engine(Failure::Fault(_))) = outcome {
            self.acknowledge();
        }
    }

    /// Moves everything that can move. Says whether something was completed.
    #[inline]
    pub fn progress(&mut self) -> bool {
        let mut moved = false;
        while let Some(completion) = self.engine.poll() {
            self.dispatch(completion);
            moved = true;
        }
        moved
    }

    /// Makes progress until an operation has ended or nothing moves any more: its end, after which its name is spent. What
    /// else could move by then is left for the next call.
    #[inline]
    pub(crate) fn progress_to(&mut self, operation: Operation) -> Option<End> {
        while !self.is_done(operation) {
            let completion = self.engine.poll()?;
            if completion.user == u64::from(operation.index) {
                self.spend(operation);
                return Some(End::of(self.heard(completion.outcome)));
            }
            self.dispatch(completion);
        }
        self.end(operation)
    }

    /// The outcome of an operation if it is complete, after which its name is spent. Continues the panic of a user's
    /// reduction.
    #[inline]
    pub fn take(&mut self, operation: Operation) -> Option<Outcome> {
        self.end(operation).map(End::outcome)
    }

    /// The end of an operation if it is complete, after which its name is spent.
    #[inline]
    pub(crate) fn end(&mut self, operation: Operation) -> Option<End> {
        if !self.is_done(operation) {
            return None;
        }
        let State::Done(end) = self.spend(operation) else { unreachable!("just seen") };
        Some(end)
    }

    /// The name of an operation is spent; how it was with it. Its caller goes on.
    #[inline]
    fn spend(&mut self, operation: Operation) -> State {
        if self.waits != 0 {
            self.awake();
        }
        self.operations.leave(operation)
    }

    /// Whether an operation is complete; leaves its outcome where it is.
    #[inline]
    pub fn is_done(&self, operation: Operation) -> bool {
        self.operations.is_done(operation)
    }

    /// Tries to end an operation early: receives that nothing has matched and sends that have not left. It still has to
    /// be taken. Collectives cannot be cancelled (MPI 5.0 section 6.12).
    pub fn cancel(&mut self, operation: Operation) -> bool {
        match self.operations.owner(operation) {
            Some(Owner::Engine(request)) => self.engine.cancel(request),
            _ => false,
        }
    }

    #[inline]
    fn started(&mut self, index: u32, submitted: Submitted) -> Started {
        match submitted {
            Submitted::Done(outcome) => Started::Done(self.heard(outcome)),
            Submitted::Pending(request) => {
                Started::Pending(self.operations.enter(index, Owner::Engine(request)))
            }
        }
    }

    #[inline]
    fn dispatch(&mut self, completion: Completion) {
        let word = completion.user;
        if word <= u64::from(u32::MAX) {
            let outcome = self.heard(completion.outcome);
            self.news = self.news.wrapping_add(1);
            self.operations.conclude(word as u32, End::of(outcome));
            return;
        }
        if word & STEP == 0 {
            let outcome = completion.outcome;
            self.channel_heard(word, outcome);
        } else {
            if let Err(Failure::Fault(_)) = completion.outcome {
                self.acknowledge();
            }
            let index = run_of(word);
            let run = &mut self.runs[index];
            run.step_ended(word as u32, completion.outcome);
            if matches!(run.advance(&mut self.engine), Running::No) {
                self.finish_run(index as u32);
            }
        }
    }

    /// What the engine says, as our caller is told.
    #[inline]
    fn heard(&mut self, outcome: selvedge_engine::Outcome) -> Outcome {
        match outcome {
            Ok(envelope) => Ok(envelope),
            Err(failure) => Err(self.heard_bad_news(failure)),
        }
    }

    #[cold]
    fn heard_bad_news(&mut self, failure: Failure) -> Trouble {
        if let Failure::Fault(_) = failure {
            self.acknowledge();
        }
        Trouble::Engine(failure)
    }

    /// Somebody is being told of a fault. From here on a receive from anybody is a receive from anybody who is left.
    #[cold]
    fn acknowledge(&mut self) {
        self.engine.take_faults();
    }

    /// Moves the outcome of a run to the operation it belongs to.
    fn finish_run(&mut self, index: u32) {
        let run = &mut self.runs[index as usize];
        let operation = run.operation();
        let end = run.end(self.engine.transport().me());
        self.news = self.news.wrapping_add(1);
        self.free_runs.push(index);
        match self.operations.agreement_of(operation) {
            None => self.operations.conclude(operation, end),
            Some(agreement) => self.round_ended(agreement, operation, end),
        }
    }
}
