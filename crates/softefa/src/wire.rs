//! The bytes of a packet.

/// Bytes of a packet's header.
pub const HEADER_BYTES: usize = 104;
