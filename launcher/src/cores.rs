//! The cores that this process may use, and what of them a rank is bound to. Which those are is decided in
//! [`place`](crate::place). Threads of the rank inherit it.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

/// How ranks are placed on cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// An even share for each, where there are cores enough for all.
    #[default]
    Share,
    /// One core each, with all its hardware threads.
    Core,
    /// One hardware thread each.
    Thread,
    /// All of the NUMA node that it is on.
    Numa,
    /// All of the socket that it is on.
    Socket,
    /// Wherever the system likes.
    None,
}

/// The cores that this process may use.
#[derive(Debug)]
pub struct Cores {
    numbers: Vec<usize>,
}

impl Cores {
    /// Asks the system.
    ///
    /// # Errors
    /// The system's, such as more cores than its sets have places for.
    pub fn ours() -> io::Result<Cores> {
        let all = sched_getaffinity(None)?;
        let numbers = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core)).collect();
        Ok(Cores { numbers })
    }

    /// Those that this process may use, as the system numbers them.
    pub fn numbers(&self) -> Vec<u32> {
        self.numbers.iter().filter_map(|&core| u32::try_from(core).ok()).collect()
    }

    /// These hardware threads as a rank is bound to them; `None` where none of them is ours, or the list is empty: then the
    /// rank is not bound.
    pub fn set_of(&self, cpus: &[u32]) -> Option<CpuSet> {
        let known = |cpu: &&u32| self.numbers.contains(&(**cpu as usize));
        let known: Vec<usize> = cpus.iter().filter(known).map(|&cpu| cpu as usize).collect();
        let mut set = CpuSet::new();
        known.iter().for_each(|&cpu| set.set(cpu));
        (!known.is_empty()).then_some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_bound_to_what_is_ours_and_nobody_to_nothing() {
        let cores = Cores::ours().unwrap();
        let first = cores.numbers()[0];
        let set = cores.set_of(&[first, u32::MAX]).unwrap();
        assert!(set.is_set(first as usize) && set.count() == 1);
        assert!(cores.set_of(&[]).is_none());
        assert!(cores.set_of(&[u32::MAX]).is_none());
        assert!(cores.set_of(&[1_000_000]).is_none());
    }
}
