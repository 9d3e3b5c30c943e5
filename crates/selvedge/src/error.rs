//! What can go wrong, said so that the reader knows whose turn it is.

mod class;
mod handler;
pub(crate) mod told;

use std::fmt;

use selvedge_transport::{Fault, Scope};

use crate::datatype::memory::{Invalid, Unfit};
use crate::datatype::signature::Stamp;
use crate::message::Status;
pub use class::ErrorClass;
pub use handler::ErrorHandler;
pub(crate) use handler::Refused;

/// The result of every call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not do what was asked.
///
/// Nothing aborts the process behind the caller's back (MPI's default error handler does): the program decides, and
/// [`crate::Communicator::abort`] is there when it decides so, or an [`ErrorHandler`] that decides for all calls. Every
/// text, its cause and its remedy are on the page docs/ERRORS.md.
///
/// `Debug` prints the same sentence as `Display`, so that a `main` that returns [`Result`] ends with words for people.
///
/// ```
/// selvedge::local::run(1, |world| {
///     use selvedge::Error;
///     world.send(&[0u8; 9], 0, 4).unwrap();
///     match world.recv(&mut [0u8; 8], 0, 4) {
///         Err(Error::Truncated { sent, capacity, .. }) => assert_eq!((sent, capacity), (9, 8)),
///         other => panic!("{other:?}"),
///     }
/// });
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The message was longer than the receive (MPI_ERR_TRUNCATE, MPI 5.0 section 3.2.4). The first `capacity` bytes
    /// have been received, the rest is gone.
    #[error(
        "message of {sent} bytes from rank {source_rank} with tag {tag} does not fit a receive of {capacity} bytes; \
         probe for the size first, or receive into a Vec with recv_vec"
    )]
    Truncated {
        /// Who sent it.
        source_rank: usize,
        /// Its tag.
        tag: i32,
        /// How long it was, bytes.
        sent: u64,
        /// How long the receive was, bytes.
        capacity: u64,
    },
    /// The caller asked for something that makes no sense.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// Something is wrong with the world: a rank that died, or left while something was expected of it; a limit of the
    /// machine. [`Fault::cause`] says which, for programs.
    #[error("{}", named(*rank, place.as_deref(), fault))]
    Fault {
        /// With whom, where it is with a rank of the communicator that was used.
        rank: Option<usize>,
        /// Where that rank is and by which road it was reached, where a job has several: "on node7, reached by efa".
        place: Option<String>,
        /// What is wrong.
        fault: Box<Fault>,
    },
    /// The job could not be joined: what the launcher said, or did not say.
    #[error("cannot join the job: {0}")]
    Start(String),
    /// The request was cancelled before it was matched.
    #[error("the request was cancelled before a message matched it")]
    Cancelled,
}

/// A fault in terms of ranks, as far as they are known.
fn named(rank: Option<usize>, place: Option<&str>, fault: &Fault) -> String {
    match (rank, place, fault.scope) {
        (Some(rank), None, Scope::Peer(_)) => format!("rank {rank}: {}", fault.words()),
        (Some(rank), Some(place), Scope::Peer(_)) => format!("rank {rank} {place}: {}", fault.words()),
        _ => fault.to_string(),
    }
}

fn invalid(index: usize, type_name: &str, source_rank: Option<usize>) -> String {
    let whose = source_rank.map_or("of a collective".to_owned(), |rank| format!("from rank {rank}"));
    format!("element {index} {whose} is no valid {type_name}; somebody sent another type")
}

impl From<Box<Unfit>> for Misuse {
    /// Of a collective, whose messages have no stamps.
    fn from(unfit: Box<Unfit>) -> Misuse {
        let nobody = Status { source: 0, tag: 0, bytes: 0 };
        match unfit.of_message(nobody, 0) {
            Misuse::InvalidElement { index, type_name, .. } => {
                Misuse::InvalidElement { index, type_name, source_rank: None }
            }
            other => other,
        }
    }
}

impl Unfit {
    /// Of a message that rank `me` received.
    #[cold]
    pub(crate) fn of_message(self, status: Status, me: usize) -> Misuse {
        match self {
            Unfit::Invalid(invalid) => invalid.from(status.source),
            Unfit::Mismatch { sent, receive, why } => Misuse::TypeMismatch {
                source_rank: status.source,
                rank: me,
                tag: status.tag,
                sent: Stamp::words(sent.as_ref()),
                received: receive.to_string(),
                why: why.to_string(),
            },
        }
    }
}

impl Invalid {
    /// In a message of that rank.
    #[cold]
    pub(crate) fn from(self, source_rank: usize) -> Misuse {
        let source_rank = Some(source_rank);
        Misuse::InvalidElement { index: self.index, type_name: self.type_name, source_rank }
    }
}

impl From<Box<Fault>> for Error {
    fn from(fault: Box<Fault>) -> Error {
        Error::Fault { rank: None, place: None, fault }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the caller got wrong.
///
/// ```
/// selvedge::local::run(2, |world| {
///     use selvedge::{Error, Misuse};
///     let error = world.send(&[1], 7, 0).unwrap_err();
///     assert!(matches!(error, Error::Misuse(Misuse::RankOutOfRange { given: 7, size: 2, .. })));
///     assert_eq!(error.to_string(), "destination is rank 7, but the communicator has ranks 0 to 1");
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A rank that does not exist.
    #[error("{what} is rank {given}, but the communicator has ranks 0 to {}", size - 1)]
    RankOutOfRange {
        /// Which argument: `destination`, `source`, `root`.
        what: &'static str,
        /// The value.
        given: usize,
        /// Size of the communicator.
        size: usize,
    },
    /// A negative tag.
    #[error("tag {0} is negative; tags are 0 to 2147483647, and ANY_TAG matches all of them in a receive")]
    TagOutOfRange(i32),
    /// A buffer whose length does not fit the call.
    #[error("{what} has {given} elements where {expected} are needed ({why})")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements it has.
        given: usize,
        /// Elements it should have.
        expected: usize,
        /// The rule.
        why: &'static str,
    },
    /// Parts of a buffer that have an element in common, of which one at least is received into.
    #[error(
        "element {index} of the buffer would be received into twice, or while it is sent; parts that are received are disjoint"
    )]
    Overlap {
        /// The first such element.
        index: usize,
    },
    /// Received bytes that are no whole number of elements.
    #[error("{bytes} bytes from rank {source_rank} are no whole number of {element_bytes}-byte elements")]
    PartialElement {
        /// Bytes received.
        bytes: u64,
        /// Size of the element asked for.
        element_bytes: usize,
        /// Who sent them.
        source_rank: usize,
    },
    /// Received bytes that are no value of the element's type: a `bool` that is neither 0 nor 1, for example. Such elements
    /// are now what the first one of the buffer was before.
    #[error("{}", invalid(*index, type_name, *source_rank))]
    InvalidElement {
        /// The first such element.
        index: usize,
        /// What it should have been.
        type_name: &'static str,
        /// Who sent it; nobody in particular for collectives.
        source_rank: Option<usize>,
    },
    /// While types are checked (`SELVEDGE_CHECK=1`): a message is not made of what its receive is made of, or of more than
    /// there is room for. The buffer is as it was before; where only room is missing, it has the first elements.
    #[error("rank {source_rank} sent {sent} with tag {tag}, and rank {rank} receives {received}: {why}")]
    TypeMismatch {
        /// Who sent it.
        source_rank: usize,
        /// Who received it.
        rank: usize,
        /// Its tag.
        tag: i32,
        /// Elements and type at the sender.
        sent: String,
        /// Elements that there is room for, and type, at the receiver.
        received: String,
        /// Where they differ, and what to do.
        why: String,
    },
    /// The ranks of a collective did not all ask for the same.
    #[error(
        "rank {source_rank} sent {given} bytes in a collective where {expected} were expected; every rank must call the \
         same collective with the same counts, types, root and operation"
    )]
    Disagreement {
        /// Whose message shows it.
        source_rank: usize,
        /// Bytes it sent.
        given: u64,
        /// Bytes that this rank's own call expects.
        expected: u64,
    },
    /// While ranks compare their calls ([`Communicator::checked`](crate::Communicator::checked)): they do not call the same.
    #[error("rank {source_rank} calls {theirs}, and this rank {ours}; every rank must call the same")]
    DifferentCalls {
        /// The first rank that differs.
        source_rank: usize,
        /// What it calls.
        theirs: String,
        /// What this rank calls.
        ours: String,
    },
    /// The algorithm that was asked for cannot do this.
    #[error(
        "{algorithm} was asked for and cannot do this: {why}; ask for another, or for this one for other messages only"
    )]
    UnfitAlgorithm {
        /// Its name.
        algorithm: String,
        /// What it cannot do.
        why: String,
    },
    /// The program's own algorithm does not do what was asked.
    #[error("the schedules of {name} do not do what was asked: {flaw}")]
    FlawedAlgorithm {
        /// Its name.
        name: String,
        /// The rank, the step, and what is wrong.
        flaw: String,
    },
    /// A group with the same rank in two places.
    #[error("rank {rank} is named twice; a process has one place in a group")]
    RankTwice {
        /// The rank.
        rank: usize,
    },
    /// A communicator was to be made of processes that the one it is made from has not, or not by this process.
    #[error(
        "the group has a process that the communicator has not, or has not this one; see Group::difference"
    )]
    NotAMember,
    /// A grid that cannot be laid out.
    #[error("{ranks} ranks cannot be laid out in a grid of {dims:?} places")]
    Grid {
        /// Places along each dimension; 0 for one that was left open.
        dims: Vec<usize>,
        /// Ranks there are.
        ranks: usize,
    },
    /// Two threads called a blocking collective of one communicator at the same time.
    #[error(
        "two threads are in a collective of one communicator at the same time; give each a communicator of its own with dup"
    )]
    ConcurrentCollectives,
    /// The root of a reduction gave no output, or another rank gave one.
    #[error("reduce: the output is Some on the root and nowhere else; rank {rank}, root {root}")]
    RootOutput {
        /// Who asks.
        rank: usize,
        /// The root.
        root: usize,
    },
    /// A rank that would wait for ever, for a message of its own.
    #[error(
        "rank {rank} waits for itself: it blocks in a send to, or a receive from, its own rank, and nobody else can start \
         the other half; start one of them with isend or irecv, or do both with sendrecv"
    )]
    WaitsForItself {
        /// Who asks.
        rank: usize,
    },
    /// A partition whose marker was dropped, or leaked, instead of being marked ready.
    #[error("partition {partition} was dropped before it was marked ready; it was sent as it was")]
    PartitionWithheld {
        /// The first such one.
        partition: usize,
    },
    /// A partition that will not come, because its round has ended in an error; the request of the round says in which.
    #[error("partition {partition} will not come: its round has ended in an error, which its request has")]
    PartitionLost {
        /// Which one was asked for.
        partition: usize,
    },
    /// Two ends of a partitioned message that do not fit.
    #[error(
        "rank {source_rank} sends {given} bytes in partitions where {expected} are received; both ends must have the same \
         length, whatever their partitions"
    )]
    Partitioning {
        /// Who sends.
        source_rank: usize,
        /// Bytes of its message.
        given: u64,
        /// Bytes of this rank's own.
        expected: u64,
    },
    /// A buffer for sends that has no room for another message now.
    #[error(
        "a buffer of {capacity} bytes for sends has no {needed} bytes in one piece while earlier messages are on their way; \
         make it larger, or flush it first"
    )]
    BufferFull {
        /// Bytes of the buffer.
        capacity: usize,
        /// Bytes that the message takes in it.
        needed: usize,
    },
    /// A message that was probed on one communicator and is received on another.
    #[error("the message was probed on {probed}, and is received on {given}; receive it where it was found")]
    OtherCommunicator {
        /// Where it was found.
        probed: String,
        /// Where it was to be received.
        given: String,
    },
    /// A value that serde could not turn into bytes, or bytes that are no such value.
    #[error("{0}")]
    Encoding(String),
    /// The root of a collective of values gave none, or another rank gave one.
    #[error("the root gives Some value and nobody else does; rank {rank}, root {root}")]
    RootValue {
        /// Who asks.
        rank: usize,
        /// The root.
        root: usize,
    },
    /// What a rank gave to a collective of values is no such value.
    #[error("the value of rank {source_rank} is no {type_name}: {why}")]
    NoValue {
        /// Whose value.
        source_rank: usize,
        /// What it should have been.
        type_name: &'static str,
        /// What serde says.
        why: String,
    },
    /// A rank had no value to give to a collective of values; its own call says why.
    #[error("rank {source_rank} had no value to give; its own call says why")]
    NothingGiven {
        /// Who.
        source_rank: usize,
    },
    /// Bytes of a value that find no room in memory.
    #[error("{bytes} bytes from rank {source_rank} find no room in memory")]
    NoRoom {
        /// How many.
        bytes: u64,
        /// Who sent them.
        source_rank: usize,
    },
}
