//! Nothing is left behind. A process that is a child subreaper inherits every orphan among its descendants; killing
//! its children until it has none therefore reaches all of them, however deep, and never a stranger: the number of a
//! child cannot be taken by anybody else before it is waited for.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait, waitpid};

use crate::kin::{self, Parentage};

/// Makes this process inherit the orphans among its descendants.
///
/// # Errors
/// The system's; Linux has had this since 3.4.
pub fn become_subreaper() -> rustix::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
}

/// A child that has ended, if there is one.
pub fn reap() -> Option<(Pid, WaitStatus)> {
    wait(WaitOptions::NOHANG).ok().flatten()
}

/// Whether this process has any children, ended or not.
pub fn has_children() -> bool {
    let look = rustix::process::WaitIdOptions::EXITED
        | rustix::process::WaitIdOptions::NOHANG
        | rustix::process::WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(rustix::process::WaitId::All, look), Err(rustix::io::Errno::CHILD))
}

/// Kills and reaps children until there are none but those to `keep`, new orphans included. Gives back how many even
/// SIGKILL has not ended within two seconds: they hang in the kernel. Cost: one walk through `/proc` for each
/// generation, none at all where there are no children.
pub fn kill_children(keep: &[Pid]) -> u32 {
    const PATIENCE: Duration = Duration::from_secs(2);
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    while has_children() {
        let children: Vec<Pid> = children().into_iter().filter(|pid| !keep.contains(pid)).collect();
        if children.is_empty() && !keep.is_empty() {
            return 0;
        }
        for pid in &children {
            // It may have ended meanwhile; then there is nothing to do.
            let _ = kill_process(*pid, Signal::KILL);
        }
        if start.elapsed() > PATIENCE {
            return u32::try_from(children.len()).unwrap_or(u32::MAX);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
        for pid in children {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
    0
}

/// The processes whose parent we are, ended ones that nobody has waited for included, by a walk through `/proc`.
fn children() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let is_ours = |pid: &i32| Parentage::of(*pid).is_some_and(|its| its.parent == me);
    kin::processes().filter(is_ours).filter_map(Pid::from_raw).collect()
}
