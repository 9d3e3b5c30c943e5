//! What the user may choose about roads to other hosts.

/// Choices of the user. The default is what fits almost everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// tcp: the interface to use, by its name (`eth1`) or its address (`10.0.3.7`, `127.0.0.1` when all ranks are on this host).
    /// Without it: the interface of the default route.
    pub interface: Option<String>,
    /// EFA: use these devices only, by the name of the device or the domain. Empty: all.
    pub devices: Vec<String>,
    /// Which of the ranks of this host we are, from 0: ranks are spread over the host's devices by it. Without it the index
    /// among all ranks counts, which spreads them as well where hosts have equally many.
    pub place: Option<u32>,
    /// Whether this host has fewer cores than ranks. Then a rank that waits gives its core away at once.
    pub is_crowded: bool,
}
