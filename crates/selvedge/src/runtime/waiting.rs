//! How a rank waits: it sleeps at its transport, writes down what it waits long for, and gives up what it waits for in vain.

use std::time::Duration;

use selvedge_coll::Rank;
use selvedge_engine::Failure;
use selvedge_transport::{Fault, Transport};

use crate::communicator::members::Members;
use crate::runtime::Runtime;
use crate::runtime::operations::{Operation, Owner};
use crate::runtime::outcome::{End, Trouble};
use crate::world::watch::{self, Watch};

impl<T: Transport> Runtime<T> {
    /// From now on whatever this rank waits long for is written down there.
    pub(crate) fn set_watch(&mut self, watch: Watch) {
        watch.arrive();
        self.watch = Some(Box::new(watch));
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

    /// Why a caller who does nothing but wait for a message from anybody of `group` waits in vain: all others are gone.
    /// Itself, the caller sends nothing more. Cost: nothing until a rank has gone, then a look-up per rank.
    #[cold]
    pub fn forsaken(&self, group: &Members) -> Option<Box<Fault>> {
        let me = self.engine.transport().me();
        let mut others =
            (0..group.size()).map(|rank| group.peer(Rank(rank as u32))).filter(|&peer| peer != me);
        let first = self.engine.fault_of(others.next()?)?;
        others.all(|peer| self.engine.fault_of(peer).is_some()).then(|| Box::new(first.clone()))
    }

    /// Ends a receive from anybody with what [`Runtime::forsaken`] says. Does nothing to other operations.
    #[cold]
    pub fn forsake(&mut self, operation: Operation, group: &Members) {
        let Some(Owner::Engine(request)) = self.operations.owner(operation) else { return };
        if self.engine.waits_for_anyone(request)
            && let Some(fault) = self.forsaken(group)
            && self.engine.cancel(request)
        {
            self.progress();
            let outcome = Err(Trouble::Engine(Failure::Fault(fault)));
            self.operations.conclude(operation.index, End::of(outcome));
        }
    }

    /// Ends an operation that only its caller could end, who does nothing but wait for it. `alone`: nobody else is in the
    /// communicator. False, and nothing happens, for all others.
    pub(crate) fn give_up_on_oneself(&mut self, operation: Operation, alone: bool) -> bool {
        let Some(Owner::Engine(request)) = self.operations.owner(operation) else { return false };
        if !self.engine.give_up_on_oneself(request, alone) {
            return false;
        }
        self.progress();
        let outcome = Err(Trouble::WaitsForItself);
        self.operations.conclude(operation.index, End::of(outcome));
        true
    }
}
