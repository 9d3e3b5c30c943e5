//! Ordered messages that arrived before a predecessor.
//!
//! Bound: a message holds credit from when it is sent until it has passed this window, an announcement as well as an
//! eager one, and none costs less than one entry. So of one peer at most credit / entry messages wait here, and none is
//! further ahead than that. A packet that claims to be is malformed.

use rustc_hash::FxHashMap;
use selvedge_transport::Peer;

use crate::matching::Name;
use crate::unexpected::Item;

/// The messages, by sender and sequence number.
#[derive(Debug, Default)]
pub(crate) struct Early {
    messages: FxHashMap<(Peer, u32), (Name, Item)>,
}

impl Early {
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.messages.capacity()
    }

    /// Keeps a message until its turn. False when there is one of that number already.
    pub(crate) fn keep(&mut self, seq: u32, name: Name, item: Item) -> bool {
        self.messages.insert((name.source, seq), (name, item)).is_none()
    }

    /// The message of that number, if it is here.
    pub(crate) fn take(&mut self, source: Peer, seq: u32) -> Option<(Name, Item)> {
        self.messages.remove(&(source, seq))
    }
}
