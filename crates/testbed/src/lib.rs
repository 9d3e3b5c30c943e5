//! Many hosts out of one machine, for tests: network namespaces on a bridge of their own, real ssh servers on them, and a
//! real Slurm.
//!
//! Read [`Hosts`] first. [`Sshd`] and [`Slurm`] run on hosts.
//!
//! What is *not* here: anything a user's program needs. Tests and `xtask` depend on this crate, nothing else does. It never
//! touches the network of the machine, and no packet leaves it; it starts no service of the system; and when the hosts are
//! dropped, or their process ends in any way, `kill -9` included, everything is gone within seconds: processes,
//! namespaces, files. Needs Linux, root, and the packages that Debian calls iproute2, nftables, openssh-server,
//! slurm-wlm and munge, each for its own part; what is missing is said by name.

mod daemon;
mod error;
mod guardian;
mod hosts;
mod leftovers;
mod namespaces;
mod slurm;
mod sshd;

pub use error::Error;
pub use hosts::{HOSTS_MAX, Hosts};
pub use leftovers::{Leftover, Leftovers, Thing};
pub use slurm::Slurm;
pub use sshd::Sshd;
