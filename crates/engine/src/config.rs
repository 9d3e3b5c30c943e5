//! What may be asked of an engine, and the limits that follow from it and from the transport.

use selvedge_transport::Caps;

use crate::credit::{self, ENTRY_UNITS};
use crate::train::PARTS_MAX;
use crate::wire::{DATA_HEADER_BYTES, EAGER_HEADER_BYTES, Mode, PART_HEADER_BYTES, SYNC_HEADER_BYTES};

/// What may be asked of an [`crate::Engine`]. All ranks of a job must ask for the same: credit is counted on both sides.
///
/// The default is right for every transport; what depends on one is derived from its capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Memory for messages that arrive before their receive, bytes, over all peers. Default 64 MiB.
    ///
    /// Sum: peers x credit per peer, where credit per peer = max([`credit::BYTES_MIN`], this / peers), and at most
    /// 65,535 units of 64 bytes because it is returned in 16 bits. So the bound that holds is
    /// max(this, peers x `BYTES_MIN`): with 25,000 peers 64 MiB / 25,000 = 2.6 KiB < 8 KiB, bound 195 MiB.
    pub unexpected_bytes_limit: u64,
    /// How messages travel on every road that has no entry in [`roads`](Config::roads).
    pub road: RoadConfig,
    /// Roads by the name in their [`Caps`], each with how messages travel there.
    pub roads: Vec<(&'static str, RoadConfig)>,
    /// A fault to be built in, to show that a test would find it.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            unexpected_bytes_limit: 64 << 20,
            road: RoadConfig::default(),
            roads: Vec::new(),
            mutant: None,
        }
    }
}

impl Config {
    /// How messages travel on a road.
    fn on(&self, caps: &Caps) -> &RoadConfig {
        self.roads.iter().find(|(name, _)| *name == caps.name).map_or(&self.road, |(_, road)| road)
    }
}

/// How messages travel on one road.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoadConfig {
    /// Largest message sent eagerly, bytes. Lowered to what fits one packet, which is the default.
    pub eager_bytes_max: usize,
    /// Largest message sent as a train, bytes: several packets at once that nobody had to ask for. Lowered to what 64
    /// packets carry; 0 is never. Default 128 KiB, where it beats a read on EFA by every sum of docs/decisions/0012: one
    /// one-way time instead of three, for a second copy. For roads where a one-way time is shorter than the copy of a
    /// packet, such as shared memory, 0 is right.
    pub pregranted_bytes_max: usize,
    /// Largest one-sided read or write, bytes; lowered to what the road can. Default 1 MiB: long enough that the
    /// start of an operation is lost in it, short enough that several are in flight for a message of a few MiB.
    pub piece_bytes_max: u64,
    /// One-sided operations in flight for one message. Default 4.
    pub pieces_in_flight: u32,
    /// Packets of a windowed message that may be under way. Default 32. Sum: at most this x packet bytes per message in
    /// flight lie in the network, and half of it covers the way of a grant back to the sender.
    pub window_packets: u32,
    /// Messages from this many bytes on are copied by both sides at once, where the road can both read and write.
    /// Default: never. For roads whose one-sided operations are copies by the processor that asks for them.
    pub both_bytes_min: u64,
}

impl Default for RoadConfig {
    fn default() -> RoadConfig {
        RoadConfig {
            eager_bytes_max: usize::MAX,
            pregranted_bytes_max: 128 << 10,
            piece_bytes_max: 1 << 20,
            pieces_in_flight: 4,
            window_packets: 32,
            both_bytes_min: u64::MAX,
        }
    }
}

/// Mistakes that an engine, and what is built on it, can be told to make. The simulation has to notice each of them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Ordered messages are delivered as they arrive.
    SkipOrderWindow,
    /// Unexpected messages are taken last in, first out.
    UnexpectedLifo,
    /// The tag of an unordered message that arrives unexpected is cut to 32 bits.
    UnorderedTagCut,
    /// The credit of an announced rendezvous is never returned.
    CreditLost,
    /// The receiver says it has all it wants while its last read is in flight.
    FinBeforeRead,
    /// The sender says it has written while its last write is in flight.
    WrittenBeforeWrite,
    /// Every read but the first comes from the place of the one before.
    PieceOffset,
    /// The sender gives its memory back to the caller as soon as the rendezvous is announced.
    DoneBeforeFin,
    /// The window of a datagram rendezvous is never extended.
    GrantForgotten,
    /// A rendezvous that is longer than its receive is reported as if it had fitted.
    TruncationHidden,
    /// The parts of a train that came before its receive lie one part too far in front.
    PartMisplaced,
    /// The parts of a train that came before its receive are forgotten when the receive takes over.
    PartsForgotten,
    /// A train is over when its last part comes, whichever are missing.
    TrainEndsEarly,
    /// The credit of a train is returned when its receive takes over, and again at its end.
    TrainCreditTwice,
    /// The credit of a train is never returned.
    TrainCreditLost,
    /// The sender of a synchronous message is answered when it arrives, matched or not.
    AnsweredUnmatched,
    /// Wildcard receives are not told of a dead peer.
    WildcardsNotTold,
    /// Wildcard receives are told of a peer that left in order as of a dead one.
    WildcardsToldOfLeaving,
    /// Partitions are not called after their channel.
    ChannelForgotten,
    /// Partitions are not called after their round.
    RoundForgotten,
    /// What the other ranks offer and say when all agree on a communicator's number is not heard.
    NumberOfOneself,
    /// A communicator's number is taken though some rank says that it has it in use.
    NumberInUse,
}

impl Mutant {
    /// Each of them.
    pub const ALL: [Mutant; 22] = [
        Mutant::SkipOrderWindow,
        Mutant::UnexpectedLifo,
        Mutant::UnorderedTagCut,
        Mutant::CreditLost,
        Mutant::FinBeforeRead,
        Mutant::WrittenBeforeWrite,
        Mutant::PieceOffset,
        Mutant::DoneBeforeFin,
        Mutant::GrantForgotten,
        Mutant::TruncationHidden,
        Mutant::PartMisplaced,
        Mutant::PartsForgotten,
        Mutant::TrainEndsEarly,
        Mutant::TrainCreditTwice,
        Mutant::TrainCreditLost,
        Mutant::AnsweredUnmatched,
        Mutant::WildcardsNotTold,
        Mutant::WildcardsToldOfLeaving,
        Mutant::ChannelForgotten,
        Mutant::RoundForgotten,
        Mutant::NumberOfOneself,
        Mutant::NumberInUse,
    ];
}

/// What follows from a [`Config`] and the number of peers: the same for every peer, whatever road leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Credit that a peer starts with, in units.
    pub(crate) credit_units: u32,
    /// Credit that eager messages leave for announcements, and that is owed when it is returned by a packet of its own.
    /// One number for both, and a whole number of announcements, so that announcements never wait in vain: when a
    /// sender has no credit for another, those under way hold at least the reserve; each is owed when it passes the
    /// order window; and when all of them are, the return is sent.
    pub(crate) credit_reserve: u32,
}

impl Allowance {
    pub(crate) fn derive(config: &Config, peers: usize) -> Allowance {
        let credit_units = credit::units_per_peer(config.unexpected_bytes_limit, peers);
        Allowance { credit_units, credit_reserve: credit_units / 4 / ENTRY_UNITS * ENTRY_UNITS }
    }
}

/// What follows from a [`Config`] and the capabilities of a road.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest eager payload, and the largest of a synchronous message that is sent whole.
    pub(crate) eager_bytes_max: u32,
    pub(crate) sync_bytes_max: u32,
    /// Largest message sent as a train, and the payload of each of its packets but the last.
    pub(crate) pregranted_bytes_max: usize,
    pub(crate) part_bytes: usize,
    /// Largest one-sided operations; 0 where there is none.
    pub(crate) read_bytes_max: u64,
    pub(crate) write_bytes_max: u64,
    /// Payload of one packet of a windowed message.
    pub(crate) data_bytes_max: usize,
    /// Bytes of a windowed message that may be under way.
    pub(crate) window_bytes: u64,
    pub(crate) pieces_in_flight: u32,
    both_bytes_min: u64,
}

impl Limits {
    pub(crate) fn derive(config: &Config, caps: &Caps) -> Limits {
        let config = config.on(caps);
        let data_bytes_max = caps.packet_bytes_max - DATA_HEADER_BYTES;
        let eager_bytes_max = config.eager_bytes_max.min(caps.packet_bytes_max - EAGER_HEADER_BYTES);
        let sync_bytes_max = eager_bytes_max.min(caps.packet_bytes_max - SYNC_HEADER_BYTES);
        let part_bytes = caps.packet_bytes_max - PART_HEADER_BYTES;
        let train_bytes_max = part_bytes.saturating_mul(PARTS_MAX).min(u32::MAX as usize);
        Limits {
            eager_bytes_max: u32::try_from(eager_bytes_max).unwrap_or(u32::MAX),
            sync_bytes_max: u32::try_from(sync_bytes_max).unwrap_or(u32::MAX),
            pregranted_bytes_max: config.pregranted_bytes_max.min(train_bytes_max),
            part_bytes,
            read_bytes_max: config.piece_bytes_max.max(1).min(caps.read_bytes_max),
            write_bytes_max: config.piece_bytes_max.max(1).min(caps.write_bytes_max),
            data_bytes_max,
            window_bytes: u64::from(config.window_packets.max(1)) * data_bytes_max as u64,
            pieces_in_flight: config.pieces_in_flight.max(1),
            both_bytes_min: config.both_bytes_min,
        }
    }

    /// How a message of `bytes` bytes travels when it is not sent eagerly.
    ///
    /// One that could have gone eagerly is only here because credit ran out. It goes by window, also where there are
    /// one-sided operations: announcement, answer, one packet, and no registration.
    pub(crate) fn mode(&self, bytes: u64) -> Mode {
        if bytes <= (self.data_bytes_max as u64).min(self.eager_bytes_max.into()) {
            return Mode::Window;
        }
        match (self.read_bytes_max > 0, self.write_bytes_max > 0) {
            (true, true) if bytes >= self.both_bytes_min => Mode::Both,
            (true, _) => Mode::Read,
            (false, true) => Mode::Write,
            (false, false) => Mode::Window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(read: u64, write: u64) -> Caps {
        Caps {
            name: "test",
            packet_bytes_max: 256,
            inline_bytes_max: 64,
            slots_max: 8,
            read_bytes_max: read,
            write_bytes_max: write,
            one_sided_max: 8,
        }
    }

    #[test]
    fn the_mode_of_a_rendezvous_follows_from_capabilities_and_size() {
        let mode = |read, write, both_bytes_min, bytes| {
            let road = RoadConfig { both_bytes_min, ..RoadConfig::default() };
            Limits::derive(&Config { road, ..Config::default() }, &caps(read, write)).mode(bytes)
        };
        assert_eq!(mode(0, 0, 0, 1_000), Mode::Window);
        assert_eq!(mode(9, 0, 0, 1_000), Mode::Read);
        assert_eq!(mode(0, 9, 0, 1_000), Mode::Write);
        assert_eq!(mode(9, 9, u64::MAX, 1_000), Mode::Read);
        assert_eq!(mode(9, 9, 1_000, 1_000), Mode::Both);
        assert_eq!(mode(9, 9, 1_001, 1_000), Mode::Read);
        assert_eq!(mode(9, 9, 0, 232), Mode::Window);
    }

    #[test]
    fn the_reserve_is_a_whole_number_of_announcements() {
        for limit in [0, 40_000, 1 << 20, 64 << 20, u64::MAX] {
            let config = Config { unexpected_bytes_limit: limit, ..Config::default() };
            for peers in [1, 2, 7, 1_000] {
                let reserve = Allowance::derive(&config, peers).credit_reserve;
                assert!(reserve >= ENTRY_UNITS && reserve.is_multiple_of(ENTRY_UNITS));
            }
        }
    }

    #[test]
    fn an_eager_message_and_its_header_fit_one_packet() {
        let limits = |eager_bytes_max| {
            let road = RoadConfig { eager_bytes_max, ..RoadConfig::default() };
            Limits::derive(&Config { road, ..Config::default() }, &caps(0, 0)).eager_bytes_max
        };
        assert_eq!(limits(usize::MAX), 240);
        assert_eq!(limits(100), 100);
    }

    #[test]
    fn a_train_has_no_more_packets_than_it_may() {
        let limits = |pregranted_bytes_max| {
            let road = RoadConfig { pregranted_bytes_max, ..RoadConfig::default() };
            Limits::derive(&Config { road, ..Config::default() }, &caps(0, 0)).pregranted_bytes_max
        };
        assert_eq!(limits(usize::MAX), 64 * (256 - 32));
        assert_eq!(limits(1_000), 1_000);
    }

    #[test]
    fn a_road_that_is_named_has_limits_of_its_own() {
        let named = RoadConfig { eager_bytes_max: 7, ..RoadConfig::default() };
        let config = Config { roads: vec![("test", named)], ..Config::default() };
        let elsewhere = Caps { name: "other", ..caps(0, 0) };
        assert_eq!(Limits::derive(&config, &caps(0, 0)).eager_bytes_max, 7);
        assert_eq!(Limits::derive(&config, &elsewhere).eager_bytes_max, 240);
    }
}
