//! What jobs leave on the hosts of a testbed.

use std::thread;
use std::time::{Duration, Instant};

use selvedge_testbed::Hosts;

/// How long what a job has started may outlive its launcher.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Whether jobs have left nothing on the hosts: no process, no shared memory, no socket. What there is is forgotten then: the
/// next job is not to be blamed for it.
///
/// # Errors
/// What is left; or the hosts cannot be looked at.
pub(crate) fn nothing_is_left(hosts: &Hosts) -> Result<(), String> {
    let deadline = Instant::now() + LEAVE_MAX;
    loop {
        let left = hosts.leftovers().map_err(|error| error.to_string())?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            hosts.settle().map_err(|error| error.to_string())?;
            return Err(format!("left behind: {left}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
