//! Questions about the job: who asks, what the agents say, and what is answered. Also what mpirun says by itself of who
//! waited for whom, when it has to end the job.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use selvedge_boot::asking::{JobFacts, Question};

use super::{Front, Stream, ToAgent};
use crate::supervise::Look;
use crate::whereabouts::{Found, Worlds};

/// How long agents may take. Below what an asker is given.
const PATIENCE: Duration = Duration::from_secs(3);
/// Rows of the table that is printed unasked.
const ROWS_MAX: usize = 64;

/// A question that has gone out to all agents.
#[derive(Debug)]
pub(super) struct Inquiry {
    number: u32,
    found: Worlds,
    /// Hosts that have not answered.
    open: BTreeSet<u32>,
    until: Instant,
    askers: Vec<u64>,
    /// What is to be said on standard error.
    look: Option<Look>,
}

impl Front {
    /// Somebody has come to the door, or has something to say.
    pub(super) fn attend(&mut self) {
        let Some(reception) = &mut self.reception else { return };
        for (asker, question) in reception.handle_ready(Instant::now()) {
            match question {
                Question::Job => {
                    let facts = serde_json::to_vec(&self.facts()).expect("plain data can be written as JSON");
                    self.answer(asker, facts);
                }
                Question::Where => self.inquire(Some(asker), None),
            }
        }
    }

    fn facts(&self) -> JobFacts {
        let first =
            || self.order.wish.blocks.iter().map(|block| block.program.to_string_lossy().into_owned());
        let programs = match self.worlds.is_empty() {
            true => first().collect(),
            false => self.worlds.values().flat_map(|world| world.programs.clone()).collect(),
        };
        let ranks = self.supervisor.worlds().map(|(_, ranks)| ranks.len()).sum::<usize>();
        JobFacts {
            job: self.order.name.clone(),
            pid: std::process::id(),
            programs,
            ranks: u32::try_from(ranks).expect("a rank is a u32"),
            hosts: self.order.hosts.iter().map(|host| host.name.clone()).collect(),
            age_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn answer(&mut self, asker: u64, bytes: Vec<u8>) {
        if let Some(reception) = &mut self.reception {
            reception.answer(asker, bytes);
        }
    }

    /// Asks all agents where their ranks are, for somebody or for ourselves. Who asks while others wait gets their answer.
    pub(super) fn inquire(&mut self, asker: Option<u64>, look: Option<Look>) {
        if let Some(inquiry) = &mut self.inquiry
            && look.is_none()
        {
            return inquiry.askers.extend(asker);
        }
        // Its askers get what the new question brings, which is what they want to know.
        let before = self.inquiry.take();
        let number = self.inquiries.wrapping_add(1);
        self.inquiries = number;
        let hosts: Vec<String> = self.order.hosts.iter().map(|host| host.name.clone()).collect();
        let worlds: Vec<(u32, Vec<u32>)> = self.supervisor.worlds().collect();
        let used: BTreeSet<u32> = worlds.iter().flat_map(|(_, ranks)| ranks.iter().copied()).collect();
        let open = used.into_iter().filter(|host| self.supervisor.is_open(*host)).collect();
        let askers = before.into_iter().flat_map(|inquiry| inquiry.askers).chain(asker).collect();
        let found = Worlds::new(&self.order.name, &hosts, worlds);
        self.inquiry = Some(Inquiry { number, found, open, until: Instant::now() + PATIENCE, askers, look });
        self.tell_all(ToAgent::Where { question: number });
        self.finish_inquiry(false);
    }

    /// An agent says where its ranks are.
    pub(super) fn handle_whereabouts(&mut self, host: u32, question: u32, worlds: Vec<(u32, Vec<Found>)>) {
        let Some(inquiry) = self.inquiry.as_mut().filter(|inquiry| inquiry.number == question) else {
            return;
        };
        if inquiry.open.remove(&host) {
            for (world, ranks) in worlds {
                ranks.into_iter().for_each(|found| inquiry.found.add(world, found));
            }
        }
        self.finish_inquiry(false);
    }

    /// Nothing more will come from these hosts.
    pub(super) fn leave_out(&mut self, hosts: impl IntoIterator<Item = u32>) {
        if let Some(inquiry) = &mut self.inquiry {
            for host in hosts {
                inquiry.open.remove(&host);
            }
            self.finish_inquiry(false);
        }
    }

    /// When [`watch_inquiry`](Front::watch_inquiry) has something to do.
    pub(super) fn inquiry_deadline(&self) -> Option<Instant> {
        let reception = self.reception.as_ref().and_then(super::Reception::deadline);
        self.inquiry.as_ref().map(|inquiry| inquiry.until).into_iter().chain(reception).min()
    }

    /// Answers with what there is when agents take too long.
    pub(super) fn watch_inquiry(&mut self) {
        let now = Instant::now();
        if self.inquiry.as_ref().is_some_and(|inquiry| now >= inquiry.until) {
            self.finish_inquiry(true);
        }
        if let Some(reception) = &mut self.reception {
            reception.handle_time(now);
        }
    }

    /// Answers, if all is there that will come, or else if we must.
    pub(super) fn finish_inquiry(&mut self, at_once: bool) {
        let Some(inquiry) = self.inquiry.take_if(|inquiry| at_once || inquiry.open.is_empty()) else {
            return;
        };
        if !inquiry.askers.is_empty() {
            let json = inquiry.found.json();
            inquiry.askers.iter().for_each(|asker| self.answer(*asker, json.clone()));
        }
        let text = match inquiry.look {
            Some(Look::Table) => inquiry.found.text(ROWS_MAX),
            Some(Look::Sentence) if inquiry.found.has_waiting() => {
                let sentences = inquiry.found.sentences();
                sentences.first().map(|first| format!("when it happened, {first}\n")).unwrap_or_default()
            }
            _ => return,
        };
        self.outlet.show(Stream::Err, text);
    }
}
