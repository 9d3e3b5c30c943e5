//! The one table of options. The parser looks names up in it, `--help` prints it, shells complete from it, and tests hold
//! the guide to it: an option that is not here does not exist.
//!
//! A description is sentences: the first stands in the short help and in completions, all of them in `--help all`.

use super::options::Opt;
use crate::place::policy::{Deal, Oversubscribe};
use crate::topology::Level;

/// Options that belong together.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its title, for people.
    pub(crate) title: &'static str,
    /// In the order of the help.
    pub(crate) flags: &'static [Flag],
}

/// One option, by all its names.
#[derive(Debug)]
pub(crate) struct Flag {
    /// As they are written after the dashes; the first is what the help and the guide call it.
    pub(crate) names: &'static [&'static str],
    /// What follows it.
    pub(crate) takes: Takes,
    /// Sentences about it.
    pub(crate) about: &'static str,
    /// Whether the short help has it.
    pub(crate) is_common: bool,
    /// What the parser does.
    pub(super) opt: Opt,
}

/// What follows an option, on the command line or after `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing.
    Nothing,
    /// A value by this name that a shell cannot guess.
    Text(&'static str),
    /// One of these words or something like them, by this name.
    Words(&'static str, &'static [&'static str]),
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A name and a value: two words.
    Pair,
}

impl Takes {
    /// How many words follow where there is no `=`.
    pub(crate) fn words(self) -> usize {
        match self {
            Takes::Nothing => 0,
            Takes::Pair => 2,
            _ => 1,
        }
    }

    /// What it is called in the help. Empty for nothing.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Takes::Nothing => "",
            Takes::Text(name) | Takes::Words(name, _) => name,
            Takes::File => "FILE",
            Takes::Dir => "DIR",
            Takes::Pair => "NAME VALUE",
        }
    }
}

impl Flag {
    /// The first sentence, without its full stop.
    pub(crate) fn summary(&self) -> &'static str {
        let end = self.about.find(". ").unwrap_or(self.about.len());
        self.about[..end].trim_end_matches('.')
    }

    /// A name with its dashes: one before a letter and before the names that everybody writes so, else two.
    pub(crate) fn dashed(name: &str) -> String {
        const SINGLE: &[&str] =
            &["np", "ppn", "wd", "wdir", "rf", "iface", "host", "hosts", "hostfile", "machinefile"];
        let of_hydra = name.starts_with("genv") || name.starts_with("env") || name.ends_with("file-pattern");
        if name.len() == 1 || SINGLE.contains(&name) || of_hydra {
            format!("-{name}")
        } else {
            format!("--{name}")
        }
    }

    /// All names with their dashes, and what follows.
    pub(crate) fn head(&self) -> String {
        let names: Vec<String> = self.names.iter().map(|name| Flag::dashed(name)).collect();
        let value = self.takes.name();
        if value.is_empty() { names.join(", ") } else { format!("{} {value}", names.join(", ")) }
    }

    const fn often(self) -> Flag {
        Flag { is_common: true, ..self }
    }
}

/// Every option.
pub(crate) fn flags() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags)
}

const fn flag(names: &'static [&'static str], takes: Takes, opt: Opt, about: &'static str) -> Flag {
    Flag { names, takes, about, is_common: false, opt }
}

const NUMBER: Takes = Takes::Text("N");
const LIST: Takes = Takes::Text("LIST");
const SECONDS: Takes = Takes::Text("SECONDS");
const ROADS: Takes = Takes::Words("LIST", &["shm", "efa-direct", "efa", "tcp"]);

/// The options, as the help has them.
pub(crate) const SECTIONS: &[Section] = &[
    Section { title: "How many ranks, and on which hosts", flags: HOSTS },
    Section { title: "Where ranks go", flags: PLACES },
    Section { title: "What ranks find", flags: ENVIRONMENT },
    Section { title: "Input and output", flags: STREAMS },
    Section { title: "Roads between ranks", flags: ROADS_OF_RANKS },
    Section { title: "Reaching other hosts", flags: AGENTS },
    Section { title: "Start and end", flags: MANNER },
    Section { title: "About mpirun", flags: ABOUT },
];

const HOSTS: &[Flag] = &[
    flag(
        &["n", "np", "c"],
        NUMBER,
        Opt::Ranks,
        "Number of ranks. Without it one for each slot of the hosts that were named, else one for each core; a part after a \
         colon has one. Given twice it must be the same.",
    )
    .often(),
    flag(
        &["host", "H"],
        LIST,
        Opt::Host,
        "Hosts with commas: node1,node2:8. Also me@node3, n[05-12]:8, [fe80::1]:2. A host without a count gets one rank each \
         time it is mentioned; HOST:* one for each core. For this part of the line only.",
    )
    .often(),
    flag(&["hosts"], LIST, Opt::Hosts, "The same for all parts of the line that name no hosts of their own."),
    flag(
        &["hostfile"],
        Takes::File,
        Opt::HostFile,
        "Hosts out of a file, one in a line: node1 slots=8, or node1:8. One rank for each core where there is no count. For \
         this part of the line only.",
    )
    .often(),
    flag(&["f", "machinefile"], Takes::File, Opt::HostFileForAll, "The same for all parts of the line."),
    flag(
        &["default-hostfile"],
        Takes::File,
        Opt::DefaultHostFile,
        "Hosts for when neither the command line nor a batch system names any.",
    ),
    flag(
        &["ppn", "perhost", "N", "npernode", "grr"],
        NUMBER,
        Opt::PerHost,
        "Ranks for each host before the next host's turn, whatever its slots.",
    )
    .often(),
    flag(&["rr", "pernode"], Takes::Nothing, Opt::RoundRobin, "One rank for each host, then the next: as -ppn 1."),
    flag(
        &["configfile", "app"],
        Takes::File,
        Opt::BlocksFile,
        "The parts of the line out of a file, one in a line. # begins a comment, quotes are as in a shell; nothing may \
         follow.",
    ),
];

const WHERE: &[&str] = &["slot", "node", "socket", "numa", "core", "hwthread", "ppr:"];

const PLACES: &[Flag] = &[
    flag(
        &["map-by"],
        Takes::Words("HOW", WHERE),
        Opt::MapBy,
        "Where the next rank goes: slot, node, socket, numa, core, hwthread or ppr:N:WHERE. slot: the same host until its \
         slots are taken; node: the next host; the others: the next of the same host; ppr: N to each. After it \
         :SPAN :PE=N :OVERSUBSCRIBE :NOOVERSUBSCRIBE :HWTCPUS.",
    )
    .often(),
    flag(&["npersocket"], NUMBER, Opt::Each(Level::Socket), "So many ranks on each socket: as --map-by ppr:N:socket."),
    flag(&["bynode"], Takes::Nothing, Opt::By(Deal::Round(Level::Node)), "As --map-by node."),
    flag(&["bysocket"], Takes::Nothing, Opt::By(Deal::Round(Level::Socket)), "As --map-by socket."),
    flag(&["bycore"], Takes::Nothing, Opt::By(Deal::Round(Level::Core)), "As --map-by core."),
    flag(&["byslot"], Takes::Nothing, Opt::By(Deal::Slot), "As --map-by slot."),
    flag(
        &["rank-by"],
        Takes::Words("HOW", &["slot", "fill", "span", "node", "socket", "numa", "core", "hwthread"]),
        Opt::RankBy,
        "How ranks are numbered: slot, fill, span, node, socket, numa, core or hwthread. Without it as they were dealt.",
    ),
    flag(
        &["bind-to"],
        Takes::Words("WHERE", &["share", "core", "hwthread", "numa", "socket", "none"]),
        Opt::Bind,
        "What each rank is bound to: share, core, core:N, hwthread, numa, socket or none. share, the default: an even share \
         of the cores for each, where there are enough; none: wherever the system likes.",
    )
    .often(),
    flag(
        &["cpus-per-proc", "cpus-per-rank"],
        NUMBER,
        Opt::CoresPerRank,
        "Cores for each rank: as --map-by :PE=N.",
    ),
    flag(&["use-hwthread-cpus"], Takes::Nothing, Opt::ThreadsAreCores, "Hardware threads count as cores."),
    flag(
        &["oversubscribe"],
        Takes::Nothing,
        Opt::Oversubscribe(Oversubscribe::Silent),
        "More ranks than slots begin again at the first host, and nothing is said about it. Without it a line on standard \
         error says so.",
    ),
    flag(
        &["nooversubscribe", "no-oversubscribe"],
        Takes::Nothing,
        Opt::Oversubscribe(Oversubscribe::Refuse),
        "More ranks than slots are refused.",
    ),
    flag(&["rankfile", "rf"], Takes::File, Opt::RankFile, "Lines such as: rank 0=node1 slot=1:0-2."),
    flag(&["rankmap"], LIST, Opt::RankMap, "The host of each rank, counted from 0: 0,1,1,0."),
    flag(
        &["report-bindings"],
        Takes::Nothing,
        Opt::ShowBindings,
        "Show which hardware threads each rank may use: as --display bind.",
    )
    .often(),
    flag(
        &["display"],
        Takes::Words("WHAT", &["map", "allocation", "bind"]),
        Opt::Display,
        "Pictures of hosts, cores and ranks before the start: map, allocation, bind. Several with commas. In a map each core has \
         the rank that is bound to it, * where several are, . where none is.",
    ),
    flag(&["display-map", "print-rank-map"], Takes::Nothing, Opt::ShowMap, "As --display map."),
    flag(&["display-allocation"], Takes::Nothing, Opt::ShowAllocation, "As --display allocation."),
];

const ENVIRONMENT: &[Flag] = &[
    flag(
        &["x"],
        Takes::Text("NAME[=VALUE]"),
        Opt::Export,
        "Set a variable for all ranks. Without a value it is passed on as it is here, and missed where it is not; all \
         others are passed on anyway. 'PREFIX*' is all that start so.",
    )
    .often(),
    flag(&["genv"], Takes::Pair, Opt::SetForAll, "Set a variable for all ranks; also NAME=VALUE.").often(),
    flag(&["env"], Takes::Pair, Opt::SetForBlock, "Set a variable for this part of the line only."),
    flag(&["genvlist"], LIST, Opt::ListForAll, "Pass on only these variables, with commas."),
    flag(&["envlist"], LIST, Opt::ListForBlock, "The same for this part of the line only."),
    flag(&["genvall"], Takes::Nothing, Opt::AllForAll, "Pass on all variables. This is so anyway."),
    flag(&["envall"], Takes::Nothing, Opt::AllForBlock, "Pass on all variables to this part of the line."),
    flag(&["genvnone"], Takes::Nothing, Opt::NoneForAll, "Pass on none of our variables."),
    flag(&["envnone"], Takes::Nothing, Opt::NoneForBlock, "Pass on none of our variables to this part of the line."),
    flag(&["wdir", "wd"], Takes::Dir, Opt::Wdir, "Working directory of the ranks. For this part of the line only.").often(),
    flag(
        &["mca", "gmca", "omca"],
        Takes::Pair,
        Opt::OpenMpiSetting,
        "A setting for programs of Open MPI's. Those of its launcher are refused, or mean what they mean there: \
         plm_ssh_agent, rml_base_radix, oob_tcp_if_include; a few that nothing depends on here are accepted.",
    ),
    flag(&["pmixmca", "gpmixmca"], Takes::Pair, Opt::PmixSetting, "A setting for libpmix in programs of Open MPI's."),
    flag(&["prtemca", "gprtemca"], Takes::Pair, Opt::LauncherSetting, "A setting of Open MPI's launcher; see --mca."),
    flag(
        &["pmi"],
        Takes::Words("WHICH", &["auto", "1", "2", "x"]),
        Opt::Pmi,
        "How programs learn their place: auto, 1, 2 or x. auto looks at what the program is linked with: PMIx for Open \
         MPI's, PMI-1 for all others.",
    ),
    flag(
        &["pmi-port"],
        Takes::Nothing,
        Opt::PmiPort,
        "Ranks connect for PMI-1 at a port of the loopback interface. For wrappers that close inherited descriptors; only \
         processes of ranks are heard there.",
    ),
];

const STREAMS: &[Flag] = &[
    flag(&["l", "tag-output", "prepend-rank"], Takes::Nothing, Opt::Labels, "Start every line with [rank].").often(),
    flag(
        &["timestamp-output", "prepend-timestamp"],
        Takes::Nothing,
        Opt::Timestamps,
        "Start every line with the seconds since the start.",
    ),
    flag(
        &["output"],
        Takes::Words("WHAT", &["tag", "rank", "tag-detailed", "timestamp", "file=", "dir=", "merge"]),
        Opt::Output,
        "How output is marked, and where it goes: tag, timestamp, file=FILE, dir=DIR or merge. tag and rank are -l; \
         tag-detailed has the host as well; file is --output-filename; dir makes DIR/rank.RANK/stdout and stderr; merge is \
         --merge-stderr-to-stdout. Several with commas.",
    )
    .often(),
    flag(
        &["outfile-pattern"],
        Takes::File,
        Opt::OutFile,
        "A file for what each rank writes to standard output. %r is its rank, %h its host, %p the number of that host, %g \
         its world (0: the command line's), %% a percent sign. Made anew, also by a rank that writes nothing; -l and the like \
         mark its lines too.",
    ),
    flag(&["errfile-pattern"], Takes::File, Opt::ErrFile, "The same for standard error."),
    flag(
        &["prepend-pattern"],
        Takes::Text("TEXT"),
        Opt::LabelPattern,
        "Start every line with this text. In it %r %h %p %g and %% are as in -outfile-pattern.",
    ),
    flag(
        &["merge-stderr-to-stdout", "merge-stderr"],
        Takes::Nothing,
        Opt::MergeErrors,
        "What ranks write to standard error goes where their standard output goes.",
    ),
    flag(&["ordered-output"], Takes::Nothing, Opt::SoAnyway, "Accepted; lines of different ranks never mix."),
    flag(
        &["stdin", "s"],
        Takes::Words("WHO", &["0", "all", "none"]),
        Opt::Stdin,
        "Who gets what mpirun reads: a rank, several such as 1,3-5, all or none. Rank 0 without it; the others read an empty \
         file. Each reader gets all of it, and the slowest sets the pace.",
    )
    .often(),
    flag(
        &["output-filename"],
        Takes::File,
        Opt::OutputFile,
        "Files FILE.RANK.out and FILE.RANK.err for each rank. Folders are made where they are not there.",
    ),
];

const ROADS_OF_RANKS: &[Flag] = &[
    flag(
        &["transport"],
        ROADS,
        Opt::Transport,
        "Take no other roads than these between ranks: shm, efa-direct, efa, tcp. Without it shm within a host, and the best \
         of the others that all ranks have between hosts.",
    )
    .often(),
    flag(
        &["require"],
        ROADS,
        Opt::Require,
        "Do not start unless one of these leads to other hosts. shm: within one; efa is also met by efa-direct. Within a \
         host shm is taken all the same, where --transport allows it.",
    )
    .often(),
    flag(&["iface"], Takes::Text("NAME"), Opt::Interface, "The network interface for tcp, or its address."),
    flag(
        &["report"],
        Takes::Words("HOW", &["text", "json", "json="]),
        Opt::Report,
        "Let rank 0 say at the start which roads are taken: text, json or json=FILE. Also where shm is the only one.",
    )
    .often(),
    flag(&["quiet", "q"], Takes::Nothing, Opt::Quiet, "Say nothing about roads at the start."),
    flag(
        &["algorithm"],
        Takes::Text("LIST"),
        Opt::Algorithm,
        "Which algorithms collectives go by. Each is named with the sizes it is for: \
         allreduce/ring@64KiB..,broadcast/knomial:4. Ranks refuse a name that there is not, with the nearest one.",
    ),
    flag(
        &["check"],
        Takes::Nothing,
        Opt::Check,
        "Ranks compare what they call before each blocking collective, and those that differ say so.",
    ),
    flag(
        &["initial-errhandler"],
        Takes::Words("NAME", &["mpi_errors_return", "mpi_errors_abort", "mpi_errors_are_fatal"]),
        Opt::Errors,
        "What a call that fails does before it returns the error. mpi_errors_return: nothing, as without it; \
         mpi_errors_abort and mpi_errors_are_fatal end the job.",
    ),
];

const AGENTS: &[Flag] = &[
    flag(
        &["agent", "launcher-exec", "bootstrap-exec", "rsh-agent"],
        Takes::Text("COMMAND"),
        Opt::AgentCommand,
        "What reaches other hosts, in place of ssh, or of srun inside a job of Slurm's. It may have arguments; {host} in it \
         stands for the host.",
    ),
    flag(&["agent-program"], Takes::File, Opt::AgentProgram, "Where mpirun is on the other hosts."),
    flag(
        &["launcher", "bootstrap"],
        Takes::Words("KIND", &["auto", "ssh", "slurm", "fork"]),
        Opt::AgentKind,
        "Which of the two: ssh or slurm. fork: neither, all ranks are on this host.",
    ),
    flag(
        &["tree-width", "branch-count"],
        NUMBER,
        Opt::TreeWidth,
        "Agents that each agent starts, 32 without it.",
    ),
    flag(&["start-timeout"], SECONDS, Opt::StartLimit, "How long hosts may take to be there, 60 without it."),
    flag(
        &["host-timeout"],
        SECONDS,
        Opt::HostLimit,
        "How long a host may be silent before it counts as lost, 20 without it.",
    ),
    flag(
        &["join"],
        Takes::Text("ADDRESS[:PORT]"),
        Opt::Join,
        "Without ssh: hosts that run the same command join the first, which is here. Its address or name; auto: as AWS \
         Batch says.",
    ),
    flag(
        &["join-hosts"],
        NUMBER,
        Opt::JoinHosts,
        "Hosts of a job whose hosts join. Without it as AWS Batch or Kubernetes says.",
    ),
    flag(
        &["join-index"],
        NUMBER,
        Opt::JoinIndex,
        "The place of this host among those that join: the first has 0. Without it as AWS Batch or Kubernetes says, else in \
         the order of addresses.",
    ),
    flag(&["secret-file"], Takes::File, Opt::SecretFile, "32 bytes that all hosts that join share."),
    flag(&["new-secret"], Takes::File, Opt::NewSecret, "Make such a file, and do nothing else."),
];

const MANNER: &[Flag] = &[
    flag(
        &["timeout"],
        SECONDS,
        Opt::TimeLimit,
        "End the job after so long, with exit code 124. Fractions are understood; 0 is for ever, whatever MPIEXEC_TIMEOUT says.",
    )
    .often(),
    flag(
        &["v", "verbose"],
        Takes::Nothing,
        Opt::Verbose,
        "Say where ranks are and which roads are between them: as --display map --report text.",
    ),
    flag(
        &["forward-signals"],
        LIST,
        Opt::SignalsAnyway,
        "Accepted where these are passed on anyway. That is so for INT, TERM, HUP, QUIT, USR1, USR2, TSTP, CONT.",
    ),
    flag(
        &["usize"],
        Takes::Words("N", &["SYSTEM", "INFINITE"]),
        Opt::Universe,
        "What programs hear that ask how many ranks there can be. SYSTEM: as many as there are, which is so without it; \
         INFINITE: nobody knows.",
    ),
    flag(
        &["report-pid"],
        Takes::File,
        Opt::ReportPid,
        "Write mpirun's process number to this file at the start. -: to standard output; +: to standard error.",
    ),
    flag(&["report-state-on-timeout"], Takes::Nothing, Opt::SoAnyway, "Accepted; --timeout says who waits for whom."),
    flag(&["personality"], Takes::Text("NAME"), Opt::ValueAnyway, "Accepted; there is only one."),
    flag(&["allow-run-as-root"], Takes::Nothing, Opt::SoAnyway, "Accepted; root is always allowed."),
];

const ABOUT: &[Flag] = &[
    flag(
        &["h", "help"],
        Takes::Nothing,
        Opt::Help,
        "The most used options. --help all: every option, the variables, the exit codes and examples.",
    )
    .often(),
    flag(&["V", "version"], Takes::Nothing, Opt::Version, "The version.").often(),
    flag(
        &["completions"],
        Takes::Words("SHELL", &["bash", "zsh", "fish"]),
        Opt::Completions,
        "Print what makes a shell complete this command line: bash, zsh or fish. selvedge completions prints it together \
         with its own.",
    ),
];
