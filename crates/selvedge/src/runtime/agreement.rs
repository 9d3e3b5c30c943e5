//! Agreements on the context of a new communicator, as operations: reductions, one behind the other, that go on whenever the
//! runtime does, whatever its rank waits for.

use std::sync::Arc;

use selvedge_coll::{Collective, Shape};
use selvedge_engine::{Context, Envelope, Mutant, Tag};
use selvedge_transport::{Buf, Transport};

use crate::collective::executor::Running;
use crate::collective::op::{Op, Reducer};
use crate::collective::plan::Plan;
use crate::communicator::contexts::{Agreement, Next, Offer};
use crate::communicator::members::Members;
use crate::datatype::memory::Scratch;
use crate::runtime::operations::{Operation, Owner};
use crate::runtime::{Call, End, Outcome, Runtime, Started, run_word};

/// Bytes that are reduced in each round: two words of 64 bits.
const ROUND_BYTES: usize = 16;

/// All rounds of an agreement have one sequence number, and the labels of their steps are so far apart. After so many rounds they
/// come again, which no rank is behind: each waits for all others in each round.
const LABELS_EACH: u32 = 1 << 20;
const ROUNDS_APART: u32 = 1 << 12;

/// What ranks agree by.
#[derive(Debug)]
pub struct Agree<'a> {
    /// Of a shape that [`agreement_shape`] gives.
    pub plan: &'a Arc<Plan>,
    /// Which ranks.
    pub group: &'a Arc<Members>,
    /// The context of their collectives.
    pub context: Context,
    /// Number of this collective there.
    pub sequence: u32,
    /// A number that tells this agreement from others that one of its ranks may have under way; the same on all ranks.
    pub maker: u64,
    /// What this rank brings.
    pub offer: Offer,
    /// The largest of all [`Offer::words`], word by word, where that is known already.
    pub offered: Option<[u64; 2]>,
}

/// What so many ranks do to agree, again and again: a reduction of two words to all of them.
pub fn agreement_shape(ranks: u32) -> Shape {
    Shape { collective: Collective::Allreduce, ranks, count: 2, element_bytes: 8, commutative: true }
}

/// Agreements under way. Bound: what the caller has in flight.
#[derive(Debug, Default)]
pub(super) struct Agreements {
    places: Vec<Option<Box<Talk>>>,
    free: Vec<u32>,
}

/// One of them, with what it is done by.
#[derive(Debug)]
struct Talk {
    agreement: Agreement,
    plan: Arc<Plan>,
    group: Arc<Members>,
    context: Context,
    sequence: u32,
    reducer: Reducer,
    asked: [u64; 2],
    input: Buf,
    output: Buf,
    /// Where both of these are.
    _memory: Scratch,
    /// Nobody wants the context any more.
    is_disowned: bool,
}

impl Agreements {
    fn add(&mut self, talk: Box<Talk>) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[index as usize] = Some(talk);
        index
    }

    fn get(&mut self, index: u32) -> &mut Talk {
        self.places[index as usize].as_mut().expect("an agreement is there until it is over")
    }

    fn remove(&mut self, index: u32) {
        self.places[index as usize] = None;
        self.free.push(index);
    }
}

impl Talk {
    fn new(call: Agree<'_>) -> Box<Talk> {
        let Agree { plan, group, context, sequence, maker, offer, .. } = call;
        let mut memory = Scratch::default();
        let both = memory.claim(2 * ROUND_BYTES);
        Box::new(Talk {
            asked: offer.words(),
            agreement: Agreement::new(offer, maker),
            plan: Arc::clone(plan),
            group: Arc::clone(group),
            context,
            sequence,
            reducer: Op::<u64>::max().reducer(),
            input: both.slice(0..ROUND_BYTES),
            output: both.slice(ROUND_BYTES..2 * ROUND_BYTES),
            _memory: memory,
            is_disowned: false,
        })
    }

    /// The round that comes next, and the first label of its steps.
    fn round(&self) -> (Call<'_>, u32) {
        let [first, second] = self.asked.map(u64::to_ne_bytes);
        self.input.slice(0..8).fill_from(&first);
        self.input.slice(8..ROUND_BYTES).fill_from(&second);
        let Talk { plan, group, context, sequence, reducer, input, output, .. } = self;
        let (context, sequence, reducer) = (*context, *sequence, Some(reducer));
        let call = Call { plan, group, context, sequence, input: *input, output: *output, reducer };
        (call, self.agreement.rounds() % ROUNDS_APART * LABELS_EACH)
    }

    /// What came of a round.
    fn most(&self) -> [u64; 2] {
        [0, 8].map(|at| {
            let mut word = [0; 8];
            self.output.slice(at..at + 8).copy_to(&mut word);
            u64::from_ne_bytes(word)
        })
    }

    /// The context, when all ranks agree; what is asked next is noted otherwise.
    fn heard(&mut self, most: [u64; 2], makes: impl Fn(Mutant) -> bool) -> Option<u32> {
        let most = match self.agreement.asks_for_number() {
            _ if makes(Mutant::NumberOfOneself) => self.asked,
            false if makes(Mutant::NumberInUse) => [0; 2],
            _ => most,
        };
        match self.agreement.heard(most) {
            Next::Agreed(context) => return Some(context),
            Next::Ask(words) => self.asked = words,
        }
        None
    }
}

impl<T: Transport> Runtime<T> {
    /// Begins to agree with the other ranks of a communicator on the context of a new one. Its outcome is an envelope with that
    /// context, the first of those of the new communicator; each rank gives it back in the end
    /// ([`Contexts::release`](crate::runtime::Contexts::release)).
    pub fn agree(&mut self, call: Agree<'_>) -> Started {
        let (operation, offered) = (self.operations.next(), call.offered);
        let index = self.agreements.add(Talk::new(call));
        match self.talk(index, operation, offered) {
            Some(outcome) => {
                self.agreements.remove(index);
                Started::Done(outcome)
            }
            None => Started::Pending(self.operations.enter(operation, Owner::Agreement(index))),
        }
    }

    /// Nobody wants the context of an agreement any more. It goes on, because the others count on this rank, and gives back what
    /// comes of it; its outcome still has to be taken.
    pub(crate) fn disown(&mut self, operation: Operation) {
        if let Some(Owner::Agreement(index)) = self.operations.owner(operation) {
            self.agreements.get(index).is_disowned = true;
        }
    }

    /// A round of an agreement has ended.
    #[cold]
    pub(super) fn round_ended(&mut self, index: u32, operation: u32, end: End) {
        let ended = match end.outcome {
            Ok(_) => {
                let most = self.agreements.get(index).most();
                self.talk(index, operation, Some(most))
            }
            Err(trouble) => Some(Err(trouble)),
        };
        let Some(outcome) = ended else { return };
        let talk = self.agreements.get(index);
        if let (true, Ok(Envelope { context, .. })) = (talk.is_disowned, &outcome) {
            talk.agreement.give_back(context.0);
        }
        self.agreements.remove(index);
        self.operations.conclude(operation, End::of(outcome));
    }

    /// Rounds, until one has to wait for other ranks; the outcome, if none has. `known`: what came of the round before.
    fn talk(&mut self, index: u32, operation: u32, mut known: Option<[u64; 2]>) -> Option<Outcome> {
        let me = self.engine.transport().me();
        loop {
            let run = self.next_run();
            let talk = self.agreements.get(index);
            if let Some(most) = known.take()
                && let Some(context) = talk.heard(most, |mutant| self.engine.makes(mutant))
            {
                self.free_runs.push(run);
                return Some(Ok(Envelope { source: me, context: Context(context), tag: Tag(0), bytes: 0 }));
            }
            let (call, first_label) = talk.round();
            let running = &mut self.runs[run as usize];
            running.start(call, first_label, operation, run_word(run));
            if let Running::Yes = running.advance(&mut self.engine) {
                return None;
            }
            let End { outcome, .. } = running.end(me);
            self.free_runs.push(run);
            match outcome {
                Ok(_) => known = Some(talk.most()),
                Err(trouble) => return Some(Err(trouble)),
            }
        }
    }
}
