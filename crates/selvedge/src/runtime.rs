//! One rank's engine and whatever it has in flight: what is below the public API, generic over the transport.
//!
//! Programs have no use for it. It is public because the storm (`benches`) runs it on the simulated network, which it
//! can because nothing in here waits by itself, and on the roads of a real job as a [`Guest`].
//!
//! Requests flow down: [`Runtime::send`], [`Runtime::recv`], [`Runtime::collective`]. Results flow up: after
//! [`Runtime::progress`], [`Runtime::take`] says whether an operation is complete. Everything in flight is named by one
//! 64-bit word given to the engine: an operation of the caller's, or a step of a run.

pub(crate) mod station;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use selvedge_coll::Rank;
use selvedge_engine::matching::Pattern;
use selvedge_engine::{Completion, Context, Engine, Envelope, Failure, Matched, Order, Submitted, Tag};
use selvedge_transport::{Buf, Fault, Peer, Scattered, Transport};

use crate::collective::executor::{Run, Running};
pub use crate::collective::op::Reducer;
pub use crate::collective::plan::Plan;
pub use crate::communicator::group::Group;
use crate::datatype::memory::Aftermath;
use crate::message::channel::Channel;
pub use crate::message::channel::{Arrival, Board, Ends, PARTITIONS_MAX, hello};
use crate::world::report::Remarks;
use crate::world::watch::{self, Watch};

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

/// The caller's name for something in flight. Spent by the [`Runtime::take`] that returns its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    index: u32,
    generation: u32,
}

/// How an operation ended. For a receive: what was received. For anything else: an envelope without meaning.
pub type Outcome = Result<Envelope, Trouble>;

/// Why an operation did not do what was asked.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// What the engine said.
    Engine(Failure),
    /// The caller would have waited for a message that only itself could send or receive.
    WaitsForItself,
    /// A step of a collective received another number of bytes than the schedule says.
    Disagreement {
        /// Who sent it.
        source: Peer,
        /// Bytes it sent.
        given: u64,
        /// Bytes the schedule expects.
        expected: u64,
    },
    /// A reduction, or a receive of partitions, met an element that is no value of its type.
    Invalid {
        /// Its place in the step that reduces, or in the message.
        index: usize,
        /// What it should have been.
        type_name: &'static str,
        /// Whose partition it came with; nobody's of a reduction.
        source: Option<Peer>,
    },
    /// A partition was not marked ready and left as it was.
    Withheld {
        /// The first such one.
        partition: u32,
    },
    /// The two ends of a partitioned message do not fit.
    Partitioning {
        /// Who sends.
        source: Peer,
        /// Bytes of its message.
        given: u64,
        /// Bytes expected here.
        expected: u64,
    },
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
    pub group: &'a Arc<Group>,
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

/// Set in the words that name what a channel has in flight: bit 62, then 30 bits of channel, then 32 bits that are its own.
pub(crate) const CHANNEL: u64 = 1 << 62;

/// One end of a partitioned message. Spent by [`Runtime::close_channel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelId(u32);

fn channel_word(index: u32) -> u64 {
    CHANNEL | u64::from(index) << 32
}

/// Of such a word, the channel.
fn channel_of(word: u64) -> u32 {
    (word >> 32) as u32 & (u32::MAX >> 2)
}

/// Of the word of a step, the run.
pub(crate) fn run_of(word: u64) -> usize {
    (word >> 32) as usize & (u32::MAX >> 1) as usize
}

/// An entry of the operation table.
#[derive(Debug)]
struct Entry {
    generation: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Running(Owner),
    Done(End),
}

/// How an operation ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    /// Of a user's reduction.
    pub(crate) panic: Option<Box<dyn Any + Send>>,
}

impl End {
    /// The outcome. Continues the panic of a user's reduction.
    #[inline]
    pub(crate) fn outcome(self) -> Outcome {
        match self.panic {
            None => self.outcome,
            Some(payload) => std::panic::resume_unwind(payload),
        }
    }
}

/// Who works on a running operation.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Engine(selvedge_engine::RequestId),
    Run,
    Channel(u32),
}

/// One rank's engine, the operations its caller waits for and the schedules it runs.
#[derive(Debug)]
pub struct Runtime<T: Transport> {
    engine: Engine<T>,
    /// Bound: what the caller has in flight. Entries are reused.
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    /// Bound: the collectives the caller has in flight. Runs keep their memory for reuse.
    runs: Vec<Run>,
    free_runs: Vec<u32>,
    /// Bound: the partitioned messages that the caller has made.
    channels: Vec<Option<Channel>>,
    free_channels: Vec<u32>,
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
            entries: Vec::new(),
            free_entries: Vec::new(),
            runs: Vec::new(),
            free_runs: Vec::new(),
            channels: Vec::new(),
            free_channels: Vec::new(),
            waits: 0,
            news: 0,
            probed: None,
            watch: None,
            remarks: None,
        }
    }

    /// From now on whatever this rank waits long for is written down there.
    pub(crate) fn set_watch(&mut self, watch: Watch) {
        watch.arrive();
        self.watch = Some(Box::new(watch));
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
        let index = self.next_entry();
        let submitted = self.engine.send(to, context, tag, Order::Ordered, message, u64::from(index));
        self.started(index, submitted)
    }

    /// As [`Runtime::send`], over only when a receive has met the message.
    pub fn send_sync(&mut self, to: Peer, context: Context, tag: Tag, message: Buf) -> Started {
        let index = self.next_entry();
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
        let index = self.next_entry();
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
        let index = self.next_entry();
        let submitted = self.engine.recv_scattered(source, context, tag, room, u64::from(index));
        self.started(index, submitted)
    }

    /// As [`Runtime::recv_matched`], into several places.
    pub fn recv_matched_scattered(&mut self, matched: Matched, room: Scattered) -> Started {
        let index = self.next_entry();
        let submitted = self.engine.recv_matched_scattered(matched, room, u64::from(index));
        self.started(index, submitted)
    }

    /// Sends a message in no order with others: its tag, all 64 bits of it, is its own (a step of a collective).
    pub fn send_step(&mut self, to: Peer, context: Context, tag: Tag, message: Buf) -> Started {
        let index = self.next_entry();
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
        let index = self.next_entry();
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
        self.engine.probe(source, context, tag).map_err(|failure| {
            self.acknowledge();
            Trouble::Engine(failure)
        })
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
        self.engine.probe_matched(source, context, tag).map_err(|failure| {
            self.acknowledge();
            Trouble::Engine(failure)
        })
    }

    /// Receives a message that a probe has taken out.
    pub fn recv_matched(&mut self, matched: Matched, message: Buf) -> Started {
        let index = self.next_entry();
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
        let operation = self.next_entry();
        let index = self.free_runs.pop().unwrap_or_else(|| {
            self.runs.push(Run::default());
            (self.runs.len() - 1) as u32
        });
        let run = &mut self.runs[index as usize];
        run.start(call, operation, STEP | u64::from(index) << 32);
        match run.advance(&mut self.engine) {
            Running::Yes => self.pending(operation, Owner::Run),
            Running::No if run.panicked() => {
                let started = self.pending(operation, Owner::Run);
                self.finish_run(index);
                started
            }
            Running::No => {
                let End { outcome, .. } = run.end(self.engine.transport().me());
                self.free_runs.push(index);
                Started::Done(outcome)
            }
        }
    }

    /// The sending end of a partitioned message of `bytes` in so many equal partitions. The caller sends its [`hello`] to the
    /// other end. `number`: one that no other channel to that rank has.
    pub fn open_sender(&mut self, ends: Ends, number: u32, bytes: usize, partitions: usize) -> ChannelId {
        let index = self.next_channel();
        let channel = Channel::sender(ends, number, bytes, partitions, channel_word(index));
        self.channels[index as usize] = Some(channel);
        ChannelId(index)
    }

    /// The receiving end, in as many partitions as `board` has. It meets the sending end with the same names that was made
    /// as the same one in turn.
    pub fn open_receiver(
        &mut self,
        ends: Ends,
        bytes: usize,
        element_bytes: usize,
        board: Arc<Board>,
    ) -> ChannelId {
        let index = self.next_channel();
        let word = channel_word(index);
        let channel = Channel::receiver(ends, (bytes, element_bytes), board, word, &mut self.engine);
        self.channels[index as usize] = Some(channel);
        ChannelId(index)
    }

    /// Most channels that were there at the same time.
    #[cfg(test)]
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    fn next_channel(&mut self) -> u32 {
        self.free_channels.pop().unwrap_or_else(|| {
            self.channels.push(None);
            (self.channels.len() - 1) as u32
        })
    }

    /// Begins a round of a partitioned message, when the one before is over.
    pub fn begin_round(&mut self, channel: ChannelId, message: Buf) -> Started {
        self.begin_round_then(channel, message, Vec::new())
    }

    /// As [`Runtime::begin_round`], with what is left to do for each partition that has come.
    pub(crate) fn begin_round_then(
        &mut self,
        ChannelId(index): ChannelId,
        message: Buf,
        aftermaths: Vec<Aftermath>,
    ) -> Started {
        let operation = self.next_entry();
        let Some(channel) = &mut self.channels[index as usize] else { unreachable!("open until closed") };
        channel.begin(operation, message, aftermaths, &mut self.engine);
        match channel.take_end(&mut self.engine) {
            Some((_, End { outcome, .. })) => {
                self.heard_of(&outcome);
                Started::Done(outcome)
            }
            None => self.pending(operation, Owner::Channel(index)),
        }
    }

    /// Partition `partition` of a sender may leave. `is_withheld`: it was not marked ready, and leaves all the same.
    pub fn mark(&mut self, ChannelId(index): ChannelId, partition: usize, is_withheld: bool) {
        self.with_channel(index, |channel, engine| channel.mark(partition, is_withheld, engine));
    }

    /// Nobody begins a round of it any more. The one under way goes on, with the partitions of a sender as they are.
    pub fn close_channel(&mut self, ChannelId(index): ChannelId) {
        self.with_channel(index, Channel::close);
    }

    /// Lets go what the round of a sender still waits to be marked for. Does nothing to other operations.
    pub(crate) fn withhold_the_rest(&mut self, operation: Operation) {
        if let State::Running(Owner::Channel(index)) = self.entries[operation.index as usize].state {
            self.with_channel(index, Channel::withhold_the_rest);
        }
    }

    /// Tries to end an operation early for a caller who has panicked, also a round of a partitioned message.
    pub(crate) fn abandon(&mut self, operation: Operation) {
        match self.entries[operation.index as usize].state {
            State::Running(Owner::Channel(index)) => self.with_channel(index, Channel::give_up),
            _ => _ = self.cancel(operation),
        }
    }

    /// Lets a channel do something, and sees to what came of it.
    fn with_channel(&mut self, index: u32, act: impl FnOnce(&mut Channel, &mut Engine<T>)) {
        let place = &mut self.channels[index as usize];
        let channel = place.as_mut().expect("a channel is there while anything of it is named");
        act(channel, &mut self.engine);
        let end = channel.take_end(&mut self.engine);
        if channel.is_spent() {
            *place = None;
            self.free_channels.push(index);
        }
        // Some partition may be here that a thread waits for.
        self.news = self.news.wrapping_add(1);
        if let Some((operation, end)) = end {
            self.heard_of(&end.outcome);
            self.entries[operation as usize].state = State::Done(end);
        }
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
                return Some(End { outcome: self.heard(completion.outcome), panic: None });
            }
            self.dispatch(completion);
        }
        self.end(operation)
    }

    /// Sleeps until there may be progress to make, at most so long; wakes now and then for nothing.
    #[inline]
    pub fn wait(&mut self, at_most: Duration) {
        self.wait_in(None, at_most);
    }

    /// As [`Runtime::wait`], for a caller who goes on only when `operation` is over.
    #[inline]
    pub(crate) fn wait_in(&mut self, operation: Option<Operation>, at_most: Duration) {
        self.waits = self.waits.saturating_add(1);
        // The first wait is most often the last: it does not look at the clock.
        if self.waits > 1 && self.watch.is_some() {
            self.note(operation);
        }
        let at_most = if self.watch.is_some() { at_most.min(watch::PATIENCE) } else { at_most };
        self.engine.wait(at_most);
        if let Some(remarks) = &self.remarks {
            self.engine.take_local_faults().iter().for_each(|fault| remarks.say(fault));
        }
    }

    /// Writes down what this rank waits for, if it is time to.
    #[cold]
    fn note(&mut self, operation: Option<Operation>) {
        if let Some(watch) = &mut self.watch
            && watch.is_due()
        {
            let blocked = operation.map(|operation| operation.index);
            watch.note(watch::look(&self.engine, (&self.runs, &self.channels), blocked, self.probed));
        }
    }

    /// The caller goes on: it has something, or gives up.
    #[cold]
    pub(crate) fn awake(&mut self) {
        self.waits = 0;
        self.probed = None;
        if let Some(watch) = &mut self.watch {
            watch.awake();
        }
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

    /// Gives an entry back; what it held.
    #[inline]
    fn spend(&mut self, operation: Operation) -> State {
        if self.waits != 0 {
            self.awake();
        }
        let entry = &mut self.entries[operation.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free_entries.push(operation.index);
        std::mem::replace(&mut entry.state, State::Free)
    }

    /// Whether an operation is complete; leaves its outcome where it is.
    #[inline]
    pub fn is_done(&self, operation: Operation) -> bool {
        let entry = &self.entries[operation.index as usize];
        assert_eq!(entry.generation, operation.generation, "an operation was named after it was taken");
        matches!(entry.state, State::Done(_))
    }

    /// Tries to end an operation early: receives that nothing has matched and sends that have not left. It still has to
    /// be taken. Collectives cannot be cancelled (MPI 5.0 section 6.12).
    pub fn cancel(&mut self, operation: Operation) -> bool {
        let entry = &self.entries[operation.index as usize];
        assert_eq!(entry.generation, operation.generation, "an operation was cancelled after it was taken");
        match entry.state {
            State::Running(Owner::Engine(request)) => self.engine.cancel(request),
            _ => false,
        }
    }

    /// Why a caller who does nothing but wait for a message from anybody of `group` waits in vain: all others are gone.
    /// Itself, the caller sends nothing more. Cost: nothing until a rank has gone, then a look-up per rank.
    #[cold]
    pub fn forsaken(&self, group: &Group) -> Option<Box<Fault>> {
        let me = self.engine.transport().me();
        let mut others =
            (0..group.size()).map(|rank| group.peer(Rank(rank as u32))).filter(|&peer| peer != me);
        let first = self.engine.fault_of(others.next()?)?;
        others.all(|peer| self.engine.fault_of(peer).is_some()).then(|| Box::new(first.clone()))
    }

    /// Ends a receive from anybody with what [`Runtime::forsaken`] says. Does nothing to other operations.
    #[cold]
    pub fn forsake(&mut self, operation: Operation, group: &Group) {
        let State::Running(Owner::Engine(request)) = self.entries[operation.index as usize].state else {
            return;
        };
        if self.engine.waits_for_anyone(request)
            && let Some(fault) = self.forsaken(group)
            && self.engine.cancel(request)
        {
            self.progress();
            let outcome = Err(Trouble::Engine(Failure::Fault(fault)));
            self.entries[operation.index as usize].state = State::Done(End { outcome, panic: None });
        }
    }

    /// Ends an operation that only its caller could end, who does nothing but wait for it. `alone`: nobody else is in the
    /// communicator. False, and nothing happens, for all others.
    pub(crate) fn give_up_on_oneself(&mut self, operation: Operation, alone: bool) -> bool {
        let State::Running(Owner::Engine(request)) = self.entries[operation.index as usize].state else {
            return false;
        };
        if !self.engine.give_up_on_oneself(request, alone) {
            return false;
        }
        self.progress();
        let outcome = Err(Trouble::WaitsForItself);
        self.entries[operation.index as usize].state = State::Done(End { outcome, panic: None });
        true
    }

    /// The entry of the table that [`Runtime::pending`] takes, if what is being started is not over at once.
    #[inline]
    fn next_entry(&mut self) -> u32 {
        match self.free_entries.last() {
            Some(&index) => index,
            None => self.add_entry(),
        }
    }

    #[cold]
    fn add_entry(&mut self) -> u32 {
        let index = self.entries.len() as u32;
        self.entries.push(Entry { generation: 0, state: State::Free });
        self.free_entries.push(index);
        index
    }

    #[inline]
    fn started(&mut self, index: u32, submitted: Submitted) -> Started {
        match submitted {
            Submitted::Done(outcome) => Started::Done(self.heard(outcome)),
            Submitted::Pending(request) => self.pending(index, Owner::Engine(request)),
        }
    }

    /// Takes the entry that [`Runtime::next_entry`] has named.
    #[inline]
    fn pending(&mut self, index: u32, owner: Owner) -> Started {
        let taken = self.free_entries.pop();
        debug_assert_eq!(taken, Some(index), "nothing was started in between");
        let entry = &mut self.entries[index as usize];
        entry.state = State::Running(owner);
        Started::Pending(Operation { index, generation: entry.generation })
    }

    #[inline]
    fn dispatch(&mut self, completion: Completion) {
        let word = completion.user;
        if word <= u64::from(u32::MAX) {
            let outcome = self.heard(completion.outcome);
            self.news = self.news.wrapping_add(1);
            self.entries[word as usize].state = State::Done(End { outcome, panic: None });
            return;
        }
        if word & STEP == 0 {
            let outcome = completion.outcome;
            self.with_channel(channel_of(word), |channel, engine| {
                channel.ended(word as u32, outcome, engine)
            });
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
        self.entries[operation as usize].state = State::Done(end);
        self.free_runs.push(index);
    }
}
