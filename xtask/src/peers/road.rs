//! The roads that libraries are compared on, what is measured on each, and the proof that the bytes went there.
//!
//! A library left to itself takes shared memory between two ranks of one host, whatever it was asked for; so each job on a
//! road that can be counted is held against the count.

use clap::ValueEnum;
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
        }
    }

    pub(super) fn jobs(self) -> &'static [Job] {
        match self {
            Road::Shm => SHM_JOBS,
            Road::Tcp => TCP_JOBS,
            Road::Efa => EFA_JOBS,
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
        }
    }

    /// How the file name of the library begins that stands for a device, where one does.
    pub(super) fn device(self) -> Option<&'static str> {
        match self {
            Road::Shm | Road::Tcp => None,
            Road::Efa => Some("libsoftefa"),
        }
    }
}

/// Counts what a road carries while a job runs.
#[derive(Debug)]
pub(super) struct Meter {
    road: Road,
    devices: Option<Devices>,
}

impl Meter {
    /// `devices`: those of the job, where the road is one of them.
    pub(super) fn new(road: Road, devices: Option<Devices>) -> Meter {
        Meter { road, devices }
    }

    /// Runs a job, and lets its answer through if what the ranks received has gone by the road. Others on the same road can
    /// hide the contrary only when they move as much themselves.
    pub(super) fn around(&self, job: impl FnOnce() -> Result<Value, String>) -> Result<Value, String> {
        if let Some(devices) = &self.devices {
            devices.reset()?;
        }
        let before = if self.road == Road::Tcp { loopback_bytes()? } else { 0 };
        let answer = job()?;
        let carried = match (self.road, &self.devices) {
            (Road::Tcp, _) => loopback_bytes()?.saturating_sub(before),
            (Road::Efa, Some(devices)) => devices.counters()?.delivered_bytes(),
            // Nobody counts loads and stores.
            _ => return Ok(answer),
        };
        let (needed, road) = (received_bytes(&answer)?, self.road.name());
        if carried >= needed {
            return Ok(answer);
        }
        Err(format!("the ranks received {needed} bytes and {road} carried {carried}: they took another road"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_that_moved_nothing_took_another_road() {
        let rows = json!([{"bytes": 1_u64 << 40, "iterations": 10}]);
        let answer = json!({"bench": "latency", "ranks": 2, "rows": rows});
        let through = |road| Meter::new(road, None).around(|| Ok(answer.clone()));
        assert!(through(Road::Tcp).expect_err("nobody moves ten tebibytes").contains("another road"));
        assert_eq!(through(Road::Shm), Ok(answer.clone()));
    }
}
