//! On which part of its host this rank runs, as Linux tells it.

use std::fs;

/// A part of a host that ranks can be bound to; for [`Communicator::split_by`](crate::Communicator::split_by).
///
/// ```
/// selvedge::local::run(2, |world| {
///     let near = world.split_by(selvedge::Level::Socket).unwrap();
///     assert!(near.is_none_or(|near| near.size() <= world.local_ranks()));
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The whole host.
    Host,
    /// A socket: the processors of one package.
    Socket,
    /// Processors that have the same memory near.
    Numa,
}

/// More parts than a host has.
pub(crate) const PARTS_MAX: u32 = 1 << 12;

/// The part that all processors belong to which this thread may run on.
pub(crate) fn part_here(level: Level) -> Option<u32> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let processors = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&processor| set.is_set(processor));
    part(level, processors, |path| fs::read_to_string(format!("/sys/devices/system/{path}")).ok())
}

/// The part that all of `processors` belong to. `read` shows a file below `/sys/devices/system`.
fn part(
    level: Level,
    mut processors: impl Iterator<Item = usize>,
    read: impl Fn(&str) -> Option<String>,
) -> Option<u32> {
    let nodes = match level {
        Level::Host => return Some(0),
        Level::Socket => Vec::new(),
        Level::Numa => nodes(&read),
    };
    let part_of = |processor: usize| match level {
        Level::Numa => nodes.iter().find(|(_, list)| has(list, processor)).map(|(node, _)| *node),
        _ => read(&format!("cpu/cpu{processor}/topology/physical_package_id"))?.trim().parse().ok(),
    };
    let first = part_of(processors.next()?)?;
    (first < PARTS_MAX && processors.all(|processor| part_of(processor) == Some(first))).then_some(first)
}

/// The NUMA nodes and their lists of processors. Where the kernel knows of none there is one, with all of them.
fn nodes(read: impl Fn(&str) -> Option<String>) -> Vec<(u32, String)> {
    let Some(online) = read("node/online") else { return vec![(0, "0-".to_owned() + &u32::MAX.to_string())] };
    let is_online = |&node: &u32| has(&online, node as usize);
    let list = |node| Some((node, read(&format!("node/node{node}/cpulist"))?));
    (0..PARTS_MAX).filter(is_online).filter_map(list).collect()
}

/// Whether a list of the kernel's, such as `0-3,8`, has this number.
fn has(list: &str, number: usize) -> bool {
    list.trim().split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.parse::<usize>(), last.parse::<usize>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sockets of two nodes of two processors, each with its sibling four further on.
    fn read(path: &str) -> Option<String> {
        let text = match path {
            "node/online" => "0-3\n".to_owned(),
            _ if path.starts_with("node/node") => {
                let node: usize = path.split(['e', '/']).nth(3)?.parse().ok()?;
                format!("{},{}\n", node, node + 4)
            }
            _ => {
                let processor: usize = path.strip_prefix("cpu/cpu")?.split('/').next()?.parse().ok()?;
                format!("{}\n", processor % 4 / 2)
            }
        };
        Some(text)
    }

    #[test]
    fn a_rank_is_on_the_part_that_all_its_processors_belong_to() {
        let part = |level, processors: &[usize]| part(level, processors.iter().copied(), read);
        assert_eq!(part(Level::Host, &[0, 3, 7]), Some(0));
        assert_eq!(part(Level::Socket, &[2, 3, 6, 7]), Some(1));
        assert_eq!(part(Level::Socket, &[1, 2]), None, "bound to no socket");
        assert_eq!(part(Level::Numa, &[3, 7]), Some(3));
        assert_eq!(part(Level::Numa, &[2, 3]), None, "bound to a socket, not to a node");
        assert_eq!(part(Level::Numa, &[]), None);
    }

    #[test]
    fn where_the_kernel_tells_nothing_there_is_one_node_and_no_socket() {
        assert_eq!(part(Level::Numa, [0, 5].into_iter(), |_| None), Some(0));
        assert_eq!(part(Level::Socket, [0].into_iter(), |_| None), None);
    }
}
