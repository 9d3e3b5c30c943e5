//! Network interfaces, and which of them can carry a job's messages between hosts.

use std::net::IpAddr;

use serde::Serialize;

use super::Tree;

/// Flags of an interface (netdevice(7)).
const IFF_UP: u32 = 1 << 0;
const IFF_LOOPBACK: u32 = 1 << 3;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name: `ens5`, `eth0`, `docker0`.
    pub name: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it leads back to this host.
    pub loopback: bool,
    /// Whether it is a bridge, a tunnel or the like, without a device behind it.
    pub made_up: bool,
    /// Whether it is a bridge that joins containers or virtual machines of this host, and nothing else.
    pub bridge: bool,
    /// Driver of the device behind it: `ena`.
    pub driver: Option<String>,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Why no other host can be expected to reach us there; `None` when it can be.
    pub fn no_road(&self) -> Option<&'static str> {
        if self.loopback {
            Some("leads back to this host")
        } else if !self.up {
            Some("is down")
        } else if self.bridge {
            Some("is a bridge inside this host")
        } else if self.addresses.is_empty() {
            Some("has no address")
        } else if self.addresses.iter().all(is_link_local) {
            Some("has link-local addresses only")
        } else {
            None
        }
    }
}

/// Whether an address is good on one link only, so that another host cannot be told it.
pub(crate) fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Reads the interfaces; `addresses` by the kernel's index.
pub(super) fn interfaces(tree: &Tree, addresses: &[(u32, IpAddr)]) -> Vec<Interface> {
    let folder = "/sys/class/net";
    let interface = |name: String| {
        let at = |file: &str| format!("{folder}/{name}/{file}");
        let flags = tree.hex(&at("flags"))?;
        let index: Option<u32> = tree.number(&at("ifindex"));
        let own = addresses.iter().filter(|(of, _)| Some(*of) == index);
        Some(Interface {
            up: flags & IFF_UP != 0,
            loopback: flags & IFF_LOOPBACK != 0,
            made_up: !tree.exists(&at("device")),
            bridge: tree.exists(&at("bridge")) && !leads_out(tree, &at("brif")),
            driver: tree.target_name(&at("device/driver")),
            mtu: tree.number(&at("mtu")),
            addresses: own.map(|(_, address)| *address).collect(),
            name,
        })
    };
    tree.names(folder).into_iter().filter_map(interface).collect()
}

/// Whether one of a bridge's ports has a device behind it.
fn leads_out(tree: &Tree, ports: &str) -> bool {
    tree.names(ports).iter().any(|port| tree.exists(&format!("/sys/class/net/{port}/device")))
}
