//! What people who come from Open MPI, hydra and Intel's hydra write, purpose by purpose, and what it must do here. A row is a
//! purpose; a line stands under the family whose habit it is. Lines that mean the same give the same job.

use super::tests::{job, refusal};
use super::*;

/// One purpose.
struct Row {
    purpose: &'static str,
    /// Each must give the same job as the first.
    same: &'static [&'static str],
    /// Whether the first does what it should.
    holds: fn(&JobWish) -> bool,
    /// Each is refused with a line that has these words in it.
    refused: &'static [(&'static str, &'static str)],
}

fn exports(job: &JobWish, name: &str, value: &str) -> bool {
    job.exports.contains(&Export::Value(name.into(), value.into()))
}

fn only(names: &[&str]) -> Inherit {
    Inherit::Only(names.iter().map(OsString::from).collect())
}

const ROWS: &[Row] = &[
    Row {
        purpose: "process count: -n -np everywhere, -c as Open MPI; one dash or two, a blank or an equal sign",
        same: &["-n 3 p", "-np 3 p", "--np 3 p", "-c 3 p", "--n=3 p", "-np=3 p", "-n 3 -np 3 p"],
        holds: |job| job.blocks[0].ranks == Some(3),
        refused: &[
            ("-n 2 -n 3 p", "given twice"),
            ("-n3 p", "write -n 3"),
            ("-n x p", "a number of ranks"),
            ("--ntasks 3 p", "-n N"),
        ],
    },
    Row {
        purpose: "per node: -ppn of hydra, -perhost -grr of Intel, -N --npernode of Open MPI",
        same: &["-ppn 2 p", "--ppn=2 p", "-perhost 2 p", "-grr 2 p", "-N 2 p", "--npernode 2 p"],
        holds: |job| job.per_host == Some(2),
        refused: &[
            ("-ppn 2 -N 3 p", "given twice"),
            ("--ntasks-per-node 2 p", "-ppn N"),
            ("--nodes 2 p", "srun's"),
        ],
    },
    Row {
        purpose: "per node: -rr of Intel is one for each host",
        same: &["-rr p", "-ppn 1 p", "-pernode p"],
        holds: |job| job.per_host == Some(1),
        refused: &[("-rr=1 p", "takes no value")],
    },
    Row {
        purpose: "hosts: -host in all, -H of Open MPI",
        same: &["-host localhost:4 p", "--host localhost:4 p", "-H localhost:4 p", "--host=localhost:4 p"],
        holds: |job| job.blocks[0].hosts.len() == 1 && job.hosts.is_empty(),
        refused: &[("-host : p", "-host"), ("-w a p", "-host a,b")],
    },
    Row {
        purpose: "hosts: -hosts of hydra is for all parts",
        same: &["-hosts localhost:4 p", "--hosts=localhost:4 p"],
        holds: |job| job.hosts.len() == 1,
        refused: &[("-hosts", "needs hosts")],
    },
    Row {
        purpose: "export: -x NAME=VALUE of Open MPI, -genv of hydra",
        same: &["-x A=1 p", "-genv A 1 p", "-genv A=1 p", "--genv A 1 p"],
        holds: |job| exports(job, "A", "1"),
        refused: &[("-genv A", "needs a value"), ("-x = p", "NAME"), ("--export A=1 p", "-x NAME=VALUE")],
    },
    Row {
        purpose: "export: -x 'N*' of Open MPI 5",
        same: &["-x A* p"],
        holds: |job| job.exports == [Export::Prefix("A".into())],
        refused: &[],
    },
    Row {
        purpose: "export: -env of hydra is for its part",
        same: &["-env A 1 p : q", "-env A=1 p : q"],
        holds: |job| {
            job.exports.is_empty() && job.blocks[0].exports.len() == 1 && job.blocks[1].exports.is_empty()
        },
        refused: &[("-env A", "needs a value")],
    },
    Row {
        purpose: "pass on: -genvlist, -envlist",
        same: &["-genvlist A,B p"],
        holds: |job| job.inherit == only(&["A", "B"]) && job.blocks[0].inherit.is_none(),
        refused: &[("-genvlist A,,B p", "names of variables"), ("-envlist A=1 p", "names of variables")],
    },
    Row {
        purpose: "pass on: -genvnone for all, -envall for one part",
        same: &["-genvnone p : -envall q"],
        holds: |job| job.inherit == only(&[]) && job.blocks[1].inherit == Some(Inherit::All),
        refused: &[("-genvnone=1 p", "takes no value")],
    },
    Row {
        purpose: "pass on: -envnone, -envlist for one part, -genvall for all",
        same: &["-genvall -envnone p : -envlist A q"],
        holds: |job| job.blocks[0].inherit == Some(only(&[])) && job.blocks[1].inherit == Some(only(&["A"])),
        refused: &[],
    },
    Row {
        purpose: "working directory: -wdir --wdir in all, -wd of Open MPI",
        same: &["-wdir /tmp p", "--wdir /tmp p", "-wd /tmp p", "--wd=/tmp p"],
        holds: |job| job.blocks[0].wdir.as_deref() == Some(OsStr::new("/tmp")),
        refused: &[("-wdir", "needs a directory"), ("--chdir /tmp p", "--wdir DIR")],
    },
    Row {
        purpose: "MPMD: a colon in all; one rank for a part that does not say",
        same: &["-n 2 p a : q b", "-n 2 p a : -n 1 q b"],
        holds: |job| job.blocks.len() == 2 && job.blocks[1].args == ["b"] && job.blocks[1].ranks == Some(1),
        refused: &[("p : : q", "missing"), ("p :", "no program"), ("--multi-prog f p", "--app FILE")],
    },
    Row {
        purpose: "PMI at a port: -pmi-port of hydra",
        same: &["-pmi-port p", "--pmi-port p", "-pmi-port --pmi auto p"],
        holds: |job| job.pmi_port,
        refused: &[
            ("-pmi-port --pmi x p", "a way of PMI-1"),
            ("--pmi 2 -pmi-port p", "a way of PMI-1"),
            ("-pmi-port=7 p", "takes no value"),
        ],
    },
    Row {
        purpose: "labels: -l -prepend-rank of hydra, --output tag and rank and --tag-output of Open MPI",
        same: &[
            "-l p",
            "-prepend-rank p",
            "--tag-output p",
            "--output tag p",
            "--output=rank p",
            "--output rank,tag p",
        ],
        holds: |job| job.labels && job.label.is_none(),
        refused: &[("--label p", "write -l"), ("--output tags p", "timestamp")],
    },
    Row {
        purpose: "labels: --output tag-detailed, tag-fullname of Open MPI; -prepend-pattern of hydra",
        same: &["--output tag-detailed p", "--output tag-fullname p"],
        holds: |job| job.label == Pattern::label(OsStr::new("[%r %h] ")) && job.has_labels(),
        refused: &[("-prepend-pattern %x p", "%r is the rank"), ("-prepend-pattern", "needs a text")],
    },
    Row {
        purpose: "labels: the time",
        same: &["--output timestamp p", "--timestamp-output p", "-prepend-timestamp p"],
        holds: |job| job.timestamps && !job.has_labels(),
        refused: &[("--timestamp-output=yes p", "takes no value")],
    },
    Row {
        purpose: "output to files: --output file= and --output-filename of Open MPI",
        same: &["--output file=o p", "--output-filename o p", "--output file=o:nocopy p"],
        holds: |job| {
            let patterns = super::tests::job("-outfile-pattern o.%r.out -errfile-pattern o.%r.err p").files;
            job.files == Files { with_folders: true, ..patterns }
        },
        refused: &[
            ("--output file= p", "file=FILE"),
            ("--output file=o.%r:pattern p", "-outfile-pattern"),
            ("--output file=o --output dir=d p", "leave one out"),
            ("-outfile-pattern o p", "%r for the rank"),
        ],
    },
    Row {
        purpose: "output to files: --output dir= of Open MPI",
        same: &["--output dir=d p", "--output dir=d,dir=d p"],
        holds: |job| {
            job.files.out == Some(Pattern::inside(OsStr::new("d"), "stdout")) && job.files.with_folders
        },
        refused: &[("--output dir= p", "dir=DIR")],
    },
    Row {
        purpose: "output to files: all of hydra's patterns",
        same: &["-outfile-pattern %g.%p.%h.%r.%% p"],
        holds: |job| job.files.err.is_none(),
        refused: &[("-errfile-pattern %t p", "%r for the rank")],
    },
    Row {
        purpose: "standard input: rank 0 without a word",
        same: &["p", "--stdin 0 p", "-s 0 p"],
        holds: |job| job.readers == Readers::Ranks(vec![0]),
        refused: &[
            ("--stdin some p", "all, none, a rank"),
            ("-s 5-3 p", "all, none, a rank"),
            ("-s 1,,2 p", "all, none"),
        ],
    },
    Row {
        purpose: "standard input: all, none and lists of Open MPI and Intel",
        same: &["--stdin all p", "-s all p"],
        holds: |job| {
            job.readers == Readers::All
                && super::tests::job("--stdin none p").readers == Readers::Ranks(vec![])
        },
        refused: &[],
    },
    Row {
        purpose: "standard input: some",
        same: &["-s 1,3-5 p", "--stdin 3-5,1,4 p"],
        holds: |job| job.readers == Readers::Ranks(vec![1, 3, 4, 5]),
        refused: &[],
    },
    Row {
        purpose: "binding: --bind-to core in all",
        same: &["--bind-to core p", "-bind-to core p", "-bind-to=core p", "--bind-to CORE p"],
        holds: |job| job.binding == Binding::Core,
        refused: &[("--bind-to board p", "none of share"), ("--cpu-bind cores p", "--bind-to")],
    },
    Row {
        purpose: "binding: none, socket, numa, hwthread are four things",
        same: &["--bind-to none p"],
        holds: |job| {
            let of = |word: &str| super::tests::job(&format!("--bind-to {word} p")).binding;
            let others = [of("socket"), of("numa"), of("hwthread")];
            job.binding == Binding::None && others == [Binding::Socket, Binding::Numa, Binding::Thread]
        },
        refused: &[("--bind-to numa:2 p", "none of share")],
    },
    Row {
        purpose: "mapping: --map-by in both, ppr of Open MPI and what it used to be",
        same: &["--map-by ppr:2:socket p", "-map-by ppr:2:socket p", "--npersocket 2 p"],
        holds: |job| job.map_by.deal == crate::place::policy::Deal::Each(2, crate::topology::Level::Socket),
        refused: &[
            ("--map-by socket --bynode p", "differently"),
            ("--map-by board p", "board"),
            ("-m block p", "--map-by"),
        ],
    },
    Row {
        purpose: "bindings shown: --report-bindings, --display bind",
        same: &["--report-bindings p", "--display bind p"],
        holds: |job| job.display.bind,
        refused: &[("--display tree p", "map, allocation or bind")],
    },
    Row {
        purpose: "oversubscribe: always, and without a remark",
        same: &["--oversubscribe p", "--map-by :OVERSUBSCRIBE p"],
        holds: |job| job.map_by.oversubscribe == crate::place::policy::Oversubscribe::Silent,
        refused: &[
            ("--oversubscribed p", "--oversubscribe meant"),
            ("--oversubscribe --nooversubscribe p", "leave one out"),
        ],
    },
    Row {
        purpose: "time limit: --timeout of Open MPI",
        same: &["--timeout 2 p", "-timeout 2.0 p", "--timeout 2 --report-state-on-timeout p"],
        holds: |job| {
            let never = super::tests::job("--timeout 0 p").time_limit;
            job.time_limit == Some(Duration::from_secs(2)) && never == Some(Duration::ZERO)
        },
        refused: &[
            ("--timeout never p", "seconds"),
            ("--timeout -1 p", "seconds"),
            ("--get-stack-traces p", "selvedge where"),
            ("--time-out 2 p", "--timeout meant"),
        ],
    },
    Row {
        purpose: "launcher: -launcher-exec of hydra, plm_ssh_agent and plm_rsh_agent of Open MPI",
        same: &[
            "-launcher-exec s p",
            "-bootstrap-exec s p",
            "--prtemca plm_ssh_agent s p",
            "--mca plm_rsh_agent s p",
            "--mca plm_ssh_agent s p",
            "--prtemca plm_rsh_agent s p",
        ],
        holds: |job| job.agent.command.as_deref() == Some(OsStr::new("s")),
        refused: &[("-launcher manual p", "--agent"), ("--prtemca plm_ssh_agnet s p", "Open MPI's launcher")],
    },
    Row {
        purpose: "launcher: -launcher ssh, -bootstrap ssh",
        same: &["-launcher ssh p", "-bootstrap ssh p"],
        holds: |job| {
            let fork = super::tests::job("-bootstrap fork p").agent.kind;
            job.agent.kind == AgentKind::Ssh && fork == AgentKind::Fork
        },
        refused: &[("-launcher lsf p", "--agent")],
    },
    Row {
        purpose: "interface: -iface of hydra",
        same: &["-iface eth0 p", "--prtemca oob_tcp_if_include eth0 p"],
        holds: |job| exports(job, "SELVEDGE_INTERFACE", "eth0"),
        refused: &[],
    },
    Row {
        purpose: "verbose: -v in all",
        same: &["-v p", "-verbose p", "--display map --report text p"],
        holds: |job| job.display.map && exports(job, "SELVEDGE_REPORT", "text"),
        refused: &[("-d p", "--display map")],
    },
    Row {
        purpose: "quiet: of none of them, and of ours",
        same: &["-q p", "--quiet p"],
        holds: |job| exports(job, "SELVEDGE_QUIET", "1"),
        refused: &[],
    },
    Row {
        purpose: "others that are so anyway",
        same: &[
            "p",
            "--allow-run-as-root p",
            "-ordered-output p",
            "--personality ompi p",
            "--forward-signals SIGUSR1,TERM p",
            "-genvall p",
            "--mca orte_base_help_aggregate 0 p",
            "--mca plm_rsh_no_tree_spawn 1 --mca orte_keep_fqdn_hostnames t p",
        ],
        holds: |job| *job == super::tests::job("p"),
        refused: &[("--forward-signals WINCH p", "some of INT")],
    },
    Row {
        purpose: "others: -usize of hydra, --report-pid of Open MPI",
        same: &["-usize 9 --report-pid - p", "--usize=9 --report-pid=- p"],
        holds: |job| {
            let universe = |line: &str| super::tests::job(line).universe_of(4);
            let others = [universe("p"), universe("-usize system p"), universe("-usize INFINITE p")];
            job.universe_of(4) == Some(9) && others == [Some(4), Some(4), None] && job.report_pid.is_some()
        },
        refused: &[("-usize 0 p", "a number of ranks")],
    },
    Row {
        purpose: "others: settings, ranks by host, pictures",
        same: &[
            "--mca k v -rankmap 0,0 --display map,allocation p",
            "-gmca k v -rankmap 0,0 --print-rank-map --display-allocation p",
        ],
        holds: |job| exports(job, "OMPI_MCA_k", "v") && job.rank_map == Some(vec![0, 0]),
        refused: &[
            ("--mca rmaps_base_mapping_policy core p", "--map-by"),
            ("--mca hwloc_base_binding_policy core p", "--bind-to"),
            ("--bind-to-core p", "--bind-to core"),
            ("-path /opt p", "-x PATH"),
            ("--dvm p", "each mpirun is one job"),
            ("-usize many p", "a number of ranks"),
            ("-rmk user p", "batch systems"),
            ("-print-all-exitcodes p", "first rank that fails"),
            ("-disable-auto-cleanup p", "ends the job"),
            ("--report-uri - p", "selvedge ps"),
            ("-nolocal p", "-host"),
            ("-gdb p", "debugger as the program"),
            ("-gtool x p", "debugger as the program"),
        ],
    },
];

#[test]
fn every_purpose_has_the_words_of_all_families() {
    for Row { purpose, same, holds, refused } in ROWS {
        let first = job(same[0]);
        assert!(holds(&first), "{purpose}: {first:?}");
        for line in *same {
            assert_eq!(job(line), first, "{purpose}: {line}");
        }
        for (line, words) in *refused {
            let why = refusal(line);
            assert!(why.contains(words), "{purpose}: {line}: {why}");
        }
    }
}

#[test]
fn a_host_file_and_a_file_of_parts_have_the_names_of_all_families() {
    let read = |path: &std::path::Path| match path.to_str() {
        Some("hosts") => Ok(b"localhost slots=2\n".to_vec()),
        Some("parts") => Ok(b"-n 2 p\n-n 1 q\n".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let parsed = |line: &str| parse_with(line.split(' ').map(OsString::from), &read);
    for name in ["-hostfile", "--hostfile", "-machinefile", "--machinefile", "-f"] {
        let Ok(Wish::Job(job)) = parsed(&format!("{name} hosts p")) else { panic!("{name}") };
        assert_eq!(job.hosts.len() + job.blocks[0].hosts.len(), 1, "{name}");
    }
    for name in ["-configfile", "--configfile", "--app", "-app"] {
        let Ok(Wish::Job(job)) = parsed(&format!("{name} parts")) else { panic!("{name}") };
        assert_eq!(job.blocks.len(), 2, "{name}");
    }
    let Ok(Wish::Job(job)) = parsed("--default-hostfile hosts p") else { panic!() };
    assert_eq!(job.default_hosts.len(), 1);
}

#[test]
fn the_time_limit_of_the_environment_counts_where_the_line_has_none() {
    let limit = |line: &str, variable: &str| {
        let mut job = job(line);
        settle_time_limit(&mut job, Some(variable.into())).map(|()| job.time_limit)
    };
    assert_eq!(limit("p", "1.5"), Ok(Some(Duration::from_millis(1500))));
    assert_eq!(limit("--timeout 9 p", "1"), Ok(Some(Duration::from_secs(9))));
    for none in ["0", "", "-1"] {
        assert_eq!(limit("p", none), Ok(None), "{none}");
    }
    assert_eq!(limit("--timeout 0 p", "1"), Ok(None));
    for strange in ["soon", "nan", "inf"] {
        assert!(limit("p", strange).unwrap_err().to_string().contains("MPIEXEC_TIMEOUT"), "{strange}");
    }
}
