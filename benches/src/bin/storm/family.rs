//! Communicators of the runtime that are made one out of another while everything else goes, used, and freed: a family of them on
//! one group. Every rank draws the same family from the seed and lives its own part; nothing in here waits.
//!
//! All messages on all of these communicators have one tag, and their content says on which they belong: what crossed over to
//! another would be seen. There are so few numbers that they come back while others are in use.

use std::sync::Arc;

use selvedge::Op;
use selvedge::runtime::{
    Agree, Call, Company, Contexts, Members, Offer, Outcome, Plan, Runtime, Started, Trouble, agreement_shape,
};
use selvedge_coll::{Algorithm, Collective, Rank, Shape, generate};
use selvedge_engine::{Context, Failure, Tag};
use selvedge_transport::{Memory, Peer, Rng, Transport};

use crate::drive::Tally;
use crate::oracle;
use crate::player::SPENT;
use crate::program::{Element, Program};

/// The context of a family's first communicator, which is not made, is this and its index. A family makes agreements there.
const FIRST_CONTEXT: u32 = 700;
/// Contexts that are agreed on count from here.
const MADE_CONTEXT: u32 = 1000;
/// Communicators that a rank has of one family at the same time.
const KEPT_MAX: usize = 2;
/// Of a family, on all ranks together: those of the two halves of a split.
const NUMBERS_EACH: usize = 2 * KEPT_MAX;
/// Streams of random numbers.
const FAMILIES: u64 = 14;
const ROUND: u64 = 15;
const CONTENT: u64 = 16;

/// Communicators made one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    /// The group that it begins with.
    pub(crate) group: usize,
    /// How many are made, at most.
    rounds: u64,
    company: Company,
}

/// Draws the families of a program, apart from all else, and with each the phase in which it begins.
pub(crate) fn draw(program: &Program) -> Vec<(Family, usize)> {
    let mut rng = Rng::new(program.seed).child(FAMILIES << 32);
    if !rng.one_in(5) {
        return Vec::new();
    }
    let count = 1 + rng.below(3);
    // One alone says so now and then, which saves it a question.
    let company = if count == 1 && rng.one_in(2) { Company::None } else { Company::Possible };
    // Whoever waits to be told of a death would not be when a family has been.
    let told_once = program.receives.iter().any(|receive| receive.cancelled && receive.source.is_none());
    (0..count)
        .map(|_| (rng.index(program.groups.len()), 1 + rng.below(7), rng.index(program.phases.len())))
        .filter(|&(group, ..)| !told_once || !has_victim(program, group))
        .map(|(group, rounds, phase)| (Family { group, rounds, company }, phase))
        .collect()
}

/// The numbers of a rank in a program.
pub(crate) fn contexts(program: &Program) -> Contexts {
    Contexts::of((NUMBERS_EACH * program.families.len() + 1) as u32)
}

/// Whether the rank that dies is an excuse for whatever becomes of a family.
pub(crate) fn is_excused(program: &Program, family: usize) -> bool {
    has_victim(program, program.families[family].group)
}

fn has_victim(program: &Program, group: usize) -> bool {
    program.victim.is_some_and(|(victim, _)| program.groups[group].contains(&victim))
}

/// One rank's part of a family.
#[derive(Debug)]
pub(crate) struct Life {
    index: usize,
    round: u64,
    stage: Stage,
    /// The first one, which stays.
    base: Kept,
    /// Those that were made and are not yet freed.
    made: Vec<Kept>,
    /// A rank is gone, and nothing more can be expected. What was begun may still be written to.
    is_stranded: bool,
}

/// What it does between two communicators.
#[derive(Debug)]
enum Stage {
    Between,
    /// A split's ranks say their colours, keys and offers.
    Gathering {
        started: Option<Started>,
        offer: Offer,
        mine: Memory,
        all: Memory,
    },
    /// On a context for these, which may not have this rank among them.
    Agreeing {
        started: Option<Started>,
        members: Vec<usize>,
    },
    /// Everything is freed.
    Over,
}

/// A communicator, and what goes on there.
#[derive(Debug)]
struct Kept {
    /// The first of its contexts.
    context: u32,
    members: Vec<usize>,
    group: Arc<Members>,
    /// Collectives so far.
    sequence: u32,
    uses: Vec<Use>,
    /// Whether it may still be made others from.
    is_wanted: bool,
}

/// A message or a collective on it.
#[derive(Debug)]
struct Use {
    what: &'static str,
    started: Option<Started>,
    input: Memory,
    output: Memory,
    expected: Vec<u8>,
}

/// What a rank lives with.
pub(crate) struct World<'a, T: Transport> {
    /// The rank.
    pub(crate) rank: usize,
    /// Its runtime.
    pub(crate) runtime: &'a mut Runtime<T>,
    /// Its numbers.
    pub(crate) contexts: &'a Contexts,
    /// What it does.
    pub(crate) program: &'a Program,
    /// What it comes to.
    pub(crate) tally: &'a mut Tally,
}

/// Why a life does not go on.
pub(crate) enum End {
    /// Somebody is gone.
    Fault(String),
    /// It must not be.
    Wrong(String),
}

/// Of something started, the outcome if it is over.
fn ended<T: Transport>(
    started: &mut Option<Started>,
    runtime: &mut Runtime<T>,
) -> Result<Option<Outcome>, End> {
    let outcome = match started.take() {
        Some(Started::Done(outcome)) => outcome,
        Some(Started::Pending(operation)) => match runtime.take(operation) {
            Some(outcome) => outcome,
            None => {
                *started = Some(Started::Pending(operation));
                return Ok(None);
            }
        },
        None => return Ok(None),
    };
    match outcome {
        Ok(_) => Ok(Some(outcome)),
        Err(Trouble::Engine(Failure::Fault(fault))) => Err(End::Fault(fault.to_string())),
        Err(trouble) => Err(End::Wrong(format!("{trouble:?}"))),
    }
}

impl Life {
    /// A rank's part of family `index` of a program.
    pub(crate) fn new(index: usize, program: &Program) -> Life {
        let base =
            Kept::new(FIRST_CONTEXT + index as u32, program.groups[program.families[index].group].clone());
        Life { index, round: 0, stage: Stage::Between, base, made: Vec::new(), is_stranded: false }
    }

    /// Which family.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether nothing more comes of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_stranded || matches!(self.stage, Stage::Over)
    }

    /// One move. Says whether anything happened.
    pub(crate) fn step<T: Transport>(&mut self, world: &mut World<'_, T>) -> Result<bool, End> {
        if self.is_over() {
            return Ok(false);
        }
        let stepped = self.use_and_free(world).and_then(|moved| Ok(self.go_on(world)? || moved));
        if let Err(End::Fault(_)) = stepped {
            self.is_stranded = true;
        }
        stepped
    }

    /// Sees to what goes on, and frees what nobody wants any more.
    fn use_and_free<T: Transport>(&mut self, world: &mut World<'_, T>) -> Result<bool, End> {
        let mut moved = false;
        for kept in &mut self.made {
            let mut at = 0;
            while at < kept.uses.len() {
                if ended(&mut kept.uses[at].started, world.runtime)?.is_none() {
                    at += 1;
                    continue;
                }
                let done = kept.uses.swap_remove(at);
                moved = true;
                // Whoever still reads it reads this.
                done.input.buf().fill_with(SPENT);
                if done.output.bytes() != done.expected {
                    let (rank, index, context) = (world.rank, self.index, kept.context);
                    let why = format!(
                        "rank {rank}: wrong bytes of {} in family {index}, context {context}",
                        done.what
                    );
                    return Err(End::Wrong(why));
                }
            }
        }
        let before = self.made.len();
        self.made.retain(|kept| {
            let stays = kept.is_wanted || !kept.uses.is_empty();
            if !stays {
                world.contexts.release(kept.context - MADE_CONTEXT);
            }
            stays
        });
        Ok(moved || self.made.len() < before)
    }

    fn go_on<T: Transport>(&mut self, world: &mut World<'_, T>) -> Result<bool, End> {
        match &mut self.stage {
            Stage::Over => Ok(false),
            Stage::Between => Ok(self.begin_round(world)),
            Stage::Gathering { started, all, .. } => {
                if ended(started, world.runtime)?.is_none() {
                    return Ok(false);
                }
                let said = words(all);
                self.agree_on_part(&said, world);
                Ok(true)
            }
            Stage::Agreeing { started, members } => {
                let Some(outcome) = ended(started, world.runtime)? else { return Ok(false) };
                let members = std::mem::take(members);
                let agreed = outcome.map_or(0, |envelope| envelope.context.0);
                self.made(agreed, members, world);
                Ok(true)
            }
        }
    }

    /// The random numbers of this round, the same on all ranks.
    fn draw(&self, program: &Program) -> Rng {
        Rng::new(program.seed).child(ROUND << 32 | (self.index as u64) << 16 | self.round)
    }

    /// Whether the communicator of this round is made out of the first.
    fn is_from_base(&self, program: &Program) -> bool {
        self.round == 0 || self.draw(program).child(0).one_in(3)
    }

    fn parent(&mut self, program: &Program) -> Option<&mut Kept> {
        match self.is_from_base(program) {
            true => Some(&mut self.base),
            false => self.made.iter_mut().find(|kept| kept.is_wanted),
        }
    }

    fn begin_round<T: Transport>(&mut self, world: &mut World<'_, T>) -> bool {
        let Family { rounds, company, .. } = world.program.families[self.index];
        if self.round == rounds {
            self.made.iter_mut().for_each(|kept| kept.is_wanted = false);
            if self.made.is_empty() {
                self.stage = Stage::Over;
            }
            return self.made.is_empty();
        }
        if self.made.len() == KEPT_MAX {
            return false;
        }
        let (rank, mut draw) = (world.rank, self.draw(world.program).child(1));
        let is_from_base = self.is_from_base(world.program);
        let Some(parent) = self.parent(world.program) else {
            // It is made out of one that this rank is not in.
            self.round += 1;
            return true;
        };
        let ways = if is_from_base { 4 } else { 3 };
        self.stage = match draw.below(ways) {
            0 | 1 => {
                let members = parent.members.clone();
                let offer = world.contexts.offer(company);
                Stage::Agreeing {
                    started: Some(parent.agree(rank, offer, None, world.runtime, &mut draw)),
                    members,
                }
            }
            2 => {
                let mut draw = draw.child(parent.members[0] as u64);
                let mut members = parent.members.clone();
                draw.shuffle(&mut members);
                members.truncate(1 + draw.index(members.len()));
                let offer = world.contexts.offer(company);
                Stage::Agreeing {
                    started: Some(parent.agree(rank, offer, None, world.runtime, &mut draw)),
                    members,
                }
            }
            _ => {
                let offer = world.contexts.offer(company);
                let [serial, has_company] = offer.words();
                let words = [draw.child(rank as u64).below(3), rank as u64, serial, has_company];
                let mine = Memory::of(&words.map(u64::to_le_bytes).concat());
                let all = Memory::zeroed(32 * parent.members.len());
                let started = parent.gather(rank, (&mine, &all), world.runtime, &mut draw);
                Stage::Gathering { started: Some(started), offer, mine, all }
            }
        };
        true
    }

    /// Behind the first half of a split: what all ranks have said are a colour, a key, and an offer.
    fn agree_on_part<T: Transport>(&mut self, said: &[u64], world: &mut World<'_, T>) {
        let mut draw = self.draw(world.program).child(2);
        let Stage::Gathering { offer, mine, .. } = std::mem::replace(&mut self.stage, Stage::Between) else {
            unreachable!("a split has gathered")
        };
        mine.buf().fill_with(SPENT);
        let said = || said.chunks_exact(4);
        let most = said().fold([0; 2], |most: [u64; 2], said| [most[0].max(said[2]), most[1].max(said[3])]);
        let mine = said().find(|said| said[1] == world.rank as u64).map_or(2, |said| said[0]);
        // Colour 2 is none.
        let members =
            said().filter(|said| said[0] == mine && mine < 2).map(|said| said[1] as usize).collect();
        let started = self.base.agree(world.rank, offer, Some(most), world.runtime, &mut draw);
        self.stage = Stage::Agreeing { started: Some(started), members };
    }

    /// All ranks have agreed.
    fn made<T: Transport>(&mut self, agreed: u32, members: Vec<usize>, world: &mut World<'_, T>) {
        self.made.iter_mut().for_each(|kept| kept.is_wanted = false);
        if members.contains(&world.rank) {
            let mut kept = Kept::new(MADE_CONTEXT + agreed, members);
            kept.begin_uses((self.index as u64) << 16 | self.round, world);
            self.made.push(kept);
            world.tally.communicators += 1;
        } else {
            world.contexts.release(agreed);
        }
        self.round += 1;
        self.stage = Stage::Between;
    }
}

impl Kept {
    fn new(context: u32, members: Vec<usize>) -> Kept {
        let peers = members.iter().map(|&member| Peer(member as u32)).collect();
        Kept {
            context,
            group: Arc::new(Members::listed(peers)),
            members,
            sequence: 0,
            uses: Vec::new(),
            is_wanted: true,
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence - 1
    }

    fn plan(&self, rank: usize, collective: Collective, shape: Shape, draw: &mut Rng) -> Arc<Plan> {
        let shape = Shape { collective, ranks: self.members.len() as u32, ..shape };
        let ways: Vec<Algorithm> =
            Algorithm::all_for(collective).iter().copied().filter(|way| way.applies(&shape)).collect();
        let me = self.group.rank(Peer(rank as u32)).expect("a rank lives with the groups it is in");
        Arc::new(Plan::new(shape, generate(*draw.pick(&ways), &shape, me)))
    }

    fn agree<T: Transport>(
        &mut self,
        rank: usize,
        offer: Offer,
        offered: Option<[u64; 2]>,
        runtime: &mut Runtime<T>,
        draw: &mut Rng,
    ) -> Started {
        let shape = agreement_shape(self.members.len() as u32);
        let (plan, sequence) = (self.plan(rank, shape.collective, shape, draw), self.next_sequence());
        let context = Context(self.context + 1);
        let maker = u64::from(context.0) << 32 | u64::from(sequence);
        runtime.agree(Agree { plan: &plan, group: &self.group, context, sequence, maker, offer, offered })
    }

    fn gather<T: Transport>(
        &mut self,
        rank: usize,
        (mine, all): (&Memory, &Memory),
        runtime: &mut Runtime<T>,
        draw: &mut Rng,
    ) -> Started {
        let shape = Shape { count: 4, ..agreement_shape(0) };
        let (plan, sequence) = (self.plan(rank, Collective::Allgather, shape, draw), self.next_sequence());
        let (context, input, output) = (Context(self.context + 1), mine.buf(), all.buf());
        runtime.collective(Call {
            plan: &plan,
            group: &self.group,
            context,
            sequence,
            input,
            output,
            reducer: None,
        })
    }

    /// A message to the next rank, one from the rank before, and a sum of all, in any order and all at once.
    fn begin_uses<T: Transport>(&mut self, name: u64, world: &mut World<'_, T>) {
        let mut draw = Rng::new(world.program.seed).child(CONTENT << 32 | name).child(self.members[0] as u64);
        let bytes = *draw.pick(&[8, 100, 2_000, 9_000]);
        let anybody = draw.one_in(2) && world.program.victim.is_none();
        let content = |member: usize, bytes: usize| draw.child(member as u64).bytes(bytes);
        let me = self.group.rank(Peer(world.rank as u32)).expect("a member").index();
        let ranks = self.members.len();
        let [next, before] = [(me + 1) % ranks, (me + ranks - 1) % ranks];
        let peer = |rank| self.group.peer(Rank(rank as u32));
        let (context, tag) = (Context(self.context), Tag(0));
        let nothing = || Memory::zeroed(0);

        let output = Memory::zeroed(bytes);
        let source = (!anybody).then(|| peer(before));
        let started = Some(world.runtime.recv(source, context, Some(tag), output.buf()));
        let expected = content(self.members[before], bytes);
        let receive = Use { what: "a message", started, input: nothing(), output, expected };

        let input = Memory::of(&content(self.members[me], bytes));
        let started = Some(world.runtime.send(peer(next), context, tag, input.buf()));
        let send = Use { what: "a send", started, input, output: nothing(), expected: Vec::new() };

        let count = *draw.clone().pick(&[1, 24, 1_000]);
        let of = |rank: usize| content(ranks + self.members[rank], count);
        let (input, output) = (Memory::of(&of(me)), Memory::zeroed(count));
        let shape = Shape { count: count as u64, element_bytes: 1, ..agreement_shape(0) };
        let plan = self.plan(world.rank, Collective::Allreduce, shape, &mut draw.clone());
        let reducer = Op::<u8>::sum().reducer();
        let expected = (1..ranks).fold(of(0), |sum, rank| oracle::combine(Element::ByteSum, &sum, &of(rank)));
        let started = Some(world.runtime.collective(Call {
            plan: &plan,
            group: &self.group,
            context: Context(self.context + 1),
            sequence: 0,
            input: input.buf(),
            output: output.buf(),
            reducer: Some(&reducer),
        }));
        let sum = Use { what: "a sum", started, input, output, expected };

        self.sequence = 1;
        self.uses = vec![receive, send, sum];
        world.tally.messages += 1;
        world.tally.collectives += u64::from(me == 0);
    }
}

/// What lies there.
fn words(memory: &Memory) -> Vec<u64> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a word has 8 bytes"));
    memory.bytes().chunks_exact(8).map(word).collect()
}
