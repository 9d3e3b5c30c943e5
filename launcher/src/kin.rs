//! Which rank a connection over the loopback interface comes from: by the kernel's word, before a byte of it is read.
//!
//! ```text
//!   address and port of the caller   -- /proc/net/tcp -->   number of its socket, and whose it is
//!   number of the socket             -- /proc/PID/fd --->   a process that has it open
//!   number of the process            -- /proc/PID/stat ->   its parents, up to a rank that we have started
//! ```
//! All three are snapshots. A rank's number is nobody else's while we, its parent, have not waited for it; any other
//! process's parents are looked at again after its descriptors, so that one which has taken a number meanwhile is not
//! taken for the one before it.
//!
//! A descendant whose own parent has ended is ours, because agents inherit orphans; then it is the rank's whose process
//! group it is in. Cost of a look, whatever the number of callers: the tables of TCP, and the descriptors of the ranks;
//! where that is not enough, a walk through `/proc` and the descriptors of what ranks have started.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::process::{Pid, getpid, getuid};

/// No line of parents is so long. A process may get another parent while we climb, and so lead us round.
const GENERATIONS_MAX: usize = 256;

/// Who is at the other end of a connection, where it is no rank's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// Nobody any more.
    Gone,
    /// A process of this user, who is not ours.
    User(u32),
    /// None of the ranks, and nothing that they have started; or it may not be looked at.
    Nobody,
}

/// What the kernel says of a process's place among others: proc(5), `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parentage {
    pub(crate) parent: i32,
    group: i32,
}

impl Parentage {
    /// Of a process that is there.
    pub(crate) fn of(pid: i32) -> Option<Parentage> {
        Parentage::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Parentage> {
        // "pid (name) state parent group ...", where the name may contain anything.
        let after_name = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[after_name + 1..]).ok()?;
        let mut words = rest.split_ascii_whitespace().skip(1).map(str::parse);
        Some(Parentage { parent: words.next()?.ok()?, group: words.next()?.ok()? })
    }
}

/// The processes that there are.
pub(crate) fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// For each of those who have connected to `door`, the rank that it is or descends from. `ranks`: our children that we have
/// not waited for.
pub(crate) fn holders(door: SocketAddr, callers: &[SocketAddr], ranks: &[Pid]) -> Vec<Result<Pid, Stranger>> {
    let table = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    let sockets: HashMap<SocketAddr, Socket> =
        ["tcp", "tcp6"].iter().flat_map(|name| connected_to(door, &table(name))).collect();
    let own = getuid().as_raw();
    let judge = |caller| match sockets.get(caller) {
        None | Some(Socket { inode: 0, .. }) => Err(Stranger::Gone),
        Some(Socket { user, .. }) if *user != own => Err(Stranger::User(*user)),
        Some(Socket { inode, .. }) => Ok(*inode),
    };
    let judged: Vec<Result<u64, Stranger>> = callers.iter().map(judge).collect();
    let wanted = judged.iter().flatten().copied().collect();
    let numbers = ranks.iter().map(|rank| rank.as_raw_nonzero().get()).collect();
    let held = held(wanted, &numbers);
    let rank_of = |inode| held.get(&inode).and_then(|rank| Pid::from_raw(*rank)).ok_or(Stranger::Nobody);
    judged.into_iter().map(|inode| inode.and_then(rank_of)).collect()
}

/// One end of a connection. `inode` 0: its process has closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    inode: u64,
    user: u32,
}

/// The far ends of connections to `door`, out of `/proc/net/tcp` or `tcp6`, by their addresses.
fn connected_to(door: SocketAddr, table: &str) -> Vec<(SocketAddr, Socket)> {
    // "sl local remote state queues timer retransmits user timeout inode ..."
    let row = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[_, local, remote, _, _, _, _, user, _, inode, ..] = words.as_slice() else { return None };
        let socket = Socket { inode: inode.parse().ok()?, user: user.parse().ok()? };
        (address(remote)? == door).then_some((address(local)?, socket))
    };
    table.lines().filter_map(row).collect()
}

/// `0100007F:1F90`: bytes of the network in words as this machine has them. What IPv6 carries for IPv4 is IPv4.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = words.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match words.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[4 * at..4 * at + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The rank of each of these sockets that some rank has open, or something that it has started.
fn held(mut wanted: BTreeSet<u64>, ranks: &BTreeSet<i32>) -> BTreeMap<u64, i32> {
    let mut found = BTreeMap::new();
    for rank in ranks.iter().take_while(|_| !wanted.is_empty()) {
        for inode in sockets_of(*rank).into_iter().filter(|inode| wanted.contains(inode)) {
            found.entry(inode).or_insert(*rank);
        }
    }
    wanted.retain(|inode| !found.contains_key(inode));
    if wanted.is_empty() {
        return found;
    }
    let agent = getpid().as_raw_nonzero().get();
    let family: BTreeMap<i32, Parentage> =
        processes().filter_map(|pid| Some((pid, Parentage::of(pid)?))).collect();
    for pid in family.keys().filter(|pid| !ranks.contains(pid)) {
        let Some(rank) = rank_of(*pid, agent, ranks, |pid| family.get(&pid).copied()) else { continue };
        let open: Vec<u64> = sockets_of(*pid).into_iter().filter(|inode| wanted.contains(inode)).collect();
        if !open.is_empty() && rank_of(*pid, agent, ranks, Parentage::of) == Some(rank) {
            found.extend(open.into_iter().map(|inode| (inode, rank)));
        }
    }
    found
}

/// The rank that a process descends from, or whose group it is in if it is an orphan of ours.
fn rank_of(
    pid: i32,
    agent: i32,
    ranks: &BTreeSet<i32>,
    parentage: impl Fn(i32) -> Option<Parentage>,
) -> Option<i32> {
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        if ranks.contains(&at) {
            return Some(at);
        }
        let Parentage { parent, group } = parentage(at)?;
        if parent == agent {
            return Some(group).filter(|group| ranks.contains(group));
        }
        at = parent;
    }
    None
}

/// The sockets that a process has open, as far as we may look.
fn sockets_of(pid: i32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let number = |link: &str| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    entries.filter_map(|entry| number(fs::read_link(entry.path()).ok()?.to_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100 0 0 10 0
   1: 0100007F:A000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 22 1 0 20 4 30 10 -1
   2: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000  1000        0 33 1 0 20 4 30 10 -1
   3: 0100007F:A001 0100007F:1F90 04 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
   4: 0100007F:A002 0100007F:1F91 01 00000000:00000000 00:00000000 00000000  1000        0 44 1 0 20 4 30 10 -1
   5: nonsense
";

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_the_far_ends_of_our_own_connections_are_read() {
        let found = connected_to(loopback(0x1f90), TABLE);
        let expected = [
            (loopback(0xa000), Socket { inode: 22, user: 1000 }),
            (loopback(0xa001), Socket { inode: 0, user: 0 }),
        ];
        assert_eq!(found, expected);
        let mapped = "0000000000000000FFFF00000100007F";
        assert_eq!(address(&format!("{mapped}:1F90")), Some(loopback(0x1f90)));
        for garbage in ["", ":", "0100007F", "0100007F:", "0100007F:10000", "ÿ00007F:1", "01:1F90"] {
            assert_eq!(address(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn parents_are_read_whatever_the_name() {
        let parsed = Parentage::parse(b"7 (a) b (1 2) R 41 42 43 0");
        assert_eq!(parsed, Some(Parentage { parent: 41, group: 42 }));
        for garbage in [&b""[..], b"7 (a)", b"7 (a) R", b"7 (a) R 1", b"7 (a) R x 1"] {
            assert_eq!(Parentage::parse(garbage), None);
        }
    }

    #[test]
    fn a_process_is_the_ranks_that_it_descends_from_and_an_orphan_its_groups() {
        const AGENT: i32 = 100;
        let ranks = BTreeSet::from([200, 300]);
        let family = BTreeMap::from(
            [
                (1, (0, 1)),
                (AGENT, (1, AGENT)),
                (200, (AGENT, 200)),
                (300, (AGENT, 300)),
                // A grandchild that has joined the other rank's group.
                (201, (200, 200)),
                (202, (201, 300)),
                // An orphan, and its child.
                (301, (AGENT, 300)),
                (302, (301, 301)),
                // An orphan with a group of its own, and strangers: one in a rank's group, one that has no parent.
                (303, (AGENT, 303)),
                (400, (1, 300)),
                (401, (0, 401)),
                // Round and round.
                (500, (501, 500)),
                (501, (500, 500)),
            ]
            .map(|(pid, (parent, group))| (pid, Parentage { parent, group })),
        );
        let rank = |pid| rank_of(pid, AGENT, &ranks, |pid| family.get(&pid).copied());
        assert_eq!([200, 201, 202].map(rank), [Some(200); 3]);
        assert_eq!([300, 301, 302].map(rank), [Some(300); 3]);
        assert_eq!([AGENT, 303, 400, 401, 500, 999].map(rank), [None; 6]);
    }

    #[test]
    fn a_connection_is_found_in_the_process_that_has_it() {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let door = listener.local_addr().unwrap();
        let mine = TcpStream::connect(door).unwrap();
        let caller = mine.local_addr().unwrap();
        let ourselves = getpid();
        assert_eq!(holders(door, &[caller], &[ourselves]), [Ok(ourselves)]);
        assert_eq!(holders(door, &[caller], &[]), [Err(Stranger::Nobody)]);
        let nobody = loopback(1);
        assert_eq!(holders(door, &[nobody, caller], &[ourselves]), [Err(Stranger::Gone), Ok(ourselves)]);
        drop(mine);
        assert_eq!(holders(door, &[caller], &[ourselves]), [Err(Stranger::Gone)]);
    }
}
