//! All worlds of a job side by side. Ranks of one world say whom of that world they wait for, so each is looked at by itself.

use selvedge_boot::asking;
use serde::Serialize;

use super::{Answer, Found, Whereabouts};

/// What is known of the ranks of every world. A job that spawns nothing has one, and is told about without a word of worlds.
#[derive(Clone, Debug)]
pub struct Worlds {
    job: String,
    hosts: Vec<String>,
    /// Numbers of worlds, ascending.
    worlds: Vec<(u32, Whereabouts)>,
}

/// The answer for programs where there are several worlds.
#[derive(Debug, Serialize)]
struct Answers<'a> {
    #[serde(flatten)]
    told: asking::Whereabouts,
    worlds: Vec<OfWorld<'a>>,
}

#[derive(Debug, Serialize)]
struct OfWorld<'a> {
    world: u32,
    #[serde(flatten)]
    answer: Answer<'a>,
}

impl Worlds {
    /// Of the job of that name on these hosts: the worlds' numbers, and for each the host of each rank.
    pub fn new(job: &str, hosts: &[String], worlds: impl IntoIterator<Item = (u32, Vec<u32>)>) -> Worlds {
        let world = |(number, ranks)| (number, Whereabouts::new(job, hosts.to_vec(), ranks));
        Worlds { job: job.to_owned(), hosts: hosts.to_vec(), worlds: worlds.into_iter().map(world).collect() }
    }

    /// A rank of a world has been found. Nothing where there is no such world or rank.
    pub fn add(&mut self, world: u32, found: Found) {
        if let Some((_, world)) = self.worlds.iter_mut().find(|(number, _)| *number == world) {
            world.add(found);
        }
    }

    /// Whether some rank has written down that it waits.
    pub fn has_waiting(&self) -> bool {
        self.worlds.iter().any(|(_, world)| world.has_waiting())
    }

    /// Who holds the others up. Never empty.
    pub fn sentences(&self) -> Vec<String> {
        let of_world = |(number, world): &(u32, Whereabouts)| {
            let place = if self.worlds.len() > 1 { format!("in world {number}, ") } else { String::new() };
            world.sentences().into_iter().map(move |sentence| place.clone() + &sentence).collect::<Vec<_>>()
        };
        let sentences: Vec<String> = self.worlds.iter().flat_map(of_world).collect();
        if sentences.is_empty() { self.nobody().sentences() } else { sentences }
    }

    /// A table of at most `rows_max` ranks of each world, and the verdict below it.
    pub fn text(&self, rows_max: usize) -> String {
        match &self.worlds[..] {
            [] => self.nobody().text(rows_max),
            [(_, alone)] => alone.text(rows_max),
            worlds => {
                let text = |(number, world): &(u32, Whereabouts)| {
                    format!("world {number}:\n{}", world.text(rows_max))
                };
                worlds.iter().map(text).collect()
            }
        }
    }

    /// All of it as JSON.
    pub fn json(&self) -> Vec<u8> {
        match &self.worlds[..] {
            [] => self.nobody().json(),
            [(_, alone)] => alone.json(),
            worlds => {
                let reasons: Vec<_> = worlds.iter().map(|(_, world)| world.verdict()).collect();
                let told = asking::Whereabouts {
                    job: self.job.clone(),
                    verdict: self.sentences(),
                    text: self.text(usize::MAX),
                };
                let numbered = worlds.iter().zip(&reasons);
                let worlds = numbered
                    .map(|((number, world), reasons)| OfWorld {
                        world: *number,
                        answer: world.answer(reasons),
                    })
                    .collect();
                serde_json::to_vec(&Answers { told, worlds }).expect("plain data can be written as JSON")
            }
        }
    }

    /// The job before it has any rank.
    fn nobody(&self) -> Whereabouts {
        Whereabouts::new(&self.job, self.hosts.clone(), [])
    }
}
