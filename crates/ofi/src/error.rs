//! What libfabric says when it says no.

use crate::sys::{self, Heard};

/// A call of libfabric that failed, on a path where there is time for words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {words} ({code})")]
pub struct Error {
    /// The call, as the manual pages name it: `fi_endpoint`.
    pub call: &'static str,
    /// The code, positive: an errno, or one of libfabric's own from 256 on.
    pub code: i32,
    /// What libfabric calls that code, and what the provider said about it where it said something.
    pub words: String,
}

impl Error {
    /// With what the provider said meanwhile, where that was a complaint.
    pub(crate) fn because(mut self, heard: &[Heard]) -> Error {
        if let Some(complaint) = sys::complaint(heard) {
            self.words = format!("{}, because {complaint}", self.words);
        }
        self
    }
}

/// A failed call on the way of a message: the code only, positive. `Library::error` finds the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

impl Code {
    /// A queue is full, or an entry is not ready: poll, then try again.
    pub(crate) const AGAIN: Code = Code(libc::EAGAIN);
    /// Used before it was enabled.
    pub(crate) const NOT_ENABLED: Code = Code(258);
    /// No memory of the right kind.
    pub(crate) const NO_MEMORY: Code = Code(libc::ENOMEM);

    /// The answer of a call that gives 0 or more when it went well.
    #[inline]
    pub(crate) fn check(answer: isize) -> Result<usize, Code> {
        if answer >= 0 { Ok(answer.unsigned_abs()) } else { Err(Code::of(answer)) }
    }

    #[cold]
    fn of(answer: isize) -> Code {
        Code(i32::try_from(answer.unsigned_abs()).unwrap_or(i32::MAX))
    }

    /// Whether there is a failed operation to be read.
    pub(crate) fn is_failure_available(self) -> bool {
        self.0 == sys::FI_EAVAIL
    }
}
