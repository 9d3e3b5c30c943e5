use proptest::prelude::*;

use super::*;
use crate::files::Pattern;
use crate::place::policy::{Deal, Oversubscribe};
use crate::topology::Level;

fn parsed(line: &str) -> Result<Wish, Usage> {
    parse(line.split_whitespace().map(OsString::from))
}

pub(super) fn job(line: &str) -> JobWish {
    match parsed(line) {
        Ok(Wish::Job(job)) => job,
        other => panic!("{line}: {other:?}"),
    }
}

pub(super) fn refusal(line: &str) -> String {
    parsed(line).expect_err(line).to_string()
}

#[test]
fn the_number_of_ranks_has_many_spellings() {
    for spelling in
        ["-n 4", "-np 4", "--np 4", "--n 4", "-c 4", "-n=4", "--np=4", "-n 4 -np 4", "-n 4 --oversubscribe"]
    {
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
    let job = job("-x A -x B=1=2 -x C* -genv D 3 -genv E=4 -x F= -env G 5 prog");
    let exports = job.exports;
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
    assert_eq!(job.blocks[0].exports, [value("G", "5")]);
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
fn the_first_error_handler_is_passed_on_to_the_ranks() {
    for (name, ours) in
        [("mpi_errors_return", "return"), ("MPI_ERRORS_ARE_FATAL", "abort"), ("mpi_errors_abort", "abort")]
    {
        let exports = job(&format!("-initial-errhandler {name} prog")).exports;
        assert_eq!(exports, [Export::Value("SELVEDGE_ERRORS".into(), ours.into())]);
    }
    assert!(refusal("-initial-errhandler none prog").ends_with("or mpi_errors_are_fatal"));
}

#[test]
fn wishes_for_collectives_are_passed_on_to_the_ranks() {
    let exports = job("--algorithm allreduce/ring@64KiB.. --check prog").exports;
    let value = |name: &str, value: &str| Export::Value(name.into(), value.into());
    assert_eq!(
        exports,
        [value("SELVEDGE_ALGORITHM", "allreduce/ring@64KiB.."), value("SELVEDGE_CHECK", "1")]
    );
}

#[test]
fn what_is_so_anyway_is_accepted() {
    assert_eq!(job("--bind-to none --allow-run-as-root -oversubscribe -l prog").blocks.len(), 1);
    assert_eq!(job("--bind-to core prog").binding, Binding::Core);
    assert!(refusal("--bind-to board prog").contains("share, core"));
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
    let empty = parse(["-n", "2", ""].map(OsString::from)).expect_err("no program").to_string();
    assert!(empty.contains("is a variable not set?"), "{empty}");
    assert!(refusal("--frobnicate prog").contains("unknown option --frobnicate"));
    assert!(refusal("-l=yes prog").contains("takes no value"));
    assert!(refusal("-x =1 prog").contains("NAME"));
    assert!(refusal("--timeout soon prog").contains("seconds"));
    assert!(refusal("--timeout -1 prog").contains("seconds"));
    assert!(refusal("--timeout nan prog").contains("seconds"));
}

#[test]
fn help_and_version_need_no_program() {
    let (short, long) = (Wish::Help { all: false }, Wish::Help { all: true });
    for (line, wish) in [
        ("-h", short.clone()),
        ("--help", short.clone()),
        ("--help mapping", short),
        ("--help all", long.clone()),
        ("-n 2 -help=all", long),
        ("-n 2 --version", Wish::Version),
        ("--completions zsh", Wish::Completions(Shell::Zsh)),
    ] {
        assert_eq!(parsed(line), Ok(wish));
    }
}

#[test]
fn a_shell_that_is_not_known_gets_the_list_of_those_that_are() {
    assert!(refusal("--completions csh").ends_with("bash, zsh or fish"));
    assert!(refusal("--completions").contains("needs bash, zsh or fish"));
}

#[test]
fn a_time_limit_may_have_fractions() {
    assert_eq!(job("--timeout 1.5 prog").time_limit, Some(Duration::from_millis(1500)));
}

/// A job that reads these files.
fn with_files(line: &str, files: &[(&str, &str)]) -> Result<JobWish, String> {
    let read = |path: &std::path::Path| {
        let file = files.iter().find(|(name, _)| std::path::Path::new(name) == path);
        file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    match parse_with(line.split_whitespace().map(OsString::from), &read) {
        Ok(Wish::Job(job)) => Ok(job),
        Ok(other) => panic!("{line}: {other:?}"),
        Err(why) => Err(why.to_string()),
    }
}

fn names(hosts: &[HostWish]) -> Vec<&str> {
    hosts.iter().map(|host| host.name.as_str()).collect()
}

#[test]
fn hosts_belong_to_their_part_or_to_the_whole_line() {
    let job = job("-hosts g -H a,b -n 2 one : -n 1 two : -host=c -host d three");
    assert_eq!(names(&job.hosts), ["g"]);
    let of_blocks: Vec<_> = job.blocks.iter().map(|block| names(&block.hosts)).collect();
    assert_eq!(of_blocks, [vec!["a", "b"], vec![], vec!["c", "d"]]);
}

#[test]
fn host_files_are_read_at_once() {
    let files = [("f", "a:2\nb\n"), ("g", "c\n")];
    let job = with_files("-f f -machinefile g prog", &files).unwrap();
    assert_eq!(names(&job.hosts), ["a", "b", "c"]);
    let job = with_files("--hostfile f one : two", &files).unwrap();
    assert_eq!((job.hosts.len(), job.blocks[0].hosts.len(), job.blocks[1].hosts.len()), (0, 2, 0));
    assert!(with_files("-f nope prog", &files).unwrap_err().contains("host file nope"));
}

#[test]
fn ranks_per_host_have_the_spellings_of_both_families() {
    for spelling in ["-ppn 4", "-perhost 4", "-N 4", "--npernode 4", "-ppn=4", "-ppn 4 -N 4", "-grr 4"] {
        assert_eq!(job(&format!("{spelling} prog")).per_host, Some(4), "{spelling}");
    }
    assert_eq!(job("-rr prog").per_host, Some(1));
    assert!(refusal("-ppn 4 -N 2 prog").contains("given twice"));
}

#[test]
fn where_ranks_go_is_said_once() {
    let map = job("--map-by socket:PE=2 --oversubscribe --use-hwthread-cpus prog").map_by;
    assert_eq!((map.deal, map.cores_per_rank), (Deal::Round(Level::Socket), Some(2)));
    assert_eq!((map.oversubscribe, map.threads_are_cores), (Oversubscribe::Silent, true));
    assert_eq!(job("--npersocket 2 prog").map_by.deal, Deal::Each(2, Level::Socket));
    assert_eq!(job("--bynode prog").map_by.deal, Deal::Round(Level::Node));
    assert_eq!(job("--bind-to core:4 prog").map_by.cores_per_rank, Some(4));
    assert!(refusal("--map-by socket --bynode prog").contains("differently"));
    assert!(refusal("--map-by board prog").starts_with("--map-by \"board\""));
}

#[test]
fn pictures_are_asked_for_one_by_one_or_together() {
    let display = job("--display map,bind --display=allocation prog").display;
    assert!(display.map && display.bind && display.allocation);
    assert!(job("--report-bindings prog").display.bind);
    assert!(refusal("--display tree prog").contains("map, allocation or bind"));
}

#[test]
fn what_is_passed_on_is_said_for_all_or_for_a_part() {
    let job = job("-genvlist A,B -envnone one : -envlist C two : -envall three : four");
    let only = |names: &[&str]| Inherit::Only(names.iter().map(OsString::from).collect());
    assert_eq!(job.inherit, only(&["A", "B"]));
    let of_blocks: Vec<_> = job.blocks.iter().map(|block| block.inherit.clone()).collect();
    assert_eq!(of_blocks, [Some(only(&[])), Some(only(&["C"])), Some(Inherit::All), None]);
    assert!(refusal("-genvlist A=1 prog").contains("names of variables"));
}

#[test]
fn settings_of_open_mpis_programs_become_variables_and_its_agent_is_ours() {
    let job = job("--mca pml ob1 --pmixmca gds hash --mca plm_rsh_agent ns --prtemca routed_radix 8 prog");
    let value = |name: &str, value: &str| Export::Value(name.into(), value.into());
    assert_eq!(job.exports, [value("OMPI_MCA_pml", "ob1"), value("PMIX_MCA_gds", "hash")]);
    assert_eq!(job.agent.command.as_deref(), Some(OsStr::new("ns")));
    assert_eq!(job.tree_width, TreeWidth(8));
    assert!(refusal("--mca rmaps_base_pattern x prog").contains("Open MPI's launcher"));
    assert!(refusal("--prtemca anything x prog").contains("Open MPI's launcher"));
    assert!(refusal("--mca pml").contains("needs a value"));
}

#[test]
fn agents_have_many_names() {
    for spelling in ["--agent", "-launcher-exec", "-bootstrap-exec", "--rsh-agent"] {
        let job = parse([spelling, "ssh -F cfg", "prog"].map(OsString::from));
        let Ok(Wish::Job(job)) = job else { panic!("{job:?}") };
        assert_eq!(job.agent.command.as_deref(), Some(OsStr::new("ssh -F cfg")), "{spelling}");
    }
    assert_eq!(job("-bootstrap slurm prog").agent.kind, AgentKind::Srun);
    assert!(refusal("-launcher manual prog").contains("--agent"));
    assert_eq!(job("--tree-width 4 --start-timeout 9 --host-timeout 1.5 prog").tree_width, TreeWidth(4));
    assert!(refusal("--tree-width 0 prog").contains("number of hosts"));
}

#[test]
fn pmi_has_three_dialects() {
    for (word, pmi) in [("auto", Pmi::Auto), ("1", Pmi::One), ("pmi2", Pmi::Two), ("pmix", Pmi::X)] {
        assert_eq!(job(&format!("--pmi={word} prog")).pmi, pmi);
    }
    assert!(refusal("--pmi 3 prog").contains("auto, 1, 2 or x"));
    assert!(!job("prog").pmi_port, "a port is opened only where somebody asks for it");
}

#[test]
fn output_can_be_marked_and_put_into_files() {
    let pattern = |text: &str| Pattern::new(OsStr::new(text));
    let wish = job("--output tag,timestamp -outfile-pattern o.%r.%h -errfile-pattern e%r prog");
    assert!(wish.labels && wish.timestamps);
    assert_eq!(wish.files, Files { out: pattern("o.%r.%h"), err: pattern("e%r"), with_folders: false });
    for spelling in ["--output-filename a%b", "--output file=a%b"] {
        let files = job(&format!("{spelling} prog")).files;
        assert_eq!(
            files,
            Files { out: pattern("a%%b.%r.out"), err: pattern("a%%b.%r.err"), with_folders: true }
        );
    }
    assert!(refusal("-outfile-pattern %x prog").contains("%r for the rank"));
    assert!(refusal("-errfile-pattern all prog").contains("%r for the rank"));
    assert!(refusal("--output xml prog").contains("tag, rank"));
}

#[test]
fn blocks_may_stand_in_a_file() {
    let files = [("blocks", "-n 2 -ppn 1 one 'a b' # two\n-n 3 two\n"), ("nested", "-configfile blocks\n")];
    for spelling in ["-configfile blocks", "--app blocks", "-l --app=blocks"] {
        let job = with_files(spelling, &files).unwrap();
        let ranks: Vec<_> = job.blocks.iter().map(|block| block.ranks.unwrap()).collect();
        assert_eq!((ranks, job.per_host), (vec![2, 3], Some(1)), "{spelling}");
        assert_eq!(job.blocks[0].args, ["a b"]);
    }
    assert!(with_files("--app blocks prog", &files).unwrap_err().contains("nothing may follow"));
    assert!(with_files("--app nested", &files).unwrap_err().contains("cannot name another"));
    assert!(with_files("--app nope", &files).unwrap_err().contains("--app nope: "));
}

#[test]
fn places_by_rank_are_listed_or_stand_in_a_file() {
    assert_eq!(job("-rankmap 0,1,1,0 prog").rank_map, Some(vec![0, 1, 1, 0]));
    assert!(refusal("-rankmap 0,x prog").contains("counted from 0"));
    let files = [("r", "rank 0=a slot=0\n")];
    assert_eq!(with_files("--rankfile r prog", &files).unwrap().rank_file.unwrap().len(), 1);
    assert!(with_files("--rankfile r -rankmap 0 prog", &files).unwrap_err().contains("leave one out"));
}

#[test]
fn an_option_without_value_takes_none() {
    for option in ["-l", "--oversubscribe", "--genvall", "--report-bindings", "-q", "--allow-run-as-root"] {
        assert!(refusal(&format!("{option}=1 prog")).ends_with("takes no value"), "{option}");
    }
}

#[test]
fn every_option_stands_in_the_guide() {
    let guide = include_str!("../../../docs/guide-launcher.md");
    let words: std::collections::BTreeSet<&str> =
        guide.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))).collect();
    let ours = table::flags().flat_map(|flag| flag.names);
    let theirs = foreign::FOREIGN.iter().flat_map(|(names, _)| names.iter());
    for name in ours.chain(theirs) {
        let stands = [format!("-{name}"), format!("--{name}")].iter().any(|option| words.contains(&**option));
        assert!(stands, "--{name} is not in docs/guide-launcher.md");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_is_too_strange(words in proptest::collection::vec("(-n|-H|--map-by|-x|--mca|:|--|a:2|[0-9]|ppr:1:node|\\PC{0,8})", 0..12)) {
        let _ = parse_with(words.into_iter().map(OsString::from), &|_| Ok(b"a:2\n".to_vec()));
    }

    #[test]
    fn bytes_that_are_no_text_are_not_either(words in proptest::collection::vec(proptest::collection::vec(1..=255_u8, 0..6), 0..6)) {
        let words = words.into_iter().map(|bytes| os(&bytes).to_owned());
        let _ = parse_with(words, &|_| Ok(b"a:2\n".to_vec()));
    }
}
