//! What a rank waits for, as it writes it down for whoever asks "who is everybody waiting for?".
//!
//! Whoever started the ranks of a node gives each one slot of a file without a name. A rank that has waited for long writes
//! down for what, and that it goes on when it does; nothing is written by ranks that do not wait. The slot can be read at
//! any moment, also of a rank that hangs in code of its own. Both sides use one write and one read of a whole slot, and a
//! sum tells a slot that was read in the middle of a write.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of one rank's slot.
pub const SLOT_BYTES: usize = 512;
/// Length and sum before the content.
const HEAD_BYTES: usize = 8;

/// What one rank waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Since when, on the host's monotonic clock; for a rank that does not wait: since when it has gone on.
    pub since: Duration,
    /// What it waits for, the operation it is blocked in first. Empty: it does not wait, or not for long yet.
    pub waits: Vec<Wait>,
    /// It goes on when any of them is over; else only when the first is.
    pub any_of: bool,
    /// More of them, for which there was no room.
    pub more: u32,
    /// Messages that have arrived at it and that it has not asked for.
    pub unexpected: u32,
}

/// An operation that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Which operation.
    pub what: What,
    /// Number of the communicator, as the runtime counts them; 0 is the world.
    pub communicator: u32,
    /// Bytes of the message, or of each rank's part of a collective.
    pub bytes: u64,
    /// The ranks of the job that it cannot go on without; empty: any of them will do.
    pub partners: Vec<u32>,
    /// More of them, for which there was no room.
    pub more: u32,
}

/// A kind of operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    /// No message has come.
    Receive {
        /// `None`: with any.
        tag: Option<u32>,
    },
    /// Its message is on the way.
    Receiving {
        /// Of the message.
        tag: u32,
    },
    /// The receiver has asked for no such message.
    Send {
        /// Of the message.
        tag: u32,
    },
    /// Its message is on the way.
    Sending {
        /// Of the message.
        tag: u32,
    },
    /// A step of a collective.
    Collective {
        /// Name of the call.
        name: String,
        /// How many collectives came before it on this communicator.
        sequence: u32,
    },
    /// A look for a message that has not come.
    Probe {
        /// `None`: with any.
        tag: Option<u32>,
    },
}

impl Status {
    /// As it lies in its slot. What there is no room for is counted instead.
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut fitting = self.clone();
        loop {
            let bytes = postcard::to_allocvec(&fitting).expect("plain data can be encoded");
            if let Some(slot) = framed(&bytes) {
                return slot;
            }
            let last = fitting.waits.last_mut().expect("the rest of a status is small");
            // Few partners say as much as many, and one operation less is a loss.
            if last.partners.len() > 1 {
                let kept = last.partners.len() / 2;
                last.more += (last.partners.len() - kept) as u32;
                last.partners.truncate(kept);
            } else {
                fitting.waits.pop();
                fitting.more += 1;
            }
        }
    }

    /// Out of a slot: `None` where nothing was ever written, or where the slot was read in the middle of a write; then
    /// reading again helps.
    pub fn decode(slot: &[u8]) -> Option<Status> {
        let (head, content) = slot.split_first_chunk::<HEAD_BYTES>()?;
        let [a, b, c, d, e, f, g, h] = *head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let bytes = content.get(..len).filter(|bytes| !bytes.is_empty())?;
        if sum(bytes) != u32::from_le_bytes([e, f, g, h]) {
            return None;
        }
        postcard::from_bytes(bytes).ok()
    }

    /// Whether the rank waits.
    pub fn is_waiting(&self) -> bool {
        !self.waits.is_empty()
    }
}

fn framed(bytes: &[u8]) -> Option<[u8; SLOT_BYTES]> {
    let mut slot = [0; SLOT_BYTES];
    slot.get_mut(HEAD_BYTES..HEAD_BYTES + bytes.len())?.copy_from_slice(bytes);
    slot[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    slot[4..HEAD_BYTES].copy_from_slice(&sum(bytes).to_le_bytes());
    Some(slot)
}

/// FNV-1a, 32 bits: nobody forges a slot, it only must not be half of one and half of another.
fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receive(partners: usize) -> Wait {
        Wait {
            what: What::Receive { tag: Some(7) },
            communicator: 0,
            bytes: 8,
            partners: (0..partners as u32).map(|rank| rank + 1_000_000).collect(),
            more: 0,
        }
    }

    #[test]
    fn a_status_comes_back_as_it_was_written() {
        let what = What::Collective { name: "allreduce".into(), sequence: 12 };
        let status = Status {
            since: Duration::from_micros(1_234_567),
            waits: vec![
                Wait { what, communicator: 2, bytes: 4096, partners: vec![1, 5], more: 0 },
                receive(1),
            ],
            any_of: true,
            more: 0,
            unexpected: 3,
        };
        assert_eq!(Status::decode(&status.encode()), Some(status));
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let waits = vec![receive(3), receive(1000), receive(2)];
        let status = Status { waits: [waits.clone(), waits].concat(), ..Status::default() };
        let read = Status::decode(&status.encode()).unwrap();
        assert_eq!(read.waits[0], receive(3), "the first is what it is blocked in");
        assert_eq!(read.waits.len() + read.more as usize, 6);
        let second = &read.waits[1];
        assert!(!second.partners.is_empty());
        assert_eq!(second.partners.len() + second.more as usize, 1000);
    }

    #[test]
    fn an_empty_slot_and_a_mixed_one_are_no_status() {
        assert_eq!(Status::decode(&[0; SLOT_BYTES]), None);
        let (old, new) = (Status::default(), Status { waits: vec![receive(1)], ..Status::default() });
        let mut mixed = old.encode();
        mixed[..HEAD_BYTES + 4].copy_from_slice(&new.encode()[..HEAD_BYTES + 4]);
        assert_eq!(Status::decode(&mixed), None);
    }

    proptest! {
        #[test]
        fn no_slot_panics(slot in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Status::decode(&slot);
        }

        #[test]
        fn every_status_fits_its_slot(sizes in proptest::collection::vec(0usize..300, 0..80)) {
            let status = Status { waits: sizes.into_iter().map(receive).collect(), ..Status::default() };
            prop_assert!(Status::decode(&status.encode()).is_some());
        }
    }
}
