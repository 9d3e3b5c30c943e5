//! From a choice of road to a transport: open here, agree on terms, join.

pub(crate) mod card;
pub(crate) mod terms;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use selvedge_transport::{Acquaint, Caps, Fault, Peer};

use crate::discover::interface;
use crate::discover::spread;
use crate::discover::{Choice, Provider};
use crate::efa;
use crate::error::Error;
use crate::faults;
use crate::info::{Abilities, AddressFormat};
use crate::opening::card::Card;
use crate::opening::terms::Terms;
use crate::peers::lifeline::{Doorway, Lifelines};
use crate::peers::words::Words;
use crate::peers::{PEERS_MAX, Peers};
use crate::rail::{Plan, Rail};
use crate::settings::Settings;
use crate::sys;
use crate::transport::{Ofi, Parts};

/// Packet on TCP: a power of two, as messages like to be, and room for the engine's header before it. Without that room
/// 64 KiB leave as three packets, the last of a few bytes.
const TCP_PACKET_BYTES: usize = (32 << 10) + 64;

/// Memory for packets that come.
const RECEIVE_BYTES: usize = 4 << 20;

/// The same on TCP, where a socket that nobody empties holds its sender back. Slots are filled in turn, so little memory
/// stays in a core's cache, where the kernel's copy leaves what ours picks up: with 32 slots 64 KiB take 14.6 us one way, with
/// 128 slots 16.4.
const TCP_RECEIVE_BYTES: usize = 32 * TCP_PACKET_BYTES;

/// How long a provider may take to open an endpoint. It takes some ten milliseconds; a crowded host is no reason to take it for
/// dead.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Slots that stay posted when all others are on loan, so that packets of ours and completions get through; at most a quarter.
const RECEIVES_KEPT: usize = 32;

/// An endpoint that is open and receives, and that knows nobody yet.
#[derive(Debug)]
pub struct Opening {
    /// The home rail first.
    rails: Vec<Rail>,
    nics: Vec<String>,
    card: Card,
    me: Peer,
    plan: Plan,
    abilities: Abilities,
    doorway: Option<Doorway>,
    is_crowded: bool,
    name: &'static str,
}

impl Opening {
    /// Opens the road of `choice` as rank `me`. Cost: the memory of its packets (`RECEIVE_BYTES` and a quarter, 2 MiB on TCP) and
    /// what the provider itself takes.
    ///
    /// In a thread of its own, because a provider may never come back: that of libfabric 2.4 waits for itself when a
    /// device refuses to make a queue pair ready (seen). Such a thread is left behind.
    ///
    /// # Errors
    /// A [`Fault`] with what the provider or the kernel said, or that the provider has said nothing for ten seconds.
    pub fn open(choice: &Choice, me: Peer, settings: &Settings) -> Result<Opening, Box<Fault>> {
        let (choice, settings) = (choice.clone(), settings.clone());
        let (tell, told) = mpsc::channel();
        let open = move || {
            // Who has given up waiting is not told.
            let _ = tell.send(Opening::open_here(&choice, me, &settings));
        };
        let thread = thread::Builder::new().name("selvedge-open".to_owned()).spawn(open);
        let thread = thread.map_err(|error| faults::no_thread(&error))?;
        let opened = match told.recv_timeout(TIME_MAX) {
            Ok(opened) => opened,
            Err(RecvTimeoutError::Timeout) => return Err(faults::hangs(TIME_MAX)),
            Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(
                thread.join().expect_err("a thread that tells nothing has panicked"),
            ),
        };
        // It has nothing left to do but to end.
        let _ = thread.join();
        opened
    }

    fn open_here(choice: &Choice, me: Peer, settings: &Settings) -> Result<Opening, Box<Fault>> {
        let abilities = choice.abilities.clone();
        let packet_bytes = packet_bytes(choice);
        let plan = Plan::of(&abilities, packet_bytes, receive_bytes(choice));
        let (mut rails, mut nics, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        let order = match settings.rails.as_slice() {
            [] => {
                let nodes: Vec<_> = choice.nics.iter().map(|nic| nic.numa_node).collect();
                spread::order(&nodes, spread::own_node(), me.index())
            }
            given => given.to_vec(),
        };
        // Keys of two rails must fit what travels.
        let rails_max = if abilities.memory_key_bytes <= 4 { order.len() } else { 1 };
        for nic in order.into_iter().take(rails_max) {
            let name = &choice.nics[nic].name;
            // Of several the one that is broken has a name.
            let of_nic = |fault: Box<Fault>| match choice.nics.len() {
                1 => fault,
                _ => Box::new(Fault { detail: format!("{name}: {}", fault.detail), ..*fault }),
            };
            let mut rail = Rail::open(&choice.infos[nic], &plan).map_err(of_nic)?;
            let address = own_address(&mut rail, choice.provider.is_efa()).map_err(of_nic)?;
            addresses.push(address.into_boxed_slice());
            nics.push(name.clone());
            rails.push(rail);
        }
        // Beside EFA the doorway is a help, and where there is no IP network between the hosts it stays unused.
        let doorway = match ip_of(&abilities, &addresses[0]) {
            Some(ip) => Some(Doorway::open(ip).map_err(|error| faults::no_socket("the doorway", &error))?),
            None => interface::route().and_then(|ip| Doorway::open(ip).ok()),
        };
        // With one-sided operations asked for, what a provider says of its messages is said of these.
        let most = (choice.infos[0].abilities().datagram_bytes_max as u64).min(efa::ONE_SIDED_BYTES_MAX);
        let card = Card {
            provider: choice.provider.name().to_string(),
            key: random()?,
            packet_bytes_max: packet_bytes as u32,
            read_bytes_max: if abilities.one_sided_read { most } else { 0 },
            write_bytes_max: if abilities.one_sided_write { most } else { 0 },
            doorway: doorway.as_ref().map(Doorway::address),
            rails: addresses,
        };
        let (is_crowded, name) = (settings.is_crowded, choice.provider.name());
        Ok(Opening { rails, nics, card, me, plan, abilities, doorway, is_crowded, name })
    }

    /// What other ranks need to reach this one, and what it brings to their common secret: for the job's own ranks only.
    pub fn card(&self) -> Vec<u8> {
        self.card.to_bytes()
    }

    /// The transport, for a job so small that everybody has all cards. `cards` are those of all peers by index, our own among
    /// them; empty for a peer that is never reached by this road. Nothing is sent yet.
    ///
    /// # Errors
    /// A [`Fault`] of the first peer whose card does not fit ours.
    pub fn connect(self, cards: Vec<Vec<u8>>) -> Result<Ofi, Box<Fault>> {
        let terms = Terms::of(&cards)?;
        let unreached = (0..).map(Peer).zip(&cards).filter(|(_, card)| card.is_empty());
        let mut ofi = self.join(&terms, cards.len(), unreached.map(|(peer, _)| peer).collect())?;
        for (peer, card) in (0..).map(Peer).zip(cards).filter(|(_, card)| !card.is_empty()) {
            ofi.introduce(peer, Ok(&card));
            if let Some(fault) = ofi.peers.fault(peer) {
                return Err(fault);
            }
        }
        Ok(ofi)
    }

    /// The transport, on the terms that all ranks of the job have agreed upon. Of the `peers` those in `unreached` are never
    /// reached by this road; the cards of all others are wanted when there is something to do with them
    /// ([`Acquaint::stranger`]). Nothing is sent yet.
    ///
    /// What the road can do is what the terms say, so that both ends of a pair see the same.
    ///
    /// # Errors
    /// A [`Fault`] of this process: no memory, no descriptor.
    pub fn join(self, terms: &Terms, peers: usize, unreached: Vec<Peer>) -> Result<Ofi, Box<Fault>> {
        assert!(peers <= PEERS_MAX, "{peers} peers");
        let Opening { rails, nics, card, me, plan, abilities, doorway, is_crowded, name } = self;
        let packet_bytes_max = terms.packet_bytes_max as usize;
        let caps = Caps {
            name,
            packet_bytes_max,
            inline_bytes_max: plan.inject_bytes_max.min(packet_bytes_max),
            slots_max: plan.receives - RECEIVES_KEPT.min(plan.receives / 4),
            read_bytes_max: terms.read_bytes_max,
            write_bytes_max: terms.write_bytes_max,
            one_sided_max: plan.one_sided,
        };
        let lines = match doorway {
            Some(_) => Some(
                Lifelines::new(lines_max())
                    .map_err(|error| faults::no_socket("lines to the peers", &error))?,
            ),
            None => None,
        };
        let own =
            Ofi::own_slots(packet_bytes_max).map_err(|error| faults::no_memory(packet_bytes_max, error))?;
        let is_efa = abilities.address == AddressFormat::Efa;
        let data_bytes = abilities.immediate_bytes.min(if is_efa { efa::IMMEDIATE_BYTES } else { 8 });
        let has_several = terms.rails_max > 1;
        let words = Words::new(terms.secret, data_bytes);
        Ok(Ofi::new(Parts {
            peers: Peers::new(me, peers, unreached, has_several, words),
            has_several,
            provider: card.provider,
            is_efa,
            rails,
            nics,
            caps,
            me,
            doorway,
            lines,
            own,
            abilities,
            is_crowded,
        }))
    }
}

/// The address of a rail, which its own device takes. An EFA device that refuses the addresses of peers refuses its own as
/// well, and is better found out before the job has begun to use it.
fn own_address(rail: &mut Rail, is_efa: bool) -> Result<Vec<u8>, Box<Fault>> {
    let failed = |error: Error| faults::not_opened(&error, is_efa);
    let endpoint = rail.endpoint();
    let address = endpoint.address().map_err(failed)?;
    if is_efa {
        let (taken, heard) = sys::hear(|| endpoint.addresses().insert(&address));
        taken.map_err(|error| failed(error.because(&heard)))?;
    }
    Ok(address)
}

/// Memory for packets that come.
fn receive_bytes(choice: &Choice) -> usize {
    match choice.provider {
        Provider::Tcp => TCP_RECEIVE_BYTES,
        Provider::EfaDirect | Provider::Efa => RECEIVE_BYTES,
    }
}

/// The largest packet of the engine.
fn packet_bytes(choice: &Choice) -> usize {
    let datagram = choice.abilities.datagram_bytes_max;
    match choice.provider {
        Provider::Tcp => TCP_PACKET_BYTES.min(datagram),
        Provider::EfaDirect => datagram,
        // So that the provider's own eager protocol makes one datagram of each packet.
        Provider::Efa => {
            let mtu = choice.nics.iter().filter_map(|nic| nic.mtu_bytes).min();
            mtu.unwrap_or(efa::DATAGRAM_BYTES_LEAST) - efa::HEADER_BYTES_MAX
        }
    }
}

/// The address of the host in the address of an endpoint over sockets; `None` for others.
fn ip_of(abilities: &Abilities, address: &[u8]) -> Option<IpAddr> {
    // struct sockaddr_in: family, port, address; struct sockaddr_in6: family, port, flow label, address.
    match abilities.address {
        AddressFormat::Ipv4 => {
            let octets: [u8; 4] = address.get(4..8)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        AddressFormat::Ipv6 => {
            let octets: [u8; 16] = address.get(8..24)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        AddressFormat::Efa | AddressFormat::Other(_) => None,
    }
}

/// Bytes that nobody can guess.
fn random() -> Result<[u8; 16], Box<Fault>> {
    let mut bytes = [0; 16];
    // So few come at once, and are not interrupted (getrandom(2)).
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(16) => Ok(bytes),
        Ok(_) => Err(faults::no_random(rustix::io::Errno::INTR)),
        Err(error) => Err(faults::no_random(error)),
    }
}

/// Lines to peers that may be open: a quarter of the descriptors that this process may have. The provider takes as many for its
/// connections, and half are left to the program.
fn lines_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |most| most as usize / 4)
}
