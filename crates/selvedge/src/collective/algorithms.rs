//! Which algorithm does a collective: ours by price, one that was asked for by name, or the program's own.

use std::fmt;
use std::sync::Arc;

use selvedge_coll::{Algorithm, Choices, Rank, Schedule, Shape, generate, select, verify};
use selvedge_transport::Machine;

use crate::collective::compare::Called;
use crate::collective::plan::Plan;
use crate::communicator::Communicator;
use crate::error::{Misuse, Refused, Result};

/// A way to do collectives that is the program's own: a name, and a function from what is asked and who asks to what this rank
/// does about it.
///
/// The function is pure: same shape, same rank, same schedule, on every rank. It gives `None` for what it does not do,
/// and that is done as if it were not there. What it gives is proved for all ranks before it runs
/// ([`schedule::verify`](crate::schedule::verify)), so that a mistake is an error with the rank and the step, and not
/// memory written by two at once. Cost, once for each shape: the schedules of all ranks, generated and proved.
///
/// ```
/// use selvedge::schedule::{Action, Collective, Schedule, Slice, Space};
/// use selvedge::{Op, OwnAlgorithm};
///
/// // Two ranks: each sends what it has, and adds what comes.
/// let swap = OwnAlgorithm::new("swap", |shape, rank| {
///     let is_mine = shape.collective == Collective::Allreduce && shape.ranks == 2 && shape.commutative;
///     let (own, sum) = (Slice::new(Space::Input, 0, shape.bytes()), Slice::new(Space::Output, 0, shape.bytes()));
///     is_mine.then(|| {
///         let other = selvedge::schedule::Rank(1 - rank.0);
///         let mut steps = Schedule::new(0);
///         steps.push(Action::Send { to: other, from: own, label: 0 }, &[]);
///         let here = steps.push(Action::Recv { from: other, into: sum, label: 0 }, &[]);
///         steps.push(Action::Reduce { from: own, into: sum, side: selvedge::schedule::Side::Left }, &[here]);
///         steps
///     })
/// });
/// selvedge::local::run(2, |world| {
///     let world = world.with_own_algorithm(swap.clone());
///     let mut sum = [0];
///     world.allreduce(&[world.rank() + 1], &mut sum, &Op::sum()).unwrap();
///     assert_eq!(sum, [3]);
/// });
/// ```
#[derive(Clone)]
pub struct OwnAlgorithm {
    name: Arc<str>,
    generate: Arc<Generate>,
}

type Generate = dyn Fn(&Shape, Rank) -> Option<Schedule> + Send + Sync;

impl fmt::Debug for OwnAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnAlgorithm({})", self.name)
    }
}

impl OwnAlgorithm {
    /// By this name it is spoken of in errors.
    pub fn new(
        name: &str,
        generate: impl Fn(&Shape, Rank) -> Option<Schedule> + Send + Sync + 'static,
    ) -> OwnAlgorithm {
        OwnAlgorithm { name: name.into(), generate: Arc::new(generate) }
    }

    /// What `me` does about `shape`, after the proof for everybody; `None` where it does not do it on any rank.
    fn schedule(&self, shape: &Shape, me: Rank) -> Result<Option<Schedule>, Misuse> {
        let mut all: Vec<Option<Schedule>> =
            (0..shape.ranks).map(|rank| (self.generate)(shape, Rank(rank))).collect();
        if all.iter().all(Option::is_none) {
            return Ok(None);
        }
        let schedules: Vec<Schedule> =
            all.iter_mut().map(|schedule| schedule.take().unwrap_or_default()).collect();
        let proof = verify(shape, &schedules);
        proof.map_err(|flaw| Misuse::FlawedAlgorithm {
            name: self.name.to_string(),
            flaw: flaw.to_string(),
        })?;
        Ok(schedules.into_iter().nth(me.index()))
    }
}

/// What is asked of the collectives of a communicator besides what their calls say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The last one comes first.
    own: Vec<OwnAlgorithm>,
    choices: Choices,
    /// Ranks compare what they call.
    pub(crate) is_checked: bool,
}

impl Wanted {
    /// What the environment says.
    pub(crate) fn new(choices: Choices, is_checked: bool) -> Wanted {
        Wanted { own: Vec::new(), choices, is_checked }
    }

    /// What `me` does about `shape`.
    pub(crate) fn schedule(&self, shape: &Shape, machine: &Machine, me: Rank) -> Result<Schedule, Misuse> {
        for own in self.own.iter().rev() {
            if let Some(schedule) = own.schedule(shape, me)? {
                return Ok(schedule);
            }
        }
        let algorithm = self.algorithm(shape, machine);
        match algorithm.fits(shape) {
            Ok(()) => Ok(generate(algorithm, shape, me)),
            Err(why) => {
                Err(Misuse::UnfitAlgorithm { algorithm: algorithm.to_string(), why: why.to_string() })
            }
        }
    }

    fn algorithm(&self, shape: &Shape, machine: &Machine) -> Algorithm {
        self.choices.find(shape).unwrap_or_else(|| select(shape, machine))
    }

    /// Who does it, in a word.
    pub(crate) fn name(&self, shape: &Shape, machine: &Machine) -> String {
        let own = self.own.iter().rev().find(|own| (own.generate)(shape, Rank(0)).is_some());
        own.map_or_else(|| self.algorithm(shape, machine).to_string(), |own| own.name.to_string())
    }
}

/// Collectives are done by the algorithm that should be fastest by its price on this machine
/// ([`schedule::explain`](crate::schedule::explain)). That is so unless somebody asks for another: for the whole job
/// `SELVEDGE_ALGORITHM` or `mpirun --algorithm`, for some calls the methods here. They give a communicator that is this one
/// (same ranks, same messages, same count of collectives) with another mind about algorithms, in which what is made
/// from it takes after it. Keep it where it is used again: it keeps its schedules. All ranks ask for the same.
impl Communicator {
    /// This communicator with the algorithms that are named, for messages of the sizes that are named; for all others as
    /// before.
    ///
    /// ```
    /// use selvedge::{Algorithm, Choices, Op};
    /// selvedge::local::run(3, |world| {
    ///     let mut sum = [0];
    ///     world.with_algorithms(Algorithm::AllreduceRing).allreduce(&[1], &mut sum, &Op::sum()).unwrap();
    ///     let choices: Choices = "allreduce/ring@64KiB..,broadcast/flat".parse().unwrap();
    ///     let tuned = world.with_algorithms(choices);
    ///     tuned.broadcast(&mut sum, 0).unwrap();
    /// });
    /// ```
    ///
    /// # Errors
    /// Of the collectives: [`Misuse::UnfitAlgorithm`] where the algorithm that is named for a message cannot do what is asked.
    pub fn with_algorithms(&self, choices: impl Into<Choices>) -> Communicator {
        self.of_another_mind(|wanted| wanted.choices = choices.into())
    }

    /// This communicator with an algorithm of the program's own, which comes before all others.
    ///
    /// # Errors
    /// Of the collectives: [`Misuse::FlawedAlgorithm`] where its schedules do not do what is asked.
    pub fn with_own_algorithm(&self, own: OwnAlgorithm) -> Communicator {
        self.of_another_mind(|wanted| wanted.own.push(own))
    }

    /// This communicator, whose ranks tell each other what they are about to call before each blocking collective and each
    /// `*_init` of a persistent one: which, by which algorithm, of what count, size and type, with which root and operation. Those
    /// that differ get [`Misuse::DifferentCalls`] and do not wait for each other. For looking for mistakes: it costs an allgather of 760
    /// bytes a rank. Operations of the program's own are not told from each other; elements of [`Plain`](crate::Plain) are like any
    /// other of their size. For the whole job: `SELVEDGE_CHECK=1`, or `mpirun --check`. Nonblocking collectives are not compared: their
    /// calls must not wait for other ranks, and a comparison that is known only when the collective has begun comes too late to keep
    /// ranks from waiting for each other. Where one is suspected, make it blocking while looking. What messages between two ranks are made
    /// of is compared in every form, nonblocking and persistent too ([`init`](crate::init), `SELVEDGE_CHECK`).
    ///
    /// ```
    /// use selvedge::{Error, Misuse};
    /// selvedge::local::run(2, |world| {
    ///     let world = world.checked();
    ///     let outcome = if world.rank() == 0 { world.barrier() } else { world.broadcast(&mut [0], 0) };
    ///     assert!(matches!(outcome, Err(Error::Misuse(Misuse::DifferentCalls { .. }))));
    /// });
    /// ```
    pub fn checked(&self) -> Communicator {
        self.of_another_mind(|wanted| wanted.is_checked = true)
    }

    fn of_another_mind(&self, change: impl FnOnce(&mut Wanted)) -> Communicator {
        let mut wanted = self.plans.wanted().clone();
        change(&mut wanted);
        Communicator::new(self.runtime.clone(), Arc::clone(&self.core), wanted)
    }

    /// The plan for a call that may wait for the other ranks.
    #[cold]
    pub(crate) fn plan(&self, call: Called<'_>) -> Result<Arc<Plan>> {
        self.compare_calls(call)?;
        self.plans.find(call.shape()).refused_by(self)
    }
}
