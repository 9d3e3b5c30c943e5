//! Rank files, as Open MPI has them: one line for each rank, with its host and its cores.
//!
//! ```text
//! rank 0=node1 slot=0        core 0
//! rank 1=node1 slot=1:0-2    cores 0 to 2 of socket 1
//! rank 2=node2 slot=1:*      all of socket 1
//! rank 3=node2               wherever the system likes
//! ```

use std::path::Path;

use crate::args::Usage;
use crate::hosts;
use crate::topology::{Level, Topology, cpu_list};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankLine {
    /// Name of the host.
    pub host: String,
    /// Where on it; empty: anywhere.
    pub cores: Vec<CoreRange>,
}

/// Some cores, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreRange {
    /// Of this socket only; of the whole host where there is none.
    pub socket: Option<u32>,
    /// Which; all where there is none.
    pub cores: Option<Vec<u32>>,
}

/// Most ranks of a file.
const RANKS_MAX: usize = 1 << 20;

/// The lines of a rank file by rank.
///
/// # Errors
/// File and line of what cannot be understood; the first rank that has no line, or two.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<RankLine>, Usage> {
    let path = path.display();
    let text =
        std::str::from_utf8(bytes).map_err(|_| Usage::new(format!("the rank file {path} is not text")))?;
    let mut lines: Vec<(usize, RankLine)> = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if !text.is_empty() {
            lines.push(line(text).map_err(|why| Usage::new(format!("{path}, line {number}: {why}")))?);
        }
    }
    if lines.is_empty() {
        return Err(Usage::new(format!("the rank file {path} has no line of a rank")));
    }
    lines.sort_by_key(|(rank, _)| *rank);
    for (at, (rank, _)) in lines.iter().enumerate() {
        match rank.cmp(&at) {
            std::cmp::Ordering::Less => {
                return Err(Usage::new(format!("the rank file {path} has two lines for rank {rank}")));
            }
            std::cmp::Ordering::Greater => {
                return Err(Usage::new(format!("the rank file {path} has no line for rank {at}")));
            }
            std::cmp::Ordering::Equal => {}
        }
    }
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn line(text: &str) -> Result<(usize, RankLine), String> {
    let wrong = || format!("{text:?} is not like: rank 0=host slot=1:0-2");
    let rest = text.strip_prefix("rank").ok_or_else(wrong)?;
    let (rank, rest) = rest.split_once('=').ok_or_else(wrong)?;
    let rank: usize = rank.trim().parse().map_err(|_| wrong())?;
    if rank >= RANKS_MAX {
        return Err(format!("rank {rank}: more than {RANKS_MAX} ranks"));
    }
    let rest = rest.trim_start();
    let (host, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let named = hosts::parse_list(host)?;
    let [named] = &named[..] else { return Err(format!("{host:?}: one host expected")) };
    let cores = match rest.trim() {
        "" => Vec::new(),
        rest => {
            let spec = rest.strip_prefix("slots").or_else(|| rest.strip_prefix("slot"));
            let spec = spec.and_then(|spec| spec.trim_start().strip_prefix('=')).ok_or_else(wrong)?;
            slot_list(spec.trim())?
        }
    };
    Ok((rank, RankLine { host: named.name.clone(), cores }))
}

/// `0`, `0-2`, `1:0-2`, `1:*`, `0:0,1:3`, `0,2`.
fn slot_list(text: &str) -> Result<Vec<CoreRange>, String> {
    let wrong = |part: &str| format!("slot={part:?} is not like 2, 0-2, 1:0-2 or 1:*");
    let part = |part: &str| {
        let (socket, cores) = match part.split_once(':') {
            Some((socket, cores)) => (Some(socket.trim().parse().map_err(|_| wrong(part))?), cores.trim()),
            None => (None, part),
        };
        let cores = match cores {
            "*" => None,
            _ => Some(cpu_list(cores).filter(|cores| !cores.is_empty()).ok_or_else(|| wrong(part))?),
        };
        Ok(CoreRange { socket, cores })
    };
    text.split([',', ';']).map(|one| part(one.trim())).collect()
}

impl RankLine {
    /// The hardware threads that it means; empty where it means anywhere.
    ///
    /// # Errors
    /// What the host does not have.
    pub(super) fn cpus(&self, topology: &Topology) -> Result<Vec<u32>, String> {
        let threads = topology.threads();
        let mut cpus = Vec::new();
        for range in &self.cores {
            let within = match range.socket {
                None => 0..threads.len(),
                Some(socket) => {
                    let sockets = topology.parts(Level::Socket);
                    let count = sockets.len();
                    let found = usize::try_from(socket).ok().and_then(|socket| sockets.get(socket).cloned());
                    found.ok_or_else(|| {
                        format!("{} has {count} sockets that we may use, and no socket {socket}", self.host)
                    })?
                }
            };
            let within = &threads[within];
            let first = within.first().map_or(0, |thread| thread.core);
            let last = within.last().map_or(0, |thread| thread.core);
            let has = |core: &u32| *core <= last - first && !within.is_empty();
            if let Some(missing) = range.cores.iter().flatten().find(|core| !has(core)) {
                let place = range.socket.map(|socket| format!("socket {socket} of ")).unwrap_or_default();
                let count = if within.is_empty() { 0 } else { last - first + 1 };
                return Err(format!(
                    "{place}{} has {count} cores that we may use, and no core {missing}",
                    self.host
                ));
            }
            let meant = |core: u32| range.cores.as_ref().is_none_or(|cores| cores.contains(&(core - first)));
            cpus.extend(within.iter().filter(|thread| meant(thread.core)).map(|thread| thread.cpu));
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<RankLine>, String> {
        parse(Path::new("ranks"), text.as_bytes()).map_err(|why| why.to_string())
    }

    #[test]
    fn lines_may_stand_in_any_order() {
        let lines = parsed("# two\nrank 1=b slot=1:0-2\nrank 0 = a slot = 0\nrank 2=b\n").unwrap();
        let range = |socket, cores: &[u32]| CoreRange { socket, cores: Some(cores.to_vec()) };
        assert_eq!(lines[0], RankLine { host: "a".into(), cores: vec![range(None, &[0])] });
        assert_eq!(lines[1], RankLine { host: "b".into(), cores: vec![range(Some(1), &[0, 1, 2])] });
        assert_eq!(lines[2], RankLine { host: "b".into(), cores: Vec::new() });
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, part) in [
            ("", "no line of a rank"),
            ("rank 0=a\nrank 2=b", "no line for rank 1"),
            ("rank 0=a\nrank 0=b", "two lines for rank 0"),
            ("a slots=2", "ranks, line 1: \"a slots=2\" is not like"),
            ("rank x=a", "not like"),
            ("rank 99999999=a", "more than"),
            ("rank 0=a,b slot=0", "one host"),
            ("rank 0=+n0 slot=0", "write their names"),
            ("rank 0=a slot=x", "slot=\"x\""),
            ("rank 0=a slot=1:", "slot=\"1:\""),
            ("rank 0=a core=1", "not like"),
        ] {
            let why = parsed(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_core_that_the_host_does_not_have_is_named() {
        let cpus = |line: &str| parsed(line).unwrap()[0].cpus(&Topology::flat(4));
        assert_eq!(cpus("rank 0=a slot=1-2"), Ok(vec![1, 2]));
        assert_eq!(cpus("rank 0=a slot=0:*"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(cpus("rank 0=a slot=0:0,0:3"), Ok(vec![0, 3]));
        assert_eq!(cpus("rank 0=a"), Ok(vec![]));
        assert!(
            cpus("rank 0=a slot=4").unwrap_err().contains("a has 4 cores that we may use, and no core 4")
        );
        assert!(cpus("rank 0=a slot=1:0").unwrap_err().contains("no socket 1"));
        let nothing = parsed("rank 0=a slot=0").unwrap()[0].cpus(&Topology::default());
        assert!(nothing.unwrap_err().contains("0 cores"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_is_too_strange(text in "(rank |=|slot|[0-9]|:|,|-|\\*|a|b|\n| |\\PC){0,30}") {
            if let Ok(lines) = parsed(&text) {
                let _ = lines.iter().map(|line| line.cpus(&Topology::flat(3))).collect::<Vec<_>>();
            }
        }
    }
}
