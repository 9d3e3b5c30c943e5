//! What one node knows of the job's keys and values, without a word about who asks.
//!
//! ```text
//!   put --> gathered --(all are in)--> rising --(the root has spoken)--> settled <-- what comes from above
//! ```
//! The root settles all that was put. The others settle what was put at them and below (it has passed through them
//! anyway), what rides down with a fence, and what somebody asked for. So a node never knows a settled value that the
//! one above it does not know, and needs no list of who has what: news of a key go only where the key is known.

use std::collections::HashMap;

use crate::tree::{Card, FenceEnd};

/// Keys and values of a job, in bytes: 1 MiB each for 256 ranks. Every node keeps to it, all three parts together.
pub const STORE_BYTES_MAX: usize = 256 << 20;

/// Where a value was put: here, or at or below a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Here,
    Child(u32),
}

#[derive(Debug)]
struct Put {
    value: String,
    from: Source,
    /// Others have put the same key since the last fence, and lost.
    contested: bool,
}

/// News of a fence, for all children but the one it came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News<T> {
    pub(super) what: T,
    pub(super) from: Source,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    settled: HashMap<String, String>,
    gathered: HashMap<String, Put>,
    rising: HashMap<String, Put>,
    bytes: usize,
    overflow: bool,
}

impl Store {
    /// A store in which these pairs are settled from the start.
    pub(super) fn with(pairs: &[(String, String)]) -> Store {
        let mut store = Store::default();
        for (key, value) in pairs {
            store.learn(key.clone(), value.clone());
        }
        store
    }

    /// Takes what a rank puts, for the next fence; false where there is no room.
    pub(super) fn put(&mut self, key: String, value: String, from: Source) -> bool {
        let bytes = key.len() + value.len();
        if self.bytes + bytes > STORE_BYTES_MAX {
            self.overflow |= from != Source::Here;
            return false;
        }
        self.bytes += bytes;
        let key_bytes = key.len();
        let mut put = Put { value, from, contested: false };
        if let Some(old) = self.gathered.get(&key) {
            self.bytes -= key_bytes + old.value.len();
            put.contested = old.contested || old.from != from;
        }
        self.gathered.insert(key, put);
        true
    }

    /// What a rank of this node sees: what was put here is visible here at once.
    pub(super) fn seen_here(&self, key: &str) -> Option<&String> {
        let unsettled = self.gathered.get(key).or_else(|| self.rising.get(key));
        unsettled.map(|put| &put.value).or_else(|| self.settled.get(key))
    }

    /// What may be told to other nodes, who keep it: only what a fence has settled.
    pub(super) fn settled(&self, key: &str) -> Option<&String> {
        self.settled.get(key)
    }

    /// All are in: what was gathered is on its way up.
    pub(super) fn rise(&mut self) {
        debug_assert!(self.rising.is_empty(), "one fence at a time");
        self.rising = std::mem::take(&mut self.gathered);
    }

    /// What is on its way up, and whether more was put below than fits.
    pub(super) fn rising(&mut self) -> (impl Iterator<Item = Card> + '_, bool) {
        let overflow = std::mem::take(&mut self.overflow);
        let card = |(key, put): (&String, &Put)| Card { key: key.clone(), value: put.value.clone() };
        (self.rising.iter().map(card), overflow)
    }

    pub(super) fn rising_bytes(&self) -> usize {
        self.rising.iter().map(|(key, put)| key.len() + put.value.len()).sum()
    }

    /// A value from above: settled there, so here too.
    pub(super) fn learn(&mut self, key: String, value: String) {
        self.forget(&key);
        // Never for what the root has settled: it keeps to the same limit.
        if self.bytes + key.len() + value.len() <= STORE_BYTES_MAX {
            self.bytes += key.len() + value.len();
            self.settled.insert(key, value);
        }
    }

    /// A key has a new value, settled above; whether this node or one below may know an old one.
    pub(super) fn forget(&mut self, key: &str) -> bool {
        let rising = self.rising.remove(key).map(|put| put.value);
        let settled = self.settled.remove(key);
        let known = rising.is_some() || settled.is_some();
        for value in rising.into_iter().chain(settled) {
            self.bytes -= key.len() + value.len();
        }
        known
    }

    /// The fence has ended: what has risen and was not replaced from above counts. Gives the news for the children.
    pub(super) fn settle(&mut self, end: FenceEnd) -> (Vec<News<Card>>, Vec<News<String>>) {
        let (mut cards, mut stale) = (Vec::new(), Vec::new());
        for (key, put) in std::mem::take(&mut self.rising) {
            if end == FenceEnd::Full {
                self.bytes -= key.len() + put.value.len();
                continue;
            }
            let old = self.settled.insert(key.clone(), put.value.clone());
            if let Some(old) = &old {
                self.bytes -= key.len() + old.len();
            }
            let changed = old.is_some_and(|old| old != put.value);
            if end == FenceEnd::Known {
                cards.push(News { what: Card { key, value: put.value }, from: put.from });
            } else if changed || put.contested {
                stale.push(News { what: key, from: put.from });
            }
        }
        (cards, stale)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn fill(&mut self) {
        self.bytes = STORE_BYTES_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, key: &str, value: &str, from: Source) {
        assert!(store.put(key.into(), value.into(), from));
    }

    #[test]
    fn what_was_put_is_seen_here_at_once_and_told_to_others_only_after_the_fence() {
        let mut store = Store::default();
        put(&mut store, "k", "v", Source::Here);
        assert_eq!((store.seen_here("k").map(String::as_str), store.settled("k")), (Some("v"), None));
        store.rise();
        assert_eq!((store.seen_here("k").map(String::as_str), store.settled("k")), (Some("v"), None));
        store.settle(FenceEnd::Asked);
        assert_eq!(store.settled("k").map(String::as_str), Some("v"));
    }

    #[test]
    fn only_keys_that_somebody_may_know_are_called_stale() {
        let mut store = Store::default();
        for (round, value) in ["a", "b", "b"].into_iter().enumerate() {
            put(&mut store, "k", value, Source::Child(1));
            store.rise();
            let (cards, stale) = store.settle(FenceEnd::Asked);
            let expected = News { what: "k".to_owned(), from: Source::Child(1) };
            assert_eq!((cards, stale), (vec![], if round == 1 { vec![expected] } else { vec![] }));
        }
        put(&mut store, "new", "here", Source::Here);
        put(&mut store, "new", "there", Source::Child(0));
        store.rise();
        assert_eq!(store.settle(FenceEnd::Asked).1.len(), 1, "whoever lost must be told");
    }

    #[test]
    fn bytes_are_those_of_all_three_parts_whatever_happens() {
        let mut store = Store::default();
        put(&mut store, "k", "1234", Source::Here);
        put(&mut store, "k", "12", Source::Child(0));
        assert_eq!(store.bytes(), 3);
        store.rise();
        put(&mut store, "k", "123", Source::Here);
        assert_eq!(store.bytes(), 7);
        store.settle(FenceEnd::Known);
        store.rise();
        store.settle(FenceEnd::Known);
        assert_eq!(store.bytes(), 4);
        put(&mut store, "x", "1", Source::Here);
        store.rise();
        assert!(store.forget("x") && store.forget("k") && !store.forget("k"));
        assert_eq!(store.bytes(), 0);
        put(&mut store, "x", "1", Source::Here);
        store.rise();
        store.settle(FenceEnd::Full);
        assert_eq!((store.bytes(), store.seen_here("x")), (0, None));
    }

    #[test]
    fn what_does_not_fit_from_below_is_remembered_until_the_fence() {
        let mut store = Store::default();
        store.fill();
        assert!(!store.put("k".into(), "v".into(), Source::Here));
        assert!(!store.rising().1, "the rank was told, that is enough");
        assert!(!store.put("k".into(), "v".into(), Source::Child(0)));
        assert!(store.rising().1);
        assert!(!store.rising().1);
    }
}
