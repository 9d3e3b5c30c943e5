//! Memory that the device may touch, kept registered for the next time.
//!
//! Registering pins pages: some microseconds for a small buffer, a millisecond for a large one. Programs use the same buffers
//! again and again, so a registration is kept when its operation is over, until the budget needs its place or the
//! memory behind it changes ([`Monitor`]). Where changes cannot be watched nothing is kept: a registration of memory that was
//! unmapped and mapped again leads the device to pages that are nobody's.
//!
//! Ranges are those of whole pages. A buffer is served by any kept range that it lies in.
//!
//! Budget: at most [`Budget::regions`] and [`Budget::bytes`] are kept beside those in use. Those in use are bounded by the
//! one-sided operations in flight and by what the engine opens to peers; they are never taken away.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use selvedge_transport::Buf;

use crate::error::Error;
use crate::rail::fabric::{Access, Domain, MemoryRegion};
use crate::rail::monitor::Monitor;
use crate::transport::rails::RAILS_MAX;

/// A page of the smallest kind.
const PAGE_BYTES: usize = 4096;

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) regions: usize,
    pub(crate) bytes: usize,
}

/// A registration in use. Given back with [`Cache::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    entry: u32,
    rail: u8,
}

impl Hold {
    /// The rail it is for.
    pub(crate) fn rail(self) -> usize {
        self.rail.into()
    }
}

/// What the cache has done, for reports and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Registrations that were there already.
    pub(crate) hits: u64,
    /// Registrations that were made.
    pub(crate) misses: u64,
    /// Registrations that were given up for others.
    pub(crate) evicted: u64,
    /// Registrations whose memory has changed.
    pub(crate) stale: u64,
}

#[derive(Debug)]
struct Entry<R> {
    /// By rail; made when they are first needed.
    regions: [Option<R>; RAILS_MAX],
    pages: Range<usize>,
    holders: u32,
    /// Its memory is still what was registered, as far as is known: it may serve others.
    is_good: bool,
    used: u64,
}

/// What makes registrations. A device, or a stand-in for tests.
pub(crate) trait Registrar {
    /// A registration; dropping it ends it.
    type Region;

    /// Registers whole pages with the device of a rail.
    fn register(&mut self, rail: usize, pages: &Range<usize>) -> Result<Self::Region, Error>;
}

/// The devices of a rank.
#[derive(Debug)]
pub(crate) struct Devices {
    /// By rail.
    domains: Vec<Arc<Domain>>,
    access: Access,
    next_key: u64,
}

impl Devices {
    pub(crate) fn new(domains: Vec<Arc<Domain>>, access: Access) -> Devices {
        Devices { domains, access, next_key: 1 }
    }
}

impl Registrar for Devices {
    type Region = MemoryRegion;

    fn register(&mut self, rail: usize, pages: &Range<usize>) -> Result<MemoryRegion, Error> {
        // SAFETY: the pages hold a claim (of an operation or of an opening to peers), whose maker has promised that its bytes
        // stay and may be read and written. What else lies on the first and last page the device touches only if it is
        // asked to, which is never done.
        let whole = unsafe { Buf::claim(pages.start as *mut u8, pages.len()) };
        self.next_key += 1;
        self.domains[rail].register(whole, self.access, self.next_key)
    }
}

/// See the top of the file.
#[derive(Debug)]
pub(crate) struct Cache<R: Registrar = Devices> {
    registrar: R,
    /// `None`: nothing is kept.
    monitor: Option<Monitor>,
    budget: Budget,
    entries: Vec<Option<Entry<R::Region>>>,
    free: Vec<u32>,
    /// Good entries by their first byte. Where two begin at the same, the longer.
    by_start: BTreeMap<usize, u32>,
    /// Good entries that nobody holds: number, bytes.
    idle: (usize, usize),
    clock: u64,
    tally: Tally,
    /// Numbers of entries that have changed, between two lookups empty; its memory is used again.
    changed: Vec<u32>,
}

impl<R: Registrar> Cache<R> {
    /// Empty.
    pub(crate) fn new(registrar: R, monitor: Option<Monitor>, budget: Budget) -> Cache<R> {
        Cache {
            registrar,
            monitor,
            budget,
            entries: Vec::new(),
            free: Vec::new(),
            by_start: BTreeMap::new(),
            idle: (0, 0),
            clock: 0,
            tally: Tally::default(),
            changed: Vec::new(),
        }
    }

    /// A registration with the device of `rail` that `buf`, which is not empty, lies in.
    ///
    /// # Errors
    /// What the provider says when even without anything kept there is no room.
    pub(crate) fn hold(&mut self, buf: Buf, rail: usize) -> Result<Hold, Error> {
        self.forget_changed();
        self.clock += 1;
        let pages = pages_of(buf);
        if let Some(index) = self.find_checked(&pages) {
            return self.hold_again(index, rail);
        }
        self.tally.misses += 1;
        // Watched before it is registered: a change in between is then known, and not missed.
        let is_watched = self.monitor.as_ref().is_some_and(|monitor| monitor.watch(&pages));
        let mut regions = [const { None }; RAILS_MAX];
        regions[rail] = Some(self.register(rail, &pages)?);
        let entry =
            Entry { regions, pages: pages.clone(), holders: 1, is_good: is_watched, used: self.clock };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() as u32 - 1
            }
        };
        if is_watched && let Some(shorter) = self.by_start.insert(pages.start, index) {
            self.spoil(shorter);
        }
        Ok(Hold { entry: index, rail: rail as u8 })
    }

    /// Holds an entry that is there, and registers it with the device of `rail` if it was not yet.
    fn hold_again(&mut self, index: u32, rail: usize) -> Result<Hold, Error> {
        // Held first, so that it is not what makes room for its own registration.
        let clock = self.clock;
        let entry = self.entries[index as usize].as_mut().expect("found");
        if entry.holders == 0 {
            self.idle = (self.idle.0 - 1, self.idle.1 - entry.pages.len());
        }
        entry.holders += 1;
        entry.used = clock;
        let hold = Hold { entry: index, rail: rail as u8 };
        if entry.regions[rail].is_some() {
            self.tally.hits += 1;
            return Ok(hold);
        }
        self.tally.misses += 1;
        let pages = entry.pages.clone();
        match self.register(rail, &pages) {
            Ok(region) => self.entries[index as usize].as_mut().expect("held").regions[rail] = Some(region),
            Err(error) => {
                self.release(hold);
                return Err(error);
            }
        }
        Ok(hold)
    }

    fn register(&mut self, rail: usize, pages: &Range<usize>) -> Result<R::Region, Error> {
        match self.registrar.register(rail, pages) {
            Ok(region) => Ok(region),
            // A limit is reached: once more without anything that nobody needs.
            Err(_) if self.idle.0 > 0 => {
                while self.evict() {}
                self.registrar.register(rail, pages)
            }
            Err(error) => Err(error),
        }
    }

    /// The registration that is held.
    pub(crate) fn region(&self, hold: Hold) -> &R::Region {
        self.entry(hold.entry).regions[hold.rail()].as_ref().expect("held")
    }

    /// Where the registered memory starts.
    pub(crate) fn start(&self, hold: Hold) -> usize {
        self.entry(hold.entry).pages.start
    }

    /// It is not needed any more.
    pub(crate) fn release(&mut self, hold: Hold) {
        let entry = self.entries[hold.entry as usize].as_mut().expect("held");
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        if !entry.is_good {
            return self.drop_entry(hold.entry);
        }
        self.idle = (self.idle.0 + 1, self.idle.1 + entry.pages.len());
        while (self.idle.0 > self.budget.regions || self.idle.1 > self.budget.bytes) && self.evict() {}
    }

    /// What it has done.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// What [`Cache::find`] finds, if the mapping is the one that was registered.
    fn find_checked(&mut self, pages: &Range<usize>) -> Option<u32> {
        let index = self.find(pages)?;
        if self.monitor.as_ref().is_some_and(|monitor| monitor.is_watched(pages.start)) {
            return Some(index);
        }
        self.forget(index);
        None
    }

    fn find(&self, pages: &Range<usize>) -> Option<u32> {
        let (_, &index) = self.by_start.range(..=pages.start).next_back()?;
        let entry = self.entries[index as usize].as_ref().expect("in the table");
        (pages.end <= entry.pages.end).then_some(index)
    }

    /// Ends the idle registration that was used longest ago. False when there is none. Looks at all: on the way of a miss,
    /// which costs more.
    #[cold]
    fn evict(&mut self) -> bool {
        let idle = self.by_start.values().copied().filter(|&index| self.entry(index).holders == 0);
        let Some(oldest) = idle.min_by_key(|&index| self.entry(index).used) else { return false };
        self.tally.evicted += 1;
        self.spoil(oldest);
        true
    }

    fn entry(&self, index: u32) -> &Entry<R::Region> {
        self.entries[index as usize].as_ref().expect("in the table")
    }

    /// An entry serves nobody else any more; it goes when its last holder does.
    fn spoil(&mut self, index: u32) {
        let entry = self.entries[index as usize].as_mut().expect("in the table");
        entry.is_good = false;
        if self.by_start.get(&entry.pages.start) == Some(&index) {
            self.by_start.remove(&entry.pages.start);
        }
        if entry.holders == 0 {
            self.idle = (self.idle.0 - 1, self.idle.1 - entry.pages.len());
            self.drop_entry(index);
        }
    }

    fn drop_entry(&mut self, index: u32) {
        self.entries[index as usize] = None;
        self.free.push(index);
    }

    /// Takes out what the monitor says has changed.
    fn forget_changed(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let mut changed = std::mem::take(&mut self.changed);
        for range in monitor.changes() {
            // What overlaps begins before the end of the change. What is kept is little; all of those are looked at.
            let before = self.by_start.range(..range.end);
            let entries = &self.entries;
            let ends = |index: u32| entries[index as usize].as_ref().map_or(0, |entry| entry.pages.end);
            changed.extend(before.map(|(_, &index)| index).filter(|&index| ends(index) > range.start));
        }
        for index in changed.drain(..) {
            self.forget(index);
        }
        self.changed = changed;
    }

    /// Its memory is not what was registered any more.
    #[cold]
    fn forget(&mut self, index: u32) {
        // It may overlap several changes.
        if self.entries[index as usize].as_ref().is_some_and(|entry| entry.is_good) {
            self.tally.stale += 1;
            self.spoil(index);
        }
    }
}

/// The whole pages that a claim lies on.
fn pages_of(buf: Buf) -> Range<usize> {
    let start = buf.as_ptr() as usize;
    start / PAGE_BYTES * PAGE_BYTES..(start + buf.len()).next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use rustix::mm::{MapFlags, ProtFlags};

    use super::*;

    /// Counts what is registered; with a limit.
    #[derive(Debug, Default)]
    struct Counter {
        live: Rc<RefCell<Vec<Range<usize>>>>,
        most: usize,
    }

    struct Counted {
        live: Rc<RefCell<Vec<Range<usize>>>>,
        pages: Range<usize>,
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            let mut live = self.live.borrow_mut();
            let at = live.iter().position(|pages| *pages == self.pages).expect("it is live");
            live.swap_remove(at);
        }
    }

    impl Registrar for Counter {
        type Region = Counted;

        fn register(&mut self, rail: usize, pages: &Range<usize>) -> Result<Counted, Error> {
            assert!(rail < 2);
            if self.live.borrow().len() == self.most {
                return Err(Error { call: "fi_mr_reg", code: libc::ENOMEM, words: "full".to_string() });
            }
            self.live.borrow_mut().push(pages.clone());
            Ok(Counted { live: self.live.clone(), pages: pages.clone() })
        }
    }

    const ROOM: Budget = Budget { regions: 4, bytes: 1 << 20 };

    fn cache(most: usize, budget: Budget) -> Cache<Counter> {
        let monitor = Monitor::start().expect("Linux 5.11 or later, and a container that allows userfaultfd");
        Cache::new(Counter { most, ..Counter::default() }, Some(monitor), budget)
    }

    /// Memory of its own mapping, not merged with another by a page that nobody may touch behind it.
    fn map(pages: usize) -> Buf {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        let len = pages * PAGE_BYTES;
        // SAFETY: new memory where the kernel likes.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags) };
        // SAFETY: it was mapped just now, and is the test's.
        unsafe { Buf::claim(start.expect("memory").cast(), len) }
    }

    fn unmap(buf: Buf) {
        // SAFETY: mapped by `map`, and used by nobody any more.
        unsafe { rustix::mm::munmap(buf.as_ptr().cast(), buf.len()) }.expect("it was mapped");
    }

    fn use_once(cache: &mut Cache<Counter>, buf: Buf) {
        let hold = cache.hold(buf, 0).expect("room");
        cache.release(hold);
    }

    #[test]
    fn a_buffer_that_is_used_again_is_registered_once_and_so_are_its_parts() {
        let (mut cache, buf) = (cache(9, ROOM), map(4));
        use_once(&mut cache, buf);
        use_once(&mut cache, buf);
        use_once(&mut cache, buf.slice(100..5000));
        let (first, second) = (cache.hold(buf, 0).expect("room"), cache.hold(buf, 0).expect("room"));
        assert_eq!(first, second, "two operations share it");
        cache.release(first);
        cache.release(second);
        assert_eq!((cache.tally().hits, cache.tally().misses), (4, 1));
        unmap(buf);
    }

    #[test]
    fn a_buffer_is_registered_with_each_device_that_needs_it() {
        let (mut cache, buf) = (cache(9, ROOM), map(4));
        let live = cache.registrar.live.clone();
        for rail in [0, 1, 1, 0] {
            let hold = cache.hold(buf, rail).expect("room");
            assert_eq!(hold.rail(), rail);
            cache.release(hold);
        }
        assert_eq!((cache.tally().hits, cache.tally().misses, live.borrow().len()), (2, 2, 2));
        unmap(buf);
    }

    #[test]
    fn memory_mapped_again_at_the_same_address_is_registered_again() {
        let mut cache = cache(9, ROOM);
        let (mut stale, mut same) = (0, 0);
        let mut before = std::ptr::null_mut();
        for _ in 0..100 {
            let buf = map(3);
            same += u32::from(buf.as_ptr() == before);
            before = buf.as_ptr();
            use_once(&mut cache, buf);
            stale = cache.tally().stale;
            unmap(buf);
        }
        assert!(same > 50, "the kernel gives the same address again");
        assert_eq!((cache.tally().hits, cache.tally().misses, stale), (0, 100, 99));
    }

    #[test]
    fn a_registration_in_use_outlives_the_change_of_its_memory_and_serves_nobody_else() {
        let (mut cache, buf) = (cache(9, ROOM), map(2));
        let live = cache.registrar.live.clone();
        let held = cache.hold(buf, 0).expect("room");
        unmap(buf);
        let other = map(1);
        use_once(&mut cache, other);
        assert_eq!(live.borrow().len(), 2, "held, and kept");
        cache.release(held);
        assert_eq!(live.borrow().len(), 1);
        unmap(other);
    }

    #[test]
    fn beyond_the_budget_what_was_used_longest_ago_goes_and_what_is_in_use_never() {
        let mut cache = cache(99, ROOM);
        let live = cache.registrar.live.clone();
        let buffers: Vec<Buf> = (0..7).map(|_| map(2)).collect();
        let held = cache.hold(buffers[0], 0).expect("room");
        buffers.iter().for_each(|&buf| use_once(&mut cache, buf));
        assert_eq!(live.borrow().len(), 1 + ROOM.regions);
        assert_eq!(cache.tally().evicted, 2);
        use_once(&mut cache, buffers[6]);
        use_once(&mut cache, buffers[0]);
        assert_eq!(cache.tally().hits, 3);
        let large = map(1 + (ROOM.bytes / PAGE_BYTES));
        use_once(&mut cache, large);
        assert_eq!(
            live.borrow().len(),
            1,
            "more than all the bytes there are is not kept, nor is anything beside it"
        );
        cache.release(held);
        buffers.into_iter().chain([large]).for_each(unmap);
    }

    #[test]
    fn when_the_device_is_full_what_nobody_needs_makes_room() {
        let mut cache = cache(2, ROOM);
        let buffers: Vec<Buf> = (0..3).map(|_| map(1)).collect();
        let held = cache.hold(buffers[0], 0).expect("room");
        use_once(&mut cache, buffers[1]);
        let second = cache.hold(buffers[2], 0).expect("the kept one goes");
        assert!(cache.hold(buffers[1], 0).is_err(), "both are in use");
        cache.release(held);
        cache.release(second);
        buffers.into_iter().for_each(unmap);
    }

    #[test]
    fn without_a_monitor_nothing_is_kept() {
        let mut cache = Cache::new(Counter { most: 9, ..Counter::default() }, None, ROOM);
        let live = cache.registrar.live.clone();
        let buf = map(1);
        use_once(&mut cache, buf);
        assert_eq!(live.borrow().len(), 0);
        unmap(buf);
    }
}
