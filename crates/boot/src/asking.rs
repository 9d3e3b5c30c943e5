//! What one may ask a running job, and how it answers: what `selvedge ps` and `selvedge where` say to mpirun.
//!
//! An mpirun answers on an abstract Unix socket, which is no file and no port of a network: the kernel forgets it with the
//! process. Anybody on the host may connect to such a name, or take it first; so both sides ask the kernel who the other is.
//! One line is asked, one JSON object is answered, and the connection ends.

use serde::{Deserialize, Serialize};

/// What names of all such sockets begin with.
const FAMILY: &str = "selvedge/";
/// Longest question, its end included.
pub const QUESTION_BYTES_MAX: usize = 64;
/// Longest answer that is worth reading: some hundred bytes for each of 100,000 ranks.
pub const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Name of the socket where a job of a user answers, without the zero byte in front.
pub fn address(uid: u32, job: &str) -> String {
    format!("{FAMILY}{uid}/{job}")
}

/// The jobs of a user that answer on this host, sorted, out of `/proc/net/unix`.
pub fn jobs(listing: &str, uid: u32) -> Vec<String> {
    let family = format!("@{FAMILY}{uid}/");
    // One line for the socket that listens, and one for each connection to it.
    let names = listing.lines().filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix(&family));
    let mut jobs: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    jobs.sort();
    jobs.dedup();
    jobs
}

/// Which of `jobs` somebody means who writes `word`: the whole name, or a part of it that no other has.
///
/// # Errors
/// All that could be meant: none, or several.
pub fn named<'a>(jobs: &'a [String], word: &str) -> Result<&'a str, Vec<&'a str>> {
    if let Some(exact) = jobs.iter().find(|job| *job == word) {
        return Ok(exact);
    }
    let meant: Vec<&str> = jobs.iter().filter(|job| job.contains(word)).map(String::as_str).collect();
    match meant[..] {
        [one] => Ok(one),
        _ => Err(meant),
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What job is this? The answer is a [`JobFacts`].
    Job,
    /// What does every rank wait for? The answer is a [`Whereabouts`], and the same for programs beside it.
    Where,
}

impl Question {
    /// As it is asked.
    pub fn line(self) -> &'static str {
        match self {
            Question::Job => "job\n",
            Question::Where => "where\n",
        }
    }

    /// Out of what has been asked; `None` where that is no question.
    pub fn parse(line: &[u8]) -> Option<Question> {
        [Question::Job, Question::Where].into_iter().find(|question| question.line().as_bytes() == line)
    }
}

/// What job it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// Unique name.
    pub job: String,
    /// Of mpirun.
    pub pid: u32,
    /// The programs, as they were written.
    pub programs: Vec<String>,
    /// How many ranks it has; 0 while its hosts are being started.
    pub ranks: u32,
    /// Names of its hosts.
    pub hosts: Vec<String>,
    /// How long it has been running, milliseconds.
    pub age_ms: u64,
}

/// Where everybody is, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The job.
    pub job: String,
    /// Who holds the others up, in sentences.
    pub verdict: Vec<String>,
    /// A table of all ranks, and the verdict below it.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 11 @selvedge/1000/selvedge-7-ab
0000000000000000: 00000003 00000000 00000000 0001 03 12 @selvedge/1000/selvedge-7-ab
0000000000000000: 00000002 00000000 00010000 0001 01 13 @selvedge/1000/selvedge-6-cd
0000000000000000: 00000002 00000000 00010000 0001 01 14 @selvedge/100/selvedge-5-ef
0000000000000000: 00000002 00000000 00010000 0001 01 15 /run/selvedge/1000/x
0000000000000000: 00000003 00000000 00000000 0001 03 16
";

    #[test]
    fn jobs_of_a_user_are_found_once_and_those_of_others_are_not() {
        assert_eq!(jobs(LISTING, 1000), ["selvedge-6-cd", "selvedge-7-ab"]);
        assert_eq!(jobs(LISTING, 100), ["selvedge-5-ef"]);
        assert_eq!(jobs(LISTING, 10), [""; 0]);
        assert_eq!(address(100, "selvedge-5-ef"), "selvedge/100/selvedge-5-ef");
    }

    #[test]
    fn a_job_is_meant_by_any_part_of_its_name_that_no_other_has() {
        let jobs = jobs(LISTING, 1000);
        assert_eq!(named(&jobs, "selvedge-7-ab"), Ok("selvedge-7-ab"));
        assert_eq!(named(&jobs, "-6-"), Ok("selvedge-6-cd"));
        assert_eq!(named(&jobs, "selvedge"), Err(vec!["selvedge-6-cd", "selvedge-7-ab"]));
        assert_eq!(named(&jobs, "8"), Err(vec![]));
    }

    #[test]
    fn a_question_is_a_whole_line_and_nothing_else() {
        for question in [Question::Job, Question::Where] {
            assert_eq!(Question::parse(question.line().as_bytes()), Some(question));
            assert!(question.line().len() <= QUESTION_BYTES_MAX);
        }
        assert_eq!(Question::parse(b"job"), None);
        assert_eq!(Question::parse(b"job\nwhere\n"), None);
    }
}
