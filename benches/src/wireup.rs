//! What it costs ranks to find each other: measured on this machine, and priced for one that nobody here has.
//!
//! The price is that of the messages between the nodes' servers, which is what grows with the job: their number, their
//! bytes and the depth of the tree, on the same [`Machine`] that algorithms are chosen by. What a rank itself does does not grow
//! (rank 0 excepted, which reads a card of every rank twice), and opening its devices is not in it.

use std::fmt;

use selvedge_transport::{Link, Machine};

/// A job to be priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many hosts.
    pub hosts: u32,
    /// Ranks on each of them.
    pub ranks_per_host: u32,
    /// Children of each node in the tree of servers.
    pub radix: u32,
    /// Bytes of what a rank leaves under one key, key and lengths included.
    pub card_bytes: u32,
    /// Ranks of other hosts that each rank has to do with, all of them at once.
    pub peers_met: u32,
}

/// What one phase takes on the busiest edges of the tree, those below the root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// What happens.
    pub name: &'static str,
    /// Messages that cross one edge below the root.
    pub edge_messages: u64,
    /// Bytes that cross it.
    pub edge_bytes: u64,
    /// Levels that these go through one after the other.
    pub depth: u32,
    /// From the first message to the last, nanoseconds.
    pub time_ns: f64,
}

/// All phases of a start, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Each with its share.
    pub phases: Vec<Phase>,
}

/// Values and keys travel in messages of about so many bytes (`selvedge_boot::tree`).
const PART_BYTES: u64 = 64 << 10;
/// A question for a value: its key and what is around it.
const ASK_BYTES: u64 = 40;
/// What rank 0 says of each rank in its word: host, process, rails.
const WORD_BYTES_PER_RANK: u64 = 8;
/// And of each host.
const WORD_BYTES_PER_HOST: u64 = 24;
/// Fences of a start on several hosts: two while memory is tried, then cards, word, addresses, terms.
pub const FENCES: u32 = 6;
/// A question to the server of one's own host and its answer, nanoseconds. An estimate: two wake-ups and four system calls.
const GET_NS: f64 = 15_000.0;

impl Plan {
    /// How many ranks.
    pub fn ranks(&self) -> u64 {
        u64::from(self.hosts) * u64::from(self.ranks_per_host)
    }

    /// Levels below the root.
    pub fn depth(&self) -> u32 {
        let (mut reached, mut width, mut depth) = (1_u64, 1_u64, 0);
        while reached < u64::from(self.hosts) {
            width *= u64::from(self.radix.max(1));
            reached += width;
            depth += 1;
        }
        depth
    }

    /// Ranks below one edge of the root, in the largest of its subtrees.
    fn ranks_below(&self) -> u64 {
        let subtrees = u64::from(self.radix.min(self.hosts.saturating_sub(1)).max(1));
        (u64::from(self.hosts) - 1).div_ceil(subtrees) * u64::from(self.ranks_per_host)
    }

    /// What a start costs between servers, on a machine of that kind.
    pub fn price(&self, machine: &Machine) -> Price {
        let phase = |name, edge_messages: u64, edge_bytes: u64| {
            let (depth, link) = (self.depth(), machine.remote);
            Phase {
                name,
                edge_messages,
                edge_bytes,
                depth,
                time_ns: self.through_tree(link, edge_messages, edge_bytes),
            }
        };
        let ranks = self.ranks();
        let cards = self.ranks_below() * u64::from(self.card_bytes);
        let word = ranks * WORD_BYTES_PER_RANK + u64::from(self.hosts) * WORD_BYTES_PER_HOST;
        // A card crosses an edge once, however many below want it.
        let asked = (self.ranks_below() * u64::from(self.peers_met)).min(ranks);
        let fences = u64::from(FENCES);
        let mut phases = vec![
            phase("six fences, up and down", 2 * fences, 2 * fences * 8),
            phase("cards of all, up", cards.div_ceil(PART_BYTES), cards),
            phase("rank 0's word, down", 2 + word.div_ceil(PART_BYTES), word),
            phase("addresses of all, up", cards.div_ceil(PART_BYTES), cards),
            phase("addresses asked for", 2 * asked, asked * (u64::from(self.card_bytes) + ASK_BYTES)),
        ];
        phases[0].time_ns *= f64::from(2 * FENCES);
        let reads = Phase {
            name: "rank 0 reads all, twice",
            edge_messages: 0,
            edge_bytes: 0,
            depth: 0,
            time_ns: 2.0 * ranks as f64 * GET_NS,
        };
        phases.insert(2, reads);
        Price { phases }
    }

    /// Time of so many messages over each edge below the root: the levels pass on what they have while more comes, so that depth
    /// costs latency, and the root, which serves all its edges, the rest. Fences are messages that wait for each other.
    fn through_tree(&self, link: Link, edge_messages: u64, edge_bytes: u64) -> f64 {
        let edges = f64::from(self.radix.min(self.hosts.saturating_sub(1)));
        let depth = f64::from(self.depth());
        if edge_messages <= 2 * u64::from(FENCES) && edge_bytes <= 16 * u64::from(FENCES) {
            return depth * (link.latency_ns + edges * link.overhead_ns);
        }
        let (messages, bytes) = (edge_messages as f64, edge_bytes as f64);
        depth * link.latency_ns + edges * (messages * link.overhead_ns + bytes * link.byte_ns)
    }
}

impl Price {
    /// All of it, nanoseconds.
    pub fn time_ns(&self) -> f64 {
        self.phases.iter().map(|phase| phase.time_ns).sum()
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<26}{:>16}{:>14}{:>7}{:>12}", "", "messages/edge", "KiB/edge", "depth", "ms")?;
        for Phase { name, edge_messages, edge_bytes, depth, time_ns } in &self.phases {
            let (kib, ms) = (*edge_bytes as f64 / 1024.0, time_ns / 1e6);
            writeln!(f, "{name:<26}{edge_messages:>16}{kib:>14.1}{depth:>7}{ms:>12.1}")?;
        }
        write!(f, "{:<26}{:>49.1}", "together", self.time_ns() / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Plan = Plan { hosts: 782, ranks_per_host: 32, radix: 16, card_bytes: 200, peers_met: 10 };

    fn tcp() -> Machine {
        Machine { ranks_per_host: 32, remote: Link::TCP, ..Machine::one_host(32, 32) }
    }

    #[test]
    fn a_tree_is_as_deep_as_it_must_be() {
        let depth = |hosts, radix| Plan { hosts, radix, ..LARGE }.depth();
        assert_eq!(
            [(1, 16), (2, 16), (17, 16), (18, 16), (782, 16)].map(|(h, r)| depth(h, r)),
            [0, 1, 1, 2, 3]
        );
        assert_eq!(depth(5, 1), 4);
    }

    #[test]
    fn twenty_five_thousand_ranks_find_each_other_within_three_seconds() {
        let price = LARGE.price(&tcp());
        assert!(LARGE.ranks() >= 25_000);
        assert!(price.time_ns() < 3e9, "{price}");
    }

    #[test]
    fn no_card_crosses_an_edge_twice_however_many_are_asked_for() {
        let edge = |peers_met| Plan { peers_met, ..LARGE }.price(&tcp()).phases[5].edge_messages;
        assert_eq!(edge(25_000), 2 * LARGE.ranks());
        assert!(edge(1) < edge(25_000));
    }

    #[test]
    fn what_nobody_has_to_do_with_costs_nothing() {
        let price = Plan { peers_met: 0, ..LARGE }.price(&tcp());
        assert_eq!(price.phases[5].edge_bytes, 0);
    }

    #[test]
    fn one_host_pays_for_nothing_but_rank_0() {
        let price = Plan { hosts: 1, ..LARGE }.price(&tcp());
        assert!((price.time_ns() - 2.0 * 32.0 * GET_NS).abs() < 1.0, "{price}");
    }
}
