//! What a message is to the caller: names to match on, and how it ended.

use selvedge_transport::{Fault, Peer};

use crate::request::RequestId;

/// Context id of a communicator: messages of different contexts never match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Context(pub u32);

/// What a message is called within its context. Below 2^32 for [`Order::Ordered`]; all 64 bits for
/// [`Order::Unordered`], where a collective puts its sequence number and the label of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// Whether messages between two peers may overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Of two messages from one peer to another that match the same receive, the first sent is received first
    /// (MPI 5.0, 3.5 "Semantics of Point-to-Point Communication", non-overtaking).
    Ordered,
    /// Matched as they arrive. For messages whose tag is used once, such as the steps of a collective: they never wait
    /// for a predecessor that the network delayed.
    Unordered,
}

/// Who sent what. For a receive: the sender and the bytes the message really had, also when fewer fit. For a send:
/// oneself and the bytes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub source: Peer,
    /// Its context.
    pub context: Context,
    /// Its tag.
    pub tag: Tag,
    /// Its length.
    pub bytes: u64,
}

/// Why an operation did not end as hoped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The message was longer than the receive. The first `capacity` bytes were delivered, the rest is lost; the
    /// sender does not notice (MPI 5.0, 3.2.4: an overflow error of the receive).
    #[error("a message of {sent} bytes into a receive of {capacity} bytes")]
    Truncated {
        /// Bytes of the message.
        sent: u64,
        /// Bytes of the receive.
        capacity: u64,
        /// The message.
        envelope: Envelope,
    },
    /// [`crate::Engine::cancel`] ended it before it was matched (a receive) or begun (a send).
    #[error("cancelled")]
    Cancelled,
    /// The world: most often the peer is dead.
    #[error("{0}")]
    Fault(Box<Fault>),
}

/// How an operation ended.
pub type Outcome = Result<Envelope, Failure>;

/// The answer to [`crate::Engine::send`] and [`crate::Engine::recv`].
#[derive(Debug)]
#[must_use = "an operation that is pending has to be polled for"]
pub enum Submitted {
    /// It is over; no [`Completion`] follows.
    Done(Outcome),
    /// Exactly one [`Completion`] follows, with the caller's `user` value.
    Pending(RequestId),
}

/// An operation is over: its memory is the caller's again.
#[derive(Debug)]
pub struct Completion {
    /// What the caller gave to `send` or `recv`.
    pub user: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Envelope {
    /// How a receive of `capacity` bytes ends that matched this message.
    #[inline]
    pub(crate) fn into_outcome(self, capacity: u64) -> Outcome {
        if self.bytes <= capacity {
            Ok(self)
        } else {
            Err(Failure::Truncated { sent: self.bytes, capacity, envelope: self })
        }
    }
}
