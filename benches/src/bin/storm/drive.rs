//! Runs a program on the simulated network: all ranks in one thread, stepped in an order drawn from the seed.

use std::rc::Rc;

use selvedge::Op;
use selvedge::runtime::{Call, Group, Operation, Outcome, Plan, Reducer, Runtime, Started, Trouble};
use selvedge_coll::{Rank, Schedule, generate};
use selvedge_engine::{Config, Context, Engine, Failure, Mutant, Tag, credit};
use selvedge_transport::{Buf, Cause, Fault, Memory, Peer, Rng, Scope, Sim, SimPort};

use crate::mutate::ScheduleMutant;
use crate::oracle::{self, History, Received};
use crate::program::{Act, Element, Program, Receive, contribution, message_bytes};

/// A defect put in on purpose, to see whether the storm notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// In the engine.
    Engine(Mutant),
    /// In the schedules.
    Schedule(ScheduleMutant),
}

/// What a run that went well amounts to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    /// Messages started.
    pub(crate) messages: u64,
    /// Collectives, counted once per group.
    pub(crate) collectives: u64,
    /// Ranks that died.
    pub(crate) deaths: u64,
    /// Ranks that left in order.
    pub(crate) leavings: u64,
    /// Digest of everything that crossed the network.
    pub(crate) trace: u64,
}

/// Overwrites a buffer that its operation has given back, so that whoever still reads it reads this.
const SPENT: u8 = 0xEE;
/// More steps than any program takes.
const STEPS_MAX: u64 = 3_000_000;

/// Runs the program of a seed. The error says what went wrong, in a sentence.
pub(crate) fn run(seed: u64, defect: Option<Defect>) -> Result<Tally, String> {
    let program = Program::new(seed);
    let mut storm = Storm::new(&program, defect);
    storm.play_out()?;
    storm.verdict()
}

/// One rank: its runtime, and what it has started and not finished.
struct Player {
    runtime: Runtime<SimPort>,
    phase: usize,
    next: usize,
    open: Vec<Open>,
    /// Whether something of it ended in a fault: it knows that somebody died, and has taken note.
    knows: bool,
}

/// Something started, and the memory it works on.
struct Open {
    act: Act,
    operation: Operation,
    input: Memory,
    output: Memory,
    /// Whether its rank knew of a death when it was started: then nobody will tell it.
    knew: bool,
}

struct Storm<'a> {
    program: &'a Program,
    defect: Option<Defect>,
    sim: Sim,
    players: Vec<Player>,
    /// Those who neither died nor left.
    alive: Vec<bool>,
    groups: Vec<Rc<Group>>,
    history: History,
    rng: Rng,
    tally: Tally,
}

impl<'a> Storm<'a> {
    fn new(program: &'a Program, defect: Option<Defect>) -> Storm<'a> {
        let sim = Sim::new(program.network.clone());
        let players = sim.ports().into_iter().map(|port| {
            let mutant = if let Some(Defect::Engine(mutant)) = defect { Some(mutant) } else { None };
            let config = Config { mutant, ..program.config.clone() };
            let runtime = Runtime::new(Engine::new(port, config));
            Player { runtime, phase: 0, next: 0, open: Vec::new(), knows: false }
        });
        let groups = program.groups.iter().map(|members| {
            Rc::new(Group::listed(members.iter().map(|&member| Peer(member as u32)).collect()))
        });
        Storm {
            program,
            defect,
            players: players.collect(),
            alive: vec![true; program.network.peers],
            groups: groups.collect(),
            history: History::new(program),
            rng: Rng::new(program.seed).child(7),
            tally: Tally::default(),
            sim,
        }
    }

    /// Steps ranks in random order until all are through, or nothing can move any more.
    fn play_out(&mut self) -> Result<(), String> {
        let ranks = self.players.len();
        // How often in a row somebody was asked in vain while the network was empty: nobody will move any more.
        let (mut quiet, quiet_max) = (0, 64 * (ranks + 1));
        for step in 0..STEPS_MAX {
            if let Some((victim, when)) = self.program.victim
                && self.alive[victim]
                && (step >= when || quiet > quiet_max)
            {
                quiet = 0;
                self.sim.kill(Peer(victim as u32));
                self.alive[victim] = false;
                self.tally.deaths += 1;
            }
            if (0..ranks).all(|rank| !self.alive[rank] || self.is_through(rank)) {
                return Ok(());
            }
            if quiet > quiet_max {
                return Err(self.who_waits());
            }
            let rank = self.rng.index(ranks);
            if self.may_leave(rank) {
                self.sim.leave(Peer(rank as u32));
                self.alive[rank] = false;
                self.tally.leavings += 1;
            }
            if self.alive[rank] && self.step(rank)? {
                quiet = 0;
                continue;
            }
            quiet = if self.sim.idle() { quiet + 1 } else { 0 };
            if self.rng.one_in(3) {
                self.sim.advance();
            }
        }
        Err(format!("no end after {STEPS_MAX} steps; {}", self.who_waits()))
    }

    fn is_through(&self, rank: usize) -> bool {
        let player = &self.players[rank];
        player.phase == self.program.phases.len() && player.open.is_empty()
    }

    /// Whether a rank can return from main now: it is through, and nobody waits for a word of it. Where somebody dies
    /// all stay, because then messages get lost, and who waits for their end would be told of the leaving as well.
    fn may_leave(&self, rank: usize) -> bool {
        self.alive[rank]
            && self.program.victim.is_none()
            && self.is_through(rank)
            && self.players[rank].runtime.engine().has_answered()
    }

    /// One move of one rank. Says whether anything happened.
    fn step(&mut self, rank: usize) -> Result<bool, String> {
        let mut moved = self.players[rank].runtime.progress();
        moved |= self.harvest(rank)?;
        let player = &self.players[rank];
        let Some(acts) = self.program.phases.get(player.phase).map(|phase| &phase[rank]) else {
            return Ok(moved);
        };
        if let Some(&act) = acts.get(player.next) {
            self.players[rank].next += 1;
            self.start(rank, act)?;
            return Ok(true);
        }
        self.cancel_the_hopeless(rank);
        let player = &mut self.players[rank];
        if player.open.is_empty() {
            player.phase += 1;
            player.next = 0;
            return Ok(true);
        }
        Ok(moved)
    }

    fn start(&mut self, rank: usize, act: Act) -> Result<(), String> {
        let program = self.program;
        let (started, input, output) = match act {
            Act::Send(index) => {
                self.history.sending(index);
                self.tally.messages += 1;
                let message = &program.messages[index];
                let input = Memory::of(&message_bytes(program.seed, index, message.bytes));
                let to = Peer(message.dest as u32);
                let (context, tag) = (Context(message.context), Tag(u64::from(message.tag)));
                let started = self.players[rank].runtime.send(to, context, tag, input.buf());
                (started, input, Memory::zeroed(0))
            }
            Act::Recv(index) => {
                self.history.posting(rank, index);
                let receive = &program.receives[index];
                let output = Memory::zeroed(receive.capacity);
                let source = receive.source.map(|source| Peer(source as u32));
                let tag = receive.tag.map(|tag| Tag(u64::from(tag)));
                let context = Context(receive.context);
                let started = self.players[rank].runtime.recv(source, context, tag, output.buf());
                (started, Memory::zeroed(0), output)
            }
            Act::Call(index) => self.call(rank, index),
        };
        match started {
            Started::Done(outcome) => self.ended(rank, act, outcome, &input, &output),
            Started::Pending(operation) => {
                let player = &mut self.players[rank];
                player.open.push(Open { act, operation, input, output, knew: player.knows });
                Ok(())
            }
        }
    }

    fn call(&mut self, rank: usize, index: usize) -> (Started, Memory, Memory) {
        let call = &self.program.calls[index];
        let group = self.groups[call.group].clone();
        let me = group.rank(Peer(rank as u32)).expect("a caller belongs to the group");
        self.tally.collectives += u64::from(me == Rank(0));
        let (input, output) = oracle::sizes(call, me.index());
        let input = Memory::of(&contribution(self.program.seed, index, me.index(), input));
        let output = Memory::zeroed(output);
        let root =
            matches!(call.shape.collective, selvedge_coll::Collective::Broadcast { root } if root == me);
        if root {
            output.buf().fill_from(&contribution(self.program.seed, index, me.index(), output.len()));
        }
        let mut schedule: Schedule = generate(call.algorithm, &call.shape, me);
        if let Some(Defect::Schedule(mutant)) = self.defect {
            schedule = mutant.apply(&schedule, &mut Rng::new(self.program.seed).child(index as u64));
        }
        let call = Call {
            plan: Rc::new(Plan::new(schedule)),
            group,
            context: Context(2 * call.group as u32 + 1),
            sequence: call.sequence,
            input: input.buf(),
            output: output.buf(),
            reducer: Some(reducer(call.element)),
        };
        (self.players[rank].runtime.collective(call), input, output)
    }

    /// Takes the outcomes of everything that is complete.
    fn harvest(&mut self, rank: usize) -> Result<bool, String> {
        let mut moved = false;
        let mut index = 0;
        while index < self.players[rank].open.len() {
            let player = &mut self.players[rank];
            let operation = player.open[index].operation;
            match player.runtime.take(operation) {
                None => index += 1,
                Some(outcome) => {
                    let open = player.open.swap_remove(index);
                    self.ended(rank, open.act, outcome, &open.input, &open.output)?;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// Ends the receives that nobody sends to.
    fn cancel_the_hopeless(&mut self, rank: usize) {
        let player = &mut self.players[rank];
        for open in &player.open {
            if let Act::Recv(index) = open.act
                && self.program.receives[index].cancelled
                // Where somebody dies, who takes from anybody is told, and has to wait for it: once.
                && (self.program.victim.is_none() || self.program.receives[index].source.is_some() || open.knew)
            {
                player.runtime.cancel(open.operation);
            }
        }
    }

    /// Judges one outcome, and spoils the memory that was given back.
    fn ended(
        &mut self,
        rank: usize,
        act: Act,
        outcome: Outcome,
        input: &Memory,
        output: &Memory,
    ) -> Result<(), String> {
        let program = self.program;
        match (act, outcome) {
            (_, Err(Trouble::Engine(Failure::Fault(fault)))) if !self.may_fail(act, &fault) => {
                return Err(format!(
                    "rank {rank}: {act:?} ended in a fault though nobody it needs died: {fault}"
                ));
            }
            (_, Err(Trouble::Engine(Failure::Fault(_)))) => self.players[rank].knows = true,
            (Act::Send(_), Ok(_)) => {}
            (Act::Recv(index), Ok(envelope)) => {
                let len = envelope.bytes as usize;
                if len > output.len() || program.receives[index].cancelled {
                    return Err(format!(
                        "rank {rank}: receive {index} got {envelope:?}, which it cannot have"
                    ));
                }
                let bytes = output.bytes()[..len].to_vec();
                let (source, tag) = (envelope.source.index(), envelope.tag.0 as u32);
                self.history.received(index, Received { source, tag, len, bytes });
            }
            (Act::Recv(index), Err(Trouble::Engine(Failure::Truncated { sent, capacity, envelope }))) => {
                if capacity as usize != output.len() || sent <= capacity {
                    return Err(format!(
                        "rank {rank}: receive {index} of {} bytes was cut: {sent}",
                        output.len()
                    ));
                }
                let (source, tag) = (envelope.source.index(), envelope.tag.0 as u32);
                let (len, bytes) = (sent as usize, output.bytes());
                self.history.received(index, Received { source, tag, len, bytes });
            }
            (Act::Recv(index), Err(Trouble::Engine(Failure::Cancelled)))
                if program.receives[index].cancelled => {}
            (Act::Call(index), Ok(_)) => {
                let group = &self.groups[program.calls[index].group];
                let me = group.rank(Peer(rank as u32)).expect("a caller belongs to the group");
                if output.bytes() != oracle::expected(program, index, me.index()) {
                    let call = &program.calls[index];
                    return Err(format!("rank {rank}: wrong result of collective {index}: {call:?}"));
                }
            }
            (act, outcome) => return Err(format!("rank {rank}: {act:?} ended in {outcome:?}")),
        }
        spoil(input.buf());
        spoil(output.buf());
        Ok(())
    }

    /// Whether a rank that died, or one that left and was only waited for in vain, is an excuse for an operation that
    /// ended in a fault.
    fn may_fail(&self, act: Act, fault: &Fault) -> bool {
        let Some((victim, _)) = self.program.victim else {
            let Act::Recv(index) = act else { return false };
            let Receive { cancelled, source, .. } = self.program.receives[index];
            return cancelled
                && fault.cause == Cause::PeerLeft
                && source.is_some_and(|source| fault.scope == Scope::Peer(Peer(source as u32)));
        };
        match act {
            Act::Send(index) => self.program.messages[index].dest == victim,
            Act::Recv(index) => self.program.receives[index].source.is_none_or(|source| source == victim),
            Act::Call(_) => false,
        }
    }

    /// Everybody is through: what came out must be what went in.
    fn verdict(mut self) -> Result<Tally, String> {
        let complete = self.program.victim.is_none();
        self.history.check(self.program, complete)?;
        for (rank, player) in self.players.iter().enumerate() {
            let stats = player.runtime.engine().stats();
            // The limit, or what every peer may send in any case.
            let limit =
                self.program.config.unexpected_bytes_limit.max(self.players.len() as u64 * credit::BYTES_MIN);
            if stats.unexpected_bytes_max > limit {
                let held = stats.unexpected_bytes_max;
                return Err(format!(
                    "rank {rank} held {held} bytes of unexpected messages, more than its {limit}"
                ));
            }
            if complete && stats.unexpected_bytes != 0 {
                return Err(format!("rank {rank} still holds {} bytes at the end", stats.unexpected_bytes));
            }
        }
        self.tally.trace = self.sim.trace_hash();
        Ok(self.tally)
    }

    /// Who waits for what, when nobody can move.
    fn who_waits(&self) -> String {
        let waiting: Vec<String> = (0..self.players.len())
            .filter(|&rank| self.alive[rank] && !self.is_through(rank))
            .map(|rank| {
                let player = &self.players[rank];
                let acts: Vec<_> = player.open.iter().take(4).map(|open| open.act).collect();
                format!("rank {rank} in phase {} for {} ({acts:?} ..)", player.phase, player.open.len())
            })
            .collect();
        format!("nobody moves any more; waiting: {}", waiting.join(", "))
    }
}

fn spoil(buf: Buf) {
    buf.fill_with(SPENT);
}

fn reducer(element: Element) -> Reducer {
    match element {
        Element::ByteSum => Op::<u8>::sum().reducer(),
        Element::WordSum => Op::<u64>::sum().reducer(),
        Element::Affine => Op::ordered(|left: &[u64], right: &mut [u64]| {
            for (left, right) in left.iter().zip(right) {
                *right = oracle::compose(*left, *right);
            }
        })
        .reducer(),
    }
}
