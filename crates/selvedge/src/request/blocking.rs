//! Blocking calls: start, then wait. The claims made here end before the call returns, whatever happens.

use std::time::{Duration, Instant};

use selvedge_coll::{Collective, Shape};
use selvedge_engine::{Context, Failure, Matched, Tag};
use selvedge_transport::{Buf, Peer};

use crate::collective::Prepared;
use crate::collective::compare::Called;
use crate::collective::op::Reducer;
use crate::communicator::{Communicator, Road};
use crate::datatype::Datatype;
use crate::datatype::memory::{Aftermath, Arriving, Settled, Unfit, claim, claim_mut};
use crate::datatype::view::{Buffer, View, ViewMut};
use crate::error::{Error, Refused, Result};
use crate::message::staged::{Body, scattered_room, stamped_claim};
use crate::message::{Address, Pattern, Status};
use crate::runtime::{Call, Operation, Outcome, Runtime, Started, Trouble};

/// Longest sleep of a rank that waits, between two looks around. Nothing depends on it: whatever ends the wait also
/// ends the sleep.
pub(crate) const SLEEP_MAX: Duration = Duration::from_millis(500);

impl Communicator {
    #[inline(always)]
    pub(crate) fn send_and_wait<T: Datatype>(
        &self,
        message: View<'_, T>,
        peer: Peer,
        tag: Tag,
    ) -> Result<()> {
        let Some(slice) = self.direct(&message) else { return self.send_body_and_wait(message, peer, tag) };
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let buf = unsafe { claim(slice) };
        let started = self.runtime.enter().send(peer, self.message_context(), tag, buf);
        self.finish(started).map(drop).map_err(|trouble| self.explain(trouble))
    }

    #[cold]
    fn send_body_and_wait<T: Datatype>(&self, message: View<'_, T>, peer: Peer, tag: Tag) -> Result<()> {
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let (buf, aftermath) = unsafe { self.outgoing(&message) };
        let started = self.runtime.enter().send_body(peer, self.message_context(), tag, buf);
        let outcome = self.finish(started);
        drop(aftermath);
        outcome.map(drop).map_err(|trouble| self.explain(trouble))
    }

    pub(crate) fn ssend_and_wait<T: Datatype>(
        &self,
        message: View<'_, T>,
        peer: Peer,
        tag: Tag,
    ) -> Result<()> {
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let (buf, aftermath) = unsafe { self.outgoing(&message) };
        let started = self.runtime.enter().send_body_sync(peer, self.message_context(), tag, buf);
        let outcome = self.finish(started);
        drop(aftermath);
        outcome.map(drop).map_err(|trouble| self.explain(trouble))
    }

    #[inline(always)]
    pub(crate) fn recv_and_wait<T: Datatype>(
        &self,
        message: ViewMut<'_, T>,
        pattern: Pattern,
    ) -> Result<Status> {
        let slice = match self.direct_mut(message) {
            Ok(slice) => slice,
            Err(message) => return self.recv_body_and_wait(message, pattern),
        };
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let (buf, aftermath) = unsafe { claim_mut(slice) };
        let started = self.runtime.enter().recv(pattern.0, self.message_context(), pattern.1, buf);
        let outcome = self.finish(started);
        self.received(outcome, aftermath)
    }

    #[cold]
    fn recv_body_and_wait<T: Datatype>(&self, message: ViewMut<'_, T>, pattern: Pattern) -> Result<Status> {
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let (buf, aftermath) = unsafe { self.incoming(message) };
        let started = self.runtime.enter().recv_body(pattern.0, self.message_context(), pattern.1, buf);
        let outcome = self.finish(started);
        self.received(outcome, aftermath)
    }

    /// What the end of a receive means to the caller.
    #[inline(always)]
    pub(crate) fn received(&self, outcome: Outcome, aftermath: Aftermath) -> Result<Status> {
        self.told(outcome, aftermath.settle())
    }

    /// As [`Communicator::received`], when what was left to do has been done.
    #[inline(always)]
    pub(crate) fn told(&self, outcome: Outcome, settled: Settled) -> Result<Status> {
        let status = match outcome {
            Ok(envelope) => self.status(envelope),
            Err(trouble) => return Err(self.explain_receive(trouble, settled)),
        };
        settled.map_err(|unfit| unfit.of_message(status, self.rank())).refused_by(self)?;
        Ok(status)
    }

    /// Where a message is too long its stamp says more than its length.
    #[cold]
    fn explain_receive(&self, trouble: Trouble, settled: Settled) -> Error {
        match (trouble, settled) {
            (Trouble::Engine(Failure::Truncated { envelope, .. }), Err(unfit))
                if matches!(*unfit, Unfit::Mismatch { .. }) =>
            {
                unfit.of_message(self.status(envelope), self.rank()).into()
            }
            (trouble, _) => self.explain(trouble),
        }
    }

    pub(crate) fn send_recv_and_wait<T: Datatype, U: Datatype>(
        &self,
        send: View<'_, T>,
        to: Address,
        recv: ViewMut<'_, U>,
        pattern: Pattern,
    ) -> Result<Status> {
        // SAFETY: the borrow lasts until this function returns, and `exchange` returns after both operations.
        let sending = unsafe { self.outgoing(&send) };
        // SAFETY: as above.
        let receiving = unsafe { self.incoming(recv) };
        self.exchange(sending, to, receiving, pattern)
    }

    /// Sends a claim and receives into another at the same time, and returns when both operations are complete.
    #[inline]
    fn exchange(
        &self,
        (from, kept): (Body, Aftermath),
        (peer, tag): Address,
        (into, aftermath): (Body, Aftermath),
        pattern: Pattern,
    ) -> Result<Status> {
        let (receiving, sending) = {
            let mut runtime = self.runtime.enter();
            let receiving = runtime.recv_body(pattern.0, self.message_context(), pattern.1, into);
            (receiving, runtime.send_body(peer, self.message_context(), tag, from))
        };
        let sent = self.finish(sending);
        drop(kept);
        let received = self.finish(receiving);
        let received = self.received(received, aftermath);
        sent.map_err(|trouble| self.explain(trouble))?;
        received
    }

    pub(crate) fn replace_and_wait<T: Datatype>(
        &self,
        message: ViewMut<'_, T>,
        (peer, tag): Address,
        pattern: Pattern,
    ) -> Result<Status> {
        if self.stamp_bytes > 0 {
            // A stamped message is copied before it leaves: its place is free at once.
            return self.replace_stamped(message, (peer, tag), pattern);
        }
        let context = self.message_context();
        // SAFETY: the borrow lasts until this function returns, and all `finish` return after their operations. Those
        // that write to this claim are started when those that read it are complete.
        let (buf, aftermath) = unsafe { self.incoming(message) };
        let sending = self.runtime.enter().send_body(peer, context, tag, buf.again());
        if let Started::Done(Ok(_)) = sending {
            let receiving = self.runtime.enter().recv_body(pattern.0, context, pattern.1, buf);
            let received = self.finish(receiving);
            return self.received(received, aftermath);
        }
        let mut spare = vec![0u8; buf.len()];
        // SAFETY: as above; `spare` is dropped when this function returns.
        let (into, _) = unsafe { claim_mut(&mut spare) };
        let receiving = self.runtime.enter().recv(pattern.0, context, pattern.1, into);
        let (sent, received) = (self.finish(sending), self.finish(receiving));
        sent.map_err(|trouble| self.explain(trouble))?;
        let arrived = match &received {
            Ok(envelope) => spare.len().min(envelope.bytes as usize),
            Err(Trouble::Engine(Failure::Truncated { .. })) => spare.len(),
            Err(_) => 0,
        };
        buf.fill_from(&spare[..arrived]);
        self.received(received, aftermath)
    }

    #[cold]
    fn replace_stamped<T: Datatype>(
        &self,
        message: ViewMut<'_, T>,
        to: Address,
        pattern: Pattern,
    ) -> Result<Status> {
        // SAFETY: a copy is claimed, which lasts until this function returns, after `exchange` has.
        let sending = unsafe { self.outgoing(&message.as_view()) };
        // SAFETY: the borrow lasts until this function returns, and `exchange` returns after both operations.
        let receiving = unsafe { self.incoming(message) };
        self.exchange(sending, to, receiving, pattern)
    }

    /// Receives a message that a probe has taken out.
    pub(crate) fn recv_matched_and_wait<T: Datatype>(
        &self,
        message: ViewMut<'_, T>,
        matched: Matched,
    ) -> Result<Status> {
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let (buf, aftermath) = unsafe { self.incoming(message) };
        let started = self.runtime.enter().recv_matched_body(matched, buf);
        let outcome = self.finish(started);
        self.received(outcome, aftermath)
    }

    /// Receives such a message into a vector that waits for its values.
    pub(crate) fn recv_matched_arriving<T: Datatype>(
        &self,
        message: &mut Arriving<T>,
        matched: Matched,
    ) -> Result<Status> {
        let (buf, aftermath) = match self.stamp_bytes {
            0 => (message.claim(), Aftermath::NOTHING),
            _ => stamped_claim::<T>(message.claim()),
        };
        let started = self.runtime.enter().recv_matched(matched, buf);
        let outcome = self.finish(started);
        self.received(outcome, aftermath)
    }

    pub(crate) fn probe_and_wait(&self, pattern: Pattern) -> Result<Status> {
        let seen =
            self.probe_until(pattern, |runtime, context| runtime.probe(pattern.0, context, pattern.1))?;
        Ok(self.status(seen))
    }

    pub(crate) fn mprobe_and_wait(&self, pattern: Pattern) -> Result<Matched> {
        self.probe_until(pattern, |runtime, context| runtime.probe_matched(pattern.0, context, pattern.1))
    }

    /// Asks `look` until it has seen something.
    pub(crate) fn probe_until<S>(
        &self,
        pattern: Pattern,
        look: impl Fn(&mut Runtime<Road>, Context) -> Result<Option<S>, Trouble>,
    ) -> Result<S> {
        let seen = self.wait_until(|runtime, outlook| {
            let seen = look(runtime, self.message_context()).transpose();
            match outlook {
                _ if seen.is_some() => {
                    runtime.awake();
                    seen
                }
                Outlook::OnlyOneself if runtime.engine().probes_for_itself(pattern.0, self.size() == 1) => {
                    Some(Err(Trouble::WaitsForItself))
                }
                Outlook::AmongTheGone if pattern.0.is_none() => {
                    let fault = runtime.forsaken(&self.group)?;
                    Some(Err(Trouble::Engine(Failure::Fault(fault))))
                }
                _ => None,
            }
        });
        seen.map_err(|trouble| self.explain(trouble))
    }

    /// Makes progress until `look` finds something.
    pub(crate) fn wait_until<R>(&self, mut look: impl FnMut(&mut Runtime<Road>, Outlook) -> Option<R>) -> R {
        let mut runtime = self.runtime.enter();
        if runtime.is_shared() {
            drop(runtime);
            return self.runtime.wait_until(look);
        }
        let mut outlook = Outlook::Fair;
        loop {
            if let Some(found) = look(&mut runtime, outlook) {
                return found;
            }
            outlook = match outlook {
                _ if runtime.progress() => Outlook::Fair,
                // Once more, before the sleep.
                Outlook::Fair => Outlook::OnlyOneself,
                _ => match sleep(&mut runtime) {
                    Slept::Lightly => Outlook::Fair,
                    Slept::AmongTheGone => Outlook::AmongTheGone,
                },
            };
        }
    }

    /// Runs a collective to its end.
    pub(crate) fn run<T: Datatype>(&self, prepared: Prepared<'_, T>) -> Result<()> {
        let Prepared { shape, input, output, reducer } = prepared;
        if shape.count == 0 && shape.collective != Collective::Barrier {
            return self.compare_calls(Called::of::<T>(&shape, reducer.as_ref()));
        }
        // SAFETY: the borrow lasts until this function returns, `finish` returns after the operation is complete, and a
        // verified schedule does not write its input.
        let input = unsafe { claim(input) };
        // SAFETY: as above; the output may be written.
        let (output, aftermath) = unsafe { claim_mut(output) };
        self.run_claimed::<T>(shape, input, (output, aftermath), reducer)
    }

    /// As [`Communicator::run`], of a message in several places.
    #[cold]
    pub(crate) fn run_scattered<T: Datatype>(&self, shape: Shape, message: ViewMut<'_, T>) -> Result<()> {
        if shape.count == 0 {
            return self.compare_calls(Called::of::<T>(&shape, None));
        }
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let claimed = unsafe { scattered_room(message) };
        self.run_claimed::<T>(shape, Buf::EMPTY, claimed, None)
    }

    #[inline(always)]
    fn run_claimed<T: Datatype>(
        &self,
        shape: Shape,
        input: Buf,
        (output, aftermath): (Buf, Aftermath),
        reducer: Option<Reducer>,
    ) -> Result<()> {
        let mut collecting = None;
        let started: Result<Option<Started>> = self.plans.with(
            &shape,
            || self.plan(Called::of::<T>(&shape, reducer.as_ref())),
            |plan| {
                let mut runtime = self.runtime.enter();
                if runtime.is_shared() {
                    collecting = Some(self.begin_collecting()?);
                }
                let (group, context, reducer) = (&self.group, self.collective_context(), reducer.as_ref());
                // Counted also where this rank has nothing to do, because others may.
                let sequence = self.next_sequence(&runtime);
                if plan.schedule().is_empty() {
                    return Ok(None);
                }
                Ok(Some(runtime.collective(Call { plan, group, context, sequence, input, output, reducer })))
            },
        );
        let Some(started) = started? else { return Ok(()) };
        let outcome = self.finish(started);
        drop(collecting);
        let settled = aftermath.settle();
        outcome.map_err(|trouble| self.explain(trouble))?;
        settled.refused_by(self)
    }

    /// Waits for the end of something that was started.
    #[inline]
    pub(crate) fn finish(&self, started: Started) -> Outcome {
        match started {
            Started::Done(outcome) => outcome,
            Started::Pending(operation) => self.wait_for(operation),
        }
    }

    /// Waits for the end of an operation. Does not unwind before it: memory of the caller is claimed.
    pub(crate) fn wait_for(&self, operation: Operation) -> Outcome {
        let mut runtime = self.runtime.enter();
        if runtime.is_shared() {
            drop(runtime);
            return self.wait_among_threads(operation);
        }
        let guard = AbortOnUnwind;
        let end = loop {
            if let Some(end) = runtime.progress_to(operation) {
                break end;
            }
            if runtime.give_up_on_oneself(operation, self.size() == 1) {
                continue;
            }
            if doze(&mut runtime, Some(operation)) == Slept::AmongTheGone {
                runtime.forsake(operation, &self.group);
            }
        };
        std::mem::forget(guard);
        end.outcome()
    }

    #[cold]
    #[inline(never)]
    fn wait_among_threads(&self, operation: Operation) -> Outcome {
        let guard = AbortOnUnwind;
        let end = self.runtime.wait_for(operation, |runtime| runtime.forsake(operation, &self.group));
        std::mem::forget(guard);
        end.outcome()
    }
}

impl Runtime<Road> {
    /// Lets peers have the answers that they may be waiting for, before this rank leaves.
    pub(crate) fn answer(&mut self) {
        while !self.engine().has_answered() {
            if !self.progress() {
                self.wait(SLEEP_MAX);
            }
        }
    }
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// Something may have happened.
    Lightly,
    /// Some rank is gone, and of the others nobody said a word for [`SLEEP_MAX`].
    AmongTheGone,
}

/// What a thread that looks for something has to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It may come.
    Fair,
    /// Nothing moves any more, and no other thread of this rank could send.
    OnlyOneself,
    /// Some rank is gone, and nothing has happened for long.
    AmongTheGone,
}

/// Sleeps until something may have happened, then makes progress.
#[inline]
pub(crate) fn sleep(runtime: &mut Runtime<Road>) -> Slept {
    let slept = doze(runtime, None);
    runtime.progress();
    slept
}

/// Sleeps until something may have happened, and leaves it to the caller to look. `operation`: what the caller waits for,
/// if it is one.
#[inline]
fn doze(runtime: &mut Runtime<Road>, operation: Option<Operation>) -> Slept {
    if runtime.engine().has_faulty_peers() {
        return sleep_among_the_gone(runtime, operation);
    }
    runtime.wait_in(operation, SLEEP_MAX);
    Slept::Lightly
}

#[cold]
fn sleep_among_the_gone(runtime: &mut Runtime<Road>, operation: Option<Operation>) -> Slept {
    let before = Instant::now();
    loop {
        runtime.wait_in(operation, SLEEP_MAX.saturating_sub(before.elapsed()));
        if runtime.progress() {
            return Slept::Lightly;
        }
        if before.elapsed() >= SLEEP_MAX {
            return Slept::AmongTheGone;
        }
    }
}

/// Ends the process when dropped. A panic below a wait is a defect of this library; to continue would give back memory
/// that another process may still be writing to.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("selvedge: panic while an operation was in flight; the process ends to protect its memory");
        std::process::abort();
    }
}
