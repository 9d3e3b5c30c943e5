//! Nothing is lost and nothing happens twice, whatever the network does. Each seed is another job on another network;
//! a failure names the seed.

mod network;

use std::collections::{HashMap, HashSet};

use network::{BASE, Dice, MS, Network, RKEY, US, node};
use softefa::faults::Plan;
use softefa::srd::{Config, Done, Inline, Payload, Span, Spans, Status, Work};

const MEMORY: usize = 1 << 20;
/// Where a machine's receives are, where it sends from, and the parts of it that others read and write.
const RECEIVES: u64 = BASE;
const SOURCE: u64 = BASE + (1 << 18);
const READ_HERE: u64 = BASE + (2 << 18);
const WRITTEN: u64 = BASE + (3 << 18);

/// What a seed asks for.
struct Job {
    network: Network,
    dice: Dice,
    machines: usize,
    /// Free places in each machine's source and in its parts that others write.
    source: Vec<u64>,
    written: Vec<u64>,
    /// By (machine, wr_id): what has to be true when it is done.
    expected: HashMap<(usize, u64), Expected>,
    receives: Vec<u64>,
    next: u64,
}

#[derive(Clone, Debug)]
enum Expected {
    Sent,
    Read { local: u64, peer: usize, remote: u64, len: usize },
    Written { peer: usize, remote: u64, len: usize, byte: u8, is_told: bool },
}

fn plan(dice: &mut Dice) -> Plan {
    let chance = |dice: &mut Dice, percent| [0, 0, 1, percent][dice.below(4) as usize] as f64 / 100.0;
    Plan {
        drop: chance(dice, 30),
        duplicate: chance(dice, 50),
        reorder: chance(dice, 60),
        reorder_time: [10 * US, 500 * US, 20 * MS, 300 * MS][dice.below(4) as usize],
        delay: [0, 0, 100 * US, 5 * MS][dice.below(4) as usize],
        rnr: chance(dice, 40),
        ..Plan::default()
    }
}

impl Job {
    fn new(seed: u64) -> Job {
        let mut dice = Dice(seed);
        let plan = plan(&mut dice);
        let config = Config {
            chunk_bytes: [64, 1000, 4096][dice.below(3) as usize],
            message_bytes_max: 2000,
            window_bytes: [4 << 10, 64 << 10, 1 << 20][dice.below(3) as usize],
            // Silence is not death here: 30 % of loss can look like it for a while.
            peer_timeout: 60_000 * MS,
            ack_delay: [0, 10 * US, 1000 * US][dice.below(3) as usize],
            reorder_time: [50 * US, 2 * MS][dice.below(2) as usize],
            unsolicited: dice.below(2) == 0,
            ..Config::default()
        };
        let machines = 2 + dice.below(3) as usize;
        let mut network = Network::new(machines, MEMORY, &config, &plan, seed);
        for (index, machine) in network.machines.iter_mut().enumerate() {
            for (at, byte) in machine.memory.bytes.iter_mut().enumerate() {
                *byte = (at * 31 + index * 7 + at / 256) as u8;
            }
        }
        let (source, written) = (vec![SOURCE; machines], vec![WRITTEN; machines]);
        Job {
            network,
            dice,
            machines,
            source,
            written,
            expected: HashMap::new(),
            receives: vec![0; machines],
            next: 1,
        }
    }

    fn length(&mut self, max: u64) -> usize {
        let scale = self.dice.below(4);
        self.dice.below([2, 40, 1500, max][scale as usize].min(max + 1)) as usize
    }

    /// Local memory that nothing else uses, in one or two pieces.
    fn local(&mut self, machine: usize, len: usize) -> (u64, Spans) {
        let at = self.source[machine];
        self.source[machine] += len as u64;
        assert!(self.source[machine] <= READ_HERE);
        let first = self.dice.below(len as u64 + 1) as u32;
        let pieces = [Span { at, len: first }, Span { at: at + u64::from(first), len: len as u32 - first }];
        (at, Spans::new(pieces).expect("two pieces"))
    }

    fn post(&mut self) {
        let from = self.dice.below(self.machines as u64) as usize;
        let to = self.dice.below(self.machines as u64) as usize;
        let wr_id = self.next;
        self.next += 1;
        match self.dice.below(4) {
            0 | 1 => self.send(from, to, wr_id),
            2 => self.read(from, to, wr_id),
            _ => self.write(from, to, wr_id),
        }
    }

    /// A send starts with its own name, so that the receiver knows it; half of them say it again as immediate data.
    fn send(&mut self, from: usize, to: usize, wr_id: u64) {
        let len = 8 + self.length(1900);
        let (at, spans) = self.local(from, len);
        let memory = &mut self.network.machines[from].memory;
        let start = (at - BASE) as usize;
        memory.bytes[start..start + 8].copy_from_slice(&wr_id.to_le_bytes());
        memory.bytes[start + 8..start + len].fill(wr_id as u8);
        let payload = match Inline::new(memory.at(at, len)).filter(|_| len <= 32) {
            Some(inline) => Payload::Inline(inline),
            None => Payload::Spans(spans),
        };
        let imm = wr_id.is_multiple_of(2).then_some(wr_id as u32);
        self.expected.insert((from, wr_id), Expected::Sent);
        self.network.post(from, wr_id, to, Work::Send { payload, imm });
    }

    fn read(&mut self, from: usize, to: usize, wr_id: u64) {
        let len = self.length(10_000);
        let (local, spans) = self.local(from, len);
        let remote = READ_HERE + self.dice.below((WRITTEN - READ_HERE) - len as u64);
        self.expected.insert((from, wr_id), Expected::Read { local, peer: to, remote, len });
        self.network.post(from, wr_id, to, Work::Read { local: spans, rkey: RKEY, remote });
    }

    fn write(&mut self, from: usize, to: usize, wr_id: u64) {
        let len = self.length(10_000);
        let byte = wr_id as u8;
        let (at, spans) = self.local(from, len);
        self.network.machines[from].memory.fill(at, len, byte);
        let remote = self.written[to];
        self.written[to] += len as u64;
        assert!(self.written[to] <= BASE + MEMORY as u64);
        let imm = (self.dice.below(2) == 0).then_some(wr_id as u32);
        self.expected
            .insert((from, wr_id), Expected::Written { peer: to, remote, len, byte, is_told: imm.is_some() });
        let payload = Payload::Spans(spans);
        self.network.post(from, wr_id, to, Work::Write { payload, rkey: RKEY, remote, imm });
    }

    fn post_receive(&mut self, machine: usize) {
        let place = self.receives[machine];
        self.receives[machine] += 1;
        assert!((place + 1) * 2000 <= SOURCE - RECEIVES);
        self.network.post_receive(machine, place, Spans::one(RECEIVES + place * 2000, 2000));
    }

    fn run(mut self, seed: u64) {
        let count = 20 + self.dice.below(60);
        for _ in 0..count {
            self.post();
            for _ in 0..self.dice.below(3) {
                let machine = self.dice.below(self.machines as u64) as usize;
                self.post_receive(machine);
            }
            let time = self.dice.below(300 * US);
            self.network.pass(time);
        }
        // Some sends have nowhere to go yet. Then they have.
        self.network.pass(5 * MS);
        for machine in 0..self.machines {
            while self.receives[machine] < count + 2 {
                self.post_receive(machine);
            }
        }
        assert!(self.network.run(600_000 * MS), "seed {seed}: {} never done", self.network.open());
        self.check_completions(seed);
        self.check_arrivals(seed);
        self.check_memory(seed);
    }

    /// Each piece of work is done once, well.
    fn check_completions(&self, seed: u64) {
        let mut seen = HashSet::new();
        for machine in 0..self.machines {
            for completion in self.network.done(machine) {
                if matches!(completion.done, Done::Receive { .. } | Done::Written { .. }) {
                    continue;
                }
                assert_eq!(completion.status, Status::Ok, "seed {seed}: {completion:?}");
                assert!(seen.insert((machine, completion.wr_id)), "seed {seed}: twice: {completion:?}");
            }
        }
        assert_eq!(seen, self.expected.keys().copied().collect(), "seed {seed}");
    }

    /// Each send has arrived once, and each write that tells has told once, when all bytes were there.
    fn check_arrivals(&self, seed: u64) {
        let (mut sends, mut told) = (HashSet::new(), HashSet::new());
        for machine in 0..self.machines {
            let memory = &self.network.machines[machine].memory;
            for completion in self.network.done(machine) {
                match completion.done {
                    Done::Receive { from, bytes, imm } => {
                        let place = memory.at(RECEIVES + completion.wr_id * 2000, bytes as usize);
                        let name = u64::from_le_bytes(place[..8].try_into().expect("eight bytes"));
                        assert!(
                            place[8..].iter().all(|byte| *byte == name as u8),
                            "seed {seed}: bytes of {name}"
                        );
                        assert_eq!(imm, name.is_multiple_of(2).then_some(name as u32), "seed {seed}");
                        assert!(
                            self.expected.contains_key(&(index(from), name)),
                            "seed {seed}: from {from:?}"
                        );
                        assert!(sends.insert(name), "seed {seed}: send {name} arrived twice");
                    }
                    Done::Written { imm, bytes, .. } => {
                        assert!(told.insert(u64::from(imm)), "seed {seed}: write {imm} told twice");
                        let found = self.expected.iter().find(|((_, name), _)| *name == u64::from(imm));
                        let Some((_, Expected::Written { len, .. })) = found else {
                            panic!("seed {seed}: {imm}")
                        };
                        assert_eq!(*len, bytes as usize, "seed {seed}");
                    }
                    _ => {}
                }
            }
        }
        let names = |wanted: fn(&Expected) -> bool| -> HashSet<u64> {
            self.expected.iter().filter(|(_, what)| wanted(what)).map(|((_, name), _)| *name).collect()
        };
        assert_eq!(sends, names(|what| matches!(what, Expected::Sent)), "seed {seed}");
        assert_eq!(
            told,
            names(|what| matches!(what, Expected::Written { is_told: true, .. })),
            "seed {seed}"
        );
    }

    /// Reads brought what was there; writes are in place, and no late copy undoes what is written there afterwards.
    fn check_memory(mut self, seed: u64) {
        for what in self.expected.clone().into_iter() {
            let ((from, name), what) = what;
            match what {
                Expected::Sent => {}
                Expected::Read { local, peer, remote, len } => {
                    let there = self.network.machines[peer].memory.at(remote, len);
                    assert_eq!(
                        self.network.machines[from].memory.at(local, len),
                        there,
                        "seed {seed}: read {name}"
                    );
                    self.network.machines[from].memory.fill(local, len, 0xee);
                }
                Expected::Written { peer, remote, len, byte, .. } => {
                    let memory = &mut self.network.machines[peer].memory;
                    let is_there = memory.at(remote, len).iter().all(|there| *there == byte);
                    assert!(is_there, "seed {seed}: write {name}");
                    memory.fill(remote, len, 0xee);
                }
            }
        }
        self.network.pass(1000 * MS);
        for ((from, name), what) in &self.expected {
            let (machine, at, len) = match what {
                Expected::Sent => continue,
                Expected::Read { local, len, .. } => (*from, *local, *len),
                Expected::Written { peer, remote, len, .. } => (*peer, *remote, *len),
            };
            let after = self.network.machines[machine].memory.at(at, len);
            assert!(after.iter().all(|byte| *byte == 0xee), "seed {seed}: a late copy of {name} has written");
        }
    }
}

fn index(of: softefa::srd::Node) -> usize {
    (0..8).find(|index| node(*index) == of).expect("a machine of the test")
}

#[test]
fn everything_is_done_exactly_once_on_every_kind_of_bad_network() {
    let seeds = match std::env::var("SOFTEFA_TEST_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..2000,
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| Job::new(seed).run(seed));
        if let Err(panic) = result {
            eprintln!("again: SOFTEFA_TEST_SEED={seed} cargo test -p selvedge-softefa --test exactly_once");
            std::panic::resume_unwind(panic);
        }
    }
}
