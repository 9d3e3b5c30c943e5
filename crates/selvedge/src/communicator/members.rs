//! Which peers a communicator is made of, in order of ranks.

use rustc_hash::FxHashMap;
use selvedge_coll::Rank;
use selvedge_transport::Peer;

/// The ranks of a communicator as peers of the transport, both ways. Memory: nothing for the world, 16 bytes a rank for
/// others.
#[derive(Debug)]
pub enum Members {
    /// Rank and peer are the same number: the world and its duplicates.
    World {
        /// Number of ranks.
        size: u32,
    },
    /// Any other.
    Listed {
        /// Peer of each rank.
        peers: Vec<Peer>,
        /// Rank of each peer.
        ranks: FxHashMap<Peer, Rank>,
    },
}

impl Members {
    /// The group of these peers, in order of their ranks.
    pub fn listed(peers: Vec<Peer>) -> Members {
        let ranks = peers.iter().enumerate().map(|(rank, &peer)| (peer, Rank(rank as u32))).collect();
        Members::Listed { peers, ranks }
    }

    /// The group of these peers, in order of their ranks; the shortest way to say so.
    pub(crate) fn of(peers: Vec<Peer>) -> Members {
        match peers.iter().enumerate().all(|(rank, peer)| peer.index() == rank) {
            true => Members::World { size: peers.len() as u32 },
            false => Members::listed(peers),
        }
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        match self {
            Members::World { size } => *size as usize,
            Members::Listed { peers, .. } => peers.len(),
        }
    }

    /// The peer of a rank, which must be inside.
    #[inline]
    pub fn peer(&self, rank: Rank) -> Peer {
        match self {
            Members::World { .. } => Peer(rank.0),
            Members::Listed { peers, .. } => peers[rank.index()],
        }
    }

    /// The rank of a peer, if it belongs to the group.
    #[inline]
    pub fn rank(&self, peer: Peer) -> Option<Rank> {
        match self {
            Members::World { size } => (peer.0 < *size).then_some(Rank(peer.0)),
            Members::Listed { ranks, .. } => ranks.get(&peer).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_and_peer_are_each_others_inverse() {
        let group = Members::listed(vec![Peer(7), Peer(2), Peer(5)]);
        for rank in 0..3 {
            assert_eq!(group.rank(group.peer(Rank(rank))), Some(Rank(rank)));
        }
        assert_eq!(group.rank(Peer(3)), None);
    }
}
