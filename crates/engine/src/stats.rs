//! What an engine counts about itself.

/// Counters since the engine was made. For the exit report and for tests; nothing in the engine depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages sent eagerly.
    pub sent_eager: u64,
    /// Synchronous messages sent in one packet.
    pub sent_sync: u64,
    /// Messages sent as a train of packets.
    pub sent_trains: u64,
    /// Messages announced and then fetched or pushed.
    pub sent_rendezvous: u64,
    /// Of these, messages short enough to go eagerly or as a train that had no credit left.
    pub sent_demoted: u64,
    /// Messages that waited in a queue because their announcement had no credit.
    pub credit_stalls: u64,
    /// Packets sent only to return credit.
    pub credit_packets: u64,
    /// Packets and one-sided operations that the transport had no room for; each is tried again.
    pub busy: u64,
    /// Messages that arrived before their receive.
    pub unexpected: u64,
    /// Messages that arrived before a predecessor.
    pub early: u64,
    /// Memory charged for unexpected and early messages now, eager ones and trains, bytes.
    pub unexpected_bytes: u64,
    /// The most it ever was.
    pub unexpected_bytes_max: u64,
    /// One-sided operations that were refused; the message went by window instead.
    pub refused: u64,
    /// Packets that were no packets.
    pub malformed: u64,
}
