//! `osu` across many hosts: two, four and thirty-two of them, made of namespaces of this machine, with 1 to 8 ranks on each,
//! over tcp and over software EFA devices.
//!
//! What is proved is that jobs of that shape start, that every byte is right, that the bytes went between the hosts, and that
//! nothing is left. Times are printed and prove nothing: all hosts share the processors of one machine.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use selvedge_testbed::Hosts;
use serde_json::Value;

use crate::count::Score;
use crate::hosts::nothing_is_left;
use crate::manifests::Workspace;
use crate::osu::{answer_of, parse_rows};
use crate::shell::Run;
use crate::softefa::Devices;
use crate::tools;
use crate::wheels;

/// Longest that one job may take on a busy machine.
const JOB_MAX: Duration = Duration::from_secs(120);

/// Hosts, and ranks on each. A crowd goes over tcp alone where all of it is a test among others: with a device of software for
/// each rank a job takes half a minute of a few processors.
const GRIDS: [(usize, usize); 8] = [(2, 1), (2, 2), (2, 8), (4, 2), (4, 4), (32, 1), (32, 2), (32, 8)];

/// How ranks of different hosts reach each other; those of one host share memory.
const ROADS: [&str; 3] = ["tcp", "efa", "efa-direct"];

/// Ranks from which on a job has fewer sizes and iterations, and still fewer: all of them share a few processors.
const MANY: usize = 16;
const CROWD: usize = 128;

/// The collectives of every grid. Few ranks try sizes on both sides of every change of protocol, which has nothing to do
/// with their number.
const COLLECTIVES: [Bench; 2] = [
    Bench { name: "allreduce", range: ["8:65536", "8:16", "8:8"] },
    Bench { name: "alltoall", range: ["8:16384", "8:16", "8:8"] },
];

/// Between the first host and the last.
const LATENCY: Bench = Bench { name: "latency", range: ["8:65536"; 3] };

/// A benchmark, and its sizes for few ranks, for many and for a crowd.
#[derive(Clone, Copy, Debug)]
struct Bench {
    name: &'static str,
    range: [&'static str; 3],
}

/// One job.
#[derive(Clone, Copy, Debug)]
struct Job {
    bench: Bench,
    road: &'static str,
    /// Of the testbed. `latency` uses two of them.
    hosts: usize,
    each: usize,
}

/// A job and how it went.
#[derive(Debug)]
struct Cell {
    job: Job,
    /// Microseconds of the smallest message, and seconds of the whole job.
    went: Result<(f64, f64), String>,
}

/// Where jobs run.
struct Scene<'a> {
    workspace: &'a Workspace,
    /// A libfabric that has all roads.
    libfabric: PathBuf,
    extent: Extent,
    began: Instant,
    limit: Duration,
    score: Score,
    cells: Vec<Cell>,
}

/// Longest that all of them may take where somebody asks for the table alone.
const TABLE_MAX: Duration = Duration::from_secs(900);

/// How much of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A crowd of ranks over tcp alone.
    Some,
    /// Every grid over every road.
    All,
}

/// Numbers of hosts that there are grids of.
pub const HOST_COUNTS: [usize; 3] = [2, 4, 32];

/// `cargo xtask cluster`: builds, installs, and runs every job on each of these numbers of hosts. Whether all went well.
pub fn run_table(counts: &[usize]) -> bool {
    let workspace = Workspace::load();
    let packages = ["-p", "selvedge-launcher", "-p", "selvedge-benches", "-p", "selvedge-softefa"];
    let words = ["build", "--release", "--locked"].into_iter().chain(packages);
    let built = Run::cargo(words).inside(&workspace.root).in_the_open();
    let ready = if built.is_ok() { tools::fabric().and(tools::hosts()) } else { Err(built.why) };
    let wheel = ready.and_then(|()| wheels::MPICH.installed(&workspace.target, &tools::python()?));
    let score = match wheel {
        Ok(wheel) => run(&workspace, wheel.libfabric().to_path_buf(), (counts, Extent::All), TABLE_MAX),
        Err(reason) => Score::failure(format!("cluster: {reason}")),
    };
    for reason in &score.reasons {
        println!("FAILED {reason}");
    }
    println!("{} passed, {} failed", score.passed, score.failed);
    score.failed == 0
}

/// Runs every job on each of these numbers of hosts, each within its time and all within `limit`, and prints the table.
/// `libfabric`: one that has `efa-direct`.
pub fn run(
    workspace: &Workspace,
    libfabric: PathBuf,
    (counts, extent): (&[usize], Extent),
    limit: Duration,
) -> Score {
    let (score, cells) = (Score::default(), Vec::new());
    let mut scene = Scene { workspace, libfabric, extent, began: Instant::now(), limit, score, cells };
    for &count in counts {
        match Hosts::new(count) {
            Ok(hosts) => scene.on(&hosts),
            Err(error) => scene.score.check(&format!("cluster: {count} hosts"), Err(error.to_string())),
        }
    }
    println!("\n{}", table(&scene.cells));
    scene.score
}

impl Scene<'_> {
    fn on(&mut self, hosts: &Hosts) {
        let count = hosts.count();
        for road in ROADS {
            self.check(hosts, Job { bench: LATENCY, road, hosts: count, each: 1 });
            let has_crowds = road == "tcp" || self.extent == Extent::All;
            let is_meant = |grid: &(usize, usize)| grid.0 == count && (has_crowds || count * grid.1 < CROWD);
            for (_, each) in GRIDS.into_iter().filter(is_meant) {
                for bench in COLLECTIVES {
                    self.check(hosts, Job { bench, road, hosts: count, each });
                }
            }
            let nothing = nothing_is_left(hosts);
            self.score.check(&format!("cluster: nothing of {road} is left on {count} hosts"), nothing);
        }
    }

    fn check(&mut self, hosts: &Hosts, job: Job) {
        let name = format!("cluster: {}", job.name());
        let went = match self.began.elapsed() < self.limit {
            true => self.measure(hosts, job),
            false => Err("no time was left".to_string()),
        };
        match &went {
            Ok((us, seconds)) => println!("{}: {us:.0} us, {seconds:.1} s in all", job.name()),
            Err(reason) => println!("{}: {reason}", job.name()),
        }
        self.score.check(&name, went.as_ref().map(|_| ()).map_err(String::clone));
        self.cells.push(Cell { job, went });
    }

    fn measure(&self, hosts: &Hosts, job: Job) -> Result<(f64, f64), String> {
        let devices = Devices::counted_in(self.workspace, hosts.folder().join("devices"));
        devices.reset()?;
        let before = sent_bytes(hosts)?;
        let began = Instant::now();
        let answer = answer_of(self.command(hosts, &devices, job))?;
        let seconds = began.elapsed().as_secs_f64();
        let sent = sent_bytes(hosts)? - before;
        let carried = match job.road {
            "tcp" => sent,
            _ => sent.min(devices.counters()?.delivered_bytes()),
        };
        devices.reset()?;
        Ok((holds(&answer, job, carried)?, seconds))
    }

    fn command(&self, hosts: &Hosts, devices: &Devices, job: Job) -> Run {
        let mpirun = self.workspace.release("mpirun");
        let mut command = hosts.command("node1", mpirun);
        let names = hosts.names();
        let list = match job.bench.name {
            "latency" => format!("{},{}", names[0], names[names.len() - 1]),
            _ => names.join(","),
        };
        let (each, ranks) = (job.each.to_string(), job.ranks().to_string());
        command.args(["--agent".as_ref(), hosts.rsh().as_os_str()]);
        command.args(["-H", &list, "-ppn", &each, "-n", &ranks, "--oversubscribe", "--bind-to", "none"]);
        command.args(["--transport", &format!("shm,{}", job.road), "--require", job.road]);
        if job.road != "tcp" {
            let addresses = match job.bench.name {
                "latency" => [&names[0], &names[names.len() - 1]].map(|name| hosts.address(name)).to_vec(),
                _ => names.iter().map(|name| hosts.address(name)).collect(),
            };
            let library = self.workspace.release("libsoftefa.so");
            for variable in devices.variables(&library, &addresses) {
                command.args(["-x".into(), variable]);
            }
        }
        let crowd = [MANY, CROWD].iter().filter(|many| job.ranks() >= **many).count();
        let (range, iterations) = (job.bench.range[crowd], ["5", "2", "1"][crowd]);
        command.arg(self.workspace.release("osu"));
        command.args([job.bench.name, "-m", range, "-i", iterations, "-x", "1", "-c", "--json", "-"]);
        command.env("SELVEDGE_LIBFABRIC", &self.libfabric);
        Run::of(command).at_most(JOB_MAX)
    }
}

impl Job {
    fn ranks(&self) -> usize {
        if self.bench.name == "latency" { 2 } else { self.hosts * self.each }
    }

    fn name(&self) -> String {
        let Job { bench, road, hosts, each } = self;
        format!("{} over {road} on {hosts} hosts with {each} each", bench.name)
    }

    /// Bytes that must have gone from host to host for one iteration with messages of `bytes`.
    fn between_hosts(&self, bytes: u64) -> u64 {
        let (hosts, each) = (self.hosts as u64, self.each as u64);
        match self.bench.name {
            "latency" => 2 * bytes,
            "alltoall" => hosts * each * (hosts - 1) * each * bytes,
            // Every host but one hears what the others have, whatever the algorithm.
            _ => (hosts - 1) * bytes,
        }
    }
}

/// What has left all hosts together.
fn sent_bytes(hosts: &Hosts) -> Result<u64, String> {
    let sent = hosts.names().into_iter().map(|host| hosts.tx_bytes(&host));
    sent.sum::<Result<u64, _>>().map_err(|error| error.to_string())
}

/// The time of the smallest message, if every byte was right on so many ranks and `carried` bytes are enough for it.
fn holds(answer: &Value, job: Job, carried: u64) -> Result<f64, String> {
    if answer["bench"] != job.bench.name || answer["ranks"] != job.ranks() {
        return Err(format!("expected {} on {} ranks, got {answer}", job.bench.name, job.ranks()));
    }
    let rows = answer["rows"].as_array().filter(|rows| !rows.is_empty()).ok_or("it printed no rows")?;
    if let Some(wrong) = rows.iter().find(|row| row["valid"] != true) {
        return Err(format!("the data was not checked, or is wrong: {wrong}"));
    }
    let of_row = |row: &Value| Some(job.between_hosts(row["bytes"].as_u64()?) * row["iterations"].as_u64()?);
    let needed: u64 = rows.iter().map(of_row).sum::<Option<u64>>().ok_or("a row lacks its iterations")?;
    if carried < needed {
        return Err(format!("{needed} bytes had to go between hosts, and the road carried {carried}"));
    }
    let times = parse_rows(answer, "avg_us")?;
    times.first().map(|(_, us)| *us).ok_or_else(|| "it printed no times".to_string())
}

/// Jobs down, roads across.
fn table(cells: &[Cell]) -> String {
    let mut text = format!("{:<28}", "hosts x ranks on each");
    for road in ROADS {
        let _ = write!(text, "{road:<26}");
    }
    for cell in cells.iter().filter(|cell| cell.job.road == ROADS[0]) {
        let Job { bench, hosts, each, .. } = cell.job;
        let _ = write!(text, "\n{:<28}", format!("{hosts} x {each}, {}", bench.name));
        for road in ROADS {
            let is_this = |other: &&Cell| {
                let job = other.job;
                (job.road, job.bench.name, job.hosts, job.each) == (road, bench.name, hosts, each)
            };
            let said = match cells.iter().find(is_this).map(|cell| &cell.went) {
                Some(Ok((us, seconds))) => format!("{us:.0} us, {seconds:.1} s"),
                Some(Err(_)) => "FAILED".to_string(),
                None => "-".to_string(),
            };
            let _ = write!(text, "{said:<26}");
        }
    }
    text += "\n\nTime of the smallest message, and of the whole job with its start; every byte was checked. All hosts share the\n\
             processors of this machine, so that times say nothing about a network.";
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
