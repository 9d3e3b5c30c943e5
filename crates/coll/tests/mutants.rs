//! The verifier is verified: schedules are spoiled in every systematic way, and verifier and naive interpreter must
//! agree on which of the spoiled ones still work.
//!
//! A mutant is *equivalent* when the naive interpreter, under many adversarial orders, never sees it fail. Then:
//! - the verifier must reject every mutant that is seen to fail, without exception;
//! - of the mutants it rejects, nearly all must be seen to fail. The rest is where the verifier is stricter than the
//!   interpreter can show: two unordered steps that happen to write the same value, or bytes that nobody looks at.

mod naive;

use std::collections::BTreeMap;

use naive::{Random, expected, run};
use selvedge_coll::{
    Action, Algorithm, Collective, Rank, Schedule, Shape, Side, Slice, Space, StepIndex, generate_all, verify,
};

/// Orders tried before a mutant counts as equivalent.
const SEEDS: u64 = 60;

type Steps = Vec<(Action, Vec<StepIndex>)>;

fn steps(schedule: &Schedule) -> Steps {
    schedule.iter().map(|(_, action, after)| (action, after.to_vec())).collect()
}

fn rebuild(steps: &Steps, scratch_bytes: u64) -> Schedule {
    let mut schedule = Schedule::new(scratch_bytes);
    steps.iter().for_each(|(action, after)| {
        schedule.push(*action, after);
    });
    schedule
}

/// Applies `change` to each slice of an action in turn.
fn with_slices(action: Action, change: impl Fn(Slice) -> Slice) -> Vec<Action> {
    match action {
        Action::Send { to, from, label } => vec![Action::Send { to, from: change(from), label }],
        Action::Recv { from, into, label } => vec![Action::Recv { from, into: change(into), label }],
        Action::Copy { from, into } => {
            vec![Action::Copy { from: change(from), into }, Action::Copy { from, into: change(into) }]
        }
        Action::Reduce { from, into, side } => vec![
            Action::Reduce { from: change(from), into, side },
            Action::Reduce { from, into: change(into), side },
        ],
    }
}

fn with_label(action: Action, new: u32) -> Option<Action> {
    match action {
        Action::Send { to, from, .. } => Some(Action::Send { to, from, label: new }),
        Action::Recv { from, into, .. } => Some(Action::Recv { from, into, label: new }),
        _ => None,
    }
}

fn label(action: Action) -> Option<u32> {
    match action {
        Action::Send { label, .. } | Action::Recv { label, .. } => Some(label),
        _ => None,
    }
}

/// All ways to spoil step `at`, each with its name.
fn spoil(shape: &Shape, steps: &Steps, at: usize) -> Vec<(&'static str, Steps)> {
    let each = u64::from(shape.element_bytes);
    let (action, after) = &steps[at];
    let mut mutants = Vec::new();
    let mut replaced = |name, action: Action| {
        let mut mutant = steps.clone();
        mutant[at].0 = action;
        mutants.push((name, mutant));
    };
    for shifted in with_slices(*action, |slice| Slice { offset: slice.offset + each, ..slice }) {
        replaced("shift up", shifted);
    }
    for shifted in with_slices(*action, |slice| Slice { offset: slice.offset.saturating_sub(each), ..slice })
    {
        replaced("shift down", shifted);
    }
    for shrunk in with_slices(*action, |slice| Slice { len: slice.len.saturating_sub(each), ..slice }) {
        replaced("shrink one slice", shrunk);
    }
    for space in [Space::Input, Space::Output, Space::Scratch] {
        for moved in with_slices(*action, |slice| Slice { space, ..slice }) {
            replaced("other space", moved);
        }
    }
    let shorter = |slice: Slice| Slice { len: slice.len.saturating_sub(each), ..slice };
    match *action {
        Action::Send { to, from, label } => {
            replaced("retarget", Action::Send { to: Rank((to.0 + 1) % shape.ranks), from, label });
            replaced("relabel", Action::Send { to, from, label: label + 1 });
        }
        Action::Recv { from, into, label } => {
            replaced("retarget", Action::Recv { from: Rank((from.0 + 1) % shape.ranks), into, label });
            replaced("relabel", Action::Recv { from, into, label: label + 1 });
        }
        Action::Copy { from, into } => {
            replaced("swap operands", Action::Copy { from: into, into: from });
            replaced("shrink both slices", Action::Copy { from: shorter(from), into: shorter(into) });
        }
        Action::Reduce { from, into, side } => {
            let other = if side == Side::Left { Side::Right } else { Side::Left };
            replaced("swap side", Action::Reduce { from, into, side: other });
            replaced("swap operands", Action::Reduce { from: into, into: from, side });
            replaced("shrink both slices", Action::Reduce { from: shorter(from), into: shorter(into), side });
            replaced("reduce to copy", Action::Copy { from, into });
        }
    }
    for gone in 0..after.len() {
        let mut mutant = steps.clone();
        mutant[at].1.remove(gone);
        mutants.push(("drop dependency", mutant));
    }
    mutants.push(("drop step", drop_step(steps, at)));
    let mut doubled = steps.clone();
    doubled.push((*action, vec![at as u32]));
    mutants.push(("duplicate step", doubled));
    let next = (at + 1..steps.len()).find(|&other| label(steps[other].0).is_some());
    if let (Some(mine), Some(other)) = (label(*action), next) {
        let theirs = label(steps[other].0).expect("it was looked for");
        let mut mutant = steps.clone();
        mutant[at].0 = with_label(*action, theirs).expect("it has a label");
        mutant[other].0 = with_label(steps[other].0, mine).expect("it has a label");
        mutants.push(("swap labels", mutant));
    }
    mutants
}

/// Spoils a message at both ends alike, so that it is still paired.
fn spoil_message(
    shape: &Shape,
    good: &[Schedule],
    rank: usize,
    at: StepIndex,
) -> Vec<(&'static str, Vec<Schedule>)> {
    let each = u64::from(shape.element_bytes);
    let Action::Send { to, from, label } = good[rank].action(at) else { return Vec::new() };
    let receive = good[to.index()].iter().find_map(|(step, action, _)| match action {
        Action::Recv { from, into, label: other } if from.index() == rank && other == label => {
            Some((step, into))
        }
        _ => None,
    });
    let (step, into) = receive.expect("the schedules are good");
    let len = from.len.saturating_sub(each);
    let ends = [
        ("shorten message", Slice { len, ..from }, Slice { len, ..into }),
        (
            "behead message",
            Slice { len, offset: from.offset + each, ..from },
            Slice { len, offset: into.offset + each, ..into },
        ),
    ];
    let mut mutants = Vec::new();
    for (name, from, into) in ends {
        let mut spoiled = good.to_vec();
        let (mut mine, mut theirs) = (steps(&good[rank]), steps(&good[to.index()]));
        mine[at as usize].0 = Action::Send { to, from, label };
        theirs[step as usize].0 = Action::Recv { from: Rank(rank as u32), into, label };
        spoiled[rank] = rebuild(&mine, good[rank].scratch_bytes());
        spoiled[to.index()] = rebuild(&theirs, good[to.index()].scratch_bytes());
        mutants.push((name, spoiled));
    }
    mutants
}

/// Without step `at`; those after it now run after what it ran after.
fn drop_step(steps: &Steps, at: usize) -> Steps {
    let mut mutant = Steps::new();
    for (index, (action, after)) in steps.iter().enumerate().filter(|&(index, _)| index != at) {
        let mut kept: Vec<u32> = after.iter().copied().filter(|&step| step as usize != at).collect();
        if kept.len() < after.len() {
            kept.extend(&steps[at].1);
        }
        debug_assert!(index != at);
        kept.iter_mut().filter(|step| **step as usize > at).for_each(|step| *step -= 1);
        mutant.push((*action, kept));
    }
    mutant
}

#[derive(Debug, Default)]
struct Tally {
    caught: u32,
    stricter: u32,
    equivalent: u32,
}

/// Spoils the schedules of `shape` and compares verifier and interpreter.
fn compare(algorithm: Algorithm, shape: &Shape, tally: &mut BTreeMap<&'static str, Tally>) {
    let good = generate_all(algorithm, shape);
    let wanted = expected(shape);
    assert_eq!(verify(shape, &good), Ok(()), "{algorithm} {shape:?}");
    for seed in 0..SEEDS {
        assert_eq!(run(shape, &good, &wanted, seed), Ok(()), "{algorithm} {shape:?} seed {seed}");
    }
    let mut random = Random(u64::from(shape.ranks));
    for rank in 0..good.len() {
        let original = steps(&good[rank]);
        for at in 0..original.len() {
            // Large schedules are sampled.
            if original.len() * good.len() > 60 && random.below(original.len() * good.len()) > 60 {
                continue;
            }
            for (name, mutant) in spoil(shape, &original, at) {
                if mutant == original {
                    continue;
                }
                let mut spoiled = good.clone();
                spoiled[rank] = rebuild(&mutant, good[rank].scratch_bytes());
                judge(algorithm, shape, name, &spoiled, &wanted, tally);
            }
            for (name, spoiled) in spoil_message(shape, &good, rank, at as StepIndex) {
                if spoiled != good {
                    judge(algorithm, shape, name, &spoiled, &wanted, tally);
                }
            }
        }
    }
    // Two or three mistakes together, which may hide each other.
    for _ in 0..40 {
        let mut spoiled = good.clone();
        for _ in 0..2 + random.below(2) {
            let rank = random.below(good.len());
            let original = steps(&spoiled[rank]);
            if original.is_empty() {
                continue;
            }
            let mut mutants = spoil(shape, &original, random.below(original.len()));
            let (_, mutant) = mutants.swap_remove(random.below(mutants.len()));
            spoiled[rank] = rebuild(&mutant, good[rank].scratch_bytes());
        }
        judge(algorithm, shape, "several at once", &spoiled, &wanted, tally);
    }
}

/// Asks verifier and interpreter.
fn judge(
    algorithm: Algorithm,
    shape: &Shape,
    name: &'static str,
    spoiled: &[Schedule],
    wanted: &[Vec<u8>],
    tally: &mut BTreeMap<&'static str, Tally>,
) {
    let seen = (0..SEEDS).find_map(|seed| run(shape, spoiled, wanted, seed).err());
    let tally = tally.entry(name).or_default();
    match (verify(shape, spoiled), seen) {
        (Err(_), Some(_)) => tally.caught += 1,
        (Err(_), None) => tally.stricter += 1,
        (Ok(()), None) => tally.equivalent += 1,
        (Ok(()), Some(seen)) => {
            let all: String =
                (0..).zip(spoiled).map(|(rank, one)| format!("// rank {rank}\n{one}")).collect();
            panic!("{algorithm} {shape:?}, {name}: {seen}, and the verifier is content\n{all}");
        }
    }
}

fn report(tally: &BTreeMap<&'static str, Tally>) -> (u32, u32) {
    for (name, Tally { caught, stricter, equivalent }) in tally {
        println!("{name:20} {caught:6} caught {stricter:6} stricter {equivalent:6} equivalent");
    }
    let sum = |part: fn(&Tally) -> u32| tally.values().map(part).sum();
    (sum(|tally| tally.caught), sum(|tally| tally.stricter))
}

fn compare_all(collective: Collective, ranks: &[u32], counts: &[(u64, u32)], orders: &[bool]) {
    let mut tally = BTreeMap::new();
    for &ranks in ranks {
        for &(count, element_bytes) in counts {
            for &commutative in orders {
                let shape = Shape { collective, ranks, count, element_bytes, commutative };
                let known =
                    Algorithm::all_for(collective).iter().filter(|algorithm| algorithm.applies(&shape));
                known.for_each(|&algorithm| compare(algorithm, &shape, &mut tally));
            }
        }
    }
    let (caught, stricter) = report(&tally);
    assert!(caught > 100, "only {caught} mutants fail: the test has no teeth");
    assert!(stricter * 20 <= caught, "{stricter} mutants are rejected without reason, {caught} with");
}

#[test]
fn spoiled_barriers_are_caught() {
    compare_all(Collective::Barrier, &[2, 3, 5, 8], &[(0, 1)], &[true]);
}

#[test]
fn spoiled_broadcasts_are_caught() {
    compare_all(Collective::Broadcast { root: Rank(1) }, &[2, 4, 5, 7], &[(11, 2), (1, 8)], &[true]);
}

#[test]
fn spoiled_reductions_are_caught() {
    compare_all(Collective::Reduce { root: Rank(1) }, &[2, 3, 5, 6], &[(7, 1), (1, 16)], &[true, false]);
}

#[test]
fn spoiled_allreductions_are_caught() {
    compare_all(Collective::Allreduce, &[2, 3, 4, 6, 7], &[(9, 2), (1, 8)], &[true, false]);
}

#[test]
fn spoiled_allgathers_are_caught() {
    compare_all(Collective::Allgather, &[2, 3, 4, 6], &[(3, 2)], &[true]);
}

#[test]
fn spoiled_alltoalls_are_caught() {
    compare_all(Collective::Alltoall, &[2, 3, 4, 5], &[(2, 2)], &[true]);
}
