//! Devices: what is on the PCI bus, and what the verbs subsystem made of it.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use serde::Serialize;

use super::Tree;

/// Amazon, on the PCI bus.
const AMAZON: u32 = 0x1d0f;

/// First device id of EFA. Five generations so far, efa0 to efa4 (rdma-core, providers/efa).
const EFA_FIRST: u32 = 0xefa0;
/// Last device id that could be one of EFA.
const EFA_LAST: u32 = 0xefaf;

/// Device ids of ENA, Amazon's network interface (Linux, drivers/net/ethernet/amazon/ena/ena_pci_id_tbl.h).
const ENA: &[u32] = &[0x0ec2, 0x1ec2, 0xec20, 0xec21];

/// A device on the PCI bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pci {
    /// Where: `0000:00:06.0`.
    pub address: String,
    /// Who made it.
    pub vendor: u32,
    /// What it is.
    pub device: u32,
    /// Driver that has it; `None` when none has.
    pub driver: Option<String>,
    /// Memory that is nearest to it; `None` where the machine does not say.
    pub numa_node: Option<u32>,
}

impl Pci {
    /// Whether it is an Elastic Fabric Adapter.
    pub fn is_efa(&self) -> bool {
        self.vendor == AMAZON && (EFA_FIRST..=EFA_LAST).contains(&self.device)
    }

    /// Whether it is an Elastic Network Adapter.
    pub fn is_ena(&self) -> bool {
        self.vendor == AMAZON && ENA.contains(&self.device)
    }
}

/// Reads the devices of Amazon.
pub(super) fn pci(tree: &Tree) -> Vec<Pci> {
    let folder = "/sys/bus/pci/devices";
    let device = |address: String| {
        let at = |name: &str| format!("{folder}/{address}/{name}");
        Some(Pci {
            vendor: tree.hex(&at("vendor"))?,
            device: tree.hex(&at("device"))?,
            driver: tree.target_name(&at("driver")),
            // The kernel writes -1 where the firmware does not say.
            numa_node: tree.number(&at("numa_node")),
            address,
        })
    };
    let all = tree.names(folder).into_iter().filter_map(device);
    all.filter(|device| device.vendor == AMAZON).collect()
}

/// Whether the character device by which programs reach a verbs device can be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// There is none: not made, or not handed into this container.
    #[default]
    Missing,
    /// It is there and we may not.
    Denied,
    /// It can.
    Open,
}

/// A device of the verbs subsystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verbs {
    /// Its name: `rdmap0s6`, `efa_0`, `mlx5_0`.
    pub name: String,
    /// PCI address of the device behind it.
    pub pci: Option<String>,
    /// Driver of the device behind it.
    pub driver: Option<String>,
    /// Its character device: `/dev/infiniband/uverbs0`.
    pub path: Option<String>,
    /// Whether that can be opened.
    pub node: Node,
    /// Number of hardware counters of port 1 that can be read.
    pub counters: usize,
}

impl Verbs {
    /// Whether the driver of EFA has it.
    pub fn is_efa(&self) -> bool {
        self.driver.as_deref() == Some("efa")
    }
}

/// Where the hardware counters of a verbs device lie.
pub(crate) fn counters_folder(device: &str) -> String {
    format!("/sys/class/infiniband/{device}/ports/1/hw_counters")
}

/// Reads the devices of the verbs subsystem.
pub(super) fn verbs(tree: &Tree) -> Vec<Verbs> {
    let classes = "/sys/class/infiniband_verbs";
    let numbered: Vec<(String, String)> = tree
        .names(classes)
        .into_iter()
        .filter_map(|name| Some((tree.text(&format!("{classes}/{name}/ibdev"))?, name)))
        .collect();
    let device = |name: String| {
        let below = format!("/sys/class/infiniband/{name}/device");
        let path = numbered.iter().find(|(device, _)| *device == name);
        let path = path.map(|(_, uverbs)| format!("/dev/infiniband/{uverbs}"));
        let counters = counters_folder(&name);
        let is_read = |counter: &String| tree.number::<u64>(&format!("{counters}/{counter}")).is_some();
        Verbs {
            pci: tree.target_name(&below),
            driver: tree.target_name(&format!("{below}/driver")),
            node: path.as_deref().map_or(Node::Missing, |path| try_node(tree, path)),
            counters: tree.names(&counters).iter().filter(|counter| is_read(counter)).count(),
            path,
            name,
        }
    };
    tree.names("/sys/class/infiniband").into_iter().map(device).collect()
}

/// Opens and closes it, since only that shows what the device rules of a control group allow. Opening does nothing to the
/// device: it is the first thing every verbs program does.
fn try_node(tree: &Tree, path: &str) -> Node {
    match OpenOptions::new().read(true).write(true).open(tree.path(path)) {
        Ok(_) => Node::Open,
        Err(error) if error.kind() == ErrorKind::NotFound => Node::Missing,
        Err(_) => Node::Denied,
    }
}
