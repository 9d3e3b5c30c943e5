//! The command line. Taken apart by hand because mpirun's habits are older than getopt: one dash or two mean the same,
//! a value follows as the next word or after `=`, and the first word that is no option is the program.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use crate::cores::Binding;
use crate::display::Display;
use crate::hosts::HostWish;

/// What the user wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A job.
    Job(JobWish),
}

/// A job as the command line describes it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct JobWish {
    /// The blocks between colons, in rank order.
    pub blocks: Vec<BlockWish>,
    /// `-x` and `-genv`, in order; for all blocks.
    pub exports: Vec<Export>,
    /// Put `[rank] ` before every line.
    pub labels: bool,
    /// End the job after so long.
    pub time_limit: Option<Duration>,
    /// How ranks are bound to cores.
    pub binding: Binding,
    /// The hosts of the command line and of its host files, for blocks that name none of their own.
    pub hosts: Vec<HostWish>,
    /// Pictures to show before the start.
    pub display: Display,
    /// How agents are started on other hosts.
    pub agent: AgentWish,
    /// How many agents each agent starts, mpirun included.
    pub tree_width: TreeWidth,
    /// How programs learn their place.
    pub pmi: Pmi,
    /// How long all agents together may take to be there.
    pub start_limit: Option<Duration>,
    /// How long a host may be silent before it counts as lost.
    pub host_limit: Option<Duration>,
}

/// How agents are started on other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AgentWish {
    /// By which kind of command.
    pub kind: AgentKind,
    /// The command in its place, with its first arguments: `ssh -F config`.
    pub command: Option<OsString>,
}

/// A kind of command that starts agents on other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AgentKind {
    /// `srun` inside a job of Slurm's, else ssh.
    #[default]
    Auto,
    /// `ssh [user@]HOST COMMAND`, and whatever takes the same arguments.
    Ssh,
    /// `srun -w HOST -N 1 -n 1 COMMAND`.
    Srun,
}

/// Sons of each node of the tree of agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeWidth(pub u32);

impl Default for TreeWidth {
    fn default() -> TreeWidth {
        TreeWidth(32)
    }
}

/// How programs learn their place in the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pmi {
    /// What the program is made for: PMIx for Open MPI's, PMI-1 for all others.
    #[default]
    Auto,
    /// PMI-1; clients that speak PMI-2 on the same connection are answered too.
    One,
    /// PMI-2.
    Two,
    /// PMIx, by way of libpmix.
    X,
}

/// One block of the command line.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct BlockWish {
    /// `-n`.
    pub ranks: Option<u32>,
    /// `--wdir`.
    pub wdir: Option<OsString>,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The hosts of this block only; empty where it uses the job's.
    pub hosts: Vec<HostWish>,
}

/// A variable for the ranks' environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// `-x NAME`: as it is here.
    Same(OsString),
    /// `-x NAME*`: all that start so, as they are here.
    Prefix(OsString),
    /// `-x NAME=VALUE`.
    Value(OsString, OsString),
}

/// A command line that cannot be followed: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    pub(crate) fn new(what: impl Into<String>) -> Usage {
        Usage(what.into())
    }
}

/// No machine runs so many processes; a larger number is a slip of the finger.
const RANKS_MAX: u32 = 1 << 20;

/// Names of the roads that ranks can take, which `selvedge::init` looks for.
const TRANSPORTS: [&str; 4] = ["shm", "efa-direct", "efa", "tcp"];

/// The text of `--help`.
pub const HELP: &str = "\
Usage: mpirun [options] program [arguments] [: [options] program [arguments]]...

Starts the ranks of a parallel program on this host and waits for them.

  -n, -np, -c N          number of ranks; one for each core where it is not given
  -x NAME                pass on this variable; all are passed on anyway, this one is missed
  -x NAME=VALUE          set a variable for the ranks; also -genv NAME VALUE
  -x 'PREFIX*'           pass on all variables that start so
  -wdir, -wd DIR         working directory of the ranks
  -l, --tag-output       start every line with [rank]
  --bind-to WHERE        share: an even share of the cores for each rank, where there are enough (the default);
                         core: one core each; none: wherever the system likes
  --transport LIST       take no other roads than these between ranks: shm, efa-direct, efa, tcp. Without it: shm
                         within a host, and the best of the others that all ranks have between hosts
  --require LIST         do not start unless one of these leads to other hosts (shm: within one); efa is also met by
                         efa-direct. Within a host shm is taken all the same, where --transport allows it
  --report text          let rank 0 say at the start which roads are taken, also where shm is the only one
  --report json[=FILE]   the same for programs, on standard error or into a file
  --quiet, -q            say nothing at the start
  --timeout SECONDS      end the job after so long, with exit code 124
  -h, --help             this text
  -V, --version          the version

Options take one dash or two, and their value as the next word or after '='. Accepted and without effect, because it
is so anyway: --oversubscribe, --allow-run-as-root, -genvall.

Standard input goes to rank 0. Signals INT, TERM, HUP, QUIT, USR1, USR2, TSTP and CONT go to all ranks; a second INT,
TERM, HUP or QUIT kills them.

Exit code: 0 when all ranks left with 0; else that of the first rank that failed: its own, 128 + N when it died of
signal N, or what it gave to abort. 69 no road that --transport and --require allow, 124 time-out, 126 program not
executable, 127 program not found, 2 usage, 1 mpirun's own trouble.
";

/// Takes the words after the program's name apart.
///
/// # Errors
/// One sentence that says what is wrong and what to write.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Wish, Usage> {
    let mut words = words.into_iter();
    let mut job = JobWish::default();
    loop {
        match parse_block(&mut words, &mut job)? {
            BlockEnd::Wish(wish) => return Ok(wish),
            BlockEnd::Colon => {}
            BlockEnd::Line => break,
        }
    }
    if job.blocks.len() > 1 {
        // As everywhere else: one rank for a block that does not say.
        job.blocks.iter_mut().for_each(|block| block.ranks = block.ranks.or(Some(1)));
    }
    let ranks: u64 = job.blocks.iter().filter_map(|block| block.ranks).map(u64::from).sum();
    if ranks > u64::from(RANKS_MAX) {
        return Err(Usage(format!("{ranks} ranks are more than the {RANKS_MAX} that can be started")));
    }
    Ok(Wish::Job(job))
}

enum BlockEnd {
    Wish(Wish),
    Colon,
    Line,
}

fn parse_block(words: &mut dyn Iterator<Item = OsString>, job: &mut JobWish) -> Result<BlockEnd, Usage> {
    let mut block = BlockWish::default();
    block.program = loop {
        let Some(word) = words.next() else {
            let after = if job.blocks.is_empty() { "" } else { " after ':'" };
            return Err(Usage(format!("no program given{after}; write: mpirun -n 4 ./program")));
        };
        if word == "--" {
            match words.next() {
                Some(program) => break program,
                None => continue,
            }
        }
        if word == ":" || word.is_empty() {
            return Err(Usage(format!("a program is missing before {:?}", word.display())));
        }
        let bytes = word.as_bytes();
        match bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-")) {
            None | Some([]) => break word,
            Some(option) => {
                let mut option = Option_::new(&word, option, words);
                if let Some(wish) = option.apply(&mut block, job)? {
                    return Ok(BlockEnd::Wish(wish));
                }
            }
        }
    };
    let mut end = BlockEnd::Line;
    for word in words {
        if word == ":" {
            end = BlockEnd::Colon;
            break;
        }
        block.args.push(word);
    }
    job.blocks.push(block);
    Ok(end)
}

/// An option as it stands on the command line, and the words after it.
struct Option_<'a> {
    written: &'a OsStr,
    name: &'a [u8],
    inline: Option<&'a [u8]>,
    words: &'a mut dyn Iterator<Item = OsString>,
}

impl<'a> Option_<'a> {
    fn new(written: &'a OsStr, text: &'a [u8], words: &'a mut dyn Iterator<Item = OsString>) -> Option_<'a> {
        let (name, inline) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        Option_ { written, name, inline, words }
    }

    fn apply(&mut self, block: &mut BlockWish, job: &mut JobWish) -> Result<Option<Wish>, Usage> {
        match self.name {
            b"n" | b"np" | b"c" => {
                let ranks = self.count()?;
                if block.ranks.replace(ranks).is_some_and(|before| before != ranks) {
                    return Err(Usage("the number of ranks is given twice; leave one out".into()));
                }
            }
            b"x" => {
                let export = self.value("NAME, NAME=VALUE or 'PREFIX*'")?;
                job.exports
                    .push(export_of(&export).ok_or_else(|| self.wrong(&export, "NAME or NAME=VALUE"))?);
            }
            b"genv" | b"env" => {
                let name = self.value("a name and a value")?;
                let (name, value) = match name.as_bytes().iter().position(|byte| *byte == b'=') {
                    Some(at) => {
                        (os(&name.as_bytes()[..at]).to_owned(), os(&name.as_bytes()[at + 1..]).to_owned())
                    }
                    None => {
                        let value = self.words.next().ok_or_else(|| {
                            Usage(format!("{} {} needs a value", self.written.display(), name.display()))
                        })?;
                        (name, value)
                    }
                };
                if name.is_empty() {
                    return Err(self.wrong(&name, "the name of a variable"));
                }
                job.exports.push(Export::Value(name, value));
            }
            b"wdir" | b"wd" => block.wdir = Some(self.value("a directory")?),
            b"l" | b"tag-output" | b"prepend-rank" => {
                self.no_value()?;
                job.labels = true;
            }
            b"transport" => self.roads("SELVEDGE_TRANSPORT", job)?,
            b"require" => self.roads("SELVEDGE_REQUIRE", job)?,
            b"report" => {
                let how = self.value("text, json or json=FILE")?;
                let wish = match how.as_bytes().split(|byte| *byte == b'=').collect::<Vec<_>>()[..] {
                    [b"text"] | [b"json"] => how,
                    [b"json", first, ..] if !first.is_empty() => {
                        let file = &how.as_bytes()[b"json=".len()..];
                        OsString::from_vec([b"json:", file].concat())
                    }
                    _ => return Err(self.wrong(&how, "text, json or json=FILE")),
                };
                job.exports.push(Export::Value("SELVEDGE_REPORT".into(), wish));
            }
            b"q" | b"quiet" => {
                self.no_value()?;
                job.exports.push(Export::Value("SELVEDGE_QUIET".into(), "1".into()));
            }
            b"timeout" => job.time_limit = Some(self.seconds()?),
            b"oversubscribe" | b"allow-run-as-root" | b"genvall" => self.no_value()?,
            b"bind-to" => {
                let how = self.value("share, core or none")?;
                job.binding = match how.as_bytes() {
                    b"share" => Binding::Share,
                    b"core" => Binding::Core,
                    b"none" => Binding::None,
                    _ => return Err(self.wrong(&how, "share, core or none")),
                };
            }
            b"h" | b"help" => return Ok(Some(Wish::Help)),
            b"V" | b"version" => return Ok(Some(Wish::Version)),
            _ => return Err(self.unknown()),
        }
        Ok(None)
    }

    fn unknown(&self) -> Usage {
        let written = self.written.display();
        match self.name {
            b"host" | b"hosts" | b"H" | b"f" | b"hostfile" | b"machinefile" | b"ppn" | b"perhost" | b"N"
            | b"npernode" => Usage(format!(
                "{written}: this version starts all ranks on this host; leave the option out and use -n"
            )),
            _ => Usage(format!("unknown option {written}; mpirun --help lists those there are")),
        }
    }

    fn value(&mut self, what: &str) -> Result<OsString, Usage> {
        match self.inline.take() {
            Some(value) => Ok(os(value).to_owned()),
            None => self
                .words
                .next()
                .ok_or_else(|| Usage(format!("{} needs {what} after it", self.written.display()))),
        }
    }

    /// A list of roads, passed on to the ranks.
    fn roads(&mut self, variable: &str, job: &mut JobWish) -> Result<(), Usage> {
        let known = TRANSPORTS.join(", ");
        let list = self.value(&format!("one or more of {known}"))?;
        let is_known = |name: &[u8]| TRANSPORTS.iter().any(|transport| transport.as_bytes() == name);
        if !list.as_bytes().split(|byte| *byte == b',').all(is_known) {
            return Err(self.wrong(&list, &format!("a list, with commas, of {known}")));
        }
        job.exports.push(Export::Value(variable.into(), list));
        Ok(())
    }

    fn no_value(&mut self) -> Result<(), Usage> {
        match self.inline {
            None => Ok(()),
            Some(_) => Err(Usage(format!("{}: this option takes no value", self.written.display()))),
        }
    }

    fn count(&mut self) -> Result<u32, Usage> {
        let value = self.value("a number of ranks")?;
        match value.to_str().and_then(|text| text.parse().ok()) {
            Some(ranks @ 1..=RANKS_MAX) => Ok(ranks),
            _ => Err(self.wrong(&value, &format!("a number of ranks, 1 to {RANKS_MAX}"))),
        }
    }

    fn seconds(&mut self) -> Result<Duration, Usage> {
        let value = self.value("a number of seconds")?;
        let seconds = value.to_str().and_then(|text| text.parse::<f64>().ok());
        seconds
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| self.wrong(&value, "a number of seconds above 0"))
    }

    fn wrong(&self, value: &OsStr, expected: &str) -> Usage {
        let name = self.written.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        Usage(format!("{} {:?}: expected {expected}", os(name).display(), value.display().to_string()))
    }
}

/// `None` where there is no name.
fn export_of(text: &OsStr) -> Option<Export> {
    let bytes = text.as_bytes();
    if let Some(at) = bytes.iter().position(|byte| *byte == b'=') {
        return (at > 0).then(|| Export::Value(os(&bytes[..at]).to_owned(), os(&bytes[at + 1..]).to_owned()));
    }
    match bytes {
        [] => None,
        [prefix @ .., b'*'] => Some(Export::Prefix(OsString::from_vec(prefix.to_vec()))),
        name => Some(Export::Same(os(name).to_owned())),
    }
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Wish, Usage> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn job(line: &str) -> JobWish {
        match parsed(line) {
            Ok(Wish::Job(job)) => job,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        parsed(line).expect_err(line).to_string()
    }

    #[test]
    fn the_number_of_ranks_has_many_spellings() {
        for spelling in [
            "-n 4",
            "-np 4",
            "--np 4",
            "--n 4",
            "-c 4",
            "-n=4",
            "--np=4",
            "-n 4 -np 4",
            "-n 4 --oversubscribe",
        ] {
            assert_eq!(job(&format!("{spelling} prog")).blocks[0].ranks, Some(4), "{spelling}");
        }
        assert_eq!(job("prog").blocks[0].ranks, None);
    }

    #[test]
    fn what_follows_the_program_is_its_own_business() {
        let job = job("-n 2 prog -n 3 --help -x=1");
        assert_eq!(job.blocks[0].args, ["-n", "3", "--help", "-x=1"]);
        assert_eq!(job.blocks[0].ranks, Some(2));
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(job("-n 2 -- -prog -l").blocks[0].program, "-prog");
    }

    #[test]
    fn colons_separate_blocks_and_a_block_without_count_has_one_rank() {
        let job = job("-n 2 -wd /a one x : two -n 9 : -np 3 --wdir=/b three");
        let ranks: Vec<_> = job.blocks.iter().map(|block| block.ranks.unwrap()).collect();
        assert_eq!(ranks, [2, 1, 3]);
        assert_eq!(job.blocks[1].args, ["-n", "9"]);
        assert_eq!(job.blocks[2].wdir.as_deref(), Some(OsStr::new("/b")));
    }

    #[test]
    fn variables_are_named_set_or_matched() {
        let exports = job("-x A -x B=1=2 -x C* -genv D 3 -genv E=4 -x F= prog").exports;
        let value = |name: &str, value: &str| Export::Value(name.into(), value.into());
        assert_eq!(
            exports,
            [
                Export::Same("A".into()),
                value("B", "1=2"),
                Export::Prefix("C".into()),
                value("D", "3"),
                value("E", "4"),
                value("F", "")
            ]
        );
    }

    #[test]
    fn wishes_for_roads_are_passed_on_to_the_ranks() {
        let exports = job("--transport shm,tcp --require=tcp -q --report json=a=b prog").exports;
        let value = |name: &str, value: &str| Export::Value(name.into(), value.into());
        assert_eq!(
            exports,
            [
                value("SELVEDGE_TRANSPORT", "shm,tcp"),
                value("SELVEDGE_REQUIRE", "tcp"),
                value("SELVEDGE_QUIET", "1"),
                value("SELVEDGE_REPORT", "json:a=b"),
            ]
        );
        assert_eq!(job("--report=json=out prog").exports, [value("SELVEDGE_REPORT", "json:out")]);
        assert_eq!(job("--report text prog").exports, [value("SELVEDGE_REPORT", "text")]);
    }

    #[test]
    fn a_road_that_there_is_not_gets_the_list_of_those_there_are() {
        for line in ["--transport ib prog", "--require shm,,tcp prog", "--transport= prog"] {
            assert!(refusal(line).ends_with("of shm, efa-direct, efa, tcp"), "{}", refusal(line));
        }
        assert!(refusal("--report xml prog").ends_with("text, json or json=FILE"));
    }

    #[test]
    fn what_is_so_anyway_is_accepted() {
        assert_eq!(job("--bind-to none --allow-run-as-root -oversubscribe -l prog").blocks.len(), 1);
        assert_eq!(job("--bind-to core prog").binding, Binding::Core);
        assert!(refusal("--bind-to socket prog").contains("share, core or none"));
    }

    #[test]
    fn a_bad_number_of_ranks_names_the_option_and_the_value() {
        for value in ["0", "abc", "-1", "1.5", "99999999999", ""] {
            let text = parse(["-n".into(), value.into(), "prog".into()]).expect_err(value).to_string();
            assert_eq!(text, format!("-n {value:?}: expected a number of ranks, 1 to 1048576"));
        }
        assert!(refusal("-n").contains("-n needs a number of ranks"));
        assert!(refusal("-n 2 -np 3 prog").contains("twice"));
        assert!(refusal("-n 1000000 a : -n 1000000 b").contains("2000000 ranks"));
    }

    #[test]
    fn a_line_that_cannot_be_followed_says_what_to_write() {
        assert!(refusal("").contains("no program given"));
        assert!(refusal("-n 2").contains("no program given"));
        assert!(refusal("-n 2 prog :").contains("after ':'"));
        assert!(refusal("-n 2 : prog").contains("a program is missing"));
        assert!(refusal("--frobnicate prog").contains("unknown option --frobnicate"));
        assert!(refusal("-host a,b prog").contains("this host"));
        assert!(refusal("-l=yes prog").contains("takes no value"));
        assert!(refusal("-x =1 prog").contains("NAME"));
        assert!(refusal("--timeout soon prog").contains("seconds"));
        assert!(refusal("--timeout -1 prog").contains("seconds"));
        assert!(refusal("--timeout nan prog").contains("seconds"));
    }

    #[test]
    fn help_and_version_need_no_program() {
        for (line, wish) in [("-h", Wish::Help), ("--help", Wish::Help), ("-n 2 --version", Wish::Version)] {
            assert_eq!(parsed(line), Ok(wish));
        }
    }

    #[test]
    fn a_time_limit_may_have_fractions() {
        assert_eq!(job("--timeout 1.5 prog").time_limit, Some(Duration::from_millis(1500)));
    }
}
