//! Who waits for whom, and what follows.
//!
//! A rank *may go on* if it waits for nothing, or if all it needs may go on: all its partners, or one of them where any
//! will do. Ranks that may not, and yet have not left, wait for each other in a circle: a deadlock. Those that the others
//! wait for, directly or not, and that wait for nothing themselves hold them up.
//!
//! ```text
//!   may go on := those that wait for nothing and have not left
//!   repeat    := add whoever has all it needs in it
//!   from each rank outside it, walk to the first partner outside it, until one comes again: a circle
//!   from each rank without a need, walk backwards: those wait for it
//! ```
//! Each arrow is looked at once for what may go on, and once for each culprit. A receive from anybody, and a fence, have
//! one arrow to a node that stands for all, so their number is bounded by what the ranks wrote down.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use selvedge_boot::status::{Status, Wait, What};
use serde::Serialize;

use super::Row;

/// Most ranks that are named as holding others up, and most circles.
const NAMED_MAX: usize = 8;
/// Most of which it is counted how many wait for them, each with a walk of its own.
const COUNTED_MAX: usize = 64;

/// What keeps a job from going on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Circles of ranks that wait each for the next, and the last for the first.
    pub deadlocks: Vec<Vec<u32>>,
    /// Of those who wait with such a circle, who is in another collective than most of them.
    pub outsiders: Vec<Outsider>,
    /// Who waits for nothing and is waited for; most waiters first.
    pub culprits: Vec<Culprit>,
    /// More of these.
    pub more_culprits: u32,
    /// Ranks that wait.
    pub waiting: u32,
}

/// A rank that holds others up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// Which.
    pub rank: u32,
    /// How many ranks wait for it, directly or not.
    pub waiting: u32,
}

/// A rank that is not in the collective that most others are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outsider {
    /// Which.
    pub rank: u32,
    /// One of the many.
    pub like: u32,
    /// How many they are.
    pub many: u32,
}

/// What a rank needs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Need {
    /// It waits for nothing.
    Nothing,
    /// It will answer nobody any more.
    Gone,
    /// All of these.
    All(Vec<u32>),
    /// One of these.
    Any(Vec<u32>),
    /// A message, from whomever.
    Anybody,
    /// All ranks that are in no fence.
    Fence,
}

/// By rank, what it needs.
#[derive(Debug)]
pub(super) struct Graph {
    needs: Vec<Need>,
    /// By rank, who needs it by name.
    wanted_by: Vec<Vec<u32>>,
}

impl Graph {
    pub(super) fn of(rows: &[Row]) -> Graph {
        let size = rows.len();
        let mut needs: Vec<Need> = (0..).zip(rows).map(|(rank, row)| need(rank, row, size)).collect();
        let dead: Vec<u32> =
            (0..).zip(rows).filter(|(_, row)| row.has_died()).map(|(rank, _)| rank).collect();
        let told = |(need, row): &(&mut Need, &Row)| **need == Need::Nothing && row.is_just_back();
        if !dead.is_empty() {
            needs.iter_mut().zip(rows).filter(told).for_each(|(need, _)| *need = Need::All(dead.clone()));
        }
        let mut wanted_by = vec![Vec::new(); size];
        for (rank, need) in (0..).zip(&needs) {
            if let Need::All(partners) | Need::Any(partners) = need {
                partners.iter().for_each(|partner| wanted_by[*partner as usize].push(rank));
            }
        }
        Graph { needs, wanted_by }
    }

    pub(super) fn verdict(&self, rows: &[Row]) -> Verdict {
        let waits = |need: &&Need| !matches!(need, Need::Nothing | Need::Gone);
        let waiting = self.needs.iter().filter(waits).count();
        let (culprits, more_culprits) = self.culprits();
        let deadlocks = self.circles(rows);
        let outsiders = self.outsiders(rows, &deadlocks);
        Verdict { deadlocks, outsiders, culprits, more_culprits, waiting: count(waiting) }
    }

    /// By rank, whether it may go on.
    fn may_go_on(&self) -> Vec<bool> {
        let mut may = vec![false; self.needs.len()];
        let mut missing: Vec<usize> = self
            .needs
            .iter()
            .map(|need| if let Need::All(partners) = need { partners.len() } else { 1 })
            .collect();
        let outside = self.needs.iter().filter(|need| **need != Need::Fence).count();
        let mut outside_going = 0;
        let everybody = || 0..count(self.needs.len());
        let mut queue: Vec<u32> = everybody().filter(|rank| *self.need(*rank) == Need::Nothing).collect();
        queue.iter().for_each(|rank| may[*rank as usize] = true);
        let mut anybody_served = false;
        let mut fence_served = false;
        while let Some(rank) = queue.pop() {
            outside_going += usize::from(*self.need(rank) != Need::Fence);
            let mut served: Vec<u32> = Vec::new();
            for waiter in &self.wanted_by[rank as usize] {
                let left = &mut missing[*waiter as usize];
                *left = left.saturating_sub(1);
                let is_any = matches!(self.need(*waiter), Need::Any(_));
                served.extend((*left == 0 || is_any).then_some(*waiter));
            }
            if !anybody_served {
                anybody_served = true;
                served.extend(everybody().filter(|rank| *self.need(*rank) == Need::Anybody));
            }
            if !fence_served && outside_going == outside {
                fence_served = true;
                served.extend(everybody().filter(|rank| *self.need(*rank) == Need::Fence));
            }
            for waiter in served {
                if !std::mem::replace(&mut may[waiter as usize], true) {
                    queue.push(waiter);
                }
            }
        }
        may
    }

    /// Each circle once, from its lowest rank on.
    fn circles(&self, rows: &[Row]) -> Vec<Vec<u32>> {
        let may = self.may_go_on();
        let is_stuck = |rank: u32| !may[rank as usize] && *self.need(rank) != Need::Gone;
        let stuck: Vec<u32> = (0..count(may.len())).filter(|rank| is_stuck(*rank)).collect();
        let lowest_but = |me: u32, in_fence: bool| {
            let mut others = stuck.iter().copied().filter(|rank| *rank != me);
            others.find(|rank| in_fence || *self.need(*rank) != Need::Fence)
        };
        let next = |rank: u32| match self.need(rank) {
            Need::All(partners) | Need::Any(partners) => {
                // Two steps of one collective are no riddle; a partner that is somewhere else is.
                let stuck = || partners.iter().copied().filter(|partner| is_stuck(*partner));
                stuck().find(|partner| !is_one_call(rows, rank, *partner)).or_else(|| stuck().next())
            }
            Need::Anybody => lowest_but(rank, true),
            Need::Fence => lowest_but(rank, false),
            Need::Nothing | Need::Gone => None,
        };
        let mut seen = vec![None; may.len()];
        let mut circles = Vec::new();
        for start in &stuck {
            let mut path = Vec::new();
            let mut at = Some(*start);
            while let Some(rank) = at.filter(|rank| seen[*rank as usize].is_none()) {
                seen[rank as usize] = Some(*start);
                path.push(rank);
                at = next(rank);
            }
            let again = at.and_then(|rank| path.iter().position(|known| *known == rank));
            let Some(circle) = again.map(|first| &path[first..]) else { continue };
            if circle.len() > 1 && !is_one_call_all(rows, circle) && circles.len() < NAMED_MAX {
                circles.push(circle.to_vec());
            }
        }
        circles.iter_mut().for_each(|circle| {
            let lowest = (0..circle.len()).min_by_key(|at| circle[*at]).unwrap_or(0);
            circle.rotate_left(lowest);
        });
        circles
    }

    /// Of each circle and those who wait for it, whoever is in another collective than more than half.
    fn outsiders(&self, rows: &[Row], circles: &[Vec<u32>]) -> Vec<Outsider> {
        let mut found: BTreeMap<u32, Outsider> = BTreeMap::new();
        for circle in circles {
            let mut calls: HashMap<(u32, &What), Vec<u32>> = HashMap::new();
            for rank in self.waiters_of(circle) {
                if let Some(wait) = blocked(rows, rank).filter(|wait| is_collective(wait)) {
                    calls.entry((wait.communicator, &wait.what)).or_default().push(rank);
                }
            }
            let all: usize = calls.values().map(Vec::len).sum();
            let Some(most) = calls.values().find(|ranks| 2 * ranks.len() > all) else { continue };
            let others = calls.values().filter(|ranks| *ranks != most).flatten();
            let outsider = |rank: &u32| Outsider { rank: *rank, like: most[0], many: count(most.len()) };
            found.extend(others.map(|rank| (*rank, outsider(rank))));
        }
        found.into_values().take(NAMED_MAX).collect()
    }

    /// These ranks and all that need one of them by name, directly or not; ascending.
    fn waiters_of(&self, ranks: &[u32]) -> BTreeSet<u32> {
        let mut reached: BTreeSet<u32> = ranks.iter().copied().collect();
        let mut queue = ranks.to_vec();
        while let Some(rank) = queue.pop() {
            let waiters = self.wanted_by[rank as usize].iter().copied();
            queue.extend(waiters.filter(|waiter| reached.insert(*waiter)));
        }
        reached
    }

    /// Ranks that wait for nothing and are waited for; most waiters first. And how many more there are.
    fn culprits(&self) -> (Vec<Culprit>, u32) {
        let all_are_wanted = self.needs.iter().any(|need| matches!(need, Need::Anybody | Need::Fence));
        let is_end = |rank: &u32| matches!(self.need(*rank), Need::Nothing | Need::Gone);
        let direct = |rank: &u32| self.wanted_by[*rank as usize].len();
        let mut ends: Vec<u32> = (0..count(self.needs.len())).filter(is_end).collect();
        ends.retain(|rank| all_are_wanted || direct(rank) > 0);
        ends.sort_by_key(|rank| (Reverse(direct(rank)), *rank));
        let unseen = ends.len().saturating_sub(COUNTED_MAX);
        let counted = ends.into_iter().take(COUNTED_MAX);
        let culprits = counted.map(|rank| Culprit { rank, waiting: self.waiting_for(rank) });
        let mut culprits: Vec<Culprit> = culprits.filter(|culprit| culprit.waiting > 0).collect();
        culprits.sort_by_key(|culprit| (Reverse(culprit.waiting), culprit.rank));
        let more = unseen + culprits.len().saturating_sub(NAMED_MAX);
        culprits.truncate(NAMED_MAX);
        (culprits, count(more))
    }

    /// How many wait for a rank, directly or not.
    fn waiting_for(&self, culprit: u32) -> u32 {
        let mut reached = BTreeSet::from([culprit]);
        let mut queue = vec![culprit];
        let mut named_all = false;
        while let Some(rank) = queue.pop() {
            let mut waiters = self.wanted_by[rank as usize].clone();
            if !named_all && *self.need(rank) != Need::Gone {
                named_all = true;
                waiters.extend(self.with(&Need::Anybody));
            }
            if *self.need(rank) != Need::Fence {
                waiters.extend(self.with(&Need::Fence).take_while(|waiter| !reached.contains(waiter)));
            }
            queue.extend(waiters.into_iter().filter(|waiter| reached.insert(*waiter)));
        }
        count(reached.len() - 1)
    }

    fn with<'a>(&'a self, need: &'a Need) -> impl Iterator<Item = u32> + 'a {
        (0..).zip(&self.needs).filter(move |(_, known)| *known == need).map(|(rank, _)| rank)
    }

    fn need(&self, rank: u32) -> &Need {
        &self.needs[rank as usize]
    }
}

fn need(rank: u32, row: &Row, size: usize) -> Need {
    if row.is_in_fence() {
        return Need::Fence;
    }
    let Some(status) = row.waiting() else {
        return if row.is_gone() { Need::Gone } else { Need::Nothing };
    };
    let waits = if status.any_of { &status.waits[..] } else { &status.waits[..1] };
    if waits.iter().any(|wait| wait.partners.is_empty() && takes_anybody(wait)) {
        return Need::Anybody;
    }
    let partners: BTreeSet<u32> = waits.iter().flat_map(|wait| &wait.partners).copied().collect();
    let is_other = |partner: &u32| *partner != rank && (*partner as usize) < size;
    let partners: Vec<u32> = partners.into_iter().filter(is_other).collect();
    match (partners.is_empty(), status.any_of) {
        // A step of a collective that is just over, or a message to itself.
        (true, _) => Need::Nothing,
        (false, true) => Need::Any(partners),
        (false, false) => Need::All(partners),
    }
}

fn is_collective(wait: &Wait) -> bool {
    matches!(wait.what, What::Collective { .. })
}

fn takes_anybody(wait: &Wait) -> bool {
    matches!(wait.what, What::Receive { .. } | What::Probe { .. })
}

/// What a rank is blocked in.
pub(super) fn blocked(rows: &[Row], rank: u32) -> Option<&Wait> {
    rows.get(rank as usize)?.waiting().and_then(|status: &Status| status.waits.first())
}

/// Whether two ranks are in the same call of the same collective.
fn is_one_call(rows: &[Row], a: u32, b: u32) -> bool {
    let (Some(a), Some(b)) = (blocked(rows, a), blocked(rows, b)) else { return false };
    is_collective(a) && a.what == b.what && a.communicator == b.communicator
}

fn is_one_call_all(rows: &[Row], circle: &[u32]) -> bool {
    circle.windows(2).all(|pair| is_one_call(rows, pair[0], pair[1]))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("there are fewer than 2^32 ranks")
}
