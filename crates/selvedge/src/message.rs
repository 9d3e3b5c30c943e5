//! Point-to-point messages (MPI 5.0 chapters 3 and 4): the values around them and the blocking calls. Below: the modes of a send,
//! matched probes, and messages in partitions.

pub(crate) mod buffered;
pub(crate) mod channel;
pub(crate) mod matched;
pub(crate) mod modes;
pub(crate) mod partitioned;
pub(crate) mod staged;

use std::mem::size_of;

use selvedge_engine::{Envelope, Tag as EngineTag};
use selvedge_transport::Peer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::datatype::Datatype;
use crate::datatype::view::{Buffer, BufferMut};
use crate::error::{Misuse, Refused, Result};

/// Whose messages a receive takes: those of a rank, of anybody ([`ANY_SOURCE`]) or of nobody ([`PROC_NULL`]).
///
/// ```
/// use selvedge::{ANY_SOURCE, Communicator, Source};
///
/// fn next(world: &Communicator, from: impl Into<Source>) -> u64 {
///     let mut one = [0];
///     world.recv(&mut one, from, 0).unwrap();
///     one[0]
/// }
/// selvedge::local::run(1, |world| {
///     world.send(&[1_u64], 0, 0).unwrap();
///     world.send(&[2_u64], 0, 0).unwrap();
///     assert_eq!((next(&world, 0), next(&world, ANY_SOURCE), next(&world, None)), (1, 2, 0));
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(Who);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Rank(usize),
    Anybody,
    Nobody,
}

/// Matches any sender of the communicator.
pub const ANY_SOURCE: Source = Source(Who::Anybody);

/// Nobody (MPI_PROC_NULL, MPI 5.0 section 3.10): what is sent there is gone, what is received from there is nothing, and
/// both are over at once. It is just `None`, so that a neighbour that may not exist needs no `if`.
///
/// ```
/// use selvedge::PROC_NULL;
///
/// selvedge::local::run(3, |world| {
///     let (me, last) = (world.rank(), world.size() - 1);
///     let left = me.checked_sub(1);
///     let right = if me == last { PROC_NULL } else { Some(me + 1) };
///     let mut halo = [-1];
///     let status = world.sendrecv(&[me as i32], right, 0, &mut halo, left, 0).unwrap();
///     assert_eq!((halo[0], status.is_null()), (me as i32 - 1, me == 0));
/// });
/// ```
#[doc(alias = "MPI_PROC_NULL")]
pub const PROC_NULL: Option<usize> = None;

impl Source {
    /// The same, where a rank is called otherwise.
    pub(crate) fn map_rank<E>(
        self,
        f: impl FnOnce(usize) -> std::result::Result<usize, E>,
    ) -> std::result::Result<Source, E> {
        match self.0 {
            Who::Rank(rank) => f(rank).map(Source::from),
            Who::Anybody | Who::Nobody => Ok(self),
        }
    }
}

impl From<usize> for Source {
    #[inline]
    fn from(rank: usize) -> Source {
        Source(Who::Rank(rank))
    }
}

/// `None` is [`PROC_NULL`], and never [`ANY_SOURCE`].
impl From<Option<usize>> for Source {
    #[inline]
    fn from(rank: Option<usize>) -> Source {
        Source(rank.map_or(Who::Nobody, Who::Rank))
    }
}

/// Which messages of a sender a receive takes: those with this tag, or [`ANY_TAG`].
///
/// ```
/// selvedge::local::run(1, |world| {
///     use selvedge::{ANY_TAG, Tag};
///     world.send(&[1_u8], 0, 5).unwrap();
///     world.send(&[2_u8], 0, 6).unwrap();
///     for (tag, seen) in [(Tag::from(6), 6), (ANY_TAG, 5)] {
///         assert_eq!(world.recv(&mut [0_u8], 0, tag).unwrap().tag, seen);
///     }
/// });
/// ```
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
///
/// ```
/// selvedge::local::run(1, |world| {
///     world.send(&[1_u16, 2, 3], 0, 5).unwrap();
///     let status = world.recv(&mut [0_u16; 8], selvedge::ANY_SOURCE, selvedge::ANY_TAG).unwrap();
///     assert_eq!((status.source, status.tag, status.bytes, status.count::<u16>()), (0, 5, 6, 3));
/// });
/// ```
#[doc(alias = "MPI_Status")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Rank of the sender. The own rank of a collective, a send, and a receive from [`PROC_NULL`].
    pub source: usize,
    /// Tag of the message. 0 for collectives and sends, -1 for a receive from [`PROC_NULL`].
    pub tag: i32,
    /// Length of the message in bytes. 0 for collectives and sends.
    pub bytes: usize,
}

impl Status {
    /// Whether it is that of a receive from, or a probe for, [`PROC_NULL`]: there was no message.
    pub fn is_null(&self) -> bool {
        self.tag < 0
    }

    /// Length of the message in elements; a partial one at the end does not count.
    pub fn count<T: Datatype>(&self) -> usize {
        self.bytes.checked_div(size_of::<T>()).unwrap_or(0)
    }
}

/// A destination and a tag as the engine knows them.
pub(crate) type Address = (Peer, EngineTag);

/// A source and a tag as the engine matches them.
pub(crate) type Pattern = (Option<Peer>, Option<EngineTag>);

impl Communicator {
    /// Sends `message` to rank `dest` (MPI_Send). Returns when the buffer may be changed again: at once for a small
    /// message, after the receiver has fetched it for a large one.
    ///
    /// To oneself a small message is kept until it is received. For a larger one the receive has to be there already, by
    /// [`Scope::irecv`](crate::Scope::irecv) or [`Communicator::sendrecv`]: nobody else could start it.
    ///
    /// Cost: two copies up to about 8 KiB, one above where the kernel permits it.
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.send(&[1.5, 2.5], 1, 7).unwrap();
    ///         world.send(&['x'], None, 0).unwrap(); // to nobody
    ///     } else {
    ///         let mut message = [0.0; 2];
    ///         world.recv(&mut message, 0, 7).unwrap();
    ///         assert_eq!(message, [1.5, 2.5]);
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse`] for a rank or tag out of range, and [`Misuse::WaitsForItself`] instead of a wait without end;
    /// [`crate::Error::Fault`] when the receiver is dead or has left.
    #[doc(alias = "MPI_Send")]
    #[inline]
    pub fn send<B: Buffer + ?Sized>(
        &self,
        message: &B,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        match self.destination(dest.into(), tag)? {
            Some((peer, tag)) => self.send_and_wait(message.as_view(), peer, tag),
            None => Ok(()),
        }
    }

    /// Receives one message into `message`, which may be longer than it (MPI_Recv).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     if world.rank() > 0 {
    ///         return world.send(&vec![7_u8; world.rank()], 0, 0).unwrap();
    ///     }
    ///     let mut buffer = [0_u8; 8];
    ///     let first = world.recv(&mut buffer, selvedge::ANY_SOURCE, selvedge::ANY_TAG).unwrap();
    ///     assert_eq!(first.count::<u8>(), first.source);
    ///     assert_eq!(world.recv(&mut buffer, 3 - first.source, 0).unwrap().bytes, 3 - first.source);
    /// });
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Truncated`] when the message is longer than the buffer; [`Misuse::InvalidElement`] when bytes
    /// arrived that are no value of `T`; the rest as for [`Communicator::send`].
    /// From [`ANY_SOURCE`] a [`crate::Error::Fault`] when somebody dies meanwhile, whose the message might have been, or
    /// when all others have left.
    #[doc(alias = "MPI_Recv")]
    #[inline]
    pub fn recv<B: BufferMut + ?Sized>(
        &self,
        message: &mut B,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<Status> {
        match self.pattern(source.into(), tag.into())? {
            Some(pattern) => self.recv_and_wait(message.as_view_mut(), pattern),
            None => Ok(self.null_status()),
        }
    }

    /// Receives one message of any length (MPI_Mprobe, then MPI_Mrecv).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.send(&[1, 2, 3], 1, 0).unwrap();
    ///     } else {
    ///         let (numbers, status) = world.recv_vec::<i32>(0, 0).unwrap();
    ///         assert_eq!((numbers, status.source), (vec![1, 2, 3], 0));
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::PartialElement`] when its bytes are no whole number of `T`, [`Misuse::InvalidElement`] when they are no
    /// values of it; it is received all the same. The rest as for [`Communicator::recv`], without truncation.
    #[doc(alias("MPI_Mprobe", "MPI_Mrecv"))]
    pub fn recv_vec<T: Datatype>(
        &self,
        source: impl Into<Source>,
        tag: impl Into<Tag>,
    ) -> Result<(Vec<T>, Status)> {
        self.mprobe(source, tag)?.recv_vec()
    }

    /// Sends one message and receives another at the same time (MPI_Sendrecv), so that a ring of ranks that all do this
    /// does not wait for itself.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let (me, size) = (world.rank(), world.size());
    ///     let mut theirs = [0];
    ///     world.sendrecv(&[me], (me + 1) % size, 0, &mut theirs, (me + size - 1) % size, 0).unwrap();
    ///     assert_eq!(theirs, [(me + size - 1) % size]);
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::send`] and [`Communicator::recv`]. Both halves are complete when it returns, also with an error.
    #[doc(alias = "MPI_Sendrecv")]
    pub fn sendrecv<S: Buffer + ?Sized, R: BufferMut + ?Sized>(
        &self,
        send: &S,
        dest: impl Into<Option<usize>>,
        send_tag: i32,
        recv: &mut R,
        source: impl Into<Source>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        let to = self.destination(dest.into(), send_tag)?;
        let (send, recv) = (send.as_view(), recv.as_view_mut());
        match (to, self.pattern(source.into(), recv_tag.into())?) {
            (Some(to), Some(from)) => self.send_recv_and_wait(send, to, recv, from),
            (Some((peer, tag)), None) => {
                self.send_and_wait(send, peer, tag)?;
                Ok(self.null_status())
            }
            (None, Some(from)) => self.recv_and_wait(recv, from),
            (None, None) => Ok(self.null_status()),
        }
    }

    /// Sends what is in `message` and receives another one into its place (MPI_Sendrecv_replace, MPI 5.0 section 3.12).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let (me, size) = (world.rank(), world.size());
    ///     let mut token = [me];
    ///     world.sendrecv_replace(&mut token, (me + 1) % size, 0, (me + size - 1) % size, 0).unwrap();
    ///     assert_eq!(token, [(me + size - 1) % size]);
    /// });
    /// ```
    ///
    /// Cost: as a send and a receive where the message leaves at once, as small ones do. Otherwise what is received needs a
    /// place of its own meanwhile: memory for one more message, and a copy.
    ///
    /// # Errors
    /// As [`Communicator::sendrecv`]. What is in `message` is then the one or the other.
    #[doc(alias = "MPI_Sendrecv_replace")]
    pub fn sendrecv_replace<B: BufferMut + ?Sized>(
        &self,
        message: &mut B,
        dest: impl Into<Option<usize>>,
        send_tag: i32,
        source: impl Into<Source>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        let to = self.destination(dest.into(), send_tag)?;
        let message = message.as_view_mut();
        match (to, self.pattern(source.into(), recv_tag.into())?) {
            (Some(to), Some(from)) => self.replace_and_wait(message, to, from),
            (Some((peer, tag)), None) => {
                self.send_and_wait(message.as_view(), peer, tag)?;
                Ok(self.null_status())
            }
            (None, Some(from)) => self.recv_and_wait(message, from),
            (None, None) => Ok(self.null_status()),
        }
    }

    /// Sends any serde value, encoded with postcard. Receive it with [`Communicator::recv_value`].
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.send_value(&("boiling point", Some(373.15)), 1, 0).unwrap();
    ///     } else {
    ///         let ((name, kelvin), _) = world.recv_value::<(String, Option<f64>)>(0, 0).unwrap();
    ///         assert_eq!((&name[..], kelvin), ("boiling point", Some(373.15)));
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Encoding`] when serde refuses the value; the rest as for [`Communicator::send`].
    pub fn send_value<V: Serialize + ?Sized>(
        &self,
        value: &V,
        dest: impl Into<Option<usize>>,
        tag: i32,
    ) -> Result<()> {
        let bytes = postcard::to_allocvec(value)
            .map_err(|error| Misuse::Encoding(format!("the value to send cannot be encoded: {error}")))
            .refused_by(self)?;
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
        });
        Ok((value.refused_by(self)?, status))
    }

    /// Waits until a message that matches is here and says what it is, without receiving it (MPI_Probe).
    ///
    /// ```
    /// selvedge::local::run(2, |world| {
    ///     if world.rank() == 0 {
    ///         world.send(&[1.5, 2.5], 1, 7).unwrap();
    ///     } else {
    ///         let seen = world.probe(selvedge::ANY_SOURCE, selvedge::ANY_TAG).unwrap();
    ///         assert_eq!((seen.source, seen.tag, seen.count::<f64>()), (0, 7, 2));
    ///         world.recv(&mut [0.0; 2], seen.source, seen.tag).unwrap();
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// As [`Communicator::recv`], without truncation.
    #[doc(alias = "MPI_Probe")]
    pub fn probe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Status> {
        match self.pattern(source.into(), tag.into())? {
            Some(pattern) => self.probe_and_wait(pattern),
            None => Ok(self.null_status()),
        }
    }

    /// As [`Communicator::probe`], but does not wait (MPI_Iprobe). Fails when waiting would.
    ///
    /// ```
    /// selvedge::local::run(1, |world| {
    ///     assert!(world.iprobe(0, 0).unwrap().is_none());
    ///     world.send(&[1_u8, 2], 0, 0).unwrap();
    ///     assert_eq!(world.iprobe(0, 0).unwrap().unwrap().bytes, 2);
    ///     world.recv(&mut [0_u8; 2], 0, 0).unwrap();
    /// });
    /// ```
    #[doc(alias = "MPI_Iprobe")]
    pub fn iprobe(&self, source: impl Into<Source>, tag: impl Into<Tag>) -> Result<Option<Status>> {
        let Some((source, tag)) = self.pattern(source.into(), tag.into())? else {
            return Ok(Some(self.null_status()));
        };
        let seen = self.runtime.enter().probe(source, self.message_context(), tag);
        let seen = seen.map_err(|trouble| self.explain(trouble))?;
        Ok(seen.map(|envelope| self.status(envelope)))
    }

    /// A destination and a tag the user named, as the engine knows them; `None` for [`PROC_NULL`].
    #[inline]
    pub(crate) fn destination(&self, dest: Option<usize>, tag: i32) -> Result<Option<Address>> {
        let tag = self.checked_tag(tag)?;
        match dest {
            Some(dest) => Ok(Some((self.checked_peer("destination", dest)?, tag))),
            None => Ok(None),
        }
    }

    /// A source and a tag the user named, as the engine knows them; `None` for [`PROC_NULL`].
    #[inline]
    pub(crate) fn pattern(&self, source: Source, tag: Tag) -> Result<Option<Pattern>> {
        let tag = tag.0.map(|tag| self.checked_tag(tag)).transpose()?;
        match source.0 {
            Who::Rank(rank) => Ok(Some((Some(self.checked_peer("source", rank)?), tag))),
            Who::Anybody => Ok(Some((None, tag))),
            Who::Nobody => Ok(None),
        }
    }

    #[inline]
    fn checked_tag(&self, tag: i32) -> Result<EngineTag> {
        match u64::try_from(tag) {
            Ok(tag) => Ok(EngineTag(tag)),
            Err(_) => Err(self.refuse(Misuse::TagOutOfRange(tag))),
        }
    }

    /// Of an operation that receives nothing.
    #[inline]
    pub(crate) fn own_status(&self) -> Status {
        Status { source: self.rank(), tag: 0, bytes: 0 }
    }

    /// Of a receive from [`PROC_NULL`].
    pub(crate) fn null_status(&self) -> Status {
        Status { source: self.rank(), tag: -1, bytes: 0 }
    }

    /// What was received, in terms of ranks.
    #[inline]
    pub(crate) fn status(&self, envelope: Envelope) -> Status {
        let source = self.rank_of(envelope.source);
        Status { source, tag: envelope.tag.0 as i32, bytes: self.without_stamp(envelope.bytes) as usize }
    }
}
