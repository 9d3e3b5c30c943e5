//! Point-to-point messages: the values around them and the blocking calls (MPI 5.0 chapter 3).

use std::mem::size_of;

use selvedge_engine::{Envelope, Tag as EngineTag};
use selvedge_transport::Peer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::error::{Misuse, Result};
use crate::memory::Arriving;

/// Whose messages a receive takes: a rank, or [`ANY_SOURCE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(Option<usize>);

/// Matches any sender of the communicator.
pub const ANY_SOURCE: Source = Source(None);

impl From<usize> for Source {
    fn from(rank: usize) -> Source {
        Source(Some(rank))
    }
}

/// Which messages of a sender a receive takes: those with this tag, or [`ANY_TAG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(Option<i32>);

/// Matches any tag.
pub const ANY_TAG: Tag = Tag(None);

impl From<i32> for Tag {
    fn from(tag: i32) -> Tag {
        Tag(Some(tag))
    }
}

/// What a receive took, or a probe saw (MPI_Status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Rank of the sender. A collective's or a send's own rank.
    pub source: usize,
    /// Tag of the message. 0 for collectives and sends.
    pub tag: i32,
    /// Length of the message in bytes. 0 for collectives and sends.
    pub bytes: usize,
}

impl Status {
    /// Length of the message in elements; a partial one at the end does not count.
    pub fn count<T: Datatype>(&self) -> usize {
        self.bytes.checked_div(size_of::<T>()).unwrap_or(0)
    }
}

/// A source and a tag as the engine matches them.
pub(crate) type Pattern = (Option<Peer>, Option<EngineTag>);

impl Communicator {
    /// Sends `message` to rank `dest` (MPI_Send). Returns when the buffer may be changed again: at once for a small
    /// message, after the receiver has fetched it for a large one.
    ///
    /// Cost: two copies up to about 8 KiB, one above where the kernel permits it.
    ///
    /// # Errors
    /// [`Misuse`] for a rank or tag out of range, [`crate::Error::Fault`] when the receiver is dead or has left.
    #[inline]
    pub fn send<T: Datatype>(&self, message: &[T], dest: usize, tag: i32) -> Result<()> {
        let (peer, tag) = self.destination(dest, tag)?;
        self.send_and_wait(message, peer, tag)
    }

    /// Receives one message into `message`, which may be longer than it (MPI_Recv).
    ///
    /// # Errors
    /// [`crate::Error::Truncated`] when the message is longer than the buffer; [`Misuse::InvalidElement`] when bytes
    /// arrived that are no value of `T`; the rest as for [`Communicator::send`].
    /// From [`ANY_SOURCE`] a [`crate::Error::Fault`] when somebody dies meanwhile, whose the message might have been, or
    /// when all others have left.
    #[inline]
    pub fn recv<T: Datatype>(
        &self,
        message: &mut [T],
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Status> {
        let pattern = self.pattern(source.into(), tag.into())?;
        self.recv_and_wait(message, pattern)
    }

    /// Receives one message of any length (MPI_Probe, then MPI_Recv of just that message).
    ///
    /// # Errors
    /// [`Misuse::PartialElement`] when its bytes are no whole number of `T`, [`Misuse::InvalidElement`] when they are no
    /// values of it; it is received all the same.
    pub fn recv_vec<T: Datatype>(
        &self,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(Vec<T>, Status)> {
        let seen = self.probe(source, tag)?;
        if seen.bytes.checked_rem(size_of::<T>()).is_none_or(|rest| rest != 0) {
            self.recv(&mut vec![0u8; seen.bytes], seen.source, seen.tag)?;
            return Err(Misuse::PartialElement {
                bytes: seen.bytes as u64,
                element_bytes: size_of::<T>(),
                source_rank: seen.source,
            }
            .into());
        }
        // The communicator belongs to this thread, so nobody can have taken the message since it was seen.
        let pattern = self.pattern(Source(Some(seen.source)), Tag(Some(seen.tag)))?;
        let mut message = Arriving::new(seen.count::<T>());
        let status = self.recv_arriving(&mut message, pattern)?;
        let message = message.finish().map_err(|invalid| invalid.from(status.source))?;
        Ok((message, status))
    }

    /// Sends one message and receives another at the same time (MPI_Sendrecv), so that a ring of ranks that all do this
    /// does not wait for itself.
    ///
    /// # Errors
    /// As [`Communicator::send`] and [`Communicator::recv`]. Both halves are complete when it returns, also with an error.
    pub fn sendrecv<T: Datatype, U: Datatype>(
        &self,
        send: &[T],
        dest: usize,
        send_tag: i32,
        recv: &mut [U],
        source: impl Into<Source>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        let (peer, tag) = self.destination(dest, send_tag)?;
        let pattern = self.pattern(source.into(), recv_tag.into())?;
        self.send_recv_and_wait(send, peer, tag, recv, pattern)
    }

    /// Sends any serde value, encoded with postcard. Receive it with [`Communicator::recv_value`].
    ///
    /// # Errors
    /// [`Misuse::Encoding`] when serde refuses the value; the rest as for [`Communicator::send`].
    pub fn send_value<V: Serialize + ?Sized>(&self, value: &V, dest: usize, tag: i32) -> Result<()> {
        let bytes = postcard::to_allocvec(value)
            .map_err(|error| Misuse::Encoding(format!("the value to send cannot be encoded: {error}")))?;
        self.send(&bytes, dest, tag)
    }

    /// Receives a value sent with [`Communicator::send_value`].
    ///
    /// # Errors
    /// [`Misuse::Encoding`] when the message is no such value; it is received all the same.
    pub fn recv_value<V: DeserializeOwned>(
        &self,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(V, Status)> {
        let (bytes, status) = self.recv_vec::<u8>(source, tag)?;
        let value = postcard::from_bytes(&bytes).map_err(|error| {
            let from = status.source;
            Misuse::Encoding(format!(
                "the message of rank {from} is no {}: {error}",
                std::any::type_name::<V>()
            ))
        })?;
        Ok((value, status))
    }

    /// Waits until a message that matches is here and says what it is, without receiving it (MPI_Probe).
    ///
    /// # Errors
    /// As [`Communicator::recv`], without truncation.
    pub fn probe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Status> {
        let pattern = self.pattern(source.into(), tag.into())?;
        self.probe_and_wait(pattern)
    }

    /// As [`Communicator::probe`], but does not wait (MPI_Iprobe). Fails when waiting would.
    pub fn iprobe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Option<Status>> {
        let (source, tag) = self.pattern(source.into(), tag.into())?;
        let seen = self.runtime.borrow_mut().probe(source, self.message_context(), tag);
        let seen = seen.map_err(|trouble| self.explain(trouble))?;
        Ok(seen.map(|envelope| self.status(envelope)))
    }

    /// A destination and a tag the user named, as the engine knows them.
    #[inline]
    pub(crate) fn destination(&self, dest: usize, tag: i32) -> Result<(Peer, EngineTag)> {
        Ok((self.checked_peer("destination", dest)?, checked_tag(tag)?))
    }

    /// A source and a tag the user named, as the engine knows them.
    #[inline]
    pub(crate) fn pattern(&self, source: Source, tag: Tag) -> Result<Pattern> {
        let source = source.0.map(|rank| self.checked_peer("source", rank)).transpose()?;
        Ok((source, tag.0.map(checked_tag).transpose()?))
    }

    /// What was received, in terms of ranks.
    #[inline]
    pub(crate) fn status(&self, envelope: Envelope) -> Status {
        let source = self.rank_of(envelope.source);
        Status { source, tag: envelope.tag.0 as i32, bytes: envelope.bytes as usize }
    }
}

#[inline]
fn checked_tag(tag: i32) -> Result<EngineTag> {
    match u64::try_from(tag) {
        Ok(tag) => Ok(EngineTag(tag)),
        Err(_) => Err(Misuse::TagOutOfRange(tag).into()),
    }
}
