//! Which hosts a job may use: those of the command line and its host files, else those that a batch system has given us.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::args::{JobWish, Usage};

/// A host as the user or a batch system names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWish {
    /// Name or address, without brackets.
    pub name: String,
    /// Whom to be there; ourselves where it is not said.
    pub user: Option<String>,
    /// How many ranks it gets before the next host's turn.
    pub slots: Slots,
    /// How many ranks it may get at the very most.
    pub max_slots: Option<u32>,
    /// Blocks of the command line that name no hosts of their own may use it.
    pub for_all: bool,
}

/// How many ranks a host gets before the next host's turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slots {
    /// As many as it has cores.
    #[default]
    Cores,
    /// So many, because it was mentioned so often; nobody wrote a number.
    Mentioned(u32),
    /// So many: somebody wrote the number.
    Stated(u32),
}

impl HostWish {
    /// A host of which only the name is known.
    pub fn named(name: impl Into<String>) -> HostWish {
        HostWish { name: name.into(), user: None, slots: Slots::Cores, max_slots: None, for_all: true }
    }
}

/// How files are read: the system's way, or a test's.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// The hosts of a job in the order in which they are used, none twice. Empty: this host only.
///
/// # Errors
/// One sentence about a list or a file that cannot be understood.
pub fn wished(
    job: &JobWish,
    _env: &dyn Fn(&str) -> Option<OsString>,
    _read: Read<'_>,
) -> Result<Vec<HostWish>, Usage> {
    Ok(job.hosts.clone())
}
