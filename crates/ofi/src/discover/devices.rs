//! What the kernel shows of EFA devices, so that "there is none" can be told from "there is one and nobody can open it".

use std::fs;
use std::path::{Path, PathBuf};

/// Amazon's number in the registry of PCI vendors.
const VENDOR_AMAZON: &str = "0x1d0f";

/// EFA devices have ids from 0xefa0 on, one for each generation (rdma-core, `providers/efa`).
const EFA_IDS: &str = "0xefa";

/// A sentence about what is wrong, and one about what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Trouble {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Trouble {
        Trouble { reason: reason.into(), remedy: remedy.into() }
    }
}

/// EFA devices and their like, from the kernel's point of view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// EFA devices on the PCI bus.
    pub(crate) efa: Vec<PciDevice>,
    /// Devices that verbs programs can see.
    pub(crate) verbs: Vec<VerbsDevice>,
    /// The files by which they are opened, and whether we may.
    pub(crate) nodes: Vec<(PathBuf, bool)>,
}

/// A device on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PciDevice {
    /// Its address.
    pub(crate) address: String,
    /// Its kernel driver, if it has one.
    pub(crate) driver: Option<String>,
}

/// A device of the kernel's verbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerbsDevice {
    /// Its name.
    pub(crate) name: String,
    /// Number of its maker, as the kernel writes it.
    pub(crate) vendor: Option<String>,
    /// Whether it is an EFA device.
    pub(crate) is_efa: bool,
}

impl Devices {
    /// Looks below `root`, which is `/` but in tests. Reads a few files for each PCI device.
    pub(crate) fn look(root: &Path) -> Devices {
        let efa = entries(&root.join("sys/bus/pci/devices"))
            .filter(|folder| is_efa(folder))
            .map(|folder| PciDevice { address: name_of(&folder), driver: link_name(&folder.join("driver")) })
            .collect();
        let verbs = entries(&root.join("sys/class/infiniband"))
            .map(|folder| VerbsDevice {
                name: name_of(&folder),
                vendor: read(&folder.join("device/vendor")),
                is_efa: is_efa(&folder.join("device")),
            })
            .collect();
        let nodes = entries(&root.join("dev/infiniband"))
            .filter(|path| name_of(path).starts_with("uverbs"))
            .map(|path| {
                let opens = fs::OpenOptions::new().read(true).write(true).open(&path).is_ok();
                (path, opens)
            })
            .collect();
        Devices { efa, verbs, nodes }
    }

    /// Why no EFA device can be opened, as far as the kernel shows; `None` when nothing is missing there.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let Some(first) = self.efa.first() else {
            return Some(Trouble::new(
                "this machine has no EFA device (no PCI device 1d0f:efa0 or later)",
                "use an instance type with EFA, and attach a network interface of type EFA to the instance",
            ));
        };
        let address = &first.address;
        if let Some(bare) = self.efa.iter().find(|device| device.driver.is_none()) {
            return Some(Trouble::new(
                format!("the EFA device {} has no kernel driver", bare.address),
                "run the EFA installer, or load the driver with: modprobe efa",
            ));
        }
        if !self.verbs.iter().any(|device| device.is_efa) {
            return Some(Trouble::new(
                format!("the EFA device {address} has a driver, but no verbs device"),
                "load the kernel's verbs with: modprobe ib_uverbs",
            ));
        }
        if self.nodes.is_empty() {
            return Some(Trouble::new(
                format!(
                    "the EFA device {address} is there, but /dev/infiniband/uverbs* is not: this looks like a container"
                ),
                "give the container its devices (docker: --device /dev/infiniband/uverbs0; Kubernetes: the resource vpc.amazonaws.com/efa)",
            ));
        }
        if !self.nodes.iter().any(|(_, opens)| *opens) {
            let node = self.nodes[0].0.display();
            return Some(Trouble::new(
                format!("{node} is there, but this user may not open it"),
                format!("allow reading and writing of {node} (the EFA installer's udev rules do)"),
            ));
        }
        None
    }

    /// Verbs devices of other makers. They do no harm here, and are often taken for what is used.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &VerbsDevice> {
        self.verbs.iter().filter(|device| !device.is_efa)
    }
}

/// The NUMA node of a PCI device, if the machine has several and says so.
pub(crate) fn numa_node(root: &Path, pci: &str) -> Option<u32> {
    // The kernel writes -1 for "it does not matter".
    read(&root.join("sys/bus/pci/devices").join(pci).join("numa_node"))?.parse().ok()
}

/// PCI address, speed in bits per second and driver of a network interface, as far as they are known.
pub(crate) fn interface(root: &Path, name: &str) -> (Option<String>, Option<u64>, Option<String>) {
    let folder = root.join("sys/class/net").join(name);
    let megabits: Option<u64> = read(&folder.join("speed")).and_then(|text| text.parse().ok());
    let pci = link_name(&folder.join("device")).filter(|name| name.split(':').count() == 3);
    let speed = megabits.filter(|&megabits| megabits > 0 && megabits < u64::from(u32::MAX));
    (pci, speed.map(|megabits| megabits * 1_000_000), link_name(&folder.join("device/driver")))
}

fn is_efa(folder: &Path) -> bool {
    let vendor = read(&folder.join("vendor"));
    let device = read(&folder.join("device"));
    vendor.as_deref() == Some(VENDOR_AMAZON) && device.is_some_and(|id| id.starts_with(EFA_IDS))
}

/// The entries of a folder by name; nothing when it is not there.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found.into_iter()
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Name of what a link leads to.
fn link_name(path: &Path) -> Option<String> {
    path.canonicalize().ok().map(|path| name_of(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own that is gone with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("selvedge-devices-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Root(path)
        }

        fn file(&self, path: &str, text: &str) -> &Root {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn pci(&self, address: &str, vendor: &str, device: &str) -> &Root {
            let folder = format!("sys/bus/pci/devices/{address}");
            self.file(&format!("{folder}/vendor"), vendor).file(&format!("{folder}/device"), device)
        }

        fn driver(&self, address: &str) -> &Root {
            fs::create_dir_all(self.0.join("sys/bus/pci/drivers/efa")).unwrap();
            let link = self.0.join(format!("sys/bus/pci/devices/{address}/driver"));
            std::os::unix::fs::symlink(self.0.join("sys/bus/pci/drivers/efa"), link).unwrap();
            self
        }

        fn verbs(&self, name: &str, vendor: &str, device: &str) -> &Root {
            let folder = format!("sys/class/infiniband/{name}/device");
            self.file(&format!("{folder}/vendor"), vendor).file(&format!("{folder}/device"), device)
        }

        fn reason(&self) -> String {
            Devices::look(&self.0).trouble().map_or_else(|| "fine".to_owned(), |trouble| trouble.reason)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_thing_that_can_be_missing_on_the_way_to_a_device_has_its_own_reason() {
        let root = Root::new("steps");
        assert!(root.reason().starts_with("this machine has no EFA device"));
        root.pci("0000:00:05.0", "0x1d0f\n", "0xec20\n");
        assert!(root.reason().starts_with("this machine has no EFA device"), "ENA is not EFA");
        root.pci("0000:00:1e.0", "0x1d0f\n", "0xefa2\n");
        assert_eq!(root.reason(), "the EFA device 0000:00:1e.0 has no kernel driver");
        root.driver("0000:00:1e.0");
        assert_eq!(root.reason(), "the EFA device 0000:00:1e.0 has a driver, but no verbs device");
        root.verbs("rdmap0s30", "0x1d0f\n", "0xefa2\n");
        assert!(root.reason().contains("/dev/infiniband/uverbs* is not"));
        root.file("dev/infiniband/uverbs0", "");
        assert_eq!(root.reason(), "fine");
    }

    #[test]
    fn devices_of_other_makers_are_named_and_never_taken_for_efa() {
        let root = Root::new("foreign");
        root.verbs("mlx5_0", "0x15b3", "0x1019").verbs("rdmap0s30", "0x1d0f", "0xefa1");
        let devices = Devices::look(&root.0);
        let names: Vec<&str> = devices.foreign().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["mlx5_0"]);
    }

    #[test]
    fn what_the_kernel_does_not_know_is_not_made_up() {
        let root = Root::new("unknown");
        root.file("sys/bus/pci/devices/0000:00:1e.0/numa_node", "-1\n")
            .file("sys/class/net/eth0/speed", "-1\n");
        assert_eq!(numa_node(&root.0, "0000:00:1e.0"), None);
        assert_eq!(interface(&root.0, "eth0"), (None, None, None));
        root.file("sys/bus/pci/devices/0000:00:1e.0/numa_node", "1\n")
            .file("sys/class/net/eth0/speed", "25000\n");
        assert_eq!(numa_node(&root.0, "0000:00:1e.0"), Some(1));
        assert_eq!(interface(&root.0, "eth0").1, Some(25_000_000_000));
    }
}
