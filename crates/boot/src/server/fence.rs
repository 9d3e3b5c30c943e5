//! The barrier of all ranks, over the tree; what it carries; and who will never come.

use super::store::News;
use super::{Event, Server, State, Waiter};
use crate::tree::{Card, Down, FenceEnd, LENGTH_BYTES, PART_BYTES, Up};

/// A fence's values go to everybody where they have no more bytes than this in all; else they wait until somebody asks.
/// At 64 KiB a link of a tree is busy with them for less time than a question and its answer take.
pub(super) const KNOWN_BYTES_MAX: usize = 64 << 10;

/// How far this node is with the fence that is under way.
#[derive(Debug)]
pub(super) struct Fence {
    /// Ranks in [`State::InBarrier`].
    pub(super) local_in: usize,
    children: Vec<Child>,
    /// All are in and the node above knows; what was put has risen.
    risen: bool,
    overflow: bool,
    /// The node above knows that somebody has left.
    left_said: bool,
    /// The first to leave, once the root has said so.
    absent: Option<u32>,
    waiting_below: Option<u32>,
    stuck_said: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    Outside,
    Inside,
    Gone,
}

impl Fence {
    pub(super) fn new(children: u32) -> Fence {
        Fence {
            local_in: 0,
            children: vec![Child::Outside; children as usize],
            risen: false,
            overflow: false,
            left_said: false,
            absent: None,
            waiting_below: None,
            stuck_said: false,
        }
    }

    pub(super) fn has_child(&self, child: u32) -> bool {
        self.children.get(child as usize).is_some_and(|child| *child != Child::Gone)
    }

    pub(super) fn lose_child(&mut self, child: u32) {
        if let Some(child) = self.children.get_mut(child as usize) {
            *child = Child::Gone;
        }
    }

    /// The children that are left.
    fn children(&self) -> impl Iterator<Item = u32> + use<> {
        let left: Vec<u32> =
            (0u32..).zip(&self.children).filter(|(_, c)| **c != Child::Gone).map(|(n, _)| n).collect();
        left.into_iter()
    }
}

impl Server {
    pub(super) fn enter_fence(&mut self, rank: u32) {
        self.set_state(rank, State::InBarrier);
        self.advance_fence();
    }

    pub(super) fn child_in_fence(&mut self, child: u32, overflow: bool) {
        self.fence.overflow |= overflow;
        self.fence.children[child as usize] = Child::Inside;
        self.advance_fence();
    }

    /// Tells the node above once all are in; the root ends the fence.
    pub(super) fn advance_fence(&mut self) {
        let fence = &self.fence;
        let all_in = fence.local_in == self.ranks.len() && fence.children.iter().all(|c| *c == Child::Inside);
        if !all_in || fence.risen {
            return self.check_stuck();
        }
        self.store.rise();
        let (cards, overflow) = self.store.rising();
        let overflow = overflow | std::mem::take(&mut self.fence.overflow);
        if !self.is_root {
            self.ups.extend(parts(cards, Card::bytes).map(Up::Cards));
            self.ups.push_back(Up::Fence { overflow });
            self.fence.risen = true;
            return self.check_stuck();
        }
        drop(cards);
        self.end_fence(match self.store.rising_bytes() {
            _ if overflow => FenceEnd::Full,
            0..=KNOWN_BYTES_MAX => FenceEnd::Known,
            _ => FenceEnd::Asked,
        });
    }

    /// Values from above, for this node and all below.
    pub(super) fn learn(&mut self, cards: Vec<Card>) {
        for child in self.fence.children() {
            self.down(child, Down::Cards(cards.clone()));
        }
        for card in cards {
            self.store.learn(card.key, card.value);
        }
    }

    /// Keys with new values, settled above: nobody below knows one that this node does not.
    pub(super) fn forget(&mut self, mut keys: Vec<String>) {
        keys.retain(|key| self.store.forget(key));
        for child in self.fence.children().filter(|_| !keys.is_empty()) {
            self.down(child, Down::Stale(keys.clone()));
        }
    }

    /// The root has said that everybody is in, as we have said of ourselves.
    pub(super) fn fence_ended(&mut self, end: FenceEnd) {
        if std::mem::take(&mut self.fence.risen) {
            self.end_fence(end);
            // A node without ranks, and none below it, is always in.
            self.advance_fence();
        }
    }

    /// Everybody is in. What was put at a child is no news to it, unless somebody else's counts in its place.
    fn end_fence(&mut self, end: FenceEnd) {
        let (cards, stale) = self.store.settle(end);
        for child in self.fence.children() {
            for part in parts(news(&cards, child), Card::bytes) {
                self.down(child, Down::Cards(part));
            }
            for part in parts(news(&stale, child), |key: &String| key.len() + LENGTH_BYTES) {
                self.down(child, Down::Stale(part));
            }
            self.down(child, Down::Fence(end));
            self.fence.children[child as usize] = Child::Outside;
        }
        self.events.push_back(Event::Barrier);
        for rank in self.local.clone() {
            if self.state(rank) == State::InBarrier {
                self.set_state(rank, State::Active);
                if let Some(asker) = self.here_mut(rank).fencing.take() {
                    self.answer_fenced(&asker, end != FenceEnd::Full);
                }
            }
        }
    }

    /// `rank`, here or below, has left. The root has to know the first, and all that are dead.
    pub(super) fn leave(&mut self, rank: u32, dead: bool) {
        let first = !std::mem::replace(&mut self.fence.left_said, true);
        if self.is_root {
            if dead && rank < self.size() {
                self.dead.insert(rank);
            }
            if first {
                self.somebody_left(rank);
            }
        } else if dead || first {
            self.ups.push_back(Up::Left { rank, dead });
        }
    }

    pub(super) fn somebody_left(&mut self, rank: u32) {
        self.fence.absent = Some(rank);
        for child in self.fence.children() {
            self.down(child, Down::Left { rank });
        }
        self.check_stuck();
    }

    pub(super) fn waiting_below(&mut self, rank: u32) {
        self.fence.waiting_below.get_or_insert(rank);
        self.check_stuck();
    }

    /// Somebody waits for everybody, and somebody has left: nobody will ever come out.
    fn check_stuck(&mut self) {
        let fence = &self.fence;
        let Some(absent) = fence.absent.filter(|_| !fence.stuck_said) else { return };
        let here = self.local.iter().copied().find(|rank| self.state(*rank) == State::InBarrier);
        let Some(waiting) = here.or(fence.waiting_below) else { return };
        self.fence.stuck_said = true;
        if self.is_root {
            self.events.push_back(Event::Stuck { waiting, absent });
        } else {
            self.ups.push_back(Up::Waiting { rank: waiting });
        }
    }

    /// A rank here wants `key`. What was put on its own node it sees at once, as with most servers.
    pub(super) fn ask_here(&mut self, rank: u32, key: &str) {
        match self.store.seen_here(key).cloned() {
            Some(value) => self.tell(key, Some(&value), Waiter::Rank(rank)),
            None => self.ask(key, Waiter::Rank(rank)),
        }
    }
}

/// News for `child`: those that did not come from there.
fn news<T: Clone>(all: &[News<T>], child: u32) -> impl Iterator<Item = T> + '_ {
    let elsewhere = move |news: &&News<T>| news.from != super::store::Source::Child(child);
    all.iter().filter(elsewhere).map(|news| news.what.clone())
}

/// Cuts `items` into parts of about [`PART_BYTES`].
fn parts<T>(items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        items.peek()?;
        let (mut part, mut sum) = (Vec::new(), 0);
        while let Some(item) = items.next_if(|_| sum < PART_BYTES) {
            sum += bytes(&item);
            part.push(item);
        }
        Some(part)
    })
}
