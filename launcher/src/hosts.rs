//! Which hosts a job may use, and how many ranks each gets before the next one's turn.
//!
//! Whoever is nearer to the user wins: the command line, then `HYDRA_HOST_FILE`, then the batch system, then a default
//! host file. With none of them it is this host only. A list (`-H`) beside a host file chooses among the file's hosts.

mod file;
mod list;
mod managers;
mod nodelist;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::args::{JobWish, Usage};

pub use managers::{Allocation, Manager, allocation};

pub(crate) use file::parse as parse_file;
pub(crate) use list::parse as parse_list;

/// A host as the user or a batch system names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWish {
    /// Name or address, without brackets. It never starts with a dash and has no blanks: it can stand on any command line.
    pub name: String,
    /// Other names by which it was asked for.
    pub also: Vec<String>,
    /// Whom to be there; ourselves where it is not said.
    pub user: Option<String>,
    /// How many ranks it gets before the next host's turn.
    pub slots: Slots,
    /// How many ranks it may get at the very most.
    pub max_slots: Option<u32>,
    /// Blocks of the command line that name no hosts of their own may use it.
    pub for_all: bool,
}

/// How many ranks a host gets before the next host's turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slots {
    /// As many as it has cores.
    #[default]
    Cores,
    /// So many, because it was mentioned so often; nobody wrote a number.
    Mentioned(u32),
    /// So many: somebody wrote the number.
    Stated(u32),
}

impl HostWish {
    /// A host of which only the name is known.
    pub fn named(name: impl Into<String>) -> HostWish {
        HostWish {
            name: name.into(),
            also: Vec::new(),
            user: None,
            slots: Slots::Cores,
            max_slots: None,
            for_all: true,
        }
    }

    /// Whether it was asked for by this name.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        same_name(&self.name, name) || self.also.iter().any(|also| same_name(also, name))
    }
}

/// How files are read: the system's way, or a test's.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Variables that name a host file and count more than a batch system: MPICH's, Intel's.
const FILE_VARIABLES: &[&str] = &["HYDRA_HOST_FILE", "I_MPI_HYDRA_HOST_FILE"];

/// Variables that name a host file for when there is nothing else: Open MPI's. Kubernetes' MPI operator sets one.
const DEFAULT_FILE_VARIABLES: &[&str] = &["PRTE_MCA_prte_default_hostfile", "OMPI_MCA_orte_default_hostfile"];

/// The hosts of a job in the order in which they are used, none twice. Empty: this host only.
///
/// # Errors
/// One sentence about a variable or a file that cannot be understood.
pub fn wished(
    job: &JobWish,
    env: &dyn Fn(&str) -> Option<OsString>,
    read: Read<'_>,
) -> Result<Vec<HostWish>, Usage> {
    let for_all = if job.blocks.iter().any(|block| block.hosts.is_empty()) {
        hosts_for_all(job, env, read)?
    } else {
        Vec::new()
    };
    let own: Vec<HostWish> = job.blocks.iter().flat_map(|block| block.hosts.clone()).collect();
    let own = filled_by_manager(own, env, read)?.into_iter();
    let own = own.map(|host| HostWish { for_all: false, ..host });
    let mut hosts = Index::default();
    for host in for_all.into_iter().map(|host| HostWish { for_all: true, ..host }).chain(own) {
        // What is for all has come first and knows its slots; a block's own slots are looked up in the block.
        let at = hosts.find_or_add(host.clone());
        let known = &mut hosts.hosts[at];
        known.user = known.user.take().or(host.user);
        known.max_slots = known.max_slots.or(host.max_slots);
    }
    Ok(hosts.hosts)
}

/// The hosts for blocks that name none of their own.
fn hosts_for_all(
    job: &JobWish,
    env: &dyn Fn(&str) -> Option<OsString>,
    read: Read<'_>,
) -> Result<Vec<HostWish>, Usage> {
    let from_file = |variables: &[&str]| -> Result<Option<Vec<HostWish>>, Usage> {
        let path = variables.iter().find_map(|name| env(name)).filter(|path| !path.is_empty());
        path.map(|path| read_file(Path::new(&path), read)).transpose()
    };
    if !job.hosts.is_empty() {
        return filled_by_manager(job.hosts.clone(), env, read);
    }
    if let Some(hosts) = from_file(FILE_VARIABLES)? {
        return Ok(hosts);
    }
    if let Some(allocation) = allocation(env, read)? {
        return Ok(allocation.hosts);
    }
    let own: Vec<HostWish> = job.blocks.iter().flat_map(|block| block.hosts.clone()).collect();
    if !own.is_empty() {
        return Ok(merge(own));
    }
    if let Some(lines) = &job.rank_file {
        let mut hosts = Index::default();
        for line in lines {
            hosts.find_or_add(HostWish::named(&line.host));
        }
        return Ok(hosts.hosts);
    }
    if !job.default_hosts.is_empty() {
        return Ok(job.default_hosts.clone());
    }
    Ok(from_file(DEFAULT_FILE_VARIABLES)?.unwrap_or_default())
}

/// `hosts`, with the slots that a batch system has given us where the command line leaves them open.
fn filled_by_manager(
    hosts: Vec<HostWish>,
    env: &dyn Fn(&str) -> Option<OsString>,
    read: Read<'_>,
) -> Result<Vec<HostWish>, Usage> {
    if hosts.iter().all(|host| host.slots != Slots::Cores) {
        return Ok(hosts);
    }
    let given = allocation(env, read)?.map(|allocation| allocation.hosts);
    Ok(with_slots_of(hosts, &given.unwrap_or_default()))
}

/// Reads a host file.
///
/// # Errors
/// One sentence that names the file, and the line where there is something wrong with one.
pub(crate) fn read_file(path: &Path, read: Read<'_>) -> Result<Vec<HostWish>, Usage> {
    let bytes = read(path)
        .map_err(|error| Usage::new(format!("cannot read the host file {}: {error}", path.display())))?;
    parse_file(path, &bytes)
}

/// The hosts of `list`, which must be among those of `file`; what the list does not say the file does.
///
/// # Errors
/// One sentence that names the host that the file does not have.
pub(crate) fn choose(list: Vec<HostWish>, file: &[HostWish]) -> Result<Vec<HostWish>, Usage> {
    let index = Index::of(file);
    if let Some(stranger) = list.iter().find(|host| index.find(&host.name).is_none()) {
        return Err(Usage::new(format!(
            "the host {} is not in the host file; a list beside a host file chooses among the file's hosts",
            stranger.name
        )));
    }
    Ok(with_slots_of(list, file))
}

/// `list`, where what is not said about a host is taken from the host of the same name in `known`.
fn with_slots_of(mut list: Vec<HostWish>, known: &[HostWish]) -> Vec<HostWish> {
    let index = Index::of(known);
    for host in &mut list {
        if let Some(known) = index.find(&host.name).map(|at| &known[at]) {
            host.slots = if host.slots == Slots::Cores { known.slots } else { host.slots };
            host.user = host.user.take().or_else(|| known.user.clone());
            host.max_slots = host.max_slots.or(known.max_slots);
        }
    }
    list
}

/// The same hosts, each once: what is mentioned again has the slots of both.
pub(crate) fn merge(hosts: Vec<HostWish>) -> Vec<HostWish> {
    let mut merged = Index::default();
    for host in hosts {
        let before = merged.hosts.len();
        let at = merged.find_or_add(host.clone());
        if at < before {
            let first = &mut merged.hosts[at];
            first.slots = sum(first.slots, host.slots);
            first.user = first.user.take().or(host.user);
            first.max_slots = first.max_slots.or(host.max_slots);
        }
    }
    merged.hosts
}

fn sum(a: Slots, b: Slots) -> Slots {
    use Slots::{Cores, Mentioned, Stated};
    match (a, b) {
        (Stated(a), Stated(b)) => Stated(a.saturating_add(b)),
        (Stated(a), Mentioned(times)) | (Mentioned(times), Stated(a)) => Stated(a.saturating_add(times)),
        (Stated(a), Cores) | (Cores, Stated(a)) => Stated(a.saturating_add(1)),
        (Mentioned(a), Mentioned(b)) => Mentioned(a.saturating_add(b)),
        (Mentioned(times), Cores) | (Cores, Mentioned(times)) => Mentioned(times.saturating_add(1)),
        // One line for each slot, as old host files have it.
        (Cores, Cores) => Mentioned(2),
    }
}

/// Whether two names are one host's: equal, or one is the other without its domain. Addresses have no domain.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let short = |name: &str| short_name(name).len() == name.len();
    a.eq_ignore_ascii_case(b) || (short(a) != short(b) && short_name(a).eq_ignore_ascii_case(short_name(b)))
}

/// A name without its domain; an address as it is.
pub(crate) fn short_name(name: &str) -> &str {
    match name.parse::<std::net::IpAddr>() {
        Ok(_) => name,
        Err(_) => name.split('.').next().unwrap_or(name),
    }
}

/// Hosts that are found by name without looking at all of them.
#[derive(Default)]
struct Index {
    hosts: Vec<HostWish>,
    by_short_name: HashMap<String, Vec<usize>>,
}

impl Index {
    fn of(hosts: &[HostWish]) -> Index {
        let mut index = Index::default();
        hosts.iter().for_each(|host| index.add(host.clone()));
        index
    }

    fn add(&mut self, host: HostWish) {
        let key = short_name(&host.name).to_ascii_lowercase();
        self.by_short_name.entry(key).or_default().push(self.hosts.len());
        self.hosts.push(host);
    }

    fn find(&self, name: &str) -> Option<usize> {
        let candidates = self.by_short_name.get(&short_name(name).to_ascii_lowercase())?;
        candidates.iter().copied().find(|&at| same_name(&self.hosts[at].name, name))
    }

    fn find_or_add(&mut self, host: HostWish) -> usize {
        self.find(&host.name).unwrap_or_else(|| {
            self.add(host);
            self.hosts.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
