//! What rank 0 says at the start: which road every class of pairs takes, and for each better one why it was not taken.

use std::fmt;

use selvedge_ofi::Choice;
use selvedge_shm::Shm;
use selvedge_transport::Fault;
use serde::Serialize;

use crate::world::network::Network;
use crate::world::routes::{PassedOver, Routes};
use crate::world::wishes::ReportWish;

/// The report as data. Its JSON is for programs: fields are added, none is taken away.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    ranks: usize,
    hosts: Vec<HostReport>,
    roads: Vec<RoadReport>,
    not_taken: Vec<NotTaken>,
    /// Whether somebody who did not ask should read it.
    #[serde(skip)]
    worth_saying: bool,
}

#[derive(Debug, Serialize)]
struct HostReport {
    name: String,
    ranks: usize,
}

/// A class of pairs of ranks, and the road they take.
#[derive(Debug, Serialize)]
struct RoadReport {
    /// `same host`, `other host`, or `all`.
    pairs: &'static str,
    road: &'static str,
    /// Of shared memory: whether large messages are copied once.
    #[serde(skip_serializing_if = "Option::is_none")]
    single_copy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkReport>,
    /// What works and could be better.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NetworkReport {
    /// Libfabric's name for it, layers included.
    provider: String,
    library: String,
    library_version: String,
    nics: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NotTaken {
    roads: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    reason: String,
    remedy: String,
    #[serde(skip)]
    said: String,
}

impl From<&PassedOver> for NotTaken {
    fn from(road: &PassedOver) -> NotTaken {
        let (rank, host) = road.who.clone().unzip();
        let (reason, remedy) = (road.reason.clone(), road.remedy.clone());
        let roads = road.roads.iter().map(|road| road.name()).collect();
        NotTaken { roads, rank, host, reason, remedy, said: road.to_string() }
    }
}

/// Of a job whose ranks all share memory. Worth saying only when the kernel is in the way of something.
pub(crate) fn on_one_host(host: &str, near: &Shm, ranks: u32) -> Report {
    let ranks = ranks as usize;
    Report {
        ranks,
        hosts: vec![HostReport { name: host.to_owned(), ranks }],
        roads: vec![shared_memory("all", near)],
        not_taken: Vec::new(),
        worth_saying: !near.has_single_copy(),
    }
}

/// Of a job that uses a network, always worth saying.
pub(crate) fn on_several_hosts(routes: &Routes, network: &Network, near: Option<&Shm>) -> Report {
    let ranks_on = |host: usize| routes.host_of.iter().filter(|&&of| of as usize == host).count();
    let hosts = routes.hosts.iter().enumerate();
    let far = routes.far.and_then(|far| network.choice(far).map(|choice| (far.name(), choice)));
    // Rank 0 may be alone on its host while others share memory on theirs.
    let near_road = near.map_or(
        RoadReport { pairs: "same host", road: "shm", single_copy: None, network: None, notes: Vec::new() },
        |near| shared_memory(if far.is_some() { "same host" } else { "all" }, near),
    );
    let pairs = if routes.near { "other host" } else { "all" };
    Report {
        ranks: routes.host_of.len(),
        hosts: hosts.map(|(index, name)| HostReport { name: name.clone(), ranks: ranks_on(index) }).collect(),
        roads: routes
            .near
            .then_some(near_road)
            .into_iter()
            .chain(far.map(|(road, choice)| over_network(pairs, road, choice)))
            .collect(),
        not_taken: routes.passed_over.iter().map(NotTaken::from).collect(),
        worth_saying: true,
    }
}

fn shared_memory(pairs: &'static str, near: &Shm) -> RoadReport {
    let single_copy = near.has_single_copy();
    let refused = "the kernel refuses the single copy of large messages (kernel.yama.ptrace_scope, seccomp of the \
                   container, or different users); they are copied twice";
    let notes = if single_copy { Vec::new() } else { vec![refused.to_owned()] };
    RoadReport { pairs, road: "shm", single_copy: Some(single_copy), network: None, notes }
}

fn over_network(pairs: &'static str, road: &'static str, choice: &Choice) -> RoadReport {
    let (major, minor) = choice.library.version();
    let network = NetworkReport {
        provider: choice.provider_name.clone(),
        library: choice.library.path().display().to_string(),
        library_version: format!("{major}.{minor}"),
        nics: choice.nics.iter().map(|nic| nic.name.clone()).collect(),
    };
    let notes = choice.notes.iter().map(|note| format!("{}; {}", note.reason, note.remedy)).collect();
    RoadReport { pairs, road, single_copy: None, network: Some(network), notes }
}

impl Report {
    /// Says it in the way that was wished.
    pub(crate) fn give(&self, wish: &ReportWish) {
        match wish {
            ReportWish::Quiet => {}
            ReportWish::Default if !self.worth_saying => {}
            ReportWish::Default | ReportWish::Text => eprint!("{self}"),
            ReportWish::Json(place) => self.give_json(place.as_deref()),
        }
    }

    fn give_json(&self, place: Option<&std::path::Path>) {
        let json = serde_json::to_string(self).expect("names, numbers and lists are JSON");
        let Some(path) = place else { return eprintln!("{json}") };
        if let Err(error) = std::fs::write(path, json + "\n") {
            eprintln!("selvedge: the report cannot be written to {}: {error}", path.display());
        }
    }
}

/// What a rank has to say while the job runs: that of several devices one has died, say. No operation fails by it, so nobody
/// else would say it.
#[derive(Debug)]
pub(crate) struct Remarks {
    rank: usize,
    wish: ReportWish,
}

/// The remark for programs, a line of its own.
#[derive(Debug, Serialize)]
struct Remark {
    rank: usize,
    fault: String,
}

impl Remarks {
    /// Of this rank, in the way that was wished for the report of the start.
    pub(crate) fn new(rank: usize, wish: ReportWish) -> Remarks {
        Remarks { rank, wish }
    }

    /// Says it on standard error, unless quiet was wished. A file has the report of the start and nothing else.
    #[cold]
    pub(crate) fn say(&self, fault: &Fault) {
        if let Some(line) = self.line(fault) {
            eprintln!("{line}");
        }
    }

    fn line(&self, fault: &Fault) -> Option<String> {
        match &self.wish {
            ReportWish::Quiet => None,
            ReportWish::Default | ReportWish::Text => Some(format!("selvedge: rank {}: {fault}", self.rank)),
            ReportWish::Json(_) => {
                let remark = Remark { rank: self.rank, fault: fault.to_string() };
                Some(serde_json::to_string(&remark).expect("a number and a sentence are JSON"))
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = if self.hosts.len() == 1 { "host" } else { "hosts" };
        writeln!(f, "selvedge: {} ranks on {} {hosts}", self.ranks, self.hosts.len())?;
        for road in &self.roads {
            writeln!(f, "selvedge: {road}")?;
            road.notes.iter().try_for_each(|note| writeln!(f, "selvedge:   {note}"))?;
        }
        self.not_taken.iter().try_for_each(|road| writeln!(f, "selvedge:   not {}", road.said))
    }
}

impl fmt::Display for RoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pairs, self.road)?;
        match self.single_copy {
            Some(true) => write!(f, ", large messages copied once")?,
            Some(false) => write!(f, ", large messages copied twice")?,
            None => {}
        }
        if let Some(NetworkReport { provider, library, library_version, nics }) = &self.network {
            write!(
                f,
                " on {}, provider {provider}, libfabric {library_version} ({library})",
                nics.join(" ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use selvedge_transport::{Cause, Scope};

    use super::*;

    fn report() -> Report {
        let network = NetworkReport {
            provider: "tcp;ofi_rxm".to_owned(),
            library: "/opt/libfabric.so.1".to_owned(),
            library_version: "1.17".to_owned(),
            nics: vec!["eth0".to_owned()],
        };
        let near = RoadReport {
            pairs: "same host",
            road: "shm",
            single_copy: Some(true),
            network: None,
            notes: Vec::new(),
        };
        let far = RoadReport {
            pairs: "other host",
            road: "tcp",
            single_copy: None,
            network: Some(network),
            notes: vec!["the interface is slow".to_owned()],
        };
        let not_taken = PassedOver {
            roads: vec![crate::world::wishes::RoadName::Efa],
            who: Some((3, "b".to_owned())),
            reason: "no device".to_owned(),
            remedy: "attach one".to_owned(),
        };
        let hosts = ["a", "b"].map(|name| HostReport { name: name.to_owned(), ranks: 2 });
        Report {
            ranks: 4,
            hosts: hosts.into(),
            roads: vec![near, far],
            not_taken: vec![NotTaken::from(&not_taken)],
            worth_saying: true,
        }
    }

    #[test]
    fn each_class_of_pairs_has_a_line_and_each_better_road_a_reason() {
        let text = "selvedge: 4 ranks on 2 hosts\n\
                    selvedge: same host: shm, large messages copied once\n\
                    selvedge: other host: tcp on eth0, provider tcp;ofi_rxm, libfabric 1.17 (/opt/libfabric.so.1)\n\
                    selvedge:   the interface is slow\n\
                    selvedge:   not efa: rank 3 on b: no device; attach one\n";
        assert_eq!(report().to_string(), text);
    }

    #[test]
    fn remarks_are_said_in_the_way_of_the_report_and_not_where_it_is_quiet() {
        let fault = Fault {
            scope: Scope::Local,
            cause: Cause::Exhausted,
            age: None,
            detail: "a device does not answer".to_owned(),
            next_step: "ask the administrator",
        };
        let line = |wish| Remarks::new(3, wish).line(&fault);
        assert_eq!(line(ReportWish::Quiet), None);
        assert_eq!(line(ReportWish::Default), Some(format!("selvedge: rank 3: {fault}")));
        let json: serde_json::Value = serde_json::from_str(&line(ReportWish::Json(None)).unwrap()).unwrap();
        assert_eq!((&json["rank"], &json["fault"]), (&3.into(), &fault.to_string().into()));
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["roads"][1]["network"]["provider"], "tcp;ofi_rxm");
        assert_eq!(
            (&json["not_taken"][0]["roads"][0], &json["not_taken"][0]["rank"]),
            (&"efa".into(), &3.into())
        );
        assert_eq!(json["hosts"][1]["name"], "b");
    }
}
