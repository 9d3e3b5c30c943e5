//! What there is on this host, as plain data: read once, judged by the checks, made up by their tests.
//!
//! Everything that lies in a file is read below a root that the caller names, so that a test can build a host out of a
//! folder. What can only be tried (a copy between two processes, a look-up of our own name, loading a library) is in
//! [`Tried`] and filled in by `live.rs`.

mod devices;
mod host;
mod limits;
mod net;
mod tree;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(crate) use devices::counters_folder;
pub use devices::{Node, Pci, Verbs};
pub use host::{Container, Kernel, Machine, Place};
pub use limits::{Cgroup, Huge, Limit, Memory, Process, Tmpfs};
pub use net::Interface;
pub(crate) use net::is_link_local;
pub use tree::Tree;

/// A host, as one process sees it. What could not be read is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scene {
    /// The kernel and its settings.
    pub kernel: Kernel,
    /// What kind of machine or container this is.
    pub place: Place,
    /// This process: who it is and what it may have.
    pub process: Process,
    /// Memory of the host.
    pub memory: Memory,
    /// Limits of the control group.
    pub cgroup: Cgroup,
    /// Devices on the PCI bus that matter here: Amazon's, and whatever serves verbs.
    pub pci: Vec<Pci>,
    /// Devices of the verbs subsystem (`/sys/class/infiniband`).
    pub verbs: Vec<Verbs>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// The environment.
    #[serde(skip)]
    pub variables: Vec<(String, String)>,
    /// What was tried.
    pub tried: Tried,
}

/// What can only be learnt by doing it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tried {
    /// Shared memory between two processes of ours; `Err` in words.
    pub sharing: Option<Result<Sharing, String>>,
    /// Addresses that our own host name leads to; `Err` in words.
    pub own_name: Option<Result<Vec<IpAddr>, String>>,
    /// What came of looking for libfabric.
    pub fabric: Option<Fabric>,
}

/// What two processes that share memory found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sharing {
    /// Whether the kernel lets each copy from and to the other (process_vm_readv(2)).
    pub single_copy: bool,
}

/// What came of looking for libfabric.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fabric {
    /// Every libfabric that was found, in the order in which they would be taken.
    pub libraries: Vec<Library>,
    /// Why none could be loaded, in words; `None` when one was.
    pub trouble: Option<String>,
    /// What there is to do about [`Fabric::trouble`].
    pub remedy: Option<String>,
    /// Roads that could be opened, in words.
    pub usable: Vec<Usable>,
    /// Roads that could not.
    pub refused: Vec<Refused>,
}

/// A libfabric on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Library {
    /// Where it lies.
    pub path: String,
    /// Its version, of the one that was loaded.
    pub version: Option<(u32, u32)>,
}

/// A road over libfabric that can be taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usable {
    /// Name of the provider, as `--transport` takes it: `efa-direct`, `efa`, `tcp`.
    pub provider: String,
    /// Names of its network cards.
    pub nics: Vec<String>,
    /// Queue pairs that each of them has, for all ranks of the host together; of EFA only.
    pub queue_pairs: Option<u32>,
}

/// A road over libfabric that cannot be taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Name of the provider.
    pub provider: String,
    /// The card, where it is about one.
    pub nic: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Scene {
    /// Reads all there is in files below `tree`. `variables` is the environment; `addresses` the addresses of the
    /// interfaces by their kernel index, which no file tells. Cost: some hundred small reads, no more than 50 ms.
    pub fn read(tree: &Tree, variables: Vec<(String, String)>, addresses: &[(u32, IpAddr)]) -> Scene {
        let process = Process::read(tree);
        Scene {
            kernel: Kernel::read(tree),
            place: Place::read(tree, &variables),
            memory: Memory::read(tree),
            cgroup: Cgroup::read(tree),
            pci: devices::pci(tree),
            verbs: devices::verbs(tree),
            interfaces: net::interfaces(tree, addresses),
            process,
            variables,
            tried: Tried::default(),
        }
    }

    /// EFA devices on the PCI bus, with or without a driver.
    pub fn efa_devices(&self) -> impl Iterator<Item = &Pci> {
        self.pci.iter().filter(|device| device.is_efa())
    }

    /// Number of EFA devices on the PCI bus.
    pub fn efa_count(&self) -> usize {
        self.efa_devices().count()
    }

    /// The verbs device that belongs to a PCI device.
    pub fn verbs_of(&self, pci: &Pci) -> Option<&Verbs> {
        self.verbs.iter().find(|verbs| verbs.pci.as_deref() == Some(pci.address.as_str()))
    }

    /// Value of a variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Processors that this process may use: its affinity mask and the quota of its control group, at least 1.
    pub fn processors(&self) -> u32 {
        let mask = self.process.processors.unwrap_or(1);
        let quota = self.cgroup.cpu_quota.map_or(mask, |quota| quota.ceil() as u32);
        mask.min(quota).max(1)
    }
}
