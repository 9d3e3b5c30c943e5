//! One-sided operations: small ones at once, large ones chunk by chunk in `poll`, with the help of the peer.
//!
//! Between processes the kernel copies from one address space to the other (process_vm_readv(2)), once; between threads
//! of one process it is a memcpy. Unsafe code: the calls of `sys::copy`.

use rustix::io::Errno;
use selvedge_transport::{Buf, Event, Fault, Peer, RemoteSlice, Token};

use crate::faults;
use crate::job::{JOBS_MAX, Job, Plan, Standing, Way};
use crate::segment::{Presence, Segment};
use crate::sync::Fences;
use crate::sys::{self, Direction};

/// Operations up to this size are not worth sharing: posting one and finding it costs each side a few cache lines, and
/// a chunk a system call, together about the time of copying 32 KiB.
const ALONE_BYTES_MAX: u64 = 64 << 10;

/// Sizes of a chunk. Small enough that the last one, which one side copies while the other has none, is a small share
/// of the whole, and that `poll` answers in some 10 microseconds; large enough that a system call is.
const CHUNK_BYTES_MIN: u64 = 32 << 10;
const CHUNK_BYTES_MAX: u64 = 128 << 10;

/// Chunks that a copy is cut into, between these bounds.
const CHUNKS: u64 = 16;

/// A one-sided operation as the caller asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) peer: Peer,
    pub(crate) way: Way,
    pub(crate) remote: RemoteSlice,
    pub(crate) local: Buf,
    pub(crate) token: Token,
}

/// A large copy of ours under way.
#[derive(Debug)]
struct Active {
    slot: usize,
    job: Job,
    token: Token,
}

/// The one-sided operations of one peer, and its help with those of others.
#[derive(Debug)]
pub(crate) struct Copies {
    active: Vec<Active>,
    free: Vec<usize>,
    /// Who of `active` has its turn.
    turn: usize,
    /// Peers that may have work for us. Each at most once.
    helping: Vec<Peer>,
}

impl Copies {
    /// Nothing under way.
    pub(crate) fn new() -> Copies {
        let free = (0..JOBS_MAX).rev().collect();
        Copies { active: Vec::with_capacity(JOBS_MAX), free, turn: 0, helping: Vec::new() }
    }

    /// Begins an operation. `Some` when it is over already; otherwise `step` will tell.
    pub(crate) fn begin(
        &mut self,
        segment: &Segment,
        me: Peer,
        fences: Fences,
        op: Operation,
    ) -> Option<Event> {
        let Operation { peer, way, remote, local, token } = op;
        // `Shm::register` puts the length of a registration in its name.
        if remote.offset.checked_add(remote.len).is_none_or(|end| end > remote.key.name) {
            let fault = faults::out_of_registration(peer, remote.offset, remote.len, remote.key.name);
            return Some(Event::Failed(token, fault));
        }
        let plan = Plan {
            owner: peer.0,
            way,
            remote: remote.key.base + remote.offset,
            local: local.as_ptr() as u64,
            len: remote.len,
            chunk_bytes: chunk_bytes(remote.len),
        };
        if plan.len <= ALONE_BYTES_MAX || peer == me {
            return Some(ended(token, copy_all(segment, peer, &plan)));
        }
        let slot = self.free.pop().expect("as many slots as operations in flight");
        let job = segment.job(me, slot).post(plan);
        self.active.push(Active { slot, job, token });
        segment.helpers(peer).raise(me.index());
        segment.doorbell(peer, fences).ring();
        None
    }

    /// Whether `step` has something to do.
    #[inline]
    pub(crate) fn can_step(&self, segment: &Segment, me: Peer) -> bool {
        !self.helping.is_empty()
            || self.active.iter().any(|active| segment.job(me, active.slot).can_proceed(&active.job))
    }

    /// Whether nothing is under way, here or for others.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty() && self.helping.is_empty()
    }

    /// Copies at most one chunk, of our own operations or to help; tells when an operation is over.
    pub(crate) fn step(&mut self, segment: &Segment, me: Peer, fences: Fences) -> Option<Event> {
        for _ in 0..self.active.len() {
            self.turn = (self.turn + 1) % self.active.len();
            let Active { slot, job, token } = &mut self.active[self.turn];
            let peer = Peer(job.plan.owner);
            let event = match segment.job(me, *slot).proceed(job) {
                Standing::Helped => continue,
                Standing::Take(chunk) => {
                    let Err(fault) = copy_chunk(segment, peer, &job.plan, chunk) else { return None };
                    let token = *token;
                    self.withdraw(segment, me, self.turn);
                    return Some(Event::Failed(token, fault));
                }
                Standing::Done => Event::Done(*token),
                Standing::Refused => ended(*token, copy_all(segment, peer, &job.plan)),
            };
            self.forget(self.turn);
            return Some(event);
        }
        self.help(segment, me, fences);
        None
    }

    /// Remembers that `initiator` may have work for us.
    pub(crate) fn offer_help(&mut self, initiator: Peer) {
        if !self.helping.contains(&initiator) {
            self.helping.push(initiator);
        }
    }

    /// Copies a chunk for somebody else.
    fn help(&mut self, segment: &Segment, me: Peer, fences: Fences) {
        while let Some(&initiator) = self.helping.last() {
            for slot in 0..JOBS_MAX {
                let slot = segment.job(initiator, slot);
                if let Some((plan, chunk)) = slot.help(me.0) {
                    slot.helped(help_chunk(segment, initiator, &plan, chunk).is_ok());
                    segment.doorbell(initiator, fences).ring();
                    return;
                }
            }
            self.helping.pop();
        }
    }

    /// Ends all operations with `peer`, which is gone; `failed` is told of each.
    pub(crate) fn fail(&mut self, segment: &Segment, me: Peer, peer: Peer, mut failed: impl FnMut(Token)) {
        self.helping.retain(|&initiator| initiator != peer);
        while let Some(index) = self.active.iter().position(|active| active.job.plan.owner == peer.0) {
            failed(self.active[index].token);
            self.withdraw(segment, me, index);
        }
    }

    /// Ends all operations, before the transport is closed.
    pub(crate) fn close(&mut self, segment: &Segment, me: Peer) {
        while !self.active.is_empty() {
            self.withdraw(segment, me, 0);
        }
    }

    /// Stops an operation, and waits until the peer has put down the chunk that it may have in its hands: at most
    /// [`CHUNK_BYTES_MAX`], unless it is gone.
    fn withdraw(&mut self, segment: &Segment, me: Peer, index: usize) {
        let Active { slot, job, .. } = &self.active[index];
        let withdrawn = segment.job(me, *slot).withdraw(job);
        while !segment.job(me, *slot).is_withdrawn(&withdrawn) && is_here(segment, Peer(job.plan.owner)) {
            std::thread::yield_now();
        }
        self.forget(index);
    }

    fn forget(&mut self, index: usize) {
        self.free.push(self.active.swap_remove(index).slot);
        self.turn = 0;
    }
}

fn chunk_bytes(len: u64) -> u64 {
    // The second bound keeps the number of chunks below 2^20 for any length.
    (len / CHUNKS).next_multiple_of(4096).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(len >> 20)
}

fn ended(token: Token, copied: Result<(), Box<Fault>>) -> Event {
    match copied {
        Ok(()) => Event::Done(token),
        Err(fault) => Event::Failed(token, fault),
    }
}

/// Whether a peer can still touch or lend memory.
fn is_here(segment: &Segment, peer: Peer) -> bool {
    segment.look_after(peer) == Presence::Here
}

/// Copies all of our own operation.
fn copy_all(segment: &Segment, peer: Peer, plan: &Plan) -> Result<(), Box<Fault>> {
    // The length of a `Buf`, so it fits.
    copy_ours(segment, peer, plan, 0, plan.len as usize)
}

/// Copies a chunk of our own operation.
fn copy_chunk(segment: &Segment, peer: Peer, plan: &Plan, chunk: u32) -> Result<(), Box<Fault>> {
    let (offset, len) = plan.chunk(chunk);
    copy_ours(segment, peer, plan, offset, len)
}

fn copy_ours(segment: &Segment, peer: Peer, plan: &Plan, offset: u64, len: usize) -> Result<(), Box<Fault>> {
    let direction = match plan.way {
        Way::Read => Direction::Fetch,
        Way::Write => Direction::Store,
    };
    let check = || match segment.seat(peer).presence() {
        Presence::Here => Ok(()),
        presence @ (Presence::Panicked | Presence::Died) => {
            Err(faults::died(peer, segment.seat(peer).pid(), presence == Presence::Panicked))
        }
        Presence::Absent | Presence::Left => Err(faults::left(peer, segment.seat(peer).pid())),
    };
    check()?;
    move_bytes(segment, peer, direction, plan.local + offset, plan.remote + offset, len).or_else(|error| {
        // Who said goodbye meanwhile has not died, although its memory is gone.
        check()?;
        Err(faults::not_copied(peer, segment.seat(peer).pid(), error))
    })
}

/// Copies a chunk of the operation of `initiator` on our memory.
fn help_chunk(segment: &Segment, initiator: Peer, plan: &Plan, chunk: u32) -> Result<(), Errno> {
    let (offset, len) = plan.chunk(chunk);
    let direction = match plan.way {
        Way::Read => Direction::Store,
        Way::Write => Direction::Fetch,
    };
    move_bytes(segment, initiator, direction, plan.remote + offset, plan.local + offset, len)
}

/// Copies `len` bytes between `here` in our memory and `there` in that of `peer`.
fn move_bytes(
    segment: &Segment,
    peer: Peer,
    way: Direction,
    here: u64,
    there: u64,
    len: usize,
) -> Result<(), Errno> {
    if !segment.is_thread(peer) {
        let pid = segment.seat(peer).pid().cast_signed();
        // SAFETY: of `here` and `there`, one is the local buffer of an operation under way, a claim that its initiator
        // gave to `read` or `write`, and the other is inside of a registration, a claim that its owner gave to
        // `register` (`begin` has checked the bounds). The kernel checks that both are mapped.
        return unsafe { sys::copy(pid, way, here, there, len) };
    }
    let claim = |start: u64| {
        // SAFETY: as above, and both are in this process, since the peer is one of its threads.
        unsafe { Buf::claim(start as *mut u8, len) }
    };
    match way {
        Direction::Fetch => claim(there).copy_to_buf(claim(here)),
        Direction::Store => claim(here).copy_to_buf(claim(there)),
    }
    Ok(())
}
