//! From the two stories of each talk to a verdict, with its evidence and its cure.

use std::fmt::Write;

use serde::Serialize;

use super::counters::Counted;
use super::talk::Measured;
use super::{Half, Outcome};
use crate::check::{Verdict, bytes};
use crate::scene::Refused;

/// What to do about silence. An EC2 rule, and the most frequent reason by far (docs/EC2.md#security-group).
const ALLOW_ITSELF: &str = "allow the security group to and from itself, both ways: aws ec2 \
                            authorize-security-group-egress --group-id SG --ip-permissions \
                            'IpProtocol=-1,UserIdGroupPairs=[{GroupId=SG}]', and the same with -ingress";

/// What to do when packets reach the card and not the program.
const ANOTHER_LIBRARY: &str = "packets reach the card, and libfabric hands none to us: export SELVEDGE_LIBFABRIC=PATH of another \
                               version, or FI_LOG_LEVEL=warn to hear what it says";

/// What to do about silence on a road of sockets.
const OPEN_PORTS: &str = "let the hosts reach each other on all TCP ports: in EC2 by their security group, elsewhere sudo \
                          firewall-cmd or nft list ruleset shows what is in the way";

/// What all hosts found out about each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Meeting {
    /// The hosts, by name.
    pub hosts: Vec<String>,
    /// Roads that all of them could open.
    pub roads: Vec<String>,
    /// The worst of all.
    pub verdict: Verdict,
    /// Each pair on each road.
    pub pairs: Vec<PairReport>,
    /// Roads that a host could not open, with the host.
    pub refused: Vec<(String, Refused)>,
}

/// Two hosts on one road.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// The road.
    pub road: String,
    /// One host.
    pub one: String,
    /// The other.
    pub other: String,
    /// What it came to.
    pub verdict: Verdict,
    /// A small message one way, microseconds.
    pub small_us: Option<f64>,
    /// 1 MiB from one to the other, millions of bytes a second.
    pub there_mb_s: Option<f64>,
    /// And back.
    pub back_mb_s: Option<f64>,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub remedy: Option<String>,
}

/// Puts the halves together. `counted` says of each road whether its bytes must pass a card that counts.
pub(super) fn judge(
    hosts: Vec<String>,
    roads: Vec<String>,
    counted: Vec<bool>,
    halves: &[Vec<Half>],
    refused: Vec<Vec<Refused>>,
) -> Meeting {
    let mut pairs = Vec::new();
    for (index, road) in roads.iter().enumerate() {
        for one in 0..hosts.len() {
            for other in one + 1..hosts.len() {
                let half =
                    |of: usize, with: usize| halves[of].iter().find(|h| h.road == index && h.other == with);
                let (Some(near), Some(far)) = (half(one, other), half(other, one)) else { continue };
                pairs.push(
                    Pair {
                        road,
                        names: [&hosts[one], &hosts[other]],
                        halves: [near, far],
                        counts: counted[index],
                    }
                    .report(),
                );
            }
        }
    }
    let named = |(host, list): (&String, Vec<Refused>)| {
        list.into_iter().map(|r| (host.clone(), r)).collect::<Vec<_>>()
    };
    let refused = hosts.iter().zip(refused).flat_map(named).collect();
    let nobody_met = if pairs.is_empty() { Verdict::Fail } else { Verdict::Pass };
    let verdict = pairs.iter().map(|pair| pair.verdict).fold(nobody_met, Verdict::max);
    Meeting { hosts, roads, verdict, pairs, refused }
}

struct Pair<'a> {
    road: &'a str,
    names: [&'a str; 2],
    halves: [&'a Half; 2],
    counts: bool,
}

impl Pair<'_> {
    fn report(&self) -> PairReport {
        let [one, other] = self.names;
        let measured = self.halves.map(|half| match half.outcome {
            Outcome::Measured(measured) => Some(measured),
            _ => None,
        });
        let (verdict, evidence, remedy) = match measured {
            [Some(near), Some(far)] => self.proof([near, far]),
            _ => self.trouble(),
        };
        PairReport {
            road: self.road.to_owned(),
            one: one.to_owned(),
            other: other.to_owned(),
            verdict,
            small_us: measured[0].map(|near| near.small_us),
            // Who receives measures.
            there_mb_s: measured[1].map(|far| far.incoming_mb_s),
            back_mb_s: measured[0].map(|near| near.incoming_mb_s),
            evidence,
            remedy,
        }
    }

    /// Both got to the end: did the bytes go where the road says?
    fn proof(&self, measured: [Measured; 2]) -> (Verdict, String, Option<String>) {
        if !self.counts {
            return (Verdict::Pass, "all bytes arrived as they were sent".to_owned(), None);
        }
        let mut evidence = Vec::new();
        let mut verdict = Verdict::Pass;
        let mut remedy = None;
        for ((name, half), measured) in self.names.iter().zip(self.halves).zip(measured) {
            match half.counted {
                None => {
                    evidence.push(format!("{name}: its cards' counters cannot be read"));
                    verdict = verdict.max(Verdict::Warn);
                    remedy = remedy.or(Some("selvedge doctor, and see its check efa-counters".to_owned()));
                }
                Some(Counted { sent, received, read }) => {
                    let by_read = match read {
                        0 => String::new(),
                        read => format!(" ({} by RDMA read)", bytes(read)),
                    };
                    evidence.push(format!(
                        "{name}'s cards: {} out, {} in{by_read}",
                        bytes(sent),
                        bytes(received)
                    ));
                    if sent < measured.bytes_sent || received < measured.bytes_received {
                        evidence.push(format!(
                            "and at least {} went out and {} came in",
                            bytes(measured.bytes_sent),
                            bytes(measured.bytes_received)
                        ));
                        verdict = Verdict::Fail;
                        remedy = Some(
                            "the bytes took another way: unset FI_EFA_ENABLE_SHM_TRANSFER and FI_PROVIDER, and see the check \
                             one-libfabric of selvedge doctor"
                                .to_owned(),
                        );
                    }
                }
            }
        }
        (verdict, evidence.join("; "), remedy)
    }

    fn trouble(&self) -> (Verdict, String, Option<String>) {
        let mut evidence = Vec::new();
        let (mut silent, mut lost_above) = (false, false);
        for (index, half) in self.halves.iter().enumerate() {
            let (name, partner) = (self.names[index], self.names[1 - index]);
            match &half.outcome {
                Outcome::Measured(_) => {}
                Outcome::Silence(ms, heard) => {
                    silent = true;
                    let ever = if *heard { "nothing more" } else { "nothing ever" };
                    let seconds = *ms as f64 / 1000.0;
                    let cards =
                        half.counted.map_or_else(String::new, |Counted { sent, received, .. }| {
                            // What did reach the card was not lost on the way.
                            lost_above |= received > 0 && !heard;
                            format!(" (its cards meanwhile: {} out, {} in)", bytes(sent), bytes(received))
                        });
                    evidence.push(format!("{name} heard {ever} from {partner} within {seconds:.1} s{cards}"));
                }
                Outcome::Fault(words, unreachable) => {
                    silent |= unreachable;
                    evidence.push(format!("{name}: {words}"));
                }
            }
        }
        let cure = match (silent, self.counts) {
            (true, true) if lost_above => ANOTHER_LIBRARY,
            (true, true) => ALLOW_ITSELF,
            (true, false) => OPEN_PORTS,
            (false, _) => "selvedge doctor, on both hosts",
        };
        (Verdict::Fail, evidence.join("; "), Some(cure.to_owned()))
    }
}

impl Meeting {
    /// For people.
    pub fn table(&self, colour: bool) -> String {
        let mut text = String::new();
        let (hosts, roads) = (self.hosts.join(", "), self.roads.join(", "));
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "hosts: {hosts}; roads that all of them have: {}\n",
            if roads.is_empty() { "none" } else { &roads }
        );
        if self.hosts.len() < 2 {
            let _ = writeln!(
                text,
                "All ranks are on one host, and there is nothing between it and itself to examine. Start one on each of \
                                    several hosts; on one host SELVEDGE_HOST=NAME, different for each rank, makes believe."
            );
        }
        for pair in &self.pairs {
            let verdict = crate::report::painted(pair.verdict, colour);
            let number = |value: Option<f64>, unit: &str| {
                value.map_or("-".to_owned(), |value| format!("{value:.1} {unit}"))
            };
            let _ = writeln!(
                text,
                "{verdict}  {:<11} {} <-> {}: {} one way, 1 MiB there {}, back {}",
                pair.road,
                pair.one,
                pair.other,
                number(pair.small_us, "us"),
                number(pair.there_mb_s, "MB/s"),
                number(pair.back_mb_s, "MB/s")
            );
            let _ = writeln!(text, "      {}", pair.evidence);
            if let Some(remedy) = &pair.remedy {
                let _ = writeln!(text, "      -> {remedy}");
            }
        }
        for (host, refused) in &self.refused {
            let nic = refused.nic.as_deref().map_or(String::new(), |nic| format!(" by {nic}"));
            let _ = writeln!(
                text,
                "\n{host} has no {}{nic}: {}\n      -> {}",
                refused.provider, refused.reason, refused.remedy
            );
        }
        text
    }
}
