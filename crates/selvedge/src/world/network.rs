//! Roads to other hosts as this rank sees them: what libfabric offers here, opened when the job needs it.

use selvedge_ofi::{Choice, Library, Opening, Provider, Refusal, Settings, discover};
use selvedge_transport::Peer;

use crate::world::routes::{Refused, Usable};
use crate::world::wishes::{RoadName, Wishes};

/// What was found. Holding it keeps the library loaded.
#[derive(Debug)]
pub(crate) struct Network {
    settings: Settings,
    usable: Vec<Choice>,
    refused: Vec<Refused>,
}

impl Network {
    /// Looks for every network that the user allows. Cost: some ten milliseconds where libfabric is there.
    pub(crate) fn look(wishes: &Wishes) -> Network {
        let mut settings = Settings::default();
        settings.interface.clone_from(&wishes.interface);
        settings.devices.clone_from(&wishes.devices);
        let wanted: Vec<Provider> = wishes.networks().filter_map(provider).collect();
        let mut network = Network { settings, usable: Vec::new(), refused: Vec::new() };
        if wanted.is_empty() {
            return network;
        }
        match Library::open(wishes.libfabric.as_deref()) {
            Ok(library) => {
                let found = discover(&library, &wanted, &network.settings);
                network.usable = found.usable;
                network.refused = found.refused.into_iter().map(refused).collect();
            }
            Err(error) => {
                let nowhere = |road| Refused {
                    road,
                    nic: None,
                    reason: without_remedy(&error),
                    remedy: error.remedy().to_owned(),
                };
                network.refused = wishes.networks().map(nowhere).collect();
            }
        }
        network
    }

    /// Roads that this rank could take, the best first.
    pub(crate) fn usable(&self) -> Vec<Usable> {
        let usable = |choice: &Choice| Usable {
            road: road(choice.provider),
            nics: choice.nics.iter().map(|nic| (nic.name.clone(), nic.numa_node)).collect(),
            endpoints_max: choice.provider.is_efa().then_some(choice.abilities.endpoints_max),
        };
        self.usable.iter().map(usable).collect()
    }

    /// Those it could not, and why.
    pub(crate) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// How a usable road would be taken.
    pub(crate) fn choice(&self, taken: RoadName) -> Option<&Choice> {
        self.usable.iter().find(|choice| road(choice.provider) == taken)
    }

    /// Opens a road for rank `me` on its NICs `rails`; all where none is named. `is_crowded`: its host has fewer cores than
    /// ranks.
    ///
    /// # Errors
    /// What the device says.
    pub(crate) fn open(
        &self,
        taken: RoadName,
        me: Peer,
        rails: Vec<usize>,
        is_crowded: bool,
    ) -> Result<Opening, Refused> {
        let choice = self.choice(taken).expect("rank 0 takes what every rank has said is usable");
        let mut settings = self.settings.clone();
        (settings.rails, settings.is_crowded) = (rails, is_crowded);
        Opening::open(choice, me, &settings).map_err(|fault| Refused {
            road: taken,
            nic: None,
            reason: fault.detail,
            remedy: fault.next_step.to_owned(),
        })
    }
}

/// The error in front of its remedy.
fn without_remedy(error: &selvedge_ofi::LoadError) -> String {
    let text = error.to_string();
    match text.strip_suffix(error.remedy()) {
        Some(reason) => reason.trim_end().trim_end_matches('.').to_owned(),
        None => text,
    }
}

fn refused(refusal: Refusal) -> Refused {
    let Refusal { provider, nic, reason, remedy } = refusal;
    Refused { road: road(provider), nic, reason, remedy }
}

fn road(provider: Provider) -> RoadName {
    match provider {
        Provider::EfaDirect => RoadName::EfaDirect,
        Provider::Efa => RoadName::Efa,
        Provider::Tcp => RoadName::Tcp,
    }
}

fn provider(road: RoadName) -> Option<Provider> {
    Provider::ALL.into_iter().find(|provider| provider.name() == road.name())
}
