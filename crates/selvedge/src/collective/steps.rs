//! Messages of bytes within a collective: for collectives whose lengths nobody knows before they are sent, and which
//! therefore are no schedules.
//!
//! They travel in the context of collectives, unordered, and meet by the number of the collective and a label, as the
//! steps of schedules do.

use selvedge_engine::Tag;

use crate::collective::executor::step_tag;
use crate::communicator::{Collecting, Communicator};
use crate::datatype::memory::{claim, claim_mut};
use crate::error::{Misuse, Result};

/// The messages of one collective: made by every rank that takes part, once, in the order of its collectives.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    communicator: &'a Communicator,
    sequence: u32,
    /// Says to other threads of this rank that one is in a collective.
    _collecting: Option<Collecting<'a>>,
}

impl Communicator {
    /// Begins a collective of messages.
    ///
    /// # Errors
    /// [`Misuse::ConcurrentCollectives`] when another thread of this rank is in one.
    pub(crate) fn steps(&self) -> Result<Steps<'_>> {
        let runtime = self.runtime.enter();
        let collecting = if runtime.is_shared() { Some(self.begin_collecting()?) } else { None };
        Ok(Steps { communicator: self, sequence: self.next_sequence(&runtime), _collecting: collecting })
    }
}

impl Steps<'_> {
    fn tag(&self, label: u32) -> Tag {
        step_tag(self.sequence, label)
    }

    /// Sends to a rank, one message for each label.
    pub(crate) fn send(&self, bytes: &[u8], to: usize, label: u32) -> Result<()> {
        let world = self.communicator;
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let buf = unsafe { claim(bytes) };
        let (peer, context) = (world.peer_of(to), world.collective_context());
        let started = world.runtime.enter().send_step(peer, context, self.tag(label), buf);
        world.finish(started).map(drop).map_err(|trouble| world.explain(trouble))
    }

    /// Receives the message of that label from a rank, behind what is in `into` already. Bound: the memory there is.
    pub(crate) fn recv(&self, into: &mut Vec<u8>, from: usize, label: u32) -> Result<()> {
        let world = self.communicator;
        let (peer, tag) = (world.peer_of(from), self.tag(label));
        let context = world.collective_context();
        let seen = world.probe_until((Some(peer), Some(tag)), |runtime, _| {
            runtime.probe(Some(peer), context, Some(tag))
        })?;
        let old = into.len();
        make_room(into, seen.bytes, from)?;
        // SAFETY: the borrow lasts until this function returns, and `finish` returns after the operation is complete.
        let (buf, aftermath) = unsafe { claim_mut(&mut into[old..]) };
        let started = world.runtime.enter().recv(Some(peer), context, Some(tag), buf);
        let outcome = world.finish(started);
        drop(aftermath);
        outcome.map(drop).map_err(|trouble| world.explain(trouble))
    }

    /// Sends to one rank and receives from another at the same time, as many bytes as `into` has.
    pub(crate) fn exchange(&self, bytes: &[u8], to: usize, into: &mut [u8], from: usize) -> Result<()> {
        let world = self.communicator;
        let (to, from, tag) = (world.peer_of(to), world.peer_of(from), self.tag(0));
        let context = world.collective_context();
        // SAFETY: the borrow lasts until this function returns, and both `finish` return after their operations.
        let bytes = unsafe { claim(bytes) };
        // SAFETY: as above.
        let (into, aftermath) = unsafe { claim_mut(into) };
        let receiving = world.runtime.enter().recv(Some(from), context, Some(tag), into);
        let sending = world.runtime.enter().send_step(to, context, tag, bytes);
        let (sent, received) = (world.finish(sending), world.finish(receiving));
        drop(aftermath);
        sent.and(received).map(drop).map_err(|trouble| world.explain(trouble))
    }
}

/// Makes `into` longer by so many bytes, which a rank has announced.
pub(crate) fn make_room(into: &mut Vec<u8>, bytes: u64, source_rank: usize) -> Result<(), Misuse> {
    let more = usize::try_from(bytes).ok().filter(|&more| into.try_reserve_exact(more).is_ok());
    let Some(more) = more else { return Err(Misuse::NoRoom { bytes, source_rank }) };
    into.resize(into.len() + more, 0);
    Ok(())
}
