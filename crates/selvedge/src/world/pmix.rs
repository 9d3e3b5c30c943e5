//! PMIx as a place in a job: how ranks under Open MPI's mpirun and `srun --mpi=pmix` find each other.

use std::path::PathBuf;

use selvedge_boot::{KeyValueSpace, NodeMap, SpaceFault};
use selvedge_pmix::{Client, Library};

/// Speaks with the PMIx server that has started this process. `SELVEDGE_LIBPMIX` names the libpmix, and where it is not set,
/// the launcher's own comes first.
pub(crate) fn space(
    env: impl Fn(&str) -> Option<String>,
) -> Result<Box<dyn KeyValueSpace + Send>, SpaceFault> {
    let path = |name| env(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let library = Library::open(path("SELVEDGE_LIBPMIX").as_deref(), path("PMIX_PREFIX").as_deref())?;
    Ok(Box::new(Space(Client::start(&library)?)))
}

struct Space(Client);

impl KeyValueSpace for Space {
    fn rank(&self) -> u32 {
        self.0.rank()
    }

    fn size(&self) -> u32 {
        self.0.size()
    }

    fn appnum(&self) -> Option<u32> {
        self.0.appnum()
    }

    fn job(&self) -> String {
        self.0.job()
    }

    fn map(&self) -> Option<NodeMap> {
        let size = self.0.size();
        // The usual case costs one question, not one for each rank.
        if self.0.local_ranks().is_some_and(|ranks| ranks.len() == size as usize) {
            return Some(NodeMap::one_node(size));
        }
        let hosts: Option<Vec<String>> = (0..size).map(|rank| self.0.host_of(rank)).collect();
        hosts.map(|hosts| NodeMap::of_names(&hosts))
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), SpaceFault> {
        Ok(self.0.put(key, value)?)
    }

    fn fence(&mut self) -> Result<(), SpaceFault> {
        Ok(self.0.fence()?)
    }

    fn get(&mut self, rank: u32, key: &str) -> Result<Option<Vec<u8>>, SpaceFault> {
        Ok(self.0.get(rank, key)?)
    }

    fn abort(&mut self, code: i32, message: &str) {
        self.0.abort(code, message);
    }

    fn finalize(self: Box<Self>) -> Result<(), SpaceFault> {
        Ok(self.0.finalize()?)
    }
}
