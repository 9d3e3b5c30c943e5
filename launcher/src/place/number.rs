//! Numbering the ranks of a block that have been dealt.

use std::collections::BTreeMap;

use super::policy::RankBy;
use super::{HostFacts, Spot};
use crate::topology::Level;

/// The spots of one block by rank. `dealt_to`: the parts that ranks were dealt to.
pub(super) fn number(
    rank_by: RankBy,
    dealt_to: Level,
    hosts: &[HostFacts],
    mut spots: Vec<Spot>,
) -> Vec<Spot> {
    // Stable sorts: what is not told apart stays in the order in which it was dealt.
    match rank_by {
        RankBy::Dealt => spots,
        RankBy::Slot => {
            spots.sort_by_key(|spot| spot.turn);
            spots
        }
        RankBy::Fill => {
            spots.sort_by_key(|spot| (spot.turn, spot.thread));
            spots
        }
        RankBy::Round(Level::Node) => in_turn(hosts, spots, Level::Node),
        RankBy::Round(level) => {
            spots.sort_by_key(|spot| spot.turn);
            let by_host = spots.chunk_by(|a, b| a.turn == b.turn);
            by_host.flat_map(|spots| in_turn(hosts, spots.to_vec(), level)).collect()
        }
        RankBy::Span(level) => in_turn(hosts, spots, level.unwrap_or(dealt_to)),
    }
}

/// In turn over the parts of all hosts.
fn in_turn(hosts: &[HostFacts], spots: Vec<Spot>, level: Level) -> Vec<Spot> {
    let part = |spot: &Spot| match hosts[spot.host as usize].topology.threads().get(spot.thread) {
        Some(_) if level == Level::Thread => u32::try_from(spot.thread).expect("cpu numbers are u32"),
        Some(thread) => thread.part(level),
        // Nothing is known about this host.
        None => 0,
    };
    let mut buckets: BTreeMap<(u32, u32), Vec<Spot>> = BTreeMap::new();
    for spot in spots {
        buckets.entry((spot.turn, part(&spot))).or_default().push(spot);
    }
    deal_out(buckets.into_values().collect())
}

/// The first of each, then the second of each, and so on.
fn deal_out(buckets: Vec<Vec<Spot>>) -> Vec<Spot> {
    let mut all: Vec<(usize, Spot)> =
        buckets.into_iter().flat_map(|bucket| bucket.into_iter().enumerate()).collect();
    all.sort_by_key(|(nth, _)| *nth);
    all.into_iter().map(|(_, spot)| spot).collect()
}
