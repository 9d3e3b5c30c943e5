//! Reduction operations: what each does, and that no algorithm changes the order of operands that do not commute.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fmt::Debug;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use selvedge::runtime::{Call, Guest, Members, Plan, Runtime, Started};
use selvedge::{Datatype, Located, Misuse, Op, World};
use selvedge_coll::{Algorithm, Collective, Rank, Shape, generate};
use selvedge_engine::Context;
use selvedge_transport::{Memory, Transport};

/// Failures are printed with what they need to be repeated; no file is written.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}

fn combines<T: Datatype + PartialEq + Debug>(op: &Op<T>, left: &[T], right: &[T], f: impl Fn(T, T) -> T) {
    let mut into = right.to_vec();
    op.reduce_local(left, &mut into).unwrap();
    let expected: Vec<T> = left.iter().zip(right).map(|(a, b)| f(*a, *b)).collect();
    assert_eq!(into, expected);
}

macro_rules! integers_combine {
    ($($type:ident)*) => {$(
        proptest!(config(), |(pairs in prop::collection::vec(any::<($type, $type)>(), 0..70))| {
            let (a, b): (Vec<$type>, Vec<$type>) = pairs.into_iter().unzip();
            combines(&Op::sum(), &a, &b, |a, b| a.wrapping_add(b));
            combines(&Op::prod(), &a, &b, |a, b| a.wrapping_mul(b));
            combines(&Op::min(), &a, &b, |a, b| a.min(b));
            combines(&Op::max(), &a, &b, |a, b| a.max(b));
            combines(&Op::band(), &a, &b, |a, b| a & b);
            combines(&Op::bor(), &a, &b, |a, b| a | b);
            combines(&Op::bxor(), &a, &b, |a, b| a ^ b);
            combines(&Op::land(), &a, &b, |a, b| $type::from(a != 0 && b != 0));
            combines(&Op::lor(), &a, &b, |a, b| $type::from(a != 0 || b != 0));
            combines(&Op::lxor(), &a, &b, |a, b| $type::from((a != 0) != (b != 0)));
            combines(&Op::replace(), &a, &b, |_, b| b);
            combines(&Op::no_op(), &a, &b, |a, _| a);
            combines(&Op::commutative_each($type::wrapping_add), &a, &b, |a, b| a.wrapping_add(b));
        });
    )*};
}

#[test]
fn integers_are_combined_as_their_names_say() {
    integers_combine! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }
}

#[test]
fn floats_are_added_multiplied_and_compared() {
    proptest!(config(), |(pairs in prop::collection::vec((-1e3..1e3f64, -1e3..1e3f64), 0..70))| {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        combines(&Op::sum(), &a, &b, |a, b| a + b);
        combines(&Op::prod(), &a, &b, |a, b| a * b);
        combines(&Op::min(), &a, &b, f64::min);
        combines(&Op::max(), &a, &b, f64::max);
    });
    combines(&Op::sum(), &[1.5f32; 9], &[2.0; 9], |a, b| a + b);
}

#[test]
fn truths_are_combined_logically() {
    let (a, b) = ([false, false, true, true], [false, true, false, true]);
    combines(&Op::land(), &a, &b, |a, b| a && b);
    combines(&Op::lor(), &a, &b, |a, b| a || b);
    combines(&Op::lxor(), &a, &b, |a, b| a != b);
}

#[cfg(feature = "complex")]
#[test]
fn complex_numbers_are_added_and_multiplied() {
    use num_complex::Complex;
    let (a, b) = ([Complex::new(1.0, 2.0); 3], [Complex::new(0.5, -1.0); 3]);
    combines(&Op::sum(), &a, &b, |a, b| a + b);
    combines(&Op::prod(), &a, &b, |a, b| a * b);
}

#[cfg(feature = "half")]
#[test]
fn half_floats_are_added_multiplied_and_compared() {
    use half::{bf16, f16};
    let (a, b) = ([f16::from_f32(1.5); 3], [f16::from_f32(-2.0); 3]);
    combines(&Op::sum(), &a, &b, |a, b| a + b);
    combines(&Op::min(), &a, &b, |a, b| if a < b { a } else { b });
    combines(&Op::prod(), &[bf16::ONE], &[bf16::ZERO], |a, b| a * b);
}

#[test]
fn the_best_place_does_not_depend_on_who_comes_first() {
    let value = prop_oneof![Just(f32::NAN), Just(0.0), Just(-0.0), -2.0..2.0f32];
    let located = (value, 0..3u32).prop_map(|(value, index)| Located { value, index });
    proptest!(config(), |(a in located.clone(), b in located.clone())| {
        for op in [Op::min_loc(), Op::max_loc()] {
            let (mut left, mut right) = ([a], [b]);
            op.reduce_local(&[b], &mut left).unwrap();
            op.reduce_local(&[a], &mut right).unwrap();
            prop_assert_eq!(left[0].index, right[0].index);
            prop_assert_eq!(left[0].value.is_nan(), a.value.is_nan() && b.value.is_nan());
        }
    });
    let (a, b) = (Located { value: 3i64, index: 7u64 }, Located { value: 3, index: 5 });
    combines(&Op::min_loc(), &[a], &[b], |_, b| b);
    combines(&Op::max_loc(), &[b], &[a], |b, _| b);
}

#[test]
fn slices_of_different_lengths_are_not_combined() {
    let error = Op::sum().reduce_local(&[1, 2], &mut [3]).unwrap_err();
    assert!(matches!(error, selvedge::Error::Misuse(Misuse::Length { .. })), "{error}");
}

/// `x -> a x + b`: composition associates and does not commute.
type Affine = [u64; 2];

fn then(f: Affine, g: Affine) -> Affine {
    [g[0].wrapping_mul(f[0]), g[0].wrapping_mul(f[1]).wrapping_add(g[1])]
}

/// What a rank gives.
fn given(seed: u64, rank: usize, count: usize) -> Vec<Affine> {
    let mix = |i: usize| (seed ^ (rank as u64 + 1) << 32 ^ i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..count).map(|i| [mix(2 * i) | 1, mix(2 * i + 1)]).collect()
}

/// An operation and the function that it is.
type Known = (Op<Affine>, fn(Affine, Affine) -> Affine);

/// The operations whose order shows.
fn ordered() -> [Known; 4] {
    let slices = Op::ordered(|left: &[Affine], right: &mut [Affine]| {
        left.iter().zip(right).for_each(|(left, right)| *right = then(*left, *right));
    });
    [(slices, then), (Op::ordered_each(then), then), (Op::replace(), |_, b| b), (Op::no_op(), |a, _| a)]
}

/// One reduction by a given algorithm.
#[derive(Clone, Debug)]
struct Case {
    algorithm: Algorithm,
    shape: Shape,
    op: usize,
    seed: u64,
    sequence: u32,
}

impl Guest for &Case {
    type Output = Vec<u64>;

    fn visit<T: Transport>(self, runtime: &mut Runtime<T>) -> Vec<u64> {
        let me = Rank(runtime.engine().transport().me().0);
        let plan = Arc::new(Plan::new(self.shape, generate(self.algorithm, &self.shape, me)));
        let group = Arc::new(Members::World { size: self.shape.ranks });
        let mine = given(self.seed, me.index(), self.shape.count as usize);
        let input = Memory::of(bytemuck::cast_slice(&mine));
        let output = Memory::zeroed(self.shape.output_bytes(me) as usize);
        let reducer = ordered()[self.op].0.reducer();
        let call = Call {
            plan: &plan,
            group: &group,
            context: Context(1 << 20),
            sequence: self.sequence,
            input: input.buf(),
            output: output.buf(),
            reducer: Some(&reducer),
        };
        let outcome = match runtime.collective(call) {
            Started::Done(outcome) => outcome,
            Started::Pending(operation) => loop {
                runtime.progress();
                match runtime.take(operation) {
                    Some(outcome) => break outcome,
                    None => runtime.wait(std::time::Duration::from_millis(1)),
                }
            },
        };
        outcome.unwrap();
        let mut bytes = vec![0; output.buf().len()];
        output.buf().copy_to(&mut bytes);
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
    }
}

/// Every algorithm that reduces in order on so many ranks, and radices that nobody would choose.
fn algorithms(ranks: u32, root: Rank) -> Vec<(Algorithm, Collective)> {
    let mut all = Vec::new();
    for collective in [Collective::Reduce { root }, Collective::Allreduce] {
        let shape = Shape { collective, ranks, count: 1, element_bytes: 16, commutative: false };
        let known = Algorithm::all_for(collective).iter().copied();
        let odd = [3, 5]
            .into_iter()
            .flat_map(|radix| [Algorithm::ReduceTree { radix }, Algorithm::AllreduceTree { radix }]);
        all.extend(known.chain(odd).filter(|it| it.applies(&shape)).map(|it| (it, collective)));
    }
    all
}

fn cases(ranks: u32) -> impl Strategy<Value = Vec<Case>> {
    let one =
        (0..ranks, 0..1_000usize, 0..4usize, prop_oneof![1..40u64, Just(1_031), Just(9_000)], any::<u64>())
            .prop_map(move |(root, algorithm, op, count, seed)| {
                let known = algorithms(ranks, Rank(root));
                let (algorithm, collective) = known[algorithm % known.len()];
                let shape = Shape { collective, ranks, count, element_bytes: 16, commutative: false };
                Case { algorithm, shape, op, seed, sequence: 0 }
            });
    prop::collection::vec(one, 1..60)
}

#[test]
fn an_operation_says_its_name_and_is_copied_with_what_it_does() {
    assert_eq!(format!("{:?}", Op::<f64>::sum()), "Op(sum)");
    let then = Op::ordered_each(|left: u8, right: u8| left * 10 + right);
    assert_eq!(format!("{then:?}"), "Op(the program's own operation, in order of ranks)");
    let mut into = [2];
    then.clone().reduce_local(&[1], &mut into).unwrap();
    assert_eq!(into, [12]);
}

/// Runs the cases one behind the other, and each algorithm and operation once, and compares with a fold.
fn folds_in_order(ranks: u32) {
    let drawn = std::cell::RefCell::new(Vec::new());
    let mut runner = TestRunner::new(Config { cases: 4, ..config() });
    let collected = runner.run(&cases(ranks), |cases| {
        drawn.borrow_mut().extend(cases);
        Ok(())
    });
    collected.unwrap();
    let mut all = drawn.into_inner();
    for (algorithm, collective) in algorithms(ranks, Rank(ranks / 2)) {
        let shape = Shape { collective, ranks, count: 37, element_bytes: 16, commutative: false };
        all.extend((0..4).map(|op| Case { algorithm, shape, op, seed: 7, sequence: 0 }));
    }
    all.iter_mut().zip(0..).for_each(|(case, sequence)| case.sequence = sequence);
    selvedge::local::run(ranks as usize, |world: World| {
        for case in &all {
            let output = world.host_guest(case);
            if let Some(root) = case.shape.root().filter(|root| root.index() != world.rank()) {
                assert!(output.is_empty(), "{case:?} gave something to a rank that is not {root:?}");
                continue;
            }
            let f = ordered()[case.op].1;
            let inputs = (0..world.size()).map(|rank| given(case.seed, rank, case.shape.count as usize));
            let folded = inputs.reduce(|left, right| left.iter().zip(right).map(|(a, b)| f(*a, b)).collect());
            assert_eq!(output, folded.unwrap().concat(), "{case:?}");
        }
        world.barrier().unwrap();
    });
}

macro_rules! ranks_fold_in_order {
    ($($name:ident: $ranks:literal)*) => {$(
        #[test]
        fn $name() {
            folds_in_order($ranks);
        }
    )*};
}

mod whatever_algorithm_reduces_operands_keep_the_order_of_ranks {
    use super::folds_in_order;

    ranks_fold_in_order! { one: 1 two: 2 three: 3 four: 4 five: 5 six: 6 seven: 7 eight: 8 nine: 9 }
}
