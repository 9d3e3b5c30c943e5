//! Completion queues: a ring of entries, and the channel that wakes who sleeps.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::EventfdFlags;

use crate::abi::opcode;
use crate::mem::{Handles, UNKNOWN};
use crate::srd::{Completion, Done, Gid, Status};

/// A completion as a poller sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What the poster called it.
    pub wr_id: u64,
    /// `enum ibv_wc_status`.
    pub status: i32,
    /// The device's own status.
    pub vendor_err: u32,
    /// See [`opcode`].
    pub opcode: i32,
    /// Bytes received.
    pub byte_len: u32,
    /// Immediate data.
    pub imm: Option<u32>,
    /// Own queue pair.
    pub qp_num: u32,
    /// Queue pair of the sender.
    pub src_qp: u32,
    /// Number of the address handle that leads to the sender.
    pub slid: u16,
    /// Device of the sender.
    pub sgid: Gid,
    /// No posted receive was used up.
    pub unsolicited: bool,
}

/// `enum ibv_wc_status` for a status of the device. The provider looks at the device's number; this one only has to be
/// zero or not, and to make sense to a program that prints it.
fn wc_status(status: Status) -> i32 {
    match status {
        Status::Ok => 0,
        Status::BadLength => 1,
        Status::QueuePair | Status::Unsupported | Status::BadHandle => 2,
        Status::BadLocalKey => 4,
        Status::Flushed => 5,
        Status::BadStatus => 7,
        Status::BadRemoteLength => 9,
        Status::BadRemote => 10,
        Status::BadQueuePair | Status::UnknownPeer => 15,
        Status::Unresponsive | Status::Unreachable => 12,
        Status::NotReady => 13,
        Status::RemoteAbort => 16,
    }
}

impl Entry {
    /// A completion of queue pair `qp_num`. `front` bytes stand before those of a received datagram.
    pub fn new(completion: &Completion, qp_num: u16, front: u32, handles: &Handles) -> Entry {
        let mut entry = Entry {
            wr_id: completion.wr_id,
            status: wc_status(completion.status),
            vendor_err: u32::from(completion.status.code()),
            qp_num: u32::from(qp_num),
            slid: UNKNOWN,
            ..Entry::default()
        };
        let from = match completion.done {
            // The driver of the real card knows no opcode for reads, and libfabric 1.17 waits for ever when it sees one.
            Done::Send | Done::Read => None,
            Done::Write => {
                entry.opcode = opcode::RDMA_WRITE;
                None
            }
            Done::Receive { from, bytes, imm } => {
                (entry.opcode, entry.byte_len, entry.imm) = (opcode::RECV, bytes + front, imm);
                Some(from)
            }
            Done::Written { from, bytes, imm, unsolicited } => {
                (entry.opcode, entry.byte_len, entry.imm) = (opcode::RECV_RDMA_WITH_IMM, bytes, Some(imm));
                entry.unsolicited = unsolicited;
                Some(from)
            }
        };
        if let Some(from) = from {
            entry.src_qp = u32::from(from.qpn);
            entry.sgid = from.gid;
            entry.slid = handles.number(from.gid);
        }
        entry
    }
}

/// Where events of completion queues are waited for: a descriptor that is readable while events are left.
#[derive(Debug)]
pub struct Channel {
    count: OwnedFd,
    events: Mutex<VecDeque<usize>>,
}

impl Channel {
    /// A channel without events.
    pub fn new() -> rustix::io::Result<Channel> {
        let count = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE)?;
        Ok(Channel { count, events: Mutex::default() })
    }

    /// The descriptor. A program may make it nonblocking.
    pub fn descriptor(&self) -> RawFd {
        self.count.as_raw_fd()
    }

    /// An event of the queue that the caller of verbs knows as `queue`.
    fn tell(&self, queue: usize) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(queue);
        // One per armed queue, so the count stays far from the 2^64 at which a write would block.
        let _ = rustix::io::write(&self.count, &1u64.to_ne_bytes());
    }

    /// The next event; waits for it unless the descriptor is nonblocking.
    pub fn take(&self) -> rustix::io::Result<usize> {
        let mut one = [0u8; 8];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.count, &mut one))?;
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.pop_front().ok_or(rustix::io::Errno::AGAIN)
    }

    /// Forgets the events of a queue that is going away.
    fn forget(&self, queue: usize) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let before = events.len();
        events.retain(|event| *event != queue);
        for _ in events.len()..before {
            let mut one = [0u8; 8];
            let _ = rustix::io::read(&self.count, &mut one);
        }
    }
}

/// A completion queue.
#[derive(Debug)]
pub struct Queue {
    entries: VecDeque<Entry>,
    entries_max: usize,
    channel: Option<Arc<Channel>>,
    armed: bool,
    name: usize,
    /// Entries that found no room.
    pub overruns: u64,
}

impl Queue {
    /// A queue of `entries_max` entries that the caller of verbs knows as `name`.
    pub fn new(entries_max: usize, channel: Option<Arc<Channel>>, name: usize) -> Queue {
        Queue { entries: VecDeque::new(), entries_max, channel, armed: false, name, overruns: 0 }
    }

    /// Adds an entry, and an event if somebody asked for it.
    pub fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.entries_max {
            self.overruns += 1;
        }
        self.entries.push_back(entry);
        if std::mem::take(&mut self.armed)
            && let Some(channel) = &self.channel
        {
            channel.tell(self.name);
        }
    }

    /// Takes the oldest entry.
    pub fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// Asks for an event with the next entry.
    pub fn arm(&mut self) {
        self.armed = self.channel.is_some();
    }

    /// Whether somebody sleeps until the next entry.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// Whether nothing is to be polled.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the entries of a queue pair that is being destroyed. The provider looks its endpoint up for every entry and
    /// would find none.
    pub fn purge(&mut self, qp_num: u32) {
        self.entries.retain(|entry| entry.qp_num != qp_num);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            channel.forget(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srd::Node;

    fn entry(wr_id: u64, qp_num: u32) -> Entry {
        Entry { wr_id, qp_num, ..Entry::default() }
    }

    #[test]
    fn a_read_completes_under_the_number_of_a_send() {
        let done = |done| Completion { wr_id: 1, status: Status::Ok, done };
        let of = |what| Entry::new(&done(what), 5, 0, &Handles::default()).opcode;
        assert_eq!(of(Done::Read), 0);
        assert_eq!(of(Done::Send), 0);
        assert_eq!(of(Done::Write), 1);
    }

    #[test]
    fn a_datagram_counts_the_bytes_in_front_of_it_and_a_stranger_has_no_handle() {
        let from = Node { gid: Gid::default(), qpn: 9 };
        let done = Done::Receive { from, bytes: 10, imm: Some(3) };
        let entry =
            Entry::new(&Completion { wr_id: 1, status: Status::Ok, done }, 5, 40, &Handles::default());
        assert_eq!((entry.byte_len, entry.src_qp, entry.slid, entry.imm), (50, 9, UNKNOWN, Some(3)));
    }

    #[test]
    fn entries_of_a_destroyed_queue_pair_are_gone_and_others_stay() {
        let mut queue = Queue::new(8, None, 1);
        for (wr_id, qp_num) in [(1, 5), (2, 6), (3, 5)] {
            queue.push(entry(wr_id, qp_num));
        }
        queue.purge(5);
        assert_eq!(queue.pop().map(|entry| entry.wr_id), Some(2));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_armed_queue_tells_once_and_not_after_its_end() {
        let channel = Arc::new(Channel::new().expect("eventfd(2) works everywhere"));
        rustix::io::ioctl_fionbio(&channel.count, true).expect("a descriptor of ours");
        let mut queue = Queue::new(8, Some(channel.clone()), 77);
        queue.push(entry(1, 1));
        assert!(channel.take().is_err(), "nobody asked");
        queue.arm();
        queue.push(entry(2, 1));
        queue.push(entry(3, 1));
        assert_eq!(channel.take(), Ok(77));
        assert!(channel.take().is_err());
        queue.arm();
        queue.push(entry(4, 1));
        drop(queue);
        assert!(channel.take().is_err());
    }

    #[test]
    fn an_entry_too_many_is_counted() {
        let mut queue = Queue::new(1, None, 1);
        queue.push(entry(1, 1));
        assert_eq!(queue.overruns, 0);
        queue.push(entry(2, 1));
        assert_eq!(queue.overruns, 1);
    }
}
