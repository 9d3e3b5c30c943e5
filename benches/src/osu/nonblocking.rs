//! Collectives that are started, computed beside, and waited for: how much of the communication is hidden.
//!
//! As OSU does it: first the pure time of start and wait; then each rank computes just as long between start and wait.
//! Overlap = 100 - (overall - compute) / pure * 100, not below 0.

use std::time::Instant;

use selvedge::{Communicator, Request, Result};

use super::cli::Plan;
use super::collective::{Call, Collective};
use super::stats::{self, Spread, Tail, us_since};
use super::table::{Column, Row, TAIL_COLUMNS};

/// The columns of [`measure`].
pub(crate) fn columns(plan: &Plan) -> Vec<Column> {
    let column = |title, key| Column { title, key };
    let mut columns = vec![column("Overall(us)", "avg_us"), column("Compute(us)", "compute_us")];
    if plan.full {
        columns.push(column("Coll. Init(us)", "init_us"));
        columns.push(column("Test(us)", "test_us"));
        columns.push(column("Wait(us)", "wait_us"));
    }
    columns.push(column("Pure Comm.(us)", "pure_us"));
    if plan.full {
        columns.push(column("Min Comm.(us)", "min_rank_us"));
        columns.push(column("Max Comm.(us)", "max_rank_us"));
    }
    columns.push(column("Overlap(%)", "overlap_percent"));
    if plan.tail {
        columns.extend(TAIL_COLUMNS);
    }
    columns
}

/// Overlap of a collective with messages of `bytes`. The row is the same on all ranks; the tail is that of the overall
/// time.
pub(crate) fn measure(world: &Communicator, plan: &Plan, what: Collective, bytes: usize) -> Result<Row> {
    let mut call = Call::new(world, what, bytes);
    let repeat = plan.repeat(bytes);
    let mut pure_us = 0.0;
    world.barrier()?;
    for iteration in 0..repeat.warmup + repeat.iterations {
        let start = Instant::now();
        start_and_wait(world, &mut call)?;
        let us = us_since(start);
        if iteration >= repeat.warmup {
            pure_us += us / repeat.iterations as f64;
        }
        world.barrier()?;
    }

    let mut work = Work::lasting(pure_us);
    let mut sum = Parts::default();
    let mut samples = Vec::with_capacity(repeat.iterations);
    world.barrier()?;
    for iteration in 0..repeat.warmup + repeat.iterations {
        let parts = overlapped(world, &mut call, &mut work, plan.test_calls)?;
        if iteration >= repeat.warmup {
            sum.add(&parts);
            samples.push(parts.overall);
        }
        world.barrier()?;
    }

    let mean =
        |total: f64| -> Result<f64> { Ok(Spread::over_ranks(world, total / repeat.iterations as f64)?.mean) };
    let (overall, compute) = (mean(sum.overall)?, mean(sum.compute)?);
    let (init, test, wait) = (mean(sum.init)?, mean(sum.test)?, mean(sum.wait)?);
    let pure = Spread::over_ranks(world, pure_us)?;
    let mut values = vec![overall, compute];
    if plan.full {
        values.extend([init, test, wait]);
    }
    values.push(pure.mean);
    if plan.full {
        values.extend([pure.min, pure.max]);
    }
    values.push(overlap_percent(overall, compute, pure.mean));
    if plan.tail {
        values.extend(Tail::of(&mut stats::slowest_rank(world, &samples)?).values());
    }
    let check = |call: &mut Call<'_>| start_and_wait(world, call);
    let valid = if plan.validation { Some(call.check(check)?) } else { None };
    Ok(Row { bytes, values, iterations: repeat.iterations, valid })
}

/// How much of the pure communication time did not show, in percent.
fn overlap_percent(overall: f64, compute: f64, pure: f64) -> f64 {
    (100.0 - (overall - compute) / pure * 100.0).max(0.0)
}

fn start_and_wait(world: &Communicator, call: &mut Call<'_>) -> Result<()> {
    world.scope(|scope| {
        call.start(scope)?.wait()?;
        Ok(())
    })
}

/// Where the time of an overlapped call went, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    overall: f64,
    init: f64,
    compute: f64,
    test: f64,
    wait: f64,
}

impl Parts {
    fn add(&mut self, more: &Parts) {
        self.overall += more.overall;
        self.init += more.init;
        self.compute += more.compute;
        self.test += more.test;
        self.wait += more.wait;
    }
}

/// Starts, computes with `test_calls` tests spread over it, waits.
fn overlapped(
    world: &Communicator,
    call: &mut Call<'_>,
    work: &mut Work,
    test_calls: usize,
) -> Result<Parts> {
    world.scope(|scope| {
        let mut parts = Parts::default();
        let begin = Instant::now();
        let mut request = Some(call.start(scope)?);
        let started = Instant::now();
        parts.init = (started - begin).as_secs_f64() * 1e6;
        for part in 0..=test_calls {
            work.part(part, test_calls + 1);
            if part < test_calls {
                let start = Instant::now();
                test(&mut request)?;
                parts.test += us_since(start);
            }
        }
        let computed = Instant::now();
        parts.compute = (computed - started).as_secs_f64() * 1e6 - parts.test;
        if let Some(request) = request {
            request.wait()?;
        }
        parts.wait = us_since(computed);
        parts.overall = us_since(begin);
        Ok(parts)
    })
}

/// Tests a request that may be complete already, and forgets it once it is.
fn test(request: &mut Option<Request<'_>>) -> Result<()> {
    if let Some(pending) = request
        && pending.test()?.is_some()
    {
        *request = None;
    }
    Ok(())
}

/// A computation of known length that reads no clock: time on the processor, not time passed, so that a rank that was
/// moved off its processor has not computed meanwhile.
struct Work {
    state: [f32; 64],
    units: usize,
}

impl Work {
    /// One that takes about `us` microseconds on an undisturbed processor. Cost: under a millisecond to calibrate.
    fn lasting(us: f64) -> Work {
        const PROBE_UNITS: usize = 1000;
        let mut work = Work { state: [1.0; 64], units: 0 };
        let mut probe = || {
            let start = Instant::now();
            (0..PROBE_UNITS).for_each(|_| work.unit());
            us_since(start) / PROBE_UNITS as f64
        };
        let unit_us = (0..10).map(|_| probe()).fold(f64::INFINITY, f64::min);
        Work { units: (us / unit_us).round() as usize, ..work }
    }

    /// Does part `part` of `parts`.
    fn part(&mut self, part: usize, parts: usize) {
        let (from, to) = (self.units * part / parts, self.units * (part + 1) / parts);
        (from..to).for_each(|_| self.unit());
    }

    /// Some tens of nanoseconds of multiplying and adding.
    fn unit(&mut self) {
        for value in &mut self.state {
            *value = *value * 0.999 + 0.001;
        }
        std::hint::black_box(&mut self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communication_that_costs_no_extra_time_is_fully_overlapped() {
        assert_eq!(overlap_percent(10.0, 10.0, 10.0), 100.0);
    }

    #[test]
    fn communication_after_the_computation_is_not_overlapped() {
        assert_eq!(overlap_percent(20.0, 10.0, 10.0), 0.0);
        assert_eq!(overlap_percent(25.0, 10.0, 10.0), 0.0, "never below 0");
    }

    #[test]
    fn the_parts_of_a_computation_make_up_the_whole() {
        let mut work = Work::lasting(50.0);
        let units = work.units;
        let done: usize = (0..7).map(|part| units * (part + 1) / 7 - units * part / 7).sum();
        assert_eq!(done, units);
        assert!(units > 0);
        work.part(0, 1);
    }
}
