//! Times: taken, summed up over the ranks, and sorted for their tail. All in microseconds.

use std::time::Instant;

use selvedge::{Communicator, Op, Result};

use super::cli::Repeat;

/// Microseconds since `start`.
pub(crate) fn us_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// Runs `once` for the warm-up and then for the iterations, back to back, and returns the time of each iteration.
///
/// With `tail` the clock is read once per iteration, without it only before the first and after the last, and the
/// answer has a single element: the mean.
pub(crate) fn time_each<E>(
    repeat: Repeat,
    tail: bool,
    mut once: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    for _ in 0..repeat.warmup {
        once()?;
    }
    if !tail {
        let start = Instant::now();
        for _ in 0..repeat.iterations {
            once()?;
        }
        return Ok(vec![us_since(start) / repeat.iterations as f64]);
    }
    let mut samples = Vec::with_capacity(repeat.iterations);
    let mut last = Instant::now();
    for _ in 0..repeat.iterations {
        once()?;
        let now = Instant::now();
        samples.push((now - last).as_secs_f64() * 1e6);
        last = now;
    }
    Ok(samples)
}

/// Runs `once` for the warm-up and then for the iterations, and `between` after each; returns the time of each iteration,
/// without what lies between.
pub(crate) fn time_apart<E>(
    repeat: Repeat,
    mut once: impl FnMut() -> Result<(), E>,
    mut between: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    let mut samples = Vec::with_capacity(repeat.iterations);
    for iteration in 0..repeat.warmup + repeat.iterations {
        let start = Instant::now();
        once()?;
        let us = us_since(start);
        if iteration >= repeat.warmup {
            samples.push(us);
        }
        between()?;
    }
    Ok(samples)
}

/// What reading the clock costs, in nanoseconds: the mean of a batch of readings, in the quickest of some batches.
pub(crate) fn clock_ns() -> f64 {
    const READINGS: u32 = 500;
    let batch = || {
        let start = Instant::now();
        let mut last = start;
        for _ in 0..READINGS {
            last = std::hint::black_box(Instant::now());
        }
        (last - start).as_secs_f64() * 1e9 / f64::from(READINGS)
    };
    (0..20).map(|_| batch()).fold(f64::INFINITY, f64::min)
}

/// The mean. 0 of nothing.
pub(crate) fn mean(samples: &[f64]) -> f64 {
    if samples.is_empty() { 0.0 } else { samples.iter().sum::<f64>() / samples.len() as f64 }
}

/// The middle one, sorting `samples`. 0 of nothing.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

/// The slow end of many iterations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tail {
    /// Half of the iterations took at most this long.
    pub(crate) p50: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1000; the longest when there are fewer.
    pub(crate) p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

impl Tail {
    /// By nearest rank: each figure is a time that one iteration really took. Sorts `samples`; panics without any.
    pub(crate) fn of(samples: &mut [f64]) -> Tail {
        assert!(!samples.is_empty(), "the command line asks for at least one iteration");
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((share * samples.len() as f64).ceil() as usize).max(1) - 1];
        Tail { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: samples[samples.len() - 1] }
    }
}

/// One figure of every rank, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Mean over the ranks.
    pub(crate) mean: f64,
    /// Of the rank that has the least.
    pub(crate) min: f64,
    /// Of the rank that has the most.
    pub(crate) max: f64,
}

impl Spread {
    /// Collective: every rank gives `mine` and gets the same answer. Cost: two small allreduces.
    pub(crate) fn over_ranks(world: &Communicator, mine: f64) -> Result<Spread> {
        let mut sum = [0.0];
        let mut ends = [0.0; 2];
        world.allreduce(&[mine], &mut sum, &Op::sum())?;
        world.allreduce(&[mine, -mine], &mut ends, &Op::max())?;
        Ok(Spread { mean: sum[0] / world.size() as f64, min: -ends[1], max: ends[0] })
    }
}

/// Collective: for each iteration the time of the rank that took longest, on all ranks.
pub(crate) fn slowest_rank(world: &Communicator, mine: &[f64]) -> Result<Vec<f64>> {
    let mut slowest = vec![0.0; mine.len()];
    world.allreduce(mine, &mut slowest, &Op::max())?;
    Ok(slowest)
}

/// Collective: whether it is true on every rank, on all ranks.
pub(crate) fn everywhere(world: &Communicator, here: bool) -> Result<bool> {
    let mut all = [0_u8];
    world.allreduce(&[u8::from(here)], &mut all, &Op::min())?;
    Ok(all[0] == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_thousand_has_one_iteration_above_its_p999() {
        let mut samples: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(Tail::of(&mut samples), Tail { p50: 500.0, p99: 990.0, p999: 999.0, max: 1000.0 });
    }

    #[test]
    fn the_tail_of_one_iteration_is_that_iteration() {
        assert_eq!(Tail::of(&mut [4.5]), Tail { p50: 4.5, p99: 4.5, p999: 4.5, max: 4.5 });
    }

    #[test]
    fn one_slow_batch_does_not_move_the_median() {
        assert_eq!(median(&mut [2.0, 900.0, 1.0, 3.0, 2.0]), 2.0);
    }

    #[test]
    fn every_timed_iteration_has_a_sample_only_with_tail() {
        let mut calls = 0;
        let repeat = Repeat { iterations: 5, warmup: 3 };
        let mut once = || {
            calls += 1;
            Ok::<(), selvedge::Error>(())
        };
        assert_eq!(time_each(repeat, true, &mut once).unwrap().len(), 5);
        assert_eq!(time_each(repeat, false, &mut once).unwrap().len(), 1);
        assert_eq!(calls, 16);
    }

    #[test]
    fn what_lies_between_the_iterations_is_done_each_time_and_not_timed() {
        let mut order = Vec::new();
        let log = std::cell::RefCell::new(&mut order);
        let done = |what| {
            log.borrow_mut().push(what);
            Ok::<(), selvedge::Error>(())
        };
        let repeat = Repeat { iterations: 2, warmup: 1 };
        let samples = time_apart(repeat, || done("once"), || done("between")).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(order, ["once", "between", "once", "between", "once", "between"]);
    }
}
