//! Which cores a rank may run on: an even share of those that mpirun may use.
//!
//! Left to itself the system often runs two ranks that talk with each other on one core, where each waits for the other
//! to give it up; a message then takes twenty microseconds and more instead of a fraction of one. So each rank gets its
//! own share: consecutive cores, as many for each as there are. Threads of the rank inherit it.

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

    /// The cores for the `local`-th of `locals` ranks; `None` where it is not confined: it is alone, there are fewer
    /// cores than ranks, or nobody asked for it.
    fn share(&self, binding: Binding, local: u32, locals: u32) -> Option<&[usize]> {
        let (local, locals, count) = (local as usize, locals as usize, self.numbers.len());
        if binding == Binding::None || locals < 2 || locals > count {
            return None;
        }
        let share = &self.numbers[local * count / locals..(local + 1) * count / locals];
        Some(if binding == Binding::Core { &share[..1] } else { share })
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

    /// Confines this thread, and whatever it starts meanwhile, to the cores of a rank until the answer is dropped.
    /// `None` where the rank is not confined, or the system does not allow it.
    pub fn confine(&self, binding: Binding, local: u32, locals: u32) -> Option<Confined<'_>> {
        let mut set = CpuSet::new();
        self.share(binding, local, locals)?.iter().for_each(|&core| set.set(core));
        sched_setaffinity(None, &set).ok().map(|()| Confined(self))
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

    fn shares(cores: &[usize], binding: Binding, ranks: u32) -> Vec<Option<Vec<usize>>> {
        let cores = Cores { numbers: cores.to_vec(), all: CpuSet::new() };
        (0..ranks).map(|local| cores.share(binding, local, ranks).map(<[usize]>::to_vec)).collect()
    }

    #[test]
    fn every_rank_gets_an_even_share_and_no_core_is_left_over() {
        assert_eq!(shares(&[0, 1, 2, 3], Binding::Share, 2), [Some(vec![0, 1]), Some(vec![2, 3])]);
        assert_eq!(shares(&[4, 7, 9], Binding::Share, 2), [Some(vec![4]), Some(vec![7, 9])]);
        for ranks in 2..12 {
            let twelve: Vec<usize> = (0..12).collect();
            let all: Vec<usize> =
                shares(&twelve, Binding::Share, ranks).into_iter().flatten().flatten().collect();
            assert_eq!(all, twelve);
        }
    }

    #[test]
    fn one_core_each_is_the_first_of_the_share() {
        assert_eq!(shares(&[0, 1, 2, 3], Binding::Core, 2), [Some(vec![0]), Some(vec![2])]);
    }

    #[test]
    fn nobody_is_confined_alone_or_in_a_crowd_or_unasked() {
        assert_eq!(shares(&[0, 1], Binding::Share, 1), [None]);
        assert_eq!(shares(&[0, 1], Binding::Share, 3), [None, None, None]);
        assert_eq!(shares(&[0, 1], Binding::None, 2), [None, None]);
    }
}
