//! A large one-sided copy as work for two: the reader (or writer) and the peer whose memory it is.
//!
//! The simple algorithm: cut the copy into chunks; both sides take the next chunk until none is left; it is done when
//! every taken chunk is done. Both cores copy at the same time, so 4 MiB take about half of one memcpy. A peer that
//! never polls costs nothing but its help.
//!
//! Tricks applied to it:
//! 1. A slot is used again for other copies, while a late helper may still be looking at it. So the word that chunks
//!    are taken from also carries a generation: taking a chunk of a copy that is over fails.
//! 2. Only one peer can help (the memory is its own), so the chunks it took are those that the initiator did not take,
//!    and one counter tells when they are done.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Large copies that one initiator has in the segment at a time.
pub(crate) const JOBS_MAX: usize = 16;

/// In place of the next chunk: nothing to take (any more).
const CLOSED: u32 = u32::MAX;

/// Which way the bytes go, seen from the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the owner's memory into the initiator's.
    Read,
    /// From the initiator's memory into the owner's.
    Write,
}

/// What is to be copied. Addresses are those of the process they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whose memory the remote side is; the one who can help.
    pub(crate) owner: u32,
    pub(crate) way: Way,
    pub(crate) remote: u64,
    pub(crate) local: u64,
    pub(crate) len: u64,
    pub(crate) chunk_bytes: u64,
}

impl Plan {
    /// Number of chunks.
    pub(crate) fn chunks(&self) -> u32 {
        // A slot that was never used says 0. `chunk_bytes` grows with `len`, so the number is far below `CLOSED`.
        u32::try_from(self.len.div_ceil(self.chunk_bytes.max(1))).unwrap_or(0)
    }

    /// Offset and length of a chunk.
    pub(crate) fn chunk(&self, index: u32) -> (u64, usize) {
        let offset = u64::from(index) * self.chunk_bytes;
        (offset, self.chunk_bytes.min(self.len - offset) as usize)
    }
}

/// A copy in shared memory: one cache line. All zero is a slot that was never used.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct JobSlot {
    /// Generation (high half) and next chunk to take (low half).
    ticket: AtomicU64,
    /// Chunks that the owner has finished.
    helped: AtomicU32,
    /// Not 0: the owner could not copy one of those, and the initiator must do it all again alone.
    refused: AtomicU32,
    /// Owner (high half) and [`Way`] (low half).
    owner_way: AtomicU64,
    remote: AtomicU64,
    local: AtomicU64,
    len: AtomicU64,
    chunk_bytes: AtomicU64,
}

/// The initiator's view of a copy under way.
#[derive(Debug)]
pub(crate) struct Job {
    generation: u32,
    pub(crate) plan: Plan,
    /// Chunks that the initiator took.
    mine: u32,
}

/// Where a copy stands, for its initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This chunk is the initiator's to copy.
    Take(u32),
    /// All chunks are taken, some by the owner and not done yet.
    Helped,
    /// All done.
    Done,
    /// The owner is through but could not copy; do it all again alone.
    Refused,
}

impl JobSlot {
    #[cfg(loom)]
    pub(crate) fn new() -> JobSlot {
        JobSlot {
            ticket: AtomicU64::new(0),
            helped: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            owner_way: AtomicU64::new(0),
            remote: AtomicU64::new(0),
            local: AtomicU64::new(0),
            len: AtomicU64::new(0),
            chunk_bytes: AtomicU64::new(0),
        }
    }

    /// Puts a copy up. The slot is the caller's, and its last copy was done or withdrawn.
    pub(crate) fn post(&self, plan: Plan) -> Job {
        let generation = ((self.ticket.load(Ordering::Relaxed) >> 32) as u32).wrapping_add(1);
        self.ticket.store(ticket(generation, CLOSED), Ordering::Relaxed);
        self.helped.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
        // SYNC: each pairs with its load in `look`: a helper that reads a new value also finds the ticket changed.
        self.owner_way
            .store(u64::from(plan.owner) << 32 | u64::from(plan.way == Way::Write), Ordering::Release);
        self.remote.store(plan.remote, Ordering::Release);
        self.local.store(plan.local, Ordering::Release);
        self.len.store(plan.len, Ordering::Release);
        self.chunk_bytes.store(plan.chunk_bytes, Ordering::Release);
        // SYNC: pairs with `take`: who takes a chunk sees the plan, and the initiator's bytes for a write.
        self.ticket.store(ticket(generation, 0), Ordering::Release);
        Job { generation, plan, mine: 0 }
    }

    /// For the owner `me`: takes a chunk, if there is one to take.
    pub(crate) fn help(&self, me: u32) -> Option<(Plan, u32)> {
        loop {
            // SYNC: pairs with the last store of `post`.
            let seen = self.ticket.load(Ordering::Acquire);
            let plan = self.look();
            let chunk = seen as u32;
            if chunk == CLOSED || plan.owner != me || chunk >= plan.chunks() {
                return None;
            }
            // SYNC: release, for the loads of `look` stay before it; acquire as above.
            if self.ticket.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some((plan, chunk));
            }
        }
    }

    fn look(&self) -> Plan {
        let owner_way = self.owner_way.load(Ordering::Acquire);
        Plan {
            owner: (owner_way >> 32) as u32,
            way: if owner_way as u32 == 0 { Way::Read } else { Way::Write },
            remote: self.remote.load(Ordering::Acquire),
            local: self.local.load(Ordering::Acquire),
            len: self.len.load(Ordering::Acquire),
            chunk_bytes: self.chunk_bytes.load(Ordering::Acquire),
        }
    }

    /// For the owner: the chunk it took is copied, or could not be.
    pub(crate) fn helped(&self, copied: bool) {
        if !copied {
            self.refused.store(1, Ordering::Relaxed);
        }
        // SYNC: pairs with `proceed` and `withdraw`: the chunk's bytes, and `refused`.
        self.helped.fetch_add(1, Ordering::Release);
    }

    /// For the initiator: takes a chunk, or says where the copy stands.
    pub(crate) fn proceed(&self, job: &mut Job) -> Standing {
        let chunks = job.plan.chunks();
        let mut seen = self.ticket.load(Ordering::Relaxed);
        while (seen as u32) < chunks {
            debug_assert_eq!((seen >> 32) as u32, job.generation, "only the initiator starts a generation");
            match self.ticket.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    job.mine += 1;
                    return Standing::Take(seen as u32);
                }
                Err(now) => seen = now,
            }
        }
        // SYNC: pairs with `helped`.
        if self.helped.load(Ordering::Acquire) < chunks - job.mine {
            Standing::Helped
        } else if self.refused.load(Ordering::Relaxed) != 0 {
            Standing::Refused
        } else {
            Standing::Done
        }
    }

    /// For the initiator: whether `proceed` would say anything but [`Standing::Helped`].
    pub(crate) fn can_proceed(&self, job: &Job) -> bool {
        let chunks = job.plan.chunks();
        (self.ticket.load(Ordering::Relaxed) as u32) < chunks
            || self.helped.load(Ordering::Relaxed) >= chunks - job.mine
    }

    /// For the initiator: lets nobody take another chunk, and says how many the owner has under way. When
    /// [`JobSlot::is_withdrawn`] the local memory is no longer touched.
    pub(crate) fn withdraw(&self, job: &Job) -> Withdrawn {
        let seen = self.ticket.swap(ticket(job.generation, CLOSED), Ordering::Relaxed);
        let taken = if seen as u32 == CLOSED { 0 } else { seen as u32 };
        Withdrawn { helped: taken.saturating_sub(job.mine) }
    }

    /// Whether the chunks that the owner had taken are over.
    pub(crate) fn is_withdrawn(&self, withdrawn: &Withdrawn) -> bool {
        // SYNC: pairs with `helped`.
        self.helped.load(Ordering::Acquire) >= withdrawn.helped
    }
}

/// A copy that nobody takes chunks of any more.
#[derive(Debug)]
pub(crate) struct Withdrawn {
    /// Chunks that the owner took.
    helped: u32,
}

fn ticket(generation: u32, chunk: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(chunk)
}
