//! Values that ranks of one node leave for each other, at once and without a fence. PMI-2 has them.

use std::collections::HashMap;

use super::answer::Asker;
use super::{PAIR_BYTES_MAX, Server};
use crate::{Node, pmi2};

/// Keys and values of all of them, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 16 << 20;
/// Questions of one rank that wait for a value at a time: one for each of its threads.
const WAITS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Attributes {
    values: HashMap<(Node, String), String>,
    bytes: usize,
    /// At most [`WAITS_MAX`] of each rank, with keys of at most [`PAIR_BYTES_MAX`].
    waiting: Vec<((Node, String), Asker)>,
}

impl Attributes {
    /// A rank that is gone waits for nothing.
    pub(super) fn forget(&mut self, rank: u32) {
        self.waiting.retain(|(_, asker)| asker.rank != rank);
    }

    fn put(&mut self, at: (Node, String), value: String) -> bool {
        let bytes = at.1.len() + value.len();
        if bytes > PAIR_BYTES_MAX || self.bytes + bytes > ATTRIBUTE_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        let key_bytes = at.1.len();
        if let Some(old) = self.values.insert(at, value) {
            self.bytes -= key_bytes + old.len();
        }
        true
    }
}

impl Server {
    pub(super) fn put_attribute(&mut self, asker: &Asker, key: String, value: String) {
        let at = (self.node(asker.rank), key);
        if !self.attributes.put(at.clone(), value.clone()) {
            let (command, message) = ("info-putnodeattr".into(), "store_is_full".into());
            return self.frame(asker, &pmi2::Reply::Refused { command, rc: 2, message });
        }
        self.frame(asker, &pmi2::Reply::NodeAttrPut);
        let all = std::mem::take(&mut self.attributes.waiting);
        let (served, waiting) = all.into_iter().partition(|(wanted, _)| *wanted == at);
        self.attributes.waiting = waiting;
        for (_, asker) in served {
            self.frame(&asker, &pmi2::Reply::NodeAttr(Some(value.clone())));
        }
    }

    pub(super) fn get_attribute(&mut self, asker: Asker, key: String, wait: bool) {
        let at = (self.node(asker.rank), key);
        let value = self.attributes.values.get(&at).cloned();
        let waits = self.attributes.waiting.iter().filter(|(_, other)| other.rank == asker.rank).count();
        if value.is_some() || !wait || waits >= WAITS_MAX || at.1.len() > PAIR_BYTES_MAX {
            return self.frame(&asker, &pmi2::Reply::NodeAttr(value));
        }
        self.attributes.waiting.push((at, asker));
    }

    fn node(&self, rank: u32) -> Node {
        self.job.map.node(rank).unwrap_or(Node(0))
    }
}
