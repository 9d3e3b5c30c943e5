//! What can go wrong between a rank and whoever started it.

use std::io;

use crate::lex::LineFault;
use crate::map::MapFault;

/// Why this process could not find its place in a job, or lost it.
///
/// The message says what was seen and what to do; show it to the user as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// Somebody started several of us and does not speak a dialect we know. Going on would give N jobs of one rank.
    #[error("this process is one of several started by {launcher}, but {missing}; {advice}")]
    Foreign {
        /// Who seems to have started us.
        launcher: &'static str,
        /// What was not there.
        missing: String,
        /// What to do.
        advice: &'static str,
    },
    /// A variable that a launcher sets does not hold what it should.
    #[error("the environment variable {name} is {value:?}, not {expected}; was it set by hand?")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it holds; empty where it is not set.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The launcher listens at an address that cannot be reached.
    #[error("cannot reach the launcher at {address} (PMI_PORT)")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connection to the launcher broke. The launcher, or the whole job, is about to end.
    #[error("lost the connection to the launcher during {during}")]
    Lost {
        /// The request.
        during: &'static str,
        /// Why; an unexpected end of file where the launcher closed it.
        source: io::Error,
    },
    /// The launcher answered something that is not PMI-1.
    #[error("the launcher answered {request} with {reply:?}: {fault}")]
    Malformed {
        /// The request.
        request: &'static str,
        /// The start of the answer.
        reply: String,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// The launcher answered a different question.
    #[error("the launcher answered {request} with {reply}")]
    Unexpected {
        /// The request.
        request: &'static str,
        /// The answer.
        reply: String,
    },
    /// The launcher speaks PMIx, and that did not go well.
    #[error("PMIx failed during {during}")]
    Space {
        /// The request.
        during: &'static str,
        /// Why, in the words of who speaks PMIx for us.
        source: crate::SpaceFault,
    },
    /// The launcher said no.
    #[error("the launcher refused {request} (rc={rc} {message})")]
    Refused {
        /// The request.
        request: &'static str,
        /// Its code.
        rc: i32,
        /// Its reason; may be empty.
        message: String,
    },
    /// This process is under no launcher, or under one that starts nothing for it.
    #[error(
        "nobody here starts more ranks; start the program with mpirun of Selvedge (without --pmi x), MPICH or Intel MPI"
    )]
    NoWorlds,
    /// The caller's mistake: a word of a spawn that does not travel.
    #[error(
        "{word:?} cannot be part of a command to spawn: words have no line breaks, keys neither blanks nor ="
    )]
    Spawn {
        /// The word.
        word: String,
    },
    /// The map of ranks to nodes makes no sense.
    #[error(transparent)]
    Map(#[from] MapFault),
    /// A value came back that [`crate::Boot::put`] did not write.
    #[error("the value of {key:?} in the launcher's store is damaged")]
    Damaged {
        /// Its key.
        key: String,
    },
    /// The caller's mistake: a key that does not travel everywhere.
    #[error(
        "{key:?} is no key: 1 to {} letters, digits or any of . _ - (and not PMI_ first)",
        crate::KEY_BYTES_MAX
    )]
    Key {
        /// The key.
        key: String,
    },
    /// The caller's mistake: a value of more bytes than [`crate::VALUE_BYTES_MAX`].
    #[error("the value of {key:?} has {bytes} bytes, more than {}", crate::VALUE_BYTES_MAX)]
    Value {
        /// Its key.
        key: String,
        /// Its length.
        bytes: usize,
    },
}
