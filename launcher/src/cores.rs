//! The cores that this process may use, and confining a rank to some of them. Which those are is decided in
//! [`place`](crate::place). Threads of the rank inherit it.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
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
    all: CpuSet,
}

impl Cores {
    /// Asks the system.
    ///
    /// # Errors
    /// The system's, such as more cores than its sets have places for.
    pub fn ours() -> io::Result<Cores> {
        let all = sched_getaffinity(None)?;
        let numbers = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core)).collect();
        Ok(Cores { numbers, all })
    }

    /// Those that this process may use, as the system numbers them.
    pub fn numbers(&self) -> Vec<u32> {
        self.numbers.iter().filter_map(|&core| u32::try_from(core).ok()).collect()
    }

    /// Confines this thread, and whatever it starts meanwhile, to these hardware threads until the answer is dropped.
    /// `None` where the list is empty (the rank is not bound) or the system does not allow it.
    pub fn bind(&self, cpus: &[u32]) -> Option<Confined<'_>> {
        let mut set = CpuSet::new();
        let known = |cpu: &&u32| self.numbers.contains(&(**cpu as usize));
        let known: Vec<usize> = cpus.iter().filter(known).map(|&cpu| cpu as usize).collect();
        known.iter().for_each(|&cpu| set.set(cpu));
        let bound = !known.is_empty() && sched_setaffinity(None, &set).is_ok();
        bound.then_some(Confined(self))
    }
}

/// This thread runs on the cores of a rank.
#[derive(Debug)]
pub struct Confined<'a>(&'a Cores);

impl Drop for Confined<'_> {
    fn drop(&mut self) {
        // It was allowed a moment ago; if it is not any more, the agent stays where it is and does its work there.
        let _ = sched_setaffinity(None, &self.0.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_confined_as_long_as_the_answer_lives() {
        let cores = Cores::ours().unwrap();
        let numbers = cores.numbers();
        {
            let _bound = cores.bind(&numbers[..1]).unwrap();
            assert_eq!(Cores::ours().unwrap().numbers(), numbers[..1]);
        }
        assert_eq!(Cores::ours().unwrap().numbers(), numbers);
    }

    #[test]
    fn nobody_is_confined_to_nothing_or_to_what_is_not_ours() {
        let cores = Cores::ours().unwrap();
        assert!(cores.bind(&[]).is_none());
        assert!(cores.bind(&[u32::MAX]).is_none());
        assert!(cores.bind(&[1_000_000]).is_none());
    }
}
