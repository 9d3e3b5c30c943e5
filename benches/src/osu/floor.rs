//! The limit of the machine, in the units of the other benchmarks: the way of one cache line from core to core, which
//! every message has to go, and memcpy, which every copy is.
//!
//! Cache line: two threads, each pinned to a core, take turns writing a word and waiting for the other's. The waiting
//! side does nothing but load (a pause instruction would add up to 140 cycles). One way is half a round. Two figures:
//! - *a line for each direction*, written by one side and read by the other: what two queues between two processes are
//!   made of, so the floor of `osu latency`;
//! - *one line that both write*: whoever reads it takes it over and needs not ask again before it answers. Less than
//!   half of the other on some processors, and the floor of anything that hands a single word back and forth (a lock).
//!
//! memcpy, warm: from one page-aligned buffer into another, the same two again and again, as `osu latency` does with
//! its two buffers, whose contents never change: this is what a transfer with one copy does there.
//! memcpy, remote: the same, but another core has written the source just before, as programs that compute do. A
//! transfer may beat both: two cores can copy at the same time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crossbeam_utils::CachePadded;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use super::buffer::Aligned;
use super::cli::{Cli, Plan};
use super::place::cpus_allowed;
use super::stats::{median, us_since};
use super::table::{Output, rounded};

/// Round trips of a cache line in a batch, and batches: 0.2 s at 160 ns one way. Batches are short, so that on a busy
/// machine most of them pass without a thread being moved off its processor, and the median is of those.
const ROUNDS: u64 = 100;
const BATCHES: usize = 6000;
/// Time spent on each size of memcpy, both ways of doing it.
const COPY_TIME: Duration = Duration::from_millis(100);
/// A timed batch of copies moves at least this much, so that reading the clock does not show.
const BATCH_BYTES: usize = 256 << 10;
/// Most batches of copies at one size.
const COPY_BATCHES: usize = 1000;

/// Why there is no floor to be had here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FloorError {
    #[error("two processors are needed, and this process may run on {0} (see taskset -p $$)")]
    Processors(usize),
    #[error("cannot run on processor {cpu}: {source}")]
    Pin { cpu: usize, source: io::Error },
    #[error("cannot write the results: {0}")]
    Output(#[from] io::Error),
}

#[derive(Serialize)]
struct Document {
    bench: &'static str,
    cache_line_us: f64,
    shared_line_us: f64,
    cpus: [usize; 2],
    memcpy: Vec<Copying>,
}

/// Median time of one memcpy.
#[derive(Serialize)]
struct Copying {
    bytes: usize,
    us: f64,
    remote_us: f64,
}

/// Measures and reports.
pub(crate) fn run(cli: &Cli, plan: &Plan, mut output: Output) -> Result<(), FloorError> {
    let cpus = match cli.cpus[..] {
        [a, b] => [a, b],
        _ => two_cores(&cpus_allowed())?,
    };
    for cpu in cpus {
        // Tried on a thread of its own: this one stays free.
        thread::scope(|scope| joined(scope.spawn(|| pin(cpu))))?;
    }
    let lines: [CachePadded<AtomicU64>; 3] = Default::default();
    let cache_line_us = bounce(cpus, &lines[0], &lines[1])?;
    let shared_line_us = bounce(cpus, &lines[2], &lines[2])?;
    let [a, b] = cpus;
    output.print(&format!(
        "\n# Selvedge floor of this machine, CPUs {a} and {b}\n\
         # One cache line from core to core, one way: {cache_line_us:.3} us\n\
         # The same where both sides write one line:  {shared_line_us:.3} us\n\
         # memcpy between two buffers, median; warm: the same two again and again; remote: CPU {b} has just written \
         the source\n{:<10}{:>18}{:>18}{:>18}\n",
        "# Size", "Warm(us)", "Warm(MB/s)", "Remote(us)"
    ))?;
    let mut memcpy = Vec::new();
    for &bytes in &plan.sizes {
        let (us, remote_us) = (warm_us(cpus, bytes)?, remote_us(cpus, bytes)?);
        output.print(&format!("{bytes:<10}{us:>18.3}{:>18.0}{remote_us:>18.3}\n", bytes as f64 / us))?;
        memcpy.push(Copying { bytes, us: rounded(us), remote_us: rounded(remote_us) });
    }
    let (cache_line_us, shared_line_us) = (rounded(cache_line_us), rounded(shared_line_us));
    output.finish(&Document { bench: "floor", cache_line_us, shared_line_us, cpus, memcpy })?;
    Ok(())
}

/// The first two processors that are not threads of one core; the first two when all are.
fn two_cores(allowed: &[usize]) -> Result<[usize; 2], FloorError> {
    let [first, second, ..] = *allowed else { return Err(FloorError::Processors(allowed.len())) };
    let siblings = format!("/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list");
    let siblings = parse_cpu_list(&fs::read_to_string(siblings).unwrap_or_default());
    let other = allowed[1..].iter().find(|cpu| !siblings.contains(cpu));
    Ok([first, other.copied().unwrap_or(second)])
}

/// The kernel's way of writing a set of processors: `0-1,8`. What is not a number is left out.
fn parse_cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Keeps the calling thread on one processor.
fn pin(cpu: usize) -> Result<(), FloorError> {
    let refused = |source: io::Error| FloorError::Pin { cpu, source };
    if cpu >= CpuSet::MAX_CPU {
        return Err(refused(io::ErrorKind::InvalidInput.into()));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|errno| refused(errno.into()))
}

/// What the thread returned; its panic goes on in the caller.
fn joined<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `here` on the first processor and `there` on the second, at the same time.
fn on_both<R: Send>(
    cpus: [usize; 2],
    here: impl FnOnce() -> R + Send,
    there: impl FnOnce() + Send,
) -> Result<R, FloorError> {
    thread::scope(|scope| {
        // Whoever is refused its processor still plays its part, else the other would wait for ever.
        let there = scope.spawn(move || {
            let pinned = pin(cpus[1]);
            there();
            pinned
        });
        let here = scope.spawn(move || {
            let pinned = pin(cpus[0]);
            let result = here();
            pinned.map(|()| result)
        });
        let result = joined(here);
        joined(there)?;
        result
    })
}

/// Microseconds from core to core, one way. Odd numbers go there over `ping`, even ones come back over `pong`, which may
/// be the same.
fn bounce(cpus: [usize; 2], ping: &AtomicU64, pong: &AtomicU64) -> Result<f64, FloorError> {
    const TURNS: u64 = ROUNDS * BATCHES as u64;
    let there = || {
        for turn in 0..TURNS {
            // SYNC: pairs with the store to `ping` below.
            while ping.load(Ordering::Acquire) != 2 * turn + 1 {}
            pong.store(2 * turn + 2, Ordering::Release);
        }
    };
    let here = || {
        let mut turns = 0..TURNS;
        let mut batch = || {
            let start = Instant::now();
            for turn in turns.by_ref().take(ROUNDS as usize) {
                ping.store(2 * turn + 1, Ordering::Release);
                // SYNC: pairs with the store to `pong` above.
                while pong.load(Ordering::Acquire) != 2 * turn + 2 {}
            }
            us_since(start) / ROUNDS as f64 / 2.0
        };
        let mut samples: Vec<f64> = (0..BATCHES).map(|_| batch()).collect();
        median(&mut samples)
    };
    on_both(cpus, here, there)
}

/// Time of one copy of `bytes` between two buffers that nobody else touches.
fn warm_us(cpus: [usize; 2], bytes: usize) -> Result<f64, FloorError> {
    let here = move || {
        let (source, mut target) = (Aligned::new(b'a', bytes), Aligned::new(b'b', bytes));
        let copies = (BATCH_BYTES / bytes.max(1)).max(1);
        let mut samples = Vec::new();
        let begin = Instant::now();
        while samples.len() < 3 || samples.len() < COPY_BATCHES && begin.elapsed() < COPY_TIME {
            let start = Instant::now();
            for _ in 0..copies {
                copy(source.as_slice(), target.as_mut_slice());
            }
            samples.push(us_since(start) / copies as f64);
        }
        median(&mut samples)
    };
    on_both(cpus, here, || {})
}

/// Time of one copy of `bytes` that the other core wrote just before. Includes one reading of the clock.
fn remote_us(cpus: [usize; 2], bytes: usize) -> Result<f64, FloorError> {
    const STOP: u64 = u64::MAX;
    let source = &Mutex::new(Aligned::new(b'a', bytes));
    // Even: the source is being copied. Odd: it is being written.
    let turn = &CachePadded::new(AtomicU64::new(0));
    let locked = move || source.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let there = move || {
        let mut seen = 0;
        loop {
            match turn.load(Ordering::Acquire) {
                STOP => break,
                now if now % 2 == 1 && now != seen => {
                    seen = now;
                    locked().as_mut_slice().fill(now as u8);
                    // SYNC: pairs with the load in `here`.
                    turn.store(now + 1, Ordering::Release);
                }
                _ => std::hint::spin_loop(),
            }
        }
    };
    let here = move || {
        let mut target = Aligned::new(b'b', bytes);
        let mut samples = Vec::new();
        let begin = Instant::now();
        let mut now = 0;
        while samples.len() < 3 || samples.len() < COPY_BATCHES && begin.elapsed() < COPY_TIME {
            // SYNC: pairs with the load in `there`.
            turn.store(now + 1, Ordering::Release);
            now += 2;
            while turn.load(Ordering::Acquire) != now {
                std::hint::spin_loop();
            }
            let source = locked();
            let start = Instant::now();
            copy(source.as_slice(), target.as_mut_slice());
            samples.push(us_since(start));
        }
        turn.store(STOP, Ordering::Release);
        median(&mut samples)
    };
    on_both(cpus, here, there)
}

/// One memcpy that the compiler may neither leave out nor merge with the next.
fn copy(source: &[u8], target: &mut [u8]) {
    target.copy_from_slice(std::hint::black_box(source));
    std::hint::black_box(target);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_of_processors_is_read() {
        assert_eq!(parse_cpu_list("0\n"), [0]);
        assert_eq!(parse_cpu_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert!(parse_cpu_list("").is_empty());
        assert_eq!(parse_cpu_list("x,3"), [3]);
    }

    #[test]
    fn one_processor_is_too_few() {
        assert!(two_cores(&[3]).unwrap_err().to_string().contains("two processors"));
    }

    #[test]
    fn a_processor_that_does_not_exist_is_an_error_and_not_a_hang() {
        assert!(pin(CpuSet::MAX_CPU + 5).is_err());
        assert!(on_both([0, CpuSet::MAX_CPU], || 1, || {}).is_err());
    }
}
