//! Counters of all processes of a run, added up per device.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::tree::gid_from_text;

/// What one device has counted in all processes that used it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Processes that had the device.
    pub processes: usize,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
}

impl Tally {
    /// A counter; 0 where it does not exist.
    pub fn get(&self, counter: &str) -> u64 {
        self.counters.get(counter).copied().unwrap_or(0)
    }
}

/// A run's devices by host and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies(pub BTreeMap<(Ipv4Addr, String), Tally>);

impl Tallies {
    /// Adds up what stands under `folder`: one tree per process, as [`crate::tree::Tree`] makes them.
    pub fn read(folder: &Path) -> io::Result<Tallies> {
        let mut tallies = Tallies::default();
        for process in fs::read_dir(folder)? {
            let Ok(devices) = fs::read_dir(process?.path().join("class/infiniband")) else { continue };
            for device in devices {
                let device = device?;
                let port = device.path().join("ports/1");
                let gid = fs::read_to_string(port.join("gids/0")).ok();
                let Some(host) = gid.and_then(|text| gid_from_text(&text)).and_then(|gid| gid.host()) else {
                    continue;
                };
                let name = device.file_name().to_string_lossy().into_owned();
                tallies.0.entry((host, name)).or_default().add(&port.join("hw_counters"))?;
            }
        }
        Ok(tallies)
    }

    /// The sum of a counter over all devices.
    pub fn total(&self, counter: &str) -> u64 {
        self.0.values().map(|tally| tally.get(counter)).sum()
    }
}

impl Tally {
    fn add(&mut self, folder: &Path) -> io::Result<()> {
        self.processes += 1;
        for counter in fs::read_dir(folder)? {
            let counter = counter?;
            let Ok(value) = fs::read_to_string(counter.path())?.trim().parse::<u64>() else { continue };
            *self.counters.entry(counter.file_name().to_string_lossy().into_owned()).or_default() += value;
        }
        Ok(())
    }
}

impl fmt::Display for Tallies {
    /// One line per device and counter that is not 0: host, device, counter, number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((host, name), tally) in &self.0 {
            writeln!(f, "{host} {name} processes {}", tally.processes)?;
            for (counter, value) in tally.counters.iter().filter(|(_, value)| **value != 0) {
                writeln!(f, "{host} {name} {counter} {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limits;
    use crate::srd::Gid;
    use crate::tree::{Shown, Tree};
    use std::sync::Mutex;

    #[test]
    fn two_processes_on_one_device_are_one_sum() {
        let folder = std::env::temp_dir().join(format!("softefa-tally-{}", std::process::id()));
        let gid = Gid::new(Ipv4Addr::new(127, 0, 0, 2), 0);
        for (label, bytes) in [("a", 5), ("b", 7)] {
            let tree = Tree::new(Some(&folder), label).expect("the temporary folder can be written");
            let shown = Shown { name: "softefa0", gid, pci: "0000:00:03.0", limits: &Limits::default() };
            tree.add(&shown).expect("the folder is ours");
            tree.show("softefa0", [("tx_bytes", bytes)].into_iter(), &Mutex::default()).expect("as above");
        }
        let tallies = Tallies::read(&folder).expect("the folder is there");
        fs::remove_dir_all(&folder).expect("the folder is ours");
        assert_eq!(tallies.total("tx_bytes"), 12);
        assert_eq!(tallies.to_string(), "127.0.0.2 softefa0 processes 2\n127.0.0.2 softefa0 tx_bytes 12\n");
    }
}
