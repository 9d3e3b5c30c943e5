//! What can be wrong with the machine, each with the cause and the next step in words.

use rustix::io::Errno;
use selvedge_transport::{Cause, Fault, Peer, Scope};

use crate::card::Unreadable;

#[cold]
fn fault(scope: Scope, cause: Cause, detail: String, next_step: &'static str) -> Box<Fault> {
    Box::new(Fault { scope, cause, age: None, detail, next_step })
}

fn local(cause: Cause, detail: String, next_step: &'static str) -> Box<Fault> {
    fault(Scope::Local, cause, detail, next_step)
}

/// More peers than a segment has seats for.
pub(crate) fn too_many_peers(peers: usize, most: usize) -> Box<Fault> {
    local(
        Cause::Exhausted,
        format!("{peers} ranks on one host are asked for, and shared memory serves 1 to {most}"),
        "start fewer ranks per host",
    )
}

/// The file of the segment could not be made.
pub(crate) fn not_created(error: Errno) -> Box<Fault> {
    let (cause, next_step) = match error {
        Errno::MFILE => (Cause::Exhausted, "raise the limit on open files of this process (ulimit -n)"),
        Errno::NFILE => {
            (Cause::Exhausted, "raise the limit on open files of the machine (sysctl fs.file-max)")
        }
        Errno::NOMEM | Errno::NOSPC => {
            (Cause::Exhausted, "free memory, or raise the memory limit of the container")
        }
        Errno::NOSYS | Errno::PERM | Errno::ACCESS => {
            (Cause::Denied, "allow memfd_create in the seccomp profile of the container")
        }
        _ => (Cause::Denied, "look the error up in memfd_create(2)"),
    };
    local(cause, format!("no memory to share could be made: {error}"), next_step)
}

/// RLIMIT_FSIZE is lower than the segment; asking the kernel anyway would end the process by SIGXFSZ.
pub(crate) fn file_size_limit(bytes: usize, limit: u64) -> Box<Fault> {
    local(
        Cause::Exhausted,
        format!(
            "the shared segment has {bytes} bytes (mostly never touched), and files of this process may have {limit}"
        ),
        "raise the limit on file size (ulimit -f unlimited), or start fewer ranks per host",
    )
}

/// The segment could not be given its size.
pub(crate) fn not_sized(bytes: usize, error: Errno) -> Box<Fault> {
    local(
        Cause::Exhausted,
        format!("a shared segment of {bytes} bytes could not be made: {error}"),
        "raise the limit on file size (ulimit -f unlimited), or start fewer ranks per host",
    )
}

/// The segment could not be mapped.
pub(crate) fn not_mapped(bytes: usize, error: Errno) -> Box<Fault> {
    local(
        Cause::Exhausted,
        format!(
            "{bytes} bytes of addresses for the shared segment (mostly never touched) were refused: {error}"
        ),
        "raise the limit on address space (ulimit -v unlimited), or start fewer ranks per host",
    )
}

/// The card is none of ours.
pub(crate) fn unreadable(card: &[u8], why: Unreadable) -> Box<Fault> {
    let start = String::from_utf8_lossy(&card[..card.len().min(80)]).into_owned();
    match why {
        Unreadable::Malformed => local(
            Cause::Malformed,
            format!("{start:?} is not the card of a shared segment"),
            "check that all ranks were started by the same launcher",
        ),
        Unreadable::Version => local(
            Cause::Version,
            format!("{start:?} is the card of another version of selvedge"),
            "start the same build on all ranks of a host",
        ),
    }
}

/// The creator of the segment is not to be seen.
pub(crate) fn creator_gone(pid: i32) -> Box<Fault> {
    local(
        Cause::PeerDied,
        format!("process {pid}, which made the shared segment, is not to be seen from here"),
        "see whether it has died; if it lives, let all ranks of a host share a pid namespace and mount /proc without hidepid",
    )
}

/// The creator lives, and what it has under that number is not a segment of ours, or not this one.
pub(crate) fn not_the_segment(pid: i32, fd: i32) -> Box<Fault> {
    local(
        Cause::Malformed,
        format!("descriptor {fd} of process {pid} is not the shared segment of this job"),
        "check that all ranks of a host are in one pid namespace and were started by the same launcher",
    )
}

/// The creator's descriptor could not be opened.
pub(crate) fn not_opened(pid: i32, error: Errno) -> Box<Fault> {
    let (cause, next_step) = match error {
        Errno::MFILE => (Cause::Exhausted, "raise the limit on open files of this process (ulimit -n)"),
        Errno::NFILE => {
            (Cause::Exhausted, "raise the limit on open files of the machine (sysctl fs.file-max)")
        }
        Errno::ACCESS | Errno::PERM => (
            Cause::Denied,
            "run all ranks of a host as the same user, with no more privileges than their parents",
        ),
        Errno::NOENT | Errno::SRCH => {
            (Cause::Denied, "let all ranks of a host share a pid namespace, and mount /proc without hidepid")
        }
        _ => (Cause::Denied, "look the error up in open(2)"),
    };
    local(cause, format!("the shared segment of process {pid} could not be opened: {error}"), next_step)
}

/// Open file description locks are how a death is seen.
pub(crate) fn not_held(error: Errno) -> Box<Fault> {
    local(
        Cause::Denied,
        format!("the seat in the shared segment could not be locked: {error}"),
        "use a kernel with open file description locks (Linux 3.15 or later)",
    )
}

/// Two processes think that they are the same peer.
pub(crate) fn seat_taken(me: Peer, pid: u32) -> Box<Fault> {
    local(
        Cause::Denied,
        format!("process {pid} has already joined as {me:?}"),
        "check that the launcher gives every rank its own number",
    )
}

/// Opened before all have joined.
pub(crate) fn not_joined(peer: Peer) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::PeerLeft,
        "it has not joined the shared segment".to_string(),
        "let all ranks of the host pass a fence between joining and opening",
    )
}

/// Single copy was demanded and cannot be had.
pub(crate) fn single_copy_denied(peer: Peer) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Denied,
        "it may not use process_vm_readv and process_vm_writev".to_string(),
        "allow both in the seccomp profile of the container (SYS_PTRACE), or do not demand single copy",
    )
}

/// A peer has ended without saying goodbye.
pub(crate) fn died(peer: Peer, pid: u32, panicked: bool) -> Box<Fault> {
    let how = if panicked { "has panicked" } else { "is gone" };
    fault(
        Scope::Peer(peer),
        Cause::PeerDied,
        format!("process {pid} {how}"),
        "look at its output and exit status",
    )
}

/// A peer has left, and somebody still wanted something from it.
pub(crate) fn left(peer: Peer, pid: u32) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::PeerLeft,
        format!("process {pid} has left the job in order"),
        "complete all communication on both sides before a rank finishes",
    )
}

/// A peer wrote into a ring what this version never writes.
pub(crate) fn foreign_word(peer: Peer, word: u64) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Malformed,
        format!("its ring holds {word:#x} where a packet should begin"),
        "look for code that writes out of bounds; please report it if it is ours",
    )
}

/// A remote slice outside of its registration.
pub(crate) fn out_of_registration(peer: Peer, offset: u64, len: u64, registered: u64) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Malformed,
        format!("{len} bytes at {offset} are asked for, of a registration of {registered}"),
        "this is a bug of selvedge; please report it",
    )
}

/// The kernel did not copy.
pub(crate) fn not_copied(peer: Peer, pid: u32, error: Errno) -> Box<Fault> {
    match error {
        Errno::SRCH => died(peer, pid, false),
        Errno::PERM | Errno::NOSYS => fault(
            Scope::Peer(peer),
            Cause::Denied,
            format!("access to the memory of process {pid} was refused: {error}"),
            "do not change user or privileges while ranks communicate, or choose double copy",
        ),
        Errno::NOMEM => fault(
            Scope::Peer(peer),
            Cause::Exhausted,
            format!("no memory to copy from process {pid}: {error}"),
            "free memory, or raise the memory limit of the container",
        ),
        _ => fault(
            Scope::Peer(peer),
            Cause::Denied,
            format!("memory of process {pid} that was registered is not mapped any more: {error}"),
            "keep a buffer until its operation is complete",
        ),
    }
}
