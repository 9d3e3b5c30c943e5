//! Who this host is. A name is not enough: two containers of one machine may share memory or not, and two machines may
//! have one name.

use std::fs;
use std::os::linux::fs::MetadataExt;

/// The identity of the host a process runs on, small enough to travel in a card. Plain data; two processes compare
/// theirs to learn which roads lie between them.
///
/// What could not be read is 0 or empty, and counts as different from everybody's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// The name, for people.
    pub name: String,
    /// Identity of the running kernel: fresh at each boot, the same in all its containers.
    pub boot_id: String,
    /// User the process runs as: whom the kernel asks before one process may touch another's memory.
    pub user: u32,
    /// Process namespace: with the same one, process ids mean the same.
    pub pid_namespace: u64,
    /// IPC namespace: with the same one, POSIX message queues and System V segments are shared.
    pub ipc_namespace: u64,
    /// Network namespace: with the same one, loopback addresses and abstract sockets are shared.
    pub net_namespace: u64,
    /// User namespace: with the same one, user ids mean the same.
    pub user_namespace: u64,
}

impl Host {
    /// Reads it from the kernel. Cost: six small reads in `/proc`; keep the answer.
    pub fn here() -> Host {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Host {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot_id: boot_id.trim().to_owned(),
            user: rustix::process::geteuid().as_raw(),
            pid_namespace: namespace("pid"),
            ipc_namespace: namespace("ipc"),
            net_namespace: namespace("net"),
            user_namespace: namespace("user"),
        }
    }

    /// The same under a name that is made up: processes with this name count as on a host of their own. For trying on one
    /// machine what happens between several.
    pub fn called(self, name: &str) -> Host {
        Host { name: name.to_owned(), boot_id: format!("{} {name}", self.boot_id), ..self }
    }

    /// Whether both run on one kernel: the physical or virtual machine is the same.
    pub fn same_kernel(&self, other: &Host) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id
    }

    /// Whether the two can reach each other's memory through process ids (`/proc/PID`, process_vm_readv): one kernel,
    /// one process namespace, one user. A security module may still refuse.
    pub fn sees_processes_of(&self, other: &Host) -> bool {
        let same = |ours: u64, theirs: u64| ours != 0 && ours == theirs;
        self.same_kernel(other)
            && self.user == other.user
            && same(self.pid_namespace, other.pid_namespace)
            && same(self.user_namespace, other.user_namespace)
    }
}

/// The kernel's number for one of our namespaces; 0 where `/proc` does not say.
fn namespace(kind: &str) -> u64 {
    fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |meta| meta.st_ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let here = Host::here();
        assert_eq!(here, Host::here());
        assert!(here.same_kernel(&here) && here.sees_processes_of(&here));
    }

    #[test]
    fn a_host_of_a_made_up_name_is_another_one() {
        let here = Host::here();
        let other = here.clone().called("other");
        assert!(!other.sees_processes_of(&here) && !here.sees_processes_of(&other));
        assert!(other.sees_processes_of(&here.clone().called("other")));
    }

    #[test]
    fn what_could_not_be_read_counts_as_different() {
        let blind = Host { boot_id: String::new(), ..Host::here() };
        assert!(!blind.same_kernel(&blind));
        let caged = Host { pid_namespace: 0, ..Host::here() };
        assert!(caged.same_kernel(&caged) && !caged.sees_processes_of(&caged));
    }

    #[test]
    fn containers_of_one_kernel_do_not_see_each_others_processes() {
        let here = Host::here();
        let other = Host { pid_namespace: here.pid_namespace + 1, ..here.clone() };
        assert!(here.same_kernel(&other) && !here.sees_processes_of(&other));
    }
}
