//! A folder that looks like the part of `/sys` that belongs to the devices.
//!
//! The provider reads three things from there and not through verbs: the version of the verbs ABI, the driver of a card and
//! its PCI address. The counters stand where the real driver has them, so that whoever proves by them which card
//! the bytes went through can do so here.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::settings::Limits;
use crate::srd::Gid;

/// Start of the name of a folder in the temporary folder. What follows is the number of the process.
const PREFIX: &str = "softefa-tree-";

/// The folder; removed when it is dropped, unless it was asked for by name.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    pid: u32,
    keep: bool,
}

/// What the tree says about one device.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub gid: Gid,
    /// Its place on the bus.
    pub pci: &'a str,
    /// What it is.
    pub limits: &'a Limits,
}

impl Tree {
    /// A folder for this process: under `within`, where it stays, or in the temporary folder, where it is removed
    /// with the process (and those of processes that were killed are removed now).
    pub fn new(within: Option<&Path>, label: &str) -> io::Result<Tree> {
        let pid = std::process::id();
        let root = match within {
            Some(folder) => folder.join(format!("{label}-{pid}")),
            None => own_folder(PREFIX),
        };
        fs::create_dir_all(root.join("class/infiniband_verbs"))?;
        fs::create_dir_all(root.join("bus/pci/drivers/efa"))?;
        fs::write(root.join("class/infiniband_verbs/abi_version"), "6\n")?;
        Ok(Tree { root, pid, keep: within.is_some() })
    }

    /// The folder that stands for `/sys`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a device, under which `device` leads to its PCI function.
    pub fn device(&self, name: &str) -> PathBuf {
        self.root.join("class/infiniband").join(name)
    }

    /// Adds a device.
    pub fn add(&self, shown: &Shown<'_>) -> io::Result<()> {
        let function = self.root.join("devices/pci0000:00").join(shown.pci);
        fs::create_dir_all(&function)?;
        let driver = function.join("driver");
        if !driver.exists() {
            symlink("../../../bus/pci/drivers/efa", driver)?;
        }
        fs::write(function.join("vendor"), "0x1d0f\n")?;
        fs::write(function.join("device"), format!("0x{:04x}\n", shown.limits.part_id))?;
        fs::write(function.join("numa_node"), "-1\n")?;

        let device = self.device(shown.name);
        let port = device.join("ports/1");
        fs::create_dir_all(port.join("gids"))?;
        fs::create_dir_all(port.join("hw_counters"))?;
        let link = device.join("device");
        if !link.exists() {
            symlink(Path::new("../../../devices/pci0000:00").join(shown.pci), link)?;
        }
        fs::write(device.join("fw_ver"), "softefa\n")?;
        fs::write(device.join("node_type"), "7: unspecified\n")?;
        fs::write(port.join("state"), "4: ACTIVE\n")?;
        fs::write(port.join("link_layer"), "Unspecified\n")?;
        fs::write(port.join("rate"), "100 Gb/sec (4X EDR)\n")?;
        fs::write(port.join("gids/0"), format!("{}\n", gid_text(shown.gid)))
    }

    /// Shows the counters of a device: one file for each, as text. Only those that `changed` are written.
    pub fn show<'a>(
        &self,
        name: &str,
        counters: impl Iterator<Item = (&'a str, u64)>,
        shown: &Mutex<Vec<u64>>,
    ) -> io::Result<()> {
        let folder = self.device(name).join("ports/1/hw_counters");
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (place, (counter, value)) in counters.enumerate() {
            if shown.get(place) == Some(&value) {
                continue;
            }
            fs::write(folder.join(counter), format!("{value}\n"))?;
            if shown.len() == place {
                shown.push(value);
            } else if let Some(old) = shown.get_mut(place) {
                *old = value;
            }
        }
        Ok(())
    }

    /// Removes the folder, if it is this process's own. A child after fork(2) leaves its parent's alone.
    pub fn remove(&self) {
        if !self.keep && self.pid == std::process::id() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// A GID as the kernel prints it.
pub fn gid_text(gid: Gid) -> String {
    let groups: Vec<String> =
        gid.0.chunks_exact(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1])).collect();
    groups.join(":")
}

/// A GID from [`gid_text`]'s form.
pub fn gid_from_text(text: &str) -> Option<Gid> {
    let digits: String = text.trim().split(':').collect();
    let mut gid = Gid::default();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    for (place, byte) in gid.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(gid)
}

/// Name of a folder of this process in the temporary folder. Those of the same `prefix` that processes have left which were
/// killed are removed.
pub fn own_folder(prefix: &str) -> PathBuf {
    let folder = std::env::temp_dir();
    remove_stale(&folder, prefix);
    folder.join(format!("{prefix}{}", std::process::id()))
}

/// Removes the folders of processes that are no more.
fn remove_stale(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|pid| pid.parse().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// PCI addresses of functions of this machine, which MPI libraries look up in hwloc's topology. Where there are none, or
/// too few, made-up ones follow.
pub fn pci_addresses(wanted: usize) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir("/sys/bus/pci/devices")
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    found.sort();
    // The first function is a bridge nearly everywhere, and hwloc leaves bridges out.
    if found.len() > 1 {
        found.rotate_left(1);
    }
    let made_up = (0..32).map(|slot| format!("0000:5e:{slot:02x}.0"));
    found.into_iter().chain(made_up).take(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_survives_its_text() {
        let gid = Gid::new(std::net::Ipv4Addr::new(127, 3, 0, 9), 2);
        assert_eq!(gid_text(gid), "0000:0000:0000:0000:0002:ffff:7f03:0009");
        assert_eq!(gid_from_text(&gid_text(gid)), Some(gid));
        assert_eq!(gid_from_text("0000"), None);
        assert_eq!(gid_from_text(&"é".repeat(16)), None);
    }

    #[test]
    fn the_provider_finds_driver_and_pci_address_by_the_links() {
        let tree = Tree::new(None, "").expect("the temporary folder can be written");
        let gid = Gid::new(std::net::Ipv4Addr::LOCALHOST, 0);
        let shown = Shown { name: "softefa0", gid, pci: "0000:00:03.0", limits: &Limits::default() };
        tree.add(&shown).expect("the folder is ours");
        let device = tree.device("softefa0");
        let base = |path: PathBuf| {
            let path = path.canonicalize().expect("the link leads somewhere");
            path.file_name().expect("not the root").to_str().expect("ASCII").to_string()
        };
        assert_eq!(base(device.join("device")), "0000:00:03.0");
        assert_eq!(base(device.join("device/driver")), "efa");
        let seen = Mutex::default();
        tree.show("softefa0", [("tx_bytes", 7)].into_iter(), &seen).expect("the folder is ours");
        tree.show("softefa0", [("tx_bytes", 8)].into_iter(), &seen).expect("the folder is ours");
        let text = fs::read_to_string(device.join("ports/1/hw_counters/tx_bytes")).expect("written");
        assert_eq!(text, "8\n");
        tree.remove();
        assert!(!tree.root().exists());
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_others_stay() {
        let mut child = std::process::Command::new("true").spawn().expect("true exists");
        let gone = child.id();
        child.wait().expect("it is our child");
        let prefix = format!("softefa-stale-{}-", std::process::id());
        let left = std::env::temp_dir().join(format!("{prefix}{gone}"));
        let lives = std::env::temp_dir().join(format!("{prefix}1"));
        fs::create_dir_all(&left).expect("the temporary folder can be written");
        fs::create_dir_all(&lives).expect("the temporary folder can be written");
        own_folder(&prefix);
        assert!(!left.exists());
        assert!(lives.exists());
        fs::remove_dir(&lives).expect("it is ours");
    }

    #[test]
    fn there_are_always_as_many_pci_addresses_as_wanted() {
        assert_eq!(pci_addresses(20).len(), 20);
    }
}
