use super::*;

const ZERO: Duration = Duration::ZERO;

fn started(ranks: u32) -> Supervisor {
    let mut job = Supervisor::new("h".into(), None);
    job.handle_message(ToFront::Launched { pids: (100..100 + ranks).collect() });
    job
}

fn exit(job: &mut Supervisor, rank: u32, outcome: Outcome) {
    job.handle_message(ToFront::Exited { rank, outcome, unfinished: false });
}

fn actions(job: &mut Supervisor) -> Vec<Action> {
    std::iter::from_fn(|| job.poll_action()).collect()
}

/// The agent reports the end; gives back exit code and the line that is said.
fn end(job: &mut Supervisor, killed: u32) -> (u8, String) {
    assert_eq!(job.exit_code(), None);
    job.handle_message(ToFront::Ended { killed, unkillable: 0 });
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
        job.handle_message(ToFront::Abort { rank: 1, code, message: "no bread".into() });
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
    job.handle_message(ToFront::Exited { rank: 0, outcome: Outcome::Code(0), unfinished: true });
    let (code, line) = end(&mut job, 0);
    assert_eq!(code, 1);
    assert!(line.contains("left without MPI_Finalize"), "{line}");
}

#[test]
fn an_exit_code_of_its_own_counts_more_than_a_missing_goodbye() {
    let mut job = started(2);
    job.handle_message(ToFront::Exited { rank: 0, outcome: Outcome::Code(5), unfinished: true });
    assert_eq!(end(&mut job, 0).0, 5);
}

#[test]
fn a_fence_that_cannot_complete_ends_the_job() {
    let mut job = started(3);
    exit(&mut job, 2, Outcome::Code(0));
    job.handle_message(ToFront::Stuck { waiting: 0, absent: 2 });
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
    assert!(line.contains("killed by SIGTERM (termination); all ranks have left"), "{line}");
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
        let mut job = Supervisor::new("h".into(), Some(Duration::from_millis(1500)));
        job.handle_message(ToFront::Launched { pids: vec![1, 2] });
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
    job.handle_message(ToFront::Violation { rank: 0, why: "garbage".into() });
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
    let mut job = Supervisor::new("h".into(), None);
    job.handle_message(ToFront::Refused { code: 127, why: "nope".into() });
    assert_eq!(actions(&mut job), [Action::Say("nope".into())]);
    assert_eq!(job.exit_code(), Some(127));
}

#[test]
fn a_dead_agent_is_our_own_trouble() {
    let mut job = started(2);
    job.handle_agent_death("was killed by signal 9");
    let expected = "the node agent on h was killed by signal 9; its 2 ranks were ended";
    assert_eq!(actions(&mut job), [Action::Say(expected.into())]);
    assert_eq!(job.exit_code(), Some(1));
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
