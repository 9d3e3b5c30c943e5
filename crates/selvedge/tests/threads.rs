//! Several threads of a rank communicate at the same time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use selvedge::{ANY_SOURCE, ANY_TAG, Communicator, Error, Misuse, Op, local};

/// Runs `program` on `threads` threads of this rank, each with a communicator of its own.
fn on_threads(world: &Communicator, threads: usize, program: impl Fn(usize, &Communicator) + Sync) {
    let team = world.team();
    thread::scope(|scope| {
        for index in 0..threads {
            let (team, program) = (&team, &program);
            scope.spawn(move || program(index, &team.communicator()));
        }
    });
}

#[test]
fn threads_of_two_ranks_talk_in_pairs_and_nothing_is_mixed_up() {
    const ROUNDS: u64 = 300;
    local::run(2, |world| {
        on_threads(&world, 4, |index, mine| {
            let (peer, tag) = (1 - mine.rank(), index as i32);
            for round in 0..ROUNDS {
                let said = [round, index as u64, mine.rank() as u64];
                let mut heard = [0; 3];
                if mine.rank() == 0 {
                    mine.send(&said, peer, tag).unwrap();
                    mine.recv(&mut heard, peer, tag).unwrap();
                } else {
                    mine.recv(&mut heard, peer, tag).unwrap();
                    mine.send(&said, peer, tag).unwrap();
                }
                assert_eq!(heard, [round, index as u64, peer as u64]);
            }
        });
        world.barrier().unwrap();
    });
}

#[test]
fn more_threads_than_cores_do_not_stand_in_each_others_way() {
    local::run(3, |world| {
        let begin = Instant::now();
        on_threads(&world, 16, |index, mine| {
            let (right, left) =
                ((mine.rank() + 1) % mine.size(), (mine.rank() + mine.size() - 1) % mine.size());
            for round in 0..50_u32 {
                let mut heard = [0];
                mine.sendrecv(&[round], right, index as i32, &mut heard, left, index as i32).unwrap();
                assert_eq!(heard, [round]);
            }
        });
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?} for 800 exchanges", begin.elapsed());
    });
}

#[test]
fn a_message_goes_to_one_of_the_threads_that_would_take_it() {
    const MESSAGES: usize = 400;
    local::run(2, |world| {
        if world.rank() == 0 {
            on_threads(&world, 3, |index, mine| {
                (0..MESSAGES).for_each(|n| mine.send(&[n as u32; 3][..n % 4], 1, index as i32).unwrap());
            });
            return;
        }
        let (taken, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        on_threads(&world, 3, |_, mine| {
            while taken.fetch_add(1, Ordering::Relaxed) < 3 * MESSAGES {
                // Of unknown length: seen by one thread, it must not be received by another.
                let (message, status) = mine.recv_vec::<u32>(ANY_SOURCE, ANY_TAG).unwrap();
                assert_eq!(status.bytes, 4 * message.len());
                sum.fetch_add(message.iter().sum::<u32>() as usize, Ordering::Relaxed);
            }
        });
        let expected: usize = (0..MESSAGES).map(|n| n * (n % 4)).sum();
        assert_eq!(sum.into_inner(), 3 * expected);
        assert!(world.iprobe(ANY_SOURCE, ANY_TAG).unwrap().is_none());
    });
}

#[test]
fn each_thread_has_its_own_requests_of_any_size() {
    local::run(2, |world| {
        on_threads(&world, 3, |index, mine| {
            let peer = 1 - mine.rank();
            for bytes in [0, 8, 5_000, 200_000] {
                let from = vec![(10 * index + mine.rank()) as u8; bytes];
                let mut into = [vec![0_u8; bytes], vec![0_u8; bytes]];
                let [first, second] = &mut into;
                mine.scope(|scope| {
                    let mut requests = vec![
                        scope.irecv(first, peer, index as i32).unwrap(),
                        scope.isend(&from, peer, index as i32).unwrap(),
                        scope.irecv(second, peer, index as i32).unwrap(),
                        scope.isend(&from, peer, index as i32).unwrap(),
                    ];
                    while selvedge::wait_any(&mut requests).unwrap().is_some() {}
                });
                assert!(into.iter().flatten().all(|&byte| byte == (10 * index + peer) as u8));
            }
        });
    });
}

#[test]
fn threads_with_a_communicator_each_are_in_collectives_at_the_same_time() {
    local::run(3, |world| {
        let own: Vec<_> = (0..4).map(|_| world.dup().unwrap()).collect();
        let teams: Vec<_> = own.iter().map(Communicator::team).collect();
        thread::scope(|scope| {
            for (index, team) in teams.iter().enumerate() {
                scope.spawn(move || {
                    let mine = team.communicator();
                    for round in 0..100_usize {
                        let mut sum = [0];
                        mine.allreduce(&[mine.rank() + index + round], &mut sum, &Op::sum()).unwrap();
                        assert_eq!(sum, [3 + 3 * (index + round)]);
                    }
                });
            }
        });
    });
}

#[test]
fn a_thread_with_a_communicator_of_its_own_combines_values_and_makes_communicators() {
    local::run(3, |world| {
        let team = world.team();
        let mine = team.communicator();
        let text = || mine.rank().to_string();
        assert_eq!(mine.all_reduce_value(text(), |left, right| left + &right).unwrap(), "012");
        let reduced = mine.reduce_value(text(), |left, right| left + &right, 1).unwrap();
        assert_eq!(reduced.as_deref(), (mine.rank() == 1).then_some("012"));
        assert_eq!(mine.all_gather_values(text()).unwrap(), ["0", "1", "2"]);
        assert_eq!(mine.graph(&[(mine.rank(), 0)]).unwrap().destinations(), [0]);
        let half = mine.split(Some(u32::from(mine.rank() > 0)), 0).unwrap().unwrap();
        let there = half.intercommunicator(0, &mine, usize::from(mine.rank() == 0), 1).unwrap();
        assert_eq!(there.merge(mine.rank() > 0).unwrap().rank(), mine.rank());
    });
}

#[test]
fn threads_make_several_communicators_each_at_the_same_time() {
    local::run(3, |world| {
        let own: Vec<_> = (0..3).map(|_| world.idup().unwrap()).collect();
        let own: Vec<_> = own.into_iter().map(|request| request.wait().unwrap()).collect();
        let teams: Vec<_> = own.iter().map(Communicator::team).collect();
        thread::scope(|scope| {
            for (index, team) in teams.iter().enumerate() {
                scope.spawn(move || {
                    let mine = team.communicator();
                    for _ in 0..10 {
                        let requests = [mine.idup().unwrap(), mine.idup().unwrap()];
                        let blocking = mine.dup().unwrap();
                        for copy in requests.map(|request| request.wait().unwrap()).iter().chain([&blocking])
                        {
                            let mut sum = [0];
                            copy.allreduce(&[index], &mut sum, &Op::sum()).unwrap();
                            assert_eq!(sum, [3 * index]);
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn a_second_collective_of_the_same_communicator_is_refused() {
    local::run(2, |world| {
        if world.rank() == 1 {
            // When the other rank has seen what it should see.
            world.recv(&mut [0_u8; 0], 0, 7).unwrap();
            return world.barrier().unwrap();
        }
        let team = world.team();
        thread::scope(|scope| {
            scope.spawn(|| team.communicator().barrier().unwrap());
            let mine = team.communicator();
            // Too early, it would be the other thread's call that is refused: let that one be first.
            thread::sleep(Duration::from_millis(50));
            let refused = mine.allreduce(&[1_u8], &mut [0_u8], &Op::sum());
            assert!(matches!(refused, Err(Error::Misuse(Misuse::ConcurrentCollectives))), "{refused:?}");
            world.send(&[0_u8; 0], 1, 7).unwrap();
        });
    });
}

#[test]
fn who_waits_keeps_nobody_out() {
    local::run(2, |world| {
        let team = world.team();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mine = team.communicator();
                mine.recv(&mut [0_u8], 1 - mine.rank(), 99).unwrap();
            });
            // Long enough for the thread that waits to sleep inside.
            for round in 0..20_u32 {
                thread::sleep(Duration::from_millis(3));
                let (begin, peer) = (Instant::now(), 1 - world.rank());
                let mut heard = [0];
                world.sendrecv(&[round], peer, 1, &mut heard, peer, 1).unwrap();
                assert_eq!(heard, [round]);
                assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
            }
            world.send(&[1_u8], 1 - world.rank(), 99).unwrap();
        });
    });
}

#[test]
fn a_team_outlives_the_world_it_was_made_from() {
    let heard = Mutex::new(Vec::new());
    thread::scope(|scope| {
        local::run(2, |world| {
            let (team, heard) = (world.team(), &heard);
            let rank = world.rank();
            let late = scope.spawn(move || {
                let mine = team.communicator();
                thread::sleep(Duration::from_millis(20));
                let mut message = [0_usize];
                mine.sendrecv(&[mine.rank()], 1 - rank, 0, &mut message, 1 - rank, 0).unwrap();
                heard.lock().unwrap().push(message[0]);
            });
            drop(world);
            late.join().unwrap();
        });
    });
    let mut heard = heard.into_inner().unwrap();
    heard.sort_unstable();
    assert_eq!(heard, [0, 1]);
}

#[test]
fn a_thread_that_panics_leaves_the_others_alone() {
    local::run(2, |world| {
        let (team, peer) = (world.team(), 1 - world.rank());
        let panicked = thread::scope(|scope| {
            let failing = scope.spawn(|| {
                let mine = team.communicator();
                let mut never = [0_u8];
                mine.scope(|scope| {
                    let _request = scope.irecv(&mut never, peer, 50).unwrap();
                    panic!("the program's own mistake");
                });
            });
            for round in 0..100_u32 {
                let mut heard = [0];
                world.sendrecv(&[round], peer, 1, &mut heard, peer, 1).unwrap();
            }
            failing.join().is_err()
        });
        assert!(panicked);
        drop(team);
        world.barrier().unwrap();
    });
}

#[test]
fn a_reduction_that_communicates_is_told_so_instead_of_waiting_for_itself() {
    local::run(2, |world| {
        let team = world.team();
        let theirs = team.clone();
        let op = Op::commutative(move |_: &[u8], _: &mut [u8]| theirs.communicator().barrier().unwrap());
        let mut result = [0_u8];
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.allreduce(&[1], &mut result, &op).unwrap();
        }));
        let said = caught.unwrap_err();
        let said = said.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(said.contains("inside already"), "{said}");
    });
}

#[test]
fn all_threads_that_wait_for_anybody_are_told_when_nobody_is_left() {
    local::run(2, |world| {
        if world.rank() == 1 {
            return;
        }
        on_threads(&world, 3, |index, mine| {
            let told = match index {
                0 => mine.probe(ANY_SOURCE, 5).map(drop),
                _ => mine.recv(&mut [0_u8], ANY_SOURCE, index as i32).map(drop),
            };
            assert!(matches!(told, Err(Error::Fault { .. })), "{told:?}");
        });
    });
}

#[test]
fn a_rank_goes_on_alone_when_the_team_is_gone() {
    local::run(2, |world| {
        for _ in 0..3 {
            on_threads(&world, 2, |_, mine| assert_eq!(mine.size(), 2));
            world.barrier().unwrap();
        }
        let dup = thread::scope(|scope| {
            let team = world.team();
            let mut both = [0_usize];
            scope
                .spawn(move || {
                    let dup = team.communicator().dup().unwrap();
                    let mut sum = [0];
                    dup.allreduce(&[1], &mut sum, &Op::sum()).unwrap();
                    sum
                })
                .join()
                .map(|sum| both.copy_from_slice(&sum))
                .unwrap();
            both
        });
        assert_eq!(dup, [2]);
        world.barrier().unwrap();
    });
}
