//! What the kernel says of a process of ours, to the user whose process it is: read when somebody asks, and never before.

use std::fs;
use std::path::PathBuf;

use rustix::process::Pid;

use crate::whereabouts::Process;

/// What a process does at this moment.
#[derive(Debug)]
pub(super) struct Seen {
    /// State of its first thread.
    pub(super) process: Process,
    /// The function of the kernel that it sleeps in.
    pub(super) kernel: String,
    /// The system call that it is in, with what that is about.
    pub(super) call: String,
    /// Who debugs it; 0: nobody.
    pub(super) tracer: u32,
    /// Further threads of it that compute.
    pub(super) busy_threads: u32,
}

impl Seen {
    /// Of a process that has ended.
    pub(super) fn gone() -> Seen {
        let nothing = String::new;
        Seen { process: Process::Gone, kernel: nothing(), call: nothing(), tracer: 0, busy_threads: 0 }
    }

    /// Of a child that has not been waited for: without a line it is as good as ended. Cost: four small files, and one for
    /// each thread.
    pub(super) fn of(pid: Pid) -> Seen {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&read(name)).trim().to_owned();
        let Some(process) = Process::parse(&text("stat")) else { return Seen::gone() };
        let kernel = text("wchan");
        let status = text("status");
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        Seen {
            process,
            kernel: if kernel == "0" { String::new() } else { kernel },
            call: call(&text("syscall"), |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()),
            tracer: tracer.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0),
            busy_threads: busy_threads(pid),
        }
    }
}

fn busy_threads(pid: Pid) -> u32 {
    let first = pid.to_string();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let others = threads.filter(|thread| thread.file_name() != first.as_str());
    let runs = |folder: PathBuf| {
        let stat = fs::read(folder.join("stat")).unwrap_or_default();
        Process::parse(&String::from_utf8_lossy(&stat)) == Some(Process::Running)
    };
    u32::try_from(others.filter(|thread| runs(thread.path())).count()).unwrap_or(u32::MAX)
}

/// Out of `/proc/PID/syscall`: number and arguments of the call that the process is in. `file`: where a descriptor leads.
fn call(line: &str, file: impl Fn(u64) -> Option<PathBuf>) -> String {
    let mut words = line.split_whitespace();
    // "running", or -1: it is in none. Whoever may not look gets nothing.
    let Some(number) = words.next().and_then(|word| word.parse::<i64>().ok()).filter(|number| *number >= 0)
    else {
        return String::new();
    };
    let Some((_, name, is_of_file)) = CALLS.iter().find(|(known, ..)| *known == number) else {
        return format!("system call {number}");
    };
    let first = words.next().and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    match first.filter(|_| *is_of_file).and_then(file) {
        Some(path) => format!("{name} of {}", path.display()),
        None => (*name).to_owned(),
    }
}

/// Calls in which programs hang: number, name, and whether the first argument is a descriptor worth naming.
const CALLS: &[(i64, &str, bool)] = &[
    (libc::SYS_read, "read", true),
    (libc::SYS_readv, "read", true),
    (libc::SYS_pread64, "read", true),
    (libc::SYS_write, "write", true),
    (libc::SYS_writev, "write", true),
    (libc::SYS_pwrite64, "write", true),
    (libc::SYS_fsync, "fsync", true),
    (libc::SYS_fdatasync, "fdatasync", true),
    (libc::SYS_flock, "flock", true),
    (libc::SYS_fcntl, "fcntl", true),
    (libc::SYS_ioctl, "ioctl", true),
    (libc::SYS_openat, "open", false),
    (libc::SYS_newfstatat, "stat", false),
    (libc::SYS_statx, "stat", false),
    (libc::SYS_getdents64, "getdents", true),
    (libc::SYS_connect, "connect", true),
    (libc::SYS_accept, "accept", true),
    (libc::SYS_accept4, "accept", true),
    (libc::SYS_sendto, "send", true),
    (libc::SYS_sendmsg, "send", true),
    (libc::SYS_recvfrom, "receive", true),
    (libc::SYS_recvmsg, "receive", true),
    (libc::SYS_ppoll, "poll", false),
    (libc::SYS_pselect6, "select", false),
    (libc::SYS_epoll_pwait, "epoll_wait", false),
    (libc::SYS_futex, "futex, a lock or another thread", false),
    (libc::SYS_nanosleep, "sleep", false),
    (libc::SYS_clock_nanosleep, "sleep", false),
    (libc::SYS_wait4, "wait for a child", false),
    (libc::SYS_waitid, "wait for a child", false),
    (libc::SYS_rt_sigsuspend, "wait for a signal", false),
    (libc::SYS_rt_sigtimedwait, "wait for a signal", false),
    (libc::SYS_munmap, "munmap", false),
    (libc::SYS_mmap, "mmap", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "wait for a signal", false),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "wait for a child to start a program", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_with_the_file_that_it_is_about() {
        let file = |fd| (fd == 3).then(|| PathBuf::from("pipe:[7]"));
        let line = format!("{} 0x3 0x7ffd 0x1 0x0 0x0 0x0 0x7ffc 0x7f12", libc::SYS_read);
        assert_eq!(call(&line, file), "read of pipe:[7]");
        assert_eq!(call(&line.replace("0x3", "0x4"), file), "read");
        let line = format!("{} 0x3 0x0", libc::SYS_futex);
        assert_eq!(call(&line, file), "futex, a lock or another thread");
        assert_eq!(call("99999 0x3", file), "system call 99999");
        for nothing in ["running", "-1 0x7ffd 0x7f12", "", "nonsense"] {
            assert_eq!(call(nothing, file), "");
        }
    }

    #[test]
    fn a_process_that_sleeps_is_seen_to_sleep_in_a_call() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let start = std::time::Instant::now();
        let seen = loop {
            let seen = Seen::of(pid);
            // Between fork and exec it is still us, and it falls asleep between two of our looks at it.
            let asleep = seen.call == "sleep" && seen.process == Process::Sleeping;
            if asleep || start.elapsed().as_secs() > 20 {
                break seen;
            }
            std::thread::yield_now();
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen.process, Process::Sleeping, "{seen:?}");
        assert_eq!((seen.call.as_str(), seen.tracer, seen.busy_threads), ("sleep", 0, 0));
    }

    #[test]
    fn a_process_that_is_not_there_has_ended() {
        assert_eq!(Seen::of(Pid::from_raw(i32::MAX).unwrap()).process, Process::Gone);
    }
}
