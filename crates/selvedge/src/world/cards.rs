//! What ranks leave for each other with their launcher, and how it is found again: at the start what rank 0 needs for its
//! decisions, and later, one by one, where a rank is that there is something to do with for the first time.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge_boot::{Boot, BootError};
use selvedge_transport::{Cause, Directory, Fault, Peer, Scope};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::world::routes::{HostCard, Refused, Routes};

/// Version of everything that ranks leave for each other. It comes first in each, so that it can be told from something
/// whose rest has another form. Ranks of different versions do not form a job.
const START_VERSION: u32 = 4;

/// The connection to the launcher, until this rank takes leave of it.
pub(crate) type Line = Arc<Mutex<Option<Boot>>>;

/// What rank 0 tells the others first, under [`MEMORY_KEY`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemoryCard {
    pub(crate) host: HostCard,
    pub(crate) segment: Vec<u8>,
}
pub(crate) const MEMORY_KEY: &str = "selvedge.memory";

/// What rank 0 says after each round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Open this.
    Open(Box<Routes>),
    /// Everybody has opened it: go, on these terms of the network's; none where the job uses none.
    Go(Option<Vec<u8>>),
    /// There is no road. It has been said why.
    End,
}

/// What is needed to reach a rank.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddressCard {
    /// From the first rank of a host that shares memory: where it is.
    pub(crate) segment: Vec<u8>,
    /// Where the rank is on the network, empty where the job uses none; or why it is not there.
    pub(crate) far: Result<Vec<u8>, Refused>,
}

pub(crate) fn word_key(round: usize) -> String {
    format!("selvedge.routes.{round}")
}

pub(crate) fn rank_key(rank: u32) -> String {
    format!("selvedge.rank.{rank}")
}

pub(crate) fn address_key(round: usize, rank: u32) -> String {
    format!("selvedge.address.{round}.{rank}")
}

/// Leaves something for the other ranks.
pub(crate) fn leave(boot: &mut Boot, key: &str, card: &impl Serialize) -> Result<()> {
    let bytes =
        postcard::to_allocvec(&(START_VERSION, card)).map_err(|error| Error::Start(error.to_string()))?;
    boot.put(key, &bytes).map_err(start_error)
}

/// What `rank` has left.
pub(crate) fn find<T: DeserializeOwned>(boot: &mut Boot, key: &str, rank: u32) -> Result<T> {
    let found = boot.get_from(rank, key);
    read(found, key, rank).map_err(Error::Start)
}

fn read<T: DeserializeOwned>(
    found: std::result::Result<Option<Vec<u8>>, BootError>,
    key: &str,
    rank: u32,
) -> Result<T, String> {
    let bytes = found.map_err(words)?;
    let bytes = bytes.ok_or_else(|| format!("rank {rank} left no {key}; is it another program?"))?;
    let damaged = |error| format!("what rank {rank} has left is damaged: {error}");
    let (version, rest) = postcard::take_from_bytes::<u32>(&bytes).map_err(damaged)?;
    if version != START_VERSION {
        return Err(format!(
            "rank {rank} speaks version {version} of the start protocol, this rank version {START_VERSION}; \
             link all ranks against the same version of selvedge"
        ));
    }
    postcard::from_bytes(rest).map_err(damaged)
}

/// What the launcher said, as an error of the start.
pub(crate) fn start_error(error: BootError) -> Error {
    Error::Start(words(error))
}

/// What the launcher said, with what is behind it.
fn words(error: BootError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// How long a launcher may take to say where a rank is. It answers in some tens of microseconds where the node's server
/// has the card, in a round trip per level of the tree where it has not, and later when the host is crowded.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The cards that all ranks left in one round, with the launcher.
///
/// Asking blocks: the launcher does not need any rank to answer, so nobody waits for somebody who waits. A
/// launcher that says nothing for [`ANSWER_MAX`] is as good as gone.
#[derive(Debug)]
pub(crate) struct Cards {
    line: Line,
    round: usize,
}

impl Cards {
    pub(crate) fn new(line: Line, round: usize) -> Cards {
        Cards { line, round }
    }

    fn ask(&self, of: u32) -> Result<Vec<u8>, String> {
        let mut line = self.line.lock().map_err(|_| "a thread has panicked while it asked")?;
        let boot = line.as_mut().ok_or("this rank has taken leave of its launcher")?;
        let key = address_key(self.round, of);
        let card: AddressCard = read(boot.get_within(of, &key, ANSWER_MAX), &key, of)?;
        card.far.map_err(|refused| refused.reason)
    }
}

impl Directory for Cards {
    fn card(&mut self, of: Peer) -> Result<Vec<u8>, Box<Fault>> {
        self.ask(of.0).map_err(|words| {
            Box::new(Fault {
                scope: Scope::Peer(of),
                cause: Cause::Unreachable,
                age: None,
                detail: format!("its address is not to be had: {words}"),
                next_step: "look at what the launcher says",
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(boot: Boot) -> Cards {
        Cards::new(Arc::new(Mutex::new(Some(boot))), 2)
    }

    #[test]
    fn a_card_is_the_one_of_its_round_and_its_rank() {
        let mut boot = Boot::alone();
        for (round, far) in [(1, Ok(vec![1])), (2, Ok(vec![2]))] {
            let card = AddressCard { segment: Vec::new(), far };
            leave(&mut boot, &address_key(round, 0), &card).expect("there is room");
        }
        assert_eq!(cards(boot).card(Peer(0)), Ok(vec![2]));
    }

    #[test]
    fn who_left_no_card_and_who_is_asked_after_the_last_word_is_unreachable() {
        let mut cards = cards(Boot::alone());
        let fault = cards.card(Peer(7)).expect_err("nobody has left it");
        assert_eq!(fault.cause, Cause::Unreachable);
        assert!(
            fault.to_string().contains("peer 7: its address is not to be had: rank 7 left no"),
            "{fault}"
        );
        drop(cards.line.lock().expect("nobody has panicked").take());
        let fault = cards.card(Peer(7)).expect_err("nobody is asked");
        assert!(fault.to_string().contains("this rank has taken leave of its launcher"), "{fault}");
    }

    #[test]
    fn a_card_of_another_version_says_so() {
        let mut boot = Boot::alone();
        let bytes = postcard::to_allocvec(&(START_VERSION + 1, 7_u8)).expect("it can be written");
        boot.put("k", &bytes).expect("there is room");
        let error = find::<AddressCard>(&mut boot, "k", 0).expect_err("another version");
        assert!(error.to_string().contains("link all ranks against the same version"), "{error}");
    }
}
