//! One rank of a program: what it has started, and what it makes of how that ended. It knows nothing of the transport.

use std::sync::Arc;

use selvedge::Op;
use selvedge::runtime::{
    Call, Contexts, Members, Operation, Outcome, Plan, Reducer, Runtime, Started, Trouble,
};
use selvedge_coll::{Collective, Rank, Schedule, generate};
use selvedge_engine::{Context, Failure, Tag};
use selvedge_transport::{Buf, Cause, Fault, Memory, Peer, Places, Rng, Scope, Transport};

use crate::drive::Tally;
use crate::family::{self, Life, World};
use crate::mutate::ScheduleMutant;
use crate::oracle::{self, History, Received};
use crate::program::{Act, Element, Probed, Program, Receive, contribution, message_bytes};
use crate::stream::{self, End, Step};

/// Overwrites a buffer that its operation has given back, so that whoever still reads it reads this.
pub(crate) const SPENT: u8 = 0xEE;

/// What lies between the places of a message.
const GAP: u8 = 0xA7;

/// What all ranks of a program have in common.
pub(crate) struct Scene<'a> {
    /// What they do.
    pub(crate) program: &'a Program,
    /// Its communicators.
    pub(crate) groups: Vec<Arc<Members>>,
    /// Added to every context, so that programs on one job do not meet.
    pub(crate) first_context: u32,
    /// A defect of the schedules.
    pub(crate) defect: Option<ScheduleMutant>,
}

impl<'a> Scene<'a> {
    /// The scene of a program without defect.
    pub(crate) fn new(program: &'a Program) -> Scene<'a> {
        let group = |members: &Vec<usize>| {
            Arc::new(Members::listed(members.iter().map(|&member| Peer(member as u32)).collect()))
        };
        let groups = program.groups.iter().map(group).collect();
        Scene { program, groups, first_context: 0, defect: None }
    }

    /// A context of the program, as the engines know it.
    fn context(&self, context: u32) -> Context {
        Context(self.first_context + context)
    }
}

/// Something that was started, and its memory: what is sent, and where something comes.
type Begun = (Started, Memory, Memory);

/// What is written down while a program runs.
pub(crate) struct Notes {
    /// What was seen from outside.
    pub(crate) history: History,
    /// What it amounts to.
    pub(crate) tally: Tally,
}

/// One rank: what it has started and not finished.
#[derive(Debug)]
pub(crate) struct Player {
    rank: usize,
    phase: usize,
    next: usize,
    open: Vec<Open>,
    /// Ends of streams that run.
    ends: Vec<End>,
    /// Its parts of families, also those that are over.
    lives: Vec<Life>,
    contexts: Contexts,
    /// Whether something of it ended in a fault: it knows that somebody died, and has taken note.
    knows: bool,
}

/// Something started, and the memory it works on.
#[derive(Debug)]
struct Open {
    act: Act,
    operation: Operation,
    input: Memory,
    output: Memory,
    /// Whether its rank knew of a death when it was started: then nobody will tell it.
    knew: bool,
}

impl Player {
    /// A rank of a program that has done nothing yet.
    pub(crate) fn new(rank: usize, program: &Program) -> Player {
        let contexts = family::contexts(program);
        let (open, ends, lives) = (Vec::new(), Vec::new(), Vec::new());
        Player { rank, phase: 0, next: 0, open, ends, lives, contexts, knows: false }
    }

    /// Communicators that it has not freed.
    pub(crate) fn communicators(&self) -> usize {
        self.contexts.live()
    }

    /// Whether it has done all of its program.
    pub(crate) fn is_through(&self, program: &Program) -> bool {
        let is_over = |life: &Life| life.is_over() || family::is_excused(program, life.index());
        self.phase == program.phases.len()
            && self.open.is_empty()
            && self.ends.is_empty()
            && self.lives.iter().all(is_over)
    }

    /// What it waits for, in words.
    pub(crate) fn waits_for(&self) -> String {
        let acts: Vec<_> = self.open.iter().take(4).map(|open| open.act).collect();
        let streams: Vec<_> = self.ends.iter().map(End::index).collect();
        let families: Vec<_> = self.lives.iter().filter(|life| !life.is_over()).map(Life::index).collect();
        format!(
            "rank {} in phase {} for {} ({acts:?} ..), streams {streams:?} and families {families:?}",
            self.rank,
            self.phase,
            self.open.len()
        )
    }

    /// One move. Says whether anything happened.
    pub(crate) fn step<T: Transport>(
        &mut self,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Result<bool, String> {
        let mut moved = runtime.progress();
        moved |= self.harvest(runtime, scene, notes)?;
        moved |= self.move_streams(runtime, scene, notes)?;
        moved |= self.move_families(runtime, scene.program, notes)?;
        let Some(acts) = scene.program.phases.get(self.phase).map(|phase| &phase[self.rank]) else {
            return Ok(moved);
        };
        if let Some(&act) = acts.get(self.next) {
            self.next += 1;
            self.start(act, runtime, scene, notes)?;
            return Ok(true);
        }
        self.cancel_the_hopeless(runtime, scene.program);
        let is_left =
            |open: &Open| matches!(open.act, Act::Send(index) if scene.program.messages[index].is_left);
        if self.open.iter().all(is_left) && self.ends.is_empty() {
            self.phase += 1;
            self.next = 0;
            return Ok(true);
        }
        Ok(moved)
    }

    fn start<T: Transport>(
        &mut self,
        act: Act,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let begun = match act {
            Act::Send(index) => Some(self.send(index, runtime, scene, notes)),
            Act::Recv(index) => Some(self.receive(index, runtime, scene, notes)),
            Act::Call(index) => Some(self.call(index, runtime, scene, notes)),
            Act::Stream(index) => self.open_stream(index, runtime, scene, notes),
            Act::Family(index) => {
                self.lives.push(Life::new(index, scene.program));
                None
            }
        };
        match begun {
            None => Ok(()),
            Some((Started::Done(outcome), input, output)) => {
                self.ended(act, outcome, (&input, &output), scene, notes)
            }
            Some((Started::Pending(operation), input, output)) => {
                self.open.push(Open { act, operation, input, output, knew: self.knows });
                Ok(())
            }
        }
    }

    fn send<T: Transport>(
        &self,
        index: usize,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Begun {
        notes.history.sending(index);
        notes.tally.messages += 1;
        let message = &scene.program.messages[index];
        let bytes = message_bytes(scene.program.seed, index, message.bytes);
        let (to, tag) = (Peer(message.dest as u32), Tag(u64::from(message.tag)));
        let context = scene.context(message.context);
        if message.is_scattered {
            let input = wide(bytes.len());
            let places = input.scattered(1, spread(bytes.len()));
            places.scatter(0, &bytes);
            let started = runtime.send_scattered(to, context, tag, message.is_sync, places);
            return (started, input, Memory::zeroed(0));
        }
        let input = Memory::of(&bytes);
        let started = match message.is_sync {
            false => runtime.send(to, context, tag, input.buf()),
            true => runtime.send_sync(to, context, tag, input.buf()),
        };
        (started, input, Memory::zeroed(0))
    }

    fn receive<T: Transport>(
        &self,
        index: usize,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Begun {
        notes.history.posting(self.rank, index);
        let receive = &scene.program.receives[index];
        let output = match receive.is_scattered {
            true => wide(receive.capacity),
            false => Memory::zeroed(receive.capacity),
        };
        let places = receive.is_scattered.then(|| output.scattered(1, spread(receive.capacity)));
        let source = receive.source.map(|source| Peer(source as u32));
        let tag = receive.tag.map(|tag| Tag(u64::from(tag)));
        let context = scene.context(receive.context);
        let found = match receive.probed {
            Probed::No => Ok(None),
            _ => runtime.probe_matched(source, context, tag),
        };
        let started = match found {
            Ok(Some(message)) if receive.probed == Probed::Matched => match places {
                Some(places) => runtime.recv_matched_scattered(message, places),
                None => runtime.recv_matched(message, output.buf()),
            },
            Ok(found) => {
                found.into_iter().for_each(|message| runtime.put_back(message));
                match places {
                    Some(places) => runtime.recv_scattered(source, context, tag, places),
                    None => runtime.recv(source, context, tag, output.buf()),
                }
            }
            Err(trouble) => Started::Done(Err(trouble)),
        };
        (started, Memory::zeroed(0), output)
    }

    /// Opens the ends of a stream that are here, one or both. What a sender says of its partitions is a message to wait for.
    fn open_stream<T: Transport>(
        &mut self,
        index: usize,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Option<Begun> {
        let stream = scene.program.streams[index];
        let mut said = None;
        for is_sender in [true, false] {
            if self.rank == if is_sender { stream.source } else { stream.dest } {
                let (end, first) = End::open(index, is_sender, scene.first_context, scene.program, runtime);
                self.ends.push(end);
                said = said.or(first);
                notes.tally.messages += if is_sender { stream.rounds as u64 } else { 0 };
            }
        }
        said.map(|(started, memory)| (started, memory, Memory::zeroed(0)))
    }

    /// One move of every end of a stream.
    fn move_streams<T: Transport>(
        &mut self,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Result<bool, String> {
        let mut moved = false;
        let mut index = 0;
        while index < self.ends.len() {
            match self.ends[index].step(scene.program, runtime)? {
                Step::Idle => index += 1,
                Step::Moved => (moved, index) = (true, index + 1),
                Step::Over(outcome) => {
                    moved = true;
                    let act = Act::Stream(self.ends.swap_remove(index).index());
                    let nothing = Memory::zeroed(0);
                    self.ended(act, outcome, (&nothing, &nothing), scene, notes)?;
                }
            }
        }
        Ok(moved)
    }

    /// One move of every family.
    fn move_families<T: Transport>(
        &mut self,
        runtime: &mut Runtime<T>,
        program: &Program,
        notes: &mut Notes,
    ) -> Result<bool, String> {
        let (rank, contexts, mut moved) = (self.rank, &self.contexts, false);
        for life in &mut self.lives {
            let mut world = World { rank, runtime, contexts, program, tally: &mut notes.tally };
            match life.step(&mut world) {
                Ok(has_moved) => moved |= has_moved,
                Err(family::End::Fault(_)) if family::is_excused(program, life.index()) => self.knows = true,
                Err(family::End::Fault(why) | family::End::Wrong(why)) => {
                    return Err(format!("rank {rank}, family {}: {why}", life.index()));
                }
            }
        }
        Ok(moved)
    }

    fn call<T: Transport>(
        &self,
        index: usize,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Begun {
        let seed = scene.program.seed;
        let call = &scene.program.calls[index];
        let group = scene.groups[call.group].clone();
        let me = group.rank(Peer(self.rank as u32)).expect("a caller belongs to the group");
        notes.tally.collectives += u64::from(me == Rank(0));
        let (input, output) = oracle::sizes(call, me.index());
        let input = Memory::of(&contribution(seed, index, me.index(), input));
        let output = Memory::zeroed(output);
        let root = matches!(call.shape.collective, Collective::Broadcast { root } if root == me);
        if root {
            output.buf().fill_from(&contribution(seed, index, me.index(), output.len()));
        }
        let mut schedule: Schedule = generate(call.algorithm, &call.shape, me);
        if let Some(mutant) = scene.defect {
            schedule = mutant.apply(&schedule, &mut Rng::new(seed).child(index as u64));
        }
        let plan = Arc::new(Plan::new(call.shape, schedule));
        let reducer = reducer(call.element);
        let call = Call {
            plan: &plan,
            group: &group,
            context: scene.context(2 * call.group as u32 + 1),
            sequence: call.sequence,
            input: input.buf(),
            output: output.buf(),
            reducer: Some(&reducer),
        };
        (runtime.collective(call), input, output)
    }

    /// Takes the outcomes of everything that is complete.
    fn harvest<T: Transport>(
        &mut self,
        runtime: &mut Runtime<T>,
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Result<bool, String> {
        let mut moved = false;
        let mut index = 0;
        while index < self.open.len() {
            match runtime.take(self.open[index].operation) {
                None => index += 1,
                Some(outcome) => {
                    let open = self.open.swap_remove(index);
                    self.ended(open.act, outcome, (&open.input, &open.output), scene, notes)?;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// Ends the receives that nobody sends to.
    fn cancel_the_hopeless<T: Transport>(&self, runtime: &mut Runtime<T>, program: &Program) {
        for open in &self.open {
            if let Act::Recv(index) = open.act
                && program.receives[index].cancelled
                // Where somebody dies, who takes from anybody is told, and has to wait for it: once.
                && (program.victim.is_none() || program.receives[index].source.is_some() || open.knew)
            {
                runtime.cancel(open.operation);
            }
        }
    }

    /// Judges one outcome, and spoils the memory that was given back.
    fn ended(
        &mut self,
        act: Act,
        outcome: Outcome,
        (input, output): (&Memory, &Memory),
        scene: &Scene<'_>,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let (rank, program) = (self.rank, scene.program);
        match (act, outcome) {
            (_, Err(Trouble::Engine(Failure::Fault(fault)))) if !may_fail(program, act, &fault) => {
                return Err(format!(
                    "rank {rank}: {act:?} ended in a fault though nobody it needs died: {fault}"
                ));
            }
            (_, Err(Trouble::Engine(Failure::Fault(_)))) => self.knows = true,
            (Act::Send(index), Ok(_)) => notes.history.sent(index),
            (Act::Stream(_), Ok(_)) => {}
            (Act::Recv(index), Ok(envelope)) => {
                let len = envelope.bytes as usize;
                let arrived = arrived(&program.receives[index], output)?;
                if len > arrived.len() || program.receives[index].cancelled {
                    return Err(format!(
                        "rank {rank}: receive {index} got {envelope:?}, which it cannot have"
                    ));
                }
                let bytes = arrived[..len].to_vec();
                let (source, tag) = (envelope.source.index(), envelope.tag.0 as u32);
                notes.history.received(index, Received { source, tag, len, bytes });
            }
            (Act::Recv(index), Err(Trouble::Engine(Failure::Truncated { sent, capacity, envelope }))) => {
                let bytes = arrived(&program.receives[index], output)?;
                if capacity as usize != bytes.len() || sent <= capacity {
                    return Err(format!(
                        "rank {rank}: receive {index} of {} bytes was cut: {sent}",
                        bytes.len()
                    ));
                }
                let (source, tag) = (envelope.source.index(), envelope.tag.0 as u32);
                let len = sent as usize;
                notes.history.received(index, Received { source, tag, len, bytes });
            }
            (Act::Recv(index), Err(Trouble::Engine(Failure::Cancelled)))
                if program.receives[index].cancelled => {}
            (Act::Call(index), Ok(_)) => {
                let group = &scene.groups[program.calls[index].group];
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
}

/// Whether a rank that died, or one that left and was only waited for in vain, is an excuse for an operation that
/// ended in a fault.
fn may_fail(program: &Program, act: Act, fault: &Fault) -> bool {
    let Some((victim, _)) = program.victim else {
        let Act::Recv(index) = act else { return false };
        let Receive { cancelled, source, .. } = program.receives[index];
        return cancelled
            && fault.cause == Cause::PeerLeft
            && source.is_some_and(|source| fault.scope == Scope::Peer(Peer(source as u32)));
    };
    match act {
        Act::Send(index) => program.messages[index].dest == victim,
        Act::Recv(index) => program.receives[index].source.is_none_or(|source| source == victim),
        Act::Call(_) | Act::Family(_) => false,
        Act::Stream(index) => stream::may_fail(&program.streams[index], victim),
    }
}

/// Places for so many bytes: some in threes, some alone, with gaps between.
fn spread(bytes: usize) -> Places {
    let threes = bytes / 6;
    let ones = bytes - 3 * threes;
    Places::of((0..threes).map(|at| (5 * at, 3)).chain((0..ones).map(|at| (5 * threes + 2 * at, 1))))
}

/// Memory with room for so many bytes at such places, all [`GAP`].
fn wide(bytes: usize) -> Memory {
    let memory = Memory::zeroed(3 * bytes);
    memory.buf().fill_with(GAP);
    memory
}

/// What a receive has brought together; fails when something else was written.
fn arrived(receive: &Receive, output: &Memory) -> Result<Vec<u8>, String> {
    if !receive.is_scattered {
        return Ok(output.bytes());
    }
    let places = spread(receive.capacity);
    let bytes = Memory::zeroed(receive.capacity);
    output.scattered(1, places.clone()).gather(0, bytes.buf());
    let mut gaps = output.bytes();
    places.runs().for_each(|(start, len)| gaps[start..start + len].fill(GAP));
    match gaps.iter().position(|&byte| byte != GAP) {
        Some(at) => Err(format!("rank {}: a receive has written between its places, at {at}", receive.rank)),
        None => Ok(bytes.bytes()),
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
