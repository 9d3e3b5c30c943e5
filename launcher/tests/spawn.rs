//! Ranks that start ranks: worlds of their own under one mpirun, on one host and on several, whoever fails or leaves first;
//! and names by which worlds find each other.
//!
//! The ranks are shell scripts that speak PMI-1 by themselves, so that every answer is seen as it is.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{Folder, Job, mpirun, read_lines};
use rustix::process::Signal;

/// What the scripts have in common: a conversation over `PMI_FD`, a line at a time.
const SPEECH: &str = r#"
ask() { printf '%s\n' "$@" >&$PMI_FD; IFS= read -r answer <&$PMI_FD; }
begin() {
  ask 'cmd=init pmi_version=1 pmi_subversion=1'
  ask cmd=get_my_kvsname; name=${answer##*kvsname=}
}
finish() { ask cmd=finalize; }
fence() { ask cmd=barrier_in; }
value() { ask "cmd=get kvsname=$name key=$1"; answer=${answer##*value=}; }
# spawn RANKS SCRIPT [KEY VALUE]: ranks that run the script with this speech before it
spawn() {
  info=('info_num=0'); [ $# -lt 4 ] || info=('info_num=1' "info_key_0=$3" "info_val_0=$4")
  printf '%s\n' mcmd=spawn "nprocs=$1" "execname=${program:-bash}" totspawns=${of:-1} spawnssofar=${nth:-1} argcnt=2 \
    arg1=-c "arg2=source speech; ${2//$'\n'/;}" preput_num=1 preput_key_0=from "preput_val_0=rank-$PMI_RANK" \
    "${info[@]}" endcmd >&$PMI_FD
  [ "${nth:-1}" != "${of:-1}" ] || IFS= read -r answer <&$PMI_FD
}
"#;

/// In place of ssh: `HOST COMMAND`.
const AGENT: &str = "#!/bin/sh
host=$1; shift
exec env -i PATH=\"$PATH\" SELVEDGE_TEST_MARKER=\"$SELVEDGE_TEST_MARKER\" SELVEDGE_HOST=\"$host\" sh -c \"exec $*\"
";

struct Place {
    folder: Folder,
    agent: String,
}

impl Place {
    fn new(test: &str) -> Place {
        let folder = Folder::new(&format!("spawn-{test}"));
        folder.file("speech", SPEECH, 0o644);
        let agent = folder.file("agent", AGENT, 0o755).to_str().unwrap().to_owned();
        Place { folder, agent }
    }

    /// `mpirun OPTIONS bash -c SCRIPT`, where the script can speak.
    fn job(&self, options: &[&str], script: &str) -> Job {
        let script = format!("source speech\n{script}");
        mpirun(options.iter().copied().chain(["bash", "-c", &script])).dir(&self.folder.0)
    }

    /// The same on hosts.
    fn on(&self, hosts: &str, options: &[&str], script: &str) -> Job {
        let all: Vec<&str> = ["-H", hosts, "--agent", &self.agent].iter().chain(options).copied().collect();
        self.job(&all, script)
    }
}

#[test]
fn spawned_ranks_are_a_world_of_their_own() {
    let place = Place::new("world");
    let child =
        "begin; value from; echo \"$PMI_RANK/$PMI_SIZE $PMI_SPAWNED $answer ${name##*.}\"; fence; finish";
    let done = place.job(&["-n", "2"], &format!("begin; [ $PMI_RANK = 0 ] || {{ finish; exit; }}\nspawn 3 '{child}'\necho $answer $PMI_SPAWNED; finish"));
    let done = done.run();
    assert_eq!(done.code(), 0, "{}", done.err);
    let expected =
        ["0/3 1 rank-0 1", "1/3 1 rank-0 1", "2/3 1 rank-0 1", "cmd=spawn_result rc=0 errcodes=0,0,0"];
    assert_eq!(done.lines(), expected);
}

#[test]
fn several_commands_are_one_world_each_with_its_arguments_and_its_directory() {
    let place = Place::new("commands");
    std::fs::create_dir(place.folder.0.join("below")).unwrap();
    std::fs::copy(place.folder.0.join("speech"), place.folder.0.join("below/speech")).unwrap();
    let child = "begin; ask cmd=get_appnum; echo $PMI_RANK of $PMI_SIZE ${answer##*=} ${PWD##*/} $0; finish";
    let script = format!(
        "begin\nof=2 nth=1 spawn 1 '{child}'\nof=2 nth=2 spawn 2 '{child}' wdir below\necho ${{answer#* }}; finish"
    );
    let done = place.job(&["-n", "1"], &script).run();
    let here = place.folder.0.file_name().unwrap().to_str().unwrap().to_owned();
    let expected = [
        format!("0 of 3 0 {here} bash"),
        "1 of 3 1 below bash".into(),
        "2 of 3 1 below bash".into(),
        "rc=0 errcodes=0,0,0".into(),
    ];
    assert_eq!((done.code(), done.lines()), (0, expected.to_vec()), "{}", done.err);
}

#[test]
fn what_cannot_be_started_is_an_answer_and_the_job_goes_on() {
    let place = Place::new("nothing");
    let script = "begin\nprogram=./no-such-program spawn 2 true\necho ${answer%% msg*}
        spawn 0 true; echo ${answer%% msg*}; spawn 1 true wdir /no/such/folder; echo ${answer%% msg*}
        spawn 1 'begin; finish; echo alive'; echo ${answer%% msg*}; finish";
    for hosts in [None, Some("a,b")] {
        let done = match hosts {
            None => place.job(&["-n", "1"], script).run(),
            Some(hosts) => place.on(hosts, &["-n", "1"], script).run(),
        };
        let refused = "cmd=spawn_result rc=1";
        let expected = ["alive", "cmd=spawn_result rc=0 errcodes=0", refused, refused, refused];
        assert_eq!((done.code(), done.lines()), (0, expected.map(str::to_owned).to_vec()), "{}", done.err);
        let said =
            "mpirun: what rank 0 wanted to spawn is not started: cannot find the program ./no-such-program";
        assert!(done.err.starts_with(said), "{}", done.err);
    }
}

#[test]
fn children_go_where_there_is_room_or_where_they_are_wanted() {
    let place = Place::new("where");
    let child = "begin; value PMI_process_mapping; echo $PMI_RANK $SELVEDGE_HOST $answer; finish";
    let script = format!("begin\nspawn 3 '{child}'; finish");
    let done = place.on("a:2,b:2", &["-n", "1"], &script).run();
    let map = "(vector,(0,1,1),(1,1,2))";
    let expected = [format!("0 a {map}"), format!("1 b {map}"), format!("2 b {map}")];
    assert_eq!((done.code(), done.lines()), (0, expected.to_vec()), "{}", done.err);
    let script = format!("begin\nspawn 2 '{child}' host b; finish");
    let done = place.on("a:2,b:2", &["-n", "1"], &script).run();
    let map = "(vector,(0,1,2))";
    assert_eq!(done.lines(), [format!("0 b {map}"), format!("1 b {map}")], "{}", done.err);
}

#[test]
fn children_may_spawn_and_parents_may_leave_before_them() {
    let place = Place::new("grand");
    let grandchild = "begin; sleep 0.3; echo last; finish";
    let child = format!("begin; spawn 2 \\\"{grandchild}\\\"; echo child; finish");
    let script = format!("begin\nspawn 1 \"{child}\"\necho parent; finish");
    for options in [&["-n", "1"][..], &["-H", "a,b", "--agent", &place.agent, "-n", "1"]] {
        let done = place.job(options, &script).run();
        assert_eq!(
            (done.code(), done.lines()),
            (0, ["child", "last", "last", "parent"].map(str::to_owned).to_vec())
        );
    }
}

#[test]
fn a_child_that_fails_ends_all_worlds() {
    let place = Place::new("fails");
    for (child, code, verdict) in [
        ("begin; [ $PMI_RANK = 0 ] || exit 9; sleep 100", 9, "mpirun: rank 1.1 on "),
        ("begin; ask \"cmd=abort exitcode=7 message=enough\"", 7, "mpirun: rank 1."),
    ] {
        let script = format!("begin\nspawn 2 '{child}'\nsleep 100");
        for options in [&["-n", "2"][..], &["-H", "a,b", "--agent", &place.agent, "-n", "1"]] {
            let options: Vec<&str> =
                options.iter().copied().chain(["--"]).filter(|word| *word != "--").collect();
            let script = script.replace("spawn 2", "[ $PMI_RANK = 0 ] || sleep 100\nspawn 2");
            let done = place.job(&options, &script).run();
            assert_eq!(done.code(), code, "{}", done.err);
            assert!(done.verdict().starts_with(verdict), "{}", done.err);
        }
    }
}

#[test]
fn lines_and_files_of_children_are_told_from_those_of_others() {
    let place = Place::new("labels");
    let script = "begin\nspawn 2 'begin; echo child; finish'\necho parent; finish";
    let done = place.job(&["-l", "-n", "1"], script).run();
    assert_eq!(done.lines(), ["[0] parent", "[1.0] child", "[1.1] child"], "{}", done.err);
    let done = place.job(&["-outfile-pattern", "out.%r", "-n", "1"], script).run();
    assert_eq!((done.code(), done.text().as_str()), (0, ""), "{}", done.err);
    let read = |name: &str| std::fs::read_to_string(place.folder.0.join(name)).unwrap();
    assert_eq!([read("out.0"), read("out.1.0"), read("out.1.1")], ["parent\n", "child\n", "child\n"]);
}

#[test]
fn signals_reach_children_and_an_interrupt_ends_them() {
    let place = Place::new("signals");
    let child = "trap \"echo usr1\" USR1; begin; echo ready; while :; do sleep 0.05; done";
    let script =
        format!("trap 'echo usr1' USR1; begin\nspawn 1 '{child}'\necho ready; while :; do sleep 0.05; done");
    let mut job = place.job(&["-n", "1"], &script).undisturbed().start();
    read_lines(&mut job, 2);
    job.signal(Signal::USR1);
    read_lines(&mut job, 2);
    job.signal(Signal::INT);
    let done = job.finish();
    assert_eq!(done.code(), 130, "{}", done.err);
}

#[test]
fn spawns_one_after_the_other_leave_nothing_of_themselves() {
    let place = Place::new("many");
    let script = "begin\nfor i in {1..30}; do spawn 2 'begin; fence; finish'; [ ${answer#*rc=0} != \"$answer\" ] || echo $answer; done\nask cmd=get_my_kvsname; finish";
    let done = place.on("a,b", &["-n", "1"], script).run();
    assert_eq!((done.code(), done.text().as_str()), (0, ""), "{}", done.err);
}

#[test]
fn names_are_known_in_all_worlds_and_on_all_hosts() {
    let place = Place::new("names");
    let child = "begin; ask \"cmd=lookup_name service=s\"; echo $answer; ask \"cmd=unpublish_name service=s\"; finish";
    let script = format!(
        "begin\n[ $PMI_RANK = 1 ] || {{ ask 'cmd=publish_name service=s port=p#1'; echo $answer; }}; fence
         [ $PMI_RANK = 0 ] || {{ ask 'cmd=publish_name service=s port=x'; echo ${{answer%% msg*}}
           spawn 1 '{child}'; sleep 0.3; ask 'cmd=lookup_name service=s'; echo ${{answer%% msg*}}; }}; fence; finish"
    );
    for options in [&["-n", "2"][..], &["-H", "a,b", "--agent", &place.agent]] {
        let done = place.job(options, &script).run();
        let expected = [
            "cmd=lookup_result rc=0 port=p#1",
            "cmd=lookup_result rc=1",
            "cmd=publish_result rc=0",
            "cmd=publish_result rc=1",
        ];
        assert_eq!((done.code(), done.lines()), (0, expected.map(str::to_owned).to_vec()), "{}", done.err);
    }
}
