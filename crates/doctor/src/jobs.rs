//! Questions to jobs that run: which there are, and who waits for whom in one.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
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
    for [a, b, c, d, e] in &lines {
        say(&format!("{a:job$}  {b:>ranks$}  {c:>since$}  {d:hosts$}  {e}\n"));
    }
    ExitCode::SUCCESS
}

impl Where {
    /// `selvedge where`.
    pub(crate) fn tell(&self) -> ExitCode {
        match self.answer() {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Err(why) => complain(&why),
        }
    }

    fn answer(&self) -> Result<String, String> {
        let jobs = jobs()?;
        let job = chosen(&jobs, self.job.as_deref())?;
        let silent = |error: io::Error| format!("{job} does not answer: {error}");
        let answer = ask(job, Question::Where).map_err(silent)?;
        if self.json {
            return Ok(String::from_utf8_lossy(&answer).into_owned() + "\n");
        }
        let told: Whereabouts = serde_json::from_slice(&answer).map_err(|error| silent(error.into()))?;
        Ok(told.text)
    }
}

/// The job that is meant.
fn chosen<'a>(jobs: &'a [String], word: Option<&str>) -> Result<&'a str, String> {
    match asking::named(jobs, word.unwrap_or_default()) {
        Ok(job) => Ok(job),
        Err(meant) if meant.is_empty() => Err(match word {
            Some(word) if !jobs.is_empty() => {
                format!("no job of yours on this host is called {word}; there are {}", jobs.join(", "))
            }
            _ => "no job of yours is running on this host; ask where its mpirun is".into(),
        }),
        Err(meant) => Err(format!("several jobs could be meant; name one of {}", meant.join(", "))),
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

fn say(text: &str) {
    // A reader that has gone did not want the rest.
    let _ = io::stdout().write_all(text.as_bytes());
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
        assert_eq!(chosen(&one, None), Ok("selvedge-7-ab"));
        assert_eq!(chosen(&one, Some("7")), Ok("selvedge-7-ab"));
        let two = ["selvedge-7-ab".to_owned(), "selvedge-8-cd".to_owned()];
        assert!(chosen(&two, None).unwrap_err().starts_with("several jobs could be meant"));
        assert_eq!(chosen(&two, Some("8-c")), Ok("selvedge-8-cd"));
        assert!(chosen(&two, Some("x")).unwrap_err().contains("there are selvedge-7-ab, selvedge-8-cd"));
        assert!(chosen(&[], None).unwrap_err().starts_with("no job of yours is running"));
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
