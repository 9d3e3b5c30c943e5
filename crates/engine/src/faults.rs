//! Who is told what when something is wrong with the world.
//!
//! A peer that fails takes along every operation that depends on it: sends to it, receives from it, rendezvous in
//! flight, and receives from anyone that are posted, because the message they wait for may have been its. Later
//! operations with it fail at once. Later receives from anyone fail as well, until the owner of the engine has taken
//! note with [`Engine::take_faults`] (as MPI_ERR_PROC_FAILED_PENDING and MPI_Comm_ack_failed of the User Level Failure
//! Mitigation proposal do).
//!
//! A peer that leaves in order takes along what depends on it and nobody else: all it ever sent is here, so no receive
//! from anyone has lost a message by it, and there is nothing to take note of.
//!
//! Either way a whole message that is here stays here until it is received; one that was only announced, or of which
//! parts are missing, is lost.
//!
//! One thing must not be hurried: memory that is open to a peer which is confused but alive. It is given back when that
//! peer has said its last word about it, or is gone.

use std::collections::BTreeMap;

use selvedge_transport::{Cause, Fault, Peer, Scope, Transport};

use crate::Engine;
use crate::config::Mutant;
use crate::message::Failure;
use crate::peers::flag;
use crate::request::{PostedReceive, Request, RequestId, SendStage};
use crate::wire::{Malformed, VERSION};

/// Faults with scope `Local` that are kept for [`Engine::take_faults`]; older ones make room. Those of peers are
/// bounded by the number of peers.
const LOCAL_FAULTS_MAX: usize = 64;

/// Faults seen so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The first of each peer.
    by_peer: BTreeMap<Peer, Box<Fault>>,
    /// Those nobody has taken.
    fresh: Vec<Fault>,
    /// The latest of a peer among `fresh`: what a receive from anyone is told that would have to wait.
    wildcards_hopeless: Option<Box<Fault>>,
}

impl Faults {
    #[inline]
    pub(crate) fn any(&self) -> bool {
        !self.by_peer.is_empty()
    }

    /// The fault of a peer that has one.
    pub(crate) fn of(&self, peer: Peer) -> Box<Fault> {
        self.by_peer.get(&peer).expect("the peer is marked faulty").clone()
    }
}

impl<T: Transport> Engine<T> {
    /// What went wrong since this was last asked, each fault once. Asking is taking note: receives from anyone are
    /// possible again, and it is now the caller's knowledge that some message will never come. A peer that left in
    /// order is nothing that went wrong.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        self.faults.wildcards_hopeless = None;
        std::mem::take(&mut self.faults.fresh)
    }

    /// Of what [`Engine::take_faults`] would give, what is wrong on this side and with no peer: a device that was left, say. It
    /// is worth telling a person, and changes nothing for any operation. Cost: a load while nothing is wrong.
    pub fn take_local_faults(&mut self) -> Vec<Fault> {
        if self.faults.fresh.is_empty() {
            return Vec::new();
        }
        self.faults.fresh.extract_if(.., |fault| fault.scope == Scope::Local).collect()
    }

    /// Whether anything was ever wrong with a peer, or one has left. Cost: a load.
    #[inline]
    pub fn has_faulty_peers(&self) -> bool {
        self.faults.any()
    }

    /// What is wrong with a peer that operations fail with, if anything is.
    pub fn fault_of(&self, peer: Peer) -> Option<&Fault> {
        self.faults.by_peer.get(&peer).map(|fault| &**fault)
    }

    /// Why a receive or a probe that finds no message would wait in vain.
    #[cold]
    pub(crate) fn hopeless(&self, source: Option<Peer>) -> Option<Box<Fault>> {
        match source {
            Some(peer) => self.peers.has(peer, flag::FAULTY).then(|| self.faults.of(peer)),
            None => self.faults.wildcards_hopeless.clone(),
        }
    }

    /// Something is wrong with the world.
    #[cold]
    pub(crate) fn on_fault(&mut self, fault: Box<Fault>) {
        let Scope::Peer(peer) = fault.scope else {
            let locals = self.faults.fresh.iter().filter(|fault| fault.scope == Scope::Local).count();
            if locals >= LOCAL_FAULTS_MAX
                && let Some(oldest) = self.faults.fresh.iter().position(|fault| fault.scope == Scope::Local)
            {
                self.faults.fresh.remove(oldest);
            }
            return self.faults.fresh.push(*fault);
        };
        let gone = !matches!(fault.cause, Cause::Malformed | Cause::Version);
        let news = flag::FAULTY | if gone { flag::GONE } else { 0 };
        let state = self.peers.get_mut(peer);
        let known = state.flags;
        if known & news == news {
            return;
        }
        // Nobody returns credit any more; what is queued is skipped or dropped when its turn comes.
        state.flags = (known | news) & !flag::BLOCKED;
        self.peers.make_ready(peer);
        let anyone_too = known & flag::FAULTY == 0 && fault.cause != Cause::PeerLeft;
        if anyone_too {
            self.faults.fresh.push((*fault).clone());
            self.faults.wildcards_hopeless = Some(fault.clone());
        }
        self.faults.by_peer.insert(peer, fault.clone());
        let anyone_told = anyone_too && self.mutant != Some(Mutant::WildcardsNotTold)
            || self.mutant == Some(Mutant::WildcardsToldOfLeaving);
        self.fail_dependents(peer, &fault, gone, anyone_told);
    }

    /// Ends what depends on `peer`. Cost: one pass over the operations in flight.
    fn fail_dependents(&mut self, peer: Peer, fault: &Fault, gone: bool, wildcards_too: bool) {
        let depends = |request: &Request| match request {
            Request::Posted(PostedReceive { source, .. }) => {
                source.map_or(wildcards_too, |source| source == peer)
            }
            Request::PostedScattered(both) => both.0.source.map_or(wildcards_too, |source| source == peer),
            Request::Send(send) => send.to == peer,
            Request::Pull(pull) => pull.envelope.source == peer,
            Request::Arriving(arriving) => arriving.envelope.source == peer,
        };
        let dependents: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| depends(request)).map(|(id, _)| id).collect();
        for id in dependents {
            self.fail(id, fault, gone);
        }
    }

    fn fail(&mut self, id: RequestId, fault: &Fault, gone: bool) {
        let boxed = || Box::new(fault.clone());
        match self.requests.get_mut(id) {
            None => {}
            Some(request @ (Request::Posted(_) | Request::PostedScattered(_))) => {
                if let Some(&PostedReceive { posted, user, .. }) = request.posted() {
                    self.matching.withdraw(posted);
                    self.finish(id, user, Err(Failure::Fault(boxed())));
                }
            }
            Some(Request::Send(send)) => match &mut send.stage {
                SendStage::Writing(_) | SendStage::Offered if !gone && send.exposed.is_some() => {}
                SendStage::Writing(write) => {
                    write.pieces.fault = Some(boxed());
                    self.settle_write(id);
                }
                SendStage::Queued
                | SendStage::Offered
                | SendStage::Unmatched
                | SendStage::Train(_)
                | SendStage::Window(_) => {
                    let (user, to, exposed) = (send.user, send.to, send.exposed.take());
                    exposed.into_iter().for_each(|key| self.transport.deregister(key, to));
                    self.finish(id, user, Err(Failure::Fault(boxed())));
                }
            },
            Some(Request::Pull(pull)) if !gone && pull.lent.is_some() => {}
            Some(Request::Pull(pull)) => {
                pull.reads.fault = Some(boxed());
                self.settle_pull(id);
            }
            Some(Request::Arriving(arriving)) => {
                let user = arriving.user;
                self.finish(id, user, Err(Failure::Fault(boxed())));
            }
        }
    }

    /// Bytes arrived that are no packet.
    #[cold]
    pub(crate) fn on_malformed(&mut self, from: Peer, malformed: &Malformed) {
        let (cause, next_step) = match malformed {
            Malformed::Version(_) => (Cause::Version, "start all ranks with the same build of the program"),
            _ => (Cause::Malformed, "look for memory corruption in that process, or for a foreign sender"),
        };
        self.blame(from, cause, format!("sent {malformed} (ours is version {VERSION})"), next_step);
    }

    /// A well-formed packet arrived that says something impossible.
    #[cold]
    pub(crate) fn on_impossible(&mut self, from: Peer, what: &str) {
        let next_step = "check that all ranks run the same build with the same configuration";
        self.blame(from, Cause::Malformed, format!("sent {what}"), next_step);
    }

    fn blame(&mut self, from: Peer, cause: Cause, detail: String, next_step: &'static str) {
        if self.peers.has(from, flag::GONE) {
            // What the dead had sent may arrive after what it was about has ended.
            return;
        }
        self.stats.malformed += 1;
        self.on_fault(Box::new(Fault { scope: Scope::Peer(from), cause, age: None, detail, next_step }));
    }
}
