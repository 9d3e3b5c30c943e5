//! What a server knows of its job: who is where.

use std::collections::HashSet;
use std::path::Path;

use crate::error::JobFault;
use crate::sys::{Infos, Item, PMIX_MAX_NSLEN, RegexText};

/// A job, as one of its hosts sees it. The same on all of them but for `here`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name: no other job's of this user. 1 to 255 bytes without blank, comma, semicolon.
    pub name: String,
    /// Its hosts, in the same order everywhere. Each rank from 0 on stands at exactly one.
    pub hosts: Vec<JobHost>,
    /// Which of them this is.
    pub here: usize,
    /// The `:` block of the command line that each rank belongs to; empty where there is one.
    pub appnums: Vec<u32>,
    /// How many ranks there could be, spawned ones included (`MPI_UNIVERSE_SIZE`); at least those there are.
    pub universe: u32,
}

/// A host of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobHost {
    /// What its ranks call it. No other host's, no blank, comma, semicolon.
    pub name: String,
    /// Its ranks, in the order of their local numbers.
    pub ranks: Vec<u32>,
}

impl Job {
    /// Number of ranks.
    pub fn size(&self) -> u32 {
        self.hosts.iter().map(|host| host.ranks.len() as u32).sum()
    }

    /// The host of `rank`, as an index.
    pub fn host_of(&self, rank: u32) -> Option<usize> {
        self.hosts.iter().position(|host| host.ranks.contains(&rank))
    }

    /// The ranks of this host.
    pub(crate) fn ranks_here(&self) -> &[u32] {
        &self.hosts[self.here].ranks
    }

    /// Finds what libpmix would stumble over.
    pub(crate) fn check(&self) -> Result<(), JobFault> {
        let names = [&self.name].into_iter().chain(self.hosts.iter().map(|host| &host.name));
        for name in names {
            let bad = |byte: u8| b",; ".contains(&byte) || byte.is_ascii_control();
            if !(1..=PMIX_MAX_NSLEN).contains(&name.len()) || name.bytes().any(bad) {
                return Err(JobFault::Name { name: name.clone() });
            }
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.hosts.iter().find(|host| !seen.insert(&host.name)) {
            return Err(JobFault::Twice { name: twice.name.clone() });
        }
        let ranks: Vec<u32> = self.hosts.iter().flat_map(|host| host.ranks.iter().copied()).collect();
        let mut sorted = ranks.clone();
        sorted.sort_unstable();
        if let Some((rank, _)) = (0..).zip(&sorted).find(|(expected, rank)| expected != *rank) {
            return Err(JobFault::Ranks { rank, size: (ranks.len() as u32).saturating_sub(1) });
        }
        if self.here >= self.hosts.len() {
            return Err(JobFault::Here { host: self.here });
        }
        if !self.appnums.is_empty() && self.appnums.len() != ranks.len() {
            return Err(JobFault::Blocks { blocks: self.appnums.len(), ranks: ranks.len() });
        }
        Ok(())
    }

    /// The hosts' names: `a,b`.
    pub(crate) fn host_list(&self) -> String {
        let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        names.join(",")
    }

    /// The ranks of each host: `0,1;2,3`.
    pub(crate) fn rank_lists(&self) -> String {
        let lists: Vec<String> = self.hosts.iter().map(|host| comma_list(&host.ranks)).collect();
        lists.join(";")
    }

    /// All that ranks may ask about the job, for `PMIx_server_register_nspace`. `hosts` and `ranks` are
    /// [`Job::host_list`] and [`Job::rank_lists`] as libpmix packs them.
    pub(crate) fn infos(&self, hosts: RegexText, ranks: RegexText, folder: &Path) -> Infos {
        let (size, here) = (self.size(), self.ranks_here());
        let folder = folder.to_string_lossy().into_owned();
        let blocks = self.appnums.iter().max().map_or(1, |last| last + 1);
        let mut infos = Infos::new()
            .with("pmix.jobid", Item::Text(self.name.clone()))
            .with("pmix.univ.size", Item::U32(self.universe.max(size)))
            .with("pmix.max.size", Item::U32(self.universe.max(size)))
            .with("pmix.job.size", Item::U32(size))
            .with("pmix.job.napps", Item::U32(blocks))
            .with("pmix.num.nodes", Item::U32(self.hosts.len() as u32))
            .with("pmix.nlist", Item::Text(self.host_list()))
            .with("pmix.nmap", Item::Regex(hosts))
            .with("pmix.pmap", Item::Regex(ranks))
            .with("pmix.nodeid", Item::U32(self.here as u32))
            .with("pmix.node.size", Item::U32(here.len() as u32))
            .with("pmix.local.size", Item::U32(here.len() as u32))
            .with("pmix.lpeers", Item::Text(comma_list(here)))
            .with("pmix.tmpdir", Item::Text(folder.clone()))
            .with("pmix.nsdir", Item::Text(folder));
        if let Some(leader) = here.iter().min() {
            infos.push("pmix.lldr", Item::Rank(*leader));
        }
        if blocks > 1 {
            (0..blocks).for_each(|block| infos.push("pmix.app.arr", Item::Array(self.block_infos(block))));
        }
        for (node, host) in (0..).zip(&self.hosts) {
            for (local, rank) in (0..).zip(&host.ranks) {
                let rank = self.rank_infos(*rank, local, node, host);
                infos.push("pmix.pdata", Item::Array(rank));
            }
        }
        infos
    }

    fn appnum(&self, rank: u32) -> u32 {
        self.appnums.get(rank as usize).copied().unwrap_or(0)
    }

    fn block_infos(&self, block: u32) -> Infos {
        let ranks = || (0..self.size()).filter(|rank| self.appnum(*rank) == block);
        Infos::new()
            .with("pmix.appnum", Item::U32(block))
            .with("pmix.app.size", Item::U32(ranks().count() as u32))
            .with("pmix.aldr", Item::Rank(ranks().next().unwrap_or(0)))
    }

    /// What is said about one rank. libpmix wants its number first.
    fn rank_infos(&self, rank: u32, local: u16, node: u32, host: &JobHost) -> Infos {
        let block = self.appnum(rank);
        let place = (0..rank).filter(|other| self.appnum(*other) == block).count() as u32;
        Infos::new()
            .with("pmix.rank", Item::Rank(rank))
            .with("pmix.appnum", Item::U32(block))
            .with("pmix.grank", Item::Rank(rank))
            .with("pmix.apprank", Item::Rank(if self.appnums.is_empty() { rank } else { place }))
            .with("pmix.lrank", Item::U16(local))
            .with("pmix.nrank", Item::U16(local))
            .with("pmix.nodeid", Item::U32(node))
            .with("pmix.hname", Item::Text(host.name.clone()))
            .with("pmix.reinc", Item::U32(0))
    }
}

fn comma_list(ranks: &[u32]) -> String {
    let ranks: Vec<String> = ranks.iter().map(u32::to_string).collect();
    ranks.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(hosts: &[(&str, &[u32])]) -> Job {
        let hosts =
            hosts.iter().map(|(name, ranks)| JobHost { name: name.to_string(), ranks: ranks.to_vec() });
        Job { name: "job".to_owned(), hosts: hosts.collect(), here: 0, appnums: Vec::new(), universe: 0 }
    }

    #[test]
    fn hosts_and_ranks_are_listed_as_libpmix_reads_them() {
        let job = job(&[("a", &[0, 3]), ("b", &[1, 2])]);
        assert_eq!(job.check(), Ok(()));
        assert_eq!((job.host_list().as_str(), job.rank_lists().as_str()), ("a,b", "0,3;1,2"));
        assert_eq!((job.size(), job.host_of(2), job.host_of(4)), (4, Some(1), None));
    }

    #[test]
    fn a_job_that_does_not_hold_together_is_refused_with_what_is_wrong() {
        assert!(matches!(job(&[("a,b", &[0])]).check(), Err(JobFault::Name { .. })));
        assert!(matches!(job(&[("a", &[0]), ("a", &[1])]).check(), Err(JobFault::Twice { .. })));
        assert!(matches!(job(&[("a", &[0, 2])]).check(), Err(JobFault::Ranks { rank: 1, .. })));
        assert!(matches!(job(&[("a", &[0, 0])]).check(), Err(JobFault::Ranks { .. })));
        assert!(matches!(job(&[]).check(), Err(JobFault::Here { host: 0 })));
        let blocks = Job { appnums: vec![0], ..job(&[("a", &[0, 1])]) };
        assert!(matches!(blocks.check(), Err(JobFault::Blocks { blocks: 1, ranks: 2 })));
    }
}
