//! What schedules cost on a [`Machine`], by simulating events: LogGP (Alexandrov et al. 1995) with processors.
//!
//! - A message costs the processor of each side `overhead_ns`; it arrives `latency_ns` after it was sent.
//! - On one host the receiver's processor moves the bytes (single copy). Between hosts the network does, and all ranks
//!   of a host share its bandwidth, each way.
//! - A send of more than [`EAGER_BYTES_MAX`] is complete only when the receiver has the bytes, and between hosts pays a
//!   round trip first.
//! - A rank does one thing at a time. On a host with more ranks than processors a rank that has nothing to do gives its
//!   processor away at once, and getting one costs `switch_ns`.
//! - All ranks begin at the same time; the price is when the last one is done.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;

use selvedge_transport::{Link, Machine};

use crate::verify::Pairing;
use crate::{Action, Rank, Schedule, StepIndex};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Nanoseconds(pub f64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ns if ns < 1e3 => f.pad(&format!("{ns:.0} ns")),
            ns if ns < 1e6 => f.pad(&format!("{:.2} us", ns / 1e3)),
            ns => f.pad(&format!("{:.2} ms", ns / 1e6)),
        }
    }
}

/// Larger messages are fetched by the receiver. The engine decides at run time; this is its order of magnitude.
pub(crate) const EAGER_BYTES_MAX: f64 = 8192.0;

/// Processor time of a local step besides its bytes.
pub(crate) const STEP_NS: f64 = 15.0;

/// The link between two ranks.
pub(crate) fn link(machine: &Machine, a: Rank, b: Rank) -> &Link {
    if host(machine, a) == host(machine, b) { &machine.local } else { &machine.remote }
}

fn host(machine: &Machine, rank: Rank) -> usize {
    (rank.0 / machine.ranks_per_host.max(1)) as usize
}

/// When the last of all ranks is done with its schedule. Infinite when messages are not paired or something hangs;
/// [`crate::verify`] says why. Cost: a few hundred nanoseconds per step.
///
/// ```
/// use selvedge_coll::{Algorithm, Collective, Shape, generate_all, price};
/// use selvedge_transport::Machine;
/// let shape = Shape { collective: Collective::Barrier, ranks: 2, count: 0, element_bytes: 1, commutative: true };
/// let machine = Machine::one_host(2, 2);
/// let price = price(&generate_all(Algorithm::BarrierDissemination, &shape), &machine);
/// let (latency, overhead) = (machine.local.latency_ns, machine.local.overhead_ns);
/// assert_eq!(price.0, overhead + latency + overhead);
/// ```
pub fn price(schedules: &[Schedule], machine: &Machine) -> Nanoseconds {
    let Ok(pairing) = Pairing::new(schedules) else { return Nanoseconds(f64::INFINITY) };
    let mut world = World::new(schedules, machine, &pairing);
    world.begin();
    while let Some(Reverse(event)) = world.events.pop() {
        world.now = event.at_ns;
        world.happen(event.what);
    }
    if world.steps_left > 0 { Nanoseconds(f64::INFINITY) } else { Nanoseconds(world.last) }
}

/// What a rank has to do with its processor.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Start a step. Done before messages are looked at, as the executor does when a step makes others ready.
    Begin(StepIndex),
    /// The message of this receive is there.
    TakeIn(StepIndex),
    /// The receiver has fetched the bytes of this send.
    Notice(StepIndex),
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// The rank has got a processor.
    Gets(Rank),
    /// The rank has done that work.
    Did(Rank, Work),
    /// A message for this receive arrives.
    Arrives(Rank, StepIndex),
    /// The receiver has fetched a large message.
    Fetched(Rank, StepIndex),
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at_ns: f64,
    /// Ties go to the older event.
    number: u64,
    what: What,
}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        self.at_ns.total_cmp(&other.at_ns).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Seat {
    /// Has nothing to do; with a processor of its own unless the host is crowded.
    Idle,
    /// Waits for a processor.
    Queued,
    /// Has a processor and works.
    Works,
}

#[derive(Debug)]
struct Process {
    seat: Seat,
    /// Steps that are ready.
    ready: VecDeque<StepIndex>,
    /// Other work.
    news: VecDeque<Work>,
    /// By step: predecessors that are not complete.
    missing: Vec<u32>,
    /// By step: its successors, as a range of `successors`.
    first: Vec<u32>,
    successors: Vec<StepIndex>,
    /// By step: a receive that is posted, or whose message is there already.
    met: Vec<bool>,
}

impl Process {
    fn new(schedule: &Schedule) -> Process {
        let mut first = vec![0u32; schedule.len() + 1];
        for (_, _, after) in schedule.iter() {
            after.iter().for_each(|&earlier| first[earlier as usize + 1] += 1);
        }
        for step in 0..schedule.len() {
            first[step + 1] += first[step];
        }
        let mut next = first.clone();
        let mut successors = vec![0; first[schedule.len()] as usize];
        for (step, _, after) in schedule.iter() {
            for &earlier in after {
                successors[next[earlier as usize] as usize] = step;
                next[earlier as usize] += 1;
            }
        }
        let missing: Vec<u32> = schedule.iter().map(|(_, _, after)| after.len() as u32).collect();
        let ready = (0..).zip(&missing).filter(|&(_, &missing)| missing == 0).map(|(step, _)| step).collect();
        let (news, met) = (VecDeque::new(), vec![false; schedule.len()]);
        Process { seat: Seat::Idle, ready, news, missing, first, successors, met }
    }

    fn next(&mut self) -> Option<Work> {
        self.ready.pop_front().map(Work::Begin).or_else(|| self.news.pop_front())
    }
}

#[derive(Debug)]
struct Host {
    crowded: bool,
    processors_free: u32,
    queue: VecDeque<Rank>,
    sends_until: f64,
    receives_until: f64,
}

struct World<'a> {
    schedules: &'a [Schedule],
    machine: &'a Machine,
    pairing: &'a Pairing,
    now: f64,
    last: f64,
    steps_left: usize,
    events: BinaryHeap<Reverse<Event>>,
    numbers: u64,
    processes: Vec<Process>,
    hosts: Vec<Host>,
}

impl<'a> World<'a> {
    fn new(schedules: &'a [Schedule], machine: &'a Machine, pairing: &'a Pairing) -> World<'a> {
        let per_host = machine.ranks_per_host.max(1) as usize;
        let hosts = (0..schedules.len().div_ceil(per_host)).map(|host| {
            let ranks = per_host.min(schedules.len() - host * per_host);
            Host {
                crowded: ranks > machine.cores_per_host as usize,
                processors_free: machine.cores_per_host.max(1),
                queue: VecDeque::new(),
                sends_until: 0.0,
                receives_until: 0.0,
            }
        });
        World {
            schedules,
            machine,
            pairing,
            now: 0.0,
            last: 0.0,
            steps_left: schedules.iter().map(Schedule::len).sum(),
            events: BinaryHeap::new(),
            numbers: 0,
            processes: schedules.iter().map(Process::new).collect(),
            hosts: hosts.collect(),
        }
    }

    /// Everybody enters. The first ranks of a host have its processors.
    fn begin(&mut self) {
        for rank in (0..self.schedules.len() as u32).map(Rank) {
            if self.processes[rank.index()].ready.is_empty() {
                continue;
            }
            let host = &mut self.hosts[host(self.machine, rank)];
            if host.crowded && host.processors_free == 0 {
                host.queue.push_back(rank);
                self.processes[rank.index()].seat = Seat::Queued;
            } else {
                host.processors_free = host.processors_free.saturating_sub(1);
                self.processes[rank.index()].seat = Seat::Works;
                self.at(0.0, What::Gets(rank));
            }
        }
    }

    fn at(&mut self, at_ns: f64, what: What) {
        self.events.push(Reverse(Event { at_ns, number: self.numbers, what }));
        self.numbers += 1;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Gets(rank) => self.next_work(rank),
            What::Did(rank, work) => {
                self.did(rank, work);
                self.next_work(rank);
            }
            What::Arrives(rank, step) => {
                // Taken in when both the message is there and the receive is posted.
                if std::mem::replace(&mut self.processes[rank.index()].met[step as usize], true) {
                    self.give(rank, Work::TakeIn(step));
                }
            }
            What::Fetched(rank, step) => self.give(rank, Work::Notice(step)),
        }
    }

    /// More work for a rank, which may have to get a processor first.
    fn give(&mut self, rank: Rank, work: Work) {
        let process = &mut self.processes[rank.index()];
        process.news.push_back(work);
        if process.seat != Seat::Idle {
            return;
        }
        let host = &mut self.hosts[host(self.machine, rank)];
        if !host.crowded {
            process.seat = Seat::Works;
            self.next_work(rank);
        } else if host.processors_free > 0 {
            host.processors_free -= 1;
            process.seat = Seat::Works;
            self.at(self.now + self.machine.switch_ns, What::Gets(rank));
        } else {
            process.seat = Seat::Queued;
            host.queue.push_back(rank);
        }
    }

    /// The rank has its processor and is not busy.
    fn next_work(&mut self, rank: Rank) {
        if let Some(work) = self.processes[rank.index()].next() {
            let cost = self.processor_ns(rank, work);
            self.at(self.now + cost, What::Did(rank, work));
            return;
        }
        self.processes[rank.index()].seat = Seat::Idle;
        let host = &mut self.hosts[host(self.machine, rank)];
        if !host.crowded {
            return;
        }
        match host.queue.pop_front() {
            None => host.processors_free += 1,
            Some(next) => {
                self.processes[next.index()].seat = Seat::Works;
                self.at(self.now + self.machine.switch_ns, What::Gets(next));
            }
        }
    }

    fn action(&self, rank: Rank, step: StepIndex) -> Action {
        self.schedules[rank.index()].action(step)
    }

    fn processor_ns(&self, rank: Rank, work: Work) -> f64 {
        let (Work::Begin(step) | Work::TakeIn(step) | Work::Notice(step)) = work;
        match (work, self.action(rank, step)) {
            (Work::Begin(_), Action::Send { to, .. }) => link(self.machine, rank, to).overhead_ns,
            (Work::TakeIn(_), Action::Recv { from, into, .. }) => {
                let link = link(self.machine, rank, from);
                let local = host(self.machine, rank) == host(self.machine, from);
                link.overhead_ns + if local { into.len as f64 * link.byte_ns } else { 0.0 }
            }
            (Work::Begin(_), Action::Copy { from, .. }) => {
                STEP_NS + from.len as f64 * self.machine.copy_byte_ns
            }
            (Work::Begin(_), Action::Reduce { from, .. }) => {
                STEP_NS + from.len as f64 * self.machine.reduce_byte_ns
            }
            _ => 0.0,
        }
    }

    fn did(&mut self, rank: Rank, work: Work) {
        match work {
            Work::Begin(step) => match self.action(rank, step) {
                Action::Send { to, from, .. } => self.sent(rank, step, to, from.len as f64),
                Action::Recv { .. } => {
                    if std::mem::replace(&mut self.processes[rank.index()].met[step as usize], true) {
                        self.processes[rank.index()].news.push_back(Work::TakeIn(step));
                    }
                }
                Action::Copy { .. } | Action::Reduce { .. } => self.complete(rank, step),
            },
            Work::TakeIn(step) => {
                self.complete(rank, step);
                if let Action::Recv { from, into, .. } = self.action(rank, step)
                    && into.len as f64 > EAGER_BYTES_MAX
                {
                    let (sender, send) = self.partner(rank, step);
                    let back = link(self.machine, rank, from).latency_ns;
                    self.at(self.now + back, What::Fetched(sender, send));
                }
            }
            Work::Notice(step) => self.complete(rank, step),
        }
    }

    fn partner(&self, rank: Rank, step: StepIndex) -> (Rank, StepIndex) {
        self.pairing.step(self.pairing.partner(self.pairing.number(rank, step)))
    }

    /// A send has been handed over: when does it arrive, and when is it complete?
    fn sent(&mut self, rank: Rank, step: StepIndex, to: Rank, bytes: f64) {
        let link = *link(self.machine, rank, to);
        let (here, there) = (host(self.machine, rank), host(self.machine, to));
        let large = bytes > EAGER_BYTES_MAX;
        let arrives = if here == there {
            self.now + link.latency_ns
        } else {
            let asked = self.now + if large { 2.0 * link.latency_ns } else { 0.0 };
            let leaves = self.hosts[here].sends_until.max(asked);
            self.hosts[here].sends_until = leaves + bytes * link.byte_ns;
            let begins = self.hosts[there].receives_until.max(leaves + link.latency_ns);
            self.hosts[there].receives_until = begins + bytes * link.byte_ns;
            self.hosts[there].receives_until
        };
        let (receiver, receive) = self.partner(rank, step);
        self.at(arrives, What::Arrives(receiver, receive));
        if !large {
            self.complete(rank, step);
        }
    }

    fn complete(&mut self, rank: Rank, step: StepIndex) {
        self.last = self.now;
        self.steps_left -= 1;
        let process = &mut self.processes[rank.index()];
        let range = process.first[step as usize] as usize..process.first[step as usize + 1] as usize;
        for &later in &process.successors[range] {
            process.missing[later as usize] -= 1;
            if process.missing[later as usize] == 0 {
                process.ready.push_back(later);
            }
        }
    }
}
