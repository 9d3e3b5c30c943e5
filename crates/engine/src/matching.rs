//! Which message belongs to which receive.
//!
//! Two sets: receives that were posted and found no message yet, messages that arrived and found no receive yet. MPI
//! fixes who wins: a message goes to the earliest posted receive that it matches, a receive takes the earliest arrived
//! message that matches it (MPI 5.0, 3.5). The simple algorithm is a scan of one list in order of time:
//!
//! ```text
//! arrive(message):  for receive in posted, oldest first:      if matches { remove; return receive }
//! take(pattern):    for message in unexpected, oldest first:  if matches { remove; return message }
//! ```
//!
//! Tricks applied to it:
//!
//! 1. A pattern is one of four classes: exact, any source, any tag, any of both. A posted receive lies in one queue,
//!    found by hashing (class, context, source, tag) with zeroes for what is open. A message can only match the heads
//!    of four queues, its name under each class; a stamp says which head is oldest. So cost does not depend on what
//!    else is posted.
//! 2. An unexpected message lies in one queue per class, so that a receive looks at the head of one. Classes nobody has
//!    asked for are not kept: the first question of a class builds its queues once, programs without wildcards pay for
//!    the exact one only.
//! 3. Queues are doubly linked through the entries; entries and queues are recycled. After warm-up nothing is
//!    allocated, and an empty queue costs nothing: it goes back at once, so tags that are used once leave no trace.
//! 4. While no wildcard receive is posted, an arrival asks one queue, not four.
//! 5. The newest receive is put in its queue when the next one is posted. A program that waits for one message at a time
//!    has no other, and pays for a comparison instead of a queue that is built and torn down.

mod label;
mod queues;

use selvedge_transport::Peer;

pub(crate) use crate::matching::label::PEERS_MAX;
use crate::matching::label::{CLASSES, EXACT, Label};
use crate::matching::queues::{End, Queues};
use crate::message::{Context, Tag};

/// What a message is matched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The context it was sent in.
    pub context: Context,
    /// Its sender.
    pub source: Peer,
    /// Its tag.
    pub tag: Tag,
}

/// What a receive asks for; `None` is a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The context, always exact.
    pub context: Context,
    /// The sender.
    pub source: Option<Peer>,
    /// The tag.
    pub tag: Option<Tag>,
}

impl Pattern {
    /// Whether a message of this name satisfies it.
    pub fn matches(&self, name: &Name) -> bool {
        self.context == name.context
            && self.source.is_none_or(|source| source == name.source)
            && self.tag.is_none_or(|tag| tag == name.tag)
    }
}

/// A posted receive, until it is matched or withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted(u32);

/// When a message arrived, among all that were kept; what [`Matching::put_back`] needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(u64);

/// Posted receives that carry an `R`, unexpected messages that carry an `M`.
#[derive(Debug)]
pub struct Matching<R, M> {
    posted: Queues<R, 1>,
    /// The newest posted receive, if it is still there: an entry in no queue yet.
    newest: Option<(u32, Label)>,
    /// Posted receives in queues, per class; the sum of the wildcard ones decides how many queues an arrival asks.
    queued_count: [usize; CLASSES],
    queued_wild: usize,
    queued: usize,
    unexpected: Queues<(Name, M), CLASSES>,
    unexpected_count: usize,
    /// Classes of unexpected queues that are kept. The exact one always is.
    kept: [bool; CLASSES],
}

impl<R, M> Default for Matching<R, M> {
    fn default() -> Self {
        Matching {
            posted: Queues::new(),
            newest: None,
            queued_count: [0; CLASSES],
            queued_wild: 0,
            queued: 0,
            unexpected: Queues::new(),
            unexpected_count: 0,
            kept: [true, false, false, false],
        }
    }
}

impl<R, M> Matching<R, M> {
    /// Bytes of memory that one unexpected message takes here, its `M` included.
    pub const UNEXPECTED_ENTRY_BYTES: usize = Queues::<(Name, M), CLASSES>::ENTRY_BYTES;

    /// Adds a receive behind all others. The caller has looked with [`take`](Matching::take) before.
    #[inline]
    pub fn post(&mut self, pattern: Pattern, receive: R) -> Posted {
        if let Some((older, label)) = self.newest {
            self.queue(older, label);
        }
        let node = self.posted.add(receive);
        self.newest = Some((node, Label::of_pattern(&pattern)));
        Posted(node)
    }

    /// Puts what was the newest receive behind all others of its queue.
    #[inline]
    fn queue(&mut self, node: u32, label: Label) {
        self.queued_count[label.class()] += 1;
        self.queued_wild += usize::from(label.class() != EXACT);
        self.queued += 1;
        self.posted.link(node, 0, label);
    }

    /// A message arrived: takes out the receive it belongs to, if there is one. If not, [`keep`](Matching::keep) it.
    #[inline(always)]
    pub fn arrive(&mut self, name: &Name) -> Option<R> {
        if self.queued != 0
            && let Some(receive) = self.arrive_queued(name)
        {
            return Some(receive);
        }
        let (node, label) = self.newest?;
        if label != Label::of_name(name, label.class()) {
            return None;
        }
        self.newest = None;
        Some(self.posted.remove_unlinked(node))
    }

    /// Takes out the oldest receive in a queue that the message belongs to.
    fn arrive_queued(&mut self, name: &Name) -> Option<R> {
        let exact = self.posted.head(Label::of_name(name, EXACT));
        let oldest = if self.queued_wild == 0 { exact } else { self.oldest_of_all(name, exact) };
        oldest.map(|node| self.remove_queued(node))
    }

    #[cold]
    fn oldest_of_all(&self, name: &Name, exact: Option<u32>) -> Option<u32> {
        let wild = (EXACT + 1..CLASSES).filter(|&class| self.queued_count[class] > 0);
        let heads = wild.filter_map(|class| self.posted.head(Label::of_name(name, class)));
        heads.chain(exact).min_by_key(|&node| self.posted.stamp(node))
    }

    /// Takes out a receive that was not matched.
    pub fn withdraw(&mut self, posted: Posted) -> R {
        if self.newest.is_some_and(|(node, _)| node == posted.0) {
            self.newest = None;
            return self.posted.remove_unlinked(posted.0);
        }
        self.remove_queued(posted.0)
    }

    #[inline]
    fn remove_queued(&mut self, node: u32) -> R {
        let class = self.posted.label(node, 0).class();
        self.queued_count[class] -= 1;
        self.queued_wild -= usize::from(class != EXACT);
        self.queued -= 1;
        self.posted.remove(node)
    }

    /// Adds a message that found no receive behind all others.
    pub fn keep(&mut self, name: Name, message: M) {
        self.keep_at(name, message, End::Back);
    }

    /// What a matching that forgets the order of arrival would do; for mutants.
    pub(crate) fn keep_in_front(&mut self, name: Name, message: M) {
        self.keep_at(name, message, End::Front);
    }

    fn keep_at(&mut self, name: Name, message: M, end: End) {
        let node = self.unexpected.add((name, message));
        for class in 0..CLASSES {
            if self.kept[class] {
                self.unexpected.link_at(node, class, Label::of_name(&name, class), end);
            }
        }
        self.unexpected_count += 1;
    }

    /// Takes out the earliest message that satisfies the pattern.
    #[inline]
    pub fn take(&mut self, pattern: &Pattern) -> Option<(Name, M)> {
        let node = self.find(pattern)?;
        self.unexpected_count -= 1;
        Some(self.unexpected.remove(node))
    }

    /// As [`take`](Matching::take), for a message that may be [put back](Matching::put_back).
    pub fn borrow(&mut self, pattern: &Pattern) -> Option<(Arrival, Name, M)> {
        let node = self.find(pattern)?;
        let arrival = Arrival(self.unexpected.stamp(node));
        self.unexpected_count -= 1;
        let (name, message) = self.unexpected.remove(node);
        Some((arrival, name, message))
    }

    /// Adds a message that was [borrowed](Matching::borrow) where it had been: before all that arrived after it. The
    /// caller has looked with [`arrive`](Matching::arrive) before. Cost: a step for each older message of its queues.
    pub fn put_back(&mut self, arrival: Arrival, name: Name, message: M) {
        let node = self.unexpected.add_again((name, message), arrival.0);
        for class in 0..CLASSES {
            if self.kept[class] {
                self.unexpected.link_by_age(node, class, Label::of_name(&name, class));
            }
        }
        self.unexpected_count += 1;
    }

    /// Takes out the earliest message of this name that is `wanted`. Cost: a step for each message of the name.
    pub fn take_if(&mut self, name: &Name, wanted: impl Fn(&M) -> bool) -> Option<M> {
        let mut node = self.unexpected.head(Label::of_name(name, EXACT))?;
        while !wanted(&self.unexpected.value(node).1) {
            node = self.unexpected.next(node, EXACT)?;
        }
        self.unexpected_count -= 1;
        Some(self.unexpected.remove(node).1)
    }

    /// Looks at the earliest message that satisfies the pattern.
    pub fn peek(&mut self, pattern: &Pattern) -> Option<(Name, &M)> {
        let node = self.find(pattern)?;
        let (name, message) = self.unexpected.value(node);
        Some((*name, message))
    }

    /// What a posted receive asks for.
    pub fn pattern(&self, posted: Posted) -> Pattern {
        match self.newest {
            Some((node, label)) if node == posted.0 => label.pattern(),
            _ => self.posted.label(posted.0, 0).pattern(),
        }
    }

    /// Number of receives posted.
    #[cfg(test)]
    pub(crate) fn posted_len(&self) -> usize {
        self.queued + usize::from(self.newest.is_some())
    }

    /// Number of messages kept.
    pub fn unexpected_len(&self) -> usize {
        self.unexpected_count
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.posted.capacity() + self.unexpected.capacity()
    }

    #[inline]
    fn find(&mut self, pattern: &Pattern) -> Option<u32> {
        if self.unexpected_count == 0 { None } else { self.find_kept(pattern) }
    }

    fn find_kept(&mut self, pattern: &Pattern) -> Option<u32> {
        let label = Label::of_pattern(pattern);
        if !self.kept[label.class()] {
            self.begin_to_keep(label.class());
        }
        self.unexpected.head(label)
    }

    /// Builds the queues of a class from what is there. Happens at most three times in a lifetime.
    #[cold]
    fn begin_to_keep(&mut self, class: usize) {
        self.kept[class] = true;
        for node in self.unexpected.all_by_age() {
            let name = self.unexpected.value(node).0;
            self.unexpected.link(node, class, Label::of_name(&name, class));
        }
    }
}

#[cfg(test)]
mod tests;
