//! Numbering the ranks of a block that have been dealt.

use std::collections::BTreeMap;

use super::policy::RankBy;
use super::{HostFacts, Spot};
use crate::topology::Level;

/// The spots of one block by rank.
pub(super) fn number(rank_by: RankBy, hosts: &[HostFacts], mut spots: Vec<Spot>) -> Vec<Spot> {
    if rank_by == RankBy::Dealt {
        return spots;
    }
    // Where nothing is known about a host its ranks stay in the order in which they were dealt.
    spots.sort_by_key(|spot| (spot.turn, spot.thread));
    let part = |spot: &Spot, level: Level| match hosts[spot.host as usize].topology.threads().get(spot.thread)
    {
        Some(_) if level == Level::Thread => u32::try_from(spot.thread).expect("cpu numbers are u32"),
        Some(thread) => thread.part(level),
        None => 0,
    };
    let in_turn = |spots: Vec<Spot>, level: Level| {
        let mut buckets: BTreeMap<(u32, u32), Vec<Spot>> = BTreeMap::new();
        for spot in spots {
            buckets.entry((spot.turn, part(&spot, level))).or_default().push(spot);
        }
        deal_out(buckets.into_values().collect())
    };
    match rank_by {
        RankBy::Dealt | RankBy::Fill => spots,
        RankBy::Round(Level::Node) => in_turn(spots, Level::Node),
        RankBy::Round(level) => {
            let by_host = spots.chunk_by(|a, b| a.turn == b.turn);
            by_host.flat_map(|spots| in_turn(spots.to_vec(), level)).collect()
        }
        RankBy::Span(level) => in_turn(spots, level),
    }
}

/// The first of each, then the second of each, and so on.
fn deal_out(buckets: Vec<Vec<Spot>>) -> Vec<Spot> {
    let mut all: Vec<(usize, Spot)> =
        buckets.into_iter().flat_map(|bucket| bucket.into_iter().enumerate()).collect();
    all.sort_by_key(|(nth, _)| *nth);
    all.into_iter().map(|(_, spot)| spot).collect()
}
