//! Scalable reliable datagrams: the protocol as a value.
