//! Which roads to other hosts there are here, and for each that is not, why.
//!
//! Everything is asked of libfabric and read back ([`Abilities`]); the kernel is asked only where libfabric's answer has no
//! reason in it.

pub(crate) mod devices;
pub(crate) mod interface;
pub(crate) mod spread;
pub(crate) mod steps;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::discover::devices::{Devices, Trouble};
use crate::discover::interface::{Offer, Wanted};
use crate::environment;
use crate::error::Error;
use crate::info::{Abilities, Hints, Info, Nic};
use crate::load::Library;
use crate::settings::Settings;
use crate::sys::{self, Heard};

/// A road to other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// The EFA device with as little of libfabric in between as there can be; since libfabric 2.1.
    EfaDirect,
    /// The EFA device with libfabric's own protocol on top.
    Efa,
    /// Sockets.
    Tcp,
}

impl Provider {
    /// All, the best first.
    pub const ALL: [Provider; 3] = [Provider::EfaDirect, Provider::Efa, Provider::Tcp];

    /// Its name in reports and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Provider::EfaDirect => "efa-direct",
            Provider::Efa => "efa",
            Provider::Tcp => "tcp",
        }
    }

    /// Whether it needs an EFA device.
    pub fn is_efa(self) -> bool {
        self != Provider::Tcp
    }

    /// Whether a value of `FI_PROVIDER` leaves it out.
    pub(crate) fn is_left_out_by(self, list: &str) -> bool {
        self.names_in_libfabric().iter().all(|name| environment::is_excluded(list, name))
    }

    /// What libfabric calls it, the best first. Sockets have had several: `tcp` alone has reliable datagrams since 1.18;
    /// before that it was `net`, under trial, and `tcp` under a layer that makes datagrams of connections.
    fn names_in_libfabric(self) -> &'static [&'static str] {
        match self {
            Provider::EfaDirect | Provider::Efa => &["efa"],
            // In 1.17, 8 bytes one way on the loop take 3.7 us by `net` and 5.7 by `ofi_rxm`; a stream of packets of 32 KiB has
            // 4.9 and 0.8 GB/s.
            Provider::Tcp => &["tcp", "net", "tcp;ofi_rxm"],
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = ();

    fn from_str(name: &str) -> Result<Provider, ()> {
        Provider::ALL.into_iter().find(|provider| provider.name() == name).ok_or(())
    }
}

/// A road that can be taken here.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which.
    pub provider: Provider,
    /// What libfabric calls it, layers included: `tcp;ofi_rxm`.
    pub provider_name: String,
    /// The library that has it.
    pub library: Library,
    /// The devices it goes by, one rail for each, by name.
    pub nics: Vec<Nic>,
    /// What it can do; where devices differ, what all of them can.
    pub abilities: Abilities,
    /// What should be known about it: it works, and could be better.
    pub notes: Vec<Trouble>,
    /// How each device is opened, in the order of `nics`.
    pub(crate) infos: Vec<Info>,
}

/// A road, or one device of it, that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which road.
    pub provider: Provider,
    /// The device, where it is about one of several.
    pub nic: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        if let Some(nic) = &self.nic {
            write!(f, " on {nic}")?;
        }
        write!(f, ": {}; {}", self.reason, self.remedy)
    }
}

/// What there is and what there is not.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Roads that can be taken, in the order they were wanted.
    pub usable: Vec<Choice>,
    /// The others.
    pub refused: Vec<Refusal>,
}

/// Looks for the `wanted` roads. Opens no endpoint; the first call in a process starts the providers, which takes some ten
/// milliseconds on EFA.
///
/// ```no_run
/// use selvedge_ofi::{Library, Provider, Settings, discover};
///
/// let library = Library::open(None)?;
/// let found = discover(&library, &Provider::ALL, &Settings::default());
/// for choice in &found.usable {
///     println!("{} by {:?}", choice.provider, choice.nics.iter().map(|nic| &nic.name).collect::<Vec<_>>());
/// }
/// for refusal in &found.refused {
///     println!("not {refusal}");
/// }
/// # Ok::<(), selvedge_ofi::LoadError>(())
/// ```
pub fn discover(library: &Library, wanted: &[Provider], settings: &Settings) -> Discovery {
    let search = Search { library, settings, root: Path::new("/") };
    let mut discovery = Discovery::default();
    for &provider in wanted {
        match search.provider(provider, &mut discovery.refused) {
            Ok(choice) => discovery.usable.push(choice),
            Err(Trouble { reason, remedy }) => {
                discovery.refused.push(Refusal { provider, nic: None, reason, remedy });
            }
        }
    }
    discovery
}

struct Search<'a> {
    library: &'a Library,
    settings: &'a Settings,
    root: &'a Path,
}

impl Search<'_> {
    fn provider(&self, provider: Provider, refused: &mut Vec<Refusal>) -> Result<Choice, Trouble> {
        if let Ok(list) = std::env::var("FI_PROVIDER")
            && provider.is_left_out_by(&list)
        {
            return Err(Trouble::new(format!("FI_PROVIDER={list} leaves it out"), "unset FI_PROVIDER"));
        }
        match provider {
            Provider::EfaDirect => self.efa_direct(refused),
            Provider::Efa => self.efa(refused),
            Provider::Tcp => self.tcp(),
        }
    }

    fn efa_direct(&self, refused: &mut Vec<Refusal>) -> Result<Choice, Trouble> {
        const SINCE: (u32, u32) = (2, 1);
        let (major, minor) = self.library.version();
        if (major, minor) < SINCE {
            return Err(Trouble::new(
                format!("libfabric {major}.{minor} at {} is older than 2.1", self.library.path().display()),
                "install the EFA installer's libfabric, or name a newer one with SELVEDGE_LIBFABRIC",
            ));
        }
        // Without one-sided operations the largest message is the device's datagram; with them it reads as the largest
        // read (seen in 2.4 to 2.6). So both are asked for, and the truth is in both.
        let plain = self.ask_efa("efa-direct", sys::FI_MSG)?;
        let (with_rma, heard) = self.query_efa("efa-direct", sys::FI_MSG | sys::FI_RMA);
        let with_rma = with_rma.unwrap_or_default();
        let offers = plain
            .into_iter()
            .map(|plain| {
                let datagram = plain.abilities().datagram_bytes_max;
                let better = with_rma.iter().find(|info| info.domain_name() == plain.domain_name());
                let info = better.cloned().unwrap_or(plain);
                let abilities = Abilities { datagram_bytes_max: datagram, ..info.abilities() };
                (info, abilities)
            })
            .collect();
        self.by_devices(Provider::EfaDirect, offers, sys::complaint(&heard), refused)
    }

    fn efa(&self, refused: &mut Vec<Refusal>) -> Result<Choice, Trouble> {
        let infos =
            self.ask_efa("efa", sys::FI_MSG | sys::FI_RMA).or_else(|_| self.ask_efa("efa", sys::FI_MSG))?;
        let with_abilities = |info: Info| {
            let abilities = info.abilities();
            (info, abilities)
        };
        let offers = infos.into_iter().map(with_abilities).collect();
        self.by_devices(Provider::Efa, offers, None, refused)
    }

    /// The offers of one fabric of the efa provider, one for each device, by name. At least one.
    fn ask_efa(&self, fabric: &str, caps: u64) -> Result<Vec<Info>, Trouble> {
        let (answer, heard) = self.query_efa(fabric, caps);
        let infos = answer.map_err(|said| self.why_no_efa(fabric, &said, &heard))?;
        if infos.is_empty() {
            return Err(Trouble::new(format!("the efa provider offers no fabric {fabric}"), LOOK_CLOSER));
        }
        Ok(infos)
    }

    /// The same with whatever came of it, and what the provider said meanwhile.
    fn query_efa(&self, fabric: &str, caps: u64) -> (Result<Vec<Info>, Error>, Vec<Heard>) {
        self.library.start();
        let hints = Hints { fabric: Some(fabric), ..hints("efa", caps) };
        let (mut answer, heard) = sys::hear(|| Info::query(self.library, &hints));
        if let Ok(infos) = &mut answer {
            infos.retain(|info| info.fabric_name() == fabric);
            infos.sort_by_key(Info::domain_name);
            // The provider's favourite of each device comes first; the sort keeps that.
            infos.dedup_by_key(|info| info.domain_name());
        }
        (answer, heard)
    }

    /// Makes a choice of the devices that are wanted and up.
    fn by_devices(
        &self,
        provider: Provider,
        offers: Vec<(Info, Abilities)>,
        without_rma_because: Option<String>,
        refused: &mut Vec<Refusal>,
    ) -> Result<Choice, Trouble> {
        let mut choice: Option<Choice> = None;
        let there: Vec<String> = offers.iter().map(|(info, _)| info.domain_name()).collect();
        for (info, abilities) in offers {
            let nic = self.nic(&info);
            if let Some(Trouble { reason, remedy }) = self.not_this(&nic) {
                refused.push(Refusal { provider, nic: Some(nic.name), reason, remedy });
                continue;
            }
            match &mut choice {
                None => choice = Some(self.choice(provider, nic, info, abilities)),
                Some(choice) => {
                    choice.abilities = choice.abilities.common(&abilities);
                    choice.nics.push(nic);
                    choice.infos.push(info);
                }
            }
        }
        let mut choice = choice.ok_or_else(|| {
            Trouble::new(
                format!("none of its devices can be used: {}", there.join(", ")),
                "see the reasons of each",
            )
        })?;
        if !choice.abilities.one_sided_read {
            let because = without_rma_because.map_or_else(String::new, |reason| format!(" ({reason})"));
            choice.notes.push(Trouble::new(
                format!("no RDMA read: large messages go in datagrams{because}"),
                "nothing to do on devices of the first generation; else use the EFA installer's libfabric",
            ));
        }
        Ok(choice)
    }

    fn choice(&self, provider: Provider, nic: Nic, info: Info, abilities: Abilities) -> Choice {
        Choice {
            provider,
            provider_name: info.provider_name(),
            library: self.library.clone(),
            nics: vec![nic],
            abilities,
            notes: Vec::new(),
            infos: vec![info],
        }
    }

    /// Why a device is not to be used.
    fn not_this(&self, nic: &Nic) -> Option<Trouble> {
        let named = |wanted: &String| *wanted == nic.name || Some(wanted) == nic.device.as_ref();
        if !self.settings.devices.is_empty() && !self.settings.devices.iter().any(named) {
            return Some(Trouble::new(
                "it is not among the devices that were asked for",
                "ask for it, or for none",
            ));
        }
        if nic.link_up == Some(false) {
            return Some(Trouble::new(
                "its link is down",
                "look at: rdma link show, and at the instance's network interfaces",
            ));
        }
        None
    }

    /// The device, with what the kernel knows.
    fn nic(&self, info: &Info) -> Nic {
        let mut nic = info.nic();
        nic.numa_node = nic.pci.as_deref().and_then(|pci| devices::numa_node(self.root, pci));
        nic
    }

    fn tcp(&self) -> Result<Choice, Trouble> {
        let wanted = self.settings.interface.as_deref().map(Wanted::of);
        let mut said = None;
        for name in Provider::Tcp.names_in_libfabric() {
            match self.ask_tcp(name, wanted.as_ref()) {
                Ok(infos) if infos.is_empty() => {}
                Ok(infos) => return self.by_interface(infos, wanted.as_ref()),
                Err(error) => said = said.or(Some(error)),
            }
        }
        let reason = match (said, &self.settings.interface) {
            (Some(error), Some(interface)) => format!("nothing for the interface {interface}: {error}"),
            (Some(error), None) => error.to_string(),
            (None, _) => "this libfabric has no provider over sockets with reliable datagrams".to_owned(),
        };
        Err(Trouble::new(reason, "look at: fi_info -p tcp, and at the interfaces with: ip address"))
    }

    /// The offers of one provider over sockets.
    fn ask_tcp(&self, name: &str, wanted: Option<&Wanted>) -> Result<Vec<Info>, Error> {
        // An address is asked for, because not every address of the host is listed; a name is looked for in the list.
        let source = match wanted {
            Some(Wanted::Address(address)) => Some(address.to_string()),
            _ => None,
        };
        let hints = Hints { source: source.as_deref(), ..hints(name, sys::FI_MSG | sys::FI_RMA) };
        let mut infos = Info::query(self.library, &hints)?;
        infos.retain(|info| info.provider_name() == name);
        Ok(infos)
    }

    fn by_interface(&self, mut infos: Vec<Info>, wanted: Option<&Wanted>) -> Result<Choice, Trouble> {
        let offer = |nic: Nic| Offer { interface: nic.name, address: nic.address };
        let offers: Vec<Offer> = infos.iter().map(|info| offer(info.nic())).collect();
        let index = interface::choose(&offers, wanted, interface::route())
            .map_err(|reason| Trouble::new(reason, "name an interface of this host, by name or address"))?;
        let info = infos.swap_remove(index);
        let mut nic = self.nic(&info);
        let (pci, speed, driver) = devices::interface(self.root, &nic.name);
        nic.pci = nic.pci.or(pci);
        // Providers over sockets make up a speed where the kernel knows none (seen in 2.4).
        nic.link_bits_per_second = speed;
        nic.driver = nic.driver.or(driver);
        nic.numa_node = nic.pci.as_deref().and_then(|pci| devices::numa_node(self.root, pci));
        let on_this_host_only = nic.address.is_some_and(|address| address.is_loopback());
        let abilities = info.abilities();
        let mut choice = self.choice(Provider::Tcp, nic, info, abilities);
        if on_this_host_only && wanted.is_none() {
            choice.notes.push(Trouble::new(
                "no interface leads to other hosts: tcp reaches ranks of this host only",
                "bring an interface up, or name it",
            ));
        }
        Ok(choice)
    }

    /// Finds the reason behind an empty answer of libfabric: `said` by it, and `heard` from its providers meanwhile.
    fn why_no_efa(&self, fabric: &str, said: &Error, heard: &[Heard]) -> Trouble {
        if let Some(plug_in) = self.library.plug_ins().iter().find(|plug_in| plug_in.is_efa())
            && let Some(refused) = &plug_in.refused
        {
            return Trouble::new(
                format!("the efa provider at {} does not load: {refused}", plug_in.path.display()),
                "install rdma-core (Debian: libibverbs1 and ibverbs-providers; on EC2 run the EFA installer)",
            );
        }
        let start = self.library.start();
        let has_provider = start.providers.iter().any(|name| name == "efa");
        if !has_provider && !self.library.knows_efa() {
            return Trouble::new(
                format!(
                    "the libfabric at {} was built without the efa provider",
                    self.library.path().display()
                ),
                "use the EFA installer's libfabric, or name another with SELVEDGE_LIBFABRIC",
            );
        }
        // A provider that complains has seen a device. Of one that was never there it says nothing.
        let of_efa = start.heard.iter().chain(heard).filter(|heard| heard.provider == "efa");
        if let Some(complaint) = sys::complaint(of_efa) {
            let (step, remedy) = steps::of_complaint(&complaint);
            let step = step.map_or_else(String::new, |step| format!("{step}: "));
            return Trouble::new(format!("the efa provider cannot offer it: {step}{complaint}"), remedy);
        }
        let found = Devices::look(self.root);
        if let Some(mut trouble) = found.trouble() {
            if let Some(other) = found.foreign().next() {
                trouble.reason =
                    format!("{}; {} is a verbs device of another maker", trouble.reason, other.name);
            }
            return trouble;
        }
        Trouble::new(format!("the efa provider offers no {fabric}: {said}"), LOOK_CLOSER)
    }
}

/// What to do when the reason is the provider's secret.
const LOOK_CLOSER: &str = "run it again with FI_LOG_LEVEL=info FI_LOG_PROV=efa to see what the provider says";

/// What we ask of every provider: that which the transport can do without is not in here.
fn hints(provider: &str, caps: u64) -> Hints<'_> {
    Hints {
        provider,
        caps,
        // We give every operation 64 bytes of its own, whether they are asked for or not. And a write with immediate data may
        // take a receive, because nobody sends us one; without that efa-direct has no one-sided operations at all where
        // rdma-core or the device is older than such writes without a receive (seen in 2.5).
        mode: sys::FI_CONTEXT | sys::FI_CONTEXT2 | sys::FI_RX_CQ_DATA,
        mr_mode: sys::FI_MR_LOCAL | sys::FI_MR_VIRT_ADDR | sys::FI_MR_ALLOCATED | sys::FI_MR_PROV_KEY,
        // One thread at a time, so locks can be left out.
        threading: sys::FI_THREAD_DOMAIN,
        // Things move when we poll. Those that move by themselves (efa-direct) are content with that; for the others
        // "automatic" would be a thread that competes with ours.
        progress: sys::FI_PROGRESS_MANUAL,
        ..Hints::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library() -> Library {
        let given = std::env::var_os("SELVEDGE_LIBFABRIC").map(std::path::PathBuf::from);
        Library::open(given.as_deref()).unwrap_or_else(|error| panic!("install libfabric1: {error}"))
    }

    fn on(interface: &str) -> Settings {
        Settings { interface: Some(interface.to_owned()), ..Settings::default() }
    }

    #[test]
    fn tcp_is_found_on_the_loop_with_what_it_can_do() {
        for interface in ["lo", "127.0.0.1", "127.0.0.9"] {
            let found = discover(&library(), &[Provider::Tcp], &on(interface));
            let choice = found.usable.first().unwrap_or_else(|| panic!("{interface}: {:?}", found.refused));
            assert!(choice.nics[0].address.unwrap().is_loopback());
            if let Ok(address) = interface.parse() {
                assert_eq!(choice.nics[0].address, Some(address));
            }
            let abilities = &choice.abilities;
            assert!(abilities.one_sided_read && abilities.one_sided_write);
            assert!(abilities.immediate_bytes >= 4, "packets name their sender by immediate data");
            assert!(abilities.datagram_bytes_max >= 8192);
            assert!(["tcp", "tcp;ofi_rxm", "net"].contains(&choice.provider_name.as_str()));
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_refused_with_those_that_are() {
        let found = discover(&library(), &[Provider::Tcp], &on("nosuch0"));
        assert!(found.usable.is_empty());
        assert_eq!(found.refused[0].provider, Provider::Tcp);
        let reason = &found.refused[0].reason;
        assert!(reason.contains("nosuch0") && reason.contains("lo"), "{reason}");
    }

    #[test]
    fn every_wanted_road_is_either_usable_or_refused_with_reason_and_remedy() {
        let found = discover(&library(), &Provider::ALL, &Settings::default());
        for provider in Provider::ALL {
            let usable = found.usable.iter().any(|choice| choice.provider == provider);
            let refused =
                found.refused.iter().any(|refusal| refusal.provider == provider && refusal.nic.is_none());
            assert!(usable != refused, "{provider}");
        }
        for refusal in &found.refused {
            assert!(!refusal.reason.is_empty() && !refusal.remedy.is_empty(), "{refusal}");
        }
        for choice in &found.usable {
            assert_eq!(choice.nics.len(), choice.infos.len());
        }
    }

    #[test]
    fn names_are_read_and_written_alike() {
        for provider in Provider::ALL {
            assert_eq!(provider.name().parse(), Ok(provider));
        }
        assert_eq!("ib".parse::<Provider>(), Err(()));
    }
}
