//! Faults that are made on purpose, drawn from a seed: a queue pair with the same seed, posted to in the same way at the
//! same times, meets the same ones.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::srd::{Gid, Nanos, Node, Transmit};

/// A link, or all links of a device, that is cut at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The host at either end of the link. Cutting one's own host cuts every link.
    pub host: Ipv4Addr,
    /// Only this device of the host; all of them if `None`.
    pub device: Option<u16>,
    /// When.
    pub when: Moment,
}

/// When a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At this time of the caller's clock.
    Time(Nanos),
    /// After so many packets that the queue pair has sent over the link.
    Packets(u64),
}

impl FromStr for Cut {
    type Err = String;

    /// `HOST[/DEVICE]` at once, `HOST@MILLISECONDS` or `HOST#PACKETS` later: `127.0.0.3@1500`, `127.0.0.2/1#1000`.
    fn from_str(text: &str) -> Result<Cut, String> {
        let number =
            |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?} is not a number: {error}"));
        let (place, when) = match (text.split_once('@'), text.split_once('#')) {
            (Some((place, ms)), _) => (place, Moment::Time(number(ms)?.saturating_mul(1_000_000))),
            (None, Some((place, packets))) => (place, Moment::Packets(number(packets)?)),
            (None, None) => (text, Moment::Packets(0)),
        };
        let (host, device) = match place.split_once('/') {
            Some((host, device)) => {
                let device =
                    device.parse().map_err(|error| format!("device {device:?} is not a number: {error}"))?;
                (host, Some(device))
            }
            None => (place, None),
        };
        let host = host.parse().map_err(|_| format!("{host:?} is not an IPv4 address"))?;
        Ok(Cut { host, device, when })
    }
}

impl Cut {
    fn is_at(&self, gid: Gid) -> bool {
        gid.host() == Some(self.host) && self.device.is_none_or(|device| device == gid.device())
    }
}

/// Which faults to make, and how often. Chances are from 0 to 1, per packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Chance that a packet is lost.
    pub drop: f64,
    /// Chance that a packet is sent twice.
    pub duplicate: f64,
    /// Chance that a packet is held back while later ones pass.
    pub reorder: f64,
    /// Longest time that such a packet is held back.
    pub reorder_time: Nanos,
    /// Time that every packet takes longer.
    pub delay: Nanos,
    /// Chance that a send that comes in is told that no receive is posted.
    pub rnr: f64,
    /// Queue pairs that we believe not to exist.
    pub refuse: Vec<u16>,
    /// Links that are cut.
    pub cuts: Vec<Cut>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_time: 200_000,
            delay: 0,
            rnr: 0.0,
            refuse: Vec::new(),
            cuts: Vec::new(),
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes out.
    Sent,
    /// It does not.
    Lost,
    /// It goes out, and so does a copy.
    Twice,
    /// It goes out later.
    Held(Nanos),
}

/// The faults of one queue pair: the plan, and the dice.
#[derive(Clone, Debug)]
pub struct Faults {
    plan: Plan,
    is_quiet: bool,
    state: u64,
    /// Packets sent over each link that has a cut, in the order of the plan.
    sent: Vec<u64>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults::none()
    }
}

impl Faults {
    /// No faults.
    pub fn none() -> Faults {
        Faults::new(Plan::default(), 0)
    }

    /// The faults of `plan`, drawn from `seed`. Give each queue pair its own.
    pub fn new(plan: Plan, seed: u64) -> Faults {
        let is_quiet = plan == Plan { reorder_time: plan.reorder_time, ..Plan::default() };
        Faults { is_quiet, state: seed, sent: vec![0; plan.cuts.len()], plan }
    }

    /// A chance is taken. SplitMix64, Steele, Lea and Flood, OOPSLA 2014, figure 17.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && ((self.draw() >> 11) as f64) < chance * (1u64 << 53) as f64
    }

    /// What becomes of a packet from `me` to `to`.
    pub(crate) fn judge(&mut self, me: Gid, to: Gid, now: Nanos) -> Fate {
        if self.is_quiet {
            return Fate::Sent;
        }
        let is_cut = self.is_cut(me, to, now);
        for (cut, sent) in self.plan.cuts.iter().zip(&mut self.sent) {
            *sent += u64::from(cut.is_at(me) || cut.is_at(to));
        }
        if is_cut || self.happens(self.plan.drop) {
            return Fate::Lost;
        }
        if self.happens(self.plan.duplicate) {
            return Fate::Twice;
        }
        let mut wait = self.plan.delay;
        if self.happens(self.plan.reorder) {
            wait += 1 + self.draw() % self.plan.reorder_time.max(1);
        }
        if wait == 0 { Fate::Sent } else { Fate::Held(now + wait) }
    }

    /// Whether nothing passes between `me` and `peer` any more.
    pub(crate) fn is_cut(&self, me: Gid, peer: Gid, now: Nanos) -> bool {
        !self.is_quiet
            && self.plan.cuts.iter().zip(&self.sent).any(|(cut, sent)| {
                let due = match cut.when {
                    Moment::Time(time) => now >= time,
                    Moment::Packets(packets) => *sent >= packets,
                };
                due && (cut.is_at(me) || cut.is_at(peer))
            })
    }

    /// Whether a send that came in is refused although a receive may be posted.
    pub(crate) fn is_not_ready(&mut self) -> bool {
        self.happens(self.plan.rnr)
    }

    /// Whether we believe that there is no such queue pair.
    pub(crate) fn refuses(&self, to: Node) -> bool {
        self.plan.refuse.contains(&to.qpn)
    }

    /// The delay that every packet suffers, of which an extra copy shall not be spared.
    pub(crate) fn delay(&self) -> Nanos {
        self.plan.delay
    }
}

/// Packets that wait for their time. Bounded by what the queue pairs may have on the way: a window for each peer.
#[derive(Debug, Default)]
pub(crate) struct Held {
    waiting: BinaryHeap<Waiting>,
    count: u64,
}

#[derive(Debug)]
struct Waiting {
    until: Nanos,
    place: u64,
    packet: Transmit,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// The heap gives the greatest first, which is to be the earliest.
    fn cmp(&self, other: &Waiting) -> Ordering {
        (other.until, other.place).cmp(&(self.until, self.place))
    }
}

impl Held {
    pub(crate) fn push(&mut self, until: Nanos, packet: Transmit) {
        self.count += 1;
        self.waiting.push(Waiting { until, place: self.count, packet });
    }

    pub(crate) fn pop(&mut self, now: Nanos) -> Option<Transmit> {
        if self.deadline()? > now {
            return None;
        }
        self.waiting.pop().map(|waiting| waiting.packet)
    }

    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.waiting.peek().map(|waiting| waiting.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(last: u8) -> Gid {
        Gid::new(Ipv4Addr::new(127, 0, 0, last), 0)
    }

    #[test]
    fn the_same_seed_makes_the_same_faults() {
        let plan = Plan { drop: 0.2, duplicate: 0.2, reorder: 0.5, ..Plan::default() };
        let fates = |seed| {
            let mut faults = Faults::new(plan.clone(), seed);
            (0..100).map(|now| faults.judge(gid(1), gid(2), now)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[test]
    fn faults_are_as_frequent_as_was_asked() {
        let mut faults = Faults::new(Plan { drop: 0.1, ..Plan::default() }, 1);
        let lost = (0..10_000).filter(|now| faults.judge(gid(1), gid(2), *now) == Fate::Lost).count();
        assert!((900..1100).contains(&lost), "{lost}");
    }

    #[test]
    fn a_cut_is_read_from_text() {
        let host = Ipv4Addr::new(127, 0, 0, 3);
        let cut = |device, when| Ok(Cut { host, device, when });
        assert_eq!("127.0.0.3".parse(), cut(None, Moment::Packets(0)));
        assert_eq!("127.0.0.3@1500".parse(), cut(None, Moment::Time(1_500_000_000)));
        assert_eq!("127.0.0.3/1#1000".parse(), cut(Some(1), Moment::Packets(1000)));
        for wrong in ["", "host", "127.0.0.3@soon", "127.0.0.3/x", "127.0.0.3#"] {
            assert!(wrong.parse::<Cut>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_link_is_cut_after_its_packets_and_others_stay() {
        let cuts = vec!["127.0.0.2#3".parse().unwrap()];
        let mut faults = Faults::new(Plan { cuts, ..Plan::default() }, 0);
        for _ in 0..3 {
            assert_eq!(faults.judge(gid(1), gid(2), 0), Fate::Sent);
        }
        assert_eq!(faults.judge(gid(1), gid(2), 0), Fate::Lost);
        assert_eq!(faults.judge(gid(1), gid(3), 0), Fate::Sent);
        assert!(faults.is_cut(gid(1), gid(2), 0));
    }
}
