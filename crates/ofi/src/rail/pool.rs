//! Memory of packets: one mapping for those that come, one for those that go.
//!
//! A slot has one owner at a time. A slot that packets go from is ours while it is in the list of free ones and the
//! provider's from the call that sends until its completion. A slot that packets come into is the provider's while it is
//! posted, ours when its completion has been read, and on loan until it is given back.

use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use selvedge_transport::{Buf, Peer};

/// A page of the smallest kind.
const PAGE_BYTES: usize = 4096;

/// Equal slots in memory of its own, zero at first, that exists when it is first touched and not in children of a fork.
#[derive(Debug)]
pub(crate) struct Slab {
    start: NonNull<u8>,
    slot_bytes: usize,
    slots: usize,
}

// SAFETY: the mapping is this value's alone, and reached only through it.
unsafe impl Send for Slab {}

impl Slab {
    /// `slots` slots of `slot_bytes` each, one behind the other from a page boundary on.
    ///
    /// # Errors
    /// What the kernel says: no memory, or no addresses.
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> Result<Slab, Errno> {
        let len = mapped_bytes(slots, slot_bytes);
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: new memory where the kernel likes; nothing that exists is replaced.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags) }?;
        // A child that copies a page on which a device works would take the original with it (fork(2), RDMA).
        // SAFETY: advice on our own new mapping, which no child looks at. Kernels that refuse it lose nothing here.
        let _ = unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Slab { start, slot_bytes, slots })
    }

    /// A claim on all of it: what is registered.
    pub(crate) fn whole(&self) -> Buf {
        // SAFETY: all of it is mapped as long as we live; bytes are any bits. Who works on which slot at which time is
        // what `Inbound` and `Outbound` keep account of.
        unsafe { Buf::claim(self.start.as_ptr(), mapped_bytes(self.slots, self.slot_bytes)) }
    }

    /// A claim on slot `index`, for the provider.
    #[inline]
    pub(crate) fn slot(&self, index: usize) -> Buf {
        // SAFETY: the slot is mapped as long as we live; bytes are any bits. As for `whole`, `Inbound` and `Outbound` keep
        // account of who works on it.
        unsafe { Buf::claim(self.at(index), self.slot_bytes) }
    }

    /// Where slot `index` starts.
    #[inline]
    fn at(&self, index: usize) -> *mut u8 {
        assert!(index < self.slots);
        self.start.as_ptr().wrapping_add(index * self.slot_bytes)
    }
}

fn mapped_bytes(slots: usize, slot_bytes: usize) -> usize {
    (slots * slot_bytes).max(1).next_multiple_of(PAGE_BYTES)
}

impl Drop for Slab {
    fn drop(&mut self) {
        let len = mapped_bytes(self.slots, self.slot_bytes);
        // SAFETY: the mapping was made in `new` with this length; the endpoint that had claims on it has been closed before,
        // see the order of fields in `Rail`.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), len) };
    }
}

/// Length of a slot that is not on loan.
const POSTED: u32 = u32::MAX;

/// Packets that come.
#[derive(Debug)]
pub(crate) struct Inbound {
    slab: Slab,
    /// Of the packet in each slot, or [`POSTED`].
    lengths: Vec<u32>,
}

impl Inbound {
    /// Room for `slots` packets of `packet_bytes` each.
    pub(crate) fn new(slots: usize, packet_bytes: usize) -> Result<Inbound, Errno> {
        Ok(Inbound { slab: Slab::new(slots, packet_bytes)?, lengths: vec![POSTED; slots] })
    }

    /// The memory.
    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
    }

    /// Slot `index` is ours: a packet of `len` bytes is in it.
    #[inline]
    pub(crate) fn take(&mut self, index: usize, len: usize) {
        debug_assert_eq!(self.lengths[index], POSTED);
        self.lengths[index] = len.min(self.slab.slot_bytes) as u32;
    }

    /// Puts a packet of our own into slot `index`, which is not posted to any provider, and takes it.
    pub(crate) fn put(&mut self, index: usize, header: &[u8], payload: Buf) {
        debug_assert_eq!(self.lengths[index], POSTED);
        let len = header.len() + payload.len();
        assert!(len <= self.slab.slot_bytes, "a packet fits its slot");
        // SAFETY: `len` bytes of the slot exist; it is not on loan (`lengths`), and not with a provider (the caller has no
        // endpoint for this pool).
        let slot = unsafe { std::slice::from_raw_parts_mut(self.slab.at(index), len) };
        gather(slot, header, payload);
        self.lengths[index] = len as u32;
    }

    /// Slot `index` is about to be posted again. Panics when it is posted already.
    #[inline]
    pub(crate) fn give_back(&mut self, index: usize) {
        assert!(self.lengths[index] != POSTED, "a slot that is given back was taken");
        self.lengths[index] = POSTED;
    }

    /// The packet in slot `index`. Panics when it is not ours.
    #[inline]
    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        let len = self.lengths[index];
        assert!(len != POSTED, "a packet that is looked at was taken");
        // SAFETY: the slot has at least `len` bytes (`take`). Its completion has been read and it has not been posted
        // again (`lengths` says so), so nobody writes to it as long as we are borrowed.
        unsafe { std::slice::from_raw_parts(self.slab.at(index), len as usize) }
    }
}

/// Packets that go.
#[derive(Debug)]
pub(crate) struct Outbound {
    slab: Slab,
    free: Vec<u32>,
    /// Of the packet in each slot.
    sent: Vec<Sent>,
}

/// A packet in a slot that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Whom it is for.
    pub(crate) to: Peer,
    /// The rest is known where [`Outbound::note`] was called: by which of the peer's rails it goes,
    pub(crate) theirs: u8,
    /// how long it is,
    pub(crate) len: u32,
    /// and what goes beside it.
    pub(crate) data: u64,
}

impl Outbound {
    /// Room for `slots` packets of `packet_bytes` each.
    pub(crate) fn new(slots: usize, packet_bytes: usize) -> Result<Outbound, Errno> {
        let slab = Slab::new(slots, packet_bytes)?;
        let nothing = Sent { to: Peer(0), theirs: 0, len: 0, data: 0 };
        Ok(Outbound { slab, free: (0..slots as u32).rev().collect(), sent: vec![nothing; slots] })
    }

    /// The memory.
    pub(crate) fn slab(&self) -> &Slab {
        &self.slab
    }

    /// A free slot, the one used last, for a packet to `to`.
    #[inline]
    pub(crate) fn take(&mut self, to: Peer) -> Option<usize> {
        let index = self.free.pop()? as usize;
        self.sent[index].to = to;
        Some(index)
    }

    /// Keeps in mind what else there is to know of the packet in slot `index`, for who may have to send it again.
    #[inline]
    pub(crate) fn note(&mut self, index: usize, len: usize, data: u64, theirs: usize) {
        self.sent[index] = Sent { to: self.sent[index].to, theirs: theirs as u8, len: len as u32, data };
    }

    /// Puts a packet in a slot that was taken, and returns its length. Panics when it is too long.
    #[inline]
    pub(crate) fn fill(&mut self, index: usize, header: &[u8], payload: Buf) -> usize {
        let len = header.len() + payload.len();
        assert!(len <= self.slab.slot_bytes, "a packet fits its slot");
        // SAFETY: `len` bytes of the slot exist, and it was taken: no operation reads it and nobody else has a reference.
        let slot = unsafe { std::slice::from_raw_parts_mut(self.slab.at(index), len) };
        gather(slot, header, payload);
        len
    }

    /// What is known of the packet in slot `index`.
    #[inline]
    pub(crate) fn sent(&self, index: usize) -> Sent {
        self.sent[index]
    }

    /// A claim on the packet in slot `index`, of which [`Outbound::note`] knows.
    pub(crate) fn packet(&self, index: usize) -> Buf {
        self.slab.slot(index).slice(0..self.sent[index].len as usize)
    }

    /// Its packet is on its way, or will never be.
    #[inline]
    pub(crate) fn give_back(&mut self, index: usize) {
        debug_assert!(self.free.len() < self.slab.slots);
        self.free.push(index as u32);
    }

    /// Slots in use.
    pub(crate) fn in_use(&self) -> usize {
        self.slab.slots - self.free.len()
    }
}

/// Writes header and payload one behind the other. `out` has just their length.
#[inline]
pub(crate) fn gather(out: &mut [u8], header: &[u8], payload: Buf) {
    let (front, back) = out.split_at_mut(header.len());
    front.copy_from_slice(header);
    payload.copy_to(back);
}

#[cfg(test)]
mod tests {
    use selvedge_transport::Memory;

    use super::*;

    #[test]
    fn slots_lie_one_behind_the_other_and_do_not_overlap() {
        let mut out = Outbound::new(3, 100).unwrap();
        let taken: Vec<usize> = (0..3).map(|peer| out.take(Peer(peer)).unwrap()).collect();
        assert_eq!(out.take(Peer(9)), None, "no more than there are");
        for &index in &taken {
            let len = out.fill(index, &[index as u8; 30], Memory::of(&[0xEE; 70]).buf());
            assert_eq!(len, 100);
        }
        for &index in &taken {
            assert_eq!(out.slab.slot(index).as_ptr(), out.slab.whole().as_ptr().wrapping_add(100 * index));
            assert_eq!(out.sent(index).to, Peer(index as u32));
        }
        taken.iter().for_each(|&index| out.give_back(index));
        assert_eq!(out.in_use(), 0);
    }

    #[test]
    #[should_panic(expected = "was taken")]
    fn a_packet_that_was_given_back_cannot_be_looked_at() {
        let mut inbound = Inbound::new(2, 100).unwrap();
        inbound.take(1, 10);
        inbound.give_back(1);
        inbound.packet(1);
    }
}
