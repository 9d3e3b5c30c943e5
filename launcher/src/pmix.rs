//! PMIx between the hosts of a job: what the servers of different hosts ask of each other, and mpirun's part, which is to
//! carry it. The server of a host is in `agent/pmix.rs`; what ranks of one host have to do with each other stays there.
//!
//! ```text
//!   agent a                      mpirun                     agent b
//!     ------ Fence -------->
//!                                  <-------- Fence --------           every host that takes part
//!     <----- Fence ---------       --------- Fence ------->           what all of them have said
//!
//!     ------ Wanted -------->      --------- Fetch -------->           what has that rank of yours left?
//!     <----- Found ----------      <-------- Found ---------
//! ```
//! Fences of the same ranks happen in the same order on all hosts, so who takes part and a count say which belong together:
//! the first part of a host belongs to the first of them, its second to the second.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::args::Pmi;
use crate::elf;
use crate::hosts::HostWish;
use crate::proto::Launch;
use crate::spawn;

/// Bytes of a fence that travel in one message, so that beats and output are never far behind.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// Longest that one rank can leave for others to ask for: a message holds it whole.
pub const CARD_BYTES_MAX: usize = 16 << 20;
/// Longest name of a host that libpmix carries.
const NAME_BYTES_MAX: usize = 255;

/// Who takes part in a fence, ascending; `None`: all ranks of the job.
pub type Party = Option<Vec<u32>>;

/// From the PMIx server of a host to mpirun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// All of the party that are on this host are in the fence.
    Fence {
        /// Who takes part.
        party: Party,
        /// The next of what this host has to say.
        piece: Vec<u8>,
        /// That was all.
        is_last: bool,
    },
    /// What has this rank left?
    Wanted {
        /// The rank, of another host.
        rank: u32,
        /// To answer with.
        ticket: u64,
    },
    /// The answer to [`Down::Fetch`].
    Found {
        /// The host that asked.
        host: u32,
        /// With which number.
        ticket: u64,
        /// What it asked for, where it can be had.
        card: Option<Vec<u8>>,
    },
}

/// From mpirun to the PMIx server of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// All are in the oldest open fence of this party.
    Fence {
        /// Who takes part.
        party: Party,
        /// The next of what all have said.
        piece: Vec<u8>,
        /// That was all.
        is_last: bool,
    },
    /// What has this rank of yours left?
    Fetch {
        /// The rank.
        rank: u32,
        /// The host that asks.
        host: u32,
        /// With which number.
        ticket: u64,
    },
    /// The answer to [`Up::Wanted`].
    Found {
        /// Its number.
        ticket: u64,
        /// What was asked for, where it can be had.
        card: Option<Vec<u8>>,
    },
}

/// For whom something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// All hosts.
    All,
    /// This one.
    Host(u32),
}

/// Whether the ranks of a job speak PMIx: because the user says so, or because one of its programs needs Open MPI.
pub fn is_spoken(wish: Pmi, launch: &Launch) -> bool {
    let needs = |block| spawn::plan(launch, block).is_ok_and(|plan| elf::needs_pmix(plan.program()));
    match wish {
        Pmi::Auto => launch.blocks.iter().any(needs),
        Pmi::One | Pmi::Two => false,
        Pmi::X => true,
    }
}

/// What libpmix calls the hosts: as the user does where it can carry the name, and no two the same.
pub fn host_names(hosts: &[HostWish]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let carried =
        |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    let name = |(index, host): (usize, &HostWish)| {
        let name: String = host.name.chars().map(carried).collect();
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && seen.insert(name.clone());
        // No name above has a plus sign.
        if is_name { name } else { format!("host+{index}") }
    };
    hosts.iter().enumerate().map(name).collect()
}

/// Cuts what is said in a fence into messages: one at least.
pub fn pieces(said: &[u8]) -> impl Iterator<Item = (Vec<u8>, bool)> {
    let count = said.len().div_ceil(PIECE_BYTES_MAX).max(1);
    let piece = |at: usize| said.chunks(PIECE_BYTES_MAX).nth(at).map_or(Vec::new(), <[u8]>::to_vec);
    (0..count).map(move |at| (piece(at), at + 1 == count))
}

/// What a host has to say in a fence.
#[derive(Debug, Default)]
struct Part {
    said: Vec<u8>,
    is_whole: bool,
}

/// mpirun's part: it brings together what hosts say in fences, and questions to where they are answered. It keeps what is
/// said in fences that are under way, and nothing else.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The host of every rank.
    hosts: Vec<u32>,
    /// Fences under way, oldest first, with the parts of hosts.
    fences: HashMap<Party, VecDeque<BTreeMap<u32, Part>>>,
    out: VecDeque<(Whom, Down)>,
}

impl Exchange {
    /// For a job whose ranks are on these hosts.
    pub fn new(hosts: Vec<u32>) -> Exchange {
        Exchange { hosts, ..Exchange::default() }
    }

    /// A host says something.
    pub fn handle(&mut self, host: u32, message: Up) {
        match message {
            Up::Fence { party, piece, is_last } => self.handle_part(host, party, piece, is_last),
            Up::Wanted { rank, ticket } => {
                let answer = match self.hosts.get(rank as usize) {
                    Some(there) => (Whom::Host(*there), Down::Fetch { rank, host, ticket }),
                    None => (Whom::Host(host), Down::Found { ticket, card: None }),
                };
                self.out.push_back(answer);
            }
            Up::Found { host, ticket, card } => {
                self.out.push_back((Whom::Host(host), Down::Found { ticket, card }));
            }
        }
    }

    /// What is to be said next.
    pub fn poll(&mut self) -> Option<(Whom, Down)> {
        self.out.pop_front()
    }

    fn handle_part(&mut self, host: u32, party: Party, piece: Vec<u8>, is_last: bool) {
        let hosts = self.hosts_of(&party);
        if !hosts.contains(&host) {
            return;
        }
        let fences = self.fences.entry(party.clone()).or_default();
        let open = |fence: &BTreeMap<u32, Part>| fence.get(&host).is_none_or(|part| !part.is_whole);
        let at = fences.iter().position(open).unwrap_or(fences.len());
        if at == fences.len() {
            fences.push_back(BTreeMap::new());
        }
        let part = fences[at].entry(host).or_default();
        part.said.extend(piece);
        part.is_whole = is_last;
        let is_over = fences[at].len() == hosts.len() && fences[at].values().all(|part| part.is_whole);
        if !is_over {
            return;
        }
        let all = fences.remove(at).unwrap_or_default();
        if fences.is_empty() {
            self.fences.remove(&party);
        }
        let said = all.into_values().fold(Vec::new(), |mut said, part| {
            said.extend(part.said);
            said
        });
        for (piece, is_last) in pieces(&said) {
            let answer = Down::Fence { party: party.clone(), piece, is_last };
            match party {
                None => self.out.push_back((Whom::All, answer)),
                Some(_) => {
                    self.out.extend(hosts.iter().map(|host| (Whom::Host(*host), answer.clone())));
                }
            }
        }
    }

    /// The hosts of those who take part.
    fn hosts_of(&self, party: &Party) -> BTreeSet<u32> {
        match party {
            None => self.hosts.iter().copied().collect(),
            Some(ranks) => ranks.iter().filter_map(|rank| self.hosts.get(*rank as usize).copied()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(party: Party, said: &[u8]) -> Up {
        Up::Fence { party, piece: said.to_vec(), is_last: true }
    }

    fn said(exchange: &mut Exchange) -> Vec<(Whom, Down)> {
        std::iter::from_fn(|| exchange.poll()).collect()
    }

    fn answer(party: Party, said: &[u8]) -> Down {
        Down::Fence { party, piece: said.to_vec(), is_last: true }
    }

    #[test]
    fn a_fence_is_over_when_every_host_has_said_its_part_empty_ones_too() {
        let mut exchange = Exchange::new(vec![0, 1, 2, 0]);
        exchange.handle(2, part(None, b"two"));
        exchange.handle(0, part(None, b""));
        assert_eq!(exchange.poll(), None);
        exchange.handle(1, part(None, b"one"));
        assert_eq!(said(&mut exchange), [(Whom::All, answer(None, b"onetwo"))]);
        assert!(exchange.fences.is_empty(), "nothing is kept");
    }

    #[test]
    fn fences_of_the_same_ranks_are_told_apart_by_their_order() {
        let mut exchange = Exchange::new(vec![0, 1]);
        for (host, text) in [(0, b"a"), (0, b"b"), (1, b"A"), (1, b"B")] {
            exchange.handle(host, part(None, text));
        }
        let both = [(Whom::All, answer(None, b"aA")), (Whom::All, answer(None, b"bB"))];
        assert_eq!(said(&mut exchange), both);
    }

    #[test]
    fn fences_of_some_ranks_are_answered_where_these_are() {
        let mut exchange = Exchange::new(vec![0, 1, 2]);
        let party = Some(vec![0, 2]);
        exchange.handle(0, part(party.clone(), b"x"));
        exchange.handle(0, part(None, b"all"));
        exchange.handle(1, part(party.clone(), b"a stranger"));
        exchange.handle(2, part(party.clone(), b"z"));
        let both = [0, 2].map(|host| (Whom::Host(host), answer(party.clone(), b"xz")));
        assert_eq!(said(&mut exchange), both);
    }

    #[test]
    fn large_parts_travel_in_pieces_and_stay_whole() {
        let mut exchange = Exchange::new(vec![0, 1]);
        let large = vec![7; 2 * PIECE_BYTES_MAX + 1];
        let mut parts: Vec<_> = pieces(&large).collect();
        assert_eq!(parts.len(), 3);
        let last = parts.pop().expect("three");
        for (piece, is_last) in parts {
            exchange.handle(0, Up::Fence { party: None, piece, is_last });
        }
        exchange.handle(1, part(None, b"!"));
        assert_eq!(exchange.poll(), None, "host 0 has not said all");
        exchange.handle(0, Up::Fence { party: None, piece: last.0, is_last: last.1 });
        let bytes: Vec<u8> = said(&mut exchange)
            .into_iter()
            .flat_map(|(_, down)| match down {
                Down::Fence { piece, .. } => piece,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(bytes, [large, b"!".to_vec()].concat());
    }

    #[test]
    fn questions_go_to_the_ranks_host_and_answers_to_who_asked() {
        let mut exchange = Exchange::new(vec![0, 1]);
        exchange.handle(0, Up::Wanted { rank: 1, ticket: 9 });
        assert_eq!(exchange.poll(), Some((Whom::Host(1), Down::Fetch { rank: 1, host: 0, ticket: 9 })));
        exchange.handle(1, Up::Found { host: 0, ticket: 9, card: Some(b"card".to_vec()) });
        assert_eq!(
            exchange.poll(),
            Some((Whom::Host(0), Down::Found { ticket: 9, card: Some(b"card".to_vec()) }))
        );
        exchange.handle(0, Up::Wanted { rank: 5, ticket: 10 });
        assert_eq!(exchange.poll(), Some((Whom::Host(0), Down::Found { ticket: 10, card: None })));
    }

    #[test]
    fn hosts_have_names_that_libpmix_can_carry_and_no_two_the_same() {
        let hosts = ["ant", "10.0.0.1", "fe80::1", "ant", "a,b", "a;b", ""].map(HostWish::named);
        let names = host_names(&hosts);
        assert_eq!(names, ["ant", "10.0.0.1", "fe80--1", "host+3", "a-b", "host+5", "host+6"]);
    }
}
