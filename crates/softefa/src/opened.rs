//! An opened device: its queues, memory and handles under one lock.
//!
//! Nothing here runs by itself. Posting, polling and, when nobody does either, the helper thread ([`crate::progress`]) move
//! packets.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::abi::opcode;
use crate::cq::{Channel, Entry, Queue};
use crate::device::{Card, Devices, lock};
use crate::faults::Faults;
use crate::mem::{Handles, Regions};
use crate::net::Socket;
use crate::progress::Helper;
use crate::qp::{self, Ground, QueuePair, Sizes, Verb};
use crate::srd::{Address, Completion, Done, Gid, Nanos, Node, Service, Srd, Status};

/// An opened device.
#[derive(Debug)]
pub struct Opened {
    /// All devices of the process.
    pub devices: &'static Devices,
    /// Which one this is.
    pub card: Arc<Card>,
    state: Mutex<State>,
    /// When somebody last polled or posted.
    touched: AtomicU64,
    /// Whether somebody sleeps on a channel.
    armed: AtomicBool,
}

/// What the lock protects.
#[derive(Debug)]
pub struct State {
    /// Registered memory.
    pub regions: Regions,
    /// Address handles.
    pub handles: Handles,
    pairs: Vec<Option<Pair>>,
    queues: Vec<Option<Queue>>,
}

/// A queue pair and the socket under it.
#[derive(Debug)]
struct Pair {
    qp: QueuePair,
    socket: Socket,
}

/// What is asked of [`Opened::create_pair`].
#[derive(Clone, Copy, Debug)]
pub struct PairAsked {
    /// Reliable or not.
    pub service: Service,
    /// Protection domain.
    pub domain: u32,
    /// Places of the queues for sends and receives.
    pub queues: (usize, usize),
    /// Sizes.
    pub sizes: Sizes,
    /// Writes with immediate data use up no receive.
    pub unsolicited: bool,
}

impl Opened {
    /// Opens `card`.
    pub fn new(devices: &'static Devices, card: Arc<Card>) -> Arc<Opened> {
        let limits = &devices.settings.limits;
        let tags = u64::from(devices.next_epoch());
        let locked = devices.settings.locked_bytes_max;
        let state = State {
            regions: Regions::new(limits.regions_max, locked, devices.access(), tags),
            handles: Handles::default(),
            pairs: Vec::new(),
            queues: Vec::new(),
        };
        let opened = Opened {
            devices,
            card,
            state: Mutex::new(state),
            touched: AtomicU64::new(0),
            armed: AtomicBool::new(false),
        };
        Arc::new(opened)
    }

    /// Looks at, or changes, memory and handles.
    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut lock(&self.state))
    }

    /// Makes a completion queue; its place. `None` when there are too many.
    pub fn create_queue(&self, entries: usize, channel: Option<Arc<Channel>>, name: usize) -> Option<usize> {
        let queues = &mut lock(&self.state).queues;
        let count = queues.iter().flatten().count();
        if count >= self.devices.settings.limits.completion_queues_max as usize {
            return None;
        }
        Some(put(queues, Queue::new(entries, channel, name)))
    }

    /// Ends a completion queue; false while queue pairs use it.
    pub fn destroy_queue(&self, place: usize) -> bool {
        let mut state = lock(&self.state);
        let uses = |pair: &Pair| pair.qp.send_queue == place || pair.qp.receive_queue == place;
        if state.pairs.iter().flatten().any(uses) {
            return false;
        }
        state.queues.get_mut(place).is_some_and(|queue| queue.take().is_some())
    }

    /// Makes a queue pair: its place and number. `None` when the card has none left.
    pub fn create_pair(&self, asked: PairAsked) -> Option<(usize, u16)> {
        let PairAsked { service, domain, queues, sizes, unsolicited } = asked;
        let settings = &self.devices.settings;
        let (socket, number, before) = self.card.bind(&settings.limits)?;
        let mut config = qp::protocol(&settings.limits, service, sizes.sends, unsolicited);
        config.chunk_bytes = settings.chunk_bytes;
        // Two peers at a time may fill the kernel's buffer without loss; it counts about twice what packets hold.
        let buffer = u32::try_from(socket.receive_bytes().unwrap_or(0)).unwrap_or(u32::MAX);
        config.window_bytes = settings.window_bytes.min((buffer / 4).max(settings.chunk_bytes));
        config.peer_timeout = settings.peer_timeout_ms.saturating_mul(1_000_000);
        let me = Address { node: Node { gid: self.card.gid, qpn: number }, qkey: 0 };
        let faults = Faults::new(settings.faults.clone(), self.devices.seed_of(&self.card, before));
        let srd = Srd::new(config, me, self.devices.next_epoch(), faults, self.card.counters.clone());
        let pair = Pair { qp: QueuePair::new(srd, service, domain, queues, sizes), socket };
        Some((put(&mut lock(&self.state).pairs, pair), number))
    }

    /// Ends a queue pair. Its completions are gone with it, and what it still has to acknowledge goes out.
    pub fn destroy_pair(&self, place: usize) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(pair) = state.pairs.get_mut(place).and_then(Option::take) else { return };
        for queue in [pair.qp.send_queue, pair.qp.receive_queue] {
            if let Some(Some(queue)) = state.queues.get_mut(queue) {
                queue.purge(u32::from(pair.qp.number));
            }
        }
        let (heard, Pair { qp, socket }) = (pair.qp.listens(), pair);
        drop(guard);
        if heard {
            Helper::of_process(self.devices).bury(qp.srd, socket);
        }
    }

    /// Goes to another state, and sets the key or the number of retries before.
    pub fn modify_pair(
        &self,
        place: usize,
        to: i32,
        qkey: Option<u32>,
        retries: Option<Option<u8>>,
    ) -> Result<(), i32> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let pair = state.pairs.get_mut(place).and_then(Option::as_mut).ok_or(libc::EINVAL)?;
        let heard = pair.qp.listens();
        let flushed = pair.qp.modify(to)?;
        if let Some(qkey) = qkey {
            pair.qp.srd.set_qkey(qkey);
        }
        if let Some(retries) = retries {
            pair.qp.srd.set_rnr_retries(retries);
        }
        if pair.qp.listens() && !heard {
            Helper::of_process(self.devices).watch(&pair.socket);
        }
        let node = pair.qp.srd.me().node;
        let place = pair.qp.receive_queue;
        for receive in flushed {
            let done = Done::Receive { from: node, bytes: 0, imm: None };
            let completion = Completion { wr_id: receive.wr_id, status: Status::Flushed, done };
            let entry = Entry::new(&completion, node.qpn, 0, &state.handles);
            self.push(&mut state.queues, place, entry);
        }
        self.progress(state, self.devices.now());
        Ok(())
    }

    /// Calls `act` with a queue pair and the registered memory. `None` if there is no such queue pair.
    pub fn pair<T>(&self, place: usize, act: impl FnOnce(&mut QueuePair, &Regions) -> T) -> Option<T> {
        let state = &mut *lock(&self.state);
        let pair = state.pairs.get_mut(place)?.as_mut()?;
        Some(act(&mut pair.qp, &state.regions))
    }

    /// Posts what was built, and sends what may be sent at once.
    pub fn complete(&self, place: usize) -> Result<(), i32> {
        let now = self.touch();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let pair = state.pairs.get_mut(place).and_then(Option::as_mut).ok_or(libc::EINVAL)?;
        let refused = pair.qp.complete(now)?;
        let (queue, number) = (pair.qp.send_queue, pair.qp.number);
        for (wr_id, verb, status) in refused {
            let done = match verb {
                Verb::Send { .. } => Done::Send,
                Verb::Read { .. } => Done::Read,
                Verb::Write { .. } => Done::Write,
            };
            let entry = Entry::new(&Completion { wr_id, status, done }, number, 0, &state.handles);
            self.push(&mut state.queues, queue, entry);
        }
        let State { regions, handles, pairs, queues } = state;
        let ground = Ground { regions, handles, strict: self.devices.settings.strict };
        if let Some(Some(pair)) = pairs.get_mut(place) {
            pair.transmit(now, &ground);
            self.collect(pair, queues, handles);
        }
        let deadline = next_deadline(&state.pairs);
        drop(guard);
        self.hurry(deadline);
        Ok(())
    }

    /// The next completion of a queue; moves packets if there is none.
    pub fn poll(&self, place: usize) -> Option<Entry> {
        let now = self.touch();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut entry = state.queues.get_mut(place)?.as_mut()?.pop();
        let mut deadline = None;
        if entry.is_none() {
            deadline = self.progress(state, now);
            entry = state.queues.get_mut(place)?.as_mut()?.pop();
        }
        if let Some(entry) = entry {
            let of = |pair: &&mut Pair| u32::from(pair.qp.number) == entry.qp_num;
            if let Some(pair) = state.pairs.iter_mut().flatten().find(of) {
                pair.qp.release(entry.opcode < opcode::RECV);
            }
        }
        drop(guard);
        self.hurry(deadline);
        entry
    }

    /// The next completion follows an event.
    pub fn arm(&self, place: usize) {
        let mut state = lock(&self.state);
        if let Some(Some(queue)) = state.queues.get_mut(place) {
            queue.arm();
            self.armed.store(queue.is_armed(), Ordering::Relaxed);
        }
        drop(state);
        Helper::of_process(self.devices).kick();
    }

    /// The helper's round: moves packets unless somebody else does. The answer is when it wants to be called again.
    pub fn help(&self, now: Nanos) -> Option<Nanos> {
        let state = &mut *lock(&self.state);
        self.armed.store(state.queues.iter().flatten().any(Queue::is_armed), Ordering::Relaxed);
        self.progress(state, now)
    }

    /// Whether somebody polled or posted within the last `patience` nanoseconds.
    pub fn is_touched(&self, now: Nanos, patience: Nanos) -> bool {
        now.saturating_sub(self.touched.load(Ordering::Relaxed)) < patience
    }

    /// Whether somebody sleeps until a completion comes.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    fn touch(&self) -> Nanos {
        let now = self.devices.now();
        self.touched.store(now, Ordering::Relaxed);
        now
    }

    /// The helper must not sleep past `deadline`.
    fn hurry(&self, deadline: Option<Nanos>) {
        if let Some(deadline) = deadline {
            Helper::of_process(self.devices).hurry(deadline);
        }
    }

    /// Moves packets of all queue pairs; the answer is the next moment at which time asks for something.
    fn progress(&self, state: &mut State, now: Nanos) -> Option<Nanos> {
        let State { regions, handles, pairs, queues } = state;
        let ground = Ground { regions, handles, strict: self.devices.settings.strict };
        for pair in pairs.iter_mut().flatten().filter(|pair| pair.qp.listens()) {
            pair.receive(now, &ground);
            if pair.qp.srd.next_deadline().is_some_and(|deadline| deadline <= now) {
                pair.qp.srd.handle_timeout(now);
            }
            pair.transmit(now, &ground);
            self.collect(pair, queues, handles);
        }
        next_deadline(pairs)
    }

    /// Puts what the protocol has to tell into the queues.
    fn collect(&self, pair: &mut Pair, queues: &mut [Option<Queue>], handles: &Handles) {
        let (number, front) = (pair.qp.number, pair.qp.front());
        while let Some(completion) = pair.qp.srd.poll_completion() {
            let is_send = matches!(completion.done, Done::Send | Done::Read | Done::Write);
            let queue = if is_send { pair.qp.send_queue } else { pair.qp.receive_queue };
            let mut entry = Entry::new(&completion, number, front, handles);
            if completion.done == Done::Read && self.devices.failures.strike("read_opcode") {
                entry.opcode = opcode::RDMA_READ;
            }
            self.push(queues, queue, entry);
        }
    }

    /// Adds an entry to the queue at `place`. One too many is the end: the device would have lost it, and the program would
    /// wait for ever.
    fn push(&self, queues: &mut [Option<Queue>], place: usize, entry: Entry) {
        let Some(Some(queue)) = queues.get_mut(place) else { return };
        queue.push(entry);
        if queue.overruns > 0 && self.devices.settings.strict.completions {
            eprintln!(
                "softefa: {}: a completion queue has run over; hardware loses completions here. \
                 SOFTEFA_STRICT without `completions` lets it grow.",
                self.card.name
            );
            std::process::abort();
        }
    }
}

impl Pair {
    /// Takes what has come.
    fn receive(&mut self, now: Nanos, ground: &Ground<'_>) {
        let Pair { qp, socket } = self;
        socket.receive(|datagram| qp.handle_packet(datagram, now, ground));
        while let Some(place) = socket.unreachable() {
            qp.srd.handle_unreachable(|gid: Gid| gid.host() == Some(*place.ip()), place.port());
        }
    }

    /// Sends what must go out.
    fn transmit(&mut self, now: Nanos, ground: &Ground<'_>) {
        while let Some(packet) = self.qp.poll_transmit(now, ground) {
            self.socket.send(packet);
        }
        self.socket.flush();
    }
}

fn next_deadline(pairs: &[Option<Pair>]) -> Option<Nanos> {
    pairs.iter().flatten().filter_map(|pair| pair.qp.srd.next_deadline()).min()
}

/// Puts `item` into the first empty place.
fn put<T>(places: &mut Vec<Option<T>>, item: T) -> usize {
    let free = places.iter().position(Option::is_none);
    let place = free.unwrap_or(places.len());
    if free.is_none() {
        places.push(None);
    }
    places[place] = Some(item);
    place
}
