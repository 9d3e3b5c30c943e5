//! The roads that libraries are compared on, what is measured on each, and the proof that the bytes went there.
//!
//! A library left to itself takes shared memory between two ranks of one host, whatever it was asked for; so each job on a
//! road that can be counted is held against the count.

use std::rc::Rc;

use clap::ValueEnum;
use selvedge_testbed::Hosts;
use serde_json::Value;

use crate::osu::{self, loopback_bytes, received_bytes};
use crate::softefa::Devices;

/// How ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Road {
    /// Memory of this host
    Shm,
    /// TCP over loopback
    Tcp,
    /// The efa provider of libfabric, on devices made of software
    Efa,
    /// TCP between two hosts made of namespaces of this machine; needs root
    Hosts,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// Microseconds.
    Time,
    /// Megabytes (10^6) per second: more is better.
    Rate,
    /// MiB that the rank that holds most has taken since its start.
    Memory,
}

/// What is measured: one job per library and round.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) bench: &'static str,
    pub(super) figure: Figure,
    pub(super) ranks: usize,
    /// As `-m` takes them.
    pub(super) range: &'static str,
    /// Those of the range that have a line in the table.
    pub(super) sizes: &'static [u64],
    /// Fewer iterations than osu's default, where it would take a library that spins minutes.
    pub(super) shorter: &'static [&'static str],
}

const SIZES: &[u64] = &[8, 1 << 10, 8 << 10, 64 << 10, 1 << 20, 4 << 20];

/// Small messages take no memory that is worth a word, so what is held is the library's.
const MEMORY: Job = Job {
    bench: "latency",
    figure: Figure::Memory,
    ranks: 2,
    range: "8:8",
    sizes: &[8],
    shorter: &["-i", "1000", "-x", "100", "--memory"],
};

const SHM_JOBS: &[Job] = &[
    Job { bench: "latency", figure: Figure::Time, ranks: 2, range: "8:4194304", sizes: SIZES, shorter: &[] },
    Job { bench: "allreduce", figure: Figure::Time, ranks: 2, range: "8:8", sizes: &[8], shorter: &[] },
    Job {
        bench: "allreduce",
        figure: Figure::Time,
        ranks: 4,
        range: "8:8",
        sizes: &[8],
        shorter: &["-i", "200", "-x", "20"],
    },
    MEMORY,
];

const TCP_JOBS: &[Job] = &[
    Job { bench: "latency", figure: Figure::Time, ranks: 2, range: "8:4194304", sizes: SIZES, shorter: &[] },
    Job { bench: "bw", figure: Figure::Rate, ranks: 2, range: "8:4194304", sizes: SIZES, shorter: &[] },
    MEMORY,
];

impl Job {
    /// The rows that this job printed: sizes in bytes, and figures.
    ///
    /// # Errors
    /// They are those of another job, or of another number of ranks.
    pub(super) fn rows_of(&self, answer: &Value) -> Result<Vec<(u64, f64)>, String> {
        if answer["bench"] != self.bench || answer["ranks"] != self.ranks {
            return Err(format!("expected {} on {} ranks, got {answer}", self.bench, self.ranks));
        }
        let rows = match self.figure {
            Figure::Time => osu::parse_rows(answer, "avg_us")?,
            Figure::Rate => osu::parse_rows(answer, "mb_s")?,
            Figure::Memory => {
                let kib = answer["memory_kib"].as_f64().ok_or("the benchmark printed no memory")?;
                self.sizes.iter().map(|size| (*size, kib / 1024.0)).collect()
            }
        };
        match self.sizes.iter().find(|size| !rows.iter().any(|(bytes, _)| bytes == *size)) {
            Some(missing) => Err(format!("{} printed no row of {missing} bytes", self.bench)),
            None => Ok(rows),
        }
    }

    /// How much better the first is.
    pub(super) fn times(&self, ours: f64, theirs: f64) -> f64 {
        if self.figure == Figure::Rate { ours / theirs } else { theirs / ours }
    }
}

/// Times mean nothing there beyond each other, and a lossy loopback is slow: fewer of each.
const EFA_JOBS: &[Job] = &[
    Job {
        bench: "latency",
        figure: Figure::Time,
        ranks: 2,
        range: "8:8192",
        sizes: &[8, 1 << 10, 4 << 10, 8 << 10],
        shorter: &["-i", "2000", "-x", "200"],
    },
    Job {
        bench: "latency",
        figure: Figure::Time,
        ranks: 2,
        range: "16384:4194304",
        sizes: SWEEP,
        shorter: &["-i", "100", "-x", "10"],
    },
    Job {
        bench: "bw",
        figure: Figure::Rate,
        ranks: 2,
        range: "8:8192",
        sizes: &[8, 1 << 10, 4 << 10, 8 << 10],
        shorter: &["-i", "50", "-x", "5"],
    },
    Job {
        bench: "bw",
        figure: Figure::Rate,
        ranks: 2,
        range: "16384:4194304",
        sizes: SWEEP,
        shorter: &["-i", "5", "-x", "1"],
    },
    MEMORY,
];

/// One rank on each of two hosts, and two: all of them on the same few cores, so fewer iterations of the larger jobs.
const HOSTS_JOBS: &[Job] = &[
    Job {
        bench: "latency",
        figure: Figure::Time,
        ranks: 2,
        range: "8:8",
        sizes: &[8],
        shorter: &["-i", "2000", "-x", "200"],
    },
    Job {
        bench: "bw",
        figure: Figure::Rate,
        ranks: 2,
        range: "1048576:1048576",
        sizes: &[1 << 20],
        shorter: &["-i", "10", "-x", "2"],
    },
    Job {
        bench: "allreduce",
        figure: Figure::Time,
        ranks: 4,
        range: "8:8",
        sizes: &[8],
        shorter: &["-i", "200", "-x", "20"],
    },
    Job {
        bench: "allreduce",
        figure: Figure::Time,
        ranks: 4,
        range: "1048576:1048576",
        sizes: &[1 << 20],
        shorter: &["-i", "20", "-x", "2"],
    },
];

/// Where libfabric's own protocol changes its mind.
const SWEEP: &[u64] =
    &[16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

impl Road {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Road::Shm => "shm",
            Road::Tcp => "tcp",
            Road::Efa => "efa",
            Road::Hosts => "hosts",
        }
    }

    pub(super) fn jobs(self) -> &'static [Job] {
        match self {
            Road::Shm => SHM_JOBS,
            Road::Tcp => TCP_JOBS,
            Road::Efa => EFA_JOBS,
            Road::Hosts => HOSTS_JOBS,
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
            Road::Efa => {
                "Two make-believe hosts with a software EFA device each, under the real efa provider; what the devices counted\n\
                 shows that the bytes went there. Selvedge is on efa-direct, and beside it on efa as the others are. Times say\n\
                 how the libraries compare on this device, and nothing about a card."
            }
            Road::Hosts => {
                "Two hosts, each with network, name and shared memory of its own, on the processors of this machine; nobody is\n\
                 bound to a core. Half of the ranks are on each, and the bytes that left the hosts show it. MPICH, Intel MPI\n\
                 and Selvedge use the tcp provider of libfabric between them, Open MPI its own TCP; within a host all may do\n\
                 as they like."
            }
        }
    }

    /// How the file name of the library begins that stands for a device, where one does.
    pub(super) fn device(self) -> Option<&'static str> {
        match self {
            Road::Shm | Road::Tcp | Road::Hosts => None,
            Road::Efa => Some("libsoftefa"),
        }
    }
}

/// Counts what a road carries while a job runs.
#[derive(Debug)]
pub(super) enum Meter {
    /// Loads and stores: nobody counts them.
    Shm,
    Loopback,
    Devices(Devices),
    /// What leaves all hosts together.
    Hosts(Rc<Hosts>),
}

impl Meter {
    /// Runs a job, and lets its answer through if what the ranks received has gone by the road. Others on the same road can
    /// hide the contrary only when they move as much themselves.
    pub(super) fn around(&self, job: impl FnOnce() -> Result<Value, String>) -> Result<Value, String> {
        if let Meter::Devices(devices) = self {
            devices.reset()?;
        }
        let before = self.carried()?;
        let answer = job()?;
        let carried = self.carried()?.saturating_sub(before);
        let needed = match self {
            Meter::Shm => 0,
            Meter::Loopback | Meter::Devices(_) => received_bytes(&answer)?,
            // Only half of the ranks are elsewhere, and one of them can have the data for all of its host: two messages.
            Meter::Hosts(_) => {
                let ranks = answer["ranks"].as_u64().unwrap_or(2).max(2);
                received_bytes(&answer)? * 2 / ranks + header_bytes(&answer)
            }
        };
        if carried >= needed {
            return Ok(answer);
        }
        Err(format!(
            "the ranks received {needed} bytes and the road carried {carried}: they took another road"
        ))
    }

    /// Bytes so far.
    fn carried(&self) -> Result<u64, String> {
        match self {
            Meter::Shm => Ok(0),
            Meter::Loopback => loopback_bytes(),
            Meter::Devices(devices) => Ok(devices.counters()?.delivered_bytes()),
            Meter::Hosts(hosts) => {
                let sent = hosts.names().into_iter().map(|host| hosts.tx_bytes(&host));
                sent.sum::<Result<u64, _>>().map_err(|error| error.to_string())
            }
        }
    }
}

/// The least that frames add where each iteration waits for a message from the other host and back: headers of Ethernet,
/// IP and TCP. So that a small message that went another way is not covered by what starting the job takes.
fn header_bytes(answer: &Value) -> u64 {
    const HEADERS: u64 = 14 + 20 + 20;
    let rows = answer["rows"].as_array().into_iter().flatten();
    let iterations: u64 = rows.filter_map(|row| row["iterations"].as_u64()).sum();
    if answer["bench"] == "bw" { 0 } else { 2 * iterations * HEADERS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_between_hosts_is_a_frame_with_its_headers() {
        let of = |bench| header_bytes(&json!({"bench": bench, "ranks": 2, "rows": [{"iterations": 100}]}));
        assert_eq!((of("latency"), of("bw")), (10_800, 0));
    }

    #[test]
    fn a_job_that_moved_nothing_took_another_road() {
        let rows = json!([{"bytes": 1_u64 << 40, "iterations": 10}]);
        let answer = json!({"bench": "latency", "ranks": 2, "rows": rows});
        let through = |meter: Meter| meter.around(|| Ok(answer.clone()));
        assert!(through(Meter::Loopback).expect_err("nobody moves ten tebibytes").contains("another road"));
        assert_eq!(through(Meter::Shm), Ok(answer.clone()));
    }
}
