//! Entries in queues that are found by label. Everything is recycled: after warm-up nothing is allocated.

use crate::matching::label::Label;

/// Stands for no entry, and for no bin.
const NIL: u32 = u32::MAX;

/// Which end of a queue.
#[derive(Clone, Copy)]
pub(super) enum End {
    Front,
    Back,
}

/// Entries that carry a `V` and lie in up to `LANES` queues each. Queues are found by label.
#[derive(Debug)]
pub(super) struct Queues<V, const LANES: usize> {
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
    /// Bytes of memory for an entry that is alone in its queue.
    pub(super) const ENTRY_BYTES: usize = size_of::<Node<V, LANES>>() + size_of::<Bin>();

    pub(super) fn new() -> Self {
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
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity() + self.bins.capacity() + self.buckets.capacity()
    }

    /// Entries and bins that there are, in use or not.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.nodes.len(), self.bins.len())
    }

    /// Bins looked at so far.
    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// An entry in no queue.
    #[inline]
    pub(super) fn add(&mut self, value: V) -> u32 {
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

    /// As [`Queues::add`], with the stamp that the value had before.
    pub(super) fn add_again(&mut self, value: V, stamp: u64) -> u32 {
        let node = self.add(value);
        self.nodes[node as usize].stamp = stamp;
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
    pub(super) fn remove(&mut self, node: u32) -> V {
        for lane in 0..LANES {
            self.unlink(node, lane);
        }
        self.remove_unlinked(node)
    }

    /// Takes out an entry that is in no queue.
    #[inline]
    pub(super) fn remove_unlinked(&mut self, node: u32) -> V {
        let place = &mut self.nodes[node as usize];
        let value = place.value.take().expect("the entry is in use");
        place.stamp = u64::from(self.node_free);
        self.node_free = node;
        value
    }

    /// A number that is larger for what was added later.
    #[inline]
    pub(super) fn stamp(&self, node: u32) -> u64 {
        self.nodes[node as usize].stamp
    }

    /// All entries, the oldest first.
    pub(super) fn all_by_age(&self) -> Vec<u32> {
        let used = self.nodes.iter().zip(0..).filter(|(node, _)| node.value.is_some());
        let mut by_age: Vec<(u64, u32)> = used.map(|(node, index)| (node.stamp, index)).collect();
        by_age.sort_unstable();
        by_age.into_iter().map(|(_, index)| index).collect()
    }

    pub(super) fn value(&self, node: u32) -> &V {
        self.nodes[node as usize].value.as_ref().expect("the entry is in use")
    }

    #[inline]
    pub(super) fn label(&self, node: u32, lane: usize) -> Label {
        self.bins[self.nodes[node as usize].links[lane].bin as usize].label
    }

    /// First entry of a queue.
    #[inline]
    pub(super) fn head(&self, label: Label) -> Option<u32> {
        let bin = self.find_bin(label);
        if bin == NIL { None } else { Some(self.bins[bin as usize].head) }
    }

    /// The entry behind another one.
    pub(super) fn next(&self, node: u32, lane: usize) -> Option<u32> {
        let next = self.nodes[node as usize].links[lane].next;
        (next != NIL).then_some(next)
    }

    /// Puts an entry behind all others of a queue.
    #[inline]
    pub(super) fn link(&mut self, node: u32, lane: usize, label: Label) {
        self.link_at(node, lane, label, End::Back);
    }

    #[inline]
    pub(super) fn link_at(&mut self, node: u32, lane: usize, label: Label, end: End) {
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
    pub(super) fn link_by_age(&mut self, node: u32, lane: usize, label: Label) {
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
