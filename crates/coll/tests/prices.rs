//! The closed form that the chooser uses stays near the simulated price, and its choice near the best.

use selvedge_coll::{
    Algorithm, Collective, FLAT, Rank, Schedule, Shape, explain, generate_all, price, select,
};
use selvedge_transport::Machine;

const COLLECTIVES: [Collective; 6] = [
    Collective::Barrier,
    Collective::Broadcast { root: Rank(0) },
    Collective::Reduce { root: Rank(0) },
    Collective::Allreduce,
    Collective::Allgather,
    Collective::Alltoall,
];

/// One host with a processor per rank; one host of two processors; hosts of one and of four ranks.
fn machines(ranks: u32) -> [Machine; 4] {
    let hosts = |ranks_per_host, cores_per_host| Machine {
        ranks_per_host,
        cores_per_host,
        ..Machine::one_host(ranks, ranks)
    };
    [Machine::one_host(ranks, ranks), Machine::one_host(ranks, 2), hosts(1, 1), hosts(4, 4)]
}

/// Shapes and machines where prices are compared.
fn grid() -> Vec<(Shape, Machine)> {
    let mut grid = Vec::new();
    for collective in COLLECTIVES {
        for ranks in [2, 3, 4, 7, 8, 16, 33] {
            for count in [1, 64, 1024, 16 << 10, 256 << 10] {
                let barrier = collective == Collective::Barrier;
                if barrier && count > 1 {
                    continue;
                }
                let count = if barrier { 0 } else { count };
                let shape = Shape { collective, ranks, count, element_bytes: 8, commutative: true };
                grid.extend(machines(ranks).map(|machine| (shape, machine)));
            }
        }
    }
    grid
}

/// Ratios, worst first, each with what it is about.
struct Ratios(Vec<(f64, String)>);

impl Ratios {
    /// Fails unless all are at most `worst`, and that share in percent at most `usual`. Prints the worst few.
    fn check(mut self, worst: f64, percent: usize, usual: f64) {
        self.0.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.0.iter().take(10).for_each(|(ratio, what)| println!("{ratio:.2} {what}"));
        let near = self.0.iter().filter(|(ratio, _)| *ratio <= usual).count();
        println!("{near} of {} within a factor of {usual}", self.0.len());
        assert!(self.0[0].0 <= worst, "{:?}", self.0[0]);
        assert!(near * 100 >= self.0.len() * percent, "only {near} of {} within {usual}", self.0.len());
    }
}

fn machine_name(machine: &Machine) -> String {
    format!("{} ranks on {} processors per host", machine.ranks_per_host, machine.cores_per_host)
}

#[test]
fn the_closed_form_is_within_a_factor_of_the_simulation() {
    let mut ratios = Vec::new();
    for (shape, machine) in grid() {
        for (algorithm, closed) in explain(&shape, &machine) {
            let simulated = price(&generate_all(algorithm, &shape), &machine);
            let ratio = (closed.0 / simulated.0).max(simulated.0 / closed.0);
            let place = machine_name(&machine);
            ratios.push((ratio, format!("{algorithm}: {closed}, simulated {simulated}; {shape:?}, {place}")));
        }
    }
    Ratios(ratios).check(4.5, 90, 1.5);
}

#[test]
fn the_choice_is_within_a_factor_of_the_best() {
    let mut ratios = Vec::new();
    for (shape, machine) in grid() {
        let chosen = select(&shape, &machine);
        let priced = |algorithm| price(&generate_all(algorithm, &shape), &machine);
        let others =
            explain(&shape, &machine).into_iter().map(|(algorithm, _)| (priced(algorithm), algorithm));
        let (best, algorithm) = others.min_by(|a, b| a.0.0.total_cmp(&b.0.0)).expect("there are algorithms");
        let cost = priced(chosen);
        let place = machine_name(&machine);
        ratios.push((
            cost.0 / best.0,
            format!("chose {chosen} {cost}, best {algorithm} {best}; {shape:?}, {place}"),
        ));
    }
    Ratios(ratios).check(1.4, 95, 1.1);
}

fn allreduce(ranks: u32, bytes: u64) -> Shape {
    let collective = Collective::Allreduce;
    Shape { collective, ranks, count: bytes / 8, element_bytes: 8, commutative: true }
}

#[test]
fn large_reductions_do_not_send_whole_vectors() {
    for ranks in [4, 5, 8, 16, 33] {
        for bytes in [128 << 10, 4 << 20] {
            let chosen = select(&allreduce(ranks, bytes), &Machine::one_host(ranks, ranks));
            let moves_least = [Algorithm::AllreduceRabenseifner, Algorithm::AllreduceRing];
            assert!(moves_least.contains(&chosen), "{chosen} for {ranks} ranks, {bytes} bytes");
        }
    }
}

#[test]
fn many_ranks_on_two_processors_wait_as_rarely_as_possible() {
    let crowded = Machine::one_host(16, 2);
    assert_eq!(select(&allreduce(16, 8), &crowded), Algorithm::AllreduceTree { radix: FLAT });
    let barrier = Shape { collective: Collective::Barrier, count: 0, ..allreduce(16, 8) };
    assert!(matches!(select(&barrier, &crowded), Algorithm::BarrierTree { .. }));
}

#[test]
fn all_algorithms_are_explained_cheapest_first_and_the_first_is_chosen() {
    for (shape, machine) in grid() {
        let all = explain(&shape, &machine);
        assert_eq!(all[0].0, select(&shape, &machine));
        assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let known = Algorithm::all_for(shape.collective).iter().filter(|algorithm| algorithm.applies(&shape));
        assert_eq!(all.len(), known.count());
    }
}

#[test]
fn operations_that_do_not_commute_never_get_a_ring() {
    for ranks in [2, 3, 8, 33] {
        for machine in machines(ranks) {
            let shape = Shape { commutative: false, ..allreduce(ranks, 1 << 20) };
            assert_ne!(select(&shape, &machine), Algorithm::AllreduceRing);
        }
    }
}

#[test]
fn what_hangs_has_no_price() {
    let machine = Machine::one_host(2, 2);
    let waits: Schedule =
        "scratch 0\n0: recv scratch[0..0] <- 1 #0\n1: send scratch[0..0] -> 1 #0 after 0".parse().unwrap();
    let waits_too: Schedule =
        "scratch 0\n0: recv scratch[0..0] <- 0 #0\n1: send scratch[0..0] -> 0 #0 after 0".parse().unwrap();
    assert_eq!(price(&[waits.clone(), waits_too], &machine).0, f64::INFINITY);
    assert_eq!(price(&[waits, Schedule::default()], &machine).0, f64::INFINITY);
}
