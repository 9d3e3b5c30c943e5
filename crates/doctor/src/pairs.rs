//! Between hosts: `doctor --pairs`, started as ranks by any launcher.
//!
//! One rank of each host speaks for it. They tell each other over the launcher's store which roads they can open, and then
//! over each road that all of them have every host talks with every other, nobody with two at once, so that what a
//! card counts meanwhile belongs to one pair. Nothing of the runtime is in between: what is examined is the road.

mod counters;
mod links;
#[allow(unsafe_code, reason = "the one file with unsafe code")]
mod sys;
mod talk;
mod tournament;
mod verdict;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use selvedge_boot::{Boot, BootError};
use selvedge_transport::{Cause, Event, Peer, Transport};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::scene::{Refused, Tree};
use counters::Counted;
use talk::{Measured, Slabs, Trouble, talk};

pub(crate) use links::Libfabric;
pub(crate) use sys::join;
pub use tournament::tournament;
pub use verdict::{Meeting, PairReport};

/// How long a host may say nothing before it counts as silent. A first message over EFA has been seen to take 0.3 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long both go on polling after a talk: what they said last must get there, and cards that are software write their
/// counters down every now and then.
const LINGER: Duration = Duration::from_millis(400);

/// A host by name, and what tells it from others of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HostId {
    /// The same for all ranks of the host, and for nobody else.
    pub(crate) key: String,
    /// For people.
    pub(crate) name: String,
}

/// A road that a host has opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offered {
    /// Its name, as `--transport` takes it.
    pub(crate) road: String,
    /// Whether the bytes must pass a card that counts.
    pub(crate) counted: bool,
    /// Verbs devices, or interfaces.
    pub(crate) nics: Vec<String>,
    /// What others need to reach us there.
    pub(crate) card: Vec<u8>,
}

/// Everything a host has to tell before anybody talks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Offers {
    open: Vec<Offered>,
    refused: Vec<Refused>,
}

/// One side's story of a talk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Half {
    /// Index of the road among those that all have.
    road: usize,
    /// Index of the other host.
    other: usize,
    outcome: Outcome,
    /// What the cards counted meanwhile; `None` where there is nothing to count, or it cannot be read.
    counted: Option<Counted>,
}

/// How a talk ended for one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Measured(Measured),
    /// Milliseconds, and whether anything ever came.
    Silence(u64, bool),
    /// What was said, and whether it was that nobody answers there.
    Fault(String, bool),
}

/// What opens roads. The one that ships is [`Libfabric`].
pub(crate) trait Links {
    /// A road.
    type Road: Transport;
    /// Opens what can be opened as `me`.
    fn open(&mut self, me: Peer) -> (Vec<Offered>, Vec<Refused>);
    /// Leads an open road to the hosts with these cards, by index.
    fn connect(&mut self, road: &str, cards: Vec<Vec<u8>>) -> Result<Self::Road, String>;
    /// Where the counters of the cards lie; asked when the roads are open.
    fn counters(&self) -> Tree;
}

/// Takes part in the meeting of all hosts of the job. All ranks of the job call it; the report is for rank 0.
///
/// # Errors
/// The launcher's.
pub(crate) fn meet<L: Links>(
    boot: &mut Boot,
    here: &HostId,
    links: &mut L,
    patience: Duration,
) -> Result<Option<Meeting>, BootError> {
    put(boot, "host", here)?;
    boot.fence()?;
    let everybody: Vec<HostId> = get_all(boot, "host", 0..boot.size())?;
    let speakers = speakers(&everybody);
    let me = speakers.iter().position(|&rank| rank == boot.rank());
    let mut offers = Offers::default();
    if let Some(me) = me {
        (offers.open, offers.refused) = links.open(Peer(me as u32));
        put(boot, "roads", &offers)?;
    }
    boot.fence()?;
    let offers: Vec<Offers> = get_all(boot, "roads", speakers.iter().copied())?;
    let common = roads_of_all(&offers);
    let mut halves = Vec::new();
    for (index, road) in common.iter().enumerate() {
        let tree = links.counters();
        let cards = offers.iter().map(|offers| offered(offers, road).card.clone()).collect();
        let mut link = me.map(|me| (me, links.connect(road, cards), offered(&offers[me], road)));
        for round in tournament(speakers.len()) {
            boot.fence()?;
            let Some((me, link, offered)) = &mut link else { continue };
            let Some(pair) = round.iter().find(|pair| pair.0 == *me || pair.1 == *me) else { continue };
            let (first, other) = (pair.0 == *me, if pair.0 == *me { pair.1 } else { pair.0 });
            halves.push(one_talk(link, index, offered, other, first, &tree, patience));
        }
        // Nobody closes a road while others still talk on it.
        boot.fence()?;
    }
    if me.is_some() {
        put(boot, "halves", &halves)?;
    }
    boot.fence()?;
    if boot.rank() != 0 {
        return Ok(None);
    }
    let halves: Vec<Vec<Half>> = get_all(boot, "halves", speakers.iter().copied())?;
    let hosts = speakers.iter().map(|&rank| everybody[rank as usize].name.clone()).collect();
    let counted = common.iter().map(|road| offered(&offers[0], road).counted).collect();
    let refused = offers.into_iter().map(|offers| offers.refused).collect();
    Ok(Some(verdict::judge(hosts, common, counted, &halves, refused)))
}

/// The lowest rank of each host, in the order of ranks.
fn speakers(everybody: &[HostId]) -> Vec<u32> {
    let mut first = BTreeMap::new();
    for (rank, host) in (0..).zip(everybody) {
        first.entry(&host.key).or_insert(rank);
    }
    let mut speakers: Vec<u32> = first.into_values().collect();
    speakers.sort_unstable();
    speakers
}

/// Roads that every host has opened, in the order of the first.
fn roads_of_all(offers: &[Offers]) -> Vec<String> {
    let has = |offers: &Offers, road: &str| offers.open.iter().any(|offered| offered.road == road);
    let first = offers.first().map(|offers| offers.open.as_slice()).unwrap_or_default();
    let common = first.iter().map(|offered| offered.road.clone());
    common.filter(|road| offers.iter().all(|offers| has(offers, road))).collect()
}

fn offered<'a>(offers: &'a Offers, road: &str) -> &'a Offered {
    offers.open.iter().find(|offered| offered.road == road).expect("a road that all have")
}

fn one_talk<T: Transport>(
    link: &mut Result<T, String>,
    road: usize,
    offered: &Offered,
    other: usize,
    first: bool,
    tree: &Tree,
    patience: Duration,
) -> Half {
    let half = |outcome, counted| Half { road, other, outcome, counted };
    let link = match link {
        Ok(link) => link,
        Err(why) => return half(Outcome::Fault(why.clone(), false), None),
    };
    let cards = if offered.counted { offered.nics.as_slice() } else { &[] };
    let before = Counted::read(tree, cards);
    // A talk that went wrong may leave the slabs to the device, so each has its own.
    let outcome = match talk(link, Peer(other as u32), first, Slabs::leak(), patience) {
        Ok(measured) => Outcome::Measured(measured),
        Err(Trouble::Silence(age, heard)) => Outcome::Silence(age.as_millis() as u64, heard),
        Err(Trouble::Fault(fault)) => Outcome::Fault(fault.words(), fault.cause == Cause::Unreachable),
        Err(Trouble::Damaged(what)) => Outcome::Fault(what, false),
    };
    linger(link);
    let counted = before.and_then(|before| Some(Counted::read(tree, cards)?.since(before)));
    half(outcome, counted)
}

/// Goes on polling for a while. What comes is nobody's any more.
fn linger<T: Transport>(link: &mut T) {
    let begin = Instant::now();
    while begin.elapsed() < LINGER {
        match link.poll() {
            Some(Event::Packet { slot, .. }) => link.release(slot),
            Some(_) => {}
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn key(what: &str, rank: u32) -> String {
    format!("doctor.{what}.{rank}")
}

fn put<T: Serialize>(boot: &mut Boot, what: &str, value: &T) -> Result<(), BootError> {
    let bytes = postcard::to_allocvec(value).expect("plain data");
    let key = key(what, boot.rank());
    boot.put(&key, &bytes)
}

fn get_all<T: DeserializeOwned>(
    boot: &mut Boot,
    what: &str,
    ranks: impl Iterator<Item = u32>,
) -> Result<Vec<T>, BootError> {
    let mut get = |rank: u32| {
        let key = key(what, rank);
        let damaged = || BootError::Damaged { key: key.clone() };
        postcard::from_bytes(&boot.get_from(rank, &key)?.ok_or_else(damaged)?).map_err(|_| damaged())
    };
    ranks.map(&mut get).collect()
}

#[cfg(test)]
mod tests;
