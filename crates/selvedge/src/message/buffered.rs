//! Buffered sends (MPI 5.0 sections 3.4 and 3.6): local, whatever the receiver does, as long as there is room.

use std::collections::VecDeque;
use std::mem;

use selvedge_transport::Buf;

use crate::communicator::Communicator;
use crate::datatype::memory::Scratch;
use crate::datatype::signature::Stamp;
use crate::datatype::view::Buffer;
use crate::error::{Error, Misuse, Refused, Result};
use crate::message::staged::copy_to;
use crate::runtime::{Operation, Started};

/// Messages start at multiples of this: at a cache line.
const GRAIN: usize = 64;

/// Memory for messages that have been sent and have not left (MPI_Comm_attach_buffer). One owns it, instead of attaching it
/// to a communicator: several can exist, and each is as large as its owner wants.
///
/// ```
/// selvedge::local::run(2, |world| {
///     let mut buffer = world.send_buffer(1 << 20);
///     let (mine, other) = (vec![world.rank(); 10_000], 1 - world.rank());
///     // Both send first and receive then: with `send` this would wait for ever.
///     buffer.bsend(&mine, other, 0).unwrap();
///     assert_eq!(world.recv_vec::<usize>(other, 0).unwrap().0, vec![other; 10_000]);
///     buffer.flush().unwrap();
/// });
/// ```
///
/// Dropping it waits until all of its messages have left (MPI_Comm_detach_buffer); in a panic it takes back those that have
/// not begun and leaves the memory to the others.
#[doc(alias = "MPI_Comm_attach_buffer")]
#[derive(Debug)]
pub struct SendBuffer<'c> {
    communicator: &'c Communicator,
    /// All of `owner`.
    memory: Buf,
    owner: Scratch,
    /// Messages on their way, a ring: they lie behind each other, those after the end of the memory at its beginning.
    /// Bound: memory / [`GRAIN`].
    messages: VecDeque<Kept>,
    /// The first that went wrong, until somebody asks.
    trouble: Option<Error>,
}

/// A message on its way.
#[derive(Debug)]
struct Kept {
    operation: Operation,
    begin: usize,
    end: usize,
}

impl Communicator {
    /// A buffer of `bytes` bytes for [`SendBuffer::bsend`]. A message takes its length, rounded up to 64 bytes.
    pub fn send_buffer(&self, bytes: usize) -> SendBuffer<'_> {
        let mut owner = Scratch::default();
        let memory = owner.claim(bytes.next_multiple_of(GRAIN));
        SendBuffer { communicator: self, memory, owner, messages: VecDeque::new(), trouble: None }
    }
}

impl SendBuffer<'_> {
    /// Copies `message` and sends the copy (MPI_Bsend). Returns at once; there is no `ibsend`, because there would be nothing
    /// to wait for. It moves while calls of the library run, as everything does.
    ///
    /// Cost: a copy more than [`Communicator::send`]; no allocation but for a list that stops growing.
    ///
    /// # Errors
    /// [`Misuse::BufferFull`] when there is no room; nothing is sent then. A rank or tag out of range as for
    /// [`Communicator::send`], and what an earlier message ended with, if it was not well.
    #[doc(alias = "MPI_Bsend")]
    pub fn bsend<B: Buffer + ?Sized>(
        &mut self,
        message: &B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        let Some((peer, tag)) = self.communicator.destination(dest.into(), tag)? else { return Ok(()) };
        let message = message.as_view();
        let stamp_bytes = self.communicator.stamp_bytes;
        let bytes = stamp_bytes + message.len() * size_of::<B::Element>();
        let begin = self.reserve(bytes)?;
        let place = self.memory.slice(begin..begin + bytes);
        if stamp_bytes > 0 {
            place.fill_from(&Stamp::of::<B::Element>(message.len()).encode());
        }
        copy_to(&message, place.slice(stamp_bytes..bytes));
        let context = self.communicator.message_context();
        let started = self.communicator.runtime.enter().send(peer, context, tag, place);
        match started {
            Started::Done(outcome) => outcome.map(drop).map_err(|trouble| self.communicator.explain(trouble)),
            Started::Pending(operation) => {
                self.messages.push_back(Kept { operation, begin, end: begin + taken(bytes) });
                self.trouble.take().map_or(Ok(()), Err)
            }
        }
    }

    /// Waits until all messages have left (MPI_Comm_flush_buffer).
    ///
    /// # Errors
    /// The first error that one of them ended with. All have ended also then.
    #[doc(alias = "MPI_Comm_flush_buffer")]
    pub fn flush(&mut self) -> Result<()> {
        while let Some(kept) = self.messages.pop_front() {
            let outcome = self.communicator.wait_for(kept.operation);
            self.note(outcome.map(drop).map_err(|trouble| self.communicator.explain(trouble)));
        }
        self.trouble.take().map_or(Ok(()), Err)
    }

    /// Where a message of so many bytes has room.
    fn reserve(&mut self, bytes: usize) -> Result<usize> {
        self.reclaim();
        if let Some(begin) = self.room(taken(bytes)) {
            return Ok(begin);
        }
        self.communicator.runtime.enter().progress();
        self.reclaim();
        let full = Misuse::BufferFull { capacity: self.memory.len(), needed: taken(bytes) };
        self.room(taken(bytes)).ok_or(full).refused_by(self.communicator)
    }

    fn room(&self, needed: usize) -> Option<usize> {
        let (Some(first), Some(last)) = (self.messages.front(), self.messages.back()) else {
            return (needed <= self.memory.len()).then_some(0);
        };
        let is_behind = |begin: usize, end: usize| end - begin >= needed;
        if last.end <= first.begin {
            return is_behind(last.end, first.begin).then_some(last.end);
        }
        if is_behind(last.end, self.memory.len()) {
            return Some(last.end);
        }
        is_behind(0, first.begin).then_some(0)
    }

    /// Forgets the messages that have left, up to the first that has not.
    fn reclaim(&mut self) {
        while let Some(first) = self.messages.front() {
            let ended = self.communicator.runtime.enter().take(first.operation);
            let Some(outcome) = ended else { return };
            self.messages.pop_front();
            self.note(outcome.map(drop).map_err(|trouble| self.communicator.explain(trouble)));
        }
    }

    fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.trouble.get_or_insert(error);
        }
    }
}

/// What a message of so many bytes takes: also one of none, so that places differ.
fn taken(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(GRAIN)
}

impl Drop for SendBuffer<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Who wants to know flushes.
            let _ = self.flush();
            return;
        }
        let Some(mut runtime) = self.communicator.runtime.try_enter() else {
            return mem::forget(mem::take(&mut self.owner));
        };
        for kept in &self.messages {
            runtime.cancel(kept.operation);
        }
        runtime.progress();
        if self.messages.iter().any(|kept| !runtime.is_done(kept.operation)) {
            mem::forget(mem::take(&mut self.owner));
        }
    }
}
