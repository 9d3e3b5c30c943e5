//! The options that there are, by all their names, and what each does to the job.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use super::table::{Flag, flags};
use super::{
    AgentKind, Asked, BlockWish, Export, Inherit, JobWish, Line, TreeWidth, Usage, Wish, foreign, os,
};
use crate::cores::Binding;
use crate::hosts;
use crate::place::policy::{Deal, MapBy, Oversubscribe, RankBy};
use crate::place::rankfile;
use crate::topology::Level;

/// What an option is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    Ranks,
    PerHost,
    Each(Level),
    RoundRobin,
    Host,
    Hosts,
    HostFile,
    HostFileForAll,
    DefaultHostFile,
    MapBy,
    By(Deal),
    RankBy,
    CoresPerRank,
    ThreadsAreCores,
    Oversubscribe(Oversubscribe),
    RankFile,
    RankMap,
    Bind,
    ShowBindings,
    ShowMap,
    ShowAllocation,
    Display,
    Export,
    SetForAll,
    SetForBlock,
    ListForAll,
    ListForBlock,
    AllForAll,
    AllForBlock,
    NoneForAll,
    NoneForBlock,
    OpenMpiSetting,
    PmixSetting,
    LauncherSetting,
    Wdir,
    BlocksFile,
    Pmi,
    PmiPort,
    AgentCommand,
    AgentProgram,
    AgentKind,
    TreeWidth,
    StartLimit,
    HostLimit,
    Join,
    JoinHosts,
    JoinIndex,
    SecretFile,
    NewSecret,
    Interface,
    Labels,
    LabelPattern,
    Stdin,
    MergeErrors,
    Verbose,
    SignalsAnyway,
    Universe,
    ReportPid,
    ValueAnyway,
    Timestamps,
    Output,
    OutFile,
    ErrFile,
    OutputFile,
    Transport,
    Require,
    Errors,
    Algorithm,
    Check,
    Report,
    Quiet,
    TimeLimit,
    SoAnyway,
    Help,
    Version,
    Completions,
}

/// Where the options of a block go.
pub(super) struct Given<'a> {
    pub(super) job: &'a mut JobWish,
    pub(super) block: BlockWish,
    /// Hosts for this block.
    pub(super) hosts: Asked,
    /// Hosts for all blocks that name none of their own.
    pub(super) all: &'a mut Asked,
}

/// An option as it stands on the command line.
pub(super) struct Word<'a> {
    pub(super) written: &'a OsStr,
    pub(super) inline: Option<&'a [u8]>,
}

impl Line<'_> {
    /// Follows one option. Gives back a wish where the rest of the line does not matter.
    pub(super) fn option(
        &mut self,
        written: &OsStr,
        text: &[u8],
        given: &mut Given<'_>,
    ) -> Result<Option<Wish>, Usage> {
        let (name, inline) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let known = flags().find(|flag| flag.names.iter().any(|known| known.as_bytes() == name));
        let Some(&Flag { opt, .. }) = known else { return Err(foreign::refuse(os(name), written)) };
        let mut word = Word { written, inline };
        match opt {
            Opt::Help => return Ok(Some(self.help(&mut word))),
            Opt::Completions => return Ok(Some(Wish::Completions(self.shell(&mut word)?))),
            Opt::Version => return Ok(Some(Wish::Version)),
            Opt::NewSecret => return Ok(Some(Wish::NewSecret(self.value(&mut word, "a file")?))),
            Opt::BlocksFile => self.read_blocks(&mut word)?,
            _ => {
                let _ = self.where_ranks_go(opt, &mut word, given)?
                    || self.environment(opt, &mut word, given)?
                    || self.manner(opt, &mut word, given)?;
                if word.inline.is_some() {
                    return Err(Usage(format!("{}: this option takes no value", written.display())));
                }
            }
        }
        Ok(None)
    }

    /// Options about hosts, places and cores. False: it is none of those.
    fn where_ranks_go(
        &mut self,
        opt: Opt,
        word: &mut Word<'_>,
        given: &mut Given<'_>,
    ) -> Result<bool, Usage> {
        let job = &mut *given.job;
        match opt {
            Opt::Ranks => {
                let ranks = self.count(word, "a number of ranks")?;
                if given.block.ranks.replace(ranks).is_some_and(|before| before != ranks) {
                    return Err(Usage("the number of ranks is given twice; leave one out".into()));
                }
            }
            Opt::PerHost => once(&mut job.per_host, self.count(word, "a number of ranks")?, word)?,
            Opt::RoundRobin => once(&mut job.per_host, 1, word)?,
            Opt::Host => self.hosts(word, &mut given.hosts)?,
            Opt::Hosts => self.hosts(word, given.all)?,
            Opt::HostFile => self.host_file(word, &mut given.hosts)?,
            Opt::HostFileForAll => self.host_file(word, given.all)?,
            Opt::DefaultHostFile => {
                let path = self.value(word, "a host file")?;
                job.default_hosts = hosts::read_file(Path::new(&path), self.read)?;
            }
            Opt::Each(level) => {
                let each = self.count(word, "a number of ranks")?;
                deal(job, MapBy { deal: Deal::Each(each, level), ..job.map_by }, word)?;
            }
            Opt::By(by) => deal(job, MapBy { deal: by, ..job.map_by }, word)?,
            Opt::MapBy => {
                let how = self.text(word, "slot, core, hwthread, numa, socket, node or ppr:N:WHERE")?;
                let mut map = job.map_by;
                map.follow(&how).map_err(|why| word.about(&why))?;
                deal(job, map, word)?;
            }
            Opt::RankBy => {
                let how = self.text(word, "slot, fill, span, node, socket, numa, core or hwthread")?;
                job.rank_by = RankBy::parse(&how).map_err(|why| word.about(&why))?;
            }
            Opt::CoresPerRank => job.map_by.cores_per_rank = Some(self.count(word, "a number of cores")?),
            Opt::ThreadsAreCores => job.map_by.threads_are_cores = true,
            Opt::Oversubscribe(what) => {
                let before = std::mem::replace(&mut job.map_by.oversubscribe, what);
                if before != Oversubscribe::default() && before != what {
                    return Err(word.about(&Usage::new("contradicts what was said before; leave one out")));
                }
            }
            Opt::RankFile => {
                let path = self.value(word, "a rank file")?;
                let path = Path::new(&path);
                let bytes = (self.read)(path).map_err(|error| {
                    Usage(format!("cannot read the rank file {}: {error}", path.display()))
                })?;
                job.rank_file = Some(rankfile::parse(path, &bytes)?);
            }
            Opt::RankMap => job.rank_map = Some(self.rank_map(word)?),
            Opt::Bind => {
                let how = self.text(word, "share, core, hwthread, numa, socket or none")?;
                let (binding, cores) = Binding::parse(&how).map_err(|why| word.about(&why))?;
                job.binding = binding;
                job.map_by.cores_per_rank = cores.or(job.map_by.cores_per_rank);
            }
            Opt::ShowBindings => job.display.bind = true,
            Opt::ShowMap => job.display.map = true,
            Opt::ShowAllocation => job.display.allocation = true,
            Opt::Display => self.display(word, job)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Options about what ranks find when they start. False: it is none of those.
    fn environment(&mut self, opt: Opt, word: &mut Word<'_>, given: &mut Given<'_>) -> Result<bool, Usage> {
        let Given { job, block, .. } = given;
        match opt {
            Opt::Export => {
                let export = self.value(word, "NAME, NAME=VALUE or 'PREFIX*'")?;
                let parsed = export_of(&export).ok_or_else(|| word.wrong(&export, "NAME or NAME=VALUE"))?;
                job.exports.push(parsed);
            }
            Opt::SetForAll => job.exports.push(self.setting(word)?),
            Opt::SetForBlock => block.exports.push(self.setting(word)?),
            Opt::ListForAll => job.inherit = Inherit::Only(self.names(word)?),
            Opt::ListForBlock => block.inherit = Some(Inherit::Only(self.names(word)?)),
            Opt::AllForAll => job.inherit = Inherit::All,
            Opt::AllForBlock => block.inherit = Some(Inherit::All),
            Opt::NoneForAll => job.inherit = Inherit::Only(Vec::new()),
            Opt::NoneForBlock => block.inherit = Some(Inherit::Only(Vec::new())),
            Opt::OpenMpiSetting | Opt::PmixSetting | Opt::LauncherSetting => self.mca(opt, word, job)?,
            Opt::Wdir => block.wdir = Some(self.value(word, "a directory")?),
            Opt::Interface => {
                let name = self.value(word, "the name of a network interface, or its address")?;
                job.exports.push(Export::Value("SELVEDGE_INTERFACE".into(), name));
            }
            Opt::Transport => self.roads(word, "SELVEDGE_TRANSPORT", job)?,
            Opt::Require => self.roads(word, "SELVEDGE_REQUIRE", job)?,
            Opt::Errors => self.errors(word, job)?,
            Opt::Algorithm => {
                let choices = self.value(word, "algorithms, with commas: allreduce/ring@64KiB..")?;
                job.exports.push(Export::Value("SELVEDGE_ALGORITHM".into(), choices));
            }
            Opt::Check => job.exports.push(Export::Value("SELVEDGE_CHECK".into(), "1".into())),
            Opt::Report => {
                let how = self.value(word, "text, json or json=FILE")?;
                let wish = match how.as_bytes().split(|byte| *byte == b'=').collect::<Vec<_>>()[..] {
                    [b"text"] | [b"json"] => how,
                    [b"json", first, ..] if !first.is_empty() => {
                        let file = &how.as_bytes()[b"json=".len()..];
                        OsString::from_vec([b"json:", file].concat())
                    }
                    _ => return Err(word.wrong(&how, "text, json or json=FILE")),
                };
                job.exports.push(Export::Value("SELVEDGE_REPORT".into(), wish));
            }
            Opt::Quiet => job.exports.push(Export::Value("SELVEDGE_QUIET".into(), "1".into())),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Options about how the job is started and watched. False: it is none of those.
    fn manner(&mut self, opt: Opt, word: &mut Word<'_>, given: &mut Given<'_>) -> Result<bool, Usage> {
        let job = &mut *given.job;
        match opt {
            Opt::Pmi => job.pmi = self.pmi(word)?,
            Opt::PmiPort => job.pmi_port = true,
            Opt::AgentCommand => job.agent.command = Some(self.value(word, "a command")?),
            Opt::AgentProgram => job.agent.program = Some(self.value(word, "a path")?),
            Opt::AgentKind => {
                let kind = self.value(word, "ssh, slurm or fork")?;
                job.agent.kind = match kind.as_bytes() {
                    b"auto" | b"user" => AgentKind::Auto,
                    b"ssh" | b"rsh" => AgentKind::Ssh,
                    b"slurm" | b"srun" => AgentKind::Srun,
                    b"fork" => AgentKind::Fork,
                    _ => return Err(word.wrong(&kind, "ssh, slurm or fork; any other command with --agent")),
                };
            }
            Opt::TreeWidth => job.tree_width = TreeWidth(self.count(word, "a number of hosts")?),
            Opt::StartLimit => job.start_limit = Some(self.seconds(word)?),
            Opt::HostLimit => job.host_limit = Some(self.seconds(word)?),
            Opt::Join => job.join.place = Some(self.text(word, "the first host's name or address, or auto")?),
            Opt::JoinHosts => job.join.hosts = Some(self.count(word, "a number of hosts")?),
            Opt::JoinIndex => job.join.index = Some(self.index(word)?),
            Opt::SecretFile => job.join.secret_file = Some(self.value(word, "a file")?),
            Opt::TimeLimit => job.time_limit = Some(self.limit(word)?),
            Opt::Labels => job.labels = true,
            Opt::LabelPattern => job.label = Some(self.label(word)?),
            Opt::Stdin => job.readers = self.readers(word)?,
            Opt::MergeErrors => job.merges_errors = true,
            Opt::Verbose => {
                job.display.map = true;
                job.exports.push(Export::Value("SELVEDGE_REPORT".into(), "text".into()));
            }
            Opt::Universe => job.universe = self.universe(word)?,
            Opt::ReportPid => job.report_pid = Some(self.value(word, "-, + or a file")?),
            Opt::SignalsAnyway => self.signals(word)?,
            Opt::ValueAnyway => drop(self.value(word, "a value")?),
            Opt::Timestamps => job.timestamps = true,
            Opt::Output => self.output(word, job)?,
            Opt::OutFile => job.files.out = Some(self.pattern(word)?),
            Opt::ErrFile => job.files.err = Some(self.pattern(word)?),
            Opt::OutputFile => {
                let file = self.value(word, "a file")?;
                super::settings::files_of(&file, word, job)?;
            }
            Opt::SoAnyway => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn hosts(&mut self, word: &mut Word<'_>, asked: &mut Asked) -> Result<(), Usage> {
        let list = self.text(word, "hosts with commas, such as node1,node2:4")?;
        let more = hosts::parse_list(&list).map_err(|why| word.about(&Usage(why)))?;
        let mut list = asked.list.take().unwrap_or_default();
        list.extend(more);
        asked.list = Some(hosts::merge(list));
        Ok(())
    }

    fn host_file(&mut self, word: &mut Word<'_>, asked: &mut Asked) -> Result<(), Usage> {
        let path = self.value(word, "a host file")?;
        let mut file = asked.file.take().unwrap_or_default();
        file.extend(hosts::read_file(Path::new(&path), self.read)?);
        asked.file = Some(hosts::merge(file));
        Ok(())
    }

    /// The value of an option: after `=`, or the next word.
    pub(super) fn value(&mut self, word: &mut Word<'_>, what: &str) -> Result<OsString, Usage> {
        match word.inline.take() {
            Some(value) => Ok(os(value).to_owned()),
            None => {
                let next = self.words.pop_front();
                next.ok_or_else(|| Usage(format!("{} needs {what} after it", word.written.display())))
            }
        }
    }

    /// A value that is text.
    pub(super) fn text(&mut self, word: &mut Word<'_>, what: &str) -> Result<String, Usage> {
        let value = self.value(word, what)?;
        value.into_string().map_err(|value| word.wrong(&value, what))
    }

    pub(super) fn count(&mut self, word: &mut Word<'_>, what: &str) -> Result<u32, Usage> {
        let value = self.value(word, what)?;
        match value.to_str().and_then(|text| text.parse().ok()) {
            Some(count @ 1..=super::RANKS_MAX) => Ok(count),
            _ => Err(word.wrong(&value, &format!("{what}, 1 to {}", super::RANKS_MAX))),
        }
    }

    fn index(&mut self, word: &mut Word<'_>) -> Result<u32, Usage> {
        const EXPECTED: &str = "the index of this host; the first has 0";
        let value = self.value(word, EXPECTED)?;
        let index = value.to_str().and_then(|text| text.parse().ok());
        index.ok_or_else(|| word.wrong(&value, EXPECTED))
    }

    /// Seconds, of which 0 are for ever.
    fn limit(&mut self, word: &mut Word<'_>) -> Result<Duration, Usage> {
        let next = word.inline.or(self.words.front().map(|next| next.as_bytes()));
        match next.and_then(|text| str::from_utf8(text).ok()?.parse::<f64>().ok()) {
            Some(0.0) => self.value(word, "a number of seconds").map(|_| Duration::ZERO),
            _ => self.seconds(word),
        }
    }

    fn seconds(&mut self, word: &mut Word<'_>) -> Result<Duration, Usage> {
        let value = self.value(word, "a number of seconds")?;
        let seconds = value.to_str().and_then(|text| text.parse::<f64>().ok());
        seconds
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| word.wrong(&value, "a number of seconds above 0"))
    }
}

impl Word<'_> {
    fn name(&self) -> impl std::fmt::Display {
        let name = self.written.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// The option has a value that it cannot have.
    pub(super) fn wrong(&self, value: &OsStr, expected: &str) -> Usage {
        Usage(format!("{} {:?}: expected {expected}", self.name(), value.display().to_string()))
    }

    /// What is wrong, with the option's name before it.
    pub(super) fn about(&self, why: &Usage) -> Usage {
        Usage(format!("{} {why}", self.name()))
    }
}

fn once(place: &mut Option<u32>, value: u32, word: &Word<'_>) -> Result<(), Usage> {
    match place.replace(value) {
        Some(before) if before != value => {
            Err(Usage(format!("{}: ranks per host are given twice, {before} and {value}", word.name())))
        }
        _ => Ok(()),
    }
}

/// Where ranks go may be said in several ways, but only one thing.
fn deal(job: &mut JobWish, map: MapBy, word: &Word<'_>) -> Result<(), Usage> {
    if job.map_by.deal != Deal::Unsaid && map.deal != job.map_by.deal {
        return Err(Usage(format!(
            "{}: where ranks go is said twice, and differently; leave one out",
            word.name()
        )));
    }
    job.map_by = map;
    Ok(())
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
