//! The bytes of a packet.
