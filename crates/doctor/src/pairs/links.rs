//! Roads over libfabric, opened one by one.

use std::path::Path;
use std::str::FromStr;

use selvedge_ofi::{Library, Ofi, Opening, Provider, Settings, discover};
use selvedge_transport::Peer;

use super::{Links, Offered};
use crate::scene::{Refused, Tree};

/// What libfabric offers on this host.
#[derive(Debug)]
pub(crate) struct Libfabric {
    wanted: Vec<Provider>,
    library: Option<String>,
    settings: Settings,
    tree: Tree,
    opened: Vec<(String, Opening)>,
}

impl Libfabric {
    /// The roads that the variables of `selvedge::init` leave, by the library they name; counters below `tree`.
    pub(crate) fn new(variable: impl Fn(&str) -> Option<String>, tree: Tree) -> Libfabric {
        let all = Provider::ALL.to_vec();
        let wanted = match variable("SELVEDGE_TRANSPORT") {
            Some(list) => list.split(',').filter_map(|name| Provider::from_str(name.trim()).ok()).collect(),
            None => all,
        };
        let (library, settings) = (variable("SELVEDGE_LIBFABRIC"), crate::live::settings(&variable));
        Libfabric { wanted, library, settings, tree, opened: Vec::new() }
    }
}

impl Links for Libfabric {
    type Road = Ofi;

    fn open(&mut self, me: Peer) -> (Vec<Offered>, Vec<Refused>) {
        let given = self.library.as_deref().map(Path::new);
        let library = match Library::open(given) {
            Ok(library) => library,
            Err(error) => {
                let remedy = error.remedy().to_owned();
                return (Vec::new(), vec![refused("libfabric", None, error.to_string(), remedy)]);
            }
        };
        let found = discover(&library, &self.wanted, &self.settings);
        let mut list: Vec<Refused> = found
            .refused
            .into_iter()
            .map(|road| refused(road.provider.name(), road.nic, road.reason, road.remedy))
            .collect();
        let mut offers = Vec::new();
        for choice in &found.usable {
            let road = choice.provider.name();
            let opening = match Opening::open(choice, me, &self.settings) {
                Ok(opening) => opening,
                Err(fault) => {
                    list.push(refused(road, None, fault.detail.clone(), fault.next_step.to_owned()));
                    continue;
                }
            };
            let name = |nic: &selvedge_ofi::Nic| nic.device.clone().unwrap_or_else(|| nic.name.clone());
            offers.push(Offered {
                road: road.to_owned(),
                counted: choice.provider.is_efa(),
                nics: choice.nics.iter().map(name).collect(),
                card: opening.card(),
            });
            self.opened.push((road.to_owned(), opening));
        }
        (offers, list)
    }

    fn connect(&mut self, road: &str, cards: Vec<Vec<u8>>) -> Result<Ofi, String> {
        let at = self.opened.iter().position(|(name, _)| name == road).expect("a road that was offered");
        let (_, opening) = self.opened.swap_remove(at);
        opening.connect(cards).map_err(|fault| fault.words())
    }

    fn counters(&self) -> Tree {
        // libsysfs's variable, which a software device sets in our environment when it is loaded.
        match std::env::var_os("SYSFS_PATH") {
            Some(sys) => self.tree.clone().with_sys(sys),
            None => self.tree.clone(),
        }
    }
}

fn refused(provider: &str, nic: Option<String>, reason: String, remedy: String) -> Refused {
    Refused { provider: provider.to_owned(), nic, reason, remedy }
}
