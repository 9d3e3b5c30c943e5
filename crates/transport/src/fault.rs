//! What is wrong with the world, said so that the reader knows what to do next.

use std::fmt;
use std::time::Duration;

use crate::Peer;

/// How far a [`Fault`] reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Operations with this peer; everything else goes on.
    Peer(Peer),
    /// This process: a limit of the machine, a permission.
    Local,
}

/// Why, as a value that programs can match on. The words around it are in [`Fault::detail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The peer's process has ended without saying goodbye.
    PeerDied,
    /// The peer has left in order: all it sent has arrived, and nothing more will come.
    PeerLeft,
    /// Nobody answers at the peer's address, says the device or the network: its process or host is gone, or the way
    /// there is cut or closed.
    Unreachable,
    /// The kernel or the device refused access to the peer's memory.
    Denied,
    /// A limit of the machine is reached: memory, descriptors, registrations.
    Exhausted,
    /// Bytes arrived that no Selvedge of this version sends.
    Malformed,
    /// The peer speaks another version of the wire protocol.
    Version,
    /// The test harness said so.
    Injected,
}

/// Something is wrong with the world: with whom, since when, the likely cause, the next step.
///
/// The first to notice fills it in; everybody else passes it on unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// How far it reaches.
    pub scope: Scope,
    /// Why.
    pub cause: Cause,
    /// For how long it has been so when it was noticed, where that is known.
    pub age: Option<Duration>,
    /// What was seen, in a sentence without the peer's name: "process 4711 is gone".
    pub detail: String,
    /// What the reader can do about it, in a sentence.
    pub next_step: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Peer(peer) => write!(f, "{peer:?}: {}", self.words()),
            Scope::Local => write!(f, "this process: {}", self.words()),
        }
    }
}

impl Fault {
    /// What was seen and what to do about it, for those who have a better name for the peer.
    pub fn words(&self) -> String {
        let since = self.age.map_or_else(String::new, |age| format!(" (since {:.1} s)", age.as_secs_f64()));
        format!("{}{since}; {}", self.detail, self.next_step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(scope: Scope, age: Option<Duration>) -> Fault {
        Fault {
            scope,
            cause: Cause::PeerDied,
            age,
            detail: "process 4711 is gone".to_owned(),
            next_step: "look at its last words",
        }
    }

    #[test]
    fn a_fault_says_who_what_since_when_and_what_to_do_in_one_line() {
        let said = fault(Scope::Peer(Peer(3)), Some(Duration::from_millis(1500))).to_string();
        assert_eq!(said, "peer 3: process 4711 is gone (since 1.5 s); look at its last words");
    }

    #[test]
    fn a_fault_of_unknown_age_does_not_mention_it() {
        let said = fault(Scope::Local, None).to_string();
        assert_eq!(said, "this process: process 4711 is gone; look at its last words");
    }

    #[test]
    fn a_fault_does_not_make_results_and_events_large() {
        assert!(size_of::<Result<crate::Key, Box<Fault>>>() <= 3 * size_of::<u64>());
        assert!(
            size_of::<crate::Event>() <= 3 * size_of::<u64>(),
            "an event is passed in registers or nearly so"
        );
    }
}
