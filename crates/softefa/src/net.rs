//! UDP sockets under queue pairs.
