//! The knobs of the simulated network, and the networks worth simulating.

use std::ops::RangeInclusive;

use crate::{Caps, Peer};

/// What a simulated network is like. Start from one of the presets and change what the test is about:
///
/// ```
/// use selvedge_transport::sim::{Sim, SimConfig};
/// let sim = Sim::new(SimConfig { peers: 3, seed: 42, ..SimConfig::tiny() });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Number of peers.
    pub peers: usize,
    /// Everything random about the network comes from it: same seed and same calls, same trace.
    pub seed: u64,
    /// As in [`Caps`].
    pub packet_bytes_max: usize,
    /// As in [`Caps`].
    pub inline_bytes_max: usize,
    /// As in [`Caps`]. With this many slots on loan no further packet is lent.
    pub slots_max: usize,
    /// As in [`Caps`]; 0 for a road without one-sided read.
    pub read_bytes_max: u64,
    /// As in [`Caps`]; 0 for a road without one-sided write.
    pub write_bytes_max: u64,
    /// As in [`Caps`].
    pub one_sided_max: usize,
    /// Registrations a peer may hold; the next one is a Fault with cause `Exhausted`.
    pub registrations_max: usize,
    /// Time from send to arrival in virtual nanoseconds. Each packet, and each piece of a one-sided operation, draws
    /// its own, so that a wide range is what shuffles them. One in 32 takes eight times as long.
    pub latency_ns: RangeInclusive<u64>,
    /// Packets from one peer to another that may be on the way, arrived ones that nobody polled for included; the
    /// next one is Busy. At least 1.
    pub in_flight_max: u32,
    /// One call in so many is answered Busy for no reason; 0 for never, 1 is refused.
    pub busy_one_in: u32,
    /// A second road, between peers of one host; all the above is the road between hosts then.
    pub near: Option<Near>,
}

/// The road between simulated peers of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// So many consecutive peers share a host. At least 1.
    pub peers_per_host: usize,
    /// What the road can do.
    pub caps: Caps,
    /// As in [`SimConfig`].
    pub latency_ns: RangeInclusive<u64>,
    /// As in [`SimConfig`].
    pub in_flight_max: u32,
}

impl Default for SimConfig {
    /// Two peers and a road that can do everything, with room enough that back-pressure is rare.
    fn default() -> SimConfig {
        SimConfig {
            peers: 2,
            seed: 0,
            packet_bytes_max: 4096,
            inline_bytes_max: 40,
            slots_max: 64,
            read_bytes_max: 1 << 30,
            write_bytes_max: 1 << 30,
            one_sided_max: 32,
            registrations_max: 4096,
            latency_ns: 500..=20_000,
            in_flight_max: 64,
            busy_one_in: 0,
            near: None,
        }
    }
}

impl SimConfig {
    /// The smallest road the contract allows: packets of 256 bytes, queues of two, two slots, often Busy. What is
    /// right here does not depend on room.
    pub fn tiny() -> SimConfig {
        SimConfig {
            packet_bytes_max: 256,
            inline_bytes_max: 32,
            slots_max: 2,
            read_bytes_max: 1000,
            write_bytes_max: 1000,
            one_sided_max: 2,
            registrations_max: 16,
            latency_ns: 1..=5_000,
            in_flight_max: 2,
            busy_one_in: 8,
            ..SimConfig::default()
        }
    }

    /// EFA without RDMA: datagrams of 8 KiB and nothing else; 6 to 16 us one way, as between hosts of EC2.
    pub fn efa_like() -> SimConfig {
        SimConfig {
            packet_bytes_max: 8192,
            inline_bytes_max: 32,
            slots_max: 256,
            read_bytes_max: 0,
            write_bytes_max: 0,
            latency_ns: 6_000..=16_000,
            in_flight_max: 128,
            busy_one_in: 64,
            ..SimConfig::default()
        }
    }

    /// EFA with RDMA read and write of up to 1 GiB.
    pub fn efa_rdma_like() -> SimConfig {
        SimConfig {
            read_bytes_max: 1 << 30,
            write_bytes_max: 1 << 30,
            one_sided_max: 64,
            ..SimConfig::efa_like()
        }
    }

    /// Shared memory with single copy by the kernel: short latency, one-sided read and write.
    pub fn shm_like() -> SimConfig {
        SimConfig {
            packet_bytes_max: 8192,
            inline_bytes_max: 48,
            latency_ns: 150..=3_000,
            in_flight_max: 32,
            one_sided_max: 16,
            ..SimConfig::default()
        }
    }

    /// EFA between hosts of two peers, and shared memory within: two roads that differ in everything.
    pub fn hosts_like() -> SimConfig {
        let near = SimConfig { packet_bytes_max: 4096, ..SimConfig::shm_like() };
        SimConfig { near: Some(near.as_near(2)), ..SimConfig::efa_like() }
    }

    /// The road of this configuration as the near one of another; its name is `sim-near`.
    pub fn as_near(&self, peers_per_host: usize) -> Near {
        Near {
            peers_per_host,
            caps: Caps { name: "sim-near", ..self.caps() },
            latency_ns: self.latency_ns.clone(),
            in_flight_max: self.in_flight_max,
        }
    }

    /// Every preset with its name, for tests that run on all of them.
    pub fn presets() -> [(&'static str, SimConfig); 6] {
        [
            ("default", SimConfig::default()),
            ("tiny", SimConfig::tiny()),
            ("efa_like", SimConfig::efa_like()),
            ("efa_rdma_like", SimConfig::efa_rdma_like()),
            ("shm_like", SimConfig::shm_like()),
            ("hosts_like", SimConfig::hosts_like()),
        ]
    }

    /// The roads a peer on this network sees: the near one, if there is one, then that between hosts.
    pub fn roads(&self) -> Vec<Caps> {
        self.near.iter().map(|near| near.caps.clone()).chain([self.caps()]).collect()
    }

    /// Which of [`roads`](SimConfig::roads) lies between two peers.
    pub fn road(&self, a: Peer, b: Peer) -> usize {
        self.near
            .as_ref()
            .map_or(0, |near| usize::from(a.index() / near.peers_per_host != b.index() / near.peers_per_host))
    }

    /// The near road, if it is the one between two peers.
    pub(super) fn near(&self, a: Peer, b: Peer) -> Option<&Near> {
        self.near.as_ref().filter(|_| self.road(a, b) == 0)
    }

    /// What the road between hosts can do, which is the only one unless there is a near one.
    pub fn caps(&self) -> Caps {
        Caps {
            name: "sim",
            packet_bytes_max: self.packet_bytes_max,
            inline_bytes_max: self.inline_bytes_max,
            slots_max: self.slots_max,
            read_bytes_max: self.read_bytes_max,
            write_bytes_max: self.write_bytes_max,
            one_sided_max: self.one_sided_max,
        }
    }

    /// Panics when the contract does not allow such a network.
    pub(super) fn check(&self) {
        assert!(self.peers > 0 && u32::try_from(self.peers).is_ok(), "{} peers", self.peers);
        assert!(self.busy_one_in != 1, "Busy has to end");
        check_road(&self.caps(), &self.latency_ns, self.in_flight_max);
        if let Some(near) = &self.near {
            assert!(near.peers_per_host > 0, "a host without peers");
            check_road(&near.caps, &near.latency_ns, near.in_flight_max);
        }
    }
}

fn check_road(caps: &Caps, latency_ns: &RangeInclusive<u64>, in_flight_max: u32) {
    assert!(caps.packet_bytes_max >= 256, "packets of {} bytes, 256 is the least", caps.packet_bytes_max);
    assert!(caps.inline_bytes_max <= caps.packet_bytes_max, "inline bytes are bytes of a packet");
    assert!(caps.slots_max > 0 && in_flight_max > 0, "no room for a single packet");
    let one_sided = caps.read_bytes_max.max(caps.write_bytes_max) > 0;
    assert!(!one_sided || caps.one_sided_max > 0, "no one-sided room");
    assert!(!latency_ns.is_empty(), "no latency in {latency_ns:?}");
}
