//! The namespaces that make a host, held open by descriptors: the kernel takes them apart when the last one is closed and
//! the last process in them has ended.
//!
//! A host has its own network, its own name, its own System V and POSIX IPC and its own mounts. It shares processes,
//! users and files with the machine: programs read each other's `/proc`, as those of one real host do.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{Doing, Error};

/// What is entered, in this order: with the mounts the view of the files changes, so they come last.
const KINDS: [(&str, LinkNameSpaceType); 4] = [
    ("net", LinkNameSpaceType::Network),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("mnt", LinkNameSpaceType::Mount),
];

/// Longest path of a working folder that a command can keep, its closing zero included. Linux: PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;

/// A set of namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces(Arc<[OwnedFd; 4]>);

impl Namespaces {
    /// New ones, in which `furnish` then runs, on a thread of its own.
    pub(crate) fn make(furnish: impl FnOnce() -> Result<(), Error> + Send) -> Result<Namespaces, Error> {
        on_a_thread(|| {
            let wanted =
                UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWNS;
            unshare(wanted).doing("make namespaces")?;
            furnish()?;
            let open = |(kind, _)| File::open(format!("/proc/thread-self/ns/{kind}")).map(OwnedFd::from);
            let [net, uts, ipc, mnt] = KINDS.map(open);
            let open = || Ok([net?, uts?, ipc?, mnt?]);
            let all: io::Result<[OwnedFd; 4]> = open();
            Ok(Namespaces(Arc::new(all.doing("open the namespaces just made")?)))
        })
    }

    /// The result of `task`, which runs here, on a thread of its own. Sockets that it opens stay here.
    pub(crate) fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_thread(|| {
            // A thread that shares its working folder with others cannot change mounts.
            unshare(UnshareFlags::FS).doing("leave the folder of the other threads")?;
            self.enter().doing("enter a host")?;
            Ok(task())
        })
    }

    /// `program`, to run here. It is a child of whoever spawns it, keeps its working folder, and inherits the environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // A command that is kept does not keep the host.
        let namespaces = Arc::downgrade(&self.0);
        let enter = move || {
            let namespaces = Namespaces(namespaces.upgrade().ok_or(io::ErrorKind::NotFound)?);
            let mut buffer = [0_u8; PATH_BYTES_MAX];
            let folder = working_folder(&mut buffer)?;
            namespaces.enter()?;
            Ok(rustix::process::chdir(folder)?)
        };
        // SAFETY: between fork and exec `enter` counts a reference and makes six system calls, on memory of its own stack and
        // descriptors that the reference keeps open; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Takes the calling thread here.
    fn enter(&self) -> io::Result<()> {
        for (descriptor, (_, kind)) in self.0.iter().zip(KINDS) {
            move_into_link_name_space(descriptor.as_fd(), Some(kind))?;
        }
        Ok(())
    }

    /// Numbers of the descriptors in this process: network, name, IPC, mounts.
    pub(crate) fn descriptors(&self) -> [RawFd; 4] {
        std::array::from_fn(|place| self.0[place].as_raw_fd())
    }

    /// The number by which the kernel knows the network: that of `/proc/PID/ns/net` for every process here.
    pub(crate) fn network(&self) -> Result<u64, Error> {
        let path = format!("/proc/self/fd/{}", self.0[0].as_raw_fd());
        Ok(std::fs::metadata(path).doing("look at a network namespace")?.ino())
    }
}

/// The result of `task`, on a thread of its own: what it does to its namespaces ends with it.
fn on_a_thread<T: Send>(task: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| match scope.spawn(task).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    assert!(!what.contains(UnshareFlags::FILES), "descriptors are shared with the other threads");
    // SAFETY: the table of descriptors stays shared, as was just checked.
    unsafe { rustix::thread::unshare_unsafe(what | UnshareFlags::FS) }
}

/// The working folder, in `buffer`. `std::env::current_dir` would allocate.
fn working_folder(buffer: &mut [u8; PATH_BYTES_MAX]) -> io::Result<&CStr> {
    // SAFETY: the kernel writes at most the length given, all of which is ours.
    let written = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
    if written.is_null() {
        return Err(io::Error::last_os_error());
    }
    CStr::from_bytes_until_nul(buffer).map_err(|_| io::ErrorKind::InvalidData.into())
}
