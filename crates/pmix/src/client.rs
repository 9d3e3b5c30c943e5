//! A rank's side: who am I, who else is there, and a store to leave addresses in.

use std::ffi::CString;
use std::fmt;

use crate::error::Error;
use crate::library::Library;
use crate::sys::{
    Got, Infos, Item, PMIX_ERR_NOT_FOUND, PMIX_ERR_TIMEOUT, PMIX_ERR_UNREACH, PMIX_ERROR, PMIX_MAX_KEYLEN,
    PMIX_RANK_WILDCARD, Proc, Status,
};

/// How long a server may look for what a rank has left, in seconds. After a fence it has everything, or everything is one
/// question to the rank's own server away.
const GET_SECONDS_MAX: i32 = 30;

/// This process's place in its job, and the line to the PMIx server that started it.
///
/// One conversation for all ranks: [`put`](Client::put) what others must know, [`fence`](Client::fence),
/// [`get`](Client::get) what they have put, [`finalize`](Client::finalize) at the end. A process that ends without it is
/// taken for dead.
///
/// Calls block until the server has answered, asleep. Belongs to one thread at a time.
///
/// ```no_run
/// use selvedge_pmix::{Client, Library};
/// let mut client = Client::start(&Library::open(None, None)?)?;
/// client.put("address", b"here")?;
/// client.fence()?;
/// let next = (client.rank() + 1) % client.size();
/// assert!(client.get(next, "address")?.is_some());
/// client.finalize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    library: Library,
    me: Proc,
    size: u32,
    /// The ranks of this node, where the server says.
    locals: Option<Vec<u32>>,
}

impl Client {
    /// Finds the server that the environment speaks of (`PMIX_NAMESPACE`, `PMIX_RANK` and the rest). Cost: a few
    /// milliseconds and a thread of libpmix.
    ///
    /// # Errors
    /// Nobody answers; this process was a client or server before; or the server does not know the size of the job.
    pub fn start(library: &Library) -> Result<Client, Error> {
        Library::take()?;
        let me = library.exports().init().map_err(|status| match status {
            PMIX_ERR_UNREACH => Error::NoServer,
            status => library.error("PMIx_Init", status),
        })?;
        let mut client = Client { library: library.clone(), me, size: 0, locals: None };
        client.locals = client.local_ranks();
        client.size = client.job_number("pmix.job.size")?;
        if client.size == 0 || me.rank >= client.size {
            return Err(Error::Unknown {
                key: "pmix.job.size",
                expected: "more than the number of this rank",
            });
        }
        Ok(client)
    }

    /// Which of the job's processes this is, `0..size`.
    pub fn rank(&self) -> u32 {
        self.me.rank
    }

    /// Number of processes of the job.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Name of the job, the same on all its ranks and no other's.
    pub fn job(&self) -> String {
        self.me.namespace()
    }

    /// Which `:` block of the command line this rank belongs to, where the server says.
    pub fn appnum(&self) -> Option<u32> {
        number(self.known(self.me.rank, "pmix.appnum").ok()??)
    }

    /// The ranks of this node, ascending, this one among them; `None` where the server does not say.
    pub fn local_ranks(&self) -> Option<Vec<u32>> {
        let Got::Text(list) = self.known(PMIX_RANK_WILDCARD, "pmix.lpeers").ok()?? else { return None };
        let mut ranks: Vec<u32> =
            list.split(',').map(|rank| rank.trim().parse().ok()).collect::<Option<_>>()?;
        ranks.sort_unstable();
        Some(ranks)
    }

    /// The name of the host of `rank`, where the server says. Cost: a look into libpmix's memory, or a question to the
    /// server. The only statement about nodes that servers agree on; node numbers of other nodes are missing or wrong with
    /// some.
    pub fn host_of(&self, rank: u32) -> Option<String> {
        match self.known(rank, "pmix.hname").ok()?? {
            Got::Text(name) => Some(name),
            _ => None,
        }
    }

    /// Leaves `value` for the other ranks, who see it after the next [`fence`](Client::fence). Any length. A second put of
    /// a key replaces the first.
    ///
    /// # Errors
    /// A key that is none, or libpmix's.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.library.check("PMIx_Put", self.library.exports().put(&c_key(key)?, value))
    }

    /// Waits until every rank of the job is here. After it, all that was put before it can be got.
    ///
    /// # Errors
    /// The server's; most often that it has ended the job.
    pub fn fence(&mut self) -> Result<(), Error> {
        let exports = self.library.exports();
        self.library.check("PMIx_Commit", exports.commit())?;
        let everything = Infos::new().with("pmix.collect", Item::Flag(true));
        self.library.check("PMIx_Fence", exports.fence(&self.me.sibling(PMIX_RANK_WILDCARD), everything))
    }

    /// What `rank` has put under `key` before the last fence; `None` when it has put nothing there.
    ///
    /// Cost: a look into libpmix's memory or a question to the server where the fence has brought it here. PRRTE's (Open MPI's
    /// mpirun) brings nothing to other hosts, whatever it is asked (seen with 3 and PMIx 5.0.11): there the first question
    /// of each rank about a rank of another host goes to that host, half a millisecond and more. So fetch what is needed
    /// when it is needed.
    ///
    /// # Errors
    /// A key that is none, a value that is not bytes, or libpmix's.
    pub fn get(&mut self, rank: u32, key: &str) -> Result<Option<Vec<u8>>, Error> {
        // With "pmix.immediate" the server of this host says what it has. Never "pmix.optional": 5.x then does not find what
        // other ranks have put, after a collecting fence either.
        let here = Infos::new().with("pmix.immediate", Item::Flag(true));
        let mut got = self.get_as(rank, key, here.with("pmix.timeout", Item::Int(GET_SECONDS_MAX)))?;
        if matches!(got, Err(PMIX_ERR_NOT_FOUND)) && !self.is_local(rank) {
            // Without it that asks the server of the other host. Of a key that nobody has put it hears nothing until time is
            // up, which 5.0.11 calls an error without a name.
            got = match self.get_as(
                rank,
                key,
                Infos::new().with("pmix.timeout", Item::Int(GET_SECONDS_MAX)),
            )? {
                Err(PMIX_ERROR) => Err(PMIX_ERR_TIMEOUT),
                other => other,
            };
        }
        match got {
            Ok(Got::Bytes(bytes)) => Ok(Some(bytes)),
            Ok(other) => Err(Error::Foreign { rank, key: key.to_owned(), found: other.name() }),
            Err(PMIX_ERR_NOT_FOUND | PMIX_ERR_TIMEOUT) => Ok(None),
            Err(status) => Err(self.library.error("PMIx_Get", status)),
        }
    }

    fn get_as(&self, rank: u32, key: &str, how: Infos) -> Result<Result<Got, Status>, Error> {
        Ok(self.library.exports().get(&self.me.sibling(rank), &c_key(key)?, how))
    }

    /// Whether a rank is known to be one of this node.
    fn is_local(&self, rank: u32) -> bool {
        self.locals.as_ref().is_some_and(|ranks| ranks.binary_search(&rank).is_ok())
    }

    /// Asks the server to end the whole job, with this code where it passes codes on, and to say why. Returns when it knows;
    /// the caller should then exit, with the same code.
    pub fn abort(&mut self, code: i32, message: &str) {
        let until_zero = message.split('\0').next().unwrap_or_default();
        let message = CString::new(until_zero).expect("it was cut at its first zero");
        // Nobody is left to tell if this fails: the server is gone, and so will we be.
        let _ = self.library.exports().abort(code, &message);
    }

    /// Says goodbye: from here on this process may end without being taken for dead.
    ///
    /// # Errors
    /// The server's.
    pub fn finalize(self) -> Result<(), Error> {
        self.library.check("PMIx_Finalize", self.library.exports().finalize())
    }

    /// What the server has said at the start about a rank, or about the job. `Ok(None)` where it has not.
    fn known(&self, rank: u32, key: &str) -> Result<Option<Got>, Error> {
        // What was said at the start is in this process; without this word a question about what was not said would wait.
        let how = Infos::new().with("pmix.optional", Item::Flag(true));
        match self.library.exports().get(&self.me.sibling(rank), &c_key(key)?, how) {
            Ok(got) => Ok(Some(got)),
            Err(PMIX_ERR_NOT_FOUND) => Ok(None),
            Err(status) => Err(self.library.error("PMIx_Get", status)),
        }
    }

    fn job_number(&self, key: &'static str) -> Result<u32, Error> {
        let unknown = Error::Unknown { key, expected: "a number" };
        self.known(PMIX_RANK_WILDCARD, key)?.and_then(number).ok_or(unknown)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(rank {} of {} of job {})", self.rank(), self.size, self.job())
    }
}

fn number(got: Got) -> Option<u32> {
    match got {
        Got::Number(number) => u32::try_from(number).ok(),
        _ => None,
    }
}

fn c_key(key: &str) -> Result<CString, Error> {
    let wrong = || Error::Key { key: key.to_owned() };
    if !(1..=PMIX_MAX_KEYLEN).contains(&key.len()) {
        return Err(wrong());
    }
    CString::new(key).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_libpmix_would_cut_are_refused() {
        assert!(c_key("").is_err() && c_key("a\0b").is_err() && c_key(&"k".repeat(512)).is_err());
        assert!(c_key(&"k".repeat(511)).is_ok());
    }

    #[test]
    fn numbers_below_zero_are_no_ranks() {
        assert_eq!(number(Got::Number(-1)), None);
        assert_eq!(number(Got::Number(7)), Some(7));
        assert_eq!(number(Got::Text("7".to_owned())), None);
    }
}
