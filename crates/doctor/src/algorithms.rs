//! `selvedge algorithms`: what a job would choose for a collective, what the others would cost, and what a rank does in one.
//!
//! The estimates are those that a job chooses by, from the same function; none is a measurement.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};
use selvedge_coll::{Algorithm, Collective, Rank, Shape, estimate, explain, generate, parse_bytes, select};
use selvedge_transport::{Link, Machine};

use crate::cli::Cli;

/// Most ranks that a schedule is written for: its generator takes memory by the rank.
const RANKS_MAX: i64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Algorithms {
    /// A collective (allreduce), or one of its algorithms (allreduce/ring, broadcast/knomial:4); without it, all collectives
    of: Option<Subject>,
    /// Ranks that take part
    #[arg(long, short = 'n', default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=RANKS_MAX))]
    ranks: u32,
    /// Ranks on each host; without it, all are on one
    #[arg(long, short = 'N', value_parser = clap::value_parser!(u32).range(1..=RANKS_MAX))]
    per_host: Option<u32>,
    /// Processors of each host; without it, one for each of its ranks
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=RANKS_MAX))]
    cores: Option<u32>,
    /// Bytes that each rank contributes (for each other rank, in alltoall): 8, 64KiB, 1MiB
    #[arg(long, short = 'm', default_value = "8", value_parser = bytes, value_name = "BYTES")]
    bytes: u64,
    /// What leads to other hosts
    #[arg(long, value_enum, default_value_t = Road::Efa)]
    road: Road,
    /// The operation does not commute
    #[arg(long)]
    ordered: bool,
    /// Print the schedule of this rank instead: of the algorithm that is named, else of the one that is chosen
    #[arg(long, value_name = "RANK", requires = "of")]
    schedule: Option<u32>,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// All ways to do it.
    Collective(Collective),
    /// One of them.
    Algorithm(Algorithm),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Road {
    /// EFA devices.
    Efa,
    /// TCP over ENA.
    Tcp,
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Subject, String> {
        let known = Collective::all(Rank(0));
        if let Some(collective) = known.into_iter().find(|&collective| collective.name() == text) {
            return Ok(Subject::Collective(collective));
        }
        text.parse().map(Subject::Algorithm).map_err(|error| match text.contains('/') {
            true => error.to_string(),
            false => {
                format!("there is no such collective; there are {}", known.map(Collective::name).join(", "))
            }
        })
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write bytes, or a number with KiB, MiB or GiB".to_owned())
}

impl Algorithms {
    pub(crate) fn tell(&self) -> ExitCode {
        let text =
            self.answer().unwrap_or_else(|why| Cli::command().error(ErrorKind::ValueValidation, why).exit());
        crate::cli::answer(text.as_bytes(), ExitCode::SUCCESS)
    }

    fn answer(&self) -> Result<String, String> {
        let subjects = match self.of {
            None => Collective::all(Rank(0)).map(Subject::Collective).to_vec(),
            Some(one) => vec![one],
        };
        let parts: Result<Vec<String>, String> = subjects.into_iter().map(|one| self.about(one)).collect();
        Ok(parts?.join("\n"))
    }

    fn about(&self, subject: Subject) -> Result<String, String> {
        let collective = match subject {
            Subject::Collective(collective) => collective,
            Subject::Algorithm(algorithm) => collective_of(algorithm),
        };
        let shape = self.shape(collective);
        if !shape.is_valid() {
            return Err(format!(
                "{} bytes on {} ranks are more than 64 bits can count",
                self.bytes, self.ranks
            ));
        }
        let wanted = match subject {
            Subject::Collective(_) => None,
            Subject::Algorithm(algorithm) => match algorithm.fits(&shape) {
                Ok(()) => Some(algorithm),
                Err(why) => return Err(format!("{algorithm} cannot do this: {why}")),
            },
        };
        let mut text = format!("{}\n", Title { shape: &shape, asked: self });
        match self.schedule {
            None => self.prices(&shape, wanted, &mut text),
            Some(rank) if rank < self.ranks => {
                let algorithm = wanted.unwrap_or_else(|| select(&shape, &self.machine()));
                let _ = write!(text, "rank {rank}, {algorithm}\n{}", generate(algorithm, &shape, Rank(rank)));
            }
            Some(rank) => return Err(format!("there is no rank {rank}: {} ranks count from 0", self.ranks)),
        }
        Ok(text)
    }

    /// A line for each way that can do it, the one that a job takes first.
    fn prices(&self, shape: &Shape, wanted: Option<Algorithm>, text: &mut String) {
        let mut costs = explain(shape, &self.machine());
        // One with a parameter of its own is not among those that are chosen from.
        if let Some(own) = wanted.filter(|wanted| costs.iter().all(|(known, _)| known != wanted)) {
            costs.push((own, estimate(own, shape, &self.machine())));
        }
        for (place, (algorithm, cost)) in costs.into_iter().enumerate() {
            let mark = match (place, wanted == Some(algorithm)) {
                (0, true) => "  chosen, and asked about",
                (0, false) => "  chosen",
                (_, true) => "  asked about",
                (_, false) => "",
            };
            let _ = writeln!(text, "{:>12}  {algorithm}{mark}", cost.to_string());
        }
        for algorithm in Algorithm::all_for(shape.collective) {
            if let Err(why) = algorithm.fits(shape) {
                let _ = writeln!(text, "{:>12}  {algorithm}  not here: {why}", "-");
            }
        }
    }

    fn shape(&self, collective: Collective) -> Shape {
        // Reductions cut vectors between elements: of 8 bytes, where that is possible.
        let element_bytes = if self.bytes.is_multiple_of(8) { 8 } else { 1 };
        let count = if collective == Collective::Barrier { 0 } else { self.bytes / u64::from(element_bytes) };
        Shape { collective, ranks: self.ranks, count, element_bytes, commutative: !self.ordered }
    }

    fn machine(&self) -> Machine {
        let ranks_per_host = self.per_host.unwrap_or(self.ranks).min(self.ranks);
        let remote = match self.road {
            Road::Efa => Link::EFA,
            Road::Tcp => Link::TCP,
        };
        Machine { remote, ..Machine::one_host(ranks_per_host, self.cores.unwrap_or(ranks_per_host)) }
    }
}

fn collective_of(algorithm: Algorithm) -> Collective {
    let text = algorithm.to_string();
    let family = text.split('/').next();
    let known = Collective::all(Rank(0)).into_iter().find(|&collective| Some(collective.name()) == family);
    known.expect("names of algorithms begin with their collective")
}

/// What is priced, in a line.
struct Title<'a> {
    shape: &'a Shape,
    asked: &'a Algorithms,
}

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { ranks_per_host, .. } = self.asked.machine();
        let (ranks, hosts) = (self.shape.ranks, self.shape.ranks.div_ceil(ranks_per_host));
        write!(f, "{}", self.shape.collective.name())?;
        if self.shape.collective != Collective::Barrier {
            write!(f, " of {} bytes", self.shape.bytes())?;
        }
        write!(f, " among {ranks} ranks on ")?;
        match (hosts, self.asked.road) {
            (1, _) => write!(f, "one host"),
            (_, Road::Efa) => write!(f, "{hosts} hosts, EFA between them"),
            (_, Road::Tcp) => write!(f, "{hosts} hosts, TCP between them"),
        }?;
        write!(f, "; estimated, not measured")
    }
}
