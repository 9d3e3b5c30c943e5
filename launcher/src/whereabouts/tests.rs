use super::*;
use selvedge_boot::status::{Wait, What};

fn job(ranks: u32) -> Whereabouts {
    let half = ranks.div_ceil(2).max(1);
    let mut all =
        Whereabouts::new("job", vec!["nodea".into(), "nodeb".into()], (0..ranks).map(|rank| rank / half));
    (0..ranks).for_each(|rank| all.add(found(rank, None)));
    all
}

fn found(rank: u32, status: Option<Status>) -> Found {
    Found {
        rank,
        pid: 100 + rank,
        process: Process::Sleeping,
        kernel: String::new(),
        call: String::new(),
        tracer: 0,
        busy_threads: 0,
        pmi: Pmi::Active,
        status,
        age: Duration::from_millis(12_340),
    }
}

fn wait(what: What, partners: &[u32]) -> Wait {
    Wait { what, communicator: 0, bytes: 8, partners: partners.to_vec(), more: 0 }
}

fn receive(tag: u32, from: u32) -> Wait {
    wait(What::Receive { tag: Some(tag) }, &[from])
}

fn send(tag: u32, to: u32) -> Wait {
    wait(What::Send { tag }, &[to])
}

fn collective(name: &str, sequence: u32, partners: &[u32]) -> Wait {
    wait(What::Collective { name: name.into(), sequence }, partners)
}

fn blocked_in(first: Wait) -> Status {
    Status { waits: vec![first], ..Status::default() }
}

impl Whereabouts {
    fn with(mut self, rank: u32, status: Status) -> Whereabouts {
        self.add(found(rank, Some(status)));
        self
    }

    /// A rank that has waited before and goes on.
    fn busy(self, rank: u32) -> Whereabouts {
        self.with(rank, Status::default())
    }

    fn changed(mut self, rank: u32, change: impl FnOnce(&mut Found)) -> Whereabouts {
        change(self.rows[rank as usize].found.as_mut().unwrap());
        self
    }

    fn said(&self) -> String {
        self.sentences().join("\n")
    }
}

/// A chain: 0 waits for 1, that for 2, and so on to the last, which is busy.
fn chain(ranks: u32) -> Whereabouts {
    let all = job(ranks).busy(ranks - 1);
    (0..ranks - 1).fold(all, |all, rank| all.with(rank, blocked_in(collective("allreduce", 11, &[rank + 1]))))
}

#[test]
fn who_runs_code_of_its_own_holds_up_all_that_wait_for_it_directly_or_not() {
    let all = chain(8).changed(7, |found| found.kernel = "hrtimer_nanosleep".into());
    assert_eq!(
        all.said(),
        "held up by: rank 7 on nodeb (pid 107): it is in no call of Selvedge since 12.3 s (it sleeps in the kernel's \
         hrtimer_nanosleep); 7 ranks wait for it"
    );
    let computing = chain(8).changed(7, |found| found.process = Process::Running).said();
    assert!(computing.contains("since 12.3 s (it computes); 7 ranks"), "{computing}");
}

#[test]
fn who_says_nothing_of_itself_is_said_to_have_been_started_then() {
    let all = chain(2).changed(1, |found| found.status = None);
    assert!(
        all.said().contains(
            "it says nothing of itself, as programs of other libraries do, and was started 12.3 s ago"
        ),
        "{}",
        all.said()
    );
    let silent = all.changed(1, |found| found.pmi = Pmi::Silent).said();
    assert!(silent.contains("it has not spoken with mpirun since it was started"), "{silent}");
}

#[test]
fn a_stopped_rank_holds_others_up_though_it_waits_itself() {
    let all = job(2)
        .with(0, blocked_in(receive(1, 1)))
        .with(1, blocked_in(receive(1, 0)))
        .changed(1, |found| found.process = Process::Stopped);
    let said = all.said();
    assert_eq!(
        said,
        "held up by: rank 1 on nodeb (pid 101): it is stopped; kill -CONT 101 lets it go on; 1 rank waits for it"
    );
}

#[test]
fn what_a_rank_does_is_told_by_its_call_its_threads_and_its_debugger() {
    let reading = chain(2).changed(1, |found| found.call = "read of pipe:[7]".into());
    assert!(reading.said().contains("(it sleeps in read of pipe:[7])"), "{}", reading.said());
    assert!(reading.text(9).contains("code of its own, in read of pipe:[7]\n"), "{}", reading.text(9));
    let both = reading.changed(1, |found| found.kernel = "pipe_read".into());
    assert!(both.said().contains("in read of pipe:[7] (the kernel's pipe_read)"), "{}", both.said());
    let hung = both.changed(1, |found| found.process = Process::Disk);
    assert!(hung.said().contains("(it hangs in read of pipe:[7]"), "{}", hung.said());
    let threads = chain(2).changed(1, |found| found.busy_threads = 2);
    assert!(threads.said().contains("(it computes in 2 other threads)"), "{}", threads.said());
    let traced = threads.changed(1, |found| found.tracer = 77);
    assert!(traced.said().contains("2 other threads, and process 77 debugs it)"), "{}", traced.said());
    let stopped = traced.changed(1, |found| found.process = Process::Stopped);
    assert!(stopped.said().contains("it is stopped by process 77, which debugs it;"), "{}", stopped.said());
}

#[test]
fn who_has_just_been_told_of_a_death_is_not_taken_for_its_reason() {
    let dead = chain(4).changed(3, |found| found.process = Process::Gone);
    // Rank 2, which waited for the dead one, is told first; the others still wait.
    let told = dead.busy(2).changed(2, |found| found.age = Duration::from_millis(1));
    assert!(
        told.said().starts_with("held up by: rank 3 on nodeb (pid 103): it has ended; 3 ranks"),
        "{}",
        told.said()
    );
    // Who has been in no call for longer was not waiting.
    let apart = told.changed(2, |found| found.age = Duration::from_secs(1));
    assert!(apart.said().starts_with("held up by: rank 2 on nodeb"), "{}", apart.said());
}

#[test]
fn a_rank_that_has_left_is_named_and_so_is_one_whose_host_is_silent() {
    let gone = chain(3).changed(2, |found| found.process = Process::Gone);
    assert!(
        gone.said().ends_with("rank 2 on nodeb (pid 102): it has ended; 2 ranks wait for it"),
        "{}",
        gone.said()
    );
    let finalized = chain(3).changed(2, |found| found.pmi = Pmi::Finalized);
    assert!(finalized.said().contains("it has finalized"), "{}", finalized.said());
    let mut unknown = chain(3);
    unknown.rows[2].found = None;
    assert_eq!(unknown.said(), "held up by: rank 2 on nodeb: its host has not answered; 2 ranks wait for it");
}

#[test]
fn two_that_both_receive_are_a_deadlock() {
    let all = job(2).with(0, blocked_in(receive(1, 1))).with(1, blocked_in(receive(2, 0)));
    assert_eq!(
        all.said(),
        "ranks 0 -> 1 -> 0 wait for each other: deadlock; both receive, and neither has sent what the other asks for"
    );
}

#[test]
fn a_circle_of_many_is_told_from_its_lowest_rank_on() {
    let all = (1..5).fold(job(6), |all, rank| all.with(rank, blocked_in(send(3, 1 + rank % 4))));
    let all = all.with(5, blocked_in(receive(3, 2))).busy(0);
    assert_eq!(
        all.said(),
        "ranks 1 -> 2 -> 3 -> 4 -> 1 wait for each other: deadlock; all of them send, and none receives"
    );
}

#[test]
fn tags_and_communicators_that_differ_are_named() {
    let all = job(2).with(0, blocked_in(receive(5, 1))).with(1, blocked_in(send(6, 0)));
    assert!(
        all.said().ends_with("rank 0 is in receive (tag 5), rank 1 is in send (tag 6): the tags differ"),
        "{}",
        all.said()
    );
    let elsewhere = Wait { communicator: 2, ..send(5, 0) };
    let all = all.with(1, blocked_in(elsewhere));
    assert!(
        all.said().ends_with("send (tag 5) on communicator 2: the communicators differ"),
        "{}",
        all.said()
    );
}

#[test]
fn collectives_that_do_not_fit_are_named() {
    let pair =
        |first: Wait, second: Wait| job(2).with(0, blocked_in(first)).with(1, blocked_in(second)).said();
    let said = pair(collective("allreduce", 10, &[1]), collective("allreduce", 11, &[0]));
    assert!(
        said.ends_with(
            "rank 0 is in allreduce #11, rank 1 is in allreduce #12: one has made more of these calls than the other"
        ),
        "{said}"
    );
    let said = pair(collective("barrier", 4, &[1]), collective("broadcast", 4, &[0]));
    assert!(said.ends_with("different collectives on one communicator"), "{said}");
    let said =
        pair(collective("barrier", 4, &[1]), Wait { communicator: 3, ..collective("barrier", 0, &[0]) });
    assert!(said.ends_with("collectives on two communicators are called in different order"), "{said}");
    let said = pair(collective("barrier", 4, &[1]), receive(1, 0));
    assert!(said.ends_with("a collective has to be called by all ranks of its communicator"), "{said}");
}

/// Eight ranks of which seven are in `most`, each waiting for the next, and rank 3 in `other`.
fn out_of_step(most: &Wait, other: &Wait) -> Whereabouts {
    let at = |wait: &Wait, rank: u32| Wait { partners: vec![(rank + 1) % 8], ..wait.clone() };
    let wait = |rank| if rank == 3 { at(other, rank) } else { at(most, rank) };
    (0..8).fold(job(8), |all, rank| all.with(rank, blocked_in(wait(rank))))
}

#[test]
fn the_rank_that_is_out_of_step_is_named_beside_the_circle() {
    let said = |other: &Wait| out_of_step(&collective("allreduce", 7, &[]), other).said();
    let behind = said(&collective("allreduce", 6, &[]));
    let expected = "out of step: rank 3 on nodea (pid 103) is in allreduce #7 while 7 ranks are in allreduce #8, 1 call behind";
    assert!(behind.ends_with(expected), "{behind}");
    let ahead = said(&collective("barrier", 9, &[]));
    assert!(ahead.ends_with("is in barrier #10 while 7 ranks are in allreduce #8, 2 calls ahead"), "{ahead}");
    let another = said(&collective("broadcast", 7, &[]));
    assert!(
        another.ends_with(
            "is in broadcast #8 while 7 ranks are in allreduce #8, another collective in the same place"
        ),
        "{another}"
    );
    assert!(
        another.starts_with("ranks 0 -> 1 -> 2 -> 3 -> 4 -> 5 -> 6 -> 7 -> 0 wait for each other: deadlock")
    );
}

#[test]
fn nobody_is_out_of_step_where_there_is_no_most() {
    let all = job(2).with(0, blocked_in(collective("barrier", 4, &[1])));
    let all = all.with(1, blocked_in(collective("broadcast", 4, &[0])));
    assert!(all.verdict().outsiders.is_empty());
    assert!(out_of_step(&collective("barrier", 4, &[]), &receive(1, 0)).verdict().outsiders.is_empty());
}

#[test]
fn messages_that_nobody_asked_for_are_a_hint() {
    let waiting = Status { unexpected: 2, ..blocked_in(receive(5, 1)) };
    let all = job(2).with(0, waiting).with(1, blocked_in(receive(5, 0)));
    assert!(all.said().contains("rank 0 has 2 messages that it has not asked for"), "{}", all.said());
}

#[test]
fn steps_of_one_collective_are_no_deadlock() {
    let all = job(2)
        .with(0, blocked_in(collective("alltoall", 3, &[1])))
        .with(1, blocked_in(collective("alltoall", 3, &[0])));
    assert_eq!(all.said(), "2 ranks wait, and nobody is seen to hold them up: messages may be under way");
}

#[test]
fn who_goes_on_with_any_of_several_is_stuck_only_when_all_are() {
    let any = Status { any_of: true, waits: vec![receive(1, 1), receive(1, 2)], ..Status::default() };
    let free = job(3).with(0, any.clone()).with(1, blocked_in(receive(1, 0))).busy(2);
    assert_eq!(free.verdict().deadlocks, [[0u32; 0]; 0]);
    assert_eq!(free.verdict().culprits, [Culprit { rank: 2, waiting: 2 }]);
    let stuck = free.with(2, blocked_in(receive(1, 0)));
    assert_eq!(stuck.verdict().deadlocks, [[0, 1]]);
}

#[test]
fn a_receive_from_anybody_waits_for_whoever_runs() {
    let anybody = wait(What::Receive { tag: None }, &[]);
    let all = job(3).with(0, blocked_in(anybody.clone())).with(1, blocked_in(receive(1, 0))).busy(2);
    assert_eq!(all.verdict().culprits, [Culprit { rank: 2, waiting: 2 }]);
    let all = all.with(2, blocked_in(anybody));
    assert_eq!(all.verdict().deadlocks, [[0, 1]]);
}

#[test]
fn a_fence_waits_for_those_that_are_not_in_it() {
    let all = (0..3).fold(job(4), |all, rank| all.changed(rank, |found| found.pmi = Pmi::Fence)).busy(3);
    assert_eq!(all.verdict().culprits, [Culprit { rank: 3, waiting: 3 }]);
    let all = all.with(3, blocked_in(receive(1, 1)));
    assert_eq!(all.verdict().deadlocks, [[1, 3]], "{}", all.said());
    assert!(
        all.said().contains("rank 1 is in a fence of all ranks, rank 3 is in receive (tag 1)"),
        "{}",
        all.said()
    );
}

#[test]
fn nothing_is_claimed_where_nobody_waits() {
    assert_eq!(job(2).busy(0).busy(1).said(), "no rank waits for another");
    assert!(job(2).said().starts_with("the ranks do not say what they wait for"));
    let silent = |all: Whereabouts, rank| all.changed(rank, |found| found.pmi = Pmi::Silent);
    let foreign = (0..2).fold(job(2), silent);
    assert!(foreign.said().starts_with("none of the ranks speaks with mpirun"), "{}", foreign.said());
    let gone = (0..2).fold(job(2), |all, rank| all.changed(rank, |found| found.process = Process::Gone));
    assert_eq!(gone.said(), "no rank is running");
}

#[test]
fn the_table_has_a_line_for_each_rank_and_aligned_columns() {
    let all = chain(3);
    let text = all.text(64);
    let expected = "\
rank  host   pid  state    since  what
   0  nodea  100  waits   12.3 s  allreduce #12, waits for rank 1, 8 B each
   1  nodea  101  waits   12.3 s  allreduce #12, waits for rank 2, 8 B each
   2  nodeb  102  sleeps  12.3 s  code of its own
held up by: rank 2 on nodeb (pid 102): it is in no call of Selvedge since 12.3 s (it sleeps); 2 ranks wait for it
";
    assert_eq!(text, expected);
}

#[test]
fn a_long_table_is_cut_and_the_culprit_stays_in_it() {
    let text = chain(1000).text(4);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 4 + 1 + 1);
    assert!(lines[4].contains(" 999 ") && lines[5] == "and 996 more ranks", "{text}");
    assert!(lines[6].contains("999 ranks wait for it"), "{text}");
}

#[test]
fn the_answer_for_programs_has_the_reasons_and_every_rank() {
    let json: serde_json::Value = serde_json::from_slice(&chain(3).json()).unwrap();
    assert_eq!(json["culprits"][0]["rank"], 2);
    assert_eq!(json["culprits"][0]["waiting"], 2);
    assert_eq!(json["ranks"][0]["found"]["status"]["waits"][0]["partners"][0], 1);
    let told: asking::Whereabouts = serde_json::from_value(json).unwrap();
    assert_eq!((told.job.as_str(), told.verdict.len()), ("job", 1));
}

#[test]
fn numbers_of_ranks_that_there_are_not_harm_nobody() {
    let all = job(2).with(0, blocked_in(receive(1, 7))).with(1, blocked_in(receive(1, 1)));
    let mut all = all;
    all.add(found(9, None));
    assert!(!all.text(64).is_empty());
}

#[test]
fn a_process_is_told_by_the_letter_behind_its_name() {
    for (stat, process) in [
        ("7 (a b) R) S 1 2", Process::Sleeping),
        ("7 (x) R 1", Process::Running),
        ("7 (x) t 1", Process::Stopped),
        ("7 (x) Z 1", Process::Gone),
        ("7 (x) D 1", Process::Disk),
    ] {
        assert_eq!(Process::parse(stat), Some(process));
    }
    assert_eq!(Process::parse("nonsense"), None);
}
