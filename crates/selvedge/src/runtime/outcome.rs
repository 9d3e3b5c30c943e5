//! How operations end.

use std::any::Any;

use selvedge_engine::{Envelope, Failure};
use selvedge_transport::Peer;

/// How an operation ended. For a receive: what was received. For anything else: an envelope without meaning.
pub type Outcome = Result<Envelope, Trouble>;

/// Why an operation did not do what was asked.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// What the engine said.
    Engine(Failure),
    /// The caller would have waited for a message that only itself could send or receive.
    WaitsForItself,
    /// A step of a collective received another number of bytes than the schedule says.
    Disagreement {
        /// Who sent it.
        source: Peer,
        /// Bytes it sent.
        given: u64,
        /// Bytes the schedule expects.
        expected: u64,
    },
    /// A reduction, or a receive of partitions, met an element that is no value of its type.
    Invalid {
        /// Its place in the step that reduces, or in the message.
        index: usize,
        /// What it should have been.
        type_name: &'static str,
        /// Whose partition it came with; nobody's of a reduction.
        source: Option<Peer>,
    },
    /// A partition was not marked ready and left as it was.
    Withheld {
        /// The first such one.
        partition: u32,
    },
    /// The two ends of a partitioned message do not fit.
    Partitioning {
        /// Who sends.
        source: Peer,
        /// Bytes of its message.
        given: u64,
        /// Bytes expected here.
        expected: u64,
    },
}

/// How an operation ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    /// Of a user's reduction.
    pub(crate) panic: Option<Box<dyn Any + Send>>,
}

impl End {
    /// Without a panic.
    #[inline]
    pub(crate) fn of(outcome: Outcome) -> End {
        End { outcome, panic: None }
    }

    /// The outcome. Continues the panic of a user's reduction.
    #[inline]
    pub(crate) fn outcome(self) -> Outcome {
        match self.panic {
            None => self.outcome,
            Some(payload) => std::panic::resume_unwind(payload),
        }
    }
}
