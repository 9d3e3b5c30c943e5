//! What there is to know about EFA, in one file: numbers with their sources, and what its error codes mean to a person.
//!
//! Nothing here decides anything by the name of an instance or a device: what a device can do is asked of the device. The
//! numbers below are for what it cannot be asked.

use selvedge_transport::Cause;

/// Room that the `efa` provider may need in a datagram for headers of its own: its largest, for an eager message with
/// immediate data to a peer that it has not shaken hands with. The difference between `max_msg_sz` of the device (8864) and
/// the `inject_size` that the provider offers (8696), seen alike in 1.17, 2.4, 2.5 and 2.6.
pub(crate) const HEADER_BYTES_MAX: usize = 168;

/// Datagram of a device that does not say; both EFA generations seen have more.
pub(crate) const DATAGRAM_BYTES_LEAST: usize = 4096;

/// Bytes of immediate data that arrive. The device carries 32 bits; 2.x says so, 1.17 says 8 bytes and delivers the lower 4
/// (seen).
pub(crate) const IMMEDIATE_BYTES: usize = 4;

/// Bytes one read or write may have, where the provider names no limit (`efa` offers 2^64 - 1, and cuts it into device
/// operations of `max_rdma_size`, 1 GiB on devices known; protocol v4).
pub(crate) const ONE_SIDED_BYTES_MAX: u64 = 1 << 30;

/// What an error code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) cause: Cause,
    /// What was seen, without the peer's name.
    pub(crate) detail: &'static str,
    pub(crate) next_step: &'static str,
    /// Whether only the operation failed, and not all dealings with the peer.
    pub(crate) is_of_operation: bool,
}

const GONE: &str = "look at its output and exit status";
const REPORT: &str = "this is a bug of selvedge or of the provider; please report it";

const fn peer(cause: Cause, detail: &'static str, next_step: &'static str) -> Meaning {
    Meaning { cause, detail, next_step, is_of_operation: false }
}

const fn operation(cause: Cause, detail: &'static str, next_step: &'static str) -> Meaning {
    Meaning { cause, detail, next_step, is_of_operation: true }
}

/// The meaning of `code`, as EFA's device (below 4096, `efa_io_comp_status` in rdma-core) or the provider (from 4096 on,
/// `efa_errno.h` in libfabric) puts it into `prov_errno`. `None` for codes that came after this was written.
pub(crate) fn meaning(code: i32) -> Option<Meaning> {
    use Cause::{Denied, Exhausted, Malformed, PeerDied, Unreachable};
    Some(match code {
        1 => peer(Unreachable, "the operation was flushed: our queue pair has stopped", REPORT),
        2 => peer(
            Unreachable,
            "the device reports an internal error of our queue pair",
            "see the kernel's log (dmesg), and whether other jobs on this host fail too",
        ),
        3 => peer(Malformed, "the device does not know this kind of operation", REPORT),
        4 => peer(Malformed, "the device does not know the address handle of the peer", REPORT),
        5 => operation(
            Denied,
            "our own memory is not registered any more",
            "keep a buffer until its operation is complete",
        ),
        6 => operation(Malformed, "the device does not take operations of this length", REPORT),
        7 => operation(
            Denied,
            "the memory asked for is not, or not any more, open to us",
            "keep a buffer until its operation is complete on both sides",
        ),
        8 => peer(
            Unreachable,
            "the peer's device has broken off",
            "see the kernel's log (dmesg) on the peer's host, and its network's state",
        ),
        9 => peer(PeerDied, "its endpoint does not exist any more: the process has ended", GONE),
        10 => peer(
            Exhausted,
            "it has no room for packets, and had none for long",
            "see whether the process is stopped or its host out of memory",
        ),
        11 => operation(Malformed, "its receive is shorter than the packet", REPORT),
        12 => peer(
            Malformed,
            "its device answered with a code that ours does not know",
            "bring the EFA drivers of both hosts to the same version",
        ),
        13 | 4124 => peer(
            Unreachable,
            "it answered before, and does not any more: its process or host is gone, or the network to it is cut",
            "look at its output, at the state of its instance, and at both security groups",
        ),
        14 => operation(
            Denied,
            "it does not know us: its device was not told our address before we asked for its memory",
            REPORT,
        ),
        15 => peer(
            Unreachable,
            "it has never answered: nothing gets through between the two hosts",
            "let the security group of the instances allow all traffic to and from itself, in both directions, and put them into one subnet",
        ),
        4126 => {
            peer(PeerDied, "its device answers, and its process does not: most likely it has ended", GONE)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_device_has_a_meaning() {
        for code in (1..=15).chain([4124, 4126]) {
            let meaning = meaning(code).unwrap_or_else(|| panic!("code {code}"));
            assert!(!meaning.detail.is_empty() && !meaning.next_step.is_empty());
        }
    }

    #[test]
    fn codes_of_the_future_have_none() {
        for code in [0, 16, 4096, 5000, -1] {
            assert_eq!(meaning(code), None);
        }
    }

    #[test]
    fn access_refused_ends_the_operation_and_not_the_peer() {
        let meaning = meaning(7).expect("known");
        assert_eq!((meaning.cause, meaning.is_of_operation), (Cause::Denied, true));
    }
}
