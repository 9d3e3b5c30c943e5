//! Memory, and what the ranks of one host share: the road inside a host is checked as strictly as the network.

use selvedge_shm::Segment;

use super::{Ask, Finding, bytes, ranks, remedy};
use crate::scene::Scene;

/// Bytes of `/dev/shm` that one endpoint of libfabric's `shm` provider makes a file of (seen with 1.17). Other MPI
/// libraries take amounts of that order for each rank.
const DEV_SHM_PER_RANK: u64 = 16 << 20;

/// Bytes that a rank takes for itself, before the application takes any: program, libraries, engine.
const RANK_BYTES: u64 = 8 << 20;

/// Bytes that a road over EFA takes for a rank: packets for sending and receiving, and what the provider has of its own.
/// Measured on software devices with two ranks that have talked in every way: efa-direct (libfabric 2.5), efa (2.5), efa (1.17).
const DIRECT_BYTES: u64 = 8 << 20;
const EFA_BYTES: u64 = 27 << 20;
pub(super) const EFA_BYTES_MAX: u64 = 87 << 20;

/// Bytes that the network takes for a rank here, and the road they are for; `None` where there is no EFA. Where libfabric was
/// not asked, the most that it can be.
pub(super) fn network_bytes(scene: &Scene) -> Option<(u64, &'static str)> {
    let fabric = scene.tried.fabric.as_ref();
    let opens =
        |road: &str| fabric.is_some_and(|fabric| fabric.usable.iter().any(|usable| usable.provider == road));
    let version = fabric.and_then(|fabric| fabric.libraries.first()?.version);
    match version {
        _ if opens("efa-direct") => Some((DIRECT_BYTES, "efa-direct")),
        Some((2.., _)) if opens("efa") => Some((EFA_BYTES, "efa")),
        _ if opens("efa") || scene.efa_count() > 0 => Some((EFA_BYTES_MAX, "efa of libfabric 1.x")),
        _ => None,
    }
}

pub(super) fn memory(scene: &Scene, ask: &Ask) -> Finding {
    let count = u64::from(ask.ranks);
    let network = network_bytes(scene);
    let each = RANK_BYTES + network.map_or(0, |(network, _)| network);
    let least = count * each;
    let most = least + Segment::bytes_for(ask.ranks);
    let by = network
        .map_or_else(String::new, |(network, road)| format!(", of which {road} {} each", bytes(network)));
    let need = format!(
        "{} take {} before the application takes any{by}, and {} once every pair of them has talked",
        ranks(ask.ranks),
        bytes(least),
        bytes(most)
    );
    let group = match (scene.cgroup.memory, scene.cgroup.memory_now) {
        (Some(crate::scene::Limit::At(limit)), now) => Some(limit.saturating_sub(now.unwrap_or(0))),
        _ => None,
    };
    let host = scene.memory.available;
    let Some(room) = group.into_iter().chain(host).min() else {
        return Finding::pass(format!(
            "{need}; neither /proc/meminfo nor the control group tells what there is"
        ));
    };
    let told = |room: Option<u64>| room.map_or("not told".to_owned(), bytes);
    let group_told = if group.is_some() { told(group) } else { "no limit".to_owned() };
    let read = format!("{need}; there are {} (/proc/meminfo), control group: {group_told}", told(host));
    let cure = if group.is_some_and(|group| host.is_none_or(|host| group < host)) {
        format!(
            "give the container or the Slurm job {} more memory, or start fewer ranks per host",
            bytes(most)
        )
    } else {
        "start fewer ranks per host: mpirun -n ...".to_owned()
    };
    if room < least {
        Finding::fail(read, cure)
    } else if room < most {
        Finding::warn(read, cure)
    } else {
        Finding::pass(read)
    }
}

pub(super) fn sharing(scene: &Scene, _ask: &Ask) -> Finding {
    match &scene.tried.sharing {
        None => Finding::warn("it was not tried", "selvedge doctor, on the host itself"),
        Some(Ok(_)) => Finding::pass("tried: a second process opened memory of the first and both used it"),
        Some(Err(why)) => Finding::fail(
            format!("tried: {why}"),
            "selvedge doctor, after what stands there has been changed",
        ),
    }
}

pub(super) fn single_copy(scene: &Scene, _ask: &Ask) -> Finding {
    let scope = scene.kernel.ptrace_scope;
    let yama = match scope {
        Some(scope) => format!("kernel.yama.ptrace_scope is {scope}"),
        None => "there is no Yama (/proc/sys/kernel/yama)".to_owned(),
    };
    match &scene.tried.sharing {
        Some(Ok(sharing)) if sharing.single_copy => {
            Finding::pass(format!("tried: process_vm_readv and process_vm_writev are allowed; {yama}"))
        }
        Some(Ok(_)) => {
            let filter =
                if scene.process.filtered == Some(true) { ", and system calls are filtered" } else { "" };
            Finding::warn(
                format!(
                    "tried: the kernel refuses process_vm_readv, so large messages on one host are copied twice; {yama}{filter}"
                ),
                remedy::allow_copies(&scene.place, scope),
            )
        }
        Some(Err(_)) | None => {
            Finding::warn(format!("it could not be tried; {yama}"), remedy::allow_copies(&scene.place, scope))
        }
    }
}

pub(super) fn namespaces(scene: &Scene, _ask: &Ask) -> Finding {
    let depth = scene.process.process_namespaces.unwrap_or(1);
    let depth = if depth > 1 {
        format!("process namespace {depth} deep")
    } else {
        "process namespace: the outermost seen".to_owned()
    };
    match scene.process.first_user_namespace {
        Some(false) => Finding::warn(
            format!(
                "a user namespace of our own (/proc/self/uid_map); {depth}: ranks of one host that each have their own \
                 container cannot share memory, ranks in one container can"
            ),
            "start mpirun inside the container instead of a container per rank; with Apptainer: apptainer exec IMAGE mpirun \
             -n ..., or one instance for all ranks (apptainer instance start)",
        ),
        Some(true) => Finding::pass(format!("the host's user namespace (/proc/self/uid_map); {depth}")),
        None => Finding::pass(format!("/proc/self/uid_map cannot be read: no user namespaces; {depth}")),
    }
}

pub(super) fn dev_shm(scene: &Scene, ask: &Ask) -> Finding {
    let need = u64::from(ask.ranks) * DEV_SHM_PER_RANK;
    let own = "Selvedge takes nothing there (its shared memory has no name)";
    let others = format!(
        "libfabric's shm provider and other MPI libraries take up to {} for {}",
        bytes(need),
        ranks(ask.ranks)
    );
    match scene.memory.shm {
        None => Finding::warn(
            format!("there is no /dev/shm; {own}; {others}"),
            format!(
                "sudo mkdir -p /dev/shm && sudo mount -t tmpfs -o mode=1777,size={} tmpfs /dev/shm",
                need.max(1 << 30)
            ),
        ),
        Some(shm) if shm.free < need => Finding::warn(
            format!("{} of {} free (statvfs /dev/shm); {own}; {others}", bytes(shm.free), bytes(shm.bytes)),
            remedy::enlarge_shm(&scene.place, need),
        ),
        Some(shm) => Finding::pass(format!(
            "{} of {} free (statvfs /dev/shm); {own}; {others}",
            bytes(shm.free),
            bytes(shm.bytes)
        )),
    }
}

pub(super) fn huge_pages(scene: &Scene, _ask: &Ask) -> Finding {
    let huge = scene.memory.huge.iter().filter(|huge| huge.total > 0);
    let set_aside: Vec<String> = huge
        .map(|huge| format!("{} of {} pages of {} free", huge.free, huge.total, bytes(huge.page_bytes)))
        .collect();
    let set_aside = if set_aside.is_empty() { "none set aside".to_owned() } else { set_aside.join(", ") };
    let transparent = scene.memory.transparent.as_deref();
    let read = format!(
        "{set_aside} (/sys/kernel/mm/hugepages); transparent: {} (/sys/kernel/mm/transparent_hugepage/enabled)",
        transparent.unwrap_or("not told")
    );
    let has_any = scene.memory.huge.iter().any(|huge| huge.free > 0);
    if scene.efa_count() > 0 && !has_any && transparent == Some("never") {
        return Finding::warn(
            format!("{read}: with small pages a device registers less memory, and more slowly"),
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        );
    }
    Finding::pass(read)
}
