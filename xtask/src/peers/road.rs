//! The roads that libraries are compared on, what is measured on each, and the proof that the bytes went there.
//!
//! A library left to itself takes shared memory between two ranks of one host, whatever it was asked for; so each job on a
//! road that can be counted is held against the count.

use std::fs;

use clap::ValueEnum;
use serde_json::Value;

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Road {
    /// Memory of this host
    Shm,
    /// TCP over loopback
    Tcp,
}

/// What is measured: one job per library and round.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) bench: &'static str,
    pub(super) ranks: usize,
    /// As `-m` takes them.
    pub(super) range: &'static str,
    /// Those of the range that have a line in the table.
    pub(super) sizes: &'static [u64],
    /// Fewer iterations than osu's default, where it would take a library that spins minutes.
    pub(super) shorter: &'static [&'static str],
}

const SIZES: &[u64] = &[8, 1 << 10, 8 << 10, 64 << 10, 1 << 20, 4 << 20];

const SHM_JOBS: &[Job] = &[
    Job { bench: "latency", ranks: 2, range: "8:4194304", sizes: SIZES, shorter: &[] },
    Job { bench: "allreduce", ranks: 2, range: "8:8", sizes: &[8], shorter: &[] },
    Job { bench: "allreduce", ranks: 4, range: "8:8", sizes: &[8], shorter: &["-i", "200", "-x", "20"] },
];

const TCP_JOBS: &[Job] = &[
    Job { bench: "latency", ranks: 2, range: "8:4194304", sizes: SIZES, shorter: &[] },
    Job { bench: "bw", ranks: 2, range: "8:4194304", sizes: SIZES, shorter: &[] },
];

impl Job {
    /// Whether its figures are rates: more is better.
    pub(super) fn is_rate(&self) -> bool {
        self.bench == "bw"
    }

    /// How much quicker the first is.
    pub(super) fn times(&self, ours: f64, theirs: f64) -> f64 {
        if self.is_rate() { ours / theirs } else { theirs / ours }
    }
}

/// Messages of one window of `bw`, osu's default.
const WINDOW: u64 = 64;

impl Road {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Road::Shm => "shm",
            Road::Tcp => "tcp",
        }
    }

    pub(super) fn jobs(self) -> &'static [Job] {
        match self {
            Road::Shm => SHM_JOBS,
            Road::Tcp => TCP_JOBS,
        }
    }

    /// What the tables mean on this road.
    pub(super) fn legend(self) -> &'static str {
        match self {
            Road::Shm => {
                "Floor: one cache line from core to core (64 bytes and less), else one memcpy with everything warm. Every\n\
                 library has its own launcher and its own defaults: where there are enough cores, Intel MPI and Open MPI\n\
                 keep a rank on one and Selvedge on its share, and MPICH lets the kernel choose."
            }
            Road::Tcp => {
                "All were told to use TCP between two ranks of this host, and the bytes counted on loopback show that they\n\
                 did: MPICH, Intel MPI and Selvedge by the tcp provider of libfabric, Open MPI by its own."
            }
        }
    }

    /// How the file name of the library begins that stands for a device, where one does.
    pub(super) fn device(self) -> Option<&'static str> {
        match self {
            Road::Shm | Road::Tcp => None,
        }
    }

    /// What this road has carried so far, in bytes. `None` where nobody counts.
    fn carried(self) -> Option<Result<u64, String>> {
        match self {
            Road::Shm => None,
            Road::Tcp => Some(loopback_bytes()),
        }
    }
}

/// Reads the count of a road before a job, and again behind it.
pub(super) struct Meter {
    road: Road,
    before: Option<u64>,
}

impl Meter {
    pub(super) fn new(road: Road) -> Result<Meter, String> {
        Ok(Meter { road, before: road.carried().transpose()? })
    }

    /// Whether what the ranks received has gone by the road. Others on the same road can only hide a defect of this size
    /// when they move as much themselves.
    pub(super) fn check(&self, answer: &Value) -> Result<(), String> {
        let (Some(before), Some(after)) = (self.before, self.road.carried().transpose()?) else {
            return Ok(());
        };
        let (carried, needed) = (after.saturating_sub(before), received_bytes(answer)?);
        if carried >= needed {
            return Ok(());
        }
        let road = self.road.name();
        Err(format!("the ranks received {needed} bytes and {road} carried {carried}: they took another road"))
    }
}

/// The least that the ranks of a job received from each other, by the rows it printed.
fn received_bytes(answer: &Value) -> Result<u64, String> {
    let rows = answer["rows"].as_array().ok_or("the benchmark printed no rows")?;
    // Both ends of a ping-pong, and every rank of an allreduce, receive one message of this size at least.
    let messages = match answer["bench"].as_str() {
        Some("bw") => WINDOW,
        _ => answer["ranks"].as_u64().ok_or("the benchmark did not say on how many ranks it ran")?,
    };
    let of_row = |row: &Value| Some(messages * row["bytes"].as_u64()? * row["iterations"].as_u64()?);
    rows.iter().map(of_row).sum::<Option<u64>>().ok_or_else(|| "a row lacks its iterations".to_string())
}

/// Bytes that arrived on the loopback interface since it came up.
fn loopback_bytes() -> Result<u64, String> {
    let table = fs::read_to_string("/proc/net/dev").map_err(|e| format!("reading /proc/net/dev: {e}"))?;
    parse_loopback(&table).ok_or_else(|| "/proc/net/dev has no line of lo".to_string())
}

/// The first figure behind `lo:` (proc_net_dev(5): bytes received).
fn parse_loopback(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_ranks_received_is_read_from_the_rows() {
        let rows = json!([{"bytes": 8, "iterations": 10}, {"bytes": 16, "iterations": 5}]);
        let of = |bench: &str| received_bytes(&json!({"bench": bench, "ranks": 2, "rows": rows}));
        assert_eq!((of("latency"), of("bw")), (Ok(320), Ok(64 * 160)));
        assert!(received_bytes(&json!({"bench": "bw", "ranks": 2, "rows": [{"bytes": 8}]})).is_err());
    }

    #[test]
    fn a_job_that_moved_nothing_took_another_road() {
        let rows = json!([{"bytes": 1_u64 << 40, "iterations": 10}]);
        let answer = json!({"bench": "latency", "ranks": 2, "rows": rows});
        let meter = Meter::new(Road::Tcp).expect("Linux counts");
        assert!(meter.check(&answer).expect_err("nobody moves ten tebibytes").contains("another road"));
        assert_eq!(Meter::new(Road::Shm).expect("nothing to read").check(&answer), Ok(()));
    }

    #[test]
    fn the_bytes_of_loopback_are_found_in_the_table_of_interfaces() {
        let table = "Inter-| Receive\n face |bytes packets\n    lo:  286507168   72143    0\n  eth0: 5 1\n";
        assert_eq!(parse_loopback(table), Some(286_507_168));
        assert_eq!(parse_loopback(" eth0: 5 1\n"), None);
    }
}
