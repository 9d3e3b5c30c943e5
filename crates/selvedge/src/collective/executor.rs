//! Runs schedules: the one executor behind blocking, nonblocking and (later) persistent collectives.
//!
//! A run is a plan, three memories and a count of blockers per step. A step whose count reaches zero is handed to the
//! engine or done on the spot; its end lowers the counts of its successors. Nothing else orders steps.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use selvedge_coll::{Action, Slice, StepIndex};
use selvedge_engine::{Context, Engine, Envelope, Failure, Order, RequestId, Submitted, Tag};
use selvedge_transport::{Buf, Peer, Transport};

use crate::collective::op::Reducer;
use crate::collective::plan::Plan;
use crate::communicator::members::Members;
use crate::datatype::memory::{Invalid, Scratch};
use crate::runtime::{Call, End, Trouble};

/// Whether a run has steps left.
pub(crate) enum Running {
    Yes,
    No,
}

/// How it is with a step that was begun.
enum Begun {
    /// What waits for it may begin.
    Over,
    /// The engine works on it.
    InFlight,
    /// The run has to be given up.
    Failed,
}

/// What a run holds of its [`Call`]. Kept when the run has ended: the next collective is most often the same, and then
/// nobody counts references, which are counted atomically.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) plan: Arc<Plan>,
    group: Arc<Members>,
    pub(crate) context: Context,
    pub(crate) sequence: u32,
    /// Of a step with label 0.
    tag: Tag,
    reducer: Option<Reducer>,
}

/// One collective in flight, or the memory of one that has ended and will be used again.
#[derive(Debug, Default)]
pub(crate) struct Run {
    call: Option<Kept>,
    is_running: bool,
    scratch: Scratch,
    /// What a slice of each space is cut from, in the order of [`selvedge_coll::Space`].
    spaces: Option<[Buf; 3]>,
    /// For each step, how many steps it still waits for.
    blockers: Vec<u32>,
    /// For each step that the engine works on, its request.
    requests: Vec<Option<RequestId>>,
    in_flight: u32,
    /// Steps to start, in order; those before `next` have been started.
    ready: Vec<StepIndex>,
    next: usize,
    trouble: Option<Trouble>,
    panic: Option<Box<dyn Any + Send>>,
    /// An operand that was no value. As with a panic, the others count on this rank, so it goes on.
    invalid: Option<Invalid>,
    operation: u32,
    /// The word that names step 0 of this run to the engine.
    word: u64,
}

impl Run {
    /// Makes the run ready; nothing moves before [`Run::advance`]. `first_label` is added to the labels of its steps.
    pub(crate) fn start(&mut self, call: Call<'_>, first_label: u32, operation: u32, word: u64) {
        let plan = call.plan;
        let steps = plan.schedule().len();
        self.spaces =
            Some([call.input, call.output, self.scratch.claim(plan.schedule().scratch_bytes() as usize)]);
        self.blockers.clear();
        self.blockers.extend_from_slice(plan.blockers());
        // Nothing is left there of the last run: what was in flight has ended.
        self.requests.resize(steps, None);
        self.ready.clear();
        self.ready.extend_from_slice(plan.roots());
        self.next = 0;
        self.operation = operation;
        self.word = word;
        self.is_running = true;
        self.keep(call, first_label);
    }

    fn keep(&mut self, call: Call<'_>, first_label: u32) {
        let Call { plan, group, context, sequence, reducer, .. } = call;
        let tag = step_tag(sequence, first_label);
        match &mut self.call {
            Some(kept) if Arc::ptr_eq(&kept.plan, plan) && Arc::ptr_eq(&kept.group, group) => {
                (kept.context, kept.sequence, kept.tag) = (context, sequence, tag);
                kept.reducer = reducer.cloned();
            }
            kept => {
                let (plan, group, reducer) = (Arc::clone(plan), Arc::clone(group), reducer.cloned());
                *kept = Some(Kept { plan, group, context, sequence, tag, reducer });
            }
        }
    }

    /// The operation that gets the outcome.
    pub(crate) fn operation(&self) -> u32 {
        self.operation
    }

    /// What is being run; nothing when it is only memory.
    pub(crate) fn call(&self) -> Option<&Kept> {
        self.call.as_ref().filter(|_| self.is_running)
    }

    /// Whether the user's reduction has panicked.
    pub(crate) fn panicked(&self) -> bool {
        self.panic.is_some()
    }

    /// Starts every step that can start.
    pub(crate) fn advance<T: Transport>(&mut self, engine: &mut Engine<T>) -> Running {
        if self.trouble.is_none() {
            while let Some(&step) = self.ready.get(self.next) {
                self.next += 1;
                match self.begin(step, engine) {
                    Begun::Over => self.release_successors(step),
                    Begun::InFlight => {}
                    Begun::Failed => break,
                }
            }
        }
        if self.trouble.is_some() {
            self.give_up(engine);
        }
        if self.in_flight == 0 { Running::No } else { Running::Yes }
    }

    /// Takes note that the engine has ended a step.
    #[inline]
    pub(crate) fn step_ended(&mut self, step: StepIndex, outcome: Result<Envelope, Failure>) {
        self.requests[step as usize] = None;
        self.in_flight -= 1;
        let call = self.call.as_ref().expect("a run that goes on has been started");
        let expected = match call.plan.schedule().action(step) {
            Action::Recv { into, .. } => Some(into.len),
            _ => None,
        };
        if let Begun::Over = self.conclude(expected, outcome) {
            self.release_successors(step);
        }
    }

    /// The outcome; afterwards the run is only memory.
    pub(crate) fn end(&mut self, me: Peer) -> End {
        let call = self.call.as_mut().expect("a run that ends has been started");
        // What a user's operation has captured is the user's again.
        call.reducer = None;
        self.is_running = false;
        self.spaces = None;
        let envelope = Envelope { source: me, context: call.context, tag: Tag(0), bytes: 0 };
        let invalid = self.invalid.take().map(|Invalid { index, type_name }| Trouble::Invalid {
            index,
            type_name,
            source: None,
        });
        let trouble = self.trouble.take().or(invalid);
        End { outcome: trouble.map_or(Ok(envelope), Err), panic: self.panic.take() }
    }

    #[inline]
    fn begin<T: Transport>(&mut self, step: StepIndex, engine: &mut Engine<T>) -> Begun {
        let call = self.call.as_ref().expect("a run that goes on has been started");
        let spaces = self.spaces.as_ref().expect("a run that goes on has memory");
        let word = self.word | u64::from(step);
        let (submitted, expected) = match call.plan.schedule().action(step) {
            Action::Send { to, from, label } => {
                let (to, tag) = (call.group.peer(to), Tag(call.tag.0 + u64::from(label)));
                (engine.send(to, call.context, tag, Order::Unordered, cut(spaces, from), word), None)
            }
            Action::Recv { from, into, label } => {
                let (from, tag) = (call.group.peer(from), Tag(call.tag.0 + u64::from(label)));
                let submitted = engine.recv(Some(from), call.context, Some(tag), cut(spaces, into), word);
                (submitted, Some(into.len))
            }
            Action::Copy { from, into } => {
                cut(spaces, from).copy_to_buf(cut(spaces, into));
                return Begun::Over;
            }
            Action::Reduce { from, into, side } => {
                let reducer =
                    call.reducer.as_ref().expect("a schedule that reduces is called with an operation");
                let (from, into) = (cut(spaces, from), cut(spaces, into));
                // The user's closure may panic. The other ranks count on this one, so the panic waits until the end.
                match catch_unwind(AssertUnwindSafe(|| reducer.apply(from, into, side))) {
                    Ok(Ok(())) => {}
                    Ok(Err(invalid)) => {
                        self.invalid.get_or_insert(invalid);
                    }
                    Err(panic) => {
                        self.panic.get_or_insert(panic);
                    }
                }
                return Begun::Over;
            }
        };
        match submitted {
            Submitted::Done(outcome) => self.conclude(expected, outcome),
            Submitted::Pending(request) => {
                self.requests[step as usize] = Some(request);
                self.in_flight += 1;
                Begun::InFlight
            }
        }
    }

    /// What the end of a send or receive means for the run. `expected`: bytes of a receive.
    #[inline]
    fn conclude(&mut self, expected: Option<u64>, outcome: Result<Envelope, Failure>) -> Begun {
        match outcome {
            Ok(envelope) if expected.is_none_or(|expected| expected == envelope.bytes) => Begun::Over,
            outcome => self.fail(expected, outcome),
        }
    }

    #[cold]
    fn fail(&mut self, expected: Option<u64>, outcome: Result<Envelope, Failure>) -> Begun {
        let trouble = match outcome {
            Ok(Envelope { source, bytes: given, .. }) => {
                Trouble::Disagreement { source, given, expected: expected.unwrap_or(given) }
            }
            Err(Failure::Truncated { sent, capacity, envelope }) => {
                Trouble::Disagreement { source: envelope.source, given: sent, expected: capacity }
            }
            Err(failure) => Trouble::Engine(failure),
        };
        self.trouble.get_or_insert(trouble);
        Begun::Failed
    }

    #[inline(always)]
    fn release_successors(&mut self, step: StepIndex) {
        let call = self.call.as_ref().expect("a run that goes on has been started");
        for &successor in call.plan.successors(step) {
            let blockers = &mut self.blockers[successor as usize];
            *blockers -= 1;
            if *blockers == 0 {
                self.ready.push(successor);
            }
        }
    }

    /// Something went wrong: nothing new starts, and what can be called back is. The run ends when nothing is in flight,
    /// because until then the caller's memory is claimed.
    #[cold]
    fn give_up<T: Transport>(&mut self, engine: &mut Engine<T>) {
        self.next = self.ready.len();
        for request in self.requests.iter_mut().filter_map(mem::take) {
            engine.cancel(request);
        }
    }
}

/// Steps meet by label, never by arrival: the number of the collective and the label within it.
#[inline]
pub(crate) fn step_tag(sequence: u32, label: u32) -> Tag {
    Tag(u64::from(sequence) << 32 | u64::from(label))
}

/// The memory a slice means.
#[inline]
fn cut(spaces: &[Buf; 3], slice: Slice) -> Buf {
    let space = spaces[slice.space as usize];
    space.slice(slice.offset as usize..(slice.offset + slice.len) as usize)
}
