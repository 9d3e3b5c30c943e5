//! Registered memory and address handles of an opened device.

use std::collections::HashMap;

use crate::abi::access;
use crate::srd::Gid;

/// Bits of a key that say which slot; the rest is a tag that changes with every registration.
const SLOT_BITS: u32 = 18;

/// Why memory is not registered, as the number that the call sets `errno` to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such length, or access bits that exclude each other: EINVAL.
    Invalid,
    /// Access that the device has not: EOPNOTSUPP.
    Unsupported,
    /// No slot left, or more memory than may be locked: ENOMEM.
    Exhausted,
    /// The memory is not there: EFAULT.
    NoMemory,
}

impl Refused {
    /// For `errno`.
    pub fn errno(self) -> i32 {
        match self {
            Refused::Invalid => libc::EINVAL,
            Refused::Unsupported => libc::EOPNOTSUPP,
            Refused::Exhausted => libc::ENOMEM,
            Refused::NoMemory => libc::EFAULT,
        }
    }
}

/// A piece of memory that the device may use.
#[derive(Clone, Copy, Debug)]
struct Region {
    key: u32,
    domain: u32,
    /// What peers and work requests call its first byte.
    start: u64,
    /// Where that is.
    at: u64,
    bytes: u64,
    access: u32,
}

/// What is asked of [`Regions::register`].
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Protection domain.
    pub domain: u32,
    /// Where the memory is.
    pub at: u64,
    /// What it shall be called by peers and work requests; usually the same.
    pub start: u64,
    /// Length.
    pub bytes: u64,
    /// Bits of [`access`].
    pub access: u32,
}

/// All registered memory of an opened device.
#[derive(Debug)]
pub struct Regions {
    slots: Vec<Option<Region>>,
    free: Vec<u32>,
    tags: u64,
    bytes: u64,
    slots_max: usize,
    bytes_max: u64,
    supported: u32,
}

impl Regions {
    /// Room for `slots_max` regions and `bytes_max` bytes, with the access bits in `supported`. `seed` makes the tags.
    pub fn new(slots_max: u32, bytes_max: Option<u64>, supported: u32, seed: u64) -> Regions {
        let slots_max = (slots_max as usize).min(1 << SLOT_BITS);
        let bytes_max = bytes_max.unwrap_or(u64::MAX);
        Regions { slots: Vec::new(), free: Vec::new(), tags: seed, bytes: 0, slots_max, bytes_max, supported }
    }

    /// Makes memory usable; the answer is the key, for own work requests as for peers.
    pub fn register(&mut self, asked: Asked) -> Result<u32, Refused> {
        let wanted = asked.access & !access::OPTIONAL;
        let fits = asked.start.checked_add(asked.bytes).is_some();
        let writable = wanted & access::REMOTE_WRITE == 0 || wanted & access::LOCAL_WRITE != 0;
        if asked.bytes == 0 || !fits || !writable {
            return Err(Refused::Invalid);
        }
        if wanted & !self.supported != 0 {
            return Err(Refused::Unsupported);
        }
        let total = self.bytes.saturating_add(asked.bytes);
        if total > self.bytes_max {
            return Err(Refused::Exhausted);
        }
        let slot = self.free_slot().ok_or(Refused::Exhausted)?;
        let key = slot | self.next_tag() << SLOT_BITS;
        let Asked { domain, at, start, bytes, .. } = asked;
        self.slots[slot as usize] = Some(Region { key, domain, start, at, bytes, access: wanted });
        self.bytes = total;
        Ok(key)
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = u32::try_from(self.slots.len()).ok()?;
        (self.slots.len() < self.slots_max).then(|| self.slots.push(None))?;
        Some(slot)
    }

    /// Tags follow a generator of full period, so that a key of the past is not soon a key again. Never 0: a key of 0
    /// is what a forgetful caller passes.
    fn next_tag(&mut self) -> u32 {
        loop {
            self.tags =
                self.tags.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let tag = (self.tags >> 50) as u32;
            if tag != 0 {
                return tag;
            }
        }
    }

    /// Ends a registration. False if there is none of that key.
    pub fn deregister(&mut self, key: u32) -> bool {
        let slot = key & ((1 << SLOT_BITS) - 1);
        let Some(entry) = self.slots.get_mut(slot as usize) else { return false };
        let Some(region) = entry.filter(|region| region.key == key) else { return false };
        *entry = None;
        self.free.push(slot);
        self.bytes -= region.bytes;
        true
    }

    /// Where `bytes` that are called `start` lie, if one registration of this key and domain covers all of them and
    /// allows all of `access`.
    pub fn find(&self, key: u32, domain: u32, start: u64, bytes: u64, access: u32) -> Option<u64> {
        let slot = (key & ((1 << SLOT_BITS) - 1)) as usize;
        let region = self.slots.get(slot)?.filter(|region| region.key == key && region.domain == domain)?;
        let offset = start.checked_sub(region.start)?;
        let inside = offset.checked_add(bytes)? <= region.bytes;
        (inside && region.access & access == access).then(|| region.at + offset)
    }

    /// Bytes that are registered.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Registrations.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Address handles: who was introduced to this device, under which number.
#[derive(Debug, Default)]
pub struct Handles {
    numbers: HashMap<Gid, (u16, u32)>,
    free: Vec<u16>,
}

/// The number of a device without handle.
pub const UNKNOWN: u16 = 0xffff;

impl Handles {
    /// The number for `gid`: the same for all handles that lead there. `None` when all numbers are taken.
    pub fn acquire(&mut self, gid: Gid) -> Option<u16> {
        if let Some((number, uses)) = self.numbers.get_mut(&gid) {
            *uses += 1;
            return Some(*number);
        }
        let fresh = u16::try_from(self.numbers.len()).ok().filter(|number| *number < UNKNOWN);
        let number = self.free.pop().or(fresh)?;
        self.numbers.insert(gid, (number, 1));
        Some(number)
    }

    /// Gives one handle back. The number is free for another device when all handles of it are gone.
    pub fn release(&mut self, gid: Gid) {
        let Some((number, uses)) = self.numbers.get_mut(&gid) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.free.push(*number);
            self.numbers.remove(&gid);
        }
    }

    /// The number for `gid`, or [`UNKNOWN`].
    pub fn number(&self, gid: Gid) -> u16 {
        self.numbers.get(&gid).map_or(UNKNOWN, |(number, _)| *number)
    }

    /// Whether there is a handle for `gid`.
    pub fn knows(&self, gid: Gid) -> bool {
        self.numbers.contains_key(&gid)
    }
}

/// Whether all pages from `at` are mapped. Costs one system call per 4096 pages.
pub fn is_mapped(at: u64, bytes: u64) -> bool {
    let page = rustix::param::page_size() as u64;
    let mut pages = [0u8; 4096];
    let end = at.saturating_add(bytes);
    let mut from = at & !(page - 1);
    while from < end {
        let length = (end - from).min(pages.len() as u64 * page);
        // SAFETY: mincore(2) reads no memory at `from`, whatever it is; it writes a byte per page of `length` to `pages`,
        // which has that many.
        let rc = unsafe { libc::mincore(from as *mut libc::c_void, length as usize, pages.as_mut_ptr()) };
        if rc != 0 {
            return false;
        }
        from += length;
    }
    true
}

/// Copies `bytes` to `at` of this process.
///
/// # Safety
///
/// `at` is part of memory that the application has registered as writable, and that it leaves mapped while it is
/// registered and named by a posted request.
pub unsafe fn copy_in(at: u64, bytes: &[u8]) {
    // SAFETY: the destination is writable and there by the caller's promise; a packet's buffer is ours and never registered.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

/// Appends `count` bytes at `at` of this process.
///
/// # Safety
///
/// As for [`copy_in`], readable instead of writable.
pub unsafe fn copy_out(at: u64, count: u32, into: &mut Vec<u8>) {
    let (old, count) = (into.len(), count as usize);
    into.resize(old + count, 0);
    // SAFETY: the source is there by the caller's promise; the destination was just made that long.
    unsafe { std::ptr::copy_nonoverlapping(at as *const u8, into[old..].as_mut_ptr(), count) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = access::LOCAL_WRITE | access::REMOTE_READ | access::REMOTE_WRITE;

    fn asked(bytes: u64, access: u32) -> Asked {
        Asked { domain: 1, at: 0x5000, start: 0x1000, bytes, access }
    }

    #[test]
    fn only_the_bytes_and_the_use_that_were_registered_are_found() {
        let mut regions = Regions::new(4, None, ALL, 7);
        let key = regions.register(asked(100, access::REMOTE_READ)).expect("there is room");
        assert_eq!(regions.find(key, 1, 0x1000, 100, access::REMOTE_READ), Some(0x5000));
        assert_eq!(regions.find(key, 1, 0x1001, 99, 0), Some(0x5001));
        assert_eq!(regions.find(key, 1, 0x1001, 100, 0), None, "past the end");
        assert_eq!(regions.find(key, 1, 0xfff, 1, 0), None, "before the start");
        assert_eq!(regions.find(key, 1, u64::MAX, 2, 0), None);
        assert_eq!(regions.find(key, 2, 0x1000, 1, 0), None, "another domain");
        assert_eq!(regions.find(key, 1, 0x1000, 1, access::REMOTE_WRITE), None);
        assert_eq!(regions.find(key ^ 1 << 20, 1, 0x1000, 1, 0), None, "another tag");
    }

    #[test]
    fn a_key_of_the_past_is_no_key() {
        let mut regions = Regions::new(1, None, ALL, 7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let key = regions.register(asked(1, 0)).expect("the only slot is free");
            assert_eq!(regions.register(asked(1, 0)), Err(Refused::Exhausted));
            assert!(regions.deregister(key));
            assert!(!regions.deregister(key));
            assert_eq!(regions.find(key, 1, 0x1000, 1, 0), None);
            seen.insert(key);
        }
        assert!(seen.len() > 900, "{} keys differ", seen.len());
        assert_eq!((regions.bytes(), regions.count()), (0, 0));
    }

    #[test]
    fn what_the_device_cannot_do_is_refused() {
        let mut regions = Regions::new(4, Some(1000), access::LOCAL_WRITE, 7);
        assert_eq!(regions.register(asked(0, 0)), Err(Refused::Invalid));
        assert_eq!(regions.register(asked(u64::MAX, 0)), Err(Refused::Invalid));
        assert_eq!(regions.register(asked(9, access::REMOTE_WRITE)), Err(Refused::Invalid));
        assert_eq!(regions.register(asked(9, access::REMOTE_READ)), Err(Refused::Unsupported));
        assert_eq!(regions.register(asked(1001, 0)), Err(Refused::Exhausted));
        assert!(regions.register(asked(1000, access::OPTIONAL)).is_ok());
    }

    #[test]
    fn handles_of_one_device_share_a_number_until_the_last_is_gone() {
        let gid = |last| Gid::new(std::net::Ipv4Addr::new(127, 0, 0, last), 0);
        let mut handles = Handles::default();
        assert_eq!(handles.number(gid(1)), UNKNOWN);
        let first = handles.acquire(gid(1)).expect("numbers are left");
        assert_eq!(handles.acquire(gid(1)), Some(first));
        let other = handles.acquire(gid(2)).expect("numbers are left");
        assert_ne!(first, other);
        handles.release(gid(1));
        assert!(handles.knows(gid(1)));
        handles.release(gid(1));
        assert!(!handles.knows(gid(1)));
        assert_eq!(handles.acquire(gid(3)), Some(first));
        assert_eq!(handles.number(gid(2)), other);
    }

    #[test]
    fn memory_that_is_not_there_is_told_from_memory_that_is() {
        let here = vec![1u8; 100_000];
        assert!(is_mapped(here.as_ptr() as u64, here.len() as u64));
        assert!(!is_mapped(4096, 1));
    }
}
