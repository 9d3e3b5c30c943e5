//! The figures of all rounds, and the tables of them.

use serde_json::{Value, json};

use super::road::{Figure, Job, Road};
use crate::demo::Floor;

/// What one contender made of one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    /// For each round the figure of each size: microseconds, or megabytes per second.
    pub(super) rounds: Vec<Vec<(u64, f64)>>,
    /// Why there are no further rounds.
    pub(super) gave_up: Option<String>,
}

/// Which of several rounds a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// What one may expect here and now.
    Median,
    /// What is left when others use the machine: the round they disturbed least.
    Best,
}

/// All of it.
pub(super) struct Comparison {
    pub(super) names: Vec<&'static str>,
    pub(super) road: Road,
    pub(super) cores: usize,
    /// Of shared memory; no other road has one.
    pub(super) floor: Option<Floor>,
    /// By job, then by contender.
    pub(super) results: Vec<Vec<Results>>,
}

impl Results {
    /// One figure out of those of the rounds. `None` where a round is missing: it would be of other conditions.
    fn figure(&self, job: &Job, bytes: u64, which: Which) -> Option<f64> {
        if self.gave_up.is_some() {
            return None;
        }
        let of_size =
            |rows: &Vec<(u64, f64)>| rows.iter().find(|(size, _)| *size == bytes).map(|(_, figure)| *figure);
        let mut all: Vec<f64> = self.rounds.iter().filter_map(of_size).collect();
        all.sort_by(f64::total_cmp);
        match which {
            Which::Median => Some((all.get(all.len().checked_sub(1)? / 2)? + all.get(all.len() / 2)?) / 2.0),
            Which::Best if job.figure == Figure::Rate => all.last().copied(),
            Which::Best => all.first().copied(),
        }
    }
}

impl Comparison {
    /// Times in microseconds and rates in megabytes per second, and behind each peer how much quicker Selvedge is.
    pub(super) fn table(&self, which: Which) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.2}"));
        let mut text = format!("{:<34}{:>10}{:>13}", "time in us, bw in MB/s", "floor", self.names[0]);
        for name in &self.names[1..] {
            text += &format!("{name:>13}{:>9}", "times");
        }
        text.push('\n');
        for (job, results) in self.road.jobs().iter().zip(&self.results) {
            for &bytes in job.sizes {
                let ours = results[0].figure(job, bytes, which);
                let floor =
                    self.floor.as_ref().filter(|_| job.bench == "latency" && job.figure == Figure::Time);
                let floor = floor.and_then(|floor| floor.at(bytes));
                text += &format!("{:<34}{:>10}{:>13}", self.what(job, bytes), figure(floor), figure(ours));
                for result in &results[1..] {
                    let theirs = result.figure(job, bytes, which);
                    let times = ours.zip(theirs).map(|(ours, theirs)| job.times(ours, theirs));
                    let times = times.map_or("-".to_string(), |times| format!("{times:.2}x"));
                    text += &format!("{:>13}{times:>9}", figure(theirs));
                }
                text.push('\n');
            }
        }
        text
    }

    fn what(&self, job: &Job, bytes: u64) -> String {
        let crowd = if job.ranks > self.cores { format!(" on {} cores", self.cores) } else { String::new() };
        if job.figure == Figure::Memory {
            return "memory of a rank, MiB".to_string();
        }
        format!("{} {}, {} ranks{crowd}", job.bench, size_in_words(bytes), job.ranks)
    }

    /// A line for each job that a library did not do.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (job, results) in self.road.jobs().iter().zip(&self.results) {
            for (name, result) in self.names.iter().zip(results) {
                let what = format!("{} on {} ranks", job.bench, job.ranks);
                lines.extend(result.gave_up.iter().map(|reason| format!("{name}, {what}: {reason}")));
            }
        }
        lines
    }

    /// Every figure of every round.
    pub(super) fn document(&self, others_running: usize) -> Value {
        let mut rows = Vec::new();
        for (job, results) in self.road.jobs().iter().zip(&self.results) {
            for (name, result) in self.names.iter().zip(results) {
                rows.push(json!({
                    "library": name,
                    "bench": job.bench,
                    "figure": format!("{:?}", job.figure).to_lowercase(),
                    "ranks": job.ranks,
                    "rounds": result.rounds,
                    "gave_up": result.gave_up,
                }));
            }
        }
        json!({ "bench": "peers", "road": self.road.name(), "cores": self.cores, "others_running": others_running, "rows": rows })
    }

    /// What is still wrong when the table is out.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let measured = |place: usize| self.results.iter().any(|results| !results[place].rounds.is_empty());
        let others = (1..self.names.len()).any(measured);
        match (self.results.iter().all(|results| results[0].gave_up.is_none()), others) {
            (true, true) => Ok(()),
            (false, _) => Err("Selvedge itself was not measured".to_string()),
            (_, false) => Err("no other library could be measured".to_string()),
        }
    }
}

fn size_in_words(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    fn answer(bench: &str, ranks: usize, us: f64) -> Value {
        let rows: Vec<_> =
            (3..23).map(|power| json!({"bytes": 1_u64 << power, "avg_us": us, "iterations": 1})).collect();
        json!({"bench": bench, "ranks": ranks, "memory_kib": us * 1024.0, "rows": rows})
    }

    fn results(job: &Job, times: &[f64]) -> Results {
        let rounds = times.iter().map(|us| job.rows_of(&answer(job.bench, job.ranks, *us)).expect("its own"));
        Results { rounds: rounds.collect(), gave_up: None }
    }

    fn floor() -> Floor {
        demo::parse_floor(&json!({"cache_line_us": 0.1, "memcpy": [{"bytes": 1024, "us": 0.05}]}))
            .expect("complete")
    }

    #[test]
    fn a_figure_is_the_median_of_the_rounds_and_times_is_theirs_over_ours() {
        let results = Road::Shm.jobs().iter().map(|job| {
            let given_up =
                Results { gave_up: Some("not done after 60 s, the limit".into()), ..results(job, &[7.0]) };
            vec![results(job, &[0.25, 9.0, 0.2]), results(job, &[0.5, 0.4, 0.6]), given_up]
        });
        let names = vec!["Selvedge", "MPICH", "Open MPI"];
        let comparison =
            Comparison { names, cores: 2, road: Road::Shm, floor: Some(floor()), results: results.collect() };
        let text = comparison.table(Which::Median);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["latency", "8", "B,", "2", "ranks", "0.10", "0.25", "0.50", "2.00x", "-", "-"]);
        assert_eq!(lines[2][5..7], ["0.10", "0.25"], "a cache line is the least for 1 KiB too");
        assert_eq!(lines[3][5..7], ["-", "0.25"], "no floor where it was not measured");
        let crowded = [
            "allreduce",
            "8",
            "B,",
            "4",
            "ranks",
            "on",
            "2",
            "cores",
            "-",
            "0.25",
            "0.50",
            "2.00x",
            "-",
            "-",
        ];
        assert_eq!(lines[8], crowded);
        assert_eq!(comparison.reasons()[0], "Open MPI, latency on 2 ranks: not done after 60 s, the limit");
        assert_eq!(comparison.verdict(), Ok(()));
        assert_eq!(comparison.document(0)["rows"][0]["rounds"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn the_median_of_two_rounds_lies_between_them_and_the_best_is_one_of_them() {
        let two = results(&Road::Shm.jobs()[1], &[1.0, 2.0]);
        assert_eq!(
            (
                two.figure(&Road::Shm.jobs()[1], 8, Which::Median),
                two.figure(&Road::Shm.jobs()[1], 8, Which::Best)
            ),
            (Some(1.5), Some(1.0))
        );
        let none = results(&Road::Shm.jobs()[1], &[]);
        assert_eq!(
            (
                none.figure(&Road::Shm.jobs()[1], 8, Which::Median),
                none.figure(&Road::Shm.jobs()[1], 8, Which::Best)
            ),
            (None, None)
        );
    }

    #[test]
    fn results_of_another_job_are_not_taken_for_this_one() {
        assert!(Road::Shm.jobs()[0].rows_of(&answer("latency", 1, 1.0)).is_err(), "a singleton");
        assert!(Road::Shm.jobs()[0].rows_of(&answer("allreduce", 2, 1.0)).is_err(), "another benchmark");
        assert!(
            Road::Shm.jobs()[1].rows_of(&json!({"bench": "allreduce", "ranks": 2, "rows": []})).is_err(),
            "no figures"
        );
    }

    #[test]
    fn without_figures_of_selvedge_there_is_no_comparison() {
        let failed = || Results { gave_up: Some("exit status: 1".into()), ..Results::default() };
        let results = Road::Shm.jobs().iter().map(|job| vec![failed(), results(job, &[1.0])]);
        let names = vec!["Selvedge", "MPICH"];
        let comparison =
            Comparison { names, cores: 8, road: Road::Shm, floor: Some(floor()), results: results.collect() };
        assert!(comparison.verdict().is_err());
    }
}
