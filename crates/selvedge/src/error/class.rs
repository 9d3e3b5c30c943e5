//! The error classes of MPI, for programs and bindings that think in them.

use std::fmt;

use selvedge_transport::Cause;

use super::{Error, Misuse};

/// What kind of mistake or mishap an [`Error`] is, in the words of MPI 5.0 section 9.4. Those classes are here that an
/// error of this library can have; those of files and windows come with files and windows.
///
/// A class says less than the error it belongs to: whoever wants to know with which rank and why looks at the [`Error`].
///
/// ```
/// use selvedge::ErrorClass;
/// selvedge::local::run(1, |world| {
///     let error = world.send(&[0], 9, 0).unwrap_err();
///     assert_eq!(error.class(), ErrorClass::Rank);
///     assert_eq!(error.class().to_string(), "MPI_ERR_RANK");
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Invalid buffer.
    Buffer,
    /// Invalid count.
    Count,
    /// Invalid datatype.
    Type,
    /// Invalid tag.
    Tag,
    /// Invalid communicator.
    Communicator,
    /// Invalid rank.
    Rank,
    /// Invalid request.
    Request,
    /// Invalid root.
    Root,
    /// Invalid group.
    Group,
    /// Invalid dimensions.
    Dims,
    /// Invalid argument of some other kind.
    Argument,
    /// A message was longer than its receive.
    Truncate,
    /// Known, and none of the others.
    Other,
    /// The library itself is at fault.
    Internal,
    /// No memory.
    NoMemory,
    /// The ranks of a collective did not ask for the same.
    NotSame,
    /// A process that was communicated with is gone.
    ProcessAborted,
}

impl ErrorClass {
    /// Name and number of the class: those of the ABI of MPI 5.0, chapter 20, which are the same in every library that
    /// follows it.
    const fn abi(self) -> (&'static str, i32) {
        match self {
            ErrorClass::Buffer => ("MPI_ERR_BUFFER", 1),
            ErrorClass::Count => ("MPI_ERR_COUNT", 2),
            ErrorClass::Type => ("MPI_ERR_TYPE", 3),
            ErrorClass::Tag => ("MPI_ERR_TAG", 4),
            ErrorClass::Communicator => ("MPI_ERR_COMM", 5),
            ErrorClass::Rank => ("MPI_ERR_RANK", 6),
            ErrorClass::Request => ("MPI_ERR_REQUEST", 7),
            ErrorClass::Root => ("MPI_ERR_ROOT", 8),
            ErrorClass::Group => ("MPI_ERR_GROUP", 9),
            ErrorClass::Dims => ("MPI_ERR_DIMS", 12),
            ErrorClass::Argument => ("MPI_ERR_ARG", 13),
            ErrorClass::Truncate => ("MPI_ERR_TRUNCATE", 15),
            ErrorClass::Other => ("MPI_ERR_OTHER", 16),
            ErrorClass::Internal => ("MPI_ERR_INTERN", 17),
            ErrorClass::NoMemory => ("MPI_ERR_NO_MEM", 39),
            ErrorClass::NotSame => ("MPI_ERR_NOT_SAME", 40),
            ErrorClass::ProcessAborted => ("MPI_ERR_PROC_ABORTED", 44),
        }
    }

    /// Its name in C: `MPI_ERR_RANK`. `Display` prints the same.
    pub const fn name(self) -> &'static str {
        self.abi().0
    }

    /// Its number in the ABI of MPI 5.0; never 0, which is success.
    pub const fn number(self) -> i32 {
        self.abi().1
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Error {
    /// The error class of MPI that it belongs to (MPI_Error_class).
    ///
    /// What has no class of its own in MPI is [`ErrorClass::Other`]: a job that could not be joined, a network that is cut,
    /// a request that was cancelled, which in MPI is not an error.
    #[doc(alias = "MPI_Error_class")]
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Truncated { .. } => ErrorClass::Truncate,
            Error::Misuse(misuse) => misuse.class(),
            Error::Fault { fault, .. } => match fault.cause {
                Cause::PeerDied | Cause::PeerLeft => ErrorClass::ProcessAborted,
                Cause::Exhausted => ErrorClass::NoMemory,
                Cause::Malformed => ErrorClass::Internal,
                _ => ErrorClass::Other,
            },
            Error::Start(_) | Error::Cancelled => ErrorClass::Other,
        }
    }
}

impl Misuse {
    /// The error class of MPI that it belongs to.
    pub fn class(&self) -> ErrorClass {
        match self {
            Misuse::RankOutOfRange { what: "root", .. } => ErrorClass::Root,
            Misuse::RankOutOfRange { .. } | Misuse::RankTwice { .. } => ErrorClass::Rank,
            Misuse::TagOutOfRange(_) => ErrorClass::Tag,
            Misuse::Length { .. } => ErrorClass::Count,
            Misuse::PartialElement { .. }
            | Misuse::InvalidElement { .. }
            | Misuse::Encoding(_)
            | Misuse::NoValue { .. }
            | Misuse::TypeMismatch { .. } => ErrorClass::Type,
            Misuse::Disagreement { .. } | Misuse::DifferentCalls { .. } | Misuse::Partitioning { .. } => {
                ErrorClass::NotSame
            }
            Misuse::UnfitAlgorithm { .. } | Misuse::FlawedAlgorithm { .. } => ErrorClass::Argument,
            Misuse::PartitionWithheld { .. } | Misuse::PartitionLost { .. } => ErrorClass::Request,
            Misuse::NotAMember => ErrorClass::Group,
            Misuse::Grid { .. } => ErrorClass::Dims,
            Misuse::ConcurrentCollectives | Misuse::OtherCommunicator { .. } => ErrorClass::Communicator,
            Misuse::RootOutput { .. } | Misuse::RootValue { .. } => ErrorClass::Root,
            Misuse::BufferFull { .. } | Misuse::Overlap { .. } => ErrorClass::Buffer,
            Misuse::NoRoom { .. } => ErrorClass::NoMemory,
            Misuse::WaitsForItself { .. } | Misuse::NothingGiven { .. } => ErrorClass::Other,
        }
    }
}
