//! The host as such: kernel, clock, processors, limits of processes.

use super::{Ask, Finding, bytes, ranks};
use crate::scene::{Limit, Scene};

/// Oldest kernel with all that shared memory needs: anonymous files with seals and getrandom(2).
const KERNEL_MIN: (u32, u32) = (3, 17);

/// First kernel in which a sleeping rank is woken without a fence on every message (membarrier(2), global expedited).
const KERNEL_FENCES: (u32, u32) = (4, 16);

/// First kernel that copies pages registered with a device when a process forks (Linux 5.12, "copy on fork").
const KERNEL_FORK: (u32, u32) = (5, 12);

/// Clocks that are read from user space. Others take a system call, some 0.3 us instead of 0.02.
const FAST_CLOCKS: &[&str] = &["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// Descriptors a rank opens at most beside the application's: library, devices, shared segment, launcher.
const FILES_PER_RANK: u64 = 64;

/// Descriptors that mpirun holds for each rank: input, output, errors, PMI, and a handle on the process.
const LAUNCHER_FILES_PER_RANK: u64 = 5;

/// Threads of a rank: its own, and one that hears of memory being unmapped.
const THREADS_PER_RANK: u64 = 2;

pub(super) fn kernel(scene: &Scene, _ask: &Ask) -> Finding {
    let kernel = &scene.kernel;
    let read = format!("{} {} (/proc/sys/kernel/osrelease)", kernel.system, kernel.release);
    if kernel.system != "Linux" {
        return Finding::fail(
            format!("{read}; Selvedge is written for Linux"),
            "start the job on a Linux host",
        );
    }
    let upgrade = "sudo dnf upgrade kernel && sudo reboot (Amazon Linux), or sudo apt-get install linux-aws && sudo reboot \
                   (Ubuntu)";
    match kernel.version() {
        Some(version) if version < KERNEL_MIN => {
            Finding::fail(format!("{read}; shared memory needs Linux 3.17"), upgrade)
        }
        Some(version) if version < KERNEL_FENCES => Finding::warn(
            format!("{read}; before 4.16 ranks on one host wake each other more slowly"),
            upgrade,
        ),
        Some(version) if version < KERNEL_FORK && scene.efa_count() > 0 => Finding::warn(
            format!(
                "{read}; before 5.12 a program that forks can lose what it has registered with the device"
            ),
            upgrade,
        ),
        _ => Finding::pass(read),
    }
}

pub(super) fn clock(scene: &Scene, _ask: &Ask) -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match scene.kernel.clock_source.as_deref() {
        None => Finding::pass(format!("{path} cannot be read here")),
        Some(clock) if FAST_CLOCKS.contains(&clock) => Finding::pass(format!("{clock} ({path})")),
        Some(clock) => Finding::warn(
            format!("{clock} ({path}): each look at the clock is a system call, and waiting looks often"),
            format!("echo tsc | sudo tee {path}"),
        ),
    }
}

pub(super) fn processors(scene: &Scene, ask: &Ask) -> Finding {
    let Some(mask) = scene.process.processors else {
        return Finding::pass("Cpus_allowed_list is not in /proc/self/status");
    };
    let quota = scene.cgroup.cpu_quota.map(|quota| format!(", and time for {quota:.1} (/sys/fs/cgroup)"));
    let read = format!(
        "{mask} in the affinity mask (/proc/self/status){}; {}",
        quota.unwrap_or_default(),
        ranks(ask.ranks)
    );
    let usable = scene.processors();
    if ask.ranks > usable {
        Finding::warn(
            format!("{read}: ranks will take turns, and a message can wait for a turn"),
            format!(
                "mpirun -n {usable} ..., or give the job more processors (Slurm: --cpus-per-task, --exclusive)"
            ),
        )
    } else if scene.cgroup.cpu_quota.is_some_and(|quota| quota < f64::from(mask)) {
        Finding::warn(
            format!("{read}: ranks that wait use up the time of ranks that work, and then all stand still"),
            "give the container whole processors (Docker: --cpuset-cpus instead of --cpus; Kubernetes: equal requests \
             and limits with the static CPU manager policy)",
        )
    } else {
        Finding::pass(read)
    }
}

pub(super) fn processes(scene: &Scene, ask: &Ask) -> Finding {
    let need = u64::from(ask.ranks) * THREADS_PER_RANK;
    let show = |limit: Option<Limit>| limit.map_or("not told".to_owned(), |limit| limit.to_string());
    let Scene { cgroup, process, .. } = scene;
    let now = cgroup.processes_now.unwrap_or(0);
    let read = format!(
        "{need} for {}; control group: {}, of which {now} are taken (pids.max); user: {} (/proc/self/limits)",
        ranks(ask.ranks),
        show(cgroup.processes),
        show(process.processes)
    );
    if cgroup.processes.is_some_and(|limit| !limit.allows(now + need)) {
        return Finding::fail(
            read,
            format!(
                "docker run --pids-limit={} ..., or in the kubelet's configuration podPidsLimit",
                now + 4 * need
            ),
        );
    }
    if process.processes.is_some_and(|limit| !limit.allows(need)) {
        return Finding::fail(read, format!("ulimit -u {}", 4 * need));
    }
    Finding::pass(read)
}

pub(super) fn limits(scene: &Scene, ask: &Ask) -> Finding {
    let segment = selvedge_shm::Segment::bytes_for(ask.ranks);
    let files = FILES_PER_RANK.max(LAUNCHER_FILES_PER_RANK * u64::from(ask.ranks) + FILES_PER_RANK);
    let process = &scene.process;
    let kinds = [
        (process.open_files, files, "open files", "-n", files.to_string()),
        (process.file_bytes, segment, "bytes of a file", "-f", bytes(segment)),
        (process.address_bytes, segment, "bytes of addresses", "-v", bytes(segment)),
    ];
    let mut short = Vec::new();
    let mut cures = Vec::new();
    for (limit, need, what, flag, shown) in &kinds {
        if limit.is_some_and(|limit| !limit.allows(*need)) {
            let limit = limit.expect("just looked at");
            short.push(format!("{what}: {limit}, and {} take {shown}", ranks(ask.ranks)));
            cures.push(format!("ulimit {flag} unlimited").replace("-n unlimited", &format!("-n {files}")));
        }
    }
    if short.is_empty() {
        let shown = kinds.iter().map(|(limit, _, what, ..)| {
            format!("{what} {}", limit.map_or("not told".to_owned(), |limit| limit.to_string()))
        });
        Finding::pass(format!("{} (/proc/self/limits)", shown.collect::<Vec<_>>().join(", ")))
    } else {
        Finding::fail(format!("{} (/proc/self/limits)", short.join("; ")), cures.join("; "))
    }
}
