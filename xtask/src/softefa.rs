//! Runs on software EFA devices, and what the devices counted: the proof that bytes went through them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::manifests::Workspace;
use crate::shell::Run;

/// The words before a command that is to run on software devices, and the folder where its counters stay.
#[derive(Clone, Debug)]
pub(crate) struct Devices {
    program: PathBuf,
    tree: PathBuf,
    words: Vec<OsString>,
}

/// Counters added up over all devices of a run, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Devices {
    /// One device for each of `hosts` make-believe hosts.
    pub(crate) fn new(workspace: &Workspace, hosts: usize) -> Devices {
        let tree = workspace.target.join("softefa-tree");
        let words = ["run".into(), "--hosts".into(), hosts.to_string().into(), "--tree".into()];
        let words = words.into_iter().chain([tree.clone().into_os_string()]).collect();
        Devices { program: workspace.release("softefa"), tree, words }
    }

    /// Those of hosts that have a network of their own, which are told of by [`variables`](Devices::variables); the
    /// counters stay in `tree`.
    pub(crate) fn counted_in(workspace: &Workspace, tree: PathBuf) -> Devices {
        Devices { program: workspace.release("softefa"), tree, words: Vec::new() }
    }

    /// What makes ranks use the device of their host: `library` preloaded, and the addresses of the hosts, on which equally
    /// many consecutive ranks run.
    pub(crate) fn variables(&self, library: &Path, addresses: &[Ipv4Addr]) -> [OsString; 4] {
        let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let set = |name: &str, value: &OsStr| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        };
        [
            set("LD_PRELOAD", library.as_os_str()),
            set("SOFTEFA_ADDRESSES", addresses.join(",").as_ref()),
            set("SOFTEFA_MAP", "block".as_ref()),
            set("SOFTEFA_TREE", self.tree.as_os_str()),
        ]
    }

    /// With further options of `softefa run`.
    pub(crate) fn with<S: Into<OsString>>(mut self, options: impl IntoIterator<Item = S>) -> Devices {
        self.words.extend(options.into_iter().map(Into::into));
        self
    }

    /// The command line that runs `command` on the devices: program, then arguments.
    pub(crate) fn around(&self, command: impl IntoIterator<Item = OsString>) -> (PathBuf, Vec<OsString>) {
        let words = self.words.iter().cloned().chain(["--".into()]).chain(command).collect();
        (self.program.clone(), words)
    }

    /// Forgets the counters of runs before.
    pub(crate) fn reset(&self) -> Result<(), String> {
        match fs::remove_dir_all(&self.tree) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("removing {}: {error}", self.tree.display()))
            }
            _ => Ok(()),
        }
    }

    /// What was counted since the last reset; nothing before the first run.
    pub(crate) fn counters(&self) -> Result<Counters, String> {
        if !self.tree.exists() {
            return Ok(Counters::default());
        }
        Ok(Counters::parse(&read(&self.program, &self.tree)?))
    }

    /// The same for each device, by host and name.
    pub(crate) fn counters_by_device(&self) -> Result<BTreeMap<String, Counters>, String> {
        Ok(Counters::by(&read(&self.program, &self.tree)?, str::to_string))
    }
}

fn read(program: &Path, tree: &Path) -> Result<String, String> {
    let words = ["counters".as_ref(), tree.as_os_str()];
    let outcome = Run::new(program, words).quiet().collect();
    if outcome.is_ok() { Ok(outcome.text) } else { Err(outcome.reason()) }
}

impl Counters {
    /// Lines of host, device, counter and number.
    fn parse(text: &str) -> Counters {
        Counters::by(text, |_| ()).remove(&()).unwrap_or_default()
    }

    /// The same, added up for all devices of which `key` says the same.
    pub(crate) fn by<K: Ord>(text: &str, key: impl Fn(&str) -> K) -> BTreeMap<K, Counters> {
        let mut by = BTreeMap::<K, Counters>::new();
        for line in text.lines() {
            if let [host, device, name, value] = line.split_whitespace().collect::<Vec<_>>()[..]
                && let Ok(value) = value.parse::<u64>()
            {
                let counters = by.entry(key(&format!("{host} {device}"))).or_default();
                *counters.0.entry(name.to_string()).or_default() += value;
            }
        }
        by
    }

    /// A counter; 0 where nothing was counted.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Bytes that sends, reads and writes have brought to memory, each counted once however often it was sent.
    pub(crate) fn delivered_bytes(&self) -> u64 {
        ["recv_bytes", "rdma_read_bytes", "rdma_write_recv_bytes"].iter().map(|name| self.get(name)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_devices_are_added_up() {
        let text = "127.77.0.1 softefa0 processes 1\n127.77.0.1 softefa0 recv_bytes 5\n\
                    127.77.0.2 softefa0 recv_bytes 7\n127.77.0.2 softefa0 rdma_read_bytes 30\n";
        let counters = Counters::parse(text);
        assert_eq!((counters.get("recv_bytes"), counters.get("retrans_pkts")), (12, 0));
        assert_eq!(counters.delivered_bytes(), 42);
    }
}
