//! A schedule made ready to run: the same graph with its edges turned round.

use rustc_hash::FxHashMap;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

use selvedge_coll::{Rank, Schedule, Shape, StepIndex};
use selvedge_transport::Machine;

use crate::collective::algorithms::Wanted;
use crate::error::{Misuse, Result};
use crate::runtime::agreement::agreement_shape;

/// A schedule with, for each step, how many steps it waits for and which steps wait for it. Immutable; one plan can
/// run many times at once.
#[derive(Debug)]
pub struct Plan {
    shape: Shape,
    schedule: Schedule,
    /// For each step, the number of steps that must be complete before it.
    blockers: Vec<u32>,
    /// `successors[first[i]..first[i + 1]]` wait for step `i`.
    first: Vec<u32>,
    successors: Vec<StepIndex>,
    /// Steps that wait for nothing.
    roots: Vec<StepIndex>,
}

impl Plan {
    /// A schedule for `shape`. Turns the edges round; cost: linear in steps and edges.
    pub fn new(shape: Shape, schedule: Schedule) -> Plan {
        let steps = schedule.len();
        let mut blockers = vec![0; steps];
        let mut first = vec![0; steps + 1];
        for (step, _, after) in schedule.iter() {
            blockers[step as usize] = after.len() as u32;
            for &earlier in after {
                first[earlier as usize + 1] += 1;
            }
        }
        for i in 0..steps {
            first[i + 1] += first[i];
        }
        let mut next = first.clone();
        let mut successors = vec![0; first[steps] as usize];
        for (step, _, after) in schedule.iter() {
            for &earlier in after {
                successors[next[earlier as usize] as usize] = step;
                next[earlier as usize] += 1;
            }
        }
        let roots = (0..steps as StepIndex).filter(|&step| blockers[step as usize] == 0).collect();
        Plan { shape, schedule, blockers, first, successors, roots }
    }

    /// What it does.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The schedule itself.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// How many steps each step waits for.
    pub(crate) fn blockers(&self) -> &[u32] {
        &self.blockers
    }

    /// The steps that wait for `step`.
    #[inline]
    pub(crate) fn successors(&self, step: StepIndex) -> &[StepIndex] {
        let step = step as usize;
        &self.successors[self.first[step] as usize..self.first[step + 1] as usize]
    }

    /// The steps to begin with.
    pub(crate) fn roots(&self) -> &[StepIndex] {
        &self.roots
    }
}

/// Plans a communicator keeps: bound of [`PLANS_MAX`], emptied when full, because a program that asks for more shapes
/// than that gains nothing from keeping them.
const PLANS_MAX: usize = 128;

/// The plans of one rank in one communicator, made on first use.
#[derive(Debug)]
pub(crate) struct Plans {
    me: Rank,
    machine: Machine,
    wanted: Wanted,
    /// This rank's call is just being compared, by a call of its own.
    is_comparing: Cell<bool>,
    last: RefCell<Option<(Shape, Arc<Plan>)>>,
    known: RefCell<FxHashMap<Shape, Arc<Plan>>>,
    /// By which the ranks agree on new communicators.
    agreement: OnceCell<Arc<Plan>>,
}

impl Plans {
    pub(crate) fn new(me: Rank, machine: Machine, wanted: Wanted) -> Plans {
        Plans {
            me,
            machine,
            wanted,
            is_comparing: Cell::new(false),
            last: RefCell::new(None),
            known: RefCell::default(),
            agreement: OnceCell::new(),
        }
    }

    /// What is asked of all of them.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What communication costs here.
    pub(crate) fn machine(&self) -> Machine {
        self.machine
    }

    /// Shows `f` the plan for `shape`: a comparison when it is the same as last time, else the one that `find` gives, which is
    /// kept. Lent and not given, since to give it is to count it. While ranks compare their calls none is kept here, so that
    /// each call comes by `find`.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        shape: &Shape,
        find: impl FnOnce() -> Result<Arc<Plan>>,
        f: impl FnOnce(&Arc<Plan>) -> Result<R>,
    ) -> Result<R> {
        let mut last = self.last.borrow_mut();
        if !matches!(&*last, Some((known, _)) if known == shape) {
            drop(last);
            let plan = find()?;
            last = self.last.borrow_mut();
            *last = Some((self.key(shape), plan));
        }
        let Some((_, plan)) = &*last else { unreachable!("it was put there") };
        f(plan)
    }

    /// What a plan is kept under.
    #[cold]
    fn key(&self, shape: &Shape) -> Shape {
        // Nobody asks for a collective of no ranks.
        Shape { ranks: if self.wanted.is_checked { 0 } else { shape.ranks }, ..*shape }
    }

    /// Says whether calls are to be compared now; until [`Plans::compared`] they are not.
    pub(crate) fn begin_comparing(&self) -> bool {
        self.wanted.is_checked && !self.is_comparing.replace(true)
    }

    /// The comparison is over.
    pub(crate) fn compared(&self) {
        self.is_comparing.set(false);
    }

    /// The plan by which so many ranks agree on a new communicator. One of the library's own, whatever is asked for: it runs
    /// several times at once, with labels that it gives apart.
    pub(crate) fn agreement(&self, ranks: u32) -> &Arc<Plan> {
        self.agreement.get_or_init(|| {
            let shape = agreement_shape(ranks);
            let schedule = Wanted::default().schedule(&shape, &self.machine, self.me);
            Arc::new(Plan::new(shape, schedule.expect("there is an algorithm for every shape")))
        })
    }

    /// The plan for `shape`: a look-up when it is known, else chosen, generated and kept.
    #[cold]
    pub(crate) fn find(&self, shape: &Shape) -> Result<Arc<Plan>, Misuse> {
        let mut known = self.known.borrow_mut();
        if let Some(plan) = known.get(shape) {
            return Ok(Arc::clone(plan));
        }
        let schedule = self.wanted.schedule(shape, &self.machine, self.me)?;
        if known.len() == PLANS_MAX {
            known.clear();
        }
        let plan = Arc::new(Plan::new(*shape, schedule));
        known.insert(*shape, Arc::clone(&plan));
        Ok(plan)
    }
}
