//! Files for each rank, times before lines, pictures, and what a part of the command line has for itself.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
use common::mpirun;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of one test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("selvedge-outputs-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run_in(folder: &Path, words: &str, script: &str) -> common::Done {
    let words = words.split_whitespace().chain(["sh", "-c", script]);
    mpirun(words).dir(folder).run()
}

#[test]
fn every_rank_has_a_file_of_its_own_which_is_made_anew() {
    let folder = Folder::new("own");
    fs::write(folder.0.join("o.1"), "of another job\n").unwrap();
    let script = "echo out $PMI_RANK; echo err $PMI_RANK >&2; printf 'no end'";
    let done = run_in(&folder.0, "-n 3 -outfile-pattern o.%r", script);
    assert_eq!((done.code(), done.text()), (0, String::new()));
    for rank in 0..3 {
        assert_eq!(folder.read(&format!("o.{rank}")), format!("out {rank}\nno end"));
    }
    assert_eq!(done.err.lines().filter(|line| line.starts_with("err ")).count(), 3);

    let done = run_in(&folder.0, "-n 2 --output-filename both", script);
    assert_eq!((done.text(), done.err.as_str()), (String::new(), ""));
    assert_eq!(folder.read("both.1.out"), "out 1\nno end");
    assert_eq!(folder.read("both.0.err"), "err 0\n");
}

#[test]
fn a_rank_that_writes_nothing_has_an_empty_file_and_not_one_of_an_earlier_job() {
    let folder = Folder::new("silent");
    fs::write(folder.0.join("o.1"), "of another job\n").unwrap();
    let done = run_in(&folder.0, "-n 2 -outfile-pattern o.%r -errfile-pattern e.%r", "exit 0");
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    assert_eq!(["o.0", "o.1", "e.0", "e.1"].map(|file| folder.read(file)), [""; 4]);
    // A pipe without a reader is not waited for by one who has nothing to say.
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.0.join("p.0"), 0o600.into()).unwrap();
    assert_eq!(run_in(&folder.0, "-n 1 -outfile-pattern p.%r", "exit 0").code(), 0);
}

#[test]
fn lines_in_files_are_marked_as_those_on_a_terminal_are() {
    let folder = Folder::new("marked");
    let script = "printf 'a'; echo b; printf c; echo err >&2";
    assert_eq!(run_in(&folder.0, "-n 2 -l --output file=o", script).code(), 0);
    assert_eq!(
        (folder.read("o.1.out"), folder.read("o.1.err")),
        ("[1] ab\n[1] c\n".into(), "[1] err\n".into())
    );
    let done = run_in(&folder.0, "-n 2 -prepend-pattern %r: --output timestamp --output dir=d", "echo x");
    let line = folder.read("d/rank.0/stdout");
    assert_eq!((done.code(), line.starts_with('['), line.ends_with("] 0:x\n")), (0, true, true), "{line}");
}

#[test]
fn more_files_than_may_be_open_are_written_all_the_same() {
    let folder = Folder::new("many");
    let done = run_in(&folder.0, "-n 140 -outfile-pattern o.%r", "echo a; sleep 0.1; echo b");
    assert_eq!((done.code(), done.err.as_str()), (0, ""));
    for rank in 0..140 {
        assert_eq!(folder.read(&format!("o.{rank}")), "a\nb\n", "{rank}");
    }
}

#[test]
fn a_folder_for_every_rank_is_made_where_there_is_none() {
    let folder = Folder::new("folders");
    let done = run_in(&folder.0, "-n 2 --output dir=deep/er", "echo out; echo err >&2");
    assert_eq!((done.code(), done.text().as_str(), done.err.as_str()), (0, "", ""));
    for rank in 0..2 {
        assert_eq!(folder.read(&format!("deep/er/rank.{rank}/stdout")), "out\n");
        assert_eq!(folder.read(&format!("deep/er/rank.{rank}/stderr")), "err\n");
    }
    assert_eq!(run_in(&folder.0, "-n 1 --output-filename as/open/mpi", "echo x").code(), 0);
    assert_eq!(folder.read("as/open/mpi.0.out"), "x\n");
    assert_eq!(run_in(&folder.0, "-n 1 -outfile-pattern %g.%p.%r.%%", "echo x").code(), 0);
    assert_eq!(folder.read("0.0.0.%"), "x\n");
}

#[test]
fn lines_start_with_a_text_of_ones_own_and_errors_may_go_with_the_output() {
    let script = "echo out; echo err >&2";
    let done =
        mpirun(["-n", "2", "-prepend-pattern", "<%g.%r%%> ", "--output", "merge", "sh", "-c", script]).run();
    assert_eq!(done.lines(), ["<0.0%> err", "<0.0%> out", "<0.1%> err", "<0.1%> out"]);
    assert_eq!(done.err, "");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let done = mpirun(["-n", "1", "--output", "tag-detailed", "echo", "x"]).run();
    assert_eq!(done.text(), format!("[0 {host}] x\n"));
}

#[test]
fn both_outputs_may_have_the_same_file() {
    let folder = Folder::new("same");
    let done = run_in(
        &folder.0,
        "-n 2 -outfile-pattern o.%r -errfile-pattern o.%r",
        // Each line is in the file before the next one is written.
        "in_file() { until grep -qs $1 o.$PMI_RANK; do sleep 0.01; done; }
         echo a; in_file a; echo b >&2; in_file b; echo c",
    );
    assert_eq!(done.code(), 0);
    assert_eq!(folder.read("o.1"), "a\nb\nc\n");
}

#[test]
fn a_file_that_cannot_be_written_ends_the_job_and_is_named() {
    let folder = Folder::new("full");
    std::os::unix::fs::symlink("/dev/full", folder.0.join("o.1")).unwrap();
    for (pattern, why) in
        [("o.%r", "cannot write o.1: No space"), ("none/o.%r", ": there is no folder none; make it first")]
    {
        let done = run_in(&folder.0, &format!("-n 2 -outfile-pattern {pattern}"), "echo a; sleep 20");
        assert_eq!(done.code(), 1);
        assert!(done.verdict().contains(why), "{}", done.err);
    }
}

#[test]
fn seconds_since_the_start_stand_before_lines() {
    let done = mpirun(["-n", "2", "--output", "timestamp,rank", "sh", "-c", "sleep 0.2; echo x"]).run();
    let times = done.lines().into_iter().enumerate().map(|(rank, line)| {
        let time = line.strip_prefix(&format!("[{rank} ")).unwrap().strip_suffix("] x").unwrap().to_owned();
        time.parse::<f64>().unwrap()
    });
    assert!(times.into_iter().all(|seconds| seconds > 0.2), "{}", done.text());
}

#[test]
fn pictures_come_before_what_ranks_write() {
    let done =
        mpirun(["-n", "2", "--display", "map,bind,allocation", "-H", "localhost:2", "echo", "x"]).run();
    let text = done.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("localhost: 2 slots; "), "{text}");
    assert!(lines[1].starts_with("localhost: ranks 0-1 of 2"), "{text}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("rank ")).count(), 2, "{text}");
    assert_eq!(lines[lines.len() - 2..], ["x", "x"]);
}

#[test]
fn more_ranks_than_slots_start_with_a_remark_or_not_at_all() {
    let job = |words: &str| mpirun(words.split(' ').chain(["-n", "3", "true"])).run();
    let remarked = job("-H localhost:2");
    assert_eq!(remarked.code(), 0);
    assert!(remarked.verdict().contains("localhost gets 3 ranks and has 2 slots"), "{}", remarked.err);
    assert_eq!(job("-H localhost:2 --oversubscribe").err, "");
    let refused = job("-H localhost:2 --nooversubscribe");
    assert_eq!(refused.code(), 2);
    assert!(refused.verdict().contains("leave --nooversubscribe out"), "{}", refused.err);
}

#[test]
fn a_part_of_the_line_has_variables_of_its_own_and_may_stand_in_a_file() {
    let folder = Folder::new("parts");
    let blocks = "-n 1 -env A 1 sh -c 'echo $PMI_RANK $A $G'   # its own\n\
                  -n 2 -envnone -env A 2 /bin/sh -c 'echo $PMI_RANK $A $G $SELVEDGE_TEST_KEPT'\n";
    fs::write(folder.0.join("parts"), blocks).unwrap();
    for option in ["-configfile", "--app"] {
        let job = mpirun(["-genv", "G", "9", option, "parts"]).dir(&folder.0);
        let done = job.env("SELVEDGE_TEST_KEPT", "kept").run();
        assert_eq!(done.lines(), ["0 1 9", "1 2 9", "2 2 9"], "{}", done.err);
    }
}

#[test]
fn parts_may_call_this_host_by_different_names() {
    let words = "-n 1 -H localhost echo a : -n 1 -H 127.0.0.1 echo b : -n 1 echo c";
    let done = mpirun(words.split(' ')).run();
    assert_eq!((done.code(), done.lines()), (0, ["a", "b", "c"].map(str::to_owned).to_vec()), "{}", done.err);
}

#[test]
fn an_unknown_option_starts_nothing() {
    let done = mpirun(["--host-file", "x", "sh", "-c", "echo started"]).run();
    assert_eq!((done.code(), done.text()), (2, String::new()));
    assert!(done.verdict().contains("is -hostfile meant?"), "{}", done.err);
}
