//! The simulated network and the decorators keep the contract, and the suite sees when a transport does not.

mod mutants;

use super::{Case, Group, Harness, Program, drive_together, run_all};
use crate::{Faulty, FaultyConfig, Peer, Sim, SimConfig, SimPort, Trace, Transport};

/// The simulated network of one configuration, each port wrapped by `wrap`.
pub(super) struct Simulated<W> {
    pub(super) config: SimConfig,
    pub(super) wrap: W,
}

impl<W: Fn(SimPort, &Sim) -> T, T: Transport> Harness for Simulated<W> {
    fn run(&self, group: Group, program: &Program<'_>) {
        let sim = Sim::new(SimConfig { peers: group.peers, ..self.config.clone() });
        let mut ports: Vec<T> = sim.ports().into_iter().map(|port| (self.wrap)(port, &sim)).collect();
        let ended = |peer: Peer| {
            if group.dies == Some(peer) {
                sim.kill(peer);
            }
            if group.leaves == Some(peer) {
                sim.leave(peer);
            }
        };
        drive_together(&mut ports, &|| sim.now(), program, &ended);
    }

    fn can_kill(&self) -> bool {
        true
    }
}

mod the_simulated_network {
    use super::*;
    crate::conformance_tests!(Simulated { config: SimConfig::default(), wrap: |port, _: &Sim| port });
}

mod the_tiny_network {
    use super::*;
    crate::conformance_tests!(Simulated { config: SimConfig::tiny(), wrap: |port, _: &Sim| port });
}

/// All presets with seeds of their own.
fn configs(seeds: std::ops::Range<u64>) -> impl Iterator<Item = SimConfig> {
    SimConfig::presets().into_iter().flat_map(move |(name, config)| {
        seeds.clone().map(move |seed| {
            println!("preset {name}, seed {seed}");
            SimConfig { seed, ..config.clone() }
        })
    })
}

#[test]
fn every_preset_keeps_the_contract_under_many_seeds() {
    configs(1..9).for_each(|config| run_all(&Simulated { config, wrap: |port, _: &Sim| port }));
}

#[test]
fn a_traced_transport_keeps_the_contract() {
    configs(20..22)
        .for_each(|config| run_all(&Simulated { config, wrap: |port, _: &Sim| Trace::new(port, 50) }));
}

#[test]
fn a_faulty_transport_keeps_the_contract() {
    configs(30..36).for_each(|config| {
        let rough = FaultyConfig::rough(config.seed);
        run_all(&Simulated { config, wrap: move |port, _: &Sim| Faulty::new(port, rough.clone()) });
    });
}

#[test]
fn a_network_with_a_single_slot_and_room_for_one_keeps_the_contract() {
    let config = SimConfig { slots_max: 1, in_flight_max: 1, one_sided_max: 1, ..SimConfig::tiny() };
    run_all(&Simulated { config: config.clone(), wrap: |port, _: &Sim| port });
    let wrap = |port, _: &Sim| Faulty::new(Trace::new(port, 10), FaultyConfig::rough(1));
    run_all(&Simulated { config, wrap });
}

#[test]
fn cases_are_named_by_different_sentences() {
    let mut names: Vec<&str> = super::CASES.iter().map(|case: &Case| case.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
