//! Barriers of some ranks, `WORLD:T`, `NODE:T` or `r1,r2,...:T` (PMI 1.2).
//!
//! A group that lies on one node is that node's own affair. The others are counted by the root: each node tells it, once
//! for all its members, that they are in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::answer::Asker;
use super::{PAIR_BYTES_MAX, Server};
use crate::lex::{LineFault, parse_number};
use crate::tree::{Down, Up};
use crate::{Node, NodeMap};

/// Groups that wait at a time on a node. With names of at most [`PAIR_BYTES_MAX`] each that is 64 MiB, and as many
/// ranks again as the names name.
const GROUPS_MAX: usize = 1024;

/// The groups in which somebody waits, by their one spelling.
pub(super) type Groups = HashMap<String, Waiting>;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    here: BTreeMap<u32, Asker>,
    /// Children below which somebody waits.
    children: BTreeSet<u32>,
    /// At the root: all who have entered.
    entered: BTreeSet<u32>,
}

/// A group as it was asked for, understood.
struct Group {
    /// In one spelling, whoever asks: members ascending, nodes by number.
    name: String,
    members: Vec<u32>,
    tag: u32,
}

impl Group {
    /// `rank` is who asks; `NODE` is the node of it. Between nodes that is written `@N`.
    fn parse(text: &str, rank: Option<u32>, map: &NodeMap) -> Result<Group, LineFault> {
        let size = u32::try_from(map.size()).unwrap_or(u32::MAX);
        let wrong =
            |value: &str| LineFault::BadNumber { field: "group", value: value.chars().take(40).collect() };
        let (who, tag) = text.split_once(':').unwrap_or((text, "0"));
        let tag: u32 = parse_number("group", tag)?;
        let node = match (who.strip_prefix('@'), rank) {
            (Some(number), None) => Some(Node(parse_number("group", number)?)),
            (None, Some(rank)) if who == "NODE" => map.node(rank),
            _ => None,
        };
        if let Some(node) = node {
            let members = map.ranks_on(node).collect();
            return Ok(Group { name: format!("@{}:{tag}", node.0), members, tag });
        }
        if who == "WORLD" {
            return Ok(Group { name: format!("WORLD:{tag}"), members: (0..size).collect(), tag });
        }
        let member = |text: &str| text.parse().ok().filter(|rank| *rank < size).ok_or_else(|| wrong(text));
        let members: BTreeSet<u32> = who.split(',').map(member).collect::<Result<_, _>>()?;
        let list: Vec<String> = members.iter().map(u32::to_string).collect();
        Ok(Group { name: format!("{}:{tag}", list.join(",")), members: members.into_iter().collect(), tag })
    }
}

impl Server {
    /// The ranks do not count as waiting in [`super::State::InBarrier`]: they may have other requests outstanding.
    pub(super) fn enter_group(&mut self, asker: Asker, text: &str) -> Result<(), LineFault> {
        let wrong = || LineFault::BadNumber { field: "group", value: text.chars().take(40).collect() };
        if text.len() > PAIR_BYTES_MAX {
            return Err(wrong());
        }
        let Group { name, members, tag } = Group::parse(text, Some(asker.rank), &self.job.map)?;
        if members.binary_search(&asker.rank).is_err() {
            return Err(wrong());
        }
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&name) {
            self.answer_group(&asker, tag, true);
            return Ok(());
        }
        let members_here: Vec<u32> =
            members.iter().copied().filter(|rank| self.local.binary_search(rank).is_ok()).collect();
        let waiting = self.groups.entry(name.clone()).or_default();
        waiting.here.insert(asker.rank, asker);
        if waiting.here.len() < members_here.len() {
            return Ok(());
        }
        if members_here.len() == members.len() {
            self.end_group(&name, false);
        } else {
            self.group_advances(name, members_here, members.len());
        }
        Ok(())
    }

    pub(super) fn group_from(&mut self, child: u32, group: String, ranks: Vec<u32>) {
        let Ok(Group { name, members, .. }) = Group::parse(&group, None, &self.job.map) else { return };
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&name) {
            return self.down(child, Down::Group { group, full: true });
        }
        self.groups.entry(name.clone()).or_default().children.insert(child);
        let ranks = ranks.into_iter().filter(|rank| members.binary_search(rank).is_ok()).collect();
        self.group_advances(name, ranks, members.len());
    }

    /// More members are in: the root counts them, others tell it.
    fn group_advances(&mut self, name: String, ranks: Vec<u32>, members: usize) {
        if !self.is_root {
            return self.ups.push_back(Up::Group { group: name, ranks });
        }
        let waiting = self.groups.entry(name.clone()).or_default();
        waiting.entered.extend(ranks);
        if waiting.entered.len() == members {
            self.end_group(&name, false);
        }
    }

    pub(super) fn end_group(&mut self, name: &str, full: bool) {
        let Some(waiting) = self.groups.remove(name) else { return };
        let tag = name.rsplit_once(':').and_then(|(_, tag)| tag.parse().ok()).unwrap_or(0);
        for child in waiting.children {
            self.down(child, Down::Group { group: name.to_owned(), full });
        }
        for asker in waiting.here.into_values() {
            self.answer_group(&asker, tag, full);
        }
    }
}
