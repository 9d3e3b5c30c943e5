//! What messages are made of: every primitive, structs, and bytes that are no values.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fmt::Debug;
use std::num::{NonZeroI16, NonZeroU64, Wrapping};

use proptest::prelude::*;
use selvedge::{ANY_SOURCE, ANY_TAG, Communicator, Datatype, Error, Misuse, Op, Plain, Result, World};

/// Sends values from every rank to the next and back as a vector.
fn travels<T: Datatype + PartialEq + Debug>(world: &World, values: &[T]) {
    let (me, size) = (world.rank(), world.size());
    let mut got = values.to_vec();
    got.rotate_left(1);
    world.sendrecv(values, (me + 1) % size, 1, &mut got, ANY_SOURCE, 1).unwrap();
    assert_eq!(got, values);
    world.scope(|scope| {
        let sent = scope.isend(values, (me + 1) % size, 2).unwrap();
        assert_eq!(world.recv_vec::<T>(ANY_SOURCE, 2).unwrap().0, values);
        sent.wait().unwrap();
    });
}

macro_rules! integers_travel {
    ($world:expr, $($type:ident)*) => { $(travels(&$world, &[$type::MIN, 0, 1, $type::MAX]);)* };
}

#[selvedge::test(ranks = [1, 2, 3])]
fn every_primitive_travels(world: World) {
    integers_travel!(world, u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
    travels(&world, &[f32::MIN_POSITIVE, -0.0, f32::INFINITY]);
    travels(&world, &[f64::MIN_POSITIVE, -0.0, f64::INFINITY]);
    travels(&world, &[true, false, true]);
    travels(&world, &['a', '\0', 'ß', char::MAX, '\u{d7ff}', '\u{e000}']);
    travels(&world, &[NonZeroU64::MIN, NonZeroU64::MAX]);
    travels(&world, &[None, NonZeroI16::new(-3)]);
    travels(&world, &[Wrapping(7u8)]);
    travels(&world, &[[[true; 3]; 2], [[false; 3]; 2]]);
    world.send(&[[true; 0]; 3], world.rank(), 3).unwrap();
    world.recv(&mut [[false; 0]; 3], world.rank(), 3).unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Datatype)]
#[repr(u8)]
enum Kind {
    Free = 3,
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Datatype)]
#[repr(C)]
struct Inner<T, const N: usize> {
    values: [T; N],
    kind: [Kind; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Datatype)]
#[repr(C)]
struct Outer {
    inner: [Inner<f32, 3>; 2],
    name: char,
    flags: [Flags; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Datatype)]
#[repr(transparent)]
struct Flags([bool; 2]);

#[derive(Clone, Copy, Datatype)]
#[repr(C, packed)]
struct Packed {
    flag: bool,
    letter: char,
    number: u64,
}

#[selvedge::test(ranks = [1, 2])]
fn structs_travel_nested_generic_and_packed(world: World) {
    let inner = Inner { values: [1.0, 2.0, 3.0], kind: [Kind::Free, Kind::Fixed, Kind::Free, Kind::Free] };
    travels(&world, &[inner]);
    let flags = [Flags([true, false]), Flags([false, true])];
    travels(&world, &[Outer { inner: [inner; 2], name: '\u{10ffff}', flags }]);
    let mut got = [Packed { flag: false, letter: ' ', number: 0 }];
    let sent = [Packed { flag: true, letter: 'é', number: 9 }];
    let next = (world.rank() + 1) % world.size();
    world.sendrecv(&sent, next, 0, &mut got, ANY_SOURCE, 0).unwrap();
    assert!({ got[0].flag } && { got[0].letter } == 'é' && { got[0].number } == 9);
}

/// What a receive of something invalid has to say.
fn is_invalid<T: Debug>(result: Result<T>, index: usize, source_rank: Option<usize>) {
    match result {
        Err(Error::Misuse(Misuse::InvalidElement { index: i, source_rank: s, .. })) => {
            assert_eq!((i, s), (index, source_rank));
        }
        other => panic!("{other:?} instead of an invalid element {index} from {source_rank:?}"),
    }
}

/// Bytes of which the third is no `bool`.
const WRONG: [u8; 4] = [0, 1, 7, 1];

#[selvedge::test(ranks = [2])]
fn what_is_no_bool_never_gets_into_one_and_the_sender_is_named(world: World) {
    let (me, other) = (world.rank(), 1 - world.rank());
    for tag in 0..5 {
        world.scope(|scope| drop(scope.isend(&WRONG, other, tag).unwrap()));
    }
    let right = [false, true, true, true];
    let mut flags = [true; 4];
    is_invalid(world.recv(&mut flags, other, 0), 2, Some(other));
    assert_eq!(flags, right);
    is_invalid(world.recv_vec::<bool>(other, 1), 2, Some(other));
    let mut flags = [true; 4];
    is_invalid(world.sendrecv(&[1u8], other, 9, &mut flags, other, 2), 2, Some(other));
    assert_eq!(flags, right);
    assert_eq!(world.recv_vec::<u8>(other, 9).unwrap().0, [1]);
    // Of a request it is told when it is waited for, and the memory is in order also when nobody waits.
    let (mut waited, mut forgotten) = ([true; 4], [true; 4]);
    world.scope(|scope| {
        let request = scope.irecv(&mut waited, other, 3).unwrap();
        std::mem::forget(scope.irecv(&mut forgotten, ANY_SOURCE, ANY_TAG).unwrap());
        is_invalid(request.wait(), 2, Some(other));
    });
    assert_eq!((waited, forgotten), (right, right));
    assert_eq!(world.rank(), me);
}

#[selvedge::test(ranks = [2, 3])]
fn a_collective_that_brings_no_values_says_so_and_nobody_hangs(world: World) {
    let root = world.size() - 1;
    if world.rank() == root {
        world.broadcast(&mut WRONG.clone(), root).unwrap();
    } else {
        let mut flags = [true; 4];
        is_invalid(world.broadcast(&mut flags, root), 2, None);
        assert_eq!(flags, [false, true, true, true]);
    }
    // The operands of a reduction are looked at before the program's own operation sees them.
    let outcome = if world.rank() == root {
        world.allreduce(&WRONG, &mut [0; 4], &Op::commutative(|_: &[u8], _: &mut [u8]| ()))
    } else {
        let xor = Op::commutative(|from: &[bool], into: &mut [bool]| {
            into.iter_mut().zip(from).for_each(|(into, from)| *into ^= from);
        });
        let mut flags = [true; 4];
        let outcome = world.allreduce(&[true; 4], &mut flags, &xor);
        assert!(flags.iter().all(|&flag| [false, true].contains(&flag)));
        outcome
    };
    let mut noticed = [0];
    world.allreduce(&[u32::from(outcome.is_err())], &mut noticed, &Op::sum()).unwrap();
    assert!(noticed[0] > 0);
}

fn valid(bytes: &[u8; 20]) -> bool {
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    char::from_u32(word(0)).is_some()
        && bytes[4..8].iter().all(|byte| *byte < 2)
        && bytes[8..12].iter().all(|byte| [3, 4].contains(byte))
}

#[derive(Clone, Copy, Debug, PartialEq, Datatype)]
#[repr(C)]
struct Mixed {
    letter: char,
    flags: [bool; 4],
    kinds: [Kind; 4],
    plain: [u32; 2],
}

fn arrives_or_is_refused(world: &Communicator, elements: &[[u8; 20]]) {
    let before = Mixed { letter: 'x', flags: [true; 4], kinds: [Kind::Free; 4], plain: [1, 2] };
    let mut got = vec![before; elements.len()];
    world.send(elements, 0, 0).unwrap();
    let outcome = world.recv(&mut got, 0, 0);
    match elements.iter().position(|element| !valid(element)) {
        None => assert!(outcome.is_ok()),
        Some(index) => is_invalid(outcome, index, Some(0)),
    }
    for (got, sent) in got.iter().zip(elements) {
        assert!(if valid(sent) {
            got.letter as u32 == u32::from_ne_bytes(sent[..4].try_into().unwrap())
        } else {
            *got == before
        });
    }
}

#[test]
fn whatever_bytes_arrive_only_values_are_seen() {
    let byte = prop_oneof![4 => 0..5u8, 1 => any::<u8>()];
    let mostly_valid = (any::<char>(), prop::array::uniform4(0..2u8), prop::array::uniform4(3..5u8))
        .prop_map(|(letter, flags, kinds)| {
            let mut bytes = [9; 20];
            bytes[..4].copy_from_slice(&(letter as u32).to_ne_bytes());
            bytes[4..8].copy_from_slice(&flags);
            bytes[8..12].copy_from_slice(&kinds);
            bytes
        });
    let element = prop_oneof![3 => mostly_valid, 1 => prop::array::uniform20(byte)];
    selvedge::local::run(1, |world| {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(elements in prop::collection::vec(element.clone(), 0..6))| {
            arrives_or_is_refused(&world, &elements);
        });
    });
}

#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Foreign {
    x: f32,
    y: f32,
}

#[selvedge::test(ranks = [2])]
fn plain_old_data_of_other_crates_travels_inside_plain(world: World) {
    travels(&world, Plain::slice(&[Foreign { x: 1.0, y: 2.0 }]));
}

#[cfg(feature = "complex")]
#[selvedge::test(ranks = [2])]
fn complex_numbers_travel(world: World) {
    travels(&world, &[num_complex::Complex::new(1.0, -2.0)]);
}

#[cfg(feature = "half")]
#[selvedge::test(ranks = [2])]
fn half_floats_travel(world: World) {
    travels(&world, &[half::f16::MAX, half::f16::ZERO]);
    travels(&world, &[half::bf16::MAX, half::bf16::ZERO]);
}

/// What `SELVEDGE_CHECK=1` says, of rank 1's receive from rank 0.
fn mismatch(program: impl Fn(&World) -> selvedge::Result<()> + Sync) -> String {
    let outcomes = selvedge::local::run_checked(2, |world| program(&world).err());
    match &outcomes[..] {
        [None, Some(error @ Error::Misuse(Misuse::TypeMismatch { source_rank: 0, rank: 1, tag: 5, .. }))] => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn while_types_are_checked_another_type_is_named_with_both_ranks_and_the_tag() {
    let said = mismatch(|world| match world.rank() {
        0 => world.send(&[1.5f64; 3], 1, 5),
        _ => {
            let mut into = [7i32; 9];
            let outcome = world.recv(&mut into, 0, 5).map(drop);
            assert_eq!(into, [7; 9], "nothing of another type is received");
            outcome
        }
    });
    assert_eq!(
        said,
        "rank 0 sent 3 x f64 with tag 5, and rank 1 receives 9 x i32: they differ from byte 0 on; receive what is sent, or \
         say with another tag that it is something else, or send bytes of any type as Plain"
    );
}

#[test]
fn while_types_are_checked_every_kind_of_receive_looks() {
    let send = |world: &World| world.send(&[1.5f64; 3], 1, 5);
    let by: [fn(&World) -> selvedge::Result<()>; 6] = [
        |world| {
            let mut into = [0u64; 4];
            world.scope(|scope| scope.irecv(&mut into, 0, 5)?.wait()).map(drop)
        },
        |world| world.recv_vec::<i64>(0, 5).map(drop),
        |world| world.mprobe(0, 5)?.recv(&mut [0u16; 40]).map(drop),
        |world| world.irecv_owned(vec![true; 30], 0, 5).wait().0.map(drop),
        |world| world.sendrecv(&[1u8], selvedge::PROC_NULL, 0, &mut ['x'; 9], 0, 5).map(drop),
        |world| {
            let mut into = [0i32; 9];
            world.scope(|scope| scope.recv_init(&mut into, 0, 5)?.start().wait()).map(drop)
        },
    ];
    for receive in by {
        mismatch(|world| if world.rank() == 0 { send(world) } else { receive(world) });
    }
}

#[test]
fn while_types_are_checked_too_much_is_named_and_what_fits_is_received() {
    let said = mismatch(|world| match world.rank() {
        0 => world.send(&[1u32, 2, 3], 1, 5),
        _ => {
            let mut into = [0u32; 2];
            let outcome = world.recv(&mut into, 0, 5).map(drop);
            assert_eq!(into, [1, 2]);
            outcome
        }
    });
    assert!(
        said.starts_with(
            "rank 0 sent 3 x u32 with tag 5, and rank 1 receives 2 x u32: make the receive longer"
        ),
        "{said}"
    );
}

#[test]
fn while_types_are_checked_what_fits_arrives_as_it_does_otherwise() {
    let odd = selvedge::Layout::vector(20_000, 1, 2);
    selvedge::local::run_checked(2, |world| {
        let (me, other) = (world.rank() as f64, 1 - world.rank());
        let mut grid = vec![me; 40_000];
        world.sendrecv_replace(&mut odd.of_mut(&mut grid).unwrap(), other, 0, other, 0).unwrap();
        assert!(grid.chunks(2).all(|pair| pair == [other as f64, me]));
        let mut pairs = [[0.0f64; 2]; 4];
        let mut buffer = world.send_buffer(1 << 12);
        buffer.bsend(&[me; 6], other, 1).unwrap();
        assert_eq!(world.probe(other, 1).unwrap().count::<f64>(), 6);
        let status = world.recv(&mut pairs, other, 1).unwrap();
        assert_eq!(
            (status.count::<[f64; 2]>(), pairs),
            (3, [[other as f64; 2], [other as f64; 2], [other as f64; 2], [0.0; 2]])
        );
        world.scope(|scope| scope.isend_value("word", other, 2).map(drop)).unwrap();
        assert_eq!(world.recv_value::<String>(other, 2).unwrap().0, "word");
        world.send(&[true, false], other, 3).unwrap();
        let mut bytes = [0u8; 2];
        world.recv(selvedge::Plain::slice_mut(&mut bytes), other, 3).unwrap();
        assert_eq!(bytes, [1, 0], "bytes of Plain match any type");
        let cancelled = world.scope(|scope| scope.irecv(&mut grid, other, 9).unwrap().cancel());
        assert!(cancelled.unwrap() && grid[1] == me);
        buffer.flush().unwrap();
    });
}
