//! What a message costs at its receiver while nobody has asked for it, and how much of that a peer may spend.
//!
//! Both sides compute the cost of a message from its length alone. A sender spends credit with every message and stops
//! sending eagerly when it runs low; the receiver returns it when the memory is free again. So memory for unexpected
//! messages is bounded by what was handed out, whatever the network and the program do.

use crate::matching::Matching;
use crate::train::Trains;
use crate::unexpected::{Item, boxed_units, stored_units};
use crate::wire::{EAGER_HEADER_BYTES, SYNC_HEADER_BYTES};

/// Bytes of one unit of credit: the grain of the storage.
pub const UNIT_BYTES: u64 = 64;

/// Units that any unexpected or early message costs, whatever its length: its entry in the queues of matching.
pub(crate) const ENTRY_UNITS: u32 = 4;

// Sum: the entry with one queue of its own (matching counts one), and up to three further queues of its own where
// wildcards are used, 32 bytes each.
const _: () = assert!(
    Matching::<(), Item>::UNEXPECTED_ENTRY_BYTES + 3 * 32 <= ENTRY_UNITS as usize * UNIT_BYTES as usize,
    "an unexpected entry is larger than what it costs"
);

/// Least credit of a peer, bytes: 32 short messages, or 24 under way beside the reserve for announcements.
pub const BYTES_MIN: u64 = 8 << 10;

const _: () =
    assert!(BYTES_MIN / UNIT_BYTES / 4 >= ENTRY_UNITS as u64, "the reserve pays for an announcement");

/// Units that a message of `bytes` bytes costs when it is sent eagerly. An announcement costs [`ENTRY_UNITS`].
#[inline]
pub(crate) fn units(bytes: usize) -> u32 {
    ENTRY_UNITS + stored_units(bytes)
}

/// Units that a synchronous message of `bytes` bytes costs that is sent whole: its sender's request is kept with it.
pub(crate) fn sync_units(bytes: usize) -> u32 {
    units(bytes + (SYNC_HEADER_BYTES - EAGER_HEADER_BYTES))
}

/// Units that a train costs besides its payload and the entry of any message: its entry among the trains.
const TRAIN_ENTRY_UNITS: u32 = 2;

// Sum: a table of entries is between 7/16 and 7/8 full when it has grown.
const _: () = assert!(
    Trains::ENTRY_BYTES * 16 / 7 <= TRAIN_ENTRY_UNITS as usize * UNIT_BYTES as usize,
    "an entry among the trains is larger than what it costs"
);

/// Units that a message of `bytes` bytes, at least one, costs when it is sent as a train.
pub(crate) fn train_units(bytes: usize) -> u32 {
    ENTRY_UNITS + TRAIN_ENTRY_UNITS + boxed_units(bytes)
}

/// Units that each peer starts with: its share of `limit_bytes`, but enough to work with, and not more than the 16 bits
/// of a return can say.
pub(crate) fn units_per_peer(limit_bytes: u64, peers: usize) -> u32 {
    let share = (limit_bytes / peers.max(1) as u64).max(BYTES_MIN) / UNIT_BYTES;
    share.min(u64::from(u16::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_peers_stay_within_the_limit_or_the_minimum() {
        for peers in [1, 2, 3, 64, 1_000, 25_000] {
            for limit in [0, 1 << 20, 64 << 20, 1 << 40] {
                let sum = u64::from(units_per_peer(limit, peers)) * UNIT_BYTES * peers as u64;
                assert!(sum <= limit.max(BYTES_MIN * peers as u64), "{sum} for {peers} peers and {limit}");
            }
        }
    }

    #[test]
    fn a_short_message_costs_its_entry_only() {
        assert_eq!(units(0), ENTRY_UNITS);
        assert_eq!(units(8), ENTRY_UNITS);
        assert_eq!(units(64), ENTRY_UNITS + 1);
    }
}
