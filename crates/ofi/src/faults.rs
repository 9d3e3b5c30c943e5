//! What can be wrong with the world, each with the cause and the next step in words.

use std::time::Duration;

use rustix::io::Errno;
use selvedge_transport::{Cause, Fault, Peer, Scope};

use crate::discover::steps;
use crate::efa;
use crate::error::Error;
use crate::opening::card::Unreadable;
use crate::peers::lifeline::{Ending, SILENCE};
use crate::transport::rails::Way;

#[cold]
fn fault(scope: Scope, cause: Cause, detail: String, next_step: &'static str) -> Box<Fault> {
    Box::new(Fault { scope, cause, age: None, detail, next_step })
}

const GONE: &str = "look at its output and exit status";
const REPORT: &str = "this is a bug of selvedge; please report it";

/// The provider does not open an endpoint. On EFA the step that failed is named.
pub(crate) fn not_opened(error: &Error, is_efa: bool) -> Box<Fault> {
    let (step, next_step) = match is_efa {
        true => steps::of_error(error),
        false => (None, "look at: fi_info -v, and run it again with FI_LOG_LEVEL=info"),
    };
    let detail = match step {
        Some(step) => format!("the provider opens no endpoint: {step}: {error}"),
        None => format!("the provider opens no endpoint: {error}"),
    };
    fault(Scope::Local, Cause::Exhausted, detail, next_step)
}

/// The provider does not come back from opening an endpoint.
pub(crate) fn hangs(time: Duration) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        format!("the provider does not come back from opening an endpoint, and has had {} s", time.as_secs()),
        "look at: dmesg | grep -i efa; use the EFA installer's libfabric, or name a newer one with SELVEDGE_LIBFABRIC",
    )
}

/// There is no thread to open an endpoint in.
pub(crate) fn no_thread(error: &std::io::Error) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        format!("no thread to open an endpoint in: {error}"),
        "raise the limit on processes (ulimit -u)",
    )
}

/// Memory for packets could not be had.
pub(crate) fn no_memory(bytes: usize, error: Errno) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        format!("{bytes} bytes for packets were refused: {error}"),
        "free memory, or raise the memory limit of the container or the job",
    )
}

/// The doorway or the lines to others need a socket that could not be had.
pub(crate) fn no_socket(what: &str, error: &std::io::Error) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        format!("no socket for {what}: {error}"),
        "raise the limit on open files (ulimit -n), and see whether the address is one of this host",
    )
}

/// The kernel has no random numbers for a secret.
pub(crate) fn no_random(error: Errno) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        format!("the kernel gives no random numbers: {error}"),
        "allow getrandom(2) in the container's seccomp profile",
    )
}

/// Somebody sends packets who does not belong to the job. Said once.
pub(crate) fn foreign_packets() -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Malformed,
        "a packet has come that no rank of this job has sent; it was dropped, and so will be others"
            .to_string(),
        "if no other job has just ended on these addresses, see who else can reach this network interface",
    )
}

/// A card that cannot be read, or is of another kind than ours.
pub(crate) fn unreadable(peer: Peer, why: Unreadable) -> Box<Fault> {
    match why {
        Unreadable::Malformed => fault(
            Scope::Peer(peer),
            Cause::Malformed,
            "its card is not one of a libfabric endpoint".to_string(),
            "check that all ranks were started by the same launcher",
        ),
        Unreadable::Version(version) => fault(
            Scope::Peer(peer),
            Cause::Version,
            format!("its card has version {version}"),
            "start the same build on all hosts",
        ),
    }
}

/// Two ranks have chosen different roads.
pub(crate) fn other_road(peer: Peer, ours: &str, theirs: &str) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Version,
        format!("it goes by {theirs}, and we by {ours}"),
        "restrict the choice to what all hosts have (--transport)",
    )
}

/// The provider does not take an address.
pub(crate) fn not_inserted(peer: Peer, error: &Error) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Unreachable,
        format!("the provider does not take its address: {error}"),
        "see whether both hosts are in one network and the provider's other messages (FI_LOG_LEVEL=warn)",
    )
}

/// A line to a peer has ended.
pub(crate) fn line_ended(peer: Peer, ending: Ending) -> Box<Fault> {
    match ending {
        Ending::Closed => {
            fault(Scope::Peer(peer), Cause::PeerDied, "its process has ended".to_string(), GONE)
        }
        Ending::Refused => fault(
            Scope::Peer(peer),
            Cause::PeerDied,
            "its process had ended before we had to do with it".to_string(),
            GONE,
        ),
        Ending::Silent(error) => Box::new(Fault {
            scope: Scope::Peer(peer),
            cause: Cause::Unreachable,
            age: Some(SILENCE),
            detail: format!("its host does not answer: {error}"),
            next_step: "see whether the host runs, and whether a firewall or security group stands between",
        }),
    }
}

/// The provider says that an operation with a peer failed, in EFA's words where it has them.
pub(crate) fn refused_by_provider(
    peer: Peer,
    error: &crate::rail::queue::Failure,
    is_efa: bool,
) -> (Box<Fault>, bool) {
    if let Some(meaning) = efa::meaning(error.provider_code).filter(|_| is_efa) {
        let detail = format!("{} (EFA status {})", meaning.detail, error.provider_code);
        let fault = fault(Scope::Peer(peer), meaning.cause, detail, meaning.next_step);
        return (fault, meaning.is_of_operation);
    }
    let fault = fault(
        Scope::Peer(peer),
        Cause::Unreachable,
        format!("the connection to it broke: {} ({})", error.words, error.code),
        "look at its output and exit status; if it lives, see whether memory was given back before its operation was complete",
    );
    (fault, false)
}

/// Nothing gets through between two rails.
pub(crate) fn way_left(way: Way, nic: &str, fault: &Fault) -> Box<Fault> {
    fault_of_rail(format!(
        "nothing gets through between {nic} and rail {} of {:?}: {}; its packets and operations go by other rails",
        way.theirs, way.peer, fault.detail
    ))
}

/// Nothing gets through to a peer by any of the ways there are.
pub(crate) fn no_way(peer: Peer, ways: usize, fault: &Fault) -> Box<Fault> {
    let detail = format!("nothing gets through to it by any of {ways} ways: {}", fault.detail);
    Box::new(Fault { scope: Scope::Peer(peer), detail, ..fault.clone() })
}

/// One of our rails is given up.
pub(crate) fn rail_left(nic: &str) -> Box<Fault> {
    fault_of_rail(format!("{nic} is given up: it fails towards several peers"))
}

fn fault_of_rail(detail: String) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Unreachable,
        detail,
        "look at the device's state (rdma link) and at the kernel's log (dmesg) on both hosts",
    )
}

/// A peer has left in order.
pub(crate) fn left(peer: Peer) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::PeerLeft,
        "it has left the job in order".to_string(),
        "complete all communication on both sides before a rank finishes",
    )
}

/// A peer said goodbye, and some of what it sent before has not arrived.
pub(crate) fn left_and_lost(peer: Peer, missing: u64, age: Duration) -> Box<Fault> {
    Box::new(Fault {
        scope: Scope::Peer(peer),
        cause: Cause::PeerDied,
        age: Some(age),
        detail: format!("it has left, and {missing} packets that it had sent have not arrived"),
        next_step: GONE,
    })
}

/// A receive of ours failed.
pub(crate) fn receive_failed(words: &str) -> Box<Fault> {
    fault(Scope::Local, Cause::Malformed, format!("a packet could not be received: {words}"), REPORT)
}

/// A completion of nothing that we know.
pub(crate) fn unknown_completion(words: String) -> Box<Fault> {
    fault(Scope::Local, Cause::Malformed, words, REPORT)
}

/// The provider refuses an operation that it should take.
pub(crate) fn not_taken(peer: Peer, words: &str) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Unreachable,
        format!("the provider does not take operations with it: {words}"),
        "look at its output, and at the provider's messages (FI_LOG_LEVEL=warn)",
    )
}

/// Memory could not be registered.
pub(crate) fn not_registered(bytes: usize, error: &Error) -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        format!("{bytes} bytes could not be registered: {error}"),
        "raise the limit on locked memory (ulimit -l unlimited), or use huge pages",
    )
}

/// Keys that do not fit ours.
pub(crate) fn keys_too_long() -> Box<Fault> {
    fault(
        Scope::Local,
        Cause::Exhausted,
        "the provider names registered memory by more than 64 bits".to_string(),
        "choose another provider (--transport)",
    )
}

/// A remote slice of our own memory outside of what is registered.
pub(crate) fn not_open(peer: Peer) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Denied,
        "the memory asked for is not, or not any more, open to us".to_string(),
        "keep a buffer until its operation is complete on both sides",
    )
}

/// A control packet that this version does not send.
pub(crate) fn foreign_packet(peer: Peer) -> Box<Fault> {
    fault(
        Scope::Peer(peer),
        Cause::Malformed,
        "a packet from it is not one that this version sends".to_string(),
        "start the same build on all hosts",
    )
}
