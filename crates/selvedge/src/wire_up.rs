//! From a launcher's word to the roads: every rank learns where the others are and opens what leads to them.
//!
//! Most jobs are on one host. For those rank 0 makes the shared memory and says where it is, everybody takes a seat in it,
//! and two fences and one get after the start all is done; libfabric is not even looked for. Who finds that it cannot share
//! rank 0's memory takes no seat, so that after the second fence an empty seat tells those who have one that this is another
//! kind of job. Then everybody leaves a card, rank 0 decides (`routes.rs`), everybody opens what was decided, leaves the
//! addresses, and fetches those it needs: four more fences.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use selvedge_boot::{Boot, BootError, Host};
use selvedge_ofi::{Ofi, Opening};
use selvedge_shm::{Config, Joined, Segment};
use selvedge_transport::Peer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::communicator::Road;
use crate::error::{Error, Result};
use crate::job::{Far, Job, Start};
use crate::network::Network;
use crate::report;
use crate::roads::Roads;
use crate::routes::{HostCard, RankCard, Routes};
use crate::wishes::Wishes;

/// Version of everything that ranks leave for each other at the start. It comes first in each, so that it can be told from
/// something whose rest has another form. Ranks of different versions do not form a job.
const START_VERSION: u32 = 2;

/// Exit code of all ranks of a job that no road was found for; `mpirun --help` names it. EX_UNAVAILABLE of sysexits(3).
const NO_ROAD_CODE: i32 = 69;

/// What rank 0 tells the others first, under [`MEMORY_KEY`].
#[derive(Debug, Serialize, Deserialize)]
struct MemoryCard {
    host: HostCard,
    segment: Vec<u8>,
}
const MEMORY_KEY: &str = "selvedge.memory";

/// What rank 0 has decided: [`Routes`], or nothing where there is no road.
const ROUTES_KEY: &str = "selvedge.routes";

/// What is needed to reach a rank.
#[derive(Debug, Default, Serialize, Deserialize)]
struct AddressCard {
    /// From the first rank of a host that shares memory: where it is.
    segment: Vec<u8>,
    /// Where the rank is on the network; empty where the job uses none.
    far: Vec<u8>,
}

fn rank_key(rank: u32) -> String {
    format!("selvedge.rank.{rank}")
}

fn address_key(rank: u32) -> String {
    format!("selvedge.address.{rank}")
}

/// Joins the job of this process: PMI, then the roads between its ranks.
pub(crate) fn join_job() -> Result<(Road, Job)> {
    let env = |name: &str| std::env::var(name).ok();
    let mut boot = Boot::from_env(env, duplicate).map_err(start_error)?;
    let wishes = match Wishes::from_env(env) {
        Ok(wishes) => wishes,
        Err(complaint) => return refuse(boot, &complaint),
    };
    let host = match &wishes.host {
        Some(name) => Host::here().called(name),
        None => Host::here(),
    };
    let is_elsewhere = boot.map().is_some_and(|map| map.nodes() > 1);
    let is_alone = boot.size() == 1;
    if (is_alone || (wishes.shared_memory_will_do() && !is_elsewhere))
        && let Some((joined, segment)) = share_memory(&mut boot, &host)?
    {
        return on_one_host(boot, &wishes, host, joined, &segment);
    }
    on_several_hosts(boot, &wishes, host)
}

/// Tries to share memory with rank 0. `None` when not every rank of the job can.
fn share_memory(boot: &mut Boot, host: &Host) -> Result<Option<(Joined, Arc<Segment>)>> {
    let (rank, size) = (boot.rank(), boot.size());
    let segment = if rank == 0 {
        let segment = Segment::create(size, &Config::default())?;
        leave(boot, MEMORY_KEY, &MemoryCard { host: host.clone().into(), segment: segment.card() })?;
        boot.fence().map_err(start_error)?;
        Some(segment)
    } else {
        boot.fence().map_err(start_error)?;
        let card: MemoryCard = find(boot, MEMORY_KEY, 0)?;
        match host.sees_processes_of(&card.host.host()) {
            true => Some(Segment::open(&card.segment)?),
            false => None,
        }
    };
    let segment = segment.map(Arc::new);
    let joined = segment.as_ref().map(|segment| segment.join(Peer(rank))).transpose()?;
    boot.fence().map_err(start_error)?;
    Ok(joined.zip(segment).filter(|(_, segment)| (0..size).all(|rank| segment.has_joined(Peer(rank)))))
}

fn on_one_host(
    boot: Boot,
    wishes: &Wishes,
    host: Host,
    joined: Joined,
    segment: &Segment,
) -> Result<(Road, Job)> {
    let me = boot.rank();
    let near = joined.open()?;
    if me == 0 && boot.size() > 1 {
        report::on_one_host(&host.name, &near, boot.size()).give(&wishes.report);
    }
    let job = job(Start::Process(RefCell::new(Some(boot))), segment, me, host.name);
    Ok((Roads::Near(near), job))
}

/// The job of ranks that all share a segment.
pub(crate) fn job(start: Start, segment: &Segment, me: u32, host: String) -> Job {
    Job {
        start,
        hosts: vec![host],
        host_of: Vec::new(),
        pids: (0..segment.peers() as u32).map(|peer| segment.pid(Peer(peer))).collect(),
        me: Peer(me),
        cores: vec![segment.processors()],
        far: None,
        next_context: Cell::new(0),
    }
}

fn on_several_hosts(mut boot: Boot, wishes: &Wishes, host: Host) -> Result<(Road, Job)> {
    let me = boot.rank();
    let network = Network::look(wishes);
    let card = RankCard {
        host: host.into(),
        pid: std::process::id(),
        processors: processors(),
        usable: network.usable(),
        refused: network.refused().to_vec(),
    };
    leave(&mut boot, &rank_key(me), &card)?;
    boot.fence().map_err(start_error)?;
    let routes: Option<Routes> = match me {
        0 => decide(&mut boot, wishes)?,
        _ => {
            boot.fence().map_err(start_error)?;
            find(&mut boot, ROUTES_KEY, 0)?
        }
    };
    let Some(routes) = routes else { end(boot) };
    let (road, boot) = open(boot, &network, &routes)?;
    if me == 0 {
        report::on_several_hosts(&routes, &network, road.near()).give(&wishes.report);
    }
    let job = Job {
        start: Start::Process(RefCell::new(Some(boot))),
        far: routes.far.map(|road| Far { road, near: routes.near, ranks_per_host: routes.ranks_per_host() }),
        hosts: routes.hosts,
        host_of: routes.host_of,
        pids: routes.pids,
        me: Peer(me),
        cores: routes.cores,
        next_context: Cell::new(0),
    };
    Ok((road, job))
}

/// As rank 0: reads all cards, decides, and tells the others; says it where there is no road.
fn decide(boot: &mut Boot, wishes: &Wishes) -> Result<Option<Routes>> {
    let cards: Vec<RankCard> =
        (0..boot.size()).map(|rank| find(boot, &rank_key(rank), rank)).collect::<Result<_>>()?;
    // First the words: when the others have left, there may be no time for them.
    let routes = Routes::decide(&cards, wishes).map_err(|no_road| say(&no_road.to_string())).ok();
    leave(boot, ROUTES_KEY, &routes)?;
    boot.fence().map_err(start_error)?;
    Ok(routes)
}

/// Opens what was decided.
fn open(mut boot: Boot, network: &Network, routes: &Routes) -> Result<(Road, Boot)> {
    let me = boot.rank();
    let mut here = routes.neighbours(me);
    if !routes.near {
        here = vec![me];
    }
    let shares = here.len() > 1;
    let is_crowded = routes.neighbours(me).len() as u32 > routes.cores[routes.host_of[me as usize] as usize];
    let opening = routes.far.map(|far| network.open(far, Peer(me), is_crowded)).transpose()?;
    let own_segment = match shares && here[0] == me {
        true => Some(Segment::create(here.len() as u32, &Config::default())?),
        false => None,
    };
    let address = AddressCard {
        segment: own_segment.as_ref().map(Segment::card).unwrap_or_default(),
        far: opening.as_ref().map(Opening::card).unwrap_or_default(),
    };
    leave(&mut boot, &address_key(me), &address)?;
    boot.fence().map_err(start_error)?;

    let near = match (shares, own_segment) {
        (false, _) => None,
        (true, Some(segment)) => Some(segment),
        (true, None) => {
            let card: AddressCard = find(&mut boot, &address_key(here[0]), here[0])?;
            Some(Segment::open(&card.segment)?)
        }
    };
    let local = here.iter().position(|&rank| rank == me).expect("a rank is on its own host") as u32;
    let near = near.map(|segment| Arc::new(segment).join(Peer(local))).transpose()?;
    let far = match opening {
        Some(opening) => Some(connect(&mut boot, opening, address.far, &here)?),
        None => None,
    };
    boot.fence().map_err(start_error)?;
    let near = near.map(Joined::open).transpose()?;
    let road = match (near, far) {
        (Some(near), Some(far)) => Roads::both(near, here.into_iter().map(Peer).collect(), far),
        (Some(near), None) => Roads::Near(near),
        (None, Some(far)) => Roads::Far(far),
        (None, None) => unreachable!("ranks of a job of several have a road"),
    };
    Ok((road, boot))
}

/// Gives the network the addresses of all ranks but those that are `here`.
fn connect(boot: &mut Boot, opening: Opening, own: Vec<u8>, here: &[u32]) -> Result<Ofi> {
    let mut cards = Vec::with_capacity(boot.size() as usize);
    for rank in 0..boot.size() {
        cards.push(match rank {
            rank if rank == boot.rank() => own.clone(),
            rank if here.contains(&rank) => Vec::new(),
            rank => find::<AddressCard>(boot, &address_key(rank), rank)?.far,
        });
    }
    Ok(opening.connect(cards)?)
}

/// The job cannot be as it was asked for, and every rank sees that by itself: rank 0 says it, and all end.
fn refuse<T>(mut boot: Boot, complaint: &str) -> Result<T> {
    if boot.size() == 1 {
        return Err(Error::Start(complaint.to_owned()));
    }
    if boot.rank() == 0 {
        say(complaint);
    }
    // Nobody leaves before it was said: the launcher ends the others when one has left.
    let _ = boot.fence();
    end(boot)
}

/// Ends this rank of a job that does not start. Rank 0 has said why; N messages would say no more.
fn end(boot: Boot) -> ! {
    // A launcher that is gone has nobody left to tell.
    let _ = boot.finalize();
    std::process::exit(NO_ROAD_CODE)
}

/// The one message of a job that does not start.
fn say(complaint: &str) {
    eprintln!("selvedge: the job does not start: {complaint}");
}

/// Leaves something for the other ranks.
fn leave(boot: &mut Boot, key: &str, card: &impl Serialize) -> Result<()> {
    let bytes =
        postcard::to_allocvec(&(START_VERSION, card)).map_err(|error| Error::Start(error.to_string()))?;
    boot.put(key, &bytes).map_err(start_error)
}

/// What `rank` has left.
fn find<T: DeserializeOwned>(boot: &mut Boot, key: &str, rank: u32) -> Result<T> {
    let bytes = boot.get(key).map_err(start_error)?;
    let bytes =
        bytes.ok_or_else(|| Error::Start(format!("rank {rank} left no {key}; is it another program?")))?;
    read(&bytes, rank)
}

fn read<T: DeserializeOwned>(bytes: &[u8], rank: u32) -> Result<T> {
    let damaged = |error| Error::Start(format!("what rank {rank} has left is damaged: {error}"));
    let (version, rest) = postcard::take_from_bytes::<u32>(bytes).map_err(damaged)?;
    if version != START_VERSION {
        return Err(Error::Start(format!(
            "rank {rank} speaks version {version} of the start protocol, this rank version {START_VERSION}; \
             link all ranks against the same version of selvedge"
        )));
    }
    postcard::from_bytes(rest).map_err(damaged)
}

/// The processors that this rank may run on, a bit each.
fn processors() -> Vec<u64> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![1] };
    let word = |first: usize| (0..64).fold(0, |word, bit| word | u64::from(set.is_set(first + bit)) << bit);
    let mut words: Vec<u64> = (0..rustix::thread::CpuSet::MAX_CPU).step_by(64).map(word).collect();
    while words.last() == Some(&0) {
        words.pop();
    }
    words
}

/// What the launcher said, with what is behind it.
fn start_error(error: BootError) -> Error {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    Error::Start(text)
}

/// An owned duplicate of a descriptor that the launcher says we inherited; an error where it is not open.
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is borrowed only for the next call, which checks that the number is open: at worst it
    // names a descriptor of somebody else in this process, which is duplicated and not touched.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}
