//! From a launcher's word to a road: every rank learns where the others are and opens what they share.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use selvedge_boot::{Boot, BootError, Host};
use selvedge_shm::{Config, Segment};
use selvedge_transport::Peer;
use serde::{Deserialize, Serialize};

use crate::communicator::Road;
use crate::error::{Error, Result};
use crate::job::{Job, Start};

/// Version of [`Card`]. Ranks of different versions do not form a job.
const CARD_VERSION: u32 = 1;

/// What rank 0 tells the others at the start.
#[derive(Debug, Serialize, Deserialize)]
struct Card {
    version: u32,
    host: String,
    boot_id: String,
    user: u32,
    pid_namespace: u64,
    ipc_namespace: u64,
    net_namespace: u64,
    user_namespace: u64,
    segment: Vec<u8>,
}

/// Key of the card in the launcher's store.
const CARD_KEY: &str = "selvedge.card.0";

/// Joins the job of this process: PMI, then the memory the ranks share.
pub(crate) fn join_job() -> Result<(Road, Job)> {
    let mut boot = Boot::from_env(|name| std::env::var(name).ok(), duplicate).map_err(start_error)?;
    let (rank, size) = (boot.rank(), boot.size());
    let host = Host::here();
    let segment = if rank == 0 {
        let segment = Segment::create(size, &Config::default())?;
        let card = Card::new(&host, segment.card());
        let bytes = postcard::to_allocvec(&card).map_err(|error| Error::Start(error.to_string()))?;
        boot.put(CARD_KEY, &bytes).map_err(start_error)?;
        boot.fence().map_err(start_error)?;
        segment
    } else {
        boot.fence().map_err(start_error)?;
        let bytes = boot.get(CARD_KEY).map_err(start_error)?;
        let bytes =
            bytes.ok_or_else(|| Error::Start("rank 0 left no card; is it another program?".to_owned()))?;
        let card = Card::read(&bytes)?;
        card.check_reach(rank, &host)?;
        Segment::open(&card.segment)?
    };
    let segment = Arc::new(segment);
    let joined = segment.join(Peer(rank))?;
    boot.fence().map_err(start_error)?;
    let road = joined.open()?;
    let job = job(Start::Process(RefCell::new(Some(boot))), &segment, rank, host.name);
    Ok((road, job))
}

/// The job of ranks that share a segment.
pub(crate) fn job(start: Start, segment: &Segment, me: u32, host: String) -> Job {
    Job {
        start,
        hosts: vec![host],
        host_of: Vec::new(),
        pids: (0..segment.peers() as u32).map(|peer| segment.pid(Peer(peer))).collect(),
        me: Peer(me),
        cores: segment.processors(),
        next_context: Cell::new(0),
    }
}

impl Card {
    fn new(host: &Host, segment: Vec<u8>) -> Card {
        let Host { name, boot_id, user, pid_namespace, ipc_namespace, net_namespace, user_namespace } =
            host.clone();
        Card {
            version: CARD_VERSION,
            host: name,
            boot_id,
            user,
            pid_namespace,
            ipc_namespace,
            net_namespace,
            user_namespace,
            segment,
        }
    }

    fn read(bytes: &[u8]) -> Result<Card> {
        // The version comes first, so that it can be told from a card whose rest has another form.
        match postcard::take_from_bytes::<u32>(bytes) {
            Ok((CARD_VERSION, _)) => {}
            Ok((version, _)) => {
                return Err(Error::Start(format!(
                    "rank 0 speaks version {version} of the start protocol, this rank version {CARD_VERSION}; \
                     link all ranks against the same version of selvedge"
                )));
            }
            Err(error) => return Err(Error::Start(format!("the card of rank 0 is damaged: {error}"))),
        }
        postcard::from_bytes(bytes)
            .map_err(|error| Error::Start(format!("the card of rank 0 is damaged: {error}")))
    }

    /// Whether this process can share memory with rank 0.
    fn check_reach(&self, rank: u32, here: &Host) -> Result<()> {
        let there = Host {
            name: self.host.clone(),
            boot_id: self.boot_id.clone(),
            user: self.user,
            pid_namespace: self.pid_namespace,
            ipc_namespace: self.ipc_namespace,
            net_namespace: self.net_namespace,
            user_namespace: self.user_namespace,
        };
        if here.sees_processes_of(&there) {
            return Ok(());
        }
        let why = if here.same_kernel(&there) {
            "they are in different containers or run as different users; start them in one pid namespace as one user"
        } else {
            "this version connects the ranks of one host only; start them all on one"
        };
        Err(Error::Start(format!(
            "rank {rank} on {} cannot share memory with rank 0 on {}: {why}",
            here.name, there.name
        )))
    }
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
