//! Pictures in text of hosts, sockets, cores, network cards and the ranks on them.
//!
//! ```text
//! node1: ranks 0-3 of 8; 2 sockets, 2 NUMA nodes, 8 cores, 16 hardware threads
//!   socket 0  numa 0  [ 0  0  1  1 ]  rdmap0s6
//!   socket 1  numa 1  [ 2  2  3  3 ]
//! ```
//! Each place between brackets is a core, with the rank that is bound to it: `.` nobody, `*` several. Ranks that are not
//! bound, or to all of a host, stand in the first line only.

use std::fmt::Write;
use std::ops::Range;

use crate::hosts::{HostWish, Slots};
use crate::place::{HostFacts, Placement, Seat};
use crate::topology::{Level, Thread, Topology};

/// Which pictures are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// `--display map`: which rank is where.
    pub map: bool,
    /// `--display allocation`: which hosts there are.
    pub allocation: bool,
    /// `--display bind` and `--report-bindings`: which hardware threads each rank may use.
    pub bind: bool,
}

/// Cores in one line of a picture; 16 three-digit ranks fit a terminal.
const CORES_PER_LINE: usize = 16;

/// The pictures that are asked for. Empty where none is.
pub fn display(what: Display, hosts: &[HostFacts], placement: &Placement) -> String {
    let mut text = String::new();
    if what.allocation {
        hosts.iter().for_each(|facts| allocation(&mut text, facts));
    }
    if what.map {
        let mut ranks_on: Vec<Vec<(usize, &Seat)>> = vec![Vec::new(); hosts.len()];
        for (rank, seat) in placement.seats.iter().enumerate() {
            ranks_on[seat.host as usize].push((rank, seat));
        }
        let pictures = hosts.iter().zip(&ranks_on);
        pictures.for_each(|(facts, ranks)| map(&mut text, facts, ranks, placement.seats.len()));
    }
    if what.bind {
        for (rank, seat) in placement.seats.iter().enumerate() {
            let facts = &hosts[seat.host as usize];
            line(
                &mut text,
                format_args!("rank {rank}: {}, {}", facts.wish.name, bound(&facts.topology, &seat.cpus)),
            );
        }
    }
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{what}");
}

fn allocation(text: &mut String, facts: &HostFacts) {
    let HostWish { name, user, slots, max_slots, .. } = &facts.wish;
    let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let slots = match slots {
        Slots::Cores => "a slot for each core".to_owned(),
        Slots::Mentioned(slots) | Slots::Stated(slots) => counted(*slots, "slot"),
    };
    let most = max_slots.map(|most| format!(", {most} at most")).unwrap_or_default();
    let nics = facts.topology.nics().iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>().join(", ");
    let nics = if nics.is_empty() { nics } else { format!("; {nics}") };
    line(text, format_args!("{user}{name}: {slots}{most}; {}{nics}", made_of(&facts.topology)));
}

fn made_of(topology: &Topology) -> String {
    let parts = [
        (Level::Socket, "socket"),
        (Level::Numa, "NUMA node"),
        (Level::Core, "core"),
        (Level::Thread, "hardware thread"),
    ];
    parts.map(|(level, name)| counted(topology.count(level), name)).join(", ")
}

fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn map(text: &mut String, facts: &HostFacts, ranks: &[(usize, &Seat)], size: usize) {
    let name = &facts.wish.name;
    let numbers: Vec<usize> = ranks.iter().map(|(rank, _)| *rank).collect();
    let here = match numbers.len() {
        0 => "no rank".to_owned(),
        1 => format!("rank {} of {size}", numbers[0]),
        _ => format!("ranks {} of {size}", ranges(&numbers)),
    };
    let is_bound = ranks.is_empty() || ranks.iter().any(|(_, seat)| !seat.cpus.is_empty());
    let bound = if is_bound { "" } else { ", not bound" };
    line(text, format_args!("{name}: {here}{bound}; {}", made_of(&facts.topology)));
    let all = facts.topology.threads();
    let mut on_thread: Vec<Cell> = vec![Cell::Nobody; all.len()];
    for &(rank, seat) in ranks.iter().filter(|(_, seat)| seat.cpus.len() < all.len()) {
        let threads = all.iter().zip(&mut on_thread).filter(|(thread, _)| seat.cpus.contains(&thread.cpu));
        threads.for_each(|(_, cell)| *cell = cell.and(Cell::Rank(rank)));
    }
    let width = size.saturating_sub(1).to_string().len().max(2);
    let mut known: Vec<&str> = Vec::new();
    for numa in facts.topology.parts(Level::Numa) {
        let first = all[numa.start];
        let cores = facts.topology.parts(Level::Core).into_iter().filter(|core| numa.contains(&core.start));
        let cells: Vec<String> =
            cores.map(|core| format!("{:>width$}", cell(&on_thread[core]).to_string())).collect();
        let nics = facts.topology.nics().iter().filter(|nic| nic.numa == Some(first.numa));
        let nics: Vec<&str> = nics.map(|nic| nic.name.as_str()).collect();
        row(text, first, &cells, &nics.join(", "));
        known.extend(nics);
    }
    let rest = facts.topology.nics().iter().map(|nic| nic.name.as_str()).filter(|nic| !known.contains(nic));
    let rest = rest.collect::<Vec<_>>().join(", ");
    if !rest.is_empty() {
        line(text, format_args!("  cards: {rest}"));
    }
}

/// The cores of a NUMA node.
fn row(text: &mut String, first: Thread, cells: &[String], nics: &str) {
    let head = format!("  socket {}  numa {}  ", first.socket, first.numa);
    let rows = cells.chunks(CORES_PER_LINE).map(|cells| cells.join(" "));
    let rows: Vec<String> = rows.collect();
    for (at, row) in rows.iter().enumerate() {
        let head = if at == 0 { head.clone() } else { " ".repeat(head.len()) };
        let (open, close) = (if at == 0 { '[' } else { ' ' }, if at + 1 == rows.len() { " ]" } else { "" });
        let nics = if at + 1 == rows.len() && !nics.is_empty() { format!("  {nics}") } else { String::new() };
        line(text, format_args!("{head}{open}{row}{close}{nics}"));
    }
}

/// Who is bound to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Nobody,
    Rank(usize),
    Several,
}

impl Cell {
    fn and(self, other: Cell) -> Cell {
        match (self, other) {
            (Cell::Nobody, cell) | (cell, Cell::Nobody) => cell,
            (a, b) if a == b => a,
            _ => Cell::Several,
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Nobody => f.write_str("."),
            Cell::Rank(rank) => write!(f, "{rank}"),
            Cell::Several => f.write_str("*"),
        }
    }
}

fn cell(threads: &[Cell]) -> Cell {
    threads.iter().fold(Cell::Nobody, |all, cell| all.and(*cell))
}

/// What a rank is bound to, in words.
fn bound(topology: &Topology, cpus: &[u32]) -> String {
    if cpus.is_empty() {
        return "not bound".to_owned();
    }
    let mine: Vec<&Thread> = topology.threads().iter().filter(|thread| cpus.contains(&thread.cpu)).collect();
    let numbers = |part: fn(&Thread) -> u32| {
        let mut numbers: Vec<usize> = mine.iter().map(|thread| part(thread) as usize).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let plural = if numbers.len() == 1 { "" } else { "s" };
        (plural, ranges(&numbers))
    };
    let ((s, sockets), (c, cores)) = (numbers(|thread| thread.socket), numbers(|thread| thread.core));
    let (t, threads) = numbers(|thread| thread.cpu);
    format!("socket{s} {sockets}, core{c} {cores}, cpu{t} {threads}")
}

/// Rising numbers in short: `0-3,8`.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    let show = |run: &Range<usize>| match run.len() {
        1 => run.start.to_string(),
        _ => format!("{}-{}", run.start, run.end - 1),
    };
    runs.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Nic;

    /// Two sockets of `cores` cores with two threads each, and a card near the second.
    fn host(name: &str, cores: u32) -> HostFacts {
        let all = 2 * cores;
        let thread = |core: u32, nth: u32| {
            let socket = core / cores;
            Thread { cpu: core + nth * all, core, numa: socket, socket }
        };
        let threads = (0..all).flat_map(|core| [thread(core, 0), thread(core, 1)]).collect();
        let nic = |name: &str, numa| Nic { name: name.to_owned(), numa, rdma: true };
        let topology = Topology::of(threads).with_nics(vec![nic("rdmap1", Some(1)), nic("eth0", None)]);
        HostFacts { wish: HostWish { slots: Slots::Stated(4), ..HostWish::named(name) }, topology, taken: 0 }
    }

    fn seat(host: u32, cpus: &[u32]) -> Seat {
        Seat { host, local: 0, block: 0, cpus: cpus.to_vec() }
    }

    fn shown(what: Display, hosts: &[HostFacts], seats: Vec<Seat>) -> String {
        display(what, hosts, &Placement { seats, remarks: Vec::new() })
    }

    const NOTHING: Display = Display { map: false, allocation: false, bind: false };

    #[test]
    fn a_map_shows_whose_each_core_is() {
        let seats = vec![seat(0, &[0, 4]), seat(1, &[]), seat(0, &[1, 5, 2, 6]), seat(0, &[2, 6])];
        let text =
            shown(Display { map: true, ..NOTHING }, &[host("a", 2), host("b", 2), host("c", 1)], seats);
        assert_eq!(
            text,
            "a: ranks 0,2-3 of 4; 2 sockets, 2 NUMA nodes, 4 cores, 8 hardware threads\n\
             \x20 socket 0  numa 0  [ 0  2 ]\n\
             \x20 socket 1  numa 1  [ *  . ]  rdmap1\n\
             \x20 cards: eth0\n\
             b: rank 1 of 4, not bound; 2 sockets, 2 NUMA nodes, 4 cores, 8 hardware threads\n\
             \x20 socket 0  numa 0  [ .  . ]\n\
             \x20 socket 1  numa 1  [ .  . ]  rdmap1\n\
             \x20 cards: eth0\n\
             c: no rank; 2 sockets, 2 NUMA nodes, 2 cores, 4 hardware threads\n\
             \x20 socket 0  numa 0  [ . ]\n\
             \x20 socket 1  numa 1  [ . ]  rdmap1\n\
             \x20 cards: eth0\n"
        );
    }

    #[test]
    fn many_cores_take_several_lines() {
        let text = shown(Display { map: true, ..NOTHING }, &[host("a", 20)], vec![seat(0, &[17])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].matches('.').count(), 16);
        assert_eq!(lines[2], "                      .  0  .  . ]");
    }

    #[test]
    fn bindings_are_said_in_words() {
        let seats = vec![seat(0, &[0, 4, 1, 5]), seat(0, &[]), seat(0, &[3])];
        let text = shown(Display { bind: true, ..NOTHING }, &[host("a", 2)], seats);
        assert_eq!(
            text,
            "rank 0: a, socket 0, cores 0-1, cpus 0-1,4-5\nrank 1: a, not bound\nrank 2: a, socket 1, core 3, cpu 3\n"
        );
    }

    #[test]
    fn an_allocation_lists_hosts_slots_and_cards() {
        let mut facts = host("a", 1);
        facts.wish.user = Some("me".into());
        facts.wish.max_slots = Some(8);
        let text = shown(Display { allocation: true, ..NOTHING }, &[facts], Vec::new());
        assert_eq!(
            text,
            "me@a: 4 slots, 8 at most; 2 sockets, 2 NUMA nodes, 2 cores, 4 hardware threads; rdmap1, eth0\n"
        );
    }

    #[test]
    fn nothing_is_shown_unasked_and_a_host_of_which_nothing_is_known_can_be_shown() {
        let unknown = HostFacts { wish: HostWish::named("a"), topology: Topology::default(), taken: 0 };
        assert_eq!(shown(NOTHING, std::slice::from_ref(&unknown), vec![seat(0, &[])]), "");
        let all = Display { map: true, allocation: true, bind: true };
        assert!(shown(all, &[unknown], vec![seat(0, &[])]).contains("rank 0: a, not bound"));
    }
}
