//! `crowd RANKS TIMES`: so many ranks in one thread do an allreduce of 8 bytes so many times. What `icount` points callgrind at.
//!
//! Each rank is asked in turn whether it can go on: the same engine, rings and schedules as between processes, nobody waits, and
//! every run takes the same instructions. The user's call is left out, which the paths of one rank have.

use std::process::ExitCode;
use std::sync::Arc;

use selvedge::Op;
use selvedge::runtime::{Call, Members, Operation, Plan, Runtime, Started};
use selvedge_coll::{Collective, Rank, Shape, generate, select};
use selvedge_engine::{Config, Context, Engine};
use selvedge_shm::{Segment, Shm};
use selvedge_transport::{Machine, Memory, Peer};

fn main() -> ExitCode {
    let numbers: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [ranks @ 1..=u32::MAX, times] = numbers[..] else {
        eprintln!("crowd: write: crowd RANKS TIMES; icount does");
        return ExitCode::from(2);
    };
    let mut crowd = Crowd::new(ranks);
    (0..times).for_each(|turn| crowd.allreduce(turn));
    ExitCode::SUCCESS
}

/// Ranks in one thread.
struct Crowd {
    ranks: Vec<Member>,
    group: Arc<Members>,
    op: Op<u64>,
    /// What goes on. Memory that is kept, so that no call is counted with what it takes to get it.
    open: Vec<(usize, Operation)>,
}

/// One of them, with its part of the schedule.
struct Member {
    runtime: Runtime<Shm>,
    plan: Arc<Plan>,
    input: Memory,
    output: Memory,
}

impl Crowd {
    fn new(size: u32) -> Crowd {
        let shape = Shape {
            collective: Collective::Allreduce,
            ranks: size,
            count: 1,
            element_bytes: 8,
            commutative: true,
        };
        let algorithm = select(&shape, &Machine::one_host(size, size));
        let segment = Segment::create(size, &selvedge_shm::Config::default()).expect("there is room for it");
        let segment = Arc::new(segment);
        // Everybody joins before anybody opens.
        let joined: Vec<_> =
            (0..size).map(|rank| segment.join(Peer(rank)).expect("nobody else has")).collect();
        let member = |(rank, joined): (u32, selvedge_shm::Joined)| {
            let shm = joined.open().expect("all have joined");
            let plan = Arc::new(Plan::new(shape, generate(algorithm, &shape, Rank(rank))));
            let input = Memory::of(&u64::from(rank + 1).to_ne_bytes());
            let runtime = Runtime::new(Engine::new(shm, Config::default()));
            Member { runtime, plan, input, output: Memory::zeroed(8) }
        };
        let ranks = (0..).zip(joined).map(member).collect();
        Crowd { ranks, group: Arc::new(Members::World { size }), op: Op::sum(), open: Vec::new() }
    }

    /// Started by all, and then each is asked in turn until all have the sum.
    fn allreduce(&mut self, turn: u32) {
        let reducer = self.op.reducer();
        let mut open = std::mem::take(&mut self.open);
        for (rank, member) in self.ranks.iter_mut().enumerate() {
            let Member { runtime, plan, input, output } = member;
            let call = Call {
                plan,
                group: &self.group,
                context: Context(1),
                sequence: turn,
                input: input.buf(),
                output: output.buf(),
                reducer: Some(&reducer),
            };
            match runtime.collective(call) {
                Started::Pending(operation) => open.push((rank, operation)),
                Started::Done(outcome) => drop(outcome.expect("nobody dies here")),
            }
        }
        while !open.is_empty() {
            open.retain(|(rank, operation)| {
                let runtime = &mut self.ranks[*rank].runtime;
                runtime.progress();
                match runtime.take(*operation) {
                    Some(outcome) => {
                        outcome.expect("nobody dies here");
                        false
                    }
                    None => true,
                }
            });
        }
        self.open = open;
        let size = self.ranks.len() as u64;
        let sum = (size * (size + 1) / 2).to_ne_bytes();
        assert!(turn > 0 || self.ranks.iter().all(|member| member.output.bytes() == sum), "the sum is right");
    }
}
