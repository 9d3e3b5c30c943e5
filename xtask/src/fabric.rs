//! Our programs on libfabric: `osu` with its data check and the storm's programs, over TCP and on software EFA devices that
//! reorder, lose and refuse.
//!
//! A job that took another road than it was told would prove nothing, so what the ranks received is held against what
//! loopback or the devices counted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::count::{self, Score};
use crate::manifests::Workspace;
use crate::osu::{answer_in, answer_of, loopback_bytes, parse_rows, received_bytes};
use crate::shell::Run;
use crate::softefa::{Counters, Devices};

/// Longest that one job may take on a busy machine.
const JOB_MAX: Duration = Duration::from_secs(40);

/// What the devices do to packets.
const FAULTS: [&str; 8] = ["--reorder", "20%", "--drop", "2%", "--rnr", "5%", "--seed", "1"];

/// The counters that show that each of them was done.
const FAULTS_COUNTED: [&str; 3] = ["softefa_faults_held", "softefa_faults_dropped", "softefa_faults_rnr"];

/// Benchmarks in the middle of which a device dies: while packets go, and while reads do.
const ON_RAILS: [&[&str]; 2] = [
    &["bw", "-m", "2048:262144", "-i", "12", "-x", "1", "-W", "64"],
    &["bw", "-m", "524288:1048576", "-i", "30", "-x", "1", "-W", "64"],
];

/// Packets that go over the device before its link dies: some of the many thousand of each benchmark.
const CUT_AFTER: usize = 1500;

/// Seeds of the storm on each road.
const STORM_SEEDS: usize = 20;

/// Threads of each rank in the storm of threads, and its seeds in shared memory, over tcp and on devices that lose packets.
const THREADS: usize = 3;
const THREADS_SEEDS: [usize; 3] = [300, 40, 10];

/// Benchmarks between two ranks and with all, each with sizes on both sides of every change of protocol.
const PAIRS: [&[&str]; 2] = [
    &["latency", "-m", "1:262144", "-i", "20", "-x", "2"],
    &["bw", "-m", "1:65536", "-i", "3", "-x", "1", "-W", "64"],
];
const COLLECTIVES: [&[&str]; 3] = [
    &["allreduce", "-m", "8:65536", "-i", "5", "-x", "1"],
    &["alltoall", "-m", "8:16384", "-i", "5", "-x", "1"],
    &["bcast", "-m", "8:65536", "-i", "5", "-x", "1"],
];

/// A libfabric to run on.
#[derive(Clone, Debug)]
pub struct Libfabric {
    /// What it is, in words.
    pub name: &'static str,
    /// Where it is; the system's own where nothing is said.
    pub path: Option<PathBuf>,
    /// Whether it has the road `efa-direct` (2.1 and newer).
    pub has_direct: bool,
}

/// Where jobs run.
struct Stage<'a> {
    workspace: &'a Workspace,
    began: Instant,
    limit: Duration,
    score: Score,
}

/// Runs every job, each within its time and all within `limit`. The first failure on a road of a library ends that road.
pub fn run(workspace: &Workspace, libraries: &[Libfabric], limit: Duration) -> Score {
    let mut stage = Stage { workspace, began: Instant::now(), limit, score: Score::default() };
    let _ = stage.storm("shm", None, None);
    let _ = stage.storm_of_threads("shm", None, None);
    for library in libraries {
        let _ = stage.over_tcp(library);
        let _ = stage.on_devices("efa", library);
        if library.has_direct {
            let _ = stage.on_devices("efa-direct", library);
            let _ = stage.on_dying_rails("efa-direct", library);
        } else {
            let _ = stage.on_dying_rails("efa", library);
        }
    }
    stage.score
}

impl Stage<'_> {
    fn over_tcp(&mut self, library: &Libfabric) -> ControlFlow<()> {
        for bench in PAIRS.into_iter().chain(COLLECTIVES) {
            let name = format!("{} over tcp of {}", bench[0], library.name);
            self.check(&name, |stage| {
                let before = loopback_bytes()?;
                let answer = answer_of(stage.job("tcp", 2, Some(library), None, "osu", &checked(bench)))?;
                holds(&answer, bench[0], 2, loopback_bytes()?.saturating_sub(before))
            })?;
        }
        self.storm("tcp", Some(library), None)?;
        self.storm_of_threads("tcp", Some(library), None)?;
        self.storm_of_threads("shm and tcp", Some(library), None)
    }

    /// Every benchmark and the storm on two and four make-believe hosts, and all faults must have struck by then.
    fn on_devices(&mut self, road: &str, library: &Libfabric) -> ControlFlow<()> {
        let mut struck = [0; FAULTS_COUNTED.len()];
        for ranks in [2, 4] {
            let devices = Devices::new(self.workspace, ranks).with(FAULTS);
            let pairs = PAIRS.iter().filter(|_| ranks == 2);
            for bench in pairs.chain(&COLLECTIVES) {
                let name = format!("{} over {road} of {} on {ranks} hosts", bench[0], library.name);
                self.check(&name, |stage| {
                    devices.reset()?;
                    let job = stage.job(road, ranks, Some(library), Some(&devices), "osu", &checked(bench));
                    let answer = answer_of(job)?;
                    let counters = devices.counters()?;
                    add(&mut struck, &counters);
                    holds(&answer, bench[0], ranks, counters.delivered_bytes())
                })?;
            }
        }
        self.check(&format!("every fault struck over {road} of {}", library.name), |_| {
            let none = FAULTS_COUNTED.iter().zip(struck).find(|(_, count)| *count == 0);
            none.map_or(Ok(()), |(name, _)| Err(format!("{name} is 0 after all jobs: {struck:?}")))
        })?;
        let devices = Devices::new(self.workspace, 4).with(FAULTS);
        self.storm(road, Some(library), Some(&devices))?;
        self.storm_of_threads(road, Some(library), Some(&devices))
    }

    /// Two hosts with two devices each, and with four, of which one loses its link in the middle of a bandwidth run: the
    /// home of rank 0, by which its packets go and some of its bytes are read. The job ends well with the right data, says
    /// which device was left, and others have carried on.
    fn on_dying_rails(&mut self, road: &str, library: &Libfabric) -> ControlFlow<()> {
        for (each, bench) in [2, 4].into_iter().flat_map(|each| ON_RAILS.map(|bench| (each, bench))) {
            let what = format!("bw of {} bytes over {road} of {}", bench[2], library.name);
            let name = format!("{what} on {each} devices, of which one dies");
            self.check(&name, |stage| {
                let cut = format!("127.77.0.1/0#{CUT_AFTER}");
                let each = each.to_string();
                let options = ["--devices-per-host", &each, "--cut", &cut, "--set", "PEER_TIMEOUT_MS=1000"];
                let devices = Devices::new(stage.workspace, 2).with(options);
                devices.reset()?;
                let job = stage.job(road, 2, Some(library), Some(&devices), "osu", &checked(bench));
                let outcome = job.quiet().collect();
                if !outcome.is_ok() {
                    return Err(outcome.reason());
                }
                let answer = answer_in(&outcome)?;
                for (bytes, rate) in parse_rows(&answer, "mb_s")? {
                    println!("    {bytes:>8} bytes {rate:>8.0} MB/s");
                }
                let by_device = devices.counters_by_device()?;
                print_rails(&by_device);
                holds(&answer, bench[0], 2, devices.counters()?.delivered_bytes())?;
                survived(&by_device, 0, &format!("{}{}", outcome.text, outcome.errors))
            })?;
        }
        ControlFlow::Continue(())
    }

    fn storm(
        &mut self,
        road: &str,
        library: Option<&Libfabric>,
        devices: Option<&Devices>,
    ) -> ControlFlow<()> {
        let of = library.map_or_else(String::new, |library| format!(" of {}", library.name));
        self.check(&format!("the storm on four ranks over {road}{of}"), |stage| {
            let seeds = STORM_SEEDS.to_string();
            let job = stage.job(road, 4, library, devices, "storm", &["--real", "--seeds", &seeds]);
            let outcome = job.quiet().collect();
            if !outcome.is_ok() {
                return Err(outcome.reason());
            }
            let seeds = count::number_before(&outcome.text, " seeds on 4 ranks over");
            // It says itself which roads it had.
            if seeds == STORM_SEEDS && outcome.text.contains(&format!(" over {road}, ")) {
                Ok(())
            } else {
                Err(format!("not {STORM_SEEDS} seeds over {road}: {}", outcome.text.trim()))
            }
        })
    }

    /// Several threads of each of four ranks at the same time, over one road or, on two make-believe hosts, over both.
    fn storm_of_threads(
        &mut self,
        roads: &str,
        library: Option<&Libfabric>,
        devices: Option<&Devices>,
    ) -> ControlFlow<()> {
        let of = library.map_or_else(String::new, |library| format!(" of {}", library.name));
        self.check(&format!("the storm of threads over {roads}{of}"), |stage| {
            let seeds = match (devices, roads) {
                (Some(_), _) => THREADS_SEEDS[2],
                (None, "shm") => THREADS_SEEDS[0],
                (None, _) => THREADS_SEEDS[1],
            };
            let (threads, many) = (THREADS.to_string(), seeds.to_string());
            let words = ["--real", "--threads", &threads, "--seeds", &many];
            let job = match roads {
                "shm and tcp" => stage.job_of_two_hosts(library, &words),
                road => stage.job(road, 4, library, devices, "storm", &words),
            };
            let outcome = job.quiet().collect();
            if !outcome.is_ok() {
                return Err(outcome.reason());
            }
            let said = format!(" seeds on 4 ranks with {threads} threads each over {roads}, 0 violations");
            match count::number_before(&outcome.text, &said) {
                counted if counted == seeds => Ok(()),
                _ => Err(format!("not {seeds} seeds over {roads}: {}", outcome.text.trim())),
            }
        })
    }

    /// The storm on two ranks of each of two make-believe hosts, with a road within and another between them.
    fn job_of_two_hosts(&self, library: Option<&Libfabric>, arguments: &[&str]) -> Run {
        let storm = self.workspace.release("storm").into_os_string();
        let host = |name: &str| {
            let options = ["-n", "2", "-env", "SELVEDGE_HOST", name].map(OsString::from);
            let arguments = arguments.iter().map(OsString::from);
            options.into_iter().chain([storm.clone()]).chain(arguments).collect::<Vec<_>>()
        };
        let words = host("one").into_iter().chain([OsString::from(":")]).chain(host("two"));
        let path = library.and_then(|library| library.path.as_ref());
        let run = Run::new(self.workspace.release("mpirun"), words);
        path.into_iter().fold(run, |run, path| run.env("SELVEDGE_LIBFABRIC", path)).at_most(JOB_MAX)
    }

    /// One of our programs on `ranks` ranks that may take this road only.
    fn job(
        &self,
        road: &str,
        ranks: usize,
        library: Option<&Libfabric>,
        devices: Option<&Devices>,
        program: &str,
        arguments: &[&str],
    ) -> Run {
        let mpirun = self.workspace.release("mpirun");
        let ranks = ranks.to_string();
        let words = ["--transport", road, "--require", road, "-n", &ranks].map(OsString::from).into_iter();
        let words = words.chain([self.workspace.release(program).into()]);
        let words = words.chain(arguments.iter().map(OsString::from));
        let run = match devices {
            None => Run::new(mpirun, words),
            Some(devices) => {
                let (softefa, words) = devices.around([mpirun.into()].into_iter().chain(words));
                Run::new(softefa, words)
            }
        };
        let path = library.and_then(|library| library.path.as_ref());
        path.into_iter().fold(run, |run, path| run.env("SELVEDGE_LIBFABRIC", path)).at_most(JOB_MAX)
    }

    /// Counts a job; breaks where it failed.
    fn check(&mut self, name: &str, job: impl FnOnce(&Self) -> Result<(), String>) -> ControlFlow<()> {
        println!("{name}");
        let result =
            if self.began.elapsed() < self.limit { job(self) } else { Err("no time was left".to_string()) };
        let held = result.is_ok();
        self.score.check(&format!("fabric: {name}"), result);
        if held { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// What each rail has carried.
fn print_rails(by_device: &BTreeMap<String, Counters>) {
    for (device, counters) in by_device {
        let [packets, reads] = ["recv_bytes", "rdma_read_bytes"].map(|name| counters.get(name));
        let lost = counters.get("unresponsive_remote_events");
        println!("    {device}: {packets} bytes in packets, {reads} bytes read, {lost} peers unresponsive");
    }
}

/// Whether the device of the first host that was cut off was used, found dead and named, and others of both hosts
/// carried more than it.
fn survived(by_device: &BTreeMap<String, Counters>, device: usize, said: &str) -> Result<(), String> {
    let own = format!("127.77.0.1 softefa{device}");
    let lost: u64 = by_device.values().map(|counters| counters.get("unresponsive_remote_events")).sum();
    let used = by_device.get(&own).map_or(0, |counters| counters.get("tx_bytes"));
    let others: u64 = by_device
        .iter()
        .filter(|(name, _)| name.starts_with("127.77.0.1") && **name != own)
        .map(|(_, counters)| counters.get("tx_bytes"))
        .sum();
    if lost == 0 || used == 0 {
        return Err(format!("{own} did not die in the middle: it sent {used} bytes, {lost} were missed"));
    }
    if !said.contains("nothing gets through between") {
        return Err(format!("nobody said that {own} was left: {said}"));
    }
    if others > used { Ok(()) } else { Err(format!("{own} sent {used} bytes, and all others {others}")) }
}

/// The arguments of a benchmark that checks its data and prints JSON.
fn checked<'a>(bench: &[&'a str]) -> Vec<&'a str> {
    bench.iter().copied().chain(["-c", "--json", "-"]).collect()
}

fn add(struck: &mut [u64; FAULTS_COUNTED.len()], counters: &Counters) {
    for (sum, name) in struck.iter_mut().zip(FAULTS_COUNTED) {
        *sum += counters.get(name);
    }
}

/// Whether this benchmark ran on so many ranks, every byte was right, and `carried` bytes are enough for it.
fn holds(answer: &Value, bench: &str, ranks: usize, carried: u64) -> Result<(), String> {
    if answer["bench"] != bench || answer["ranks"] != ranks {
        return Err(format!("expected {bench} on {ranks} ranks, got {answer}"));
    }
    let rows = answer["rows"].as_array().filter(|rows| !rows.is_empty()).ok_or("it printed no rows")?;
    if let Some(wrong) = rows.iter().find(|row| row["valid"] != true) {
        return Err(format!("the data was not checked, or is wrong: {wrong}"));
    }
    let needed = received_bytes(answer)?;
    if carried >= needed {
        return Ok(());
    }
    Err(format!("the ranks received {needed} bytes, and the road carried {carried}: they took another"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(valid: bool) -> Value {
        let rows = json!([{"bytes": 8, "iterations": 10, "valid": true}, {"bytes": 16, "iterations": 10, "valid": valid}]);
        json!({"bench": "allreduce", "ranks": 4, "rows": rows})
    }

    #[test]
    fn a_wrong_byte_a_missing_rank_or_another_road_is_a_failure() {
        assert_eq!(holds(&answer(true), "allreduce", 4, 960), Ok(()));
        assert!(holds(&answer(false), "allreduce", 4, 960).expect_err("wrong").contains("is wrong"));
        assert!(holds(&answer(true), "allreduce", 4, 959).expect_err("elsewhere").contains("another"));
        assert!(
            holds(&answer(true), "allreduce", 2, 960).is_err()
                && holds(&answer(true), "bcast", 4, 960).is_err()
        );
        assert!(holds(&json!({"bench": "bw", "ranks": 2, "rows": []}), "bw", 2, 0).is_err());
    }

    #[test]
    fn a_device_that_did_not_die_or_that_nobody_named_or_replaced_is_a_failure() {
        let counters = |name: &str, sent: u64, lost: u64| {
            let text = format!("{name} tx_bytes {sent}\n{name} unresponsive_remote_events {lost}\n");
            Counters::by(&text, str::to_string)
        };
        let both = |lost, other| {
            let mut all = counters("127.77.0.1 softefa0", 100, lost);
            all.extend(counters("127.77.0.1 softefa1", other, 0));
            all
        };
        let said = "nothing gets through between softefa0-rdm and rail 0 of peer 1";
        assert_eq!(survived(&both(1, 101), 0, said), Ok(()));
        assert!(survived(&both(0, 101), 0, said).is_err_and(|why| why.contains("did not die")));
        assert!(survived(&both(1, 101), 0, "").is_err_and(|why| why.contains("nobody said")));
        assert!(survived(&both(1, 99), 0, said).is_err_and(|why| why.contains("all others 99")));
    }
}
