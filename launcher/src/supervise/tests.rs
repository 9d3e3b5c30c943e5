use super::*;

const ZERO: Duration = Duration::ZERO;

fn first(rank: u32) -> Member {
    Member { world: FIRST_WORLD, rank }
}

fn started(ranks: u32) -> Supervisor {
    on_hosts(&["h"], &vec![0; ranks as usize])
}

/// A job with these hosts, and the ranks on these of them; rank R has process 100 + R.
fn on_hosts(names: &[&str], host_of_rank: &[u32]) -> Supervisor {
    let mut job = Supervisor::new(names.iter().map(|name| (*name).to_owned()), None);
    job.handle_launch(FIRST_WORLD, host_of_rank.iter().copied());
    for host in 0..names.len() as u32 {
        let here = (0u32..).zip(host_of_rank).filter(|(_, of)| **of == host);
        let pids = here.map(|(rank, _)| (rank, 100 + rank)).collect();
        job.handle_message(host, ToFront::Launched { world: FIRST_WORLD, pids });
    }
    job
}

fn exit(job: &mut Supervisor, rank: u32, outcome: Outcome) {
    job.handle_message(0, ToFront::Exited { who: first(rank), outcome, unfinished: false });
}

fn actions(job: &mut Supervisor) -> Vec<Action> {
    std::iter::from_fn(|| job.poll_action()).collect()
}

/// The ranks of the first world have ended on a host, and nothing is left there.
fn leave(job: &mut Supervisor, host: u32, killed: u32) {
    job.handle_message(host, ToFront::Ended { world: FIRST_WORLD, killed });
    job.handle_message(host, ToFront::Left { unkillable: 0 });
}

/// The agent reports the end; gives back exit code and the line that is said.
fn end(job: &mut Supervisor, killed: u32) -> (u8, String) {
    assert_eq!(job.exit_code(), None);
    leave(job, 0, killed);
    over(job)
}

/// The job is over: exit code and the line that is said.
fn over(job: &mut Supervisor) -> (u8, String) {
    let said: Vec<String> = actions(job)
        .into_iter()
        .filter_map(|action| match action {
            Action::Say(line) => Some(line),
            _ => None,
        })
        .collect();
    assert!(said.len() <= 1, "one line at most: {said:?}");
    (job.exit_code().unwrap(), said.concat())
}

#[test]
fn a_job_whose_ranks_all_leave_with_0_is_silent() {
    let mut job = started(2);
    exit(&mut job, 1, Outcome::Code(0));
    exit(&mut job, 0, Outcome::Code(0));
    assert_eq!(actions(&mut job), []);
    assert_eq!(end(&mut job, 0), (0, String::new()));
}

#[test]
fn the_first_rank_that_fails_decides_and_not_one_that_we_ended() {
    let mut job = started(3);
    exit(&mut job, 1, Outcome::Code(3));
    assert_eq!(actions(&mut job), [Action::End(GRACE)]);
    exit(&mut job, 0, Outcome::Signal(15));
    exit(&mut job, 2, Outcome::Signal(9));
    let line = "rank 1 on h (pid 101) exited with code 3; the other 2 ranks were ended (1 by SIGKILL)";
    assert_eq!(end(&mut job, 1), (3, line.into()));
}

#[test]
fn a_signal_is_128_and_its_number() {
    let mut job = started(1);
    exit(&mut job, 0, Outcome::Signal(11));
    let line = "rank 0 on h (pid 100) was killed by SIGSEGV (segmentation fault)";
    assert_eq!(end(&mut job, 0), (139, line.into()));
}

#[test]
fn an_abort_gives_its_low_byte_and_never_0() {
    for (code, expected) in [(7, 7), (0, 1), (256, 1), (-1, 255), (263, 7)] {
        let mut job = started(2);
        job.handle_message(0, ToFront::Abort { who: first(1), code, message: "no bread".into() });
        exit(&mut job, 1, Outcome::Code(9));
        let (given, line) = end(&mut job, 0);
        assert_eq!(given, expected);
        assert_eq!(
            line,
            format!(
                "rank 1 on h (pid 101) called abort with code {code}: no bread; the other rank was ended"
            )
        );
    }
}

#[test]
fn leaving_without_goodbye_is_a_failure_even_with_code_0() {
    let mut job = started(2);
    job.handle_message(0, ToFront::Exited { who: first(0), outcome: Outcome::Code(0), unfinished: true });
    let (code, line) = end(&mut job, 0);
    assert_eq!(code, 1);
    assert!(line.contains("left without MPI_Finalize"), "{line}");
}

#[test]
fn an_exit_code_of_its_own_counts_more_than_a_missing_goodbye() {
    let mut job = started(2);
    job.handle_message(0, ToFront::Exited { who: first(0), outcome: Outcome::Code(5), unfinished: true });
    assert_eq!(end(&mut job, 0).0, 5);
}

#[test]
fn a_fence_that_cannot_complete_ends_the_job() {
    let mut job = started(3);
    exit(&mut job, 2, Outcome::Code(0));
    job.handle_message(0, ToFront::Stuck { waiting: first(0), absent: first(2) });
    assert_eq!(actions(&mut job), [Action::End(GRACE)]);
    let (code, line) = end(&mut job, 0);
    assert_eq!(code, 1);
    assert!(line.starts_with("rank 2 on h (pid 102) has left while rank 0 waits"), "{line}");
}

#[test]
fn an_interrupt_is_forwarded_and_a_second_one_kills() {
    let mut job = started(2);
    job.handle_signal(Signal::INT, ZERO);
    assert_eq!(actions(&mut job), [Action::Signal(Signal::INT)]);
    job.handle_signal(Signal::INT, ECHO / 2);
    assert_eq!(actions(&mut job), [], "an echo of the first");
    job.handle_signal(Signal::INT, ECHO);
    assert_eq!(actions(&mut job), [Action::End(ZERO)]);
    let (code, line) = end(&mut job, 2);
    assert_eq!(code, 130);
    assert!(
        line.starts_with("stopped by SIGINT (interrupt) and then SIGINT (interrupt); the 2 ranks"),
        "{line}"
    );
}

#[test]
fn an_interrupt_that_is_not_heeded_kills_after_the_grace() {
    let mut job = started(2);
    job.handle_signal(Signal::INT, Duration::from_secs(1));
    actions(&mut job);
    assert_eq!(job.deadline(), Some(Duration::from_secs(1) + INTERRUPT_GRACE));
    job.handle_time(Duration::from_secs(2));
    assert_eq!(actions(&mut job), []);
    job.handle_time(Duration::from_secs(6));
    assert_eq!(actions(&mut job), [Action::End(ZERO)]);
    assert_eq!(end(&mut job, 2).0, 130);
}

#[test]
fn after_an_interrupt_ranks_may_leave_one_by_one() {
    let mut job = started(2);
    job.handle_signal(Signal::TERM, ZERO);
    actions(&mut job);
    exit(&mut job, 1, Outcome::Signal(15));
    assert_eq!(actions(&mut job), [], "rank 0 still writes its checkpoint");
    exit(&mut job, 0, Outcome::Code(0));
    let (code, line) = end(&mut job, 0);
    assert_eq!(code, 143);
    assert_eq!(line, "stopped by SIGTERM (termination); all ranks have left");
}

#[test]
fn a_rank_that_fails_after_an_interrupt_is_named_with_the_interrupt() {
    let mut job = started(2);
    job.handle_signal(Signal::INT, ZERO);
    actions(&mut job);
    exit(&mut job, 1, Outcome::Code(3));
    exit(&mut job, 0, Outcome::Signal(2));
    let why =
        "rank 1 on h (pid 101) exited with code 3 after SIGINT (interrupt) to mpirun; all ranks have left";
    assert_eq!(end(&mut job, 0), (3, why.to_owned()));
}

#[test]
fn ranks_that_handle_the_interrupt_and_leave_with_0_are_a_success() {
    let mut job = started(2);
    job.handle_signal(Signal::INT, ZERO);
    exit(&mut job, 0, Outcome::Code(0));
    exit(&mut job, 1, Outcome::Code(0));
    assert_eq!(end(&mut job, 0), (0, String::new()));
}

#[test]
fn the_time_limit_is_124_even_while_interrupted() {
    for interrupted in [false, true] {
        let mut job = Supervisor::new(["h".into()], Some(Duration::from_millis(1500)));
        job.handle_launch(FIRST_WORLD, [0, 0]);
        if interrupted {
            job.handle_signal(Signal::INT, ZERO);
        }
        assert_eq!(job.deadline(), Some(Duration::from_millis(1500)));
        job.handle_time(Duration::from_millis(1500));
        assert!(actions(&mut job).contains(&Action::End(GRACE)));
        let (code, line) = end(&mut job, 0);
        assert_eq!(code, 124);
        assert_eq!(line, "the time limit of 1.5 s is over; the 2 ranks that were still running were ended");
    }
}

#[test]
fn a_rank_that_was_alone_is_not_called_the_other_one() {
    let mut job = started(1);
    job.handle_message(0, ToFront::Violation { who: first(0), why: "garbage".into() });
    let line = "rank 0 on h (pid 100) does not speak PMI-1 to its launcher: garbage; the rank was ended";
    assert_eq!(end(&mut job, 0), (1, line.into()));
}

#[test]
fn other_signals_go_to_the_ranks_and_a_stop_also_stops_us() {
    let mut job = started(1);
    job.handle_signal(Signal::USR1, ZERO);
    job.handle_signal(Signal::TSTP, ZERO);
    let expected = [Action::Signal(Signal::USR1), Action::Signal(Signal::TSTP), Action::Suspend];
    assert_eq!(actions(&mut job), expected);
    assert_eq!(job.exit_code(), None);
}

#[test]
fn a_signal_when_only_output_is_left_lets_us_go() {
    let mut job = started(1);
    exit(&mut job, 0, Outcome::Code(0));
    assert_eq!(end(&mut job, 0).0, 0);
    job.handle_signal(Signal::INT, ZERO);
    assert_eq!(actions(&mut job), [Action::Quit]);
}

#[test]
fn a_job_that_cannot_start_has_the_agents_code_and_words() {
    let mut job = started(1);
    job.handle_message(0, ToFront::Refused { world: FIRST_WORLD, code: 127, why: "nope".into() });
    assert_eq!(actions(&mut job), [Action::End(ZERO)]);
    job.handle_message(0, ToFront::Left { unkillable: 0 });
    assert_eq!(over(&mut job), (127, "nope".into()));
}

#[test]
fn a_dead_agent_is_our_own_trouble() {
    let mut job = started(2);
    lose(&mut job, 0, &[]);
    let expected = "the node agent on h was killed by signal 9; its 2 ranks were ended";
    assert_eq!(over(&mut job), (1, expected.into()));
}

#[test]
fn output_that_is_lost_is_a_failure_whenever_it_is_noticed() {
    let mut job = started(2);
    job.handle_lost_output("no space".into());
    assert_eq!(actions(&mut job), [Action::End(GRACE)]);
    assert_eq!(end(&mut job, 0).0, 1);
    let mut job = started(1);
    exit(&mut job, 0, Outcome::Code(0));
    assert_eq!(end(&mut job, 0).0, 0);
    job.handle_lost_output("no space".into());
    assert_eq!(actions(&mut job), [Action::Say("no space".into())]);
    assert_eq!(job.exit_code(), Some(1));
}

#[test]
fn output_that_is_lost_while_hosts_leave_is_said_once() {
    let mut job = started(1);
    exit(&mut job, 0, Outcome::Code(0));
    job.handle_message(0, ToFront::Ended { world: FIRST_WORLD, killed: 0 });
    job.handle_lost_output("no space".into());
    job.handle_message(0, ToFront::Left { unkillable: 0 });
    assert_eq!(over(&mut job), (1, "no space".into()));
}

fn lose(job: &mut Supervisor, host: u32, with: &[u32]) {
    let how = "was killed by signal 9".into();
    job.handle_message(host, ToFront::Lost { how, with: with.to_vec() });
}

#[test]
fn a_job_on_several_hosts_is_over_when_the_last_has_left() {
    let mut job = on_hosts(&["a", "b"], &[0, 1]);
    exit(&mut job, 0, Outcome::Code(0));
    job.handle_message(0, ToFront::Ended { world: FIRST_WORLD, killed: 0 });
    assert_eq!(job.exit_code(), None);
    job.handle_message(1, ToFront::Exited { who: first(1), outcome: Outcome::Code(5), unfinished: false });
    leave(&mut job, 1, 0);
    job.handle_message(0, ToFront::Left { unkillable: 0 });
    assert_eq!(over(&mut job), (5, "rank 1 on b (pid 101) exited with code 5".into()));
}

#[test]
fn a_host_that_is_lost_ends_the_job_on_the_others() {
    let mut job = on_hosts(&["a", "b", "c"], &[0, 0, 1, 1, 2]);
    lose(&mut job, 1, &[2]);
    assert_eq!(actions(&mut job), [Action::End(GRACE)]);
    exit(&mut job, 0, Outcome::Signal(15));
    let (code, line) = end(&mut job, 0);
    let expected = "the node agent on b was killed by signal 9 (and with it c, reached through it); their 3 ranks were \
                    ended; the 2 ranks that were still running were ended";
    assert_eq!((code, line.as_str()), (1, expected));
}

#[test]
fn a_host_that_is_lost_while_the_job_ends_changes_nothing_but_is_not_waited_for() {
    let mut job = on_hosts(&["a", "b"], &[0, 1]);
    exit(&mut job, 0, Outcome::Code(7));
    lose(&mut job, 1, &[]);
    assert_eq!(end(&mut job, 0).0, 7);
}

#[test]
fn a_program_that_one_host_does_not_have_ends_the_others() {
    let mut job = on_hosts(&["a", "b"], &[0, 1]);
    job.handle_message(1, ToFront::Refused { world: FIRST_WORLD, code: 127, why: "nope".into() });
    assert_eq!(actions(&mut job), [Action::End(ZERO)]);
    job.handle_message(1, ToFront::Left { unkillable: 0 });
    assert_eq!(end(&mut job, 1), (127, "nope (on b)".into()));
}

#[test]
fn an_interrupt_before_all_hosts_are_there_ends_what_there_is() {
    let mut job = Supervisor::new(["a".into(), "b".into()], None);
    job.handle_signal(Signal::INT, ZERO);
    assert_eq!(actions(&mut job), [Action::End(ZERO)]);
    lose(&mut job, 1, &[]);
    let (code, line) = end(&mut job, 0);
    assert_eq!((code, line.as_str()), (130, "stopped by SIGINT (interrupt) before all hosts were there"));
}

#[test]
fn a_host_that_cannot_be_had_is_named_with_those_behind_it() {
    let mut job = Supervisor::new(["a".into(), "b".into(), "c".into()], None);
    lose(&mut job, 1, &[2]);
    assert_eq!(actions(&mut job), [Action::End(ZERO)]);
    let expected = "the node agent on b was killed by signal 9 (and with it c, reached through it)";
    assert_eq!(end(&mut job, 0), (1, expected.into()));
}

/// Rank 0 of a job on two hosts has spawned one rank on each.
fn with_children() -> Supervisor {
    let mut job = on_hosts(&["a", "b"], &[0]);
    job.handle_launch(1, [0, 1]);
    job.handle_message(0, ToFront::Launched { world: 1, pids: vec![(0, 200)] });
    job.handle_message(1, ToFront::Launched { world: 1, pids: vec![(1, 201)] });
    job
}

fn exit_of(job: &mut Supervisor, host: u32, world: u32, rank: u32, outcome: Outcome) {
    let who = Member { world, rank };
    job.handle_message(host, ToFront::Exited { who, outcome, unfinished: false });
    if outcome == Outcome::Code(0) {
        job.handle_message(host, ToFront::Ended { world, killed: 0 });
    }
}

#[test]
fn a_job_runs_until_the_last_world_has_left_whichever_that_is() {
    for order in [[(0, 0, 0), (0, 1, 0), (1, 1, 1)], [(1, 1, 1), (0, 1, 0), (0, 0, 0)]] {
        let mut job = with_children();
        assert_eq!((job.running_on(0), job.running_on(1)), (2, 1));
        let mut said = Vec::new();
        for (host, world, rank) in order {
            assert!(job.is_running() && !said.contains(&Action::Leave));
            exit_of(&mut job, host, world, rank, Outcome::Code(0));
            said.extend(actions(&mut job));
        }
        let first_over = order[0].1.min(order[1].1);
        assert_eq!(said, [Action::Forget(first_over), Action::Leave]);
        (0..2).for_each(|host| job.handle_message(host, ToFront::Left { unkillable: 0 }));
        assert_eq!(over(&mut job), (0, String::new()));
    }
}

#[test]
fn a_child_that_fails_ends_all_worlds_and_decides_the_exit_code() {
    let mut job = with_children();
    exit_of(&mut job, 1, 1, 1, Outcome::Code(9));
    assert_eq!(actions(&mut job), [Action::End(GRACE)]);
    for (host, world, rank) in [(0, 0, 0), (0, 1, 0)] {
        exit_of(&mut job, host, world, rank, Outcome::Signal(15));
    }
    (0..2).for_each(|host| job.handle_message(host, ToFront::Left { unkillable: 0 }));
    let line = "rank 1.1 on b (pid 201) exited with code 9; the other 2 ranks were ended";
    assert_eq!(over(&mut job), (9, line.into()));
}

#[test]
fn a_world_that_cannot_be_started_is_ended_and_says_nothing_about_the_job() {
    let mut job = on_hosts(&["a", "b"], &[0]);
    job.handle_launch(1, [0, 1]);
    job.handle_message(0, ToFront::Launched { world: 1, pids: vec![(0, 200)] });
    job.handle_message(1, ToFront::Refused { world: 1, code: 127, why: "nope".into() });
    assert_eq!(actions(&mut job), [Action::EndWorld(1)]);
    let who = Member { world: 1, rank: 0 };
    job.handle_message(0, ToFront::Exited { who, outcome: Outcome::Signal(15), unfinished: true });
    job.handle_message(0, ToFront::Ended { world: 1, killed: 0 });
    assert_eq!(actions(&mut job), [Action::Forget(1)]);
    exit_of(&mut job, 0, 0, 0, Outcome::Code(0));
    assert_eq!(actions(&mut job), [Action::Leave]);
    (0..2).for_each(|host| job.handle_message(host, ToFront::Left { unkillable: 0 }));
    assert_eq!(over(&mut job), (0, String::new()));
}
