//! Which ranks share a node: the value of `PMI_process_mapping`.
//!
//! ```text
//! mapping = "(vector" 1*( "," item ) ")"
//! item    = block / "[" block *( "," block ) "]x" count
//! block   = node-id / "(" first-node "," node-count "," ranks-per-node ")"
//! ```
//! `(s,n,p)` places p ranks on node s, then p on s+1, and so on for n nodes. A bare number is `(id,1,1)`. A mapping
//! that ends before all ranks are placed starts again at its first block whose first node is 0 (hydra 4 says
//! `(vector,(0,1,1))` for two ranks of one node).

/// A node of the job, `0..nodes`, numbered in the order in which the ranks first use them. Not a rank, and not yet a
/// host: two nodes of a map may turn out to be one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u32);

/// The node of every rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMap {
    of_rank: Vec<Node>,
    nodes: u32,
}

/// Why a mapping cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapFault {
    /// The text does not follow the grammar from this byte on.
    #[error("PMI_process_mapping is not a mapping from byte {at} on: expected {expected}")]
    Grammar {
        /// Where.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// It ends early and does not say where to start again.
    #[error("PMI_process_mapping places {placed} of {size} ranks")]
    Short {
        /// Ranks it places.
        placed: u64,
        /// Ranks of the job.
        size: u32,
    },
}

impl NodeMap {
    /// All `size` ranks on one node.
    pub fn one_node(size: u32) -> NodeMap {
        NodeMap { of_rank: vec![Node(0); size as usize], nodes: u32::from(size > 0) }
    }

    /// Reads a mapping for a job of `size` ranks. Memory: 4 bytes a rank, whatever the text claims.
    ///
    /// # Errors
    /// The place where the text leaves the grammar, or that it places too few ranks.
    ///
    /// ```
    /// use selvedge_boot::{Node, NodeMap};
    /// let map = NodeMap::parse("(vector,(0,2,2))", 4)?;
    /// assert_eq!(map.node(2), Some(Node(1)));
    /// # Ok::<(), selvedge_boot::MapFault>(())
    /// ```
    pub fn parse(text: &str, size: u32) -> Result<NodeMap, MapFault> {
        let blocks = Parser { text: text.as_bytes(), at: 0 }.mapping(size)?;
        let placed: u64 = blocks.iter().map(Block::ranks).sum();
        let wrap = blocks.iter().position(|block| block.first == 0);
        let mut ids = Vec::with_capacity(size as usize);
        let mut place = |block: &Block| {
            for node in 0..block.nodes {
                for _ in 0..block.ranks_per_node {
                    if ids.len() == size as usize {
                        return;
                    }
                    ids.push(block.first.wrapping_add(node));
                }
            }
        };
        blocks.iter().for_each(&mut place);
        if placed < u64::from(size) {
            let wrap = wrap.ok_or(MapFault::Short { placed, size })?;
            let each: u64 = blocks[wrap..].iter().map(Block::ranks).sum();
            for _ in 0..(u64::from(size) - placed).div_ceil(each) {
                blocks[wrap..].iter().for_each(&mut place);
            }
        }
        Ok(NodeMap::from_ids(&ids))
    }

    /// Ranks of which one knows only the name of their node, from rank 0 on: equal names, one node.
    pub fn of_names(names: &[impl AsRef<str>]) -> NodeMap {
        let mut seen = std::collections::HashMap::new();
        let mut number = |name| {
            let next = seen.len() as u32;
            *seen.entry(name).or_insert(next)
        };
        let ids: Vec<u32> = names.iter().map(|name| number(name.as_ref())).collect();
        NodeMap::from_ids(&ids)
    }

    /// Numbers nodes by first appearance.
    fn from_ids(ids: &[u32]) -> NodeMap {
        let mut seen = std::collections::HashMap::new();
        let mut nodes = 0;
        let of_rank = ids
            .iter()
            .map(|id| {
                Node(*seen.entry(*id).or_insert_with(|| {
                    nodes += 1;
                    nodes - 1
                }))
            })
            .collect();
        NodeMap { of_rank, nodes }
    }

    /// The node of `rank`; `None` when there is no such rank.
    pub fn node(&self, rank: u32) -> Option<Node> {
        self.of_rank.get(rank as usize).copied()
    }

    /// Number of nodes.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.of_rank.len()
    }

    /// The ranks of a node, ascending.
    pub fn ranks_on(&self, node: Node) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.of_rank).filter(move |(_, of)| **of == node).map(|(rank, _)| rank)
    }
}

/// The mapping as old clients read it: triples only, no bare numbers, no repeats, no starting again.
impl std::fmt::Display for NodeMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(vector")?;
        let mut runs = self.of_rank.chunk_by(|a, b| a == b).map(|run| (run[0].0, run.len())).peekable();
        while let Some((first, ranks)) = runs.next() {
            let mut nodes = 1;
            while runs.next_if_eq(&(first + nodes, ranks)).is_some() {
                nodes += 1;
            }
            write!(f, ",({first},{nodes},{ranks})")?;
        }
        f.write_str(")")
    }
}

#[derive(Clone, Copy, Debug)]
struct Block {
    first: u32,
    nodes: u32,
    ranks_per_node: u32,
}

impl Block {
    fn ranks(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.ranks_per_node)
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// The blocks in order, repeats written out, as far as `size` ranks need them. Each places at least one rank, so
    /// there are at most `size`.
    fn mapping(&mut self, size: u32) -> Result<Vec<Block>, MapFault> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut placed = 0u64;
        self.expect(b"(", "(vector")?;
        self.expect(b"vector", "(vector")?;
        while self.take(b',') {
            let (list, count) = self.item()?;
            let list: Vec<Block> = list.into_iter().filter(|block| block.ranks() > 0).collect();
            for block in (0..count).take_while(|_| !list.is_empty()).flat_map(|_| &list) {
                if placed >= u64::from(size) {
                    break;
                }
                placed = placed.saturating_add(block.ranks());
                blocks.push(*block);
            }
        }
        self.expect(b")", "a comma or )")?;
        self.skip_blanks();
        if self.at < self.text.len() {
            return Err(self.fault("nothing more"));
        }
        Ok(blocks)
    }

    fn item(&mut self) -> Result<(Vec<Block>, u32), MapFault> {
        if !self.take(b'[') {
            return Ok((vec![self.block()?], 1));
        }
        let mut list = vec![self.block()?];
        while self.take(b',') {
            list.push(self.block()?);
        }
        self.expect(b"]", "a comma or ]")?;
        self.expect(b"x", "x and a count")?;
        Ok((list, self.number()?))
    }

    fn block(&mut self) -> Result<Block, MapFault> {
        if !self.take(b'(') {
            return Ok(Block { first: self.number()?, nodes: 1, ranks_per_node: 1 });
        }
        let first = self.number()?;
        self.expect(b",", "a comma")?;
        let nodes = self.number()?;
        self.expect(b",", "a comma")?;
        let ranks_per_node = self.number()?;
        self.expect(b")", ")")?;
        Ok(Block { first, nodes, ranks_per_node })
    }

    fn number(&mut self) -> Result<u32, MapFault> {
        self.skip_blanks();
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&self.text[self.at..self.at + digits])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(self.fault("a number"))?;
        self.at += digits;
        Ok(number)
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &[u8], expected: &'static str) -> Result<(), MapFault> {
        self.skip_blanks();
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault(expected));
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_blanks(&mut self) {
        self.at += self.text[self.at..].iter().take_while(|byte| **byte == b' ').count();
    }

    fn fault(&self, expected: &'static str) -> MapFault {
        MapFault::Grammar { at: self.at, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(text: &str, size: u32) -> Vec<u32> {
        let map = NodeMap::parse(text, size).unwrap();
        (0..size).map(|rank| map.node(rank).unwrap().0).collect()
    }

    #[test]
    fn every_form_that_launchers_send_is_understood() {
        assert_eq!(nodes("(vector,(0,1,2))", 2), [0, 0]);
        assert_eq!(nodes("(vector,(0,2,2))", 4), [0, 0, 1, 1]);
        assert_eq!(nodes("(vector,(0,1,2),1)", 3), [0, 0, 1]);
        assert_eq!(nodes("(vector,(0,1,2),(1,1,1))", 3), [0, 0, 1]);
        assert_eq!(nodes("(vector,[(0,2,1)]x3)", 6), [0, 1, 0, 1, 0, 1]);
        assert_eq!(nodes("(vector,(0,2,1),(0,2,1),(0,2,1))", 6), [0, 1, 0, 1, 0, 1]);
        assert_eq!(nodes("(vector,0,(1,1,2),0)", 4), [0, 1, 1, 0]);
        assert_eq!(nodes(" ( vector , [ 0 , 1 ] x 2 ) ", 4), [0, 1, 0, 1]);
    }

    #[test]
    fn a_mapping_that_ends_early_starts_again_at_node_0() {
        assert_eq!(nodes("(vector,(0,1,1))", 2), [0, 0]);
        assert_eq!(nodes("(vector,(3,1,1),(0,2,1))", 7), [0, 1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn a_mapping_that_ends_early_without_node_0_is_refused() {
        assert_eq!(NodeMap::parse("(vector,(1,1,1))", 2), Err(MapFault::Short { placed: 1, size: 2 }));
        assert_eq!(NodeMap::parse("(vector,(0,0,4))", 2), Err(MapFault::Short { placed: 0, size: 2 }));
    }

    #[test]
    fn node_ids_are_renumbered_by_first_appearance() {
        assert_eq!(nodes("(vector,(7,1,1),(3,1,2),(7,1,1))", 4), [0, 1, 1, 0]);
    }

    #[test]
    fn absurd_counts_cost_no_more_than_the_job_is_big() {
        assert_eq!(nodes("(vector,(0,1,4294967295))", 3), [0, 0, 0]);
        assert_eq!(nodes("(vector,[(4294967295,2,1)]x4294967295)", 3), [0, 1, 0]);
        assert!(NodeMap::parse("(vector,[(0,4294967295,0)]x4294967295)", 3).is_err());
    }

    #[test]
    fn what_is_not_a_mapping_says_where() {
        for (text, at) in
            [("", 0), ("(vector", 7), ("(vector,", 8), ("(vector,(0,1,2)", 15), ("(vector,(0,1)", 12)]
        {
            let fault = NodeMap::parse(text, 1).unwrap_err();
            assert!(matches!(fault, MapFault::Grammar { at: found, .. } if found == at), "{text}: {fault}");
        }
        assert!(NodeMap::parse("(vector,(0,1,2))x", 1).is_err());
        assert!(NodeMap::parse("(vector,99999999999)", 1).is_err());
    }

    #[test]
    fn ranks_of_a_node_are_found_again() {
        let map = NodeMap::parse("(vector,[(0,2,1)]x3)", 6).unwrap();
        assert_eq!(map.nodes(), 2);
        assert_eq!(map.ranks_on(Node(1)).collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn we_write_triples_only() {
        assert_eq!(NodeMap::one_node(4).to_string(), "(vector,(0,1,4))");
        let cyclic = NodeMap::parse("(vector,[(0,2,1)]x2,(2,1,3))", 7).unwrap();
        assert_eq!(cyclic.to_string(), "(vector,(0,2,1),(0,2,1),(2,1,3))");
    }

    proptest! {
        #[test]
        fn any_map_survives_its_text(ids in prop::collection::vec(0..5u32, 1..40)) {
            let map = NodeMap::from_ids(&ids);
            prop_assert_eq!(NodeMap::parse(&map.to_string(), ids.len() as u32), Ok(map));
        }

        #[test]
        fn random_text_never_panics(text in "\\(?(vector)?[(),\\[\\]x0-9 ]{0,60}", size in 0..100u32) {
            if let Ok(map) = NodeMap::parse(&text, size) {
                prop_assert_eq!(map.size(), size as usize);
            }
        }
    }
}
