//! The ordinary network: ranks find each other over it also when their messages take EFA.

use super::{Ask, Finding};
use crate::scene::{Interface, Scene, is_link_local};

pub(super) fn interfaces(scene: &Scene, _ask: &Ask) -> Finding {
    let show = |interface: &Interface| {
        let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
        format!("{} ({})", interface.name, addresses.join(", "))
    };
    let good: Vec<String> = scene.interfaces.iter().filter(|i| i.no_road().is_none()).map(show).collect();
    let bad: Vec<String> = scene
        .interfaces
        .iter()
        .filter(|i| !i.loopback)
        .filter_map(|i| Some(format!("{} {}", i.name, i.no_road()?)))
        .collect();
    let bad = if bad.is_empty() { String::new() } else { format!("; not for messages: {}", bad.join(", ")) };
    if good.is_empty() {
        return Finding::warn(
            format!("no other host can reach this one: only loopback{bad} (/sys/class/net)"),
            "for several hosts: sudo ip link set dev NAME up, and an address for it; for one host nothing",
        );
    }
    Finding::pass(format!("{}{bad} (/sys/class/net)", good.join(", ")))
}

pub(super) fn own_name(scene: &Scene, _ask: &Ask) -> Finding {
    let name = &scene.kernel.host_name;
    let cure = format!("echo \"$(hostname -I | cut -d' ' -f1) {name}\" | sudo tee -a /etc/hosts");
    let addresses = match &scene.tried.own_name {
        None => return Finding::pass(format!("{name}; its address was not looked up")),
        Some(Err(why)) => {
            return Finding::warn(
                format!("{name} leads nowhere: {why}; launchers of other libraries, and ssh, go by name"),
                cure,
            );
        }
        Some(Ok(addresses)) => addresses,
    };
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let read = format!("{name} is {}", list.join(", "));
    let ours: Vec<_> = scene.interfaces.iter().flat_map(|i| &i.addresses).collect();
    let cut_off = |i: &&Interface| !i.loopback && i.no_road().is_some();
    let in_a_bridge: Vec<_> = scene.interfaces.iter().filter(cut_off).flat_map(|i| &i.addresses).collect();
    if addresses.iter().all(|a| a.is_loopback() || is_link_local(a) || in_a_bridge.contains(&a)) {
        return Finding::warn(
            format!(
                "{read}: an address that only this host can use; launchers that tell it to other hosts hang"
            ),
            cure,
        );
    }
    if !ours.is_empty() && !addresses.iter().any(|address| ours.contains(&address)) {
        return Finding::warn(format!("{read}, which is no address of this host"), cure);
    }
    Finding::pass(read)
}

pub(super) fn ena(scene: &Scene, _ask: &Ask) -> Finding {
    let cards: Vec<_> = scene.pci.iter().filter(|device| device.is_ena()).collect();
    let with_address = scene.interfaces.iter().filter(|i| i.driver.as_deref() == Some("ena"));
    let with_address: Vec<&str> =
        with_address.filter(|i| !i.addresses.is_empty()).map(|i| i.name.as_str()).collect();
    let Some(kind) = scene.place.instance_type() else {
        return Finding::pass("not an EC2 instance (/sys/class/dmi/id/sys_vendor)");
    };
    let read = format!(
        "{kind}: {} ENA on the PCI bus, with an address: {}",
        cards.len(),
        if with_address.is_empty() { "none".to_owned() } else { with_address.join(", ") }
    );
    if cards.is_empty() {
        return Finding::pass(format!("{read}; this instance type has another kind of interface"));
    }
    if let Some(idle) = cards.iter().find(|card| card.driver.is_none()) {
        return Finding::warn(format!("{read}; {} has no driver", idle.address), "sudo modprobe ena");
    }
    // In a container with a network of its own the interface is a pair of virtual ones, and that is well.
    if with_address.is_empty() && scene.place.container.is_none() {
        return Finding::warn(read, "sudo dhclient ens5 (or the name of the interface in ip link)");
    }
    if scene.efa_count() > cards.len() {
        return Finding::pass(format!("{read}; EFA-only cards have no interface and need none"));
    }
    Finding::pass(read)
}
