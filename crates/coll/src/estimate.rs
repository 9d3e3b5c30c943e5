//! The price of an algorithm in closed form, without generating it: what the chooser compares.
//!
//! The model is that of `price.rs`. Two bounds are worked out and the larger one is taken: the longest chain of steps,
//! and, on a host with more ranks than processors, the work and the switches of all its ranks spread over its
//! processors. A test holds the two models together.

use selvedge_transport::{Link, Machine};

use crate::price::{EAGER_BYTES_MAX, Nanoseconds, STEP_NS};
use crate::ring::segment_bytes;
use crate::{Algorithm, Collective, Shape};

/// What `algorithm` costs for `shape`, which it [applies](Algorithm::applies) to: what [`select`](crate::select) compares. Well
/// below 100 ns to compute.
///
/// ```
/// use selvedge_coll::{Algorithm, Collective, Shape, estimate};
/// use selvedge_transport::Machine;
/// let shape = Shape { collective: Collective::Allreduce, ranks: 8, count: 1, element_bytes: 8, commutative: true };
/// let cost = |algorithm| estimate(algorithm, &shape, &Machine::one_host(8, 8));
/// assert!(cost(Algorithm::AllreduceDoubling) < cost(Algorithm::AllreduceRing));
/// ```
pub fn estimate(algorithm: Algorithm, shape: &Shape, machine: &Machine) -> Nanoseconds {
    if shape.ranks <= 1 || (shape.count == 0 && shape.collective != Collective::Barrier) {
        return Nanoseconds(0.0);
    }
    let model = Model::new(shape, machine);
    let load = model.load(algorithm, shape);
    Nanoseconds(model.total(load))
}

/// What an algorithm asks of the machine.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// The longest chain of steps.
    path_ns: f64,
    /// Times somebody on that chain waits for a message.
    path_waits: f64,
    /// Processor time of an average rank.
    work_ns: f64,
    /// Times an average rank waits.
    waits: f64,
}

impl Load {
    /// So many of them, one after the other.
    fn times(self, n: f64) -> Load {
        Load {
            path_ns: self.path_ns * n,
            path_waits: self.path_waits * n,
            work_ns: self.work_ns * n,
            waits: self.waits * n,
        }
    }

    fn then(self, next: Load) -> Load {
        Load {
            path_ns: self.path_ns + next.path_ns,
            path_waits: self.path_waits + next.path_waits,
            work_ns: self.work_ns + next.work_ns,
            waits: self.waits + next.waits,
        }
    }
}

/// What a node of a tree exchanges with children of one weight.
struct Family {
    /// Of an average message.
    overhead_ns: f64,
    latency_ns: f64,
    /// Of all messages.
    wire_ns: f64,
    /// Of an average message.
    copy_ns: f64,
}

struct Model<'a> {
    machine: &'a Machine,
    ranks: f64,
    /// Ranks on a full host.
    together: f64,
    many_hosts: bool,
}

impl<'a> Model<'a> {
    fn new(shape: &Shape, machine: &'a Machine) -> Model<'a> {
        let together = machine.ranks_per_host.clamp(1, shape.ranks);
        Model {
            machine,
            ranks: f64::from(shape.ranks),
            together: f64::from(together),
            many_hosts: shape.ranks > together,
        }
    }

    fn total(&self, load: Load) -> f64 {
        let processors = f64::from(self.machine.cores_per_host.max(1));
        if self.together <= processors {
            return load.path_ns;
        }
        let switch_ns = self.machine.switch_ns;
        // The first ranks have their processors already; all others have to get one before they can begin.
        let waits = load.waits + 1.0 - processors / self.together;
        let shared = (load.work_ns + waits * switch_ns) * self.together / processors;
        let path_ns = load.path_ns + load.path_waits * switch_ns;
        // Where one bound is reached the other one costs something too: processors idle, or the chain waits for one.
        shared.max(path_ns) + 0.2 * shared.min(path_ns)
    }

    /// The link to the rank at a distance, and whether it leaves the host.
    fn link(&self, distance: f64) -> (&Link, bool) {
        let leaves = self.many_hosts && distance >= self.together;
        (if leaves { &self.machine.remote } else { &self.machine.local }, leaves)
    }

    fn reduce_ns(&self, bytes: f64) -> f64 {
        STEP_NS + bytes * self.machine.reduce_byte_ns
    }

    /// Everybody exchanges one message with the partner of a butterfly at that distance.
    fn exchange(&self, bytes: f64, distance: f64) -> Load {
        self.message(bytes, self.link(distance), self.together)
    }

    /// Everybody passes one message on by that distance around the ring: somebody always leaves the host.
    fn pass(&self, bytes: f64, distance: f64) -> Load {
        let leaving = distance.min(self.together);
        self.message(bytes, self.link(if self.many_hosts { self.together } else { 0.0 }), leaving)
    }

    /// `rounds` times everybody passes a message on to the next. Only the edges of hosts leave them: on its way around
    /// the latency of a few counts, but all wait for the slowest link when messages are large.
    fn around(&self, bytes: f64, rounds: f64, then_ns: f64) -> Load {
        let near = self.message(bytes, (&self.machine.local, false), 1.0);
        let near = Load { path_ns: near.path_ns + then_ns, work_ns: near.work_ns + then_ns, ..near };
        let path_ns = if self.many_hosts {
            let far = self.message(bytes, (&self.machine.remote, true), 1.0).path_ns + then_ns;
            let share = 1.0 / self.together;
            (share * far + (1.0 - share) * near.path_ns)
                .max(bytes * self.machine.remote.byte_ns)
                .max(near.work_ns)
        } else {
            near.path_ns
        };
        // A rank that gets its processor passes on all that has come meanwhile.
        let waits = 1.0 + (rounds - 1.0) / 4.0;
        Load { path_ns: path_ns * rounds, path_waits: rounds, work_ns: near.work_ns * rounds, waits }
    }

    /// Everybody sends and receives one message; `leaving` ranks of a host share its network.
    fn message(&self, bytes: f64, (link, leaves): (&Link, bool), leaving: f64) -> Load {
        let ask_ns = if leaves && bytes > EAGER_BYTES_MAX { 2.0 * link.latency_ns } else { 0.0 };
        let wire_ns = bytes * link.byte_ns * if leaves { leaving } else { 1.0 };
        let work_ns = 2.0 * link.overhead_ns + if leaves { 0.0 } else { wire_ns };
        let path_ns = ask_ns + link.latency_ns + 2.0 * link.overhead_ns + wire_ns;
        Load { path_ns, path_waits: 1.0, work_ns, waits: 1.0 }
    }

    /// Everybody exchanges and then reduces what came.
    fn exchange_and_reduce(&self, bytes: f64, distance: f64) -> Load {
        let reduce_ns = self.reduce_ns(bytes);
        let exchange = self.exchange(bytes, distance);
        Load { path_ns: exchange.path_ns + reduce_ns, work_ns: exchange.work_ns + reduce_ns, ..exchange }
    }

    /// Distances 1, 2, 4, ... below `ranks`.
    fn doubling(&self, ranks: f64) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(1.0), |distance| Some(distance * 2.0)).take_while(move |&d| d < ranks)
    }

    fn sum(loads: impl Iterator<Item = Load>) -> Load {
        loads.fold(Load::default(), Load::then)
    }

    /// The levels of a k-nomial tree from the leaves up: weight, and the most children a node has there.
    fn levels(&self, radix: u32) -> impl Iterator<Item = (f64, f64)> {
        let (ranks, radix) = (self.ranks, f64::from(radix));
        std::iter::successors(Some(1.0), move |weight| Some(weight * radix))
            .take_while(move |&weight| weight < ranks)
            .map(move |weight| (weight, (radix - 1.0).min((ranks / weight).ceil() - 1.0)))
    }

    /// Share of ranks that have children.
    fn parents(&self, radix: u32) -> f64 {
        (self.ranks / f64::from(radix)).ceil() / self.ranks
    }

    /// The messages between a node and its `children` of that weight: wire time and latency of all, and the processor
    /// time of bytes of one.
    fn family(&self, weight: f64, children: f64, bytes: f64) -> Family {
        let near =
            if self.many_hosts { children.min(((self.together - 1.0) / weight).floor()) } else { children };
        let far = children - near;
        let (local, remote) = (&self.machine.local, &self.machine.remote);
        let ask = if bytes > EAGER_BYTES_MAX { 3.0 } else { 1.0 };
        Family {
            overhead_ns: (near * local.overhead_ns + far * remote.overhead_ns) / children,
            latency_ns: if far > 0.0 { ask * remote.latency_ns } else { local.latency_ns },
            wire_ns: far * bytes * remote.byte_ns,
            copy_ns: near / children * bytes * local.byte_ns,
        }
    }

    /// Up a tree. `bytes` of the weight of a subtree; what arrives is reduced or not.
    fn up(&self, radix: u32, bytes: impl Fn(f64) -> f64, reduces: bool) -> Load {
        let mut load = Load { waits: self.parents(radix), ..Load::default() };
        for (weight, children) in self.levels(radix) {
            let bytes = bytes(weight.min(self.ranks - weight));
            let family = self.family(weight, children, bytes);
            let reduce_ns = if reduces { self.reduce_ns(bytes) } else { 0.0 };
            let takes_ns = children * (family.overhead_ns + family.copy_ns + reduce_ns);
            load.path_ns += family.overhead_ns + family.latency_ns + takes_ns.max(family.wire_ns);
            load.path_waits += 1.0;
            // One in `weight` ranks is at this level, and all but one in `radix` of those send.
            let senders = (1.0 - 1.0 / f64::from(radix)) / weight;
            load.work_ns += senders * (2.0 * family.overhead_ns + family.copy_ns + reduce_ns);
        }
        load
    }

    /// Down a tree, the same bytes to everybody. Who waits already for something else waits `waits` times.
    fn down(&self, radix: u32, bytes: f64, waits: f64) -> Load {
        let mut load = Load { waits, ..Load::default() };
        for (weight, children) in self.levels(radix) {
            let family = self.family(weight, children, bytes);
            let sends_ns = (children * family.overhead_ns).max(family.wire_ns);
            load.path_ns += sends_ns + family.latency_ns + family.overhead_ns + family.copy_ns;
            load.path_waits += 1.0;
            let senders = (1.0 - 1.0 / f64::from(radix)) / weight;
            load.work_ns += senders * (2.0 * family.overhead_ns + family.copy_ns);
        }
        load
    }

    /// Everybody copies its own block.
    fn copy(&self, bytes: f64) -> Load {
        let copy_ns = STEP_NS + bytes * self.machine.copy_byte_ns;
        Load { path_ns: copy_ns, work_ns: copy_ns, ..Load::default() }
    }

    /// Everybody sends `bytes` to everybody at once, and does something with each that comes.
    fn everybody(&self, bytes: f64, then_ns: f64) -> Load {
        let (near, far) = (self.together - 1.0, self.ranks - self.together);
        let (local, remote) = (&self.machine.local, &self.machine.remote);
        let sends_ns = near * local.overhead_ns + far * remote.overhead_ns;
        let takes_ns = sends_ns + near * bytes * local.byte_ns + (near + far) * then_ns;
        let wire_ns = far * self.together * bytes * remote.byte_ns;
        let ask = if far > 0.0 && bytes > EAGER_BYTES_MAX { 3.0 } else { 1.0 };
        let latency_ns = ask * if far > 0.0 { remote.latency_ns } else { local.latency_ns };
        // Sends go out while earlier messages come in; only with few partners the latency shows.
        let work_ns = sends_ns + takes_ns;
        let first_ns = latency_ns + if far > 0.0 { remote.overhead_ns } else { local.overhead_ns };
        let path_ns = work_ns.max(first_ns + takes_ns).max(first_ns + wire_ns);
        // The last to enter find everything there.
        let waits = 1.0 - (f64::from(self.machine.cores_per_host) / self.together).min(1.0);
        Load { path_ns, path_waits: 1.0, work_ns, waits }
    }

    /// The distances of a butterfly over the ranks left by folding, which pairs have moved apart.
    fn folded(&self) -> impl Iterator<Item = (f64, f64)> {
        let size = f64::from(1u32 << (self.ranks as u32).ilog2());
        let apart = if size < self.ranks { 2.0 } else { 1.0 };
        self.doubling(size).map(move |distance| (distance, distance * apart))
    }

    /// What folding to a power of two adds before and after.
    fn fold(&self, bytes: f64, back: bool) -> Load {
        let size = f64::from(1u32 << (self.ranks as u32).ilog2());
        if size == self.ranks {
            return Load::default();
        }
        let folded = (self.ranks - size) / self.ranks;
        let (there, back) = (
            self.exchange_and_reduce(bytes, 1.0),
            if back { self.exchange(bytes, 1.0) } else { Load::default() },
        );
        let both = there.then(back);
        Load { work_ns: both.work_ns * folded, waits: both.waits * folded, ..both }
    }

    /// Reduce-scatter by halving.
    fn halving(&self, bytes: f64) -> Load {
        Self::sum(self.folded().map(|(d, apart)| self.exchange_and_reduce(bytes / (2.0 * d), apart)))
    }

    fn load(&self, algorithm: Algorithm, shape: &Shape) -> Load {
        let (ranks, bytes) = (self.ranks, shape.bytes() as f64);
        let scatter = || {
            let halves = self.doubling(ranks).map(|d| self.exchange(bytes * d / ranks, d));
            let scatter = Self::sum(halves);
            Load { work_ns: scatter.path_ns * 2.0 / ranks, waits: 1.0, ..scatter }
        };
        match algorithm {
            Algorithm::BarrierDissemination => Self::sum(self.doubling(ranks).map(|d| self.pass(0.0, d))),
            Algorithm::BarrierTree { radix } => {
                self.up(radix, |_| 0.0, false).then(self.down(radix, 0.0, 1.0))
            }
            Algorithm::BroadcastTree { radix } => {
                // The root sends first; its children find their message when they come.
                let roots = self.levels(radix).map(|(_, children)| children).sum::<f64>() + 1.0;
                self.down(radix, bytes, (1.0 - roots / ranks).max(0.0) / 2.0)
            }
            Algorithm::BroadcastChain { segment_bytes } => self.chain(bytes, segment_bytes),
            Algorithm::BroadcastScatterRing => scatter().then(self.around(bytes / ranks, ranks - 1.0, 0.0)),
            Algorithm::BroadcastScatterDoubling => {
                scatter().then(Self::sum(self.doubling(ranks).map(|d| self.exchange(bytes * d / ranks, d))))
            }
            Algorithm::ReduceTree { radix } => {
                let forward = !shape.commutative && shape.root().is_some_and(|root| root.0 != 0);
                let last = if forward { self.around(bytes, 1.0, 0.0) } else { Load::default() };
                let last = Load { work_ns: last.work_ns / ranks, waits: last.waits / ranks, ..last };
                self.up(radix, |_| bytes, true).then(last)
            }
            Algorithm::ReduceRabenseifner => {
                let gather =
                    Self::sum(self.folded().map(|(d, apart)| self.exchange(bytes / (2.0 * d), apart)));
                let gather = Load { work_ns: gather.work_ns / 2.0, waits: 1.0, ..gather };
                self.fold(bytes, false).then(self.halving(bytes)).then(gather)
            }
            Algorithm::AllreduceDoubling => {
                let rounds = self.folded().map(|(_, apart)| self.exchange_and_reduce(bytes, apart));
                self.fold(bytes, true).then(Self::sum(rounds))
            }
            Algorithm::AllreduceRabenseifner => {
                let back = Self::sum(self.folded().map(|(d, apart)| self.exchange(bytes / (2.0 * d), apart)));
                self.fold(bytes, true).then(self.halving(bytes)).then(back)
            }
            Algorithm::AllreduceRing => {
                let block = (bytes / ranks).max(f64::from(shape.element_bytes));
                let there = self.around(block, ranks - 1.0, self.reduce_ns(block));
                let all = there.then(self.around(block, ranks - 1.0, 0.0));
                // With fewer elements than ranks most blocks are empty and not sent.
                let sent = (shape.count as f64 / ranks).min(1.0);
                Load { work_ns: all.work_ns * sent, waits: 1.0 + (all.waits - 1.0) * sent, ..all }
            }
            Algorithm::AllreduceTree { radix } => {
                self.up(radix, |_| bytes, true).then(self.down(radix, bytes, 1.0))
            }
            Algorithm::AllreduceDirect => self.everybody(bytes, self.reduce_ns(bytes)),
            Algorithm::AllgatherRing => self.around(bytes, ranks - 1.0, 0.0).then(self.copy(bytes)),
            Algorithm::AllgatherBruck => {
                let rounds = self.doubling(ranks).map(|d| self.pass(bytes * d.min(ranks - d), d));
                Self::sum(rounds).then(self.copy(bytes))
            }
            Algorithm::AllgatherDoubling => {
                Self::sum(self.doubling(ranks).map(|d| self.exchange(bytes * d, d))).then(self.copy(bytes))
            }
            Algorithm::AllgatherTree { radix } => {
                let down = self.down(radix, bytes * ranks, 1.0);
                self.up(radix, |weight| bytes * weight, false).then(down).then(self.copy(bytes))
            }
            Algorithm::AllgatherDirect => self.everybody(bytes, 0.0).then(self.copy(bytes)),
            Algorithm::AlltoallBruck => self.bruck(bytes),
            Algorithm::AlltoallPairwise => self.pairwise(bytes).then(self.copy(bytes)),
            Algorithm::AlltoallScattered { window } => self.scattered(bytes, window),
        }
    }

    /// An exchange with everybody, one after the other.
    fn pairwise(&self, bytes: f64) -> Load {
        let others = self.ranks - 1.0;
        let far = if self.many_hosts { (self.ranks - self.together) / others } else { 0.0 };
        let near = self.exchange(bytes, 1.0).times((1.0 - far) * others);
        near.then(self.exchange(bytes, self.together).times(far * others))
    }

    /// Messages to everybody at once, but with a stop behind each window of them.
    fn scattered(&self, bytes: f64, window: u32) -> Load {
        let all = self.everybody(bytes, 0.0).then(self.copy(bytes));
        let stops = ((self.ranks - 1.0) / f64::from(window)).ceil() - 1.0;
        let latency_ns = self.link(self.ranks).0.latency_ns;
        Load {
            path_ns: all.path_ns + stops * latency_ns,
            path_waits: all.path_waits + stops,
            waits: all.waits + stops / 2.0,
            ..all
        }
    }

    /// Segment after segment along a line.
    fn chain(&self, bytes: f64, segment: u32) -> Load {
        let segment = segment_bytes(bytes as u64, segment) as f64;
        let segments = (bytes / segment).ceil();
        let piece = bytes.min(segment);
        let along = self.around(piece, self.ranks - 1.0, 0.0);
        let (local, remote) = (&self.machine.local, &self.machine.remote);
        let local_ns = 2.0 * local.overhead_ns + piece * local.byte_ns;
        let remote_ns = (2.0 * remote.overhead_ns).max(piece * remote.byte_ns);
        let each_ns = match (self.many_hosts, self.together > 1.0) {
            (false, _) => local_ns,
            (true, false) => remote_ns,
            (true, true) => local_ns.max(remote_ns),
        };
        Load {
            path_ns: along.path_ns + (segments - 1.0) * each_ns,
            path_waits: self.ranks - 1.0,
            work_ns: segments * local_ns,
            waits: 1.0 + (segments - 1.0) / 4.0,
        }
    }

    /// Bruck's alltoall: in each round half of the blocks are packed and travel.
    fn bruck(&self, bytes: f64) -> Load {
        let copy_ns = |blocks: f64, steps: f64| steps * STEP_NS + blocks * bytes * self.machine.copy_byte_ns;
        let rounds = self.doubling(self.ranks).map(|d| {
            let blocks = (self.ranks / 2.0).min(self.ranks - d).max(1.0);
            // Blocks that travel for the first time lie together; the others come from several messages.
            let pack_ns = copy_ns(blocks, blocks);
            let exchange = self.pass(blocks * bytes, d);
            Load { path_ns: exchange.path_ns + pack_ns, work_ns: exchange.work_ns + pack_ns, ..exchange }
        });
        let home_ns = copy_ns(self.ranks, self.ranks);
        Self::sum(rounds).then(Load { path_ns: home_ns, work_ns: home_ns, ..Load::default() })
    }
}
