//! From a launcher's word to the roads: every rank learns where the others are and opens what leads to them.
//!
//! Most jobs are on one host. For those rank 0 makes the shared memory and says where it is, everybody takes a seat in it,
//! and two fences and one get after the start all is done; libfabric is not even looked for. Who finds that it cannot share
//! rank 0's memory takes no seat, so that after the second fence an empty seat tells those who have one that this is another
//! kind of job. Then everybody leaves a card, rank 0 decides (`routes.rs`), everybody opens what was decided and leaves its
//! address, and rank 0 says on what terms to go: four more fences. Only rank 0 reads the cards of all, twice. The address of
//! another rank is fetched when there is something to do with it for the first time (`cards.rs`).
//!
//! Opening is part of deciding. Who cannot open the road leaves the reason in the place of its address; rank 0 reads them all,
//! and where there is one it decides again without that road: two more fences, and at most one such round for each
//! network there is. So a device that is listed and broken is passed over as one that is not there, and whether the
//! job starts is said by one rank.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use selvedge_boot::{Boot, Host};
use selvedge_ofi::{Opening, Terms};
use selvedge_shm::{Config, Joined, Segment};
use selvedge_transport::{Introduced, Peer};

use crate::communicator::contexts::Contexts;
use crate::communicator::{Far, Road};
use crate::error::told::Told;
use crate::error::{Error, Result};
use crate::world::cards::{
    AddressCard, Cards, Line, MEMORY_KEY, MemoryCard, Word, address_key, find, leave, rank_key, start_error,
    word_key,
};
use crate::world::job::{FarRoad, Job, Start};
use crate::world::membership;
use crate::world::network::Network;
use crate::world::pmix;
use crate::world::report;
use crate::world::roads::Roads;
use crate::world::routes::{RankCard, Routes};
use crate::world::wishes::Wishes;

/// Exit code of all ranks of a job that no road was found for; `mpirun --help all` names it. EX_UNAVAILABLE of sysexits(3).
const NO_ROAD_CODE: i32 = 69;

/// Joins the job of this process: PMI, then the roads between its ranks.
pub(crate) fn join_job() -> Result<(Road, Job)> {
    let env = |name: &str| std::env::var(name).ok();
    let find = || Boot::from_env_or_pmix(env, duplicate, || pmix::space(env)).map_err(start_error);
    let (boot, membership) = membership::join(find)?;
    let wishes = match Wishes::from_env(env) {
        Ok(wishes) => wishes,
        Err(complaint) => return refuse(boot, &complaint),
    };
    let (road, mut job) = join_ranks_of(boot, &wishes)?;
    job.membership = membership;
    Ok((road, job))
}

/// The roads between the ranks that `boot` speaks of.
pub(crate) fn join_ranks_of(mut boot: Boot, wishes: &Wishes) -> Result<(Road, Job)> {
    let host = match &wishes.host {
        Some(name) => Host::here().called(name),
        None => Host::here(),
    };
    let is_elsewhere = boot.map().is_some_and(|map| map.nodes() > 1);
    let is_alone = boot.size() == 1;
    if (is_alone || (wishes.shared_memory_will_do() && !is_elsewhere))
        && let Some((joined, segment)) = share_memory(&mut boot, &host)?
    {
        return on_one_host(boot, wishes, host, joined, &segment);
    }
    on_several_hosts(boot, wishes, host)
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
    let start = Start::Process(Arc::new(Mutex::new(Some(boot))));
    let job = job(start, segment, me, host.name, wishes.check);
    Ok((Roads::Near(near), job))
}

/// The job of ranks that all share a segment.
pub(crate) fn job(start: Start, segment: &Segment, me: u32, host: String, checks_types: bool) -> Job {
    Job {
        start,
        hosts: vec![host],
        host_of: Vec::new(),
        pids: (0..segment.peers() as u32).map(|peer| segment.pid(Peer(peer))).collect(),
        me: Peer(me),
        cores: vec![segment.processors()],
        far: None,
        membership: None,
        checks_types,
        contexts: Contexts::default(),
        spawns: AtomicU32::new(0),
        told: Told::default(),
    }
}

fn on_several_hosts(mut boot: Boot, wishes: &Wishes, host: Host) -> Result<(Road, Job)> {
    let me = boot.rank();
    let network = Network::look(wishes);
    let card = RankCard {
        host: host.into(),
        pid: std::process::id(),
        processors: processors(),
        node: selvedge_ofi::own_node(),
        usable: network.usable(),
        refused: network.refused().to_vec(),
    };
    leave(&mut boot, &rank_key(me), &card)?;
    boot.fence().map_err(start_error)?;
    let mut judge = match me {
        0 => Some(Judge::new(&mut boot, wishes)?),
        _ => None,
    };
    let word = judge.as_mut().map(Judge::decide);
    let mut word = pass_on(&mut boot, 0, word)?;
    let mut near = None;
    let (round, routes, opening, terms) = 'opened: {
        for round in 1.. {
            let Word::Open(routes) = word else { break };
            let opening = open(&mut boot, round, &network, &routes, &mut near)?;
            let verdict = judge.as_mut().map(|judge| judge.hear(&mut boot, round, &routes)).transpose()?;
            word = pass_on(&mut boot, round, verdict)?;
            if let Word::Go(terms) = word {
                break 'opened (round, *routes, opening, terms);
            }
        }
        end(boot)
    };
    let line: Line = Arc::new(Mutex::new(Some(boot)));
    let far = opening.map(|opening| {
        let terms = terms.as_deref().and_then(Terms::of_bytes).ok_or_else(no_terms)?;
        join(opening, &terms, &routes, Cards::new(line.clone(), round), me)
    });
    let road = together(near, far.transpose()?, me, &routes)?;
    if me == 0 {
        report::on_several_hosts(&routes, &network, road.near()).give(&wishes.report);
    }
    let job = Job {
        start: Start::Process(line),
        far: routes.far.map(|road| FarRoad {
            road,
            near: routes.near,
            ranks_per_host: routes.ranks_per_host(),
        }),
        hosts: routes.hosts,
        host_of: routes.host_of,
        pids: routes.pids,
        me: Peer(me),
        cores: routes.cores,
        membership: None,
        checks_types: wishes.check,
        contexts: Contexts::default(),
        spawns: AtomicU32::new(0),
        told: Told::default(),
    };
    Ok((road, job))
}

/// Rank 0, which decides for all.
struct Judge<'a> {
    cards: Vec<RankCard>,
    wishes: &'a Wishes,
}

impl Judge<'_> {
    fn new<'a>(boot: &mut Boot, wishes: &'a Wishes) -> Result<Judge<'a>> {
        let cards = (0..boot.size()).map(|rank| find(boot, &rank_key(rank), rank)).collect::<Result<_>>()?;
        Ok(Judge { cards, wishes })
    }

    /// What to open, from what is known so far. Says it where there is no road: before it is passed on, since there may be no
    /// time for words when the others have left.
    fn decide(&mut self) -> Word {
        match Routes::decide(&self.cards, self.wishes) {
            Ok(routes) => Word::Open(Box::new(routes)),
            Err(no_road) => {
                say(&no_road.to_string());
                Word::End
            }
        }
    }

    /// What to do now that all have tried, from what they have left.
    fn hear(&mut self, boot: &mut Boot, round: usize, routes: &Routes) -> Result<Word> {
        let (mut addresses, mut refused) = (Vec::new(), Vec::new());
        for rank in 0..boot.size() {
            let tried: AddressCard = find(boot, &address_key(round, rank), rank)?;
            match tried.far {
                Ok(address) => addresses.push(address),
                Err(why) => refused.push((rank, why)),
            }
        }
        if refused.is_empty() {
            let terms = routes.far.map(|_| Terms::of(&addresses)).transpose()?;
            return Ok(Word::Go(terms.as_ref().map(Terms::to_bytes)));
        }
        refused.into_iter().for_each(|(rank, why)| self.cards[rank as usize].refuse(why));
        Ok(self.decide())
    }
}

/// Tells every rank what rank 0 has to say.
fn pass_on(boot: &mut Boot, round: usize, word: Option<Word>) -> Result<Word> {
    if let Some(word) = &word {
        leave(boot, &word_key(round), word)?;
    }
    boot.fence().map_err(start_error)?;
    word.map_or_else(|| find(boot, &word_key(round), 0), Ok)
}

/// Opens what was decided, and leaves word of how that went. A seat in the memory of this host is taken once, in `near`.
fn open(
    boot: &mut Boot,
    round: usize,
    network: &Network,
    routes: &Routes,
    near: &mut Option<Joined>,
) -> Result<Option<Opening>> {
    let me = boot.rank();
    let far = routes.far.map(|far| {
        let rails = routes.rails.get(me as usize).cloned().unwrap_or_default();
        network.open(far, Peer(me), rails, routes.is_crowded(me))
    });
    let here = routes.sharing(me);
    let shares = here.len() > 1 && near.is_none();
    let own_segment = match shares && here[0] == me {
        true => Some(Segment::create(here.len() as u32, &Config::default())?),
        false => None,
    };
    let (far, address) = match far {
        None => (None, Ok(Vec::new())),
        Some(Ok(opening)) => {
            let card = opening.card();
            (Some(opening), Ok(card))
        }
        Some(Err(refused)) => (None, Err(refused)),
    };
    let segment = own_segment.as_ref().map(Segment::card).unwrap_or_default();
    leave(boot, &address_key(round, me), &AddressCard { segment, far: address })?;
    boot.fence().map_err(start_error)?;

    if shares {
        let segment = match own_segment {
            Some(segment) => segment,
            None => {
                let first: AddressCard = find(boot, &address_key(round, here[0]), here[0])?;
                Segment::open(&first.segment)?
            }
        };
        let local = here.iter().position(|&rank| rank == me).expect("a rank is on its own host") as u32;
        *near = Some(Arc::new(segment).join(Peer(local))?);
    }
    Ok(far)
}

/// The road to other hosts, on which nobody is known yet.
fn join(opening: Opening, terms: &Terms, routes: &Routes, cards: Cards, me: u32) -> Result<Far> {
    let here = routes.sharing(me).into_iter().filter(|&rank| rank != me).map(Peer).collect();
    let ofi = opening.join(terms, routes.host_of.len(), here)?;
    Ok(Introduced::new(ofi, cards))
}

fn no_terms() -> Error {
    Error::Start("what rank 0 has said of the network is damaged".to_owned())
}

/// Puts the roads together.
fn together(near: Option<Joined>, far: Option<Far>, me: u32, routes: &Routes) -> Result<Road> {
    let near = near.map(Joined::open).transpose()?;
    let here = || routes.sharing(me).into_iter().map(Peer).collect();
    Ok(match (near, far) {
        (Some(near), Some(far)) => Roads::both(near, here(), far),
        (Some(near), None) => Roads::Near(near),
        (None, Some(far)) => Roads::Far(far),
        (None, None) => unreachable!("ranks of a job of several have a road"),
    })
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

/// An owned duplicate of a descriptor that the launcher says we inherited; an error where it is not open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is borrowed only for the next call, which checks that the number is open: at worst it
    // names a descriptor of somebody else in this process, which is duplicated and not touched.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}
