//! Cures that depend on where we are: the same limit is raised by one command on a host and by another in a pod.

use crate::scene::{Container, Place};

/// How to let a process lock memory.
pub(super) fn lock_memory(place: &Place) -> String {
    match place.container {
        Some(Container::Docker) => "docker run --ulimit memlock=-1:-1 ...".to_owned(),
        Some(Container::Podman) => "podman run --ulimit memlock=-1:-1 ...".to_owned(),
        Some(Container::Kubernetes) => {
            "a pod has the limit of its node's container runtime: on the node put LimitMEMLOCK=infinity under [Service] in \
             /etc/systemd/system/containerd.service.d/memlock.conf, then sudo systemctl daemon-reload && sudo systemctl \
             restart containerd"
                .to_owned()
        }
        Some(Container::Apptainer) | None if place.slurm => {
            "on the compute nodes put LimitMEMLOCK=infinity under [Service] in \
             /etc/systemd/system/slurmd.service.d/memlock.conf, then sudo systemctl daemon-reload && sudo systemctl \
             restart slurmd; and in slurm.conf PropagateResourceLimitsExcept=MEMLOCK"
                .to_owned()
        }
        Some(Container::Apptainer) | None => {
            "printf '* soft memlock unlimited\\n* hard memlock unlimited\\n' | sudo tee \
             /etc/security/limits.d/99-memlock.conf, then log in again"
                .to_owned()
        }
    }
}

/// How to make `/dev/shm` as large as `bytes`.
pub(super) fn enlarge_shm(place: &Place, bytes: u64) -> String {
    let gib = bytes.div_ceil(1 << 30).max(1);
    match place.container {
        Some(Container::Docker) => format!("docker run --shm-size={gib}g ..."),
        Some(Container::Podman) => format!("podman run --shm-size={gib}g ..."),
        Some(Container::Kubernetes) => format!(
            "in the pod: a volume 'emptyDir: {{medium: Memory, sizeLimit: {gib}Gi}}', mounted at /dev/shm"
        ),
        Some(Container::Apptainer) | None => format!("sudo mount -o remount,size={gib}G /dev/shm"),
    }
}

/// How to let processes of one user copy from and to each other.
pub(super) fn allow_copies(place: &Place, ptrace_scope: Option<u32>) -> String {
    match (ptrace_scope, place.container) {
        (Some(scope), None) if scope > 1 => {
            let later = if scope > 2 { " (3 can only be left by booting again)" } else { "" };
            format!("sudo sysctl kernel.yama.ptrace_scope=1{later}")
        }
        (Some(scope), Some(_)) if scope > 1 => "on the host: sudo sysctl kernel.yama.ptrace_scope=1".to_owned(),
        (_, Some(Container::Docker)) => "docker run --cap-add=SYS_PTRACE ...".to_owned(),
        (_, Some(Container::Podman)) => "podman run --cap-add=SYS_PTRACE ...".to_owned(),
        (_, Some(Container::Kubernetes)) => {
            "in the container of the pod: 'securityContext: {capabilities: {add: [SYS_PTRACE]}}'".to_owned()
        }
        (_, Some(Container::Apptainer) | None) => {
            "start all ranks of a host as one user, without file capabilities or set-user-id on the program; then \
             selvedge doctor again"
                .to_owned()
        }
    }
}

/// How to hand the EFA devices to a container.
pub(super) fn hand_in_devices(place: &Place, node: Option<&str>, count: usize) -> String {
    let node = node.unwrap_or("/dev/infiniband/uverbs0");
    match place.container {
        Some(Container::Docker) => {
            format!("docker run --device={node} ... (one --device for each EFA device)")
        }
        Some(Container::Podman) => {
            format!("podman run --device={node} ... (one --device for each EFA device)")
        }
        Some(Container::Kubernetes) => format!(
            "in the container of the pod: 'resources: {{limits: {{vpc.amazonaws.com/efa: {count}}}}}', with AWS's EFA \
             device plug-in running on the node"
        ),
        Some(Container::Apptainer) => format!("apptainer exec --bind {node} ..."),
        None => {
            "sudo modprobe ib_uverbs && sudo udevadm trigger --subsystem-match=infiniband_verbs".to_owned()
        }
    }
}
