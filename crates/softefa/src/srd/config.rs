//! The numbers a queue pair lives by.

use std::net::Ipv4Addr;

use super::Nanos;

/// Which service a queue pair gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Exactly once, in any order; one-sided work.
    Reliable,
    /// Each datagram is sent once and may be lost; a datagram without a posted receive is dropped.
    Unreliable,
}

const MS: Nanos = 1_000_000;

/// The numbers a queue pair lives by.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which service.
    pub service: Service,
    /// Largest datagram, in bytes.
    pub message_bytes_max: u32,
    /// Largest read or write, in bytes.
    pub rdma_bytes_max: u32,
    /// Bytes of one packet of a read or write. Larger is faster where the link takes it in one piece.
    pub chunk_bytes: u32,
    /// Work requests that may be open at a time.
    pub work_max: u32,
    /// Bytes that may be on the way to (or asked from) one peer at a time; also where it starts.
    pub window_bytes: u32,
    /// How often a send is tried again when no receive is posted there; `None` for ever.
    pub rnr_retries: Option<u8>,
    /// Pause before it is tried again.
    pub rnr_delay: Nanos,
    /// Time after which a packet is sent again, before the round trip is known.
    pub resend_first: Nanos,
    /// Shortest such time, however short the round trip is. 40 ms were too short on an overloaded machine for a timer
    /// that does not adapt; this one does.
    pub resend_min: Nanos,
    /// Longest such time.
    pub resend_max: Nanos,
    /// How much later than one that was sent after it a packet may arrive before it is taken for lost. Should be above
    /// the reordering of the network, or packets are sent twice (which costs only time).
    pub reorder_time: Nanos,
    /// Longest wait of an acknowledgement for a packet that could carry it.
    pub ack_delay: Nanos,
    /// Work to a peer fails when nothing was heard from it for so long. Real devices wait far longer.
    pub peer_timeout: Nanos,
    /// Writes with immediate data use up no receive (efadv "unsolicited write receive").
    pub unsolicited: bool,
}

impl Config {
    /// Bytes of a packet of a read or write that links of this host take in one piece: a datagram of 60 KiB on the
    /// loopback device, whose packets are up to 64 KiB; elsewhere what Ethernet's jumbo frames (9001 bytes on EC2) hold.
    pub const fn chunk_bytes_for(host: Ipv4Addr) -> u32 {
        if host.is_loopback() { 60 << 10 } else { 8 << 10 }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            service: Service::Reliable,
            message_bytes_max: 8864,
            rdma_bytes_max: 1 << 30,
            chunk_bytes: 8864,
            work_max: 4096,
            window_bytes: 1 << 20,
            rnr_retries: None,
            rnr_delay: MS,
            resend_first: 150 * MS,
            resend_min: 5 * MS,
            resend_max: 1000 * MS,
            reorder_time: MS,
            ack_delay: MS / 100,
            peer_timeout: 3000 * MS,
            unsolicited: false,
        }
    }
}
