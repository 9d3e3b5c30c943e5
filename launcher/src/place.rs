//! Which rank sits where: a pure function of what was wished for and what the hosts are made of.

use crate::args::{JobWish, Usage};
use crate::cores::Binding;
use crate::hosts::{HostWish, Slots};
use crate::topology::{Level, Topology};

/// A host, and what its agent has found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// What was asked for.
    pub wish: HostWish,
    /// What is there.
    pub topology: Topology,
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

/// Gives every rank its seat. `hosts`: what [`wished`](crate::hosts::wished) has named, in that order; or only this one.
///
/// # Errors
/// One sentence about a wish that these hosts cannot fulfil.
pub fn place(job: &JobWish, hosts: &[HostFacts]) -> Result<Placement, Usage> {
    let slots = |facts: &HostFacts| match facts.wish.slots {
        Slots::Cores => facts.topology.count(Level::Core).max(1),
        Slots::Mentioned(slots) | Slots::Stated(slots) => slots,
    };
    let all: u32 = hosts.iter().map(slots).sum();
    let turns = (0u32..).zip(hosts).flat_map(|(host, facts)| (0..slots(facts)).map(move |_| host));
    let turns: Vec<u32> = turns.collect();
    let blocks = (0u32..).zip(&job.blocks);
    let blocks: Vec<u32> =
        blocks.flat_map(|(at, block)| (0..block.ranks.unwrap_or(all)).map(move |_| at)).collect();
    let mut locals = vec![0; hosts.len()];
    let mut seats: Vec<Seat> = Vec::new();
    for (&block, &host) in blocks.iter().zip(turns.iter().cycle()) {
        seats.push(Seat { host, local: locals[host as usize], block, cpus: Vec::new() });
        locals[host as usize] += 1;
    }
    for seat in &mut seats {
        let threads = hosts[seat.host as usize].topology.threads();
        let (local, ranks, count) = (seat.local as usize, locals[seat.host as usize] as usize, threads.len());
        if job.binding != Binding::None && (2..=count).contains(&ranks) {
            let share = &threads[local * count / ranks..(local + 1) * count / ranks];
            let share = if job.binding == Binding::Core { &share[..1] } else { share };
            seat.cpus = share.iter().map(|thread| thread.cpu).collect();
        }
    }
    Ok(Placement { seats, remarks: Vec::new() })
}
