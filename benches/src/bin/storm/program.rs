//! A random but legal program, all of it from a seed: what every rank starts, in which order, and on which network.
//!
//! Everything is nonblocking within a phase and waited for at its end, so every order in which the network may deliver
//! is legal and none can deadlock. Wildcards are used so that every receive finds a message whatever overtakes what:
//! within one phase and receiver all receives of a communicator have patterns that cannot take each other's messages.
//! Where a rank dies, only receives that nobody sends to take from anybody: they must be told, and nobody waits for them.

use selvedge_coll::{Algorithm, Collective, Rank, Shape};
use selvedge_engine::{Config, RoadConfig};
use selvedge_transport::{Rng, SimConfig};

use crate::family::{self, Family};

/// A program for all ranks.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it all comes from.
    pub(crate) seed: u64,
    /// The network it runs on; `peers` is the number of ranks.
    pub(crate) network: SimConfig,
    /// Name of the network.
    pub(crate) network_name: &'static str,
    /// What is asked of the engines.
    pub(crate) config: Config,
    /// Communicators: which ranks, in which order. The first is the world.
    pub(crate) groups: Vec<Vec<usize>>,
    /// All messages of the program.
    pub(crate) messages: Vec<Message>,
    /// All receives of the program.
    pub(crate) receives: Vec<Receive>,
    /// All collectives of the program.
    pub(crate) calls: Vec<CollectiveCall>,
    /// All messages that are sent again and again.
    pub(crate) streams: Vec<Stream>,
    /// All communicators that are made, by what they are made out of.
    pub(crate) families: Vec<Family>,
    /// For each phase and rank, what it starts, in order.
    pub(crate) phases: Vec<Vec<Vec<Act>>>,
    /// A rank that dies after this many steps of the driver; then there are no collectives.
    pub(crate) victim: Option<(usize, u64)>,
}

/// A message from one rank to another. Its content is a function of the seed and its index.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Sender, a rank of the world.
    pub(crate) source: usize,
    /// Receiver, a rank of the world.
    pub(crate) dest: usize,
    /// Context of the phase and communicator.
    pub(crate) context: u32,
    /// Tag.
    pub(crate) tag: u32,
    /// Length.
    pub(crate) bytes: usize,
    /// Whether its sender waits until it is matched.
    pub(crate) is_sync: bool,
    /// Whether it lies in several places there.
    pub(crate) is_scattered: bool,
    /// Whether its sender goes on without waiting for its end, as with buffered sends and abandoned requests.
    pub(crate) is_left: bool,
}

/// A message that is sent again and again, with other bytes each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// Sender, a rank of the world.
    pub(crate) source: usize,
    /// Receiver, a rank of the world.
    pub(crate) dest: usize,
    /// Context of the phase.
    pub(crate) context: u32,
    /// Tag. Those of partitioned ones collide.
    pub(crate) tag: u32,
    /// Length.
    pub(crate) bytes: usize,
    /// In one or in parts.
    pub(crate) way: Way,
    /// How often.
    pub(crate) rounds: usize,
}

/// How a stream moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As persistent requests.
    Whole,
    /// In so many partitions of the sender, and of the receiver.
    Parts(usize, usize),
}

/// A receive and what it matches.
#[derive(Debug, Clone)]
pub(crate) struct Receive {
    /// Who posts it, a rank of the world.
    pub(crate) rank: usize,
    /// Context of the phase and communicator.
    pub(crate) context: u32,
    /// Sender, or anybody.
    pub(crate) source: Option<usize>,
    /// Tag, or any.
    pub(crate) tag: Option<u32>,
    /// Length of the buffer; may be shorter than the message.
    pub(crate) capacity: usize,
    /// Whether nobody sends to it and it is to be cancelled.
    pub(crate) cancelled: bool,
    /// Whether it goes to several places.
    pub(crate) is_scattered: bool,
    /// Whether a probe goes before it that takes the message out if it is here.
    pub(crate) probed: Probed,
}

/// What goes before a receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probed {
    /// Nothing.
    No,
    /// A matched probe, and what it found is received.
    Matched,
    /// A matched probe, and what it found is put back.
    PutBack,
}

/// A collective on one of the groups.
#[derive(Debug, Clone)]
pub(crate) struct CollectiveCall {
    /// Index into [`Program::groups`].
    pub(crate) group: usize,
    /// Number of this collective in its group.
    pub(crate) sequence: u32,
    /// What is asked.
    pub(crate) shape: Shape,
    /// How it is done.
    pub(crate) algorithm: Algorithm,
    /// What is reduced, where something is.
    pub(crate) element: Element,
}

/// The operations that the storm reduces with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// Wrapping sum of bytes.
    ByteSum,
    /// Wrapping sum of 64-bit words.
    WordSum,
    /// Composition of maps x -> a x + b modulo 2^32: associative, not commutative.
    Affine,
}

impl Element {
    /// Size in bytes.
    pub(crate) fn bytes(self) -> u32 {
        if self == Element::ByteSum { 1 } else { 8 }
    }
}

/// Something a rank starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Sends message `.0`.
    Send(usize),
    /// Posts receive `.0`.
    Recv(usize),
    /// Calls collective `.0`.
    Call(usize),
    /// Makes this rank's ends of stream `.0` and lets them run.
    Stream(usize),
    /// Begins this rank's part of family `.0`.
    Family(usize),
}

/// Contexts of point-to-point messages start here, those of collectives below.
const FIRST_MESSAGE_CONTEXT: u32 = 100;
/// Contexts of streams start here.
const FIRST_STREAM_CONTEXT: u32 = 600;
/// Tags of persistent requests, which are their own, start here.
const FIRST_OWN_TAG: u32 = 100;
/// Streams of random numbers of their own; see [`message_bytes`] for others.
const SENDS: u64 = 3;
const RECEIVES: u64 = 4;
const SCATTERED_SENDS: u64 = 8;
const SCATTERED_RECEIVES: u64 = 9;
const LEFT: u64 = 7;
const STREAMS: u64 = 5;
const FAMILY_PLACES: u64 = 13;
/// Tags are drawn from so few that they collide.
const TAGS: u64 = 3;

impl Program {
    /// The program of a seed, for the simulated network.
    pub(crate) fn new(seed: u64) -> Program {
        Program::drawn(seed, None)
    }

    /// The program of a seed for a real job of `ranks` ranks and packets of `packet_bytes`: nobody dies.
    pub(crate) fn for_job(seed: u64, ranks: usize, packet_bytes: usize) -> Program {
        Program::drawn(seed, Some((ranks, packet_bytes)))
    }

    fn drawn(seed: u64, job: Option<(usize, usize)>) -> Program {
        let mut rng = Rng::new(seed);
        let presets = SimConfig::presets();
        let (network_name, preset) = rng.pick(&presets).clone();
        let ranks = *rng.pick(&[1, 2, 2, 3, 4, 5, 6, 8, 11]);
        let mut network = SimConfig { peers: ranks, seed: rng.bits(), ..preset };
        if let Some((ranks, packet_bytes)) = job {
            network = SimConfig { peers: ranks, packet_bytes_max: packet_bytes, ..network };
        }
        let ranks = network.peers;
        // Roads that can only write, or neither read nor write, are rarer in the presets than their protocols deserve.
        if rng.one_in(3) {
            network.read_bytes_max = 0;
        }
        if rng.one_in(4) {
            network.write_bytes_max = 0;
        }
        // Hosts: some peers are nearer, by a road that is another network.
        if network.near.is_some() || rng.one_in(3) {
            let (_, mut near) = rng.pick(&presets).clone();
            if rng.one_in(4) {
                near.read_bytes_max = 0;
            }
            network.near = Some(near.as_near(1 + rng.index(4)));
        }
        let mut program = Program {
            seed,
            network,
            network_name,
            config: config(&mut rng),
            groups: vec![(0..ranks).collect()],
            messages: Vec::new(),
            receives: Vec::new(),
            calls: Vec::new(),
            streams: Vec::new(),
            families: Vec::new(),
            phases: Vec::new(),
            victim: None,
        };
        for _ in 0..rng.below(3) {
            let mut members: Vec<usize> = (0..ranks).collect();
            rng.shuffle(&mut members);
            members.truncate(1 + rng.index(ranks));
            program.groups.push(members);
        }
        let dies = ranks > 1 && rng.one_in(8) && job.is_none();
        let mut sequences = vec![0; program.groups.len()];
        for phase in 0..1 + rng.below(3) as u32 {
            program.add_phase(phase, !dies, &mut sequences, &mut rng);
        }
        if dies {
            program.victim = Some((rng.index(ranks), rng.below(400)));
        }
        if job.is_none() {
            program.add_families();
        }
        program
    }

    /// Communicators that are made, drawn apart. Every rank begins them in an order of its own.
    fn add_families(&mut self) {
        let mut rng = Rng::new(self.seed).child(FAMILY_PLACES << 32);
        for (family, phase) in family::draw(self) {
            for &member in &self.groups[family.group] {
                let acts = &mut self.phases[phase][member];
                acts.insert(rng.index(acts.len() + 1), Act::Family(self.families.len()));
            }
            self.families.push(family);
        }
    }

    fn add_phase(&mut self, phase: u32, with_collectives: bool, sequences: &mut [u32], rng: &mut Rng) {
        let ranks = self.network.peers;
        let mut starts: Vec<Vec<Act>> = vec![Vec::new(); ranks];
        let most = if rng.one_in(6) { 120 } else { 24 };
        let talkative = rng.below(most);
        let context = |group: usize| FIRST_MESSAGE_CONTEXT + 16 * phase + group as u32;
        let first = self.messages.len();
        for _ in 0..talkative {
            let group = rng.index(self.groups.len());
            let members = &self.groups[group];
            let message = Message {
                source: *rng.pick(members),
                dest: *rng.pick(members),
                context: context(group),
                tag: rng.below(TAGS) as u32,
                bytes: self.length(rng),
                is_sync: self.mode(SENDS, self.messages.len()) == 0,
                is_scattered: self.mode(SCATTERED_SENDS, self.messages.len()) == 0,
                is_left: self.mode(LEFT, self.messages.len()) == 0,
            };
            starts[message.source].push(Act::Send(self.messages.len()));
            self.messages.push(message);
        }
        self.add_receives(first, !with_collectives, &mut starts, rng);
        for acts in &mut starts {
            rng.shuffle(acts);
        }
        if with_collectives {
            for _ in 0..rng.below(5) {
                self.add_collective(sequences, &mut starts, rng);
            }
        }
        self.add_streams(phase, &mut starts);
        self.phases.push(starts);
    }

    /// Messages that are sent again and again, drawn apart. Both ranks make the ends of partitioned ones in the same order,
    /// by which they meet.
    fn add_streams(&mut self, phase: u32, starts: &mut [Vec<Act>]) {
        let mut rng = Rng::new(self.seed).child(STREAMS << 32 | u64::from(phase));
        for _ in 0..rng.below(4) {
            let index = self.streams.len();
            let (source, dest) = (rng.index(starts.len()), rng.index(starts.len()));
            let parts = [1, 2, 3, 4, 6, 12];
            let (mine, theirs) = (*rng.pick(&parts), *rng.pick(&parts));
            let bytes = 12 * self.length(&mut rng).div_ceil(12);
            let (way, tag) = match rng.one_in(3) {
                true => (Way::Whole, FIRST_OWN_TAG + index as u32),
                false => (Way::Parts(mine, theirs), rng.below(TAGS) as u32),
            };
            let (context, rounds) = (FIRST_STREAM_CONTEXT + phase, 1 + rng.index(4));
            self.streams.push(Stream { source, dest, context, tag, bytes, way, rounds });
            for (rank, acts) in starts.iter_mut().enumerate() {
                if rank == source || rank == dest {
                    let last = acts.iter().rposition(|act| matches!(act, Act::Stream(_)));
                    let earliest = last.map_or(0, |last| last + 1);
                    acts.insert(earliest + rng.index(acts.len() - earliest + 1), Act::Stream(index));
                }
            }
        }
    }

    /// A receive for each message sent since `first`, and some that nobody sends to.
    fn add_receives(&mut self, first: usize, dies: bool, starts: &mut [Vec<Act>], rng: &mut Rng) {
        // What a receiver's patterns look like is drawn once per receiver and context.
        let salt = rng.bits();
        for index in first..self.messages.len() {
            let message = self.messages[index].clone();
            let mut style = Rng::new(salt ^ (message.dest as u64) << 32 ^ u64::from(message.context));
            let (source, tag) = match if dies { 1 + style.below(2) } else { style.below(4) } {
                0 => (None, None),
                1 => (Some(message.source), None),
                _ => ((dies || style.one_in(2)).then_some(message.source), Some(message.tag)),
            };
            // Sometimes too short, but never so short that the oracle could not tell messages apart by what was left.
            let shorter = message.bytes > 16 && rng.one_in(12);
            let capacity =
                if shorter { rng.within(8..=message.bytes as u64 - 1) as usize } else { message.bytes };
            // Wildcards may bring the longest message of all to any receive, so most buffers are generous.
            let capacity = if source.is_none() || tag.is_none() { capacity.max(600) } else { capacity };
            starts[message.dest].push(Act::Recv(self.receives.len()));
            self.receives.push(Receive {
                rank: message.dest,
                context: message.context,
                source,
                tag,
                capacity,
                cancelled: false,
                is_scattered: self.mode(SCATTERED_RECEIVES, index) == 0,
                probed: match self.mode(RECEIVES, index) {
                    0 => Probed::Matched,
                    1 => Probed::PutBack,
                    _ => Probed::No,
                },
            });
        }
        if rng.one_in(4) {
            let rank = rng.index(starts.len());
            let context = FIRST_MESSAGE_CONTEXT - 1;
            let source = rng.one_in(2).then_some(rng.index(starts.len()));
            starts[rank].push(Act::Recv(self.receives.len()));
            let is_scattered = self.mode(SCATTERED_RECEIVES, self.receives.len()) == 0;
            let (tag, capacity, probed) = (Some(9), 8, Probed::No);
            let cancelled = true;
            self.receives.push(Receive {
                rank,
                context,
                source,
                tag,
                capacity,
                cancelled,
                is_scattered,
                probed,
            });
        }
    }

    /// One of few ways to do something, drawn apart, so that all else stays what it was.
    fn mode(&self, what: u64, index: usize) -> u64 {
        Rng::new(self.seed).child(what << 32 | index as u64).below(6)
    }

    fn add_collective(&mut self, sequences: &mut [u32], starts: &mut [Vec<Act>], rng: &mut Rng) {
        let group = rng.index(self.groups.len());
        let members = self.groups[group].clone();
        let root = Rank(rng.index(members.len()) as u32);
        let collective = *rng.pick(&Collective::all(root));
        let element = *rng.pick(&[Element::ByteSum, Element::WordSum, Element::Affine]);
        let count = match collective {
            Collective::Barrier => 0,
            _ => *rng.pick(&[1, 1, 2, 3, 7, 64, 257, 1000]),
        };
        let shape = Shape {
            collective,
            ranks: members.len() as u32,
            count,
            element_bytes: element.bytes(),
            commutative: element != Element::Affine,
        };
        let ways: Vec<Algorithm> =
            Algorithm::all_for(collective).iter().copied().filter(|way| way.applies(&shape)).collect();
        let call =
            CollectiveCall { group, sequence: sequences[group], shape, algorithm: *rng.pick(&ways), element };
        sequences[group] += 1;
        // Anywhere in the program of each member, but after the collectives of the same phase that came before it.
        for &member in &members {
            let acts = &mut starts[member];
            let earliest =
                acts.iter().rposition(|act| matches!(act, Act::Call(_))).map_or(0, |last| last + 1);
            let place = earliest + rng.index(acts.len() - earliest + 1);
            acts.insert(place, Act::Call(self.calls.len()));
        }
        self.calls.push(call);
    }

    /// Lengths around the limits where the protocol changes its mind.
    fn length(&self, rng: &mut Rng) -> usize {
        let packet = match &self.network.near {
            Some(near) if rng.one_in(2) => near.caps.packet_bytes_max,
            _ => self.network.packet_bytes_max,
        } as u64;
        let longest = if rng.one_in(4) { 100_000 } else { 2 * packet };
        (match rng.below(8) {
            0 => 0,
            1..4 => rng.below(64),
            4 => packet - 24 + rng.below(32),
            5 => rng.below(packet),
            6 => rng.below(4 * packet),
            _ => rng.below(longest),
        }) as usize
    }
}

/// An engine's configuration: small limits and large ones.
fn config(rng: &mut Rng) -> Config {
    Config {
        road: road_config(rng),
        unexpected_bytes_limit: *rng.pick(&[4 << 10, 64 << 10, 1 << 20]),
        roads: vec![("sim-near", road_config(rng))],
        ..Config::default()
    }
}

fn road_config(rng: &mut Rng) -> RoadConfig {
    RoadConfig {
        eager_bytes_max: *rng.pick(&[0, 100, 1000, usize::MAX]),
        pregranted_bytes_max: *rng.pick(&[0, 2000, usize::MAX]),
        piece_bytes_max: *rng.pick(&[500, 4096, 1 << 20]),
        pieces_in_flight: *rng.pick(&[1, 2, 4]),
        window_packets: *rng.pick(&[1, 2, 3, 32]),
        both_bytes_min: *rng.pick(&[1000, 20_000, u64::MAX]),
    }
}

/// The bytes of message `index`.
pub(crate) fn message_bytes(seed: u64, index: usize, bytes: usize) -> Vec<u8> {
    Rng::new(seed).child(1 << 32 | index as u64).bytes(bytes)
}

/// What member `rank` of a group contributes to collective `index`.
pub(crate) fn contribution(seed: u64, index: usize, rank: usize, bytes: usize) -> Vec<u8> {
    Rng::new(seed).child(2 << 32 | (index as u64) << 8 | rank as u64).bytes(bytes)
}
