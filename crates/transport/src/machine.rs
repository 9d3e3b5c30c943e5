//! What the world costs, as plain numbers that a price is computed from.

/// Cost of one kind of road, LogGP-like (Alexandrov et al., 1995).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// One-way time of an empty message, nanoseconds.
    pub latency_ns: f64,
    /// Processor time a message costs each side, nanoseconds.
    pub overhead_ns: f64,
    /// Time of each further byte, nanoseconds (the inverse of the bandwidth in GB/s).
    pub byte_ns: f64,
}

/// From published measurements (docs/EC2.md). On a machine of another generation the absolute figures are off by up to a factor
/// of three, and what is chosen by them is hardly ever: it depends on their ratios.
impl Link {
    /// Between EFA devices: hpc6a, one network interface.
    pub const EFA: Link = Link { latency_ns: 16_000.0, overhead_ns: 1_150.0, byte_ns: 0.083 };

    /// TCP over ENA: c5n, one flow.
    pub const TCP: Link = Link { latency_ns: 34_800.0, overhead_ns: 2_500.0, byte_ns: 0.83 };
}

/// What the world costs: the input of pricing and of choosing an algorithm. Equal on all ranks of a job, else they
/// would choose differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Between two ranks of one host.
    pub local: Link,
    /// Between two hosts.
    pub remote: Link,
    /// Ranks per host; consecutive ranks share a host.
    pub ranks_per_host: u32,
    /// Processors per host. With fewer than `ranks_per_host`, a message to a waiting rank also pays `switch_ns`.
    pub cores_per_host: u32,
    /// Giving a processor from one waiting rank to another, nanoseconds.
    pub switch_ns: f64,
    /// Reducing one byte into another, nanoseconds.
    pub reduce_byte_ns: f64,
    /// Copying one byte within a process, nanoseconds.
    pub copy_byte_ns: f64,
}

impl Machine {
    /// One host with `ranks` ranks on `cores` processors; figures of a small virtual machine (docs/NUMBERS.md).
    pub const fn one_host(ranks: u32, cores: u32) -> Machine {
        Machine {
            local: Link { latency_ns: 250.0, overhead_ns: 60.0, byte_ns: 0.08 },
            remote: Link::EFA,
            ranks_per_host: ranks,
            cores_per_host: cores,
            switch_ns: 1_500.0,
            reduce_byte_ns: 0.15,
            copy_byte_ns: 0.06,
        }
    }
}
