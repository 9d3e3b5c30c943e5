//! A host made of a folder: `/proc`, `/sys` and `/dev` with what a test writes there.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Tells the hosts of one process apart.
static HOSTS: AtomicU32 = AtomicU32::new(0);

/// A folder that is gone when the test is over.
pub(crate) struct FakeHost {
    pub(crate) root: PathBuf,
}

impl FakeHost {
    /// An empty host.
    pub(crate) fn new() -> FakeHost {
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let root =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("host-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("the folder is ours");
        FakeHost { root }
    }

    /// Writes a file of the host.
    pub(crate) fn file(&self, path: &str, text: &str) -> &FakeHost {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("the folder is ours");
        fs::write(path, text).expect("the folder is ours");
        self
    }

    /// Makes a link of the host; both paths are the host's.
    pub(crate) fn link(&self, path: &str, target: &str) -> &FakeHost {
        let path = self.root.join(path.trim_start_matches('/'));
        let target = self.root.join(target.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("the folder is ours");
        fs::create_dir_all(&target).expect("the folder is ours");
        symlink(target, path).expect("the folder is ours");
        self
    }

    /// What every Linux has, as an EC2 instance of type `kind` would show it.
    pub(crate) fn linux(&self, kind: &str) -> &FakeHost {
        self.file("/proc/sys/kernel/ostype", "Linux\n")
            .file("/proc/sys/kernel/osrelease", "6.1.115-126.197.amzn2023.x86_64\n")
            .file("/proc/sys/kernel/hostname", "ip-10-0-0-5\n")
            .file("/proc/self/status", STATUS)
            .file("/proc/self/limits", LIMITS)
            .file("/proc/self/uid_map", "         0          0 4294967295\n")
            .file("/proc/self/cgroup", "0::/kubepods/pod1\n")
            .file("/sys/fs/cgroup/kubepods/memory.max", "17179869184\n")
            .file("/sys/fs/cgroup/kubepods/memory.current", "1073741824\n")
            .file("/sys/fs/cgroup/kubepods/pod1/memory.max", "max\n")
            .file("/sys/fs/cgroup/kubepods/pod1/pids.max", "5000\n")
            .file("/sys/fs/cgroup/kubepods/pod1/pids.current", "7\n")
            .file("/sys/fs/cgroup/kubepods/pod1/cpu.max", "400000 100000\n")
            .file("/proc/meminfo", "MemTotal:       16384 kB\nMemAvailable:    8192 kB\n")
            .file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5128\n")
            .file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "5000\n")
            .file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
            .file("/sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
            .file("/sys/class/dmi/id/product_name", &format!("{kind}\n"))
    }

    /// A device on the PCI bus.
    pub(crate) fn pci(&self, address: &str, vendor: &str, device: &str, driver: Option<&str>) -> &FakeHost {
        let at = format!("/sys/devices/pci0000:00/{address}");
        self.file(&format!("{at}/vendor"), vendor)
            .file(&format!("{at}/device"), device)
            .file(&format!("{at}/numa_node"), "1\n")
            .link(&format!("/sys/bus/pci/devices/{address}"), &at);
        if let Some(driver) = driver {
            self.link(&format!("{at}/driver"), &format!("/sys/bus/pci/drivers/{driver}"));
        }
        self
    }

    /// A verbs device on top of a PCI device, with two counters.
    pub(crate) fn verbs(&self, name: &str, address: &str, uverbs: &str) -> &FakeHost {
        let device = format!("/sys/devices/pci0000:00/{address}");
        self.link(&format!("/sys/class/infiniband/{name}/device"), &device)
            .file(&format!("/sys/class/infiniband_verbs/{uverbs}/ibdev"), &format!("{name}\n"))
            .counter(name, "tx_bytes", 0)
            .counter(name, "rx_bytes", 0)
    }

    /// A hardware counter of a verbs device.
    pub(crate) fn counter(&self, device: &str, counter: &str, value: u64) -> &FakeHost {
        self.file(
            &format!("/sys/class/infiniband/{device}/ports/1/hw_counters/{counter}"),
            &format!("{value}\n"),
        )
    }

    /// A network interface.
    pub(crate) fn interface(&self, name: &str, index: u32, flags: &str, driver: Option<&str>) -> &FakeHost {
        let at = format!("/sys/class/net/{name}");
        self.file(&format!("{at}/flags"), flags).file(&format!("{at}/ifindex"), &format!("{index}\n"));
        if let Some(driver) = driver {
            self.link(&format!("{at}/device/driver"), &format!("/sys/bus/pci/drivers/{driver}"));
        }
        self
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

const STATUS: &str = "\
Name:\tselvedge
NSpid:\t4711\t12
CapEff:\t0000000000000000
Seccomp:\t2
Cpus_allowed_list:\t0-3,96-99
";

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max file size             unlimited            unlimited            bytes     
Max processes             30000                30000                processes 
Max open files            1024                 524288               files     
Max locked memory         65536                65536                bytes     
Max address space         unlimited            unlimited            bytes     
";
