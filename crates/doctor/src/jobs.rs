//! Questions to jobs that run: which there are, and who waits for whom in one. Jobs answer on the host of their mpirun; of
//! those that only have ranks here it is said where that is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::net::sockopt::socket_peercred;
use rustix::process::getuid;
use selvedge_boot::asking::{self, ANSWER_BYTES_MAX, JobFacts, Question, Whereabouts};

/// How long a job may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names of hosts that a line of `ps` shows.
const HOSTS_SHOWN_MAX: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The job, or a part of its name that no other has; without it, the only one
    job: Option<String>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// `selvedge ps`.
pub(crate) fn list() -> ExitCode {
    let jobs = match jobs() {
        Ok(jobs) => jobs,
        Err(why) => return complain(&why),
    };
    let mut lines = vec![["JOB", "RANKS", "SINCE", "HOSTS", "PROGRAM"].map(str::to_owned)];
    for job in &jobs {
        match ask(job, Question::Job).and_then(|answer| Ok(serde_json::from_slice::<JobFacts>(&answer)?)) {
            Ok(facts) => lines.push(line(&facts)),
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => eprintln!("selvedge: {job} does not answer: {error}"),
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [job, ranks, since, hosts] = [0, 1, 2, 3].map(width);
    let rows =
        lines.iter().map(|[a, b, c, d, e]| format!("{a:job$}  {b:>ranks$}  {c:>since$}  {d:hosts$}  {e}\n"));
    let text: String = rows.chain(guests(&jobs).iter().map(|guest| format!("{guest}\n"))).collect();
    crate::cli::answer(text.as_bytes(), ExitCode::SUCCESS)
}

impl Where {
    /// `selvedge where`.
    pub(crate) fn tell(&self) -> ExitCode {
        match self.answer() {
            Ok(text) => crate::cli::answer(text.as_bytes(), ExitCode::SUCCESS),
            Err(why) => complain(&why),
        }
    }

    fn answer(&self) -> Result<String, String> {
        let jobs = jobs()?;
        let job = chosen(&jobs, &guests(&jobs), self.job.as_deref())?;
        let silent = |error: io::Error| format!("{job} does not answer: {error}");
        let answer = ask(job, Question::Where).map_err(silent)?;
        if self.json {
            return Ok(String::from_utf8_lossy(&answer).into_owned() + "\n");
        }
        let told: Whereabouts = serde_json::from_slice(&answer).map_err(|error| silent(error.into()))?;
        Ok(told.text)
    }
}

/// A job that has ranks on this host, while its mpirun is elsewhere.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    job: String,
    ranks: usize,
    /// Where its mpirun is.
    host: String,
}

impl std::fmt::Display for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Guest { job, ranks, host } = self;
        write!(f, "of {job} only {ranks} ranks are on this host, its mpirun is on {host}: ask on {host}")
    }
}

/// Jobs of this user that have ranks here and are not among `jobs`, found by what these have in their environment.
fn guests(jobs: &[String]) -> Vec<Guest> {
    let me = getuid().as_raw();
    let network = |folder: &std::path::Path| std::fs::read_link(folder.join("ns/net")).ok();
    let ours = network(std::path::Path::new("/proc/self"));
    let mut found: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let folder = process.path();
        // Where the network is another it is another host, or will pass for one.
        let is_here = || network(&folder) == ours;
        if process.metadata().is_ok_and(|meta| meta.uid() == me)
            && let Ok(environ) = std::fs::read(folder.join("environ"))
            && let Some((job, host, rank)) = place(&environ)
            && is_here()
        {
            found.entry((job, host)).or_default().insert(rank);
        }
    }
    let is_guest = |((job, _), _): &((String, String), BTreeSet<String>)| !jobs.contains(job);
    let guest =
        |((job, host), ranks): ((String, String), BTreeSet<String>)| Guest { job, ranks: ranks.len(), host };
    found.into_iter().filter(is_guest).map(guest).collect()
}

/// Job, host of mpirun and number of a rank, out of its environment.
fn place(environ: &[u8]) -> Option<(String, String, String)> {
    let text = String::from_utf8_lossy(environ);
    let value = |name: &str| {
        text.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    Some((value("SELVEDGE_JOB")?, value("SELVEDGE_MPIRUN")?, value("SELVEDGE_RANK")?))
}

/// The job that is meant.
fn chosen<'a>(jobs: &'a [String], guests: &[Guest], word: Option<&str>) -> Result<&'a str, String> {
    let word_or_any = word.unwrap_or_default();
    let guest = guests.iter().find(|guest| guest.job.contains(word_or_any));
    match (asking::named(jobs, word_or_any), guest) {
        (Ok(job), _) => Ok(job),
        (Err(meant), Some(guest)) if meant.is_empty() => Err(guest.to_string()),
        (Err(meant), _) if meant.is_empty() => Err(match word {
            Some(word) if !jobs.is_empty() => {
                format!("no job of yours on this host is called {word}; there are {}", jobs.join(", "))
            }
            _ => "no job of yours is running on this host; ask where its mpirun is".into(),
        }),
        (Err(meant), _) => Err(format!("several jobs could be meant; name one of {}", meant.join(", "))),
    }
}

fn jobs() -> Result<Vec<String>, String> {
    let listing = std::fs::read_to_string("/proc/net/unix")
        .map_err(|error| format!("cannot read /proc/net/unix, where jobs are found: {error}"))?;
    Ok(asking::jobs(&listing, getuid().as_raw()))
}

/// Asks a job, within the patience.
fn ask(job: &str, question: Question) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let name = SocketAddr::from_abstract_name(asking::address(getuid().as_raw(), job))?;
    let mut stream = UnixStream::connect_addr(&name)?;
    let peer = socket_peercred(&stream)?.uid;
    // Anybody can take such a name.
    if peer != getuid() && !peer.is_root() {
        let whose = format!("user {} has taken its name", peer.as_raw());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, whose));
    }
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question.line().as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(late());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) if answer.is_empty() => {
                return Err(io::Error::other("it has ended, or is asked by too many"));
            }
            Ok(0) => return Ok(answer),
            Ok(got) => answer.extend(&chunk[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
}

fn late() -> io::Error {
    let what = format!("no answer within {} s; is its mpirun stopped?", PATIENCE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, what)
}

fn line(facts: &JobFacts) -> [String; 5] {
    let mut hosts = facts.hosts.iter().take(HOSTS_SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    if facts.hosts.len() > HOSTS_SHOWN_MAX {
        hosts += &format!(" and {} more", facts.hosts.len() - HOSTS_SHOWN_MAX);
    }
    let since = match facts.age_ms / 1000 {
        seconds @ 0..600 => format!("{seconds} s"),
        seconds @ 600..36_000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    };
    let ranks = if facts.ranks == 0 { "starting".into() } else { facts.ranks.to_string() };
    [facts.job.clone(), ranks, since, hosts, facts.programs.join(" : ")]
}

fn complain(why: &str) -> ExitCode {
    eprintln!("selvedge: {why}");
    ExitCode::from(crate::cli::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_job_need_not_be_named_and_one_of_several_must() {
        let one = ["selvedge-7-ab".to_owned()];
        assert_eq!(chosen(&one, &[], None), Ok("selvedge-7-ab"));
        assert_eq!(chosen(&one, &[], Some("7")), Ok("selvedge-7-ab"));
        let two = ["selvedge-7-ab".to_owned(), "selvedge-8-cd".to_owned()];
        assert!(chosen(&two, &[], None).unwrap_err().starts_with("several jobs could be meant"));
        assert_eq!(chosen(&two, &[], Some("8-c")), Ok("selvedge-8-cd"));
        assert!(chosen(&two, &[], Some("x")).unwrap_err().contains("there are selvedge-7-ab, selvedge-8-cd"));
        assert!(chosen(&[], &[], None).unwrap_err().starts_with("no job of yours is running"));
    }

    #[test]
    fn of_a_job_whose_mpirun_is_elsewhere_it_is_said_where() {
        let guests = [Guest { job: "selvedge-9-ef".into(), ranks: 4, host: "ant".into() }];
        let said = "of selvedge-9-ef only 4 ranks are on this host, its mpirun is on ant: ask on ant";
        assert_eq!(chosen(&[], &guests, None).unwrap_err(), said);
        assert_eq!(chosen(&["selvedge-7-ab".into()], &guests, Some("9-")).unwrap_err(), said);
        let environ = b"A=1\0SELVEDGE_JOB=j\0SELVEDGE_RANK=3\0SELVEDGE_MPIRUN=ant\0";
        assert_eq!(place(environ), Some(("j".into(), "ant".into(), "3".into())));
        assert_eq!(place(b"SELVEDGE_JOB=j\0SELVEDGE_RANK=3\0"), None);
    }

    #[test]
    fn a_line_of_the_list_is_short_whatever_the_job() {
        let facts = JobFacts {
            job: "selvedge-7-ab".into(),
            pid: 7,
            programs: vec!["./a".into(), "./b".into()],
            ranks: 96,
            hosts: (0..6).map(|host| format!("n{host}")).collect(),
            age_ms: 61_000,
        };
        assert_eq!(line(&facts), ["selvedge-7-ab", "96", "61 s", "n0,n1,n2,n3 and 2 more", "./a : ./b"]);
        assert_eq!(line(&JobFacts { ranks: 0, ..facts })[1], "starting");
    }

    #[test]
    fn a_job_that_is_not_there_does_not_answer() {
        let name = format!("selvedge-test-{}", std::process::id());
        assert_eq!(ask(&name, Question::Job).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
