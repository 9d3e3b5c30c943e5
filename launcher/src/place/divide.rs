//! Dividing the cores of a part among the ranks that were dealt to it.
//!
//! Left to itself the system often runs two ranks that talk with each other on one core, where each waits for the other
//! to give it up; a message then takes twenty microseconds and more instead of a fraction of one. So each rank gets an
//! even share of consecutive cores, as many for each as there are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::policy::Deal;
use super::{HostFacts, Spot, unit};
use crate::args::JobWish;
use crate::cores::Binding;
use crate::topology::{Level, Topology};

/// Fills in `thread` and `cpus` of all spots.
pub(super) fn divide(job: &JobWish, hosts: &[HostFacts], spots: &mut [Spot], remarks: &mut Vec<String>) {
    let mut ranks_of: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for (at, spot) in spots.iter().enumerate() {
        ranks_of.entry((spot.host, spot.part)).or_default().push(at);
    }
    let level = job.map_by.deal.level();
    let mut crowded_host: Option<u32> = None;
    let mut parts_of = BTreeMap::new();
    for ((host, part), ranks) in ranks_of {
        let topology = &hosts[host as usize].topology;
        let parts: &Vec<Range<usize>> = parts_of.entry(host).or_insert_with(|| topology.parts(level));
        // A host of which nothing is known has no parts, and nobody is bound there.
        let Some(part) = parts.get(part as usize) else { continue };
        let division = Division::new(job, topology, part.clone(), ranks.len());
        for (nth, at) in ranks.into_iter().enumerate() {
            let (thread, cpus) = division.nth(nth);
            (spots[at].thread, spots[at].cpus) = (thread, cpus);
        }
        if division.crowded && matches!(job.binding, Binding::Core | Binding::Thread) {
            crowded_host = Some(crowded_host.map_or(host, |before| before.min(host)));
        }
    }
    if let Some(host) = crowded_host {
        let name = &hosts[host as usize].wish.name;
        remarks.push(format!(
            "{name} has too few cores to bind every rank to its own; they are not bound there"
        ));
    }
}

/// Some hardware threads of a host, for some ranks.
struct Division<'a> {
    topology: &'a Topology,
    binding: Binding,
    part: Range<usize>,
    /// What is divided, each the range of its threads.
    units: Vec<Range<usize>>,
    ranks: usize,
    /// Units for each rank, where that is said.
    each: Option<usize>,
    /// The first rank gets the first unit, the second the next; else they are spread.
    packed: bool,
    /// There are too few units.
    crowded: bool,
}

impl<'a> Division<'a> {
    fn new(job: &JobWish, topology: &'a Topology, part: Range<usize>, ranks: usize) -> Division<'a> {
        let within = |level: Level| -> Vec<Range<usize>> {
            let overlaps = |unit: &Range<usize>| unit.start < part.end && part.start < unit.end;
            let clip = |unit: Range<usize>| unit.start.max(part.start)..unit.end.min(part.end);
            topology.parts(level).into_iter().filter(overlaps).map(clip).collect()
        };
        let each = job.map_by.cores_per_rank.map(|cores| cores as usize);
        let needed = ranks.saturating_mul(each.unwrap_or(1));
        let mut units = within(if job.binding == Binding::Thread { Level::Thread } else { unit(job) });
        if units.len() < needed && each.is_none() {
            // Two ranks on the two threads of a core are better than two that push one another about.
            units = within(Level::Thread);
        }
        let crowded = units.len() < needed;
        let packed = each.is_some() || !matches!(job.map_by.deal, Deal::Unsaid);
        Division { topology, binding: job.binding, part, units, ranks, each, packed, crowded }
    }

    /// The first thread of the `nth` rank, and the threads that it is bound to.
    fn nth(&self, nth: usize) -> (usize, Vec<u32>) {
        let (count, each) = (self.units.len(), self.each.unwrap_or(1));
        if self.crowded {
            let first = self.units[nth * each % count].start;
            return (first, self.bound(first, None));
        }
        let share = nth * count / self.ranks..(nth + 1) * count / self.ranks;
        let one_each = matches!(self.binding, Binding::Core | Binding::Thread) || self.each.is_some();
        let own = match (one_each, self.packed) {
            (false, _) => share,
            (true, true) => nth * each..(nth + 1) * each,
            (true, false) => share.start..share.start + each,
        };
        let threads = self.units[own.start].start..self.units[own.end - 1].end;
        (threads.start, self.bound(threads.start, Some(threads)))
    }

    /// What the rank whose first thread is `first` and whose own threads are `own` is bound to.
    fn bound(&self, first: usize, own: Option<Range<usize>>) -> Vec<u32> {
        let all = self.topology.threads();
        let whole_host = self.part.len() == all.len();
        let around = |level: Level| {
            let part = all[first].part(level);
            all.iter().filter(|thread| thread.part(level) == part).map(|thread| thread.cpu).collect()
        };
        let cpus = |range: Range<usize>| all[range].iter().map(|thread| thread.cpu).collect();
        match (self.binding, own) {
            (Binding::None, _) => Vec::new(),
            (Binding::Numa, _) => around(Level::Numa),
            (Binding::Socket, _) => around(Level::Socket),
            // Nobody is confined alone, unless somebody asked for it.
            (Binding::Share, Some(own)) if own.len() == all.len() => Vec::new(),
            (_, Some(own)) => cpus(own),
            (Binding::Share, None) if !whole_host => cpus(self.part.clone()),
            (_, None) => Vec::new(),
        }
    }
}
