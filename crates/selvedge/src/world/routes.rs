//! Who is on which host, and which road leads where: decided by rank 0 from what every rank says of itself, in pure
//! functions.

use std::fmt;

use selvedge_boot::Host;
use selvedge_ofi::{Overfull, Seat, spread};
use serde::{Deserialize, Serialize};

use crate::world::wishes::{RoadName, Wishes};

/// What a rank tells rank 0 when memory alone does not do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RankCard {
    pub(crate) host: HostCard,
    pub(crate) pid: u32,
    /// Processors it may run on, a bit each.
    pub(crate) processors: Vec<u64>,
    /// The part of the machine that these are in, if it is one.
    pub(crate) node: Option<u32>,
    /// Roads to other hosts that it could take.
    pub(crate) usable: Vec<Usable>,
    /// And those it could not.
    pub(crate) refused: Vec<Refused>,
}

impl RankCard {
    /// How it could take a road.
    fn usable(&self, road: RoadName) -> Option<&Usable> {
        self.usable.iter().find(|usable| usable.road == road)
    }

    /// It has tried to take a road, and could not.
    pub(crate) fn refuse(&mut self, refused: Refused) {
        self.usable.retain(|usable| usable.road != refused.road);
        // The latest reason is the one that is told.
        self.refused.insert(0, refused);
    }
}

/// How a rank could take a road.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usable {
    pub(crate) road: RoadName,
    /// Its NICs: name, and the part of the machine that each is near.
    pub(crate) nics: Vec<(String, Option<u32>)>,
    /// Endpoints that each of them has for all ranks of a host together, where that is what a device has and not what
    /// memory allows.
    pub(crate) endpoints_max: Option<usize>,
}

/// Why a rank cannot take a road.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) road: RoadName,
    /// What it is about, where it is one card of several.
    pub(crate) nic: Option<String>,
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

/// [`Host`] as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HostCard {
    name: String,
    boot_id: String,
    user: u32,
    pid_namespace: u64,
    ipc_namespace: u64,
    net_namespace: u64,
    user_namespace: u64,
}

impl From<Host> for HostCard {
    fn from(host: Host) -> HostCard {
        let Host { name, boot_id, user, pid_namespace, ipc_namespace, net_namespace, user_namespace } = host;
        HostCard { name, boot_id, user, pid_namespace, ipc_namespace, net_namespace, user_namespace }
    }
}

impl HostCard {
    pub(crate) fn host(&self) -> Host {
        let HostCard { name, boot_id, user, pid_namespace, ipc_namespace, net_namespace, user_namespace } =
            self.clone();
        Host { name, boot_id, user, pid_namespace, ipc_namespace, net_namespace, user_namespace }
    }
}

/// What rank 0 has decided. Every rank gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Routes {
    /// Names of the hosts, in order of their first ranks.
    pub(crate) hosts: Vec<String>,
    /// By rank: its host.
    pub(crate) host_of: Vec<u32>,
    pub(crate) pids: Vec<u32>,
    /// By host: processors that its ranks may use together.
    pub(crate) cores: Vec<u32>,
    /// Whether ranks of one host share memory.
    pub(crate) near: bool,
    /// What leads to the others.
    pub(crate) far: Option<RoadName>,
    /// By rank: the NICs that it goes there by, its home first; empty where it has no choice.
    pub(crate) rails: Vec<Vec<usize>>,
    /// Better ones that were not taken, and why: one reason each.
    pub(crate) passed_over: Vec<PassedOver>,
}

/// Roads that would have been better, and the one reason that they have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PassedOver {
    pub(crate) roads: Vec<RoadName>,
    /// The rank that could not take it, the first of them, and its host; none where nobody was asked.
    pub(crate) who: Option<(u32, String)>,
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.roads.iter().map(|road| road.name()).collect();
        write!(f, "{}: ", names.join(", "))?;
        if let Some((rank, host)) = &self.who {
            write!(f, "rank {rank} on {host}: ")?;
        }
        write!(f, "{}", self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Why a job cannot start: what was asked for, and what stands in the way of each road.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoRoad {
    pub(crate) problem: String,
    pub(crate) passed_over: Vec<PassedOver>,
    pub(crate) remedy: String,
}

impl fmt::Display for NoRoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem)?;
        self.passed_over.iter().try_for_each(|road| write!(f, "\n  {road}"))?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.remedy) }
    }
}

impl Routes {
    /// Decides for the ranks whose cards these are, by rank.
    ///
    /// # Errors
    /// What stands in the way of every road that would do.
    pub(crate) fn decide(cards: &[RankCard], wishes: &Wishes) -> Result<Routes, NoRoad> {
        let (hosts, host_of) = group(cards);
        let shares =
            (0..hosts.len()).any(|host| host_of.iter().filter(|&&of| of as usize == host).count() > 1);
        let near = shares && wishes.allows(RoadName::Shm);
        let needs_far = cards.len() > 1 && (hosts.len() > 1 || !near);
        let cards = &with_places_for_all(cards, &host_of);
        let is_usable = |road: &RoadName| cards.iter().all(|card| card.usable(*road).is_some());
        let far = wishes.networks().find(is_usable);
        let better = |road: &RoadName| far.is_none_or(|far| *road < far);
        // Of roads that nobody wanted it is of no use to hear why they are not there.
        let demanded = |road: &RoadName| wishes.required.is_empty() || wishes.accepts(*road);
        if needs_far && far.is_none() {
            return Err(no_network(&hosts, passed_over(cards, wishes, demanded), wishes));
        }
        if !needs_far && cards.len() > 1 && !wishes.accepts(RoadName::Shm) {
            let passed_over = passed_over(cards, wishes, |road| better(road) && demanded(road));
            return Err(network_not_needed(far, cards.len(), passed_over, wishes));
        }
        let far = far.filter(|_| needs_far);
        Ok(Routes {
            rails: far.map_or_else(Vec::new, |far| rails(far, cards, &host_of)),
            cores: cores(cards, &host_of, hosts.len()),
            hosts,
            host_of,
            pids: cards.iter().map(|card| card.pid).collect(),
            near,
            far,
            passed_over: if needs_far { passed_over(cards, wishes, better) } else { Vec::new() },
        })
    }

    /// Ranks on the host of `rank`, ascending.
    pub(crate) fn neighbours(&self, rank: u32) -> Vec<u32> {
        let host = self.host_of[rank as usize];
        (0..self.host_of.len() as u32).filter(|&other| self.host_of[other as usize] == host).collect()
    }

    /// The ranks that a rank shares memory with, itself among them, ascending.
    pub(crate) fn sharing(&self, rank: u32) -> Vec<u32> {
        if self.near { self.neighbours(rank) } else { vec![rank] }
    }

    /// Whether the host of `rank` has fewer processors than ranks.
    pub(crate) fn is_crowded(&self, rank: u32) -> bool {
        self.neighbours(rank).len() > self.cores[self.host_of[rank as usize] as usize] as usize
    }

    /// How many consecutive ranks share memory, everywhere: 1 where placement is not that regular.
    pub(crate) fn ranks_per_host(&self) -> u32 {
        if !self.near {
            return 1;
        }
        let size = self.host_of.len();
        let first = self.host_of.iter().take_while(|&&host| host == self.host_of[0]).count();
        let regular = (0..size).all(|rank| self.host_of[rank] as usize == rank / first);
        if regular { first as u32 } else { 1 }
    }
}

/// The NICs by which the ranks of one host would take a road: by place in `here`.
fn spread_host(road: RoadName, cards: &[RankCard], here: &[usize]) -> Result<Vec<Vec<usize>>, Overfull> {
    let usable: Vec<_> = here.iter().filter_map(|&rank| Some((rank, cards[rank].usable(road)?))).collect();
    let Some(endpoints_max) = usable.iter().filter_map(|(_, usable)| usable.endpoints_max).min() else {
        return Ok(vec![Vec::new(); here.len()]);
    };
    let seat =
        |&(rank, usable): &(usize, &Usable)| Seat { nics: usable.nics.clone(), node: cards[rank].node };
    spread(&usable.iter().map(seat).collect::<Vec<_>>(), endpoints_max)
}

/// The ranks of each host.
fn ranks_of(host_of: &[u32]) -> Vec<Vec<usize>> {
    let hosts = host_of.iter().max().map_or(0, |&last| last as usize + 1);
    let mut ranks = vec![Vec::new(); hosts];
    host_of.iter().enumerate().for_each(|(rank, &host)| ranks[host as usize].push(rank));
    ranks
}

/// The cards, without the roads whose devices have too few endpoints for the ranks of a host.
fn with_places_for_all(cards: &[RankCard], host_of: &[u32]) -> Vec<RankCard> {
    let mut cards = cards.to_vec();
    for (here, road) in ranks_of(host_of).iter().flat_map(|here| RoadName::NETWORKS.map(|road| (here, road)))
    {
        let Err(overfull) = spread_host(road, &cards, here) else { continue };
        let most = overfull.nics.len() * overfull.endpoints_max;
        cards[here[0]].refuse(Refused {
            road,
            nic: None,
            reason: overfull.to_string(),
            remedy: format!("start at most {most} ranks on this host, or give it more EFA devices"),
        });
    }
    cards
}

/// By rank: the NICs by which it takes a road that all can take.
fn rails(road: RoadName, cards: &[RankCard], host_of: &[u32]) -> Vec<Vec<usize>> {
    let mut rails = vec![Vec::new(); cards.len()];
    for here in ranks_of(host_of) {
        let spread = spread_host(road, cards, &here).expect("it was tried before the road was chosen");
        here.iter().zip(spread).for_each(|(&rank, nics)| rails[rank] = nics);
    }
    rails
}

/// Hosts in order of their first ranks, and each rank's.
fn group(cards: &[RankCard]) -> (Vec<String>, Vec<u32>) {
    let mut firsts: Vec<Host> = Vec::new();
    let host_of = cards
        .iter()
        .map(|card| {
            let host = card.host.host();
            let known = firsts.iter().position(|first| first.sees_processes_of(&host));
            known.unwrap_or_else(|| {
                firsts.push(host);
                firsts.len() - 1
            }) as u32
        })
        .collect();
    (firsts.into_iter().map(|host| host.name).collect(), host_of)
}

/// By host: processors that at least one of its ranks may run on.
fn cores(cards: &[RankCard], host_of: &[u32], hosts: usize) -> Vec<u32> {
    let mut union = vec![Vec::new(); hosts];
    for (card, &host) in cards.iter().zip(host_of) {
        let union: &mut Vec<u64> = &mut union[host as usize];
        union.resize(union.len().max(card.processors.len()), 0);
        union.iter_mut().zip(&card.processors).for_each(|(word, mask)| *word |= mask);
    }
    union.iter().map(|words| words.iter().map(|word| word.count_ones()).sum::<u32>().max(1)).collect()
}

/// Why some of the networks are not taken; those that all ranks could take are left out.
fn passed_over(
    cards: &[RankCard],
    wishes: &Wishes,
    is_asked_about: impl Fn(&RoadName) -> bool,
) -> Vec<PassedOver> {
    let mut all: Vec<PassedOver> = Vec::new();
    for road in RoadName::NETWORKS.into_iter().filter(is_asked_about) {
        let Some(next) = why_not(road, cards, wishes) else { continue };
        let same = all.iter_mut().find(|known| {
            (&known.who, &known.reason, &known.remedy) == (&next.who, &next.reason, &next.remedy)
        });
        match same {
            Some(known) => known.roads.push(road),
            None => all.push(next),
        }
    }
    all
}

/// Why a road is not taken; `None` when all ranks could.
fn why_not(road: RoadName, cards: &[RankCard], wishes: &Wishes) -> Option<PassedOver> {
    let roads = vec![road];
    let unasked = |reason: &str| PassedOver {
        roads: vec![road],
        who: None,
        reason: reason.to_owned(),
        remedy: String::new(),
    };
    if !wishes.allows(road) {
        return Some(unasked("left out by --transport"));
    }
    if !wishes.networks().any(|network| network == road) {
        return Some(unasked("not what --require names"));
    }
    let (rank, card) = cards.iter().enumerate().find(|(_, card)| card.usable(road).is_none())?;
    let said = card.refused.iter().find(|refused| refused.road == road);
    let (reason, remedy) = match said {
        Some(Refused { nic: Some(nic), reason, remedy, .. }) => (format!("{nic}: {reason}"), remedy.clone()),
        Some(Refused { reason, remedy, .. }) => (reason.clone(), remedy.clone()),
        None => ("libfabric does not offer it".to_owned(), "run selvedge doctor there".to_owned()),
    };
    Some(PassedOver { roads, who: Some((rank as u32, card.host.name.clone())), reason, remedy })
}

/// Ranks that share no memory have no other road.
fn no_network(hosts: &[String], passed_over: Vec<PassedOver>, wishes: &Wishes) -> NoRoad {
    let problem = match (hosts, &wishes.required[..]) {
        (_, required @ [_, ..]) => format!("--require {} cannot be met", list(required)),
        ([_], _) => {
            "the ranks are on one host, --transport leaves shared memory out, and no other road is usable"
                .to_owned()
        }
        (hosts, _) if hosts[0] == hosts[1] => format!(
            "no road leads from {} to {}: they are different containers, or ranks run as different users",
            hosts[0], hosts[1]
        ),
        (hosts, _) => format!("no road leads from {} to {}", hosts[0], hosts[1]),
    };
    let only_shm = wishes.transports.as_deref() == Some(&[RoadName::Shm]);
    let remedy = if only_shm { "allow a network as well: --transport shm,tcp" } else { "" };
    NoRoad { problem, passed_over, remedy: remedy.to_owned() }
}

/// A network was demanded, and all ranks share memory.
fn network_not_needed(
    far: Option<RoadName>,
    ranks: usize,
    passed_over: Vec<PassedOver>,
    wishes: &Wishes,
) -> NoRoad {
    let demand = list(&wishes.required);
    match far {
        None => NoRoad {
            problem: format!("--require {demand} cannot be met"),
            passed_over,
            remedy: String::new(),
        },
        Some(far) => NoRoad {
            problem: format!(
                "--require {demand} cannot be met: all {ranks} ranks are on one host and share memory (shm)"
            ),
            passed_over: Vec::new(),
            remedy: format!(
                "add --transport {} to take it within the host too, or start ranks on several hosts",
                far.name()
            ),
        },
    }
}

fn list(roads: &[RoadName]) -> String {
    roads.iter().map(|road| road.name()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable_by(road: RoadName, nics: &[&str]) -> Usable {
        let nics = nics.iter().map(|nic| (nic.to_string(), None)).collect();
        Usable { road, nics, endpoints_max: (road != Tcp).then_some(256) }
    }

    fn card(host: &str, usable: &[RoadName]) -> RankCard {
        let here = Host { boot_id: host.to_owned(), name: host.to_owned(), ..Host::here() };
        let refused = RoadName::NETWORKS.into_iter().filter(|road| !usable.contains(road));
        let refused = refused.map(|road| Refused {
            road,
            nic: None,
            reason: format!("{} has no device", host),
            remedy: "plug one in".to_owned(),
        });
        RankCard {
            host: here.into(),
            pid: 7,
            processors: vec![0b11],
            node: None,
            usable: usable.iter().map(|&road| usable_by(road, &["nic0"])).collect(),
            refused: refused.collect(),
        }
    }

    fn wishes(transport: &str, require: &str) -> Wishes {
        let env = |name: &str| match name {
            "SELVEDGE_TRANSPORT" => Some(transport.to_owned()),
            "SELVEDGE_REQUIRE" => Some(require.to_owned()),
            _ => None,
        };
        Wishes::from_env(env).unwrap()
    }

    use RoadName::{Efa, EfaDirect, Tcp};

    #[test]
    fn between_hosts_the_best_road_that_all_ranks_have_is_taken_and_better_ones_say_why_not() {
        let cards = [card("a", &[EfaDirect, Efa, Tcp]), card("a", &[Efa, Tcp]), card("b", &[Efa, Tcp])];
        let routes = Routes::decide(&cards, &wishes("", "")).unwrap();
        assert_eq!((routes.near, routes.far), (true, Some(Efa)));
        assert_eq!((routes.hosts, routes.host_of), (vec!["a".into(), "b".into()], vec![0, 0, 1]));
        let said: Vec<String> = routes.passed_over.iter().map(PassedOver::to_string).collect();
        assert_eq!(said, ["efa-direct: rank 1 on a: a has no device; plug one in"]);
    }

    #[test]
    fn ranks_of_a_host_are_spread_over_its_nics_by_their_place_on_it() {
        let cards: Vec<RankCard> = ["a", "b", "a", "b", "a", "b"]
            .map(|host| RankCard { usable: vec![usable_by(Efa, &["x", "y"])], ..card(host, &[]) })
            .into();
        let routes = Routes::decide(&cards, &wishes("", "")).unwrap();
        let homes: Vec<usize> = routes.rails.iter().map(|rails| rails[0]).collect();
        assert_eq!(homes, [0, 0, 1, 1, 0, 0]);
        let routes = Routes::decide(&[card("a", &[Tcp]), card("b", &[Tcp])], &wishes("", "")).unwrap();
        assert_eq!(routes.rails, vec![Vec::<usize>::new(); 2], "sockets are not counted");
    }

    #[test]
    fn a_device_with_too_few_queue_pairs_is_no_road_for_so_many_ranks() {
        let narrow = Usable { endpoints_max: Some(2), ..usable_by(Efa, &["x"]) };
        let narrow =
            |host| RankCard { usable: vec![narrow.clone(), usable_by(Tcp, &["eth0"])], ..card(host, &[]) };
        let four = [narrow("a"), narrow("b"), narrow("a"), narrow("b")];
        assert_eq!(Routes::decide(&four, &wishes("", "")).unwrap().far, Some(Efa));
        let five = [four.to_vec(), vec![narrow("b")]].concat();
        let routes = Routes::decide(&five, &wishes("", "")).unwrap();
        assert_eq!(routes.far, Some(Tcp));
        let said = routes.passed_over[1].to_string();
        assert_eq!(
            said,
            "efa: rank 1 on b: 3 ranks on this host need a queue pair each, and its device x has 2; start at most 2 \
             ranks on this host, or give it more EFA devices"
        );
        let said = Routes::decide(&five, &wishes("", "efa")).unwrap_err().to_string();
        assert!(said.contains("3 ranks on this host need a queue pair each"), "{said}");
    }

    #[test]
    fn a_road_that_could_not_be_opened_is_passed_over_with_what_was_said_then() {
        let mut cards = [card("a", &[Efa, Tcp]), card("b", &[Efa, Tcp])];
        let (reason, remedy) = ("the device is broken".to_owned(), "mend it".to_owned());
        cards[1].refuse(Refused { road: Efa, nic: None, reason, remedy });
        let routes = Routes::decide(&cards, &wishes("", "")).unwrap();
        assert_eq!(routes.far, Some(Tcp));
        assert_eq!(routes.passed_over[1].to_string(), "efa: rank 1 on b: the device is broken; mend it");
    }

    #[test]
    fn on_one_host_no_network_is_taken_unless_memory_is_left_out() {
        let cards = [card("a", &[Tcp]), card("a", &[Tcp])];
        let routes = Routes::decide(&cards, &wishes("", "")).unwrap();
        assert_eq!((routes.near, routes.far, routes.ranks_per_host()), (true, None, 2));
        let routes = Routes::decide(&cards, &wishes("tcp", "tcp")).unwrap();
        assert_eq!((routes.near, routes.far, routes.ranks_per_host()), (false, Some(Tcp), 1));
    }

    #[test]
    fn a_demand_that_cannot_be_met_names_who_why_and_what_to_do() {
        let cards = [card("a", &[Tcp]), card("b", &[Tcp])];
        let said = Routes::decide(&cards, &wishes("", "efa")).unwrap_err().to_string();
        assert_eq!(
            said,
            "--require efa cannot be met\n  efa-direct, efa: rank 0 on a: a has no device; plug one in"
        );
        let said = Routes::decide(&[card("a", &[Efa]), card("a", &[Efa])], &wishes("", "efa")).unwrap_err();
        assert!(said.to_string().contains("all 2 ranks are on one host"), "{said}");
        assert!(said.to_string().contains("--transport efa"), "{said}");
    }

    #[test]
    fn hosts_without_a_road_between_them_are_named() {
        let cards = [card("a", &[]), card("b", &[Tcp])];
        let said = Routes::decide(&cards, &wishes("", "")).unwrap_err().to_string();
        assert!(said.starts_with("no road leads from a to b\n"), "{said}");
        assert!(said.contains("efa-direct, efa, tcp: rank 0 on a: a has no device"), "{said}");
        let said = Routes::decide(&cards, &wishes("shm", "")).unwrap_err().to_string();
        assert!(
            said.contains("efa, tcp: left out by --transport") && said.ends_with("--transport shm,tcp"),
            "{said}"
        );
    }

    #[test]
    fn a_demand_is_met_by_the_shorter_way_to_the_same_device_and_takes_no_better_road() {
        let cards = [card("a", &[EfaDirect, Efa, Tcp]), card("b", &[EfaDirect, Efa, Tcp])];
        let far = |transport, require| Routes::decide(&cards, &wishes(transport, require)).unwrap().far;
        assert_eq!(far("", "efa"), Some(EfaDirect));
        assert_eq!(far("efa,tcp", "efa"), Some(Efa));
        assert_eq!(far("", "tcp"), Some(Tcp));
    }

    #[test]
    fn ranks_per_host_is_a_number_only_where_placement_is_regular() {
        let routes = |hosts: &[&str]| {
            let cards: Vec<RankCard> = hosts.iter().map(|host| card(host, &[Tcp])).collect();
            Routes::decide(&cards, &wishes("", "")).unwrap()
        };
        assert_eq!(routes(&["a", "a", "b", "b", "c"]).ranks_per_host(), 2);
        assert_eq!(routes(&["a", "b", "a", "b"]).ranks_per_host(), 1);
        assert_eq!(routes(&["a", "b", "a", "b"]).neighbours(2), [0, 2]);
        assert_eq!(routes(&["a", "b"]).ranks_per_host(), 1);
    }

    #[test]
    fn a_host_is_crowded_when_its_ranks_have_less_than_a_processor_each() {
        let hosts = ["a", "b", "a", "b", "a"];
        let routes = Routes::decide(&hosts.map(|host| card(host, &[Tcp])), &wishes("", "")).unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|rank| routes.is_crowded(rank)), [true, false, true, false, true]);
    }
}
