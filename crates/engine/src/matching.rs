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

use selvedge_transport::Peer;

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
    pub const UNEXPECTED_ENTRY_BYTES: usize = size_of::<Node<(Name, M), CLASSES>>() + size_of::<Bin>();

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
        heads.chain(exact).min_by_key(|&node| self.posted.nodes[node as usize].stamp)
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
        let arrival = Arrival(self.unexpected.nodes[node as usize].stamp);
        self.unexpected_count -= 1;
        let (name, message) = self.unexpected.remove(node);
        Some((arrival, name, message))
    }

    /// Adds a message that was [borrowed](Matching::borrow) where it had been: before all that arrived after it. The
    /// caller has looked with [`arrive`](Matching::arrive) before. Cost: a step for each older message of its queues.
    pub fn put_back(&mut self, arrival: Arrival, name: Name, message: M) {
        let node = self.unexpected.add((name, message));
        self.unexpected.nodes[node as usize].stamp = arrival.0;
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
            node = self.unexpected.nodes[node as usize].links[EXACT].next;
            if node == NIL {
                return None;
            }
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
    pub fn posted_len(&self) -> usize {
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
        let nodes = self.unexpected.nodes.iter().enumerate().filter(|(_, node)| node.value.is_some());
        let mut by_age: Vec<_> = nodes.map(|(index, node)| (node.stamp, index as u32)).collect();
        by_age.sort_unstable();
        for (_, node) in by_age {
            let name = self.unexpected.value(node).0;
            self.unexpected.link(node, class, Label::of_name(&name, class));
        }
    }
}

const EXACT: usize = 0;
const ANY_SOURCE: usize = 1;
const ANY_TAG: usize = 2;
const CLASSES: usize = 4;
const NIL: u32 = u32::MAX;

/// Name of a queue: context (32 bits), source (30), class (2) in one word, the tag in the other; zero where open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    place: u64,
    tag: u64,
}

/// Sources have 30 bits in a label.
pub(crate) const PEERS_MAX: usize = 1 << 30;

impl Label {
    #[inline]
    fn of_name(name: &Name, class: usize) -> Label {
        let source = if class & ANY_SOURCE != 0 { 0 } else { name.source.0 };
        let tag = if class & ANY_TAG != 0 { 0 } else { name.tag.0 };
        Label::new(name.context, source, tag, class)
    }

    #[inline]
    fn of_pattern(pattern: &Pattern) -> Label {
        let (source, any_source) = pattern.source.map_or((0, ANY_SOURCE), |source| (source.0, 0));
        let (tag, any_tag) = pattern.tag.map_or((0, ANY_TAG), |tag| (tag.0, 0));
        Label::new(pattern.context, source, tag, any_source | any_tag)
    }

    #[inline]
    fn new(context: Context, source: u32, tag: u64, class: usize) -> Label {
        debug_assert!((source as usize) < PEERS_MAX);
        Label { place: u64::from(context.0) << 32 | u64::from(source) << 2 | class as u64, tag }
    }

    #[inline]
    fn class(self) -> usize {
        (self.place & 3) as usize
    }

    /// The pattern that it was made of.
    fn pattern(self) -> Pattern {
        let source = Peer((self.place as u32) >> 2);
        Pattern {
            context: Context((self.place >> 32) as u32),
            source: (self.class() & ANY_SOURCE == 0).then_some(source),
            tag: (self.class() & ANY_TAG == 0).then_some(Tag(self.tag)),
        }
    }

    /// One wide multiplication, high half folded onto the low one (as in wyhash). Labels are our own: no adversary.
    #[inline]
    fn hash(self) -> u64 {
        let wide =
            u128::from(self.place ^ 0xa076_1d64_78bd_642f) * u128::from(self.tag ^ 0xe703_7ed1_a0b4_28db);
        wide as u64 ^ (wide >> 64) as u64
    }
}

#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

/// Entries that carry a `V` and lie in up to `LANES` queues each. Queues are found by label.
#[derive(Debug)]
struct Queues<V, const LANES: usize> {
    nodes: Vec<Node<V, LANES>>,
    node_free: u32,
    /// Chains of bins by hash; a power of two of them, at least one per bin, so chains are short.
    buckets: Vec<u32>,
    bins: Vec<Bin>,
    bin_free: u32,
    bins_used: usize,
    stamp_next: u64,
    /// Bins looked at, for the test that this does not grow.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

/// An entry. Free ones have no value and are chained by their stamp.
#[derive(Debug)]
struct Node<V, const LANES: usize> {
    links: [Link; LANES],
    stamp: u64,
    value: Option<V>,
}

/// Place of an entry in the queue of one lane; `bin` is [`NIL`] where it is in none.
#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    bin: u32,
}

const UNLINKED: Link = Link { previous: NIL, next: NIL, bin: NIL };

/// A queue that is not empty, or a free one.
#[derive(Debug)]
struct Bin {
    label: Label,
    /// The next bin in the same bucket, or the next free one.
    chain: u32,
    head: u32,
    tail: u32,
}

impl<V, const LANES: usize> Queues<V, LANES> {
    fn new() -> Self {
        Queues {
            nodes: Vec::new(),
            node_free: NIL,
            buckets: vec![NIL; 64],
            bins: Vec::new(),
            bin_free: NIL,
            bins_used: 0,
            stamp_next: 0,
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        }
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.nodes.capacity() + self.bins.capacity() + self.buckets.capacity()
    }

    /// An entry in no queue.
    #[inline]
    fn add(&mut self, value: V) -> u32 {
        let stamp = self.stamp_next;
        self.stamp_next += 1;
        let node = self.node_free;
        if node == NIL {
            return self.grow(Node { links: [UNLINKED; LANES], stamp, value: Some(value) });
        }
        let place = &mut self.nodes[node as usize];
        self.node_free = place.stamp as u32;
        place.stamp = stamp;
        place.value = Some(value);
        node
    }

    #[cold]
    fn grow(&mut self, node: Node<V, LANES>) -> u32 {
        let index = u32::try_from(self.nodes.len()).expect("fewer than 2^32 operations in flight");
        self.nodes.push(node);
        index
    }

    /// Takes an entry out of all its queues.
    #[inline]
    fn remove(&mut self, node: u32) -> V {
        for lane in 0..LANES {
            self.unlink(node, lane);
        }
        self.remove_unlinked(node)
    }

    /// Takes out an entry that is in no queue.
    #[inline]
    fn remove_unlinked(&mut self, node: u32) -> V {
        let place = &mut self.nodes[node as usize];
        let value = place.value.take().expect("the entry is in use");
        place.stamp = u64::from(self.node_free);
        self.node_free = node;
        value
    }

    fn value(&self, node: u32) -> &V {
        self.nodes[node as usize].value.as_ref().expect("the entry is in use")
    }

    #[inline]
    fn label(&self, node: u32, lane: usize) -> Label {
        self.bins[self.nodes[node as usize].links[lane].bin as usize].label
    }

    /// First entry of a queue.
    #[inline]
    fn head(&self, label: Label) -> Option<u32> {
        let bin = self.find_bin(label);
        if bin == NIL { None } else { Some(self.bins[bin as usize].head) }
    }

    #[inline]
    fn link(&mut self, node: u32, lane: usize, label: Label) {
        self.link_at(node, lane, label, End::Back);
    }

    #[inline]
    fn link_at(&mut self, node: u32, lane: usize, label: Label, end: End) {
        let mut bin = self.find_bin(label);
        if bin == NIL {
            bin = self.add_bin(label);
            let place = &mut self.bins[bin as usize];
            (place.head, place.tail) = (node, node);
            self.nodes[node as usize].links[lane] = Link { previous: NIL, next: NIL, bin };
            return;
        }
        let place = &mut self.bins[bin as usize];
        match end {
            End::Back => {
                let last = std::mem::replace(&mut place.tail, node);
                self.nodes[last as usize].links[lane].next = node;
                self.nodes[node as usize].links[lane] = Link { previous: last, next: NIL, bin };
            }
            End::Front => {
                let first = std::mem::replace(&mut place.head, node);
                self.nodes[first as usize].links[lane].previous = node;
                self.nodes[node as usize].links[lane] = Link { previous: NIL, next: first, bin };
            }
        }
    }

    /// Puts an entry before the first of its queue that is younger.
    fn link_by_age(&mut self, node: u32, lane: usize, label: Label) {
        let age = self.nodes[node as usize].stamp;
        let mut younger = self.head(label).unwrap_or(NIL);
        while younger != NIL && self.nodes[younger as usize].stamp < age {
            younger = self.nodes[younger as usize].links[lane].next;
        }
        if younger == NIL {
            return self.link_at(node, lane, label, End::Back);
        }
        let Link { previous, bin, .. } = self.nodes[younger as usize].links[lane];
        if previous == NIL {
            return self.link_at(node, lane, label, End::Front);
        }
        self.nodes[previous as usize].links[lane].next = node;
        self.nodes[younger as usize].links[lane].previous = node;
        self.nodes[node as usize].links[lane] = Link { previous, next: younger, bin };
    }

    #[inline]
    fn unlink(&mut self, node: u32, lane: usize) {
        let Link { previous, next, bin } =
            std::mem::replace(&mut self.nodes[node as usize].links[lane], UNLINKED);
        if bin == NIL {
            return;
        }
        match (previous, next) {
            (NIL, NIL) => self.remove_bin(bin),
            (NIL, _) => {
                self.bins[bin as usize].head = next;
                self.nodes[next as usize].links[lane].previous = NIL;
            }
            (_, NIL) => {
                self.bins[bin as usize].tail = previous;
                self.nodes[previous as usize].links[lane].next = NIL;
            }
            _ => {
                self.nodes[previous as usize].links[lane].next = next;
                self.nodes[next as usize].links[lane].previous = previous;
            }
        }
    }

    #[inline]
    fn bucket(&self, label: Label) -> usize {
        label.hash() as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn find_bin(&self, label: Label) -> u32 {
        let mut bin = self.buckets[self.bucket(label)];
        while bin != NIL {
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            let place = &self.bins[bin as usize];
            if place.label == label {
                break;
            }
            bin = place.chain;
        }
        bin
    }

    #[inline]
    fn add_bin(&mut self, label: Label) -> u32 {
        if self.bins_used == self.buckets.len() {
            self.rehash();
        }
        self.bins_used += 1;
        let bucket = self.bucket(label);
        let chain = self.buckets[bucket];
        let fresh = Bin { label, chain, head: NIL, tail: NIL };
        let mut bin = self.bin_free;
        if bin == NIL {
            bin = self.bins.len() as u32;
            self.bins.push(fresh);
        } else {
            let place = &mut self.bins[bin as usize];
            self.bin_free = place.chain;
            *place = fresh;
        }
        self.buckets[bucket] = bin;
        bin
    }

    #[inline]
    fn remove_bin(&mut self, bin: u32) {
        self.bins_used -= 1;
        let Bin { label, chain, .. } = self.bins[bin as usize];
        let bucket = self.bucket(label);
        if self.buckets[bucket] == bin {
            self.buckets[bucket] = chain;
        } else {
            let mut before = self.buckets[bucket] as usize;
            while self.bins[before].chain != bin {
                before = self.bins[before].chain as usize;
            }
            self.bins[before].chain = chain;
        }
        self.bins[bin as usize].chain = std::mem::replace(&mut self.bin_free, bin);
    }

    /// Doubles the buckets. Called when every bin is in use, so all of them move.
    #[cold]
    fn rehash(&mut self) {
        self.buckets = vec![NIL; self.buckets.len() * 2];
        let mut free = self.bin_free;
        let mut is_free = vec![false; self.bins.len()];
        while free != NIL {
            is_free[free as usize] = true;
            free = self.bins[free as usize].chain;
        }
        for bin in (0..self.bins.len()).filter(|&bin| !is_free[bin]) {
            let bucket = self.bucket(self.bins[bin].label);
            self.bins[bin].chain = std::mem::replace(&mut self.buckets[bucket], bin as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The simple algorithm.
    #[derive(Default)]
    struct Oracle {
        posted: Vec<(Pattern, u32)>,
        unexpected: Vec<(Name, u32)>,
    }

    impl Oracle {
        fn arrive(&mut self, name: &Name) -> Option<u32> {
            let at = self.posted.iter().position(|(pattern, _)| pattern.matches(name))?;
            Some(self.posted.remove(at).1)
        }

        fn peek(&self, pattern: &Pattern) -> Option<(Name, u32)> {
            self.unexpected.iter().find(|(name, _)| pattern.matches(name)).copied()
        }

        fn take(&mut self, pattern: &Pattern) -> Option<(Name, u32)> {
            let at = self.unexpected.iter().position(|(name, _)| pattern.matches(name))?;
            Some(self.unexpected.remove(at))
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Receive(Pattern),
        Arrive(Name),
        Peek(Pattern),
        Withdraw(prop::sample::Index),
        Borrow(Pattern),
        PutBack(prop::sample::Index),
        TakeOdd(Name),
    }

    fn name() -> impl Strategy<Value = Name> {
        (0..2_u32, 0..3_u32, 0..3_u64).prop_map(|(context, source, tag)| Name {
            context: Context(context),
            source: Peer(source),
            tag: Tag(tag << 31),
        })
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (name(), any::<bool>(), any::<bool>()).prop_map(|(name, source, tag)| Pattern {
            context: name.context,
            source: source.then_some(name.source),
            tag: tag.then_some(name.tag),
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => pattern().prop_map(Op::Receive),
            4 => name().prop_map(Op::Arrive),
            1 => pattern().prop_map(Op::Peek),
            1 => any::<prop::sample::Index>().prop_map(Op::Withdraw),
            1 => pattern().prop_map(Op::Borrow),
            1 => any::<prop::sample::Index>().prop_map(Op::PutBack),
            1 => name().prop_map(Op::TakeOdd),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn matching_agrees_with_a_scan_of_two_lists(ops in proptest::collection::vec(op(), 0..120)) {
            let mut oracle = Oracle::default();
            let mut matching = Matching::<u32, u32>::default();
            let mut live: Vec<(u32, Posted)> = Vec::new();
            let mut borrowed: Vec<(Arrival, Name, u32)> = Vec::new();
            for (id, op) in (0..).zip(ops) {
                match op {
                    Op::Receive(pattern) => {
                        let expected = oracle.take(&pattern);
                        prop_assert_eq!(matching.take(&pattern), expected);
                        if expected.is_none() {
                            oracle.posted.push((pattern, id));
                            live.push((id, matching.post(pattern, id)));
                        }
                    }
                    Op::Arrive(name) => {
                        let expected = oracle.arrive(&name);
                        prop_assert_eq!(matching.arrive(&name), expected);
                        match expected {
                            Some(gone) => live.retain(|(id, _)| *id != gone),
                            None => {
                                oracle.unexpected.push((name, id));
                                matching.keep(name, id);
                            }
                        }
                    }
                    Op::Peek(pattern) => {
                        let seen = matching.peek(&pattern).map(|(name, id)| (name, *id));
                        prop_assert_eq!(seen, oracle.peek(&pattern));
                    }
                    Op::Withdraw(index) => {
                        if !live.is_empty() {
                            let (id, posted) = live.swap_remove(index.index(live.len()));
                            prop_assert_eq!(matching.withdraw(posted), id);
                            oracle.posted.retain(|(_, posted)| *posted != id);
                        }
                    }
                    Op::Borrow(pattern) => {
                        let got = matching.borrow(&pattern);
                        prop_assert_eq!(got.map(|(_, name, id)| (name, id)), oracle.take(&pattern));
                        borrowed.extend(got);
                    }
                    Op::PutBack(index) => {
                        if !borrowed.is_empty() {
                            let (arrival, name, id) = borrowed.swap_remove(index.index(borrowed.len()));
                            let expected = oracle.arrive(&name);
                            prop_assert_eq!(matching.arrive(&name), expected);
                            match expected {
                                Some(gone) => live.retain(|(id, _)| *id != gone),
                                None => {
                                    oracle.unexpected.push((name, id));
                                    // Numbers grow with time.
                                    oracle.unexpected.sort_by_key(|(_, id)| *id);
                                    matching.put_back(arrival, name, id);
                                }
                            }
                        }
                    }
                    Op::TakeOdd(name) => {
                        let is_it = |(other, id): &(Name, u32)| *other == name && id % 2 == 1;
                        let at = oracle.unexpected.iter().position(is_it);
                        let expected = at.map(|at| oracle.unexpected.remove(at).1);
                        prop_assert_eq!(matching.take_if(&name, |id| id % 2 == 1), expected);
                    }
                }
                prop_assert_eq!(matching.posted_len(), oracle.posted.len());
                prop_assert_eq!(matching.unexpected_len(), oracle.unexpected.len());
            }
        }
    }

    fn exact(source: u32, tag: u64) -> (Name, Pattern) {
        let (context, source, tag) = (Context(7), Peer(source), Tag(tag));
        (Name { context, source, tag }, Pattern { context, source: Some(source), tag: Some(tag) })
    }

    /// Bins looked at by a hundred rounds of post, arrive, keep, take and a wildcard pair, with `others` receives and
    /// messages on other keys lying around.
    fn steps_beside(others: u32) -> usize {
        let mut matching = Matching::<u32, u32>::default();
        for other in 0..others {
            let (name, pattern) = exact(other % 1_000, 1_000 + u64::from(other / 1_000));
            let elsewhere = Pattern { context: Context(8), ..pattern };
            matching.keep(name, other);
            matching.post(elsewhere, other);
            matching.post(Pattern { source: None, ..elsewhere }, other);
        }
        let (name, pattern) = exact(3, 5);
        let any_tag = Pattern { tag: None, source: Some(Peer(5_000)), ..pattern };
        matching.peek(&any_tag);
        let before = matching.posted.steps.get() + matching.unexpected.steps.get();
        for _ in 0..100 {
            matching.post(pattern, 1);
            assert_eq!(matching.arrive(&name), Some(1));
            matching.keep(name, 2);
            assert_eq!(matching.take(&pattern), Some((name, 2)));
            matching.post(any_tag, 3);
            assert_eq!(matching.arrive(&Name { source: Peer(5_000), ..name }), Some(3));
        }
        matching.posted.steps.get() + matching.unexpected.steps.get() - before
    }

    #[test]
    fn cost_does_not_grow_with_what_lies_on_other_keys() {
        // A chain has less than one stranger on average; five lookups see a few at most.
        for others in [1, 10, 1_000, 100_000] {
            let steps = steps_beside(others) as f64 / 100.0;
            assert!(steps <= 20.0, "{steps} bins per round beside {others} others");
        }
    }

    #[test]
    fn tags_that_are_used_once_leave_nothing_behind() {
        let mut matching = Matching::<u32, u32>::default();
        for tag in 0..10_000 {
            let (name, pattern) = exact(1, tag << 20);
            matching.post(pattern, 0);
            matching.post(pattern, 1);
            assert_eq!([matching.arrive(&name), matching.arrive(&name)], [Some(0), Some(1)]);
            matching.keep(name, 0);
            assert_eq!(matching.take(&Pattern { source: None, ..pattern }), Some((name, 0)));
        }
        assert_eq!((matching.posted.nodes.len(), matching.posted.bins.len()), (2, 1));
        assert_eq!((matching.unexpected.nodes.len(), matching.unexpected.bins.len()), (1, 2));
    }

    #[test]
    fn one_receive_at_a_time_needs_no_queue() {
        let mut matching = Matching::<u32, u32>::default();
        for tag in 0..100 {
            let (name, pattern) = exact(1, tag);
            let posted = matching.post(pattern, 0);
            assert_eq!(matching.withdraw(posted), 0);
            matching.post(Pattern { source: None, ..pattern }, 1);
            assert_eq!((matching.arrive(&name), matching.posted_len()), (Some(1), 0));
        }
        assert_eq!((matching.posted.nodes.len(), matching.posted.bins.len()), (1, 0));
    }

    #[test]
    fn a_message_goes_to_the_earliest_receive_whatever_its_class() {
        let mut matching = Matching::<u32, u32>::default();
        let (name, pattern) = exact(1, 2);
        let patterns = [
            Pattern { source: None, ..pattern },
            pattern,
            Pattern { source: None, tag: None, ..pattern },
            Pattern { tag: None, ..pattern },
        ];
        for (id, pattern) in (0..).zip(patterns) {
            matching.post(pattern, id);
        }
        for id in 0..4 {
            assert_eq!(matching.arrive(&name), Some(id));
        }
        assert_eq!(matching.arrive(&name), None);
    }
}
