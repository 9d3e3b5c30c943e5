//! Several engines on one simulated network, stepped in one thread.

use std::collections::HashMap;

use selvedge_engine::{
    Completion, Config, Context, Engine, Envelope, Matched, Order, Outcome, RequestId, Submitted, Tag,
};
use selvedge_transport::{Memory, Peer, Rng, Sim, SimConfig, SimPort, Transport};

/// More bytes than leave without an answer, however a message is sent.
pub(crate) const ANNOUNCED: usize = 1_000_000;
/// What a receive buffer holds before anything was received, and its guard always.
pub(crate) const UNTOUCHED: u8 = 0xCC;
/// What a send buffer is overwritten with as soon as the engine gives it back.
const REUSED: u8 = 0xEE;
/// Bytes behind every receive buffer that nobody may write.
const GUARD: usize = 16;

/// Rounds in which every engine is polled, the network is idle and nothing ends, after which nothing ever will: more
/// than it takes a random `Busy` to give way for every queued peer.
const QUIET_ROUNDS: usize = 64;

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) engines: Vec<Engine<SimPort>>,
    pub(crate) rng: Rng,
    /// Memory of every operation, by rank and `user`; kept to the end, so that late writes are seen.
    pub(crate) ops: Vec<HashMap<u64, Op>>,
    next_user: u64,
    config: Config,
}

pub(crate) struct Op {
    memory: Memory,
    len: usize,
    is_send: bool,
    /// The peer it depends on; `None`: any.
    with: Option<usize>,
    pub(crate) request: Option<RequestId>,
    pub(crate) outcome: Option<Outcome>,
    /// The last name that had been given when it ended: operations with later ones had not begun.
    pub(crate) ended_at: u64,
    /// What the receive buffer held when the receive ended.
    pub(crate) received: Vec<u8>,
}

impl Op {
    fn new(memory: Memory, len: usize, is_send: bool, with: Option<usize>) -> Op {
        Op { memory, len, is_send, with, request: None, outcome: None, ended_at: 0, received: Vec::new() }
    }
}

impl World {
    pub(crate) fn new(network: SimConfig, config: &Config) -> World {
        let sim = Sim::new(network.clone());
        let engines = sim.ports().into_iter().map(|port| Engine::new(port, config.clone())).collect();
        World {
            sim,
            engines,
            rng: Rng::new(network.seed).child(7),
            ops: (0..network.peers).map(|_| HashMap::new()).collect(),
            next_user: 1,
            config: config.clone(),
        }
    }

    /// The longest message that may leave without an answer: as a packet or as a train.
    pub(crate) fn at_once_bytes_max(&self, from: usize, to: usize) -> u64 {
        let caps = self.engines[from].transport().caps(Peer(to as u32));
        let named = self.config.roads.iter().find(|(name, _)| *name == caps.name);
        let road = named.map_or(&self.config.road, |(_, road)| road);
        caps.packet_bytes_max.max(road.pregranted_bytes_max.min(64 * caps.packet_bytes_max)) as u64
    }

    pub(crate) fn size(&self) -> usize {
        self.engines.len()
    }

    pub(crate) fn send(
        &mut self,
        from: usize,
        to: usize,
        context: u32,
        tag: u64,
        order: Order,
        bytes: &[u8],
    ) -> u64 {
        let memory = Memory::of(bytes);
        let (user, peer) = (self.user(), Peer(to as u32));
        let submitted = self.engines[from].send(peer, Context(context), Tag(tag), order, memory.buf(), user);
        self.begin(from, user, Op::new(memory, bytes.len(), true, Some(to)), submitted);
        user
    }

    /// As [`World::send`] in order, and over only when it is matched.
    pub(crate) fn send_sync(&mut self, from: usize, to: usize, context: u32, tag: u64, bytes: &[u8]) -> u64 {
        let memory = Memory::of(bytes);
        let (user, peer) = (self.user(), Peer(to as u32));
        let submitted = self.engines[from].send_sync(peer, Context(context), Tag(tag), memory.buf(), user);
        self.begin(from, user, Op::new(memory, bytes.len(), true, Some(to)), submitted);
        user
    }

    pub(crate) fn recv(
        &mut self,
        at: usize,
        source: Option<usize>,
        context: u32,
        tag: Option<u64>,
        capacity: usize,
    ) -> u64 {
        let memory = Memory::of(&vec![UNTOUCHED; capacity + GUARD]);
        let (user, peer) = (self.user(), source.map(|source| Peer(source as u32)));
        let buf = memory.buf().slice(0..capacity);
        let submitted = self.engines[at].recv(peer, Context(context), tag.map(Tag), buf, user);
        self.begin(at, user, Op::new(memory, capacity, false, source), submitted);
        user
    }

    /// A name for an operation.
    pub(crate) fn user(&mut self) -> u64 {
        self.next_user += 1;
        self.next_user
    }

    fn begin(&mut self, at: usize, user: u64, op: Op, submitted: Submitted) {
        self.ops[at].insert(user, op);
        match submitted {
            Submitted::Done(outcome) => self.end(at, Completion { user, outcome }),
            Submitted::Pending(request) => self.op_mut(at, user).request = Some(request),
        }
    }

    fn end(&mut self, at: usize, completion: Completion) {
        let now = self.next_user;
        let op = self.op_mut(at, completion.user);
        op.ended_at = now;
        assert!(op.outcome.is_none(), "rank {at} was told twice: {:?} and {completion:?}", op.outcome);
        if op.is_send {
            op.memory.buf().fill_from(&vec![REUSED; op.len]);
        } else {
            op.received = op.memory.bytes()[..op.len].to_vec();
        }
        op.outcome = Some(completion.outcome);
    }

    fn op_mut(&mut self, at: usize, user: u64) -> &mut Op {
        self.ops[at]
            .get_mut(&user)
            .unwrap_or_else(|| panic!("rank {at} was told of an unknown operation {user}"))
    }

    pub(crate) fn outcome(&self, at: usize, user: u64) -> Option<&Outcome> {
        self.ops[at][&user].outcome.as_ref()
    }

    pub(crate) fn received(&self, at: usize, user: u64) -> &[u8] {
        &self.ops[at][&user].received
    }

    /// Polls one engine once; true when an operation ended.
    pub(crate) fn poll(&mut self, at: usize) -> bool {
        match self.engines[at].poll() {
            Some(completion) => {
                self.end(at, completion);
                true
            }
            None => false,
        }
    }

    pub(crate) fn probe(
        &mut self,
        at: usize,
        source: Option<usize>,
        context: u32,
        tag: Option<u64>,
    ) -> Option<Envelope> {
        let source = source.map(|source| Peer(source as u32));
        let seen = self.engines[at].probe(source, Context(context), tag.map(Tag));
        seen.expect("nobody is missing who could have sent it")
    }

    /// Takes out what [`World::probe`] would see.
    pub(crate) fn probe_matched(
        &mut self,
        at: usize,
        source: Option<usize>,
        context: u32,
        tag: Option<u64>,
    ) -> Option<Matched> {
        let source = source.map(|source| Peer(source as u32));
        let found = self.engines[at].probe_matched(source, Context(context), tag.map(Tag));
        found.expect("nobody is missing who could have sent it")
    }

    /// Receives what was taken out.
    pub(crate) fn recv_matched(&mut self, at: usize, message: Matched, capacity: usize, user: u64) {
        let memory = Memory::of(&vec![UNTOUCHED; capacity + GUARD]);
        let source = message.envelope().source.index();
        let buf = memory.buf().slice(0..capacity);
        let submitted = self.engines[at].recv_matched(message, buf, user);
        self.begin(at, user, Op::new(memory, capacity, false, Some(source)), submitted);
    }

    /// Polls everybody in random order until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            let mut order: Vec<usize> = (0..self.size()).collect();
            self.rng.shuffle(&mut order);
            let mut moved = false;
            for at in order {
                while self.poll(at) {
                    moved = true;
                }
            }
            let idle = self.sim.idle();
            if !moved && !idle {
                self.sim.advance();
            }
            quiet = if moved || !idle { 0 } else { quiet + 1 };
        }
    }

    /// The id of an operation that is pending.
    pub(crate) fn request(&self, at: usize, user: u64) -> RequestId {
        self.ops[at][&user].request.expect("it was not done at once")
    }

    /// As [`World::settle`], unless the operation has ended already.
    pub(crate) fn settle_if_pending(&mut self, at: usize, user: u64) {
        if self.outcome(at, user).is_none() {
            self.settle();
        }
    }

    /// Operations at `at` that have not ended and depend on one peer other than `victim`.
    pub(crate) fn pending_on_the_living(&self, at: usize, victim: usize) -> usize {
        let pending = self.ops[at].values().filter(|op| op.outcome.is_none());
        pending.filter(|op| op.with.is_some_and(|with| with != victim)).count()
    }

    /// Whether anything was written to the memory of a receive after it had ended, or beyond its end ever.
    pub(crate) fn late_writes(&self) -> Option<String> {
        for (at, ops) in self.ops.iter().enumerate() {
            for (user, op) in ops.iter().filter(|(_, op)| !op.is_send) {
                let now = op.memory.bytes();
                if now[op.len..].iter().any(|&byte| byte != UNTOUCHED) {
                    return Some(format!("rank {at} wrote beyond the end of receive {user}"));
                }
                if op.outcome.is_some() && now[..op.len] != op.received[..] {
                    return Some(format!("rank {at} wrote to receive {user} after it had ended"));
                }
            }
        }
        None
    }
}
