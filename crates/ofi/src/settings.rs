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
    /// EFA: the NICs to use, as indices into [`Choice::nics`](crate::Choice::nics), the home first; what
    /// [`spread`](crate::spread) has given us among the ranks of our host. Empty: near ones, beginning with the one that our
    /// number comes to.
    pub rails: Vec<usize>,
    /// Whether this host has fewer cores than ranks. Then a rank that waits gives its core away at once.
    pub is_crowded: bool,
}
