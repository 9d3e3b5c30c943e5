//! Queue pairs as the caller of verbs knows them: states, the builder of work requests, the receive queue.
//!
//! The protocol is in [`Srd`]; this is what stands between it and the caller, and its [`Host`].

use std::collections::VecDeque;

use crate::abi::{access, caps, qp_state};
use crate::mem::{self, Handles, Regions};
use crate::settings::{Limits, Strict};
use crate::srd::{
    Access, Address, Config, Gid, Host, Inline, Nanos, Node, Payload, Receive, Service, Span, Spans, Srd,
    Status, Work,
};

/// Bytes that a receive leaves free in front of an unreliable datagram: the size of a global route header.
pub const DATAGRAM_FRONT: u32 = 40;

/// The sizes a queue pair was made with.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Open sends.
    pub sends: u32,
    /// Posted receives.
    pub receives: u32,
    /// Parts of a send.
    pub send_parts: u32,
    /// Parts of a receive.
    pub receive_parts: u32,
    /// Bytes in a work request.
    pub inline_bytes: u32,
}

/// Sends, reads and writes between `wr_start` and `wr_complete`.
#[derive(Debug, Default)]
struct Builder {
    drafts: Vec<Draft>,
    /// The first thing that was wrong, as `errno`.
    error: Option<i32>,
}

/// A work request that is being written.
#[derive(Clone, Copy, Debug)]
struct Draft {
    wr_id: u64,
    verb: Verb,
    to: Option<(Gid, u16, u32)>,
    payload: Payload,
    /// A key that does not fit: told by a completion, as the device does.
    bad_key: bool,
}

/// What a work request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A datagram.
    Send {
        /// Immediate data.
        imm: Option<u32>,
    },
    /// A read.
    Read {
        /// Key there.
        rkey: u32,
        /// Address there.
        remote: u64,
    },
    /// A write.
    Write {
        /// Key there.
        rkey: u32,
        /// Address there.
        remote: u64,
        /// Immediate data.
        imm: Option<u32>,
    },
}

/// A queue pair.
#[derive(Debug)]
pub struct QueuePair {
    /// The protocol.
    pub srd: Srd,
    /// Own number.
    pub number: u16,
    /// Protection domain.
    pub domain: u32,
    /// Place of the queue where sends complete.
    pub send_queue: usize,
    /// Place of the queue where receives complete.
    pub receive_queue: usize,
    /// What it was made with.
    pub sizes: Sizes,
    state: i32,
    builder: Builder,
    service: Service,
    receives: VecDeque<Receive>,
    /// Sends that were posted and not polled. A slot is free again when its completion is taken, as with the real driver.
    sends_open: u32,
    /// Receives that were posted and not polled.
    receives_open: u32,
}

/// The device around a queue pair, lent for a call.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Registered memory.
    pub regions: &'a Regions,
    /// Who is known.
    pub handles: &'a Handles,
    /// Where the device is strict.
    pub strict: Strict,
}

/// [`Host`] of one queue pair.
struct Around<'a, 'b> {
    ground: &'a Ground<'b>,
    domain: u32,
    front: u32,
    receives: &'a mut VecDeque<Receive>,
}

impl Host for Around<'_, '_> {
    fn take_receive(&mut self, bytes: u32) -> Result<Receive, Status> {
        let next = self.receives.front().ok_or(Status::NotReady)?;
        if next.spans.len() < bytes.saturating_add(self.front) {
            return Err(Status::BadRemoteLength);
        }
        let taken = self.receives.pop_front().ok_or(Status::NotReady)?;
        Ok(Receive { wr_id: taken.wr_id, spans: taken.spans.part(self.front, u32::MAX) })
    }

    fn resolve(&self, rkey: u32, remote: u64, bytes: u32, access: Access) -> Result<u64, Status> {
        let bit = match access {
            Access::Read => access::REMOTE_READ,
            Access::Write => access::REMOTE_WRITE,
        };
        let found = self.ground.regions.find(rkey, self.domain, remote, u64::from(bytes), bit);
        found.ok_or(Status::BadRemote)
    }

    fn knows(&self, gid: Gid) -> bool {
        !self.ground.strict.peers || self.ground.handles.knows(gid)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        // SAFETY: the core writes to spans of a posted receive or of the local side of a read, whose keys were found when
        // they were posted, or to what `resolve` has just found: registered memory that is still named by a request.
        unsafe { mem::copy_in(at, bytes) };
    }

    fn read(&self, spans: &Spans, into: &mut Vec<u8>) {
        for span in spans.iter() {
            // SAFETY: as for `write`: spans of open work, whose keys were found when it was posted.
            unsafe { mem::copy_out(span.at, span.len, into) };
        }
    }
}

impl QueuePair {
    /// A queue pair in the state RESET.
    pub fn new(srd: Srd, service: Service, domain: u32, queues: (usize, usize), sizes: Sizes) -> QueuePair {
        QueuePair {
            number: srd.me().node.qpn,
            srd,
            domain,
            send_queue: queues.0,
            receive_queue: queues.1,
            sizes,
            state: qp_state::RESET,
            builder: Builder::default(),
            service,
            receives: VecDeque::new(),
            sends_open: 0,
            receives_open: 0,
        }
    }

    /// Bytes in front of a received datagram.
    pub fn front(&self) -> u32 {
        if self.service == Service::Unreliable { DATAGRAM_FRONT } else { 0 }
    }

    /// Its state.
    pub fn state(&self) -> i32 {
        self.state
    }

    /// Whether packets are taken from the network.
    pub fn listens(&self) -> bool {
        matches!(self.state, qp_state::RTR | qp_state::RTS)
    }

    /// Goes to another state. Receives that are flushed are handed back to be told.
    pub fn modify(&mut self, to: i32) -> Result<Vec<Receive>, i32> {
        let allowed = match to {
            qp_state::INIT => matches!(self.state, qp_state::RESET | qp_state::INIT),
            qp_state::RTR => self.state == qp_state::INIT,
            qp_state::RTS => matches!(self.state, qp_state::RTR | qp_state::RTS),
            qp_state::ERR => true,
            _ => false,
        };
        if !allowed {
            return Err(libc::EINVAL);
        }
        self.state = to;
        if to != qp_state::ERR {
            return Ok(Vec::new());
        }
        self.srd.flush();
        Ok(self.receives.drain(..).collect())
    }

    /// Takes a datagram.
    pub fn handle_packet(&mut self, datagram: &[u8], now: Nanos, ground: &Ground<'_>) {
        let front = self.front();
        let mut around = Around { ground, domain: self.domain, front, receives: &mut self.receives };
        self.srd.handle_packet(datagram, now, &mut around);
    }

    /// The next packet that must go out.
    pub fn poll_transmit(&mut self, now: Nanos, ground: &Ground<'_>) -> Option<crate::srd::Transmit> {
        let front = self.front();
        let around = Around { ground, domain: self.domain, front, receives: &mut self.receives };
        self.srd.poll_transmit(now, &around)
    }

    /// A completion of a send (or of a receive) was polled, which frees its slot.
    pub fn release(&mut self, is_send: bool) {
        let open = if is_send { &mut self.sends_open } else { &mut self.receives_open };
        *open = open.saturating_sub(1);
    }

    /// Memory of a work request: the parts, if their keys cover them.
    fn spans(&self, parts: &[Part], access: u32, regions: &Regions) -> Option<Spans> {
        let mut spans = [Span::default(); 4];
        for (span, part) in spans.iter_mut().zip(parts) {
            if part.bytes == 0 {
                continue;
            }
            let at = regions.find(part.key, self.domain, part.at, u64::from(part.bytes), access)?;
            *span = Span { at, len: part.bytes };
        }
        Spans::new(spans.into_iter().take(parts.len()))
    }

    /// Posts a receive. An error is an `errno`.
    pub fn post_receive(&mut self, wr_id: u64, parts: &[Part], regions: &Regions) -> Result<(), i32> {
        if self.state == qp_state::RESET || parts.len() > self.sizes.receive_parts as usize {
            return Err(libc::EINVAL);
        }
        if self.receives_open == self.sizes.receives {
            return Err(libc::ENOMEM);
        }
        // The device would tell a bad key when the receive is taken. Told at once, the mistake is easier to find.
        let spans = self.spans(parts, access::LOCAL_WRITE, regions).ok_or(libc::EINVAL)?;
        self.receives_open += 1;
        self.receives.push_back(Receive { wr_id, spans });
        Ok(())
    }

    /// Begins a batch of work requests.
    pub fn start(&mut self) {
        self.builder.drafts.clear();
        self.builder.error = None;
    }

    /// Adds a work request to the batch.
    pub fn add(&mut self, wr_id: u64, verb: Verb) {
        let payload = Payload::Spans(Spans::default());
        self.builder.drafts.push(Draft { wr_id, verb, to: None, payload, bad_key: false });
    }

    fn last(&mut self) -> Option<&mut Draft> {
        let missing = self.builder.drafts.is_empty();
        if missing {
            self.builder.error.get_or_insert(libc::EINVAL);
        }
        self.builder.drafts.last_mut()
    }

    /// Says where the last work request goes; `None` for an address handle of another domain or none at all.
    pub fn set_address(&mut self, to: Option<(Gid, u16, u32)>) {
        if let Some(draft) = self.last() {
            draft.to = to;
        }
    }

    /// Names the memory of the last work request.
    pub fn set_parts(&mut self, parts: &[Part], regions: &Regions) {
        let Some(verb) = self.last().map(|draft| draft.verb) else { return };
        let (access, parts_max) = match verb {
            Verb::Read { .. } => (access::LOCAL_WRITE, 1),
            Verb::Send { .. } => (0, self.sizes.send_parts),
            Verb::Write { .. } => (0, 1),
        };
        if parts.len() > parts_max as usize {
            self.builder.error.get_or_insert(libc::EINVAL);
            return;
        }
        let spans = self.spans(parts, access, regions);
        if let Some(draft) = self.last() {
            draft.bad_key = spans.is_none();
            draft.payload = Payload::Spans(spans.unwrap_or_default());
        }
    }

    /// The batch cannot be posted: its caller asked for what does not exist.
    pub fn spoil(&mut self) {
        self.builder.error.get_or_insert(libc::EINVAL);
    }

    /// Takes bytes along with the last work request.
    pub fn set_inline(&mut self, bytes: &[u8]) {
        let inline = Inline::new(bytes).filter(|_| bytes.len() <= self.sizes.inline_bytes as usize);
        let verb = self.last().map(|draft| draft.verb);
        match (inline, verb) {
            (Some(inline), Some(Verb::Send { .. })) => {
                if let Some(draft) = self.last() {
                    draft.payload = Payload::Inline(inline);
                }
            }
            _ => {
                self.builder.error.get_or_insert(libc::EINVAL);
            }
        }
    }

    /// Posts the batch: all of it or, with an `errno`, nothing. Work with a bad local key or handle is not given to the
    /// protocol; what to tell of it comes back.
    pub fn complete(&mut self, now: Nanos) -> Result<Vec<(u64, Verb, Status)>, i32> {
        let drafts = std::mem::take(&mut self.builder.drafts);
        let result = self.post(&drafts, now);
        // Kept for its memory: the next batch allocates nothing.
        self.builder.drafts = drafts;
        result
    }

    fn post(&mut self, drafts: &[Draft], now: Nanos) -> Result<Vec<(u64, Verb, Status)>, i32> {
        if let Some(error) = self.builder.error {
            return Err(error);
        }
        if self.state != qp_state::RTS {
            return Err(libc::EINVAL);
        }
        let count = u32::try_from(drafts.len()).map_err(|_| libc::EINVAL)?;
        if self.sends_open + count > self.sizes.sends {
            return Err(libc::ENOMEM);
        }
        let mut refused = Vec::new();
        self.sends_open += count;
        for draft in drafts {
            let Some((gid, qpn, qkey)) = draft.to else {
                refused.push((draft.wr_id, draft.verb, Status::BadHandle));
                continue;
            };
            if draft.bad_key {
                refused.push((draft.wr_id, draft.verb, Status::BadLocalKey));
                continue;
            }
            let to = Address { node: Node { gid, qpn }, qkey };
            let work = work(draft);
            self.srd.post(draft.wr_id, to, work, now).expect("its room is at least that of our send queue");
        }
        Ok(refused)
    }
}

fn work(draft: &Draft) -> Work {
    let payload = draft.payload;
    match draft.verb {
        Verb::Send { imm } => Work::Send { payload, imm },
        Verb::Write { rkey, remote, imm } => Work::Write { payload, rkey, remote, imm },
        Verb::Read { rkey, remote } => {
            let local = match payload {
                Payload::Spans(spans) => spans,
                Payload::Inline(_) => Spans::default(),
            };
            Work::Read { local, rkey, remote }
        }
    }
}

/// A part of a work request's memory, under its key.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where, as the key's registration calls it.
    pub at: u64,
    /// Length.
    pub bytes: u32,
    /// Key.
    pub key: u32,
}

/// The numbers of the protocol for a queue pair of a device.
pub fn protocol(limits: &Limits, service: Service, sends: u32, unsolicited: bool) -> Config {
    Config {
        service,
        message_bytes_max: limits.message_bytes_max,
        rdma_bytes_max: limits.rdma_bytes_max,
        work_max: sends,
        unsolicited: unsolicited && limits.caps & caps::UNSOLICITED_WRITE_RECV != 0,
        ..Config::default()
    }
}
