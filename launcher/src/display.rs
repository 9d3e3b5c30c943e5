//! A picture in text of hosts, sockets, cores, network cards and the ranks on them.

use crate::place::{HostFacts, Placement};

/// Which pictures are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// `--display map`: which rank is where.
    pub map: bool,
    /// `--display allocation`: which hosts there are.
    pub allocation: bool,
    /// `--display bind` and `--report-bindings`: which hardware threads each rank may use.
    pub bind: bool,
}

/// The pictures that are asked for, for standard output. Empty where none is.
pub fn display(_what: Display, _hosts: &[HostFacts], _placement: &Placement) -> String {
    String::new()
}
