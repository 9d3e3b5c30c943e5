//! The devices of this process: made once from the environment, shown as files, gone with the process.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::time::ClockId;

use crate::abi::{access, caps};
use crate::counters::Counters;
use crate::fail::Failures;
use crate::net::Socket;
use crate::settings::{Limits, Settings};
use crate::srd::{Gid, Nanos};
use crate::tree::{Shown, Tree, pci_addresses};

/// UDP port of queue pair 0 of device 0. The ports of a device are one row, so that a queue pair's number, taken modulo the
/// number of queue pairs, is unique on the device (the provider's table needs that), and so that the card's limit holds
/// for all processes that share it: a port taken is a queue pair taken. Below the kernel's own range (32768 and up).
const FIRST_PORT: u16 = 0x4000;

/// A device before it is opened.
#[derive(Debug)]
pub struct Card {
    /// Its name, `softefa0` and so on.
    pub name: String,
    /// Its address.
    pub gid: Gid,
    /// Its folder in the tree.
    pub folder: PathBuf,
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// What is shown of that in the tree.
    shown: Mutex<Vec<u64>>,
    first_port: u16,
    /// How many queue pairs this process has made; where the next looks first for a free number.
    made: AtomicU64,
}

/// The devices of this process and what they have in common.
#[derive(Debug)]
pub struct Devices {
    /// What was asked for.
    pub settings: Settings,
    /// The devices.
    pub cards: Vec<Arc<Card>>,
    /// Calls that are to fail.
    pub failures: Failures,
    tree: Tree,
    epochs: AtomicU64,
    began: Nanos,
}

impl Devices {
    /// Those of this process, made when they are first asked for. `None` where the settings cannot be understood or the
    /// tree cannot be written; standard error says why.
    pub fn of_process() -> Option<&'static Devices> {
        static DEVICES: OnceLock<Option<Devices>> = OnceLock::new();
        let made = DEVICES.get_or_init(|| match Devices::from_environment() {
            Ok(devices) => Some(devices),
            Err(error) => {
                eprintln!("softefa: no device: {error}");
                None
            }
        });
        made.as_ref()
    }

    fn from_environment() -> Result<Devices, Box<dyn std::error::Error>> {
        let settings = Settings::read(&|name| std::env::var(name).ok())?;
        let label = settings.host.to_string();
        let tree = Tree::new(settings.tree.as_deref(), &label)
            .map_err(|error| format!("the tree of the devices cannot be written: {error}"))?;
        let mut pci = settings.pci.clone();
        pci.extend(pci_addresses(usize::from(settings.devices)));
        let mut cards = Vec::new();
        for index in 0..settings.devices {
            let card = Card::new(index, &settings, &tree);
            let shown = Shown {
                name: &card.name,
                gid: card.gid,
                pci: &pci[usize::from(index)],
                limits: &settings.limits,
            };
            tree.add(&shown)?;
            cards.push(Arc::new(card));
        }
        let failures = Failures::new(&settings.fail);
        // Numbers of queue pairs come back, in this process or the next, and must not be taken for their predecessors.
        let start = monotonic() ^ u64::from(std::process::id()) << 40;
        let devices =
            Devices { cards, failures, tree, epochs: AtomicU64::new(start), began: monotonic(), settings };
        // A card has its counters from the start, at zero: who takes differences needs them.
        devices.publish();
        Ok(devices)
    }

    /// Nanoseconds since the devices were made.
    pub fn now(&self) -> Nanos {
        monotonic() - self.began
    }

    /// A number that no queue pair of this address had before, as good as that can be known; never 0.
    pub fn next_epoch(&self) -> u32 {
        loop {
            let mixed = mix(self.epochs.fetch_add(1, Ordering::Relaxed));
            if mixed as u32 != 0 {
                return mixed as u32;
            }
        }
    }

    /// The seed of one queue pair's faults: the same for the same seed, host, device and how many came before it.
    pub fn seed_of(&self, card: &Card, before: u64) -> u64 {
        let host = self.settings.host_index as u64;
        mix(self.settings.seed ^ mix(host << 32 | u64::from(card.gid.device()) << 24 | before))
    }

    /// Access bits that memory of these devices can have.
    pub fn access(&self) -> u32 {
        let has = |cap, bit| if self.settings.limits.caps & cap != 0 { bit } else { 0 };
        access::LOCAL_WRITE
            | has(caps::RDMA_READ, access::REMOTE_READ)
            | has(caps::RDMA_WRITE, access::REMOTE_WRITE)
    }

    /// Whether this pass of the place called `name` is to fail.
    pub fn strikes(&self, name: &str) -> bool {
        let strikes = self.failures.strike(name);
        if self.settings.trace {
            let end = if strikes { " (fails on purpose)" } else { "" };
            eprintln!("softefa: {} {name}{end}", self.settings.host);
        }
        strikes
    }

    /// Folder that stands for `/sys`.
    pub fn sysfs(&self) -> &std::path::Path {
        self.tree.root()
    }

    /// Packets of all devices so far: whether there is anything new to show.
    pub fn traffic(&self) -> u64 {
        self.cards.iter().map(|card| card.counters.tx_pkts.get() + card.counters.rx_pkts.get()).sum()
    }

    /// Brings the counters in the tree up to date. A tree that is gone (the run is over) is no error.
    pub fn publish(&self) {
        for card in &self.cards {
            let _ = self.tree.show(&card.name, card.counters.iter(), &card.shown);
        }
    }

    /// The process ends: the counters have their last values, and a tree that was temporary is gone.
    pub fn end(&self) {
        self.publish();
        self.tree.remove();
    }
}

impl Card {
    fn new(index: u16, settings: &Settings, tree: &Tree) -> Card {
        let name = format!("softefa{index}");
        let first_port = FIRST_PORT + index * settings.limits.queue_pairs_max;
        Card {
            folder: tree.device(&name),
            name,
            gid: Gid::new(settings.host, index),
            counters: Arc::default(),
            shown: Mutex::default(),
            first_port,
            made: AtomicU64::new(0),
        }
    }

    /// A socket under a free queue pair number, and how many queue pairs this process made before. `None` when all numbers
    /// of the card are taken, in this or other processes.
    pub fn bind(&self, limits: &Limits) -> Option<(Socket, u16, u64)> {
        let before = self.made.fetch_add(1, Ordering::Relaxed);
        let host = self.gid.host()?;
        let count = u64::from(limits.queue_pairs_max);
        // Processes begin at different places, and a number that was just given back is the last to be tried.
        let start = u64::from(std::process::id()) * 16 + before;
        let numbers = (0..count).map(|step| self.first_port + ((start + step) % count) as u16);
        for number in numbers {
            match Socket::bind(SocketAddrV4::new(host, number)) {
                Ok(socket) => return Some((socket, number, before)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    eprintln!("softefa: {}: no socket at {host}:{number}: {error}", self.name);
                    return None;
                }
            }
        }
        None
    }
}

/// The clock of everything here.
fn monotonic() -> Nanos {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// SplitMix64's last step: neighbouring numbers become far ones. Steele, Lea and Flood, OOPSLA 2014, figure 17.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A lock whose holder never panics while what it protects is half done.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
