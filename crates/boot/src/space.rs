//! The seam to launchers whose language is a library: PMIx.

use std::error::Error;

use crate::NodeMap;

/// Why a [`KeyValueSpace`] did not do something, in the words of whoever keeps it.
pub type SpaceFault = Box<dyn Error + Send + Sync>;

/// A place in a job and a store of keys and values that somebody else's library keeps. [`Boot::through`](crate::Boot::through)
/// makes a `Boot` of one, with the same promises: what is put before a fence is there for everybody after it.
///
/// Unlike in PMI-1, each rank has a store of its own, so who asks must say whose. Calls block until there is an answer.
pub trait KeyValueSpace {
    /// Which of the job's processes this is, `0..size`.
    fn rank(&self) -> u32;

    /// Number of processes of the job.
    fn size(&self) -> u32;

    /// Which `:` block of the command line this rank belongs to, where that is known.
    fn appnum(&self) -> Option<u32>;

    /// Name of the job: 1 to 255 printable characters, no blanks.
    fn job(&self) -> String;

    /// The node of every rank, where that is known.
    fn map(&self) -> Option<NodeMap>;

    /// Leaves a value; a second put of a key replaces the first.
    ///
    /// # Errors
    /// The library's.
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), SpaceFault>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// The library's; most often that the job has been ended.
    fn fence(&mut self) -> Result<(), SpaceFault>;

    /// What `rank` has put before the last fence; `None` when it has not.
    ///
    /// # Errors
    /// The library's.
    fn get(&mut self, rank: u32, key: &str) -> Result<Option<Vec<u8>>, SpaceFault>;

    /// Asks for the end of the job with this exit code, and returns.
    fn abort(&mut self, code: i32, message: &str);

    /// Says goodbye.
    ///
    /// # Errors
    /// The library's.
    fn finalize(self: Box<Self>) -> Result<(), SpaceFault>;
}
