//! Amazon's Elastic Fabric Adapter: is it there, has it its driver, can programs open it, is there room for the ranks.

use super::memory::{EFA_BYTES_MAX, network_bytes};
use super::{Ask, Finding, bytes, ranks, remedy};
use crate::instances;
use crate::scene::{Limit, Node, Pci, Scene, Verbs};

/// Queue pairs of an EFA device that was not asked. A job that asks for more than a device has does not start on it.
const QUEUE_PAIRS: u32 = 256;

/// Newest generation of EFA that is known here.
const NEWEST: u32 = 0xefa4;

pub(super) const INSTALL: &str = "curl -O https://efa-installer.amazonaws.com/aws-efa-installer-latest.tar.gz && tar xf \
                       aws-efa-installer-latest.tar.gz && cd aws-efa-installer && sudo ./efa_installer.sh -y";

/// What the checks that ask about devices say where there is none.
fn none() -> Finding {
    Finding::pass("there is no EFA device here")
}

fn addresses<'a>(devices: impl IntoIterator<Item = &'a Pci>) -> String {
    let list: Vec<&str> = devices.into_iter().map(|device| device.address.as_str()).collect();
    list.join(", ")
}

pub(super) fn devices(scene: &Scene, ask: &Ask) -> Finding {
    let count = scene.efa_count() as u32;
    let place = scene.place.instance_type();
    let known = place.and_then(instances::find);
    if count == 0 {
        // A device can be known to libfabric alone: a software device, or a container whose /sys is another host's.
        let roads = scene.tried.fabric.iter().flat_map(|fabric| &fabric.usable);
        if let Some(road) = roads.into_iter().find(|road| road.provider.starts_with("efa")) {
            return Finding::pass(format!(
                "none on the PCI bus (/sys/bus/pci/devices), and libfabric opens {} by the provider {}: a software device",
                road.nics.join(", "),
                road.provider
            ));
        }
        let read = "no device 1d0f:efa0 to 1d0f:efa4 on the PCI bus (/sys/bus/pci/devices)";
        let (seen, cure) = match (place, known) {
            (None, _) => (
                "not an EC2 instance that says so (/sys/class/dmi/id)".to_owned(),
                "start an instance type with EFA (docs/EC2.md#instance-types) with an interface of type efa".to_owned(),
            ),
            (Some(kind), None) => (
                format!("this is a {kind}"),
                "aws ec2 describe-instance-types --filters Name=network-info.efa-supported,Values=true --query \
                 'InstanceTypes[].InstanceType'"
                    .to_owned(),
            ),
            (Some(kind), Some(known)) => (
                format!("a {kind} can have {}, and none is attached", known.nics),
                "launch it with an interface of type efa: aws ec2 run-instances --network-interfaces \
                 DeviceIndex=0,NetworkCardIndex=0,InterfaceType=efa,Groups=SG,SubnetId=SUBNET ..."
                    .to_owned(),
            ),
        };
        let road = if ask.needs_efa { "" } else { "; messages between hosts will take TCP" };
        return Finding::amiss(ask.needs_efa, format!("{read}; {seen}{road}"), cure);
    }
    let list = scene.efa_devices().map(|device| {
        let node = device.numa_node.map_or(String::new(), |node| format!(" near memory {node}"));
        format!("{} {:04x}:{:04x}{node}", device.address, device.vendor, device.device)
    });
    let mut read = format!("{} (/sys/bus/pci/devices)", list.collect::<Vec<_>>().join(", "));
    if scene.efa_devices().any(|device| device.device > NEWEST) {
        read += "; a generation newer than this program knows";
    }
    match (place, known) {
        (Some(kind), Some(known)) if count < known.nics => Finding::warn(
            format!("{count} of the {} that a {kind} can have: {read}", known.nics),
            format!(
                "launch it with {} interfaces of type efa, one for each NetworkCardIndex; further ones can be efa-only",
                known.nics
            ),
        ),
        _ => Finding::pass(format!("{count}: {read}")),
    }
}

pub(super) fn driver(scene: &Scene, _ask: &Ask) -> Finding {
    if scene.efa_count() == 0 {
        return none();
    }
    let of_another = |device: &&Pci| device.driver.as_deref() != Some("efa");
    let idle: Vec<&Pci> = scene.efa_devices().filter(of_another).collect();
    let module = match scene.kernel.efa_module.as_deref() {
        None => "the module efa is not loaded (/sys/module/efa)".to_owned(),
        Some("") => "the module efa is loaded".to_owned(),
        Some(version) => format!("the module efa is loaded, version {version}"),
    };
    let Some(first) = idle.first() else {
        return Finding::pass(format!("{module}, and has all {}", scene.efa_count()));
    };
    match &first.driver {
        Some(driver) => Finding::fail(
            format!("{} belongs to the driver {driver}; {module}", addresses(idle.iter().copied())),
            format!(
                "echo {0} | sudo tee /sys/bus/pci/drivers/{driver}/unbind && echo {0} | sudo tee \
                 /sys/bus/pci/drivers/efa/bind",
                first.address
            ),
        ),
        None if scene.kernel.efa_module.is_some() => Finding::fail(
            format!("no driver has {}; {module}", addresses(idle.iter().copied())),
            "sudo dmesg | grep -i efa, then sudo modprobe -r efa && sudo modprobe efa",
        ),
        None => Finding::fail(
            format!("no driver has {}; {module}", addresses(idle.iter().copied())),
            format!("sudo modprobe efa; where there is no such module: {INSTALL}"),
        ),
    }
}

pub(super) fn verbs(scene: &Scene, _ask: &Ask) -> Finding {
    let count = scene.efa_count();
    if count == 0 {
        return none();
    }
    let hand_in = |node: Option<&str>| remedy::hand_in_devices(&scene.place, node, count);
    let (mut open, mut trouble, mut cure) = (Vec::new(), Vec::new(), None);
    for device in scene.efa_devices() {
        let path =
            |verbs: &Verbs| verbs.path.clone().unwrap_or_else(|| "no /dev/infiniband/uverbs".to_owned());
        match scene.verbs_of(device) {
            None => {
                trouble.push(format!("{} has no verbs device (/sys/class/infiniband)", device.address));
                cure.get_or_insert_with(|| hand_in(None));
            }
            Some(verbs) if verbs.node == Node::Missing => {
                trouble.push(format!("{}: {} is not there", verbs.name, path(verbs)));
                cure.get_or_insert_with(|| hand_in(verbs.path.as_deref()));
            }
            Some(verbs) if verbs.node == Node::Denied => {
                trouble.push(format!("{}: {} may not be opened", verbs.name, path(verbs)));
                cure.get_or_insert_with(|| match scene.place.container {
                    None => format!("sudo chmod a+rw {}", path(verbs)),
                    Some(_) => hand_in(verbs.path.as_deref()),
                });
            }
            Some(verbs) => open.push(format!("{} ({})", verbs.name, path(verbs))),
        }
    }
    match cure {
        None => Finding::pass(format!("opened: {}", open.join(", "))),
        // With one device a job runs; without any it does not run over EFA.
        Some(cure) => Finding::amiss(open.is_empty(), trouble.join("; "), cure),
    }
}

pub(super) fn counters(scene: &Scene, _ask: &Ask) -> Finding {
    let devices: Vec<&Verbs> = scene.verbs.iter().filter(|verbs| verbs.is_efa()).collect();
    if devices.is_empty() {
        return none();
    }
    let blind: Vec<&str> = devices.iter().filter(|v| v.counters == 0).map(|v| v.name.as_str()).collect();
    if !blind.is_empty() {
        return Finding::warn(
            format!(
                "{}: none in /sys/class/infiniband/*/ports/1/hw_counters; that bytes went over EFA cannot be proved",
                blind.join(", ")
            ),
            format!(
                "a newer driver: {INSTALL}; in a container mount /sys read-only instead of leaving it out"
            ),
        );
    }
    let list: Vec<String> = devices.iter().map(|v| format!("{}: {}", v.name, v.counters)).collect();
    Finding::pass(format!("{} (/sys/class/infiniband/*/ports/1/hw_counters)", list.join(", ")))
}

pub(super) fn memlock(scene: &Scene, ask: &Ask) -> Finding {
    let process = &scene.process;
    let read = match process.locked_bytes {
        None => "/proc/self/limits does not tell".to_owned(),
        Some(Limit::Unlimited) => "unlimited (/proc/self/limits)".to_owned(),
        Some(Limit::At(limit)) => format!("{} for a process (/proc/self/limits)", bytes(limit)),
    };
    if scene.efa_count() == 0 && !ask.needs_efa {
        return Finding::pass(format!("{read}; only EFA needs it, and there is none here"));
    }
    if process.may_lock_all {
        return Finding::pass(format!("{read}; it does not hold for this process (CAP_IPC_LOCK)"));
    }
    let cure = remedy::lock_memory(&scene.place);
    let network = network_bytes(scene).map_or(EFA_BYTES_MAX, |(network, _)| network);
    match process.locked_bytes {
        Some(Limit::At(limit)) if limit <= network => Finding::fail(
            format!(
                "{read}; a rank registers up to {} with the device before it sends anything large",
                bytes(network)
            ),
            cure,
        ),
        Some(Limit::At(_)) => Finding::warn(
            format!(
                "{read}; what large messages are sent from and into counts as well, so there is no safe number"
            ),
            cure,
        ),
        Some(Limit::Unlimited) | None => Finding::pass(read),
    }
}

pub(super) fn queue_pairs(scene: &Scene, ask: &Ask) -> Finding {
    let roads = scene.tried.fabric.iter().flat_map(|fabric| &fabric.usable);
    let told = roads.filter_map(|road| Some((road.nics.len() as u32, road.queue_pairs?))).next();
    let (devices, each) = told.unwrap_or((scene.efa_count() as u32, QUEUE_PAIRS));
    if devices == 0 {
        return none();
    }
    let room = each * devices;
    let source = if told.is_some() { "so the device says" } else { "as all known devices have" };
    let read = format!(
        "{} need {} of {each} x {devices} EFA = {room} queue pairs ({source})",
        ranks(ask.ranks),
        ask.ranks
    );
    if ask.ranks <= room {
        return Finding::pass(read);
    }
    let more = ask.ranks.div_ceil(each.max(1));
    Finding::fail(read, format!("mpirun -n {room} ... on this host, or attach {more} EFA devices"))
}

pub(super) fn foreign(scene: &Scene, _ask: &Ask) -> Finding {
    let foreign: Vec<&Verbs> = scene.verbs.iter().filter(|verbs| !verbs.is_efa()).collect();
    let list = foreign.iter().map(|v| format!("{} ({})", v.name, v.driver.as_deref().unwrap_or("no driver")));
    let list = list.collect::<Vec<_>>().join(", ");
    if foreign.is_empty() {
        return Finding::pass("none (/sys/class/infiniband)");
    }
    if !scene.verbs.iter().any(Verbs::is_efa) {
        return Finding::pass(format!("{list} (/sys/class/infiniband); none is EFA, so none is used"));
    }
    let unreachable: Vec<&str> =
        foreign.iter().filter(|v| v.node != Node::Open).map(|v| v.name.as_str()).collect();
    let also = if unreachable.is_empty() {
        String::new()
    } else {
        format!(
            ", and {} cannot be opened: an EFA provider that tries them all finds none",
            unreachable.join(", ")
        )
    };
    let mine: Vec<&str> =
        scene.verbs.iter().filter(|v| v.is_efa()).filter_map(|v| v.path.as_deref()).collect();
    Finding::warn(
        format!("{list} beside EFA (/sys/class/infiniband){also}"),
        match scene.place.container {
            Some(_) => format!("hand only EFA's devices into the container: {}", mine.join(", ")),
            None => {
                "export FI_PROVIDER=efa for other libraries; Selvedge passes foreign devices by".to_owned()
            }
        },
    )
}
