//! Joining the job that a launcher started us in. The only unsafe code of this crate.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use selvedge_boot::{Boot, BootError};

/// Finds our place in the job, as the environment says.
///
/// # Errors
/// The launcher's; see [`Boot::from_env`].
pub(crate) fn join() -> Result<Boot, BootError> {
    Boot::from_env(|name| std::env::var(name).ok(), duplicate)
}

/// An owned duplicate of a descriptor that the launcher says we inherited; an error where it is not open.
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is borrowed only for the next call, which checks that the number is open: at worst it
    // names a descriptor of somebody else in this process, which is duplicated and not touched.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}
