//! Duties two and three: every send meets its receive, and nothing waits in a circle.

use std::collections::HashMap;

use super::{Flaw, Why, all};
use crate::{Action, Rank, Schedule, StepIndex};

/// Which receive each send fills, over all ranks. Steps are numbered through: rank after rank.
pub(crate) struct Pairing {
    /// Number of the first step of each rank, and behind the last the number of all steps.
    first: Vec<u32>,
    /// For a send its receive, for a receive its send, for other steps themselves.
    partner: Vec<u32>,
}

impl Pairing {
    pub(crate) fn new(schedules: &[Schedule]) -> Result<Pairing, Box<Flaw>> {
        let mut first = vec![0];
        for schedule in schedules {
            first.push(first[first.len() - 1] + schedule.len() as u32);
        }
        let mut pairing = Pairing { partner: (0..first[schedules.len()]).collect(), first };
        let mut sends = HashMap::new();
        for (rank, schedule) in all(schedules) {
            for (step, action, _) in schedule.iter() {
                if let Action::Send { to, from, label } = action
                    && let Some((other, _)) = sends.insert((rank, to, label), (step, from.len))
                {
                    let why = Why::LabelTwice { partner: to, label, other };
                    return Err(Box::new(Flaw { rank, step: Some(step), why }));
                }
            }
        }
        let mut received = HashMap::new();
        for (rank, schedule) in all(schedules) {
            for (step, action, _) in schedule.iter() {
                let Action::Recv { from, into, label } = action else { continue };
                if let Some(other) = received.insert((from, rank, label), step) {
                    let why = Why::LabelTwice { partner: from, label, other };
                    return Err(Box::new(Flaw { rank, step: Some(step), why }));
                }
                let Some((sender, sent)) = sends.remove(&(from, rank, label)) else {
                    return Err(Box::new(Flaw { rank, step: Some(step), why: Why::NotSent { from, label } }));
                };
                if sent != into.len {
                    let why = Why::UnequalMessage { sent, to: (rank, step), expected: into.len };
                    return Err(Box::new(Flaw { rank: from, step: Some(sender), why }));
                }
                let (send, recv) = (pairing.number(from, sender), pairing.number(rank, step));
                pairing.partner[send as usize] = recv;
                pairing.partner[recv as usize] = send;
            }
        }
        match sends.into_iter().min_by_key(|&((rank, ..), (step, _))| (rank, step)) {
            None => Ok(pairing),
            Some(((rank, to, label), (step, _))) => {
                Err(Box::new(Flaw { rank, step: Some(step), why: Why::NotReceived { to, label } }))
            }
        }
    }

    /// Number of all steps of all ranks.
    pub(super) fn len(&self) -> usize {
        self.partner.len()
    }

    /// The number of a rank's step.
    pub(crate) fn number(&self, rank: Rank, step: StepIndex) -> u32 {
        self.first[rank.index()] + step
    }

    /// The step with a number.
    pub(crate) fn step(&self, number: u32) -> (Rank, StepIndex) {
        let rank = self.first.partition_point(|&first| first <= number) - 1;
        (Rank(rank as u32), number - self.first[rank])
    }

    /// For a send its receive and the other way round.
    pub(crate) fn partner(&self, number: u32) -> u32 {
        self.partner[number as usize]
    }

    /// An order in which all steps can run when a send and its receive are one step, that starts when both may and
    /// ends for both. Nobody can wait longer than that, so if there is such an order, nothing hangs. Of each pair the
    /// order names only the one with the lower number.
    pub(super) fn order(&self, schedules: &[Schedule]) -> Result<Vec<u32>, Box<Flaw>> {
        let both = |number: u32| number.min(self.partner(number));
        let mut waits_for = vec![0u32; self.len()];
        let mut edges = Vec::new();
        for (rank, schedule) in all(schedules) {
            for (step, _, after) in schedule.iter() {
                let here = both(self.number(rank, step));
                waits_for[here as usize] += after.len() as u32;
                edges.extend(after.iter().map(|&earlier| (both(self.number(rank, earlier)), here)));
            }
        }
        edges.sort_unstable();
        let mut order: Vec<u32> =
            (0..self.len() as u32).filter(|&n| both(n) == n && waits_for[n as usize] == 0).collect();
        let mut done = 0;
        while let Some(&number) = order.get(done) {
            done += 1;
            let begin = edges.partition_point(|&(before, _)| before < number);
            for &(_, next) in edges[begin..].iter().take_while(|&&(before, _)| before == number) {
                waits_for[next as usize] -= 1;
                if waits_for[next as usize] == 0 {
                    order.push(next);
                }
            }
        }
        match (0..self.len() as u32).find(|&n| waits_for[n as usize] > 0) {
            None => Ok(order),
            Some(stuck) => Err(self.circle(stuck, &waits_for, &edges)),
        }
    }

    /// Walks from a stuck step to stuck steps that it waits for until one comes again.
    #[cold]
    fn circle(&self, stuck: u32, waits_for: &[u32], edges: &[(u32, u32)]) -> Box<Flaw> {
        let mut path = vec![stuck];
        loop {
            let here = path[path.len() - 1];
            let &(before, _) = edges
                .iter()
                .find(|&&(before, next)| next == here && waits_for[before as usize] > 0)
                .expect("a step is stuck because another one is");
            if let Some(begin) = path.iter().position(|&number| number == before) {
                let circle: Vec<_> = path[begin..].iter().rev().map(|&number| self.step(number)).collect();
                let (rank, step) = circle[circle.len() - 1];
                return Box::new(Flaw { rank, step: Some(step), why: Why::Circle(circle) });
            }
            path.push(before);
        }
    }
}
