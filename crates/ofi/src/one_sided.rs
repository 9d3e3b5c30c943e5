//! Reads and writes in flight, and memory that is open to peers.

use std::collections::HashMap;
use std::sync::Arc;

use selvedge_transport::{Buf, Fault, Key, Peer, RemoteSlice, Token};

use crate::fabric::{Access, Domain, MemoryRegion};
use crate::faults;
use crate::info::Abilities;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the peer to us.
    Read,
    /// From us to the peer.
    Write,
}

/// A read or write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) peer: Peer,
    pub(crate) way: Way,
    pub(crate) remote: RemoteSlice,
    pub(crate) local: Buf,
    pub(crate) token: Token,
}

/// Those that were begun and have not ended.
#[derive(Debug)]
pub(crate) struct Works {
    slots: Vec<Option<Work>>,
    free: Vec<u32>,
    /// Begun, and not yet taken by the provider.
    waiting: Vec<u32>,
}

impl Works {
    /// None, of at most `most`.
    pub(crate) fn new(most: usize) -> Works {
        Works {
            slots: vec![None; most],
            free: (0..most as u32).rev().collect(),
            waiting: Vec::with_capacity(most),
        }
    }

    /// Gives it a number. The caller counts, so that there is one.
    pub(crate) fn begin(&mut self, work: Work) -> usize {
        let number = self.free.pop().expect("no more are begun than there may be") as usize;
        self.slots[number] = Some(work);
        number
    }

    /// The work of that number.
    pub(crate) fn get(&self, number: usize) -> Option<Work> {
        self.slots[number]
    }

    /// It has ended.
    pub(crate) fn end(&mut self, number: usize) -> Option<Work> {
        let work = self.slots[number].take()?;
        self.free.push(number as u32);
        Some(work)
    }

    /// The provider did not take it: again later.
    pub(crate) fn wait(&mut self, number: usize) {
        self.waiting.push(number as u32);
    }

    /// Those that wait, for another try. Those that still wait are put back by [`Works::wait`].
    pub(crate) fn take_waiting(&mut self) -> Vec<u32> {
        std::mem::replace(&mut self.waiting, Vec::with_capacity(self.slots.len()))
    }

    /// Whether any wait.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Name of a registration of no bytes, which no provider takes.
const NOTHING: Key = Key { base: 0, name: u64::MAX };

/// Memory that is open to peers, by name.
#[derive(Debug)]
pub(crate) struct Registrations {
    open: HashMap<u64, (MemoryRegion, Buf)>,
    /// For providers that let us choose.
    next_key: u64,
    key_mask: u64,
    by_address: bool,
    access: Access,
}

impl Registrations {
    /// None yet.
    pub(crate) fn new(abilities: &Abilities) -> Registrations {
        let bits = 8 * abilities.memory_key_bytes.clamp(1, 8) as u32;
        Registrations {
            open: HashMap::new(),
            next_key: 1,
            key_mask: u64::MAX >> (64 - bits),
            by_address: abilities.memory_by_address,
            access: Access::REMOTE_READ.and(Access::REMOTE_WRITE),
        }
    }

    /// Opens `buf`.
    ///
    /// # Errors
    /// What the provider says.
    pub(crate) fn open(&mut self, domain: &Arc<Domain>, buf: Buf) -> Result<Key, Box<Fault>> {
        if buf.is_empty() {
            return Ok(NOTHING);
        }
        let wanted = self.next_key & self.key_mask;
        self.next_key += 1;
        let region = domain
            .register(buf, self.access, wanted)
            .map_err(|error| faults::not_registered(buf.len(), &error))?;
        let name = region.key().ok_or_else(|| faults::keys_too_long())?;
        let base = if self.by_address { buf.as_ptr() as u64 } else { 0 };
        self.open.insert(name, (region, buf));
        Ok(Key { base, name })
    }

    /// Closes it again.
    pub(crate) fn close(&mut self, key: Key) {
        if key != NOTHING {
            let was_open = self.open.remove(&key.name).is_some();
            debug_assert!(was_open, "memory is closed once");
        }
    }

    /// Our own memory, by a name that we gave out; `None` when it is not open, or shorter.
    pub(crate) fn find(&self, remote: RemoteSlice) -> Option<Buf> {
        let (_, buf) = self.open.get(&remote.key.name)?;
        let start = usize::try_from(remote.offset).ok()?;
        let end = start.checked_add(usize::try_from(remote.len).ok()?)?;
        (end <= buf.len()).then(|| buf.slice(start..end))
    }
}
