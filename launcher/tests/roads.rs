//! Roads between real ranks: which are taken, what is said of them, and how a job ends that has none. Needs a libfabric with
//! sockets (Debian: libfabric1).
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{Done, Folder, Job, mpirun, probe_path};

/// `mpirun -n N OPTIONS ranks WORDS`, tcp by the host's own loop. `hosts`: how many consecutive ranks make believe that they
/// share a host of their own.
fn ranks(count: u32, hosts: Option<u32>, options: &[&str], words: &[&str]) -> Job {
    let program = probe_path().with_file_name("ranks");
    let (count, program) = (count.to_string(), program.to_str().unwrap());
    let script = format!("SELVEDGE_HOST=h$((PMI_RANK / {})) exec \"$@\"", hosts.unwrap_or(1));
    let mut all = vec!["-n", &count];
    all.extend(options);
    if hosts.is_some() {
        all.extend(["sh", "-c", &script, "sh"]);
    }
    all.push(program);
    all.extend(words);
    mpirun(all).env("SELVEDGE_INTERFACE", "127.0.0.1")
}

fn assert_sum(done: &Done, count: u32) {
    let expected = format!("{count} ranks, sum {}\n", count * (count - 1) / 2);
    assert_eq!((done.code(), done.text()), (0, expected), "{}", done.err);
}

#[test]
fn a_job_on_one_host_says_nothing_unless_it_is_asked() {
    for (options, said) in [(&[][..], ""), (&["--report", "text"], "selvedge: all: shm"), (&["--quiet"], "")]
    {
        let done = ranks(3, None, options, &["sum"]).run();
        assert_sum(&done, 3);
        assert!(done.err.contains(said) && (!said.is_empty() || done.err.is_empty()), "{}", done.err);
    }
}

#[test]
fn with_tcp_only_all_ranks_talk_over_sockets_and_it_is_said_once() {
    for count in [2, 5] {
        let done = ranks(count, None, &["--transport", "tcp"], &["sum"]).run();
        assert_sum(&done, count);
        let first = format!("selvedge: {count} ranks on 1 host\nselvedge: all: tcp on lo, provider ");
        assert!(done.err.starts_with(&first), "{}", done.err);
        assert_eq!(done.err.matches("selvedge: all").count(), 1, "{}", done.err);
    }
}

#[test]
fn ranks_of_two_hosts_share_memory_within_and_sockets_between() {
    let done = ranks(4, Some(2), &[], &["sum"]).run();
    assert_sum(&done, 4);
    assert!(done.err.starts_with("selvedge: 4 ranks on 2 hosts\nselvedge: same host: shm"), "{}", done.err);
    assert!(done.err.contains("selvedge: other host: tcp on lo, provider "), "{}", done.err);
    assert!(done.err.contains("selvedge:   not efa"), "why no better road: {}", done.err);
}

#[test]
fn hosts_of_unequal_size_and_ranks_alone_on_theirs_meet_too() {
    for (count, each) in [(5, 2), (3, 2), (3, 1)] {
        let done = ranks(count, Some(each), &["--quiet"], &["sum"]).run();
        assert_sum(&done, count);
        assert_eq!(done.err, "", "--quiet");
    }
}

#[test]
fn the_report_is_written_as_json_where_it_was_asked_for() {
    let folder = Folder::new("report");
    let file = folder.0.join("roads.json");
    let wish = format!("--report=json={}", file.display());
    let done = ranks(4, Some(2), &[&wish], &["sum"]).run();
    assert_sum(&done, 4);
    assert_eq!(done.err, "");
    let json = std::fs::read_to_string(file).unwrap();
    assert!(json.contains(r#""pairs":"same host","road":"shm""#), "{json}");
    assert!(json.contains(r#""pairs":"other host","road":"tcp""#), "{json}");
}

#[test]
fn a_job_that_demands_what_is_not_there_does_not_start_and_one_message_says_why() {
    for (hosts, options) in [(None, &["--require", "efa"][..]), (Some(2), &["--require", "efa"])] {
        let done = ranks(4, hosts, options, &["sum"]).env("SELVEDGE_LIBFABRIC", "/nowhere").run();
        assert_eq!((done.code(), done.text().as_str()), (69, ""), "{}", done.err);
        assert_eq!(done.err.matches("the job does not start: --require efa").count(), 1, "{}", done.err);
        assert!(done.err.contains("efa-direct, efa: rank 0 on "), "{}", done.err);
        assert!(done.err.contains("/nowhere"), "the reason: {}", done.err);
        assert!(done.verdict().contains("exited with code 69"), "{}", done.err);
    }
}

#[test]
fn a_demand_for_a_network_on_one_host_says_how_to_take_it_there() {
    let done = ranks(2, None, &["--require", "tcp"], &["sum"]).run();
    assert_eq!(done.code(), 69);
    assert!(
        done.err.contains("all 2 ranks are on one host") && done.err.contains("--transport tcp"),
        "{}",
        done.err
    );
    assert_sum(&ranks(2, None, &["--require", "tcp", "--transport", "tcp"], &["sum"]).run(), 2);
    assert_sum(&ranks(4, Some(2), &["--require", "tcp"], &["sum"]).run(), 4);
    assert_sum(&ranks(2, None, &["--require", "shm"], &["sum"]).run(), 2);
}

#[test]
fn hosts_between_which_no_road_is_allowed_are_named() {
    let done = ranks(4, Some(2), &["--transport", "shm"], &["sum"]).run();
    assert_eq!(done.code(), 69, "{}", done.err);
    assert!(done.err.contains("no road leads from h0 to h1"), "{}", done.err);
    assert!(done.err.contains("--transport shm,tcp"), "{}", done.err);
}

#[test]
fn a_name_that_is_no_road_is_told_by_mpirun_and_by_the_ranks() {
    let done = mpirun(["-n", "2", "--transport", "ib", "true"]).run();
    assert_eq!(done.code(), 2);
    assert!(done.verdict().contains("shm, efa-direct, efa, tcp"), "{}", done.err);
    let done = ranks(2, None, &[], &["sum"]).env("SELVEDGE_TRANSPORT", "ib").run();
    assert_eq!(done.code(), 69);
    assert_eq!(done.err.matches("there is no transport \"ib\"").count(), 1, "{}", done.err);
}

#[test]
fn who_waits_for_a_rank_that_has_left_is_told_which_where_and_by_which_road() {
    let said = |hosts, options: &[&str]| {
        let done = ranks(4, hosts, options, &["forsaken"]).run();
        assert_eq!(done.code(), 0, "{}", done.err);
        done.text()
    };
    let text = said(Some(2), &[]);
    assert!(text.starts_with("rank 3 on h1, reached by tcp: ") && text.contains("; "), "{text}");
    let text = said(Some(4), &[]);
    assert!(text.starts_with("rank 3: "), "{text}");
    assert!(said(None, &["--transport", "tcp"]).contains(", reached by tcp: "));
}

#[test]
fn a_rank_that_dies_ends_the_job_also_over_sockets() {
    for hosts in [None, Some(2)] {
        let options: &[&str] = if hosts.is_none() { &["--transport", "tcp"] } else { &[] };
        for (how, code) in [("kill", 137), ("panic", 101)] {
            let done = ranks(4, hosts, options, &["die", "2", how]).run();
            assert_eq!(done.code(), code, "{how}: {}", done.err);
            assert!(done.verdict().contains("rank 2"), "{how}: {}", done.err);
        }
    }
}
