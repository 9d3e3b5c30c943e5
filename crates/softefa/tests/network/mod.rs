//! A network of queue pairs in one thread, with its own clock: what the tests of the protocol run on. Packets take 5 us;
//! all disorder comes from the faults of the queue pairs.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use softefa::counters::Counters;
use softefa::faults::{Faults, Plan};
use softefa::srd::{
    Access, Address, Body, Completion, Config, Gid, Host, Nanos, Node, Receive, Span, Spans, Srd, Status,
    Transmit, Work,
};

pub(crate) const US: Nanos = 1_000;
pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const QKEY: u32 = 0x1234;
/// The only key of a machine's memory; it opens all of it.
pub(crate) const RKEY: u32 = 7;
/// Address of the first byte of a machine's memory.
pub(crate) const BASE: u64 = 0x10_0000;
const LATENCY: Nanos = 5 * US;

/// Random numbers of a test.
#[derive(Debug)]
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Memory and receives of a machine.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) receives: VecDeque<Receive>,
    pub(crate) strangers: bool,
}

impl Memory {
    pub(crate) fn at(&self, at: u64, len: usize) -> &[u8] {
        &self.bytes[(at - BASE) as usize..][..len]
    }

    pub(crate) fn fill(&mut self, at: u64, len: usize, byte: u8) {
        self.bytes[(at - BASE) as usize..][..len].fill(byte);
    }
}

impl Host for Memory {
    fn take_receive(&mut self, bytes: u32) -> Result<Receive, Status> {
        let receive = self.receives.front().ok_or(Status::NotReady)?;
        if receive.spans.len() < bytes {
            return Err(Status::BadRemoteLength);
        }
        self.receives.pop_front().ok_or(Status::NotReady)
    }

    fn resolve(&self, rkey: u32, remote: u64, bytes: u32, _access: Access) -> Result<u64, Status> {
        let end = remote.checked_add(u64::from(bytes)).ok_or(Status::BadRemote)?;
        let fits = rkey == RKEY && remote >= BASE && end <= BASE + self.bytes.len() as u64;
        if fits { Ok(remote) } else { Err(Status::BadRemote) }
    }

    fn knows(&self, _gid: Gid) -> bool {
        !self.strangers
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[(at - BASE) as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, spans: &Spans, into: &mut Vec<u8>) {
        for Span { at, len } in spans.iter() {
            into.extend_from_slice(self.at(at, len as usize));
        }
    }
}

/// A queue pair on its machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) srd: Srd,
    pub(crate) memory: Memory,
    pub(crate) done: Vec<(Nanos, Completion)>,
    /// Packets to it vanish, and it does nothing.
    pub(crate) is_dead: bool,
}

type Arrival = Reverse<(Nanos, u64, Node, Vec<u8>)>;

/// All machines, and the packets between them.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) now: Nanos,
    pub(crate) machines: Vec<Machine>,
    of: HashMap<Node, usize>,
    flying: BinaryHeap<Arrival>,
    count: u64,
    /// Steps since time has last moved.
    standing: u32,
}

pub(crate) fn node(index: usize) -> Node {
    Node { gid: Gid::new(Ipv4Addr::new(127, 0, 0, index as u8 + 1), 0), qpn: 100 + index as u16 }
}

pub(crate) fn address(index: usize) -> Address {
    Address { node: node(index), qkey: QKEY }
}

impl Network {
    /// `count` machines with `memory` bytes each. Machine i draws its faults from `seed + i`.
    pub(crate) fn new(count: usize, memory: usize, config: &Config, plan: &Plan, seed: u64) -> Network {
        let mut network = Network { now: MS, ..Network::default() };
        for index in 0..count {
            network.of.insert(node(index), index);
            let srd = make(index, index as u32 + 1, config, plan, seed);
            let memory = Memory { bytes: vec![0; memory], ..Memory::default() };
            network.machines.push(Machine { srd, memory, done: Vec::new(), is_dead: false });
        }
        network
    }

    /// Machine `index` starts again as another incarnation: same node, nothing remembered but its memory.
    pub(crate) fn restart(&mut self, index: usize, epoch: u32, config: &Config, plan: &Plan) {
        self.machines[index].srd = make(index, epoch, config, plan, u64::from(epoch));
        self.machines[index].memory.receives.clear();
    }

    pub(crate) fn post(&mut self, from: usize, wr_id: u64, to: usize, work: Work) {
        let now = self.now;
        self.machines[from].srd.post(wr_id, address(to), work, now).expect("room");
        self.settle(from);
    }

    pub(crate) fn post_receive(&mut self, at: usize, wr_id: u64, spans: Spans) {
        self.machines[at].memory.receives.push_back(Receive { wr_id, spans });
    }

    /// Everything that a machine has to say is said.
    pub(crate) fn settle(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if machine.is_dead {
            return;
        }
        while let Some(packet) = machine.srd.poll_transmit(self.now, &machine.memory) {
            let bytes = datagram(&packet, &machine.memory);
            self.count += 1;
            self.flying.push(Reverse((self.now + LATENCY, self.count, packet.to, bytes)));
        }
        while let Some(completion) = machine.srd.poll_completion() {
            machine.done.push((self.now, completion));
        }
    }

    /// A datagram from nowhere.
    pub(crate) fn inject(&mut self, to: usize, bytes: &[u8]) {
        let machine = &mut self.machines[to];
        machine.srd.handle_packet(bytes, self.now, &mut machine.memory);
        self.settle(to);
    }

    /// The copies of all packets on their way.
    pub(crate) fn flying(&self) -> Vec<(Node, Vec<u8>)> {
        self.flying.iter().map(|Reverse((_, _, to, bytes))| (*to, bytes.clone())).collect()
    }

    /// Does the next thing that happens, if it happens before `end`; otherwise it is `end` then.
    pub(crate) fn step(&mut self, end: Nanos) -> bool {
        let arrival = self.flying.peek().map_or(Nanos::MAX, |Reverse((time, ..))| *time);
        let alive = self.machines.iter().filter(|machine| !machine.is_dead);
        let timer = alive.filter_map(|machine| machine.srd.next_deadline()).min().unwrap_or(Nanos::MAX);
        let next = arrival.min(timer.max(self.now));
        if next > end {
            self.now = end;
            return false;
        }
        self.standing = if self.now < next { 0 } else { self.standing + 1 };
        assert!(self.standing < 100_000, "a timer in the past that nothing moves");
        self.now = next;
        if arrival == next {
            let Some(Reverse((_, _, to, bytes))) = self.flying.pop() else { return false };
            if let Some(&index) = self.of.get(&to)
                && !self.machines[index].is_dead
            {
                self.inject(index, &bytes);
            }
            return true;
        }
        for index in 0..self.machines.len() {
            if !self.machines[index].is_dead {
                self.machines[index].srd.handle_timeout(self.now);
                self.settle(index);
            }
        }
        true
    }

    /// Goes on until nothing is open, or `time` has passed. Whether all is done.
    pub(crate) fn run(&mut self, time: Nanos) -> bool {
        let end = self.now + time;
        while self.open() > 0 {
            if !self.step(end) {
                return false;
            }
        }
        true
    }

    /// Goes on until `time` has passed.
    pub(crate) fn pass(&mut self, time: Nanos) {
        let end = self.now + time;
        while self.step(end) {}
    }

    pub(crate) fn open(&self) -> usize {
        self.machines.iter().filter(|machine| !machine.is_dead).map(|machine| machine.srd.work_open()).sum()
    }

    /// Completions of a machine so far.
    pub(crate) fn done(&self, index: usize) -> impl Iterator<Item = &Completion> {
        self.machines[index].done.iter().map(|(_, completion)| completion)
    }
}

fn make(index: usize, epoch: u32, config: &Config, plan: &Plan, seed: u64) -> Srd {
    let faults = Faults::new(plan.clone(), seed.wrapping_mul(1000).wrapping_add(index as u64));
    Srd::new(config.clone(), address(index), epoch, faults, Arc::new(Counters::default()))
}

/// The bytes of a packet as the network sees them.
pub(crate) fn datagram(packet: &Transmit, memory: &Memory) -> Vec<u8> {
    let mut bytes = packet.header.to_vec();
    match &packet.body {
        Body::Inline(inline) => bytes.extend_from_slice(inline.as_slice()),
        Body::Spans(spans) => memory.read(spans, &mut bytes),
        Body::Owned(owned) => bytes.extend_from_slice(owned),
    }
    bytes
}
