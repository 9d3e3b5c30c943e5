//! What a job has left behind on a host.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// What is on the hosts and was not put there by the testbed. Prints as one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<Leftover>);

/// Something that a job has left behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// The host it is on.
    pub host: String,
    /// What it is.
    pub thing: Thing,
}

/// What can be left behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A process that still runs. A zombie has ended: only its parent still thinks of it.
    Process {
        /// Its number, the same on every host and for the test.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// An entry of `/dev/shm`.
    SharedMemory(String),
    /// A socket that somebody holds: of TCP and UDP all, of Unix sockets those that have a name.
    Socket(String),
}

impl Leftovers {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it, by host.
    pub fn iter(&self) -> impl Iterator<Item = &Leftover> {
        self.0.iter()
    }

    /// What of this is not in `known`.
    pub(crate) fn without(&self, known: &Leftovers) -> Leftovers {
        Leftovers(self.0.difference(&known.0).cloned().collect())
    }

    /// Adds what is on the host of the calling thread.
    pub(crate) fn look_around(&mut self, host: &str, network: u64) -> io::Result<()> {
        let mut add = |thing| self.0.insert(Leftover { host: host.to_string(), thing });
        for pid in processes_on(network)? {
            let command = command_line(pid);
            add(Thing::Process { pid, command });
        }
        for entry in fs::read_dir("/dev/shm")? {
            add(Thing::SharedMemory(entry?.file_name().to_string_lossy().into_owned()));
        }
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
            for socket in text.lines().skip(1).filter_map(|row| internet_socket(table, row)) {
                add(Thing::Socket(socket));
            }
        }
        let text = fs::read_to_string("/proc/thread-self/net/unix")?;
        for name in text.lines().skip(1).filter_map(|row| row.split_whitespace().nth(7)) {
            add(Thing::Socket(format!("unix {name}")));
        }
        Ok(())
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Leftover { host, thing } in &self.0 {
            match thing {
                Thing::Process { pid, command } => writeln!(f, "{host}: process {pid}: {command}")?,
                Thing::SharedMemory(name) => writeln!(f, "{host}: /dev/shm/{name}")?,
                Thing::Socket(what) => writeln!(f, "{host}: socket {what}")?,
            }
        }
        Ok(())
    }
}

/// The processes whose network has this number.
pub(crate) fn processes_on(network: u64) -> io::Result<Vec<u32>> {
    let wanted = format!("net:[{network}]");
    let is_there =
        |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it == Path::new(&wanted));
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| is_there(*pid)).collect())
}

fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_string()
}

/// A row of `/proc/net/tcp` and its like, if a process holds the socket: proc_pid_net(5).
fn internet_socket(table: &str, row: &str) -> Option<String> {
    let mut columns = row.split_whitespace();
    let (local, remote, state) = (columns.nth(1)?, columns.next()?, columns.next()?);
    // Behind it: queues, timer, retransmissions, owner, time-outs, inode. None means that the kernel finishes alone.
    if columns.nth(5)? == "0" {
        return None;
    }
    let (local, remote) = (end(local)?, end(remote)?);
    Some(match (table, state) {
        ("tcp" | "tcp6", "0A") => format!("{table} {local} listening"),
        ("tcp" | "tcp6", _) => format!("{table} {local} to {remote}"),
        _ => format!("{table} {local}"),
    })
}

/// Address and port, in hexadecimal: the address in words of four bytes, each as this processor would print it.
fn end(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(format!("{address} port {port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_the_kernel_become_sentences() {
        let listening =
            "0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1";
        assert_eq!(internet_socket("tcp", listening).as_deref(), Some("tcp 0.0.0.0 port 8080 listening"));
        let open = "1: 0100007F:0016 01004D0A:8235 01 00000000:00000000 02:0000 00000000 0 0 999 1";
        assert_eq!(
            internet_socket("tcp", open).as_deref(),
            Some("tcp 127.0.0.1 port 22 to 10.77.0.1 port 33333")
        );
        let v6 = "2: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1";
        assert_eq!(internet_socket("tcp6", v6).as_deref(), Some("tcp6 ::1 port 22 listening"));
    }

    #[test]
    fn a_connection_that_only_the_kernel_remembers_is_none() {
        let waiting = "1: 0100007F:0016 0100007F:8235 06 00000000:00000000 03:0000 00000000 0 0 0 3";
        assert_eq!(internet_socket("tcp", waiting), None);
        assert_eq!(internet_socket("tcp", "garbage"), None);
    }
}
