//! Values of options that are more than a word or a number.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::options::{Opt, Word};
use super::{Export, JobWish, Line, Pmi, Shell, Universe, Usage, Wish, os};
use crate::files::{Files, Pattern};
use crate::proto::Readers;

/// Names of the roads that ranks can take, which `selvedge::init` looks for.
const TRANSPORTS: [&str; 4] = ["shm", "efa-direct", "efa", "tcp"];

/// Families of Open MPI's settings that are about its launcher, not about the programs it starts.
const LAUNCHER_FAMILIES: &[&str] =
    &["plm_", "prte_", "orte_", "oob_", "rmaps_", "ras_", "rml_", "odls_", "ess_"];

/// Settings of its launcher on which nothing depends here, and that many recipes have: how it spells hosts, connects, and
/// puts its own messages together.
const NOTHING_TO_SET: &[&str] = &[
    "orte_base_help_aggregate",
    "prte_base_help_aggregate",
    "orte_keep_fqdn_hostnames",
    "prte_keep_fqdn_hostnames",
    "orte_tmpdir_base",
    "plm_rsh_no_tree_spawn",
    "plm_ssh_no_tree_spawn",
    "plm_rsh_num_concurrent",
    "plm_ssh_num_concurrent",
];

/// Settings of its launcher that are options here.
const BY_OPTION: &[(&str, &str)] = &[
    ("rmaps_base_mapping_policy", "--map-by"),
    ("rmaps_default_mapping_policy", "--map-by"),
    ("rmaps_base_ranking_policy", "--rank-by"),
    ("rmaps_default_ranking_policy", "--rank-by"),
    ("rmaps_base_oversubscribe", "--oversubscribe"),
    ("rmaps_base_no_oversubscribe", "--nooversubscribe"),
    ("hwloc_base_binding_policy", "--bind-to"),
    ("hwloc_default_binding_policy", "--bind-to"),
    ("orte_default_hostfile", "--default-hostfile"),
    ("prte_default_hostfile", "--default-hostfile"),
];

impl Line<'_> {
    /// `NAME VALUE` or `NAME=VALUE`.
    pub(super) fn setting(&mut self, word: &mut Word<'_>) -> Result<Export, Usage> {
        let name = self.value(word, "a name and a value")?;
        let (name, value) = match name.as_bytes().iter().position(|byte| *byte == b'=') {
            Some(at) => (os(&name.as_bytes()[..at]).to_owned(), os(&name.as_bytes()[at + 1..]).to_owned()),
            None => {
                let value = self.words.pop_front().ok_or_else(|| {
                    Usage(format!("{} {} needs a value", word.written.display(), name.display()))
                })?;
                (name, value)
            }
        };
        if name.is_empty() {
            return Err(word.wrong(&name, "the name of a variable"));
        }
        Ok(Export::Value(name, value))
    }

    /// Names with commas.
    pub(super) fn names(&mut self, word: &mut Word<'_>) -> Result<Vec<OsString>, Usage> {
        let list = self.value(word, "names of variables with commas")?;
        let names: Vec<OsString> =
            list.as_bytes().split(|byte| *byte == b',').map(|name| os(name).to_owned()).collect();
        let strange = |name: &OsString| name.is_empty() || name.as_bytes().contains(&b'=');
        match names.iter().any(strange) {
            true => Err(word.wrong(&list, "names of variables with commas")),
            false => Ok(names),
        }
    }

    /// A list of roads, passed on to the ranks.
    pub(super) fn roads(
        &mut self,
        word: &mut Word<'_>,
        variable: &str,
        job: &mut JobWish,
    ) -> Result<(), Usage> {
        let known = TRANSPORTS.join(", ");
        let list = self.value(word, &format!("one or more of {known}"))?;
        let is_known = |name: &[u8]| TRANSPORTS.iter().any(|transport| transport.as_bytes() == name);
        if !list.as_bytes().split(|byte| *byte == b',').all(is_known) {
            return Err(word.wrong(&list, &format!("a list, with commas, of {known}")));
        }
        job.exports.push(Export::Value(variable.into(), list));
        Ok(())
    }

    /// What ranks do about errors, by the names of MPI 5.0 section 11.5: ours end the job for both that abort.
    pub(super) fn errors(&mut self, word: &mut Word<'_>, job: &mut JobWish) -> Result<(), Usage> {
        const EXPECTED: &str = "mpi_errors_return, mpi_errors_abort or mpi_errors_are_fatal";
        let name = self.text(word, EXPECTED)?;
        let ours = match name.to_ascii_lowercase().as_str() {
            "mpi_errors_return" => "return",
            "mpi_errors_abort" | "mpi_errors_are_fatal" => "abort",
            _ => return Err(word.wrong(OsStr::new(&name), EXPECTED)),
        };
        job.exports.push(Export::Value("SELVEDGE_ERRORS".into(), ours.into()));
        Ok(())
    }

    /// Open MPI's settings: those of its programs become variables, of those of its launcher we have some by other names.
    pub(super) fn mca(&mut self, opt: Opt, word: &mut Word<'_>, job: &mut JobWish) -> Result<(), Usage> {
        let name = self.text(word, "a name and a value")?;
        let value = self
            .words
            .pop_front()
            .ok_or_else(|| Usage(format!("{} {name} needs a value after it", word.written.display())))?;
        if opt == Opt::PmixSetting {
            job.exports.push(Export::Value(format!("PMIX_MCA_{name}").into(), value));
            return Ok(());
        }
        let ours =
            opt == Opt::LauncherSetting || LAUNCHER_FAMILIES.iter().any(|family| name.starts_with(family));
        let option = BY_OPTION.iter().find(|(setting, _)| *setting == name).map(|(_, option)| option);
        match name.as_str() {
            _ if option.is_some() => {
                let (dashed, option) = (word.written.display(), option.copied().unwrap_or_default());
                return Err(Usage(format!("{dashed} {name}: write {option} for it")));
            }
            _ if NOTHING_TO_SET.contains(&name.as_str()) => {}
            "plm_ssh_agent" | "plm_rsh_agent" => job.agent.command = Some(value),
            "rml_base_radix" | "routed_radix" => {
                let width = value.to_str().and_then(|text| text.parse().ok()).filter(|width| *width > 0);
                job.tree_width.0 = width.ok_or_else(|| word.wrong(&value, "a number of hosts"))?;
            }
            "oob_tcp_if_include" => job.exports.push(Export::Value("SELVEDGE_INTERFACE".into(), value)),
            _ if ours => {
                return Err(Usage(format!(
                    "{} {name}: a setting of Open MPI's launcher, which this is not; leave it out, mpirun --help all lists what there is",
                    word.written.display()
                )));
            }
            _ => {
                if name == "btl_tcp_if_include" {
                    job.exports.push(Export::Value("SELVEDGE_INTERFACE".into(), value.clone()));
                }
                job.exports.push(Export::Value(format!("OMPI_MCA_{name}").into(), value));
            }
        }
        Ok(())
    }

    /// `0,1,1,0`.
    pub(super) fn rank_map(&mut self, word: &mut Word<'_>) -> Result<Vec<u32>, Usage> {
        const EXPECTED: &str = "a list of hosts by rank, counted from 0: 0,1,1,0";
        let text = self.text(word, EXPECTED)?;
        let hosts: Option<Vec<u32>> = text.split(',').map(|host| host.trim().parse().ok()).collect();
        let hosts = hosts.filter(|hosts| u32::try_from(hosts.len()).is_ok_and(|len| len <= super::RANKS_MAX));
        hosts.ok_or_else(|| word.wrong(OsStr::new(&text), EXPECTED))
    }

    pub(super) fn display(&mut self, word: &mut Word<'_>, job: &mut JobWish) -> Result<(), Usage> {
        const EXPECTED: &str = "map, allocation or bind, or several of them with commas";
        let what = self.text(word, EXPECTED)?;
        for one in what.split(',') {
            match one {
                "map" | "map-devel" => job.display.map = true,
                "allocation" | "alloc" => job.display.allocation = true,
                "bind" | "bindings" => job.display.bind = true,
                _ => return Err(word.wrong(OsStr::new(&what), EXPECTED)),
            }
        }
        Ok(())
    }

    pub(super) fn output(&mut self, word: &mut Word<'_>, job: &mut JobWish) -> Result<(), Usage> {
        const EXPECTED: &str = "tag, rank, tag-detailed, timestamp, file=FILE, dir=DIR or merge, or several of them with commas; patterns: -outfile-pattern";
        let what = self.value(word, EXPECTED)?;
        for one in what.as_bytes().split(|byte| *byte == b',') {
            match one {
                b"tag" | b"rank" => job.labels = true,
                b"tag-detailed" | b"tag-fullname" => job.label = Pattern::label(OsStr::new("[%r %h] ")),
                b"merge" => job.merges_errors = true,
                b"timestamp" => job.timestamps = true,
                _ => match (place_of(b"file=", one), place_of(b"dir=", one)) {
                    (Some(file), _) => files_of(file, word, job)?,
                    (_, Some(dir)) => {
                        let file = |name| Some(Pattern::inside(dir, name));
                        let files = Files { out: file("stdout"), err: file("stderr"), with_folders: true };
                        put(files, word, job)?;
                    }
                    _ => return Err(word.wrong(&what, EXPECTED)),
                },
            }
        }
        Ok(())
    }

    /// A file for each rank.
    pub(super) fn pattern(&mut self, word: &mut Word<'_>) -> Result<Pattern, Usage> {
        const EXPECTED: &str =
            "a file with %r for the rank; %h is the host, %p its number, %g the world, %% a percent sign";
        let pattern = self.value(word, EXPECTED)?;
        Pattern::new(&pattern).ok_or_else(|| word.wrong(&pattern, EXPECTED))
    }

    /// What stands before lines.
    pub(super) fn label(&mut self, word: &mut Word<'_>) -> Result<Pattern, Usage> {
        const EXPECTED: &str = "a text; in it %r is the rank, %h its host, %p the host's number, %g the world, %% a percent sign";
        let pattern = self.value(word, EXPECTED)?;
        Pattern::label(&pattern).ok_or_else(|| word.wrong(&pattern, EXPECTED))
    }

    /// `all`, `none`, `0`, `1,3-5`.
    pub(super) fn readers(&mut self, word: &mut Word<'_>) -> Result<Readers, Usage> {
        const EXPECTED: &str = "all, none, a rank, or several ranks such as 1,3-5";
        let text = self.text(word, EXPECTED)?;
        let ranks = match text.as_str() {
            "all" => return Ok(Readers::All),
            "none" => Some(Vec::new()),
            list => list.split(',').map(range).collect::<Option<Vec<_>>>().map(|ranges| ranges.concat()),
        };
        let mut ranks = ranks.ok_or_else(|| word.wrong(OsStr::new(&text), EXPECTED))?;
        ranks.sort_unstable();
        ranks.dedup();
        Ok(Readers::Ranks(ranks))
    }

    /// `-usize N`, and hydra's words for what there is anyway and for what nobody knows.
    pub(super) fn universe(&mut self, word: &mut Word<'_>) -> Result<Option<Universe>, Usage> {
        const EXPECTED: &str = "a number of ranks, SYSTEM or INFINITE";
        let text = self.text(word, EXPECTED)?;
        Ok(match (text.to_ascii_uppercase().as_str(), text.parse()) {
            ("SYSTEM", _) => None,
            ("INFINITE", _) => Some(Universe::Unknown),
            (_, Ok(size @ 1..)) => Some(Universe::Of(size)),
            _ => return Err(word.wrong(OsStr::new(&text), EXPECTED)),
        })
    }

    /// Signals that are to be passed on, all of which have to be such as are passed on anyway.
    pub(super) fn signals(&mut self, word: &mut Word<'_>) -> Result<(), Usage> {
        const PASSED_ON: [&str; 8] = ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "TSTP", "CONT"];
        let list = self.text(word, "names of signals with commas")?;
        let is_passed_on = |name: &str| name == "none" || PASSED_ON.contains(&name.trim_start_matches("SIG"));
        match list.split(',').all(is_passed_on) {
            true => Ok(()),
            false => Err(word.wrong(OsStr::new(&list), &format!("some of {}", PASSED_ON.join(", ")))),
        }
    }

    /// `--help`, `--help all`.
    pub(super) fn help(&mut self, word: &mut Word<'_>) -> Wish {
        let topic = word.inline.take().map(|text| os(text).to_owned()).or_else(|| self.words.pop_front());
        Wish::Help { all: topic.is_some_and(|topic| topic == "all") }
    }

    pub(super) fn shell(&mut self, word: &mut Word<'_>) -> Result<Shell, Usage> {
        const EXPECTED: &str = "bash, zsh or fish";
        let name = self.text(word, EXPECTED)?;
        Shell::parse(&name).ok_or_else(|| word.wrong(OsStr::new(&name), EXPECTED))
    }

    pub(super) fn pmi(&mut self, word: &mut Word<'_>) -> Result<Pmi, Usage> {
        let which = self.value(word, "auto, 1, 2 or x")?;
        Ok(match which.as_bytes() {
            b"auto" => Pmi::Auto,
            b"1" | b"pmi1" => Pmi::One,
            b"2" | b"pmi2" => Pmi::Two,
            b"x" | b"pmix" => Pmi::X,
            _ => return Err(word.wrong(&which, "auto, 1, 2 or x")),
        })
    }
}

/// `3` or `3-5`.
fn range(text: &str) -> Option<Vec<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < super::RANKS_MAX).then(|| (first..=last).collect())
}

/// What follows `file=` or `dir=`. Open MPI's `:nocopy` after it asks for what is so anyway; its `:pattern` is another option
/// here.
fn place_of<'a>(key: &[u8], text: &'a [u8]) -> Option<&'a OsStr> {
    let place = text.strip_prefix(key)?;
    let place = place.strip_suffix(b":nocopy").unwrap_or(place);
    (!place.is_empty() && !place.ends_with(b":pattern")).then_some(os(place))
}

/// A pair of files for each rank, as Open MPI's `--output-filename` makes them, with the folders that they are in: `FILE.0.out`,
/// `FILE.0.err`.
pub(super) fn files_of(file: &OsStr, word: &Word<'_>, job: &mut JobWish) -> Result<(), Usage> {
    let beside = |ending| Some(Pattern::beside(file, ending));
    put(Files { out: beside("out"), err: beside("err"), with_folders: true }, word, job)
}

/// What ranks write goes to one place.
fn put(files: Files, word: &Word<'_>, job: &mut JobWish) -> Result<(), Usage> {
    let before = std::mem::replace(&mut job.files, files);
    match before == Files::default() || before == job.files {
        true => Ok(()),
        false => {
            Err(word.about(&Usage::new("says another place than before for what ranks write; leave one out")))
        }
    }
}
