//! How a piece of work ended, in the device's own numbers.

/// How a piece of work ended. The numbers are the device's (rdma-core, `efa_io_defs.h`); the efa provider translates them
/// into its error codes and texts, so they are passed up as `vendor_err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// It was done.
    Ok = 0,
    /// The queue pair went into the error state, or away, before it was done.
    Flushed = 1,
    /// The queue pair itself is broken.
    QueuePair = 2,
    /// The device does not do this.
    Unsupported = 3,
    /// The address handle is not one of ours.
    BadHandle = 4,
    /// Local memory is not registered under this key.
    BadLocalKey = 5,
    /// Longer than this device sends.
    BadLength = 6,
    /// Remote memory is not registered under this key, not at this address, or not for this use.
    BadRemote = 7,
    /// The other side reset the connection.
    RemoteAbort = 8,
    /// No such queue pair there, it is not ready, or its queue key is another one.
    BadQueuePair = 9,
    /// No receive was posted there, for as many times as were to be tried.
    NotReady = 10,
    /// The receive posted there is too short.
    BadRemoteLength = 11,
    /// The other side answered what makes no sense.
    BadStatus = 12,
    /// Silent for too long; it has answered before.
    Unresponsive = 13,
    /// The other side has no address handle for us, which one-sided work needs.
    UnknownPeer = 14,
    /// Silent for too long; it has never answered.
    Unreachable = 15,
}

impl Status {
    /// All of them, by number.
    pub const ALL: [Status; 16] = [
        Status::Ok,
        Status::Flushed,
        Status::QueuePair,
        Status::Unsupported,
        Status::BadHandle,
        Status::BadLocalKey,
        Status::BadLength,
        Status::BadRemote,
        Status::RemoteAbort,
        Status::BadQueuePair,
        Status::NotReady,
        Status::BadRemoteLength,
        Status::BadStatus,
        Status::Unresponsive,
        Status::UnknownPeer,
        Status::Unreachable,
    ];

    /// The device's number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The status of this number; [`Status::BadStatus`] for numbers that no device sends.
    pub fn from_code(code: u8) -> Status {
        *Self::ALL.get(usize::from(code)).unwrap_or(&Status::BadStatus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_number_of_its_place() {
        for (place, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(status.code()), place);
            assert_eq!(Status::from_code(status.code()), status);
        }
        assert_eq!(Status::from_code(16), Status::BadStatus);
    }
}
