//! Dealing ranks to hosts, one by one, in rounds.

use super::policy::{Deal, MapBy};
use crate::args::JobWish;
use crate::topology::Level;

/// A host, and what it gets.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Index of the host.
    pub(super) host: u32,
    /// Ranks of one round.
    pub(super) round: u32,
    /// Ranks of all rounds together.
    pub(super) most: u32,
    /// Ranks for a part before the next part's turn.
    pub(super) each: u32,
    /// How many parts it has.
    pub(super) parts: u32,
    /// Ranks that it has got.
    pub(super) taken: u32,
}

/// The hosts that some blocks share. A block goes on where the one before has stopped.
#[derive(Debug)]
pub(super) struct Pool {
    entries: Vec<Entry>,
    map_by: MapBy,
    rounds: u32,
    /// Whose turn it is: a host, and with `:SPAN` a part of it.
    turn: usize,
    part: u32,
}

impl Pool {
    pub(super) fn new(job: &JobWish, entries: Vec<Entry>) -> Pool {
        Pool { entries, map_by: job.map_by, rounds: 1, turn: 0, part: 0 }
    }

    /// Ranks of one round: as many as are started where nobody says how many.
    pub(super) fn slots(&self) -> u32 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.round))
    }

    /// Where the next rank goes: place of the host in the order, host, part. `None`: nobody may have any more.
    pub(super) fn next_seat(&mut self) -> Option<(u32, u32, u32)> {
        loop {
            for _ in 0..=self.entries.len() {
                let turn = self.turn;
                let Some(entry) = self.entries.get(turn) else {
                    self.turn = 0;
                    continue;
                };
                if entry.taken < entry.round.saturating_mul(self.rounds).min(entry.most) {
                    let part = self.take();
                    let host = self.entries[turn].host;
                    return Some((u32::try_from(turn).expect("hosts are counted in u32"), host, part));
                }
                (self.turn, self.part) = (turn + 1, 0);
            }
            if self.entries.iter().all(|entry| entry.taken >= entry.most) {
                return None;
            }
            (self.rounds, self.turn, self.part) = (self.rounds.saturating_add(1), 0, 0);
        }
    }

    /// Deals one rank to the host whose turn it is, and says whose turn is next.
    fn take(&mut self) -> u32 {
        let entry = &mut self.entries[self.turn];
        let in_turn = (entry.taken / entry.each) % entry.parts;
        entry.taken += 1;
        match self.map_by.deal {
            Deal::Round(Level::Node) => self.turn += 1,
            Deal::Round(_) if self.map_by.span => {
                let part = self.part;
                self.part += 1;
                if self.part == entry.parts {
                    (self.turn, self.part) = (self.turn + 1, 0);
                }
                return part;
            }
            _ => {}
        }
        in_turn
    }
}
