//! Reads and writes in flight, and memory that is open to peers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use selvedge_transport::{Buf, Fault, Key, Peer, RemoteSlice, Token};

use crate::faults;
use crate::info::Abilities;
use crate::rail::cache::{Budget, Cache, Devices, Hold, Tally};
use crate::rail::fabric::{Access, Descriptor, Domain, MemoryRegion};
use crate::rail::monitor::Monitor;
use crate::transport::rails::{Striped, Way, pair};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the peer to us.
    Read,
    /// From us to the peer.
    Write,
}

/// A read or write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) peer: Peer,
    pub(crate) direction: Direction,
    pub(crate) remote: RemoteSlice,
    pub(crate) local: Buf,
    pub(crate) token: Token,
    /// Keeps the local memory registered, from the first try on.
    pub(crate) hold: Option<Hold>,
    /// How it goes, from the first try on: by which of the two registrations of the remote memory, and between which rails.
    pub(crate) way: Option<(usize, Way)>,
    /// The provider has it.
    pub(crate) is_posted: bool,
    /// Ways that it has failed on.
    pub(crate) failures: u8,
}

impl Work {
    pub(crate) fn new(
        peer: Peer,
        direction: Direction,
        remote: RemoteSlice,
        local: Buf,
        token: Token,
    ) -> Work {
        Work { peer, direction, remote, local, token, hold: None, way: None, is_posted: false, failures: 0 }
    }
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

    /// Gives it a number. The caller has seen that there is one.
    pub(crate) fn begin(&mut self, work: Work) -> usize {
        let number = self.free.pop().expect("there is room") as usize;
        self.slots[number] = Some(work);
        number
    }

    /// The work of that number.
    pub(crate) fn get(&self, number: usize) -> Option<Work> {
        self.slots[number]
    }

    /// Notes how far it is.
    pub(crate) fn set(&mut self, number: usize, work: Work) {
        debug_assert!(self.slots[number].is_some());
        self.slots[number] = Some(work);
    }

    /// It has ended, for the provider as well. `None` when it was given up before.
    pub(crate) fn end(&mut self, number: usize) -> Option<Work> {
        self.free.push(number as u32);
        self.slots[number].take()
    }

    /// It has ended for us, and the provider still has it: its number stays taken.
    pub(crate) fn give_up(&mut self, number: usize) -> Option<Work> {
        self.slots[number].take()
    }

    /// Those with a peer that the provider has.
    pub(crate) fn with(&self, peer: Peer) -> Vec<usize> {
        let is_its = |work: &Option<Work>| work.is_some_and(|work| work.peer == peer && work.is_posted);
        (0..self.slots.len()).filter(|&number| is_its(&self.slots[number])).collect()
    }

    /// Whether there is a number for another.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
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

/// Memory that the provider was told of: by us for our own operations, and open to peers.
#[derive(Debug)]
pub(crate) struct Registrations {
    /// By rail.
    domains: Vec<Arc<Domain>>,
    /// By what peers call it. Several openings of the same memory are one entry.
    open: HashMap<Key, Opened>,
    /// Where registering costs something; else each opening is a registration of its own.
    cache: Option<Cache>,
    next_key: u64,
    key_mask: u64,
    access: Access,
    by_address: bool,
    needs_local: bool,
}

#[derive(Debug)]
struct Opened {
    what: Region,
    buf: Buf,
    times: u32,
}

#[derive(Debug)]
enum Region {
    /// Kept when it is closed; on the rails that peers reach it by.
    Kept([Hold; 2]),
    /// Ends when it is closed. Never looked at again, only dropped.
    Own(#[expect(dead_code, reason = "dropping it is what it is for")] MemoryRegion),
}

impl Registrations {
    /// None yet. `monitor` is needed where registrations are to be kept.
    pub(crate) fn new(
        domains: Vec<Arc<Domain>>,
        abilities: &Abilities,
        monitor: Option<Monitor>,
    ) -> Registrations {
        let bits = 8 * abilities.memory_key_bytes.clamp(1, 8) as u32;
        let mut access = Access::READ_INTO.and(Access::WRITE_FROM);
        for (has, remote) in [
            (abilities.one_sided_read, Access::REMOTE_READ),
            (abilities.one_sided_write, Access::REMOTE_WRITE),
        ] {
            access = if has { access.and(remote) } else { access };
        }
        // Who demands that local memory is registered has a device that walks no page tables of ours.
        let is_costly = abilities.memory_local || abilities.memory_provider_keys;
        let cache =
            is_costly.then(|| Cache::new(Devices::new(domains.clone(), access), monitor, budget(abilities)));
        Registrations {
            domains,
            open: HashMap::new(),
            cache,
            next_key: 1,
            key_mask: u64::MAX >> (64 - bits),
            access,
            by_address: abilities.memory_by_address,
            needs_local: abilities.memory_local,
        }
    }

    /// Opens `buf`.
    ///
    /// # Errors
    /// What the provider says.
    pub(crate) fn open(&mut self, buf: Buf) -> Result<Key, Box<Fault>> {
        if buf.is_empty() {
            return Ok(NOTHING);
        }
        let (what, key) = match &mut self.cache {
            Some(_) => self.open_kept(buf)?,
            None => self.open_own(buf)?,
        };
        match self.open.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Opened { what, buf, times: 1 });
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.times += 1;
                known.buf = if buf.len() > known.buf.len() { buf } else { known.buf };
                self.give_up(what);
            }
        }
        Ok(key)
    }

    /// A registration of its own.
    fn open_own(&mut self, buf: Buf) -> Result<(Region, Key), Box<Fault>> {
        let wanted = self.next_key & self.key_mask;
        self.next_key += 1;
        let region = self.domains[0]
            .register(buf, self.access, wanted)
            .map_err(|error| faults::not_registered(buf.len(), &error))?;
        let name = region.key().ok_or_else(faults::keys_too_long)?;
        let base = if self.by_address { buf.as_ptr() as u64 } else { 0 };
        Ok((Region::Own(region), Key { base, name }))
    }

    /// A registration that may be there already; on two rails where there are several.
    fn open_kept(&mut self, buf: Buf) -> Result<(Region, Key), Box<Fault>> {
        let rails = self.pair(buf);
        let cache = self.cache.as_mut().expect("the caller has looked");
        let failed = |error| faults::not_registered(buf.len(), &error);
        let first = cache.hold(buf, rails[0]).map_err(failed)?;
        let second = match cache.hold(buf, rails[1]) {
            Ok(second) => second,
            Err(error) => {
                cache.release(first);
                return Err(failed(error));
            }
        };
        let what = Region::Kept([first, second]);
        let address = buf.as_ptr() as usize;
        let base = if self.by_address { address } else { address - cache.start(first) } as u64;
        let name = |hold| cache.region(hold).key();
        let key = match (name(first), name(second)) {
            (Some(name), Some(_)) if self.domains.len() == 1 => Some(Key { base, name }),
            (Some(low), Some(high)) => Striped { base, rails: [(rails[0], low), (rails[1], high)] }.to_key(),
            _ => None,
        };
        match key {
            Some(key) => Ok((what, key)),
            None => {
                self.give_up(what);
                Err(faults::keys_too_long())
            }
        }
    }

    /// The rails that peers reach `buf` by.
    pub(crate) fn pair(&self, buf: Buf) -> [usize; 2] {
        pair(buf.as_ptr() as usize, self.domains.len())
    }

    /// Closes it again.
    pub(crate) fn close(&mut self, key: Key) {
        if key == NOTHING {
            return;
        }
        let Entry::Occupied(mut opened) = self.open.entry(key) else {
            debug_assert!(false, "memory is closed as often as it was opened");
            return;
        };
        opened.get_mut().times -= 1;
        if opened.get().times == 0 {
            let what = opened.remove().what;
            self.give_up(what);
        }
    }

    fn give_up(&mut self, what: Region) {
        if let (Region::Kept(holds), Some(cache)) = (&what, &mut self.cache) {
            holds.iter().for_each(|&hold| cache.release(hold));
        }
    }

    /// Our own memory, by a name that we gave out; `None` when it is not open, or shorter.
    pub(crate) fn find(&self, remote: RemoteSlice) -> Option<Buf> {
        let buf = self.open.get(&remote.key)?.buf;
        let start = usize::try_from(remote.offset).ok()?;
        let end = start.checked_add(usize::try_from(remote.len).ok()?)?;
        (end <= buf.len()).then(|| buf.slice(start..end))
    }

    /// Registers memory of an operation of our own with the device of `rail`, where that is needed.
    ///
    /// # Errors
    /// What the provider says.
    pub(crate) fn hold(&mut self, local: Buf, rail: usize) -> Result<Option<Hold>, Box<Fault>> {
        match &mut self.cache {
            Some(cache) if self.needs_local => {
                cache.hold(local, rail).map(Some).map_err(|error| faults::not_registered(local.len(), &error))
            }
            _ => Ok(None),
        }
    }

    /// What the operation names that memory by.
    pub(crate) fn descriptor(&self, hold: Option<Hold>) -> Descriptor {
        match (&self.cache, hold) {
            (Some(cache), Some(hold)) => cache.region(hold).descriptor(),
            _ => Descriptor::NONE,
        }
    }

    /// The operation is over.
    pub(crate) fn release(&mut self, hold: Option<Hold>) {
        if let (Some(cache), Some(hold)) = (&mut self.cache, hold) {
            cache.release(hold);
        }
    }

    /// What the cache has done; `None` where there is none.
    pub(crate) fn tally(&self) -> Option<Tally> {
        self.cache.as_ref().map(Cache::tally)
    }
}

/// Registrations that are kept for later use.
///
/// Sum: at most 1,024 regions, and not more than an eighth of what the device has for all ranks. At most 1 GiB, and half of
/// what this process may lock; the other half is for what is in use.
fn budget(abilities: &Abilities) -> Budget {
    const REGIONS: usize = 1024;
    const BYTES: usize = 1 << 30;
    let regions_max = match abilities.memory_regions_max {
        0 => usize::MAX,
        most => most / 8,
    };
    let lockable = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    Budget {
        regions: REGIONS.min(regions_max),
        bytes: lockable.map_or(BYTES, |most| BYTES.min(most as usize / 2)),
    }
}
