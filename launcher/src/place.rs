//! Which rank sits where: a pure function of what was wished for and what the hosts are made of.
//!
//! ```text
//! deal     ranks to hosts and their parts, in turn          --map-by, -ppn, slots       deal.rs
//! divide   the cores of each part among its ranks           --bind-to, :PE=n            divide.rs
//! number   the ranks                                        --rank-by                   number.rs
//! ```
//! A rank file says all three at once.
//!
//! The rule for slots is one for all: they say where ranks go first. When all are taken, dealing begins again at the first
//! host, as hydra has it, and a line on standard error says so where a host gets more than somebody stated or than it has
//! hardware threads. Open MPI refuses there; `--nooversubscribe` does so here. `max_slots` is never exceeded.

mod deal;
mod divide;
mod number;
pub mod policy;
pub mod rankfile;

use crate::args::{JobWish, Usage};
use crate::hosts::{HostWish, Slots};
use crate::topology::{Level, Topology};
use deal::{Entry, Pool};
use policy::{Deal, Oversubscribe};

/// A host, and what its agent has found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// What was asked for.
    pub wish: HostWish,
    /// What is there.
    pub topology: Topology,
    /// Ranks that run there already.
    pub taken: u32,
}

/// The place of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Index of its host.
    pub host: u32,
    /// Its place among the ranks of that host, from 0, in rank order.
    pub local: u32,
    /// Index of its block of the command line.
    pub block: u32,
    /// The hardware threads that it may use, as the host's system numbers them. Empty: all; it is not bound.
    pub cpus: Vec<u32>,
}

/// Where everybody sits.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Placement {
    /// By rank. Blocks follow one another, so the number of ranks of each block can be read off too.
    pub seats: Vec<Seat>,
    /// What the user should know about it, a line each, for standard error.
    pub remarks: Vec<String>,
}

/// A rank that has been dealt to a host and has no number yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    host: u32,
    /// Place of the host in the order of this block's hosts.
    turn: u32,
    /// Index among the parts of the host that ranks are dealt to; 0 where that is all of it.
    part: u32,
    block: u32,
    /// Index in [`Topology::threads`] of the first that is its own.
    thread: usize,
    cpus: Vec<u32>,
}

/// Gives every rank its seat. `hosts`: what [`wished`](crate::hosts::wished) has named, in that order; or only this one.
///
/// # Errors
/// One sentence about a wish that these hosts cannot fulfil.
///
/// # Panics
/// Where there is no host at all.
pub fn place(job: &JobWish, hosts: &[HostFacts]) -> Result<Placement, Usage> {
    assert!(!hosts.is_empty(), "without wishes there is this host");
    let mut remarks = Vec::new();
    let spots = if let Some(lines) = &job.rank_file {
        let named = lines.iter().map(|line| find(hosts, &line.host)).collect::<Result<Vec<_>, _>>()?;
        let mut spots = listed(job, &named, "rank file")?;
        for (line, spot) in lines.iter().zip(&mut spots) {
            spot.cpus = line.cpus(&hosts[spot.host as usize].topology).map_err(Usage::new)?;
        }
        spots
    } else if let Some(map) = &job.rank_map {
        let numbers = map.iter().map(|&host| match hosts.len() {
            count if (host as usize) < count => Ok(host),
            count => {
                Err(Usage::new(format!("-rankmap names host {host}, and there are only {count}, from 0")))
            }
        });
        let mut spots = listed(job, &numbers.collect::<Result<Vec<_>, _>>()?, "-rankmap")?;
        divide::divide(job, hosts, &mut spots, &mut remarks);
        spots
    } else {
        let mut spots = dealt(job, hosts)?;
        divide::divide(job, hosts, &mut spots, &mut remarks);
        let mut numbered = Vec::with_capacity(spots.len());
        for block in spots.chunk_by(|a, b| a.block == b.block) {
            numbered.extend(number::number(job.rank_by, job.map_by.deal.level(), hosts, block.to_vec()));
        }
        numbered
    };
    crowding(job, hosts, &spots, &mut remarks)?;
    let mut ranks_on = vec![0; hosts.len()];
    let seat = |Spot { host, block, cpus, .. }| {
        let ranks = &mut ranks_on[host as usize];
        *ranks += 1;
        Seat { host, local: *ranks - 1, block, cpus }
    };
    Ok(Placement { seats: spots.into_iter().map(seat).collect(), remarks })
}

/// Spots by rank where each rank's host is said.
fn listed(job: &JobWish, hosts: &[u32], by: &str) -> Result<Vec<Spot>, Usage> {
    let blocks = (0u32..).zip(&job.blocks);
    let blocks = blocks.flat_map(|(at, block)| (0..ranks_or(block.ranks, hosts.len())).map(move |_| at));
    let blocks: Vec<u32> = blocks.collect();
    if blocks.len() != hosts.len() {
        let (asked, said) = (blocks.len(), hosts.len());
        return Err(Usage::new(format!("{asked} ranks are asked for, and the {by} has places for {said}")));
    }
    let spot = |(&block, &host): (&u32, &u32)| Spot {
        host,
        turn: host,
        part: 0,
        block,
        thread: 0,
        cpus: Vec::new(),
    };
    Ok(blocks.iter().zip(hosts).map(spot).collect())
}

fn ranks_or(ranks: Option<u32>, count: usize) -> usize {
    ranks.map_or(count, |ranks| ranks as usize)
}

fn find(hosts: &[HostFacts], name: &str) -> Result<u32, Usage> {
    let at = (0u32..).zip(hosts).find(|(_, facts)| facts.wish.is_called(name)).map(|(at, _)| at);
    at.ok_or_else(|| Usage::new(format!("the host {name} is not among those of this job")))
}

/// Deals the ranks of all blocks, in the order of the blocks.
fn dealt(job: &JobWish, hosts: &[HostFacts]) -> Result<Vec<Spot>, Usage> {
    let mut for_all = None;
    let mut spots = Vec::new();
    for (at, block) in (0u32..).zip(&job.blocks) {
        let mut own = None;
        let pool = if block.hosts.is_empty() {
            for_all.get_or_insert_with(|| {
                let general = (0u32..).zip(hosts).filter(|(_, facts)| facts.wish.for_all);
                let entry = |(at, facts): (u32, &HostFacts)| Entry {
                    taken: facts.taken,
                    ..entry(job, hosts, at, &facts.wish)
                };
                Pool::new(job, general.map(entry).collect())
            })
        } else {
            // Who names hosts wants ranks on them, whoever is there; but never more than they may have.
            let entry_of = |wish: &HostWish| {
                let host = find(hosts, &wish.name)?;
                let entry = entry(job, hosts, host, wish);
                let most = entry.most.saturating_sub(hosts[host as usize].taken);
                Ok(Entry { round: entry.round.min(most), most, ..entry })
            };
            let entries = block.hosts.iter().map(entry_of).collect::<Result<_, _>>()?;
            own.insert(Pool::new(job, entries))
        };
        let ranks = block.ranks.unwrap_or_else(|| pool.slots());
        for _ in 0..ranks {
            let (turn, host, part) = pool.next_seat().ok_or_else(|| {
                Usage::new(format!("{ranks} ranks are more than the max_slots of these hosts allow together"))
            })?;
            spots.push(Spot { host, turn, part, block: at, thread: 0, cpus: Vec::new() });
        }
    }
    Ok(spots)
}

/// What a host gets in each round of dealing.
fn entry(job: &JobWish, hosts: &[HostFacts], host: u32, wish: &HostWish) -> Entry {
    let facts = &hosts[host as usize];
    let cores = facts.topology.worth(unit(job));
    let slots = match (wish.slots, facts.wish.slots) {
        (Slots::Mentioned(slots) | Slots::Stated(slots), _) => slots,
        (Slots::Cores, Slots::Stated(slots)) => slots,
        (Slots::Cores, _) => (cores / job.map_by.cores_per_rank.unwrap_or(1)).max(1),
    };
    let slots = job.per_host.unwrap_or(slots);
    let most = wish.max_slots.or(facts.wish.max_slots).unwrap_or(u32::MAX);
    let parts_of = |level| facts.topology.count(level).max(1);
    let (round, each, parts) = match job.map_by.deal {
        Deal::Unsaid | Deal::Slot => (slots, 1, 1),
        Deal::Round(level) => (slots, 1, parts_of(level)),
        Deal::Each(each, level) => (each.saturating_mul(parts_of(level)), each, parts_of(level)),
    };
    Entry { host, round: round.min(most), most, each, parts, taken: 0 }
}

/// What cores are counted in.
fn unit(job: &JobWish) -> Level {
    if job.map_by.threads_are_cores { Level::Thread } else { Level::Core }
}

/// Hosts with more ranks than were stated, or than they can run at once: refused, remarked on or let be.
fn crowding(
    job: &JobWish,
    hosts: &[HostFacts],
    spots: &[Spot],
    remarks: &mut Vec<String>,
) -> Result<(), Usage> {
    let mut ranks_on: Vec<u32> = hosts.iter().map(|facts| facts.taken).collect();
    spots.iter().for_each(|spot| ranks_on[spot.host as usize] += 1);
    let refuse = job.map_by.oversubscribe == Oversubscribe::Refuse;
    let room = |facts: &HostFacts| {
        let cores = facts.topology.count(if refuse { unit(job) } else { Level::Thread }).max(1);
        match facts.wish.slots {
            Slots::Stated(slots) => (slots, "slots"),
            Slots::Mentioned(slots) if refuse => (slots, "slots"),
            Slots::Cores if hosts.len() == 1 && !refuse => (u32::MAX, "slots"),
            Slots::Mentioned(_) | Slots::Cores => (cores, "cores"),
        }
    };
    let crowded = hosts.iter().zip(&ranks_on).map(|(facts, &ranks)| (facts, ranks, room(facts)));
    let mut crowded = crowded.filter(|&(_, ranks, (room, _))| ranks > room);
    let Some((facts, ranks, (room, of))) = crowded.next() else { return Ok(()) };
    let more = match crowded.count() {
        0 => String::new(),
        1 => ", and one other host has too many".to_owned(),
        others => format!(", and {others} other hosts have too many"),
    };
    let of = if room == 1 { of.trim_end_matches('s') } else { of };
    let what = format!("{} gets {ranks} ranks and has {room} {of}{more}", facts.wish.name);
    match job.map_by.oversubscribe {
        Oversubscribe::Silent => {}
        Oversubscribe::Remark => {
            remarks.push(format!("{what}; if it is meant, --oversubscribe says so"));
        }
        Oversubscribe::Refuse => {
            return Err(Usage::new(format!("{what}; name more hosts, or leave --nooversubscribe out")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
