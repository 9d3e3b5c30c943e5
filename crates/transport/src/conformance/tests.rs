//! The simulated network keeps the contract, and the suite sees when a transport does not.

use super::{Group, Harness, Program, drive_together};
use crate::sim::{Sim, SimConfig};

/// The simulated network of one configuration.
struct Simulated(SimConfig);

impl Harness for Simulated {
    fn run(&self, group: Group, program: &Program<'_>) {
        let sim = Sim::new(SimConfig { peers: group.peers, ..self.0.clone() });
        let ended = |peer| {
            if group.dies == Some(peer) {
                sim.kill(peer);
            }
        };
        drive_together(&mut sim.ports(), &|| sim.now(), program, &ended);
    }

    fn can_kill(&self) -> bool {
        true
    }
}

mod the_simulated_network {
    super::super::super::conformance_tests!(super::Simulated(crate::SimConfig::default()));
}

mod the_tiny_network {
    super::super::super::conformance_tests!(super::Simulated(crate::SimConfig::tiny()));
}
