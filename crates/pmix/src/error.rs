//! What libpmix says when it says no.

use selvedge_dlopen::Missing;

/// Why something of PMIx did not happen. Show it to the user as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call of libpmix failed.
    #[error("{call}: {words} ({status})")]
    Call {
        /// The call, as the standard names it: `PMIx_Fence`.
        call: &'static str,
        /// Its status, negative.
        status: i32,
        /// What libpmix calls that.
        words: String,
    },
    /// The environment names a PMIx server, and nobody answers.
    #[error(
        "the PMIx server that PMIX_NAMESPACE and PMIX_RANK speak of does not answer; was this process started by \
         something that only inherited the environment of a rank?"
    )]
    NoServer,
    /// The server does not say something that every server must.
    #[error("the PMIx server does not know {key} of this job, or not as {expected}")]
    Unknown {
        /// What was asked for.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A rank has left something else under this key than we do.
    #[error("rank {rank} has left {found} under {key:?}; is it another program?")]
    Foreign {
        /// The rank.
        rank: u32,
        /// The key.
        key: String,
        /// What it is.
        found: &'static str,
    },
    /// The caller's mistake: libpmix knows one process, once.
    #[error("this process has been a PMIx client or server already; libpmix allows that once in a process")]
    Taken,
    /// The caller's mistake: a key that is empty, too long, or has a zero in it.
    #[error("{key:?} is no key: 1 to 511 bytes without a zero")]
    Key {
        /// The key.
        key: String,
    },
    /// The caller's mistake: a job that does not hold together.
    #[error(transparent)]
    Job(#[from] JobFault),
    /// The caller's mistake: a rank that is not one of this node's.
    #[error("rank {rank} is not one of this node's")]
    NotHere {
        /// The rank.
        rank: u32,
    },
    /// The caller's mistake: a question that was answered before, or never asked.
    #[error("question {ticket} has been answered already, or was never asked")]
    Answered {
        /// Its number.
        ticket: u64,
    },
    /// This libpmix is a client's only.
    #[error("this libpmix cannot serve: {missing}; version 4.2 or newer can")]
    ClientOnly {
        /// What it lacks.
        missing: Missing,
    },
    /// The folder for the files of a server could not be made.
    #[error("cannot make a private folder for PMIx in {folder}: {reason}")]
    Folder {
        /// Where.
        folder: String,
        /// Why.
        reason: String,
    },
}

/// What is wrong with a [`crate::Job`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobFault {
    /// A name that libpmix cannot carry.
    #[error(
        "{name:?} is no name of a job or host for PMIx: 1 to 255 bytes, no comma, no semicolon, no blank, no zero"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Two hosts of one name.
    #[error("two hosts of the job are called {name:?}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The hosts do not have each rank exactly once.
    #[error("the hosts of the job do not have every rank from 0 to {size} once, {rank} for one")]
    Ranks {
        /// A rank that is missing, there twice, or too high.
        rank: u32,
        /// The highest rank there should be.
        size: u32,
    },
    /// There is no host of that number.
    #[error("the job has no host {host}")]
    Here {
        /// The number.
        host: usize,
    },
    /// A rank without a block.
    #[error("{blocks} blocks of the command line are named for {ranks} ranks")]
    Blocks {
        /// Named.
        blocks: usize,
        /// Ranks.
        ranks: usize,
    },
}
