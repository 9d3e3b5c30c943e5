//! Groups, and communicators made of them.

use selvedge::{ANY_SOURCE, Comparison, Error, Misuse, Op, local};

#[test]
fn groups_are_sets_in_an_order() {
    local::run(4, |world| {
        let all = world.group();
        let [low, high] = [&[2, 0][..], &[3, 2]].map(|ranks| all.include(ranks.iter().copied()).unwrap());
        let ranks = |group: &selvedge::Group| {
            (0..group.size()).map(|rank| group.translate(rank, &all).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ranks(&low.union(&high)), [2, 0, 3]);
        assert_eq!(ranks(&low.intersection(&high)), [2]);
        assert_eq!(ranks(&low.difference(&high)), [0]);
        assert_eq!(ranks(&all.exclude([1, 2]).unwrap()), [0, 3]);
        assert_eq!(low.rank(), [Some(1), None, Some(0), None][world.rank()]);
        assert_eq!(low.translate(0, &high), Some(1));
        assert_eq!(low.translate(1, &high), None);
        assert!(all.difference(&all).is_empty());
        assert_eq!(low.compare(&all.include([0, 2]).unwrap()), Comparison::Similar);
        assert_eq!(low.compare(&high), Comparison::Unequal);
        assert_eq!(all.include(0..4).unwrap(), all);
        assert!(matches!(all.include([4]), Err(Error::Misuse(Misuse::RankOutOfRange { .. }))));
        assert!(matches!(all.include([1, 1]), Err(Error::Misuse(Misuse::RankTwice { rank: 1 }))));
    });
}

#[test]
fn a_group_becomes_a_communicator_with_all_or_with_its_members_only() {
    local::run(5, |world| {
        let odd = world.group().include([3, 1]).unwrap();
        let made = world.create(&odd).unwrap();
        assert_eq!(made.is_some(), world.rank() % 2 == 1);
        if let Some(made) = made {
            assert_eq!((made.size(), made.rank()), (2, (3 - world.rank()) / 2));
            let again = world.create_group(&odd, 3).unwrap();
            assert_eq!(made.compare(&again), Comparison::Congruent);
            let nobody = again.group().difference(&odd);
            assert!(again.create(&nobody).unwrap().is_none());
            assert!(matches!(again.create(&world.group()), Err(Error::Misuse(Misuse::NotAMember))));
        }
        world.barrier().unwrap();
    });
}

#[test]
fn what_is_passed_on_is_shared_by_a_dup_and_names_are_not() {
    local::run(2, |world| {
        world.set_name("everybody");
        assert_eq!(world.extensions().insert_passed_on(String::from("kept")), None);
        assert_eq!(world.extensions().insert(7_u8), None);
        let dup = world.dup().unwrap();
        assert_eq!((dup.name(), world.name()), (String::new(), "everybody".to_owned()));
        assert_eq!(*dup.extensions().get::<String>().unwrap(), "kept");
        assert!(dup.extensions().get::<u8>().is_none());
        assert_eq!(*world.extensions().remove::<u8>().unwrap(), 7);
    });
}

#[test]
fn a_hundred_thousand_communicators_come_and_go_and_no_message_goes_astray() {
    const ROUNDS: usize = 25_000;
    local::run(3, |world| {
        let pair = world.group().include([2, 0]).unwrap();
        let mut kept = Vec::new();
        for round in 0..ROUNDS {
            let dup = world.dup().unwrap();
            let part = world.split(Some((world.rank() == round % 3) as u32), 0).unwrap().unwrap();
            let two = world.create(&pair).unwrap();
            let again = two.as_ref().map(|two| two.create_group(&two.group(), 0).unwrap());
            if round % 100 == 0 {
                // The last of these lives as long as a hundred rounds of the others.
                let sent = [round, world.rank()];
                let peer = (world.rank() + 1) % 3;
                dup.send(&sent, peer, 0).unwrap();
                let mut from = [0; 2];
                dup.recv(&mut from, ANY_SOURCE, 0).unwrap();
                assert_eq!(from, [round, (world.rank() + 2) % 3]);
                let mut size = [0];
                part.allreduce(&[1], &mut size, &Op::sum()).unwrap();
                assert_eq!(size[0], part.size());
                if let Some(again) = &again {
                    again.barrier().unwrap();
                }
                kept.clear();
                kept.push(dup);
            }
        }
    });
}

#[test]
fn threads_make_communicators_at_the_same_time_and_each_has_its_own_messages() {
    local::run(2, |world| {
        let bases: Vec<_> = (0..3).map(|_| world.dup().unwrap()).collect();
        let teams: Vec<_> = bases.iter().map(selvedge::Communicator::team).collect();
        std::thread::scope(|scope| {
            for (index, team) in teams.iter().enumerate() {
                scope.spawn(move || {
                    let mine = team.communicator();
                    let mut made = Vec::new();
                    for round in 0..100 {
                        let new = mine.dup().unwrap();
                        let (peer, mut heard) = (1 - new.rank(), [0; 2]);
                        new.sendrecv(&[index, round], peer, 0, &mut heard, peer, 0).unwrap();
                        assert_eq!(heard, [index, round]);
                        if round % 3 == 0 {
                            made.push(new);
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn worlds_follow_each_other_and_stand_beside_each_other_in_one_process() {
    std::thread::scope(|scope| {
        for size in [2, 3] {
            scope.spawn(move || {
                for _ in 0..5 {
                    let sums = local::run(size, |world| {
                        let dup = world.dup().unwrap();
                        let mut sum = [0];
                        dup.allreduce(&[world.rank()], &mut sum, &Op::sum()).unwrap();
                        sum[0]
                    });
                    assert_eq!(sums, vec![size * (size - 1) / 2; size]);
                }
            });
        }
    });
}

#[test]
fn a_grid_knows_its_neighbours_and_its_rows() {
    local::run(7, |world| {
        let Some(grid) = world.cartesian(&[2, 3], &[true, false]).unwrap() else {
            assert_eq!(world.rank(), 6, "of seven ranks one has no place");
            return;
        };
        let here = grid.coords(grid.rank());
        assert_eq!(here, [grid.rank() / 3, grid.rank() % 3]);
        let (up, down) = grid.shift(0, 1);
        assert_eq!((up, down), (Some((grid.rank() + 3) % 6), Some((grid.rank() + 3) % 6)));
        let (left, right) = grid.shift(1, 1);
        assert_eq!(left, (here[1] > 0).then(|| grid.rank() - 1));
        assert_eq!(right, (here[1] < 2).then(|| grid.rank() + 1));
        assert_eq!(grid.rank_at(&[-1, 2]), Some(5));
        let row = grid.sub(&[false, true]).unwrap();
        assert_eq!((row.size(), row.rank()), (3, here[1]));
        assert!(matches!(row.cartesian(&[4], &[false]), Err(Error::Misuse(Misuse::Grid { .. }))));
    });
}
