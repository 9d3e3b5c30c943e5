//! The command line, and the plan it is turned into. The flags and the defaults are those of the OSU micro-benchmarks
//! 7.4, so that a command that people have in their scripts means the same here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};

use super::collective::Collective;

/// Messages of more bytes than this are repeated less often (OSU: LARGE_MESSAGE_SIZE).
const LARGE_BYTES: usize = 8192;

/// OSU-style micro-benchmarks over Selvedge. Start them with mpirun: `mpirun -n 2 osu latency -m 8:8`.
#[derive(Debug, Parser)]
#[command(name = "osu", version)]
pub(crate) struct Cli {
    /// What to measure
    #[arg(value_enum)]
    pub(crate) bench: Bench,

    /// Message sizes in bytes, doubling from MIN to MAX; one number is MAX, and either side of the colon may be left
    /// out [default: 1:4194304, collectives 1:1048576, reductions 4:1048576]
    #[arg(short = 'm', long = "message-size", value_name = "MIN:MAX", allow_hyphen_values = true)]
    pub(crate) sizes: Option<Sizes>,

    /// Timed iterations at every size [default: latency 10000, bandwidth 100, collectives 1000; above 8192 bytes 1000,
    /// 20, 100]
    #[arg(short = 'i', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) iterations: Option<u32>,

    /// Iterations before the timed ones [default: a hundredth to a tenth of -i's default]
    #[arg(short = 'x', long, value_name = "N")]
    pub(crate) warmup: Option<u32>,

    /// Collectives: also minimum and maximum over the ranks, and the number of iterations
    #[arg(short = 'f', long)]
    pub(crate) full: bool,

    /// Check what arrives, at every size, in iterations of their own; a failure ends with exit code 1
    #[arg(short = 'c', long)]
    pub(crate) validation: bool,

    /// bw, bibw, mbw_mr, mr_mt: messages in flight before an answer is awaited [default: 64]
    #[arg(short = 'W', long = "window-size", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: Option<u32>,

    /// Nonblocking collectives: calls of `test` during the computation [default: 0]
    #[arg(short = 't', long = "num-test-calls", value_name = "N")]
    pub(crate) test_calls: Option<u32>,

    /// latency_mt, mr_mt: threads of each rank that communicate [default: 2]
    #[arg(short = 'T', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) threads: Option<u32>,

    /// Leave out the sizes that need more than this many bytes of buffers in one process
    #[arg(short = 'M', long = "mem-limit", value_name = "BYTES", default_value_t = 512 << 20)]
    pub(crate) memory_limit: usize,

    /// Time every iteration by itself and add p50, p99, p99.9 and the longest
    #[arg(long)]
    pub(crate) tail: bool,

    /// Also say how much memory the rank that holds most has taken since its start, its share of what is shared included
    #[arg(long)]
    pub(crate) memory: bool,

    /// floor: the two processors to measure between [default: the first two that share no core]
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1)]
    pub(crate) cpus: Vec<usize>,

    /// Also write the results as JSON; `-` writes nothing but JSON to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Bench {
    /// One-way time of a message, by ping-pong between 2 ranks
    Latency,
    /// The same by persistent requests, which are made once and started again and again
    LatencyPersistent,
    /// One-way time of a message between many pairs at the same time
    MultiLat,
    /// Windows of messages from rank 0 to rank 1
    Bw,
    /// Windows of messages both ways between 2 ranks
    Bibw,
    /// Windows of messages between many pairs: bandwidth and message rate
    MbwMr,
    /// One-way time of a message between pairs of threads of 2 ranks
    LatencyMt,
    /// Windows of messages between pairs of threads of 2 ranks: bandwidth and message rate
    MrMt,
    /// All wait for all
    Barrier,
    /// One to all
    Bcast,
    /// Sum of all at one
    Reduce,
    /// Sum of all at all
    Allreduce,
    /// A block of each to all
    Allgather,
    /// A block of each for each
    Alltoall,
    /// Nonblocking barrier, overlapped with computation
    Ibarrier,
    /// Nonblocking bcast, overlapped with computation
    Ibcast,
    /// Nonblocking reduce, overlapped with computation
    Ireduce,
    /// Nonblocking allreduce, overlapped with computation
    Iallreduce,
    /// Nonblocking allgather, overlapped with computation
    Iallgather,
    /// Nonblocking alltoall, overlapped with computation
    Ialltoall,
    /// Persistent barrier: made once, started again and again
    BarrierPersistent,
    /// Persistent bcast
    BcastPersistent,
    /// Persistent reduce
    ReducePersistent,
    /// Persistent allreduce
    AllreducePersistent,
    /// Persistent allgather
    AllgatherPersistent,
    /// Persistent alltoall
    AlltoallPersistent,
    /// Time that `init` takes, over the ranks
    Init,
    /// Whether the job starts at all
    Hello,
    /// The limit of this machine in the same units: a cache line from core to core, and memcpy. Needs no mpirun
    Floor,
}

/// Benchmarks that are run and read in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Latency,
    Bandwidth,
    Threads,
    Collective(Collective),
    Nonblocking(Collective),
    Persistent(Collective),
    Start,
    Floor,
}

impl Bench {
    /// Which way of running it applies.
    pub(crate) fn family(self) -> Family {
        use Collective::*;
        match self {
            Bench::Latency | Bench::LatencyPersistent | Bench::MultiLat => Family::Latency,
            Bench::Bw | Bench::Bibw | Bench::MbwMr => Family::Bandwidth,
            Bench::LatencyMt | Bench::MrMt => Family::Threads,
            Bench::Barrier => Family::Collective(Barrier),
            Bench::Bcast => Family::Collective(Broadcast),
            Bench::Reduce => Family::Collective(Reduce),
            Bench::Allreduce => Family::Collective(Allreduce),
            Bench::Allgather => Family::Collective(Allgather),
            Bench::Alltoall => Family::Collective(Alltoall),
            Bench::Ibarrier => Family::Nonblocking(Barrier),
            Bench::Ibcast => Family::Nonblocking(Broadcast),
            Bench::Ireduce => Family::Nonblocking(Reduce),
            Bench::Iallreduce => Family::Nonblocking(Allreduce),
            Bench::Iallgather => Family::Nonblocking(Allgather),
            Bench::Ialltoall => Family::Nonblocking(Alltoall),
            Bench::BarrierPersistent => Family::Persistent(Barrier),
            Bench::BcastPersistent => Family::Persistent(Broadcast),
            Bench::ReducePersistent => Family::Persistent(Reduce),
            Bench::AllreducePersistent => Family::Persistent(Allreduce),
            Bench::AllgatherPersistent => Family::Persistent(Allgather),
            Bench::AlltoallPersistent => Family::Persistent(Alltoall),
            Bench::Init | Bench::Hello => Family::Start,
            Bench::Floor => Family::Floor,
        }
    }

    /// The collective that is measured, in whichever form.
    pub(crate) fn collective(self) -> Option<Collective> {
        match self.family() {
            Family::Collective(what) | Family::Nonblocking(what) | Family::Persistent(what) => Some(what),
            _ => None,
        }
    }

    /// Whether its messages have sizes.
    pub(crate) fn is_sized(self) -> bool {
        self.family() != Family::Start && self.collective() != Some(Collective::Barrier)
    }

    /// As on the command line and in the JSON.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// As in the first line of the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Bench::Latency => "Latency",
            Bench::LatencyPersistent => "Persistent Latency",
            Bench::MultiLat => "Multi Latency",
            Bench::Bw => "Bandwidth",
            Bench::Bibw => "Bi-Directional Bandwidth",
            Bench::MbwMr => "Multiple Bandwidth / Message Rate",
            Bench::LatencyMt => "Multi-threaded Latency",
            Bench::MrMt => "Multi-threaded Message Rate",
            Bench::Barrier => "Barrier Latency",
            Bench::Bcast => "Broadcast Latency",
            Bench::Reduce => "Reduce Latency",
            Bench::Allreduce => "Allreduce Latency",
            Bench::Allgather => "Allgather Latency",
            Bench::Alltoall => "All-to-All Personalized Exchange Latency",
            Bench::Ibarrier => "Non-blocking Barrier Latency",
            Bench::Ibcast => "Non-blocking Broadcast Latency",
            Bench::Ireduce => "Non-blocking Reduce Latency",
            Bench::Iallreduce => "Non-blocking Allreduce Latency",
            Bench::Iallgather => "Non-blocking Allgather Latency",
            Bench::Ialltoall => "Non-blocking All-to-All Latency",
            Bench::BarrierPersistent => "Persistent Barrier Latency",
            Bench::BcastPersistent => "Persistent Broadcast Latency",
            Bench::ReducePersistent => "Persistent Reduce Latency",
            Bench::AllreducePersistent => "Persistent Allreduce Latency",
            Bench::AllgatherPersistent => "Persistent Allgather Latency",
            Bench::AlltoallPersistent => "Persistent All-to-All Latency",
            Bench::Init => "Init",
            Bench::Hello => "Hello",
            Bench::Floor => "Floor of this machine",
        }
    }
}

/// `MIN:MAX` of `-m`; a side that was left out is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    min: Option<usize>,
    max: Option<usize>,
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let (min, max) = text.split_once(':').unwrap_or(("", text));
        let number = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("`{text}` is not a number of bytes")),
        };
        let sizes = Sizes { min: number(min)?, max: number(max)? };
        match sizes {
            Sizes { min: None, max: None } => Err("expected MIN:MAX, MAX or MIN: in bytes".to_owned()),
            Sizes { min: Some(min), max: Some(max) } if min > max => Err(format!("{min} is more than {max}")),
            sizes => Ok(sizes),
        }
    }
}

/// How often a size is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    /// Timed.
    pub(crate) iterations: usize,
    /// Before them, not timed.
    pub(crate) warmup: usize,
}

/// What the measuring code needs to know, with every default filled in. Equal on all ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What to measure.
    pub(crate) bench: Bench,
    /// Message sizes in bytes, ascending; `[0]` for a barrier.
    pub(crate) sizes: Vec<usize>,
    /// Sizes that `-M` left out.
    pub(crate) left_out: usize,
    /// Messages in flight.
    pub(crate) window: usize,
    /// Threads of each rank.
    pub(crate) threads: usize,
    /// Calls of `test` during a computation.
    pub(crate) test_calls: usize,
    /// Minimum and maximum over the ranks as well.
    pub(crate) full: bool,
    /// Check what arrives.
    pub(crate) validation: bool,
    /// Time every iteration by itself.
    pub(crate) tail: bool,
    /// Say what the ranks hold at the end.
    pub(crate) memory: bool,
    iterations: Option<u32>,
    warmup: Option<u32>,
}

/// Why a command line that parsed still makes no sense. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Plan {
    /// Fills in the defaults for `ranks` ranks, and refuses flags that mean nothing to this benchmark.
    pub(crate) fn new(cli: &Cli, ranks: usize) -> Result<Plan, Usage> {
        refuse_strangers(cli)?;
        let family = cli.bench.family();
        let (min, max) = match family {
            Family::Latency | Family::Bandwidth => (1, 4 << 20),
            Family::Threads => (1, 64 << 10),
            Family::Start => (0, 0),
            Family::Collective(collective)
            | Family::Nonblocking(collective)
            | Family::Persistent(collective) => match collective {
                Collective::Barrier => (0, 0),
                collective => (collective.element_bytes(), 1 << 20),
            },
            Family::Floor => (1 << 10, 16 << 20),
        };
        let (window, threads) = (cli.window.unwrap_or(64) as usize, cli.threads.unwrap_or(2) as usize);
        let asked = cli.sizes.unwrap_or(Sizes { min: None, max: None });
        let max = asked.max.unwrap_or(max.max(asked.min.unwrap_or(0)));
        let min = asked.min.unwrap_or(min.min(max));
        let (element_bytes, blocks) = match family {
            Family::Collective(collective)
            | Family::Nonblocking(collective)
            | Family::Persistent(collective) => (collective.element_bytes(), collective.blocks(ranks)),
            Family::Bandwidth => (1, 2),
            Family::Threads => (1, 2 * threads * if cli.bench == Bench::MrMt { window } else { 1 }),
            Family::Latency | Family::Start | Family::Floor => (1, 2),
        };
        let (sizes, left_out): (Vec<usize>, Vec<usize>) = doubling(min, max)
            .filter(|bytes| bytes % element_bytes == 0)
            .partition(|bytes| bytes.saturating_mul(blocks) <= cli.memory_limit);
        if sizes.is_empty() {
            let why = if left_out.is_empty() {
                format!("no size from {min} to {max} is a multiple of {element_bytes} bytes, one element")
            } else {
                format!("every size from {min} to {max} needs more than the {} bytes of -M", cli.memory_limit)
            };
            return Err(Usage(why));
        }
        Ok(Plan {
            bench: cli.bench,
            sizes,
            left_out: left_out.len(),
            window,
            threads,
            test_calls: cli.test_calls.unwrap_or(0) as usize,
            full: cli.full,
            validation: cli.validation,
            tail: cli.tail,
            memory: cli.memory,
            iterations: cli.iterations,
            warmup: cli.warmup,
        })
    }

    /// How often messages of `bytes` are repeated (the loops and skips of OSU 7.4).
    pub(crate) fn repeat(&self, bytes: usize) -> Repeat {
        let large = bytes > LARGE_BYTES;
        let (iterations, warmup) = match (self.bench.family(), large) {
            (Family::Latency, false) => (10_000, 100),
            (Family::Latency, true) => (1000, 10),
            (Family::Bandwidth, false) => (100, 10),
            (Family::Bandwidth, true) => (20, 2),
            (Family::Threads, false) if self.bench == Bench::LatencyMt => (10_000, 100),
            (Family::Threads, _) => (100, 10),
            (_, false) => (1000, 100),
            (_, true) => (100, 10),
        };
        Repeat {
            iterations: self.iterations.map_or(iterations, |n| n as usize),
            warmup: self.warmup.map_or(warmup, |n| n as usize),
        }
    }
}

/// `min`, then twice as much again and again, up to and including `max`. After 0 comes 1.
fn doubling(min: usize, max: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(min), |bytes| if *bytes == 0 { Some(1) } else { bytes.checked_mul(2) })
        .take_while(move |bytes| *bytes <= max)
}

/// A flag that would be ignored is a misunderstanding, and is refused.
fn refuse_strangers(cli: &Cli) -> Result<(), Usage> {
    let family = cli.bench.family();
    let sized = cli.bench.is_sized();
    let collective = cli.bench.collective().is_some();
    let nonblocking = matches!(family, Family::Nonblocking(_));
    let floor = family == Family::Floor;
    let start = family == Family::Start;
    let windowed = family == Family::Bandwidth || cli.bench == Bench::MrMt;
    let strangers = [
        ("-m", cli.sizes.is_some() && !sized, "it has no size"),
        ("-c", cli.validation && (!sized || floor), "there is no data to check"),
        ("-i", cli.iterations.is_some() && start, "a job starts once"),
        ("-x", cli.warmup.is_some() && start, "a job starts once"),
        ("--tail", cli.tail && start, "a job starts once"),
        ("-f", cli.full && !collective, "it belongs to the collectives"),
        ("-W", cli.window.is_some() && !windowed, "it belongs to bw, bibw, mbw_mr and mr_mt"),
        ("-T", cli.threads.is_some() && family != Family::Threads, "it belongs to latency_mt and mr_mt"),
        ("--tail", cli.tail && family == Family::Threads, "threads have no tail of their own"),
        ("-t", cli.test_calls.is_some() && !nonblocking, "it belongs to the nonblocking collectives"),
        ("-i", cli.iterations.is_some() && floor, "floor repeats until its median is steady"),
        ("-x", cli.warmup.is_some() && floor, "floor warms up by itself"),
        ("--tail", cli.tail && floor, "floor reports medians"),
        ("--memory", cli.memory && floor, "it is for ranks"),
        ("--cpus", !cli.cpus.is_empty() && !floor, "mpirun places the ranks"),
    ];
    match strangers.iter().find(|(_, misplaced, _)| *misplaced) {
        Some((flag, _, why)) => Err(Usage(format!("{flag} means nothing to {}: {why}", cli.bench.name()))),
        None if floor && !matches!(cli.cpus.len(), 0 | 2) => {
            Err(Usage("--cpus takes two processors, as in --cpus 0,1".to_owned()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, Usage> {
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| Usage(error.to_string()))?;
        Plan::new(&cli, 4)
    }

    #[test]
    fn sizes_double_from_min_to_max() {
        assert_eq!(plan("osu latency -m 8:8").unwrap().sizes, [8]);
        assert_eq!(plan("osu latency -m 3:20").unwrap().sizes, [3, 6, 12]);
        assert_eq!(plan("osu latency -m 0:4").unwrap().sizes, [0, 1, 2, 4]);
    }

    #[test]
    fn a_side_left_out_of_the_sizes_is_the_default() {
        assert_eq!(plan("osu bw -m 4").unwrap().sizes, [1, 2, 4]);
        assert_eq!(plan("osu bw -m :4").unwrap().sizes, [1, 2, 4]);
        assert_eq!(plan("osu bw -m 2097152:").unwrap().sizes, [2 << 20, 4 << 20]);
        assert_eq!(
            plan("osu bcast -m 8388608:").unwrap().sizes,
            [8 << 20],
            "a minimum above the default maximum"
        );
    }

    #[test]
    fn a_reduction_has_only_whole_elements() {
        assert_eq!(plan("osu allreduce -m 1:16").unwrap().sizes, [4, 8, 16]);
        let refused = plan("osu allreduce -m 1:3").unwrap_err().to_string();
        assert!(refused.contains("multiple of 4 bytes"), "{refused}");
    }

    #[test]
    fn sizes_that_do_not_fit_in_memory_are_left_out_and_counted() {
        let plan = plan("osu alltoall -m 64:256 -M 1024").unwrap();
        assert_eq!((plan.sizes, plan.left_out), (vec![64, 128], 1));
    }

    #[test]
    fn repeats_are_those_of_osu_unless_asked_otherwise() {
        let latency = plan("osu latency").unwrap();
        assert_eq!(latency.repeat(8192), Repeat { iterations: 10_000, warmup: 100 });
        assert_eq!(latency.repeat(8193), Repeat { iterations: 1000, warmup: 10 });
        assert_eq!(plan("osu bw").unwrap().repeat(1 << 20), Repeat { iterations: 20, warmup: 2 });
        assert_eq!(plan("osu bcast").unwrap().repeat(1), Repeat { iterations: 1000, warmup: 100 });
        assert_eq!(plan("osu bcast -i 7 -x 0").unwrap().repeat(9000), Repeat { iterations: 7, warmup: 0 });
    }

    #[test]
    fn flags_that_would_be_ignored_are_refused() {
        for line in [
            "osu latency -W 4",
            "osu latency -T 4",
            "osu latency_mt -W 4",
            "osu mr_mt --tail",
            "osu latency -f",
            "osu barrier -m 8",
            "osu barrier -c",
            "osu barrier_persistent -m 8",
            "osu allreduce_persistent -t 5",
            "osu init -i 5",
            "osu hello -m 8",
            "osu allreduce -t 5",
            "osu floor -i 5",
            "osu floor --cpus 1",
            "osu bw --cpus 0,1",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "osu",
            "osu nothing",
            "osu latency -m 8:4",
            "osu latency -m x",
            "osu latency -m -1:8",
            "osu bw -m :",
            "osu bw -i 0",
            "osu bw -W 0",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
