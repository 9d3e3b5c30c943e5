//! Messages from and to several places of a buffer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use selvedge::{Error, Layout, Misuse, Parts, World, local};

/// Short ones leave in a packet, long ones are announced.
const HEIGHTS: [usize; 4] = [1, 7, 300, 40_000];

#[selvedge::test(ranks = [2])]
fn a_column_is_sent_and_lands_in_another_layout_of_as_many_elements(world: World) {
    for height in HEIGHTS {
        let column = Layout::vector(height, 1, 5);
        let pairs = Layout::vector(height.div_ceil(2), 2, 3);
        let mut grid: Vec<u64> = (0..5 * height as u64).collect();
        if world.rank() == 0 {
            world.send(&column.of(&grid).unwrap(), 1, 0).unwrap();
            world.recv(&mut column.of_mut(&mut grid).unwrap(), 1, 1).unwrap();
            assert!(
                grid.iter()
                    .enumerate()
                    .all(|(at, &it)| it == if at % 5 == 0 { at as u64 + 7 } else { at as u64 })
            );
        } else {
            let mut into = vec![u64::MAX; 3 * height + 2];
            let status = world.recv(&mut pairs.of_mut(&mut into).unwrap(), 0, 0).unwrap();
            assert_eq!(status.count::<u64>(), height);
            let arrived = &pairs.pack(&into).unwrap()[..height];
            assert!(arrived.iter().enumerate().all(|(at, &it)| it == 5 * at as u64));
            assert!(into.chunks_exact(3).all(|row| row[2] == u64::MAX), "gaps stay as they are");
            into.iter_mut().for_each(|element| *element = element.wrapping_add(7));
            world.ssend(&Layout::indexed(&spread(&pairs, height)).of(&into).unwrap(), 0, 1).unwrap();
        }
    }
}

/// The first elements of pairs, one by one.
fn spread(pairs: &Layout, count: usize) -> Vec<(usize, usize)> {
    let places: Vec<usize> = (0..pairs.extent()).collect();
    pairs.pack(&places).expect("it is inside")[..count].iter().map(|&place| (place, 1)).collect()
}

#[selvedge::test(ranks = [2, 3])]
fn neighbours_swap_the_rims_of_their_grids_at_the_same_time(world: World) {
    let (me, size) = (world.rank(), world.size());
    let (left, right) = ((me + size - 1) % size, (me + 1) % size);
    for rows in [3, 5_000] {
        let column = |index| Layout::subarray(&[rows, 6], &[rows, 1], &[0, index]).unwrap();
        let mut grid = vec![me as u32; 6 * rows];
        let mut parts = Parts::of(&mut grid);
        let (mine, mine_too) = (parts.lend(&column(1)).unwrap(), parts.lend(&column(4)).unwrap());
        let (mut from_left, mut from_right) =
            (parts.lend_mut(&column(0)).unwrap(), parts.lend_mut(&column(5)).unwrap());
        world.scope(|scope| {
            let requests = [
                scope.irecv(&mut from_left, left, 0).unwrap(),
                scope.irecv(&mut from_right, right, 1).unwrap(),
                scope.isend(&mine, left, 1).unwrap(),
                scope.isend(&mine_too, right, 0).unwrap(),
            ];
            selvedge::wait_all(requests).unwrap();
        });
        for row in grid.chunks(6) {
            assert_eq!(row, [left, me, me, me, me, right].map(|rank| rank as u32));
        }
    }
}

#[selvedge::test(ranks = [1, 2, 3, 5])]
fn a_broadcast_fills_a_part_of_a_grid(world: World) {
    for (rows, root) in [(1, 0), (4, world.size() - 1), (3_000, 0)] {
        let part = Layout::subarray(&[rows, 7], &[rows, 3], &[0, 2]).unwrap();
        let mut grid = vec![world.rank() as i32; 7 * rows];
        world.broadcast(&mut part.of_mut(&mut grid).unwrap(), root).unwrap();
        let mut view = part.of_mut(&mut grid).unwrap();
        world.scope(|scope| scope.ibroadcast(&mut view, root).unwrap().wait()).unwrap();
        let (me, root) = (world.rank() as i32, root as i32);
        assert!(grid.chunks(7).all(|row| row == [me, me, root, root, root, me, me]));
    }
}

#[selvedge::test(ranks = [2])]
fn what_does_not_fit_a_layout_is_truncated_and_what_is_short_leaves_the_rest(world: World) {
    let odd = Layout::vector(3, 1, 2);
    let mut into = [9u8; 6];
    match world.rank() {
        0 => {
            world.send(&[1u8, 2, 3, 4], 1, 0).unwrap();
            world.send(&[5u8], 1, 0).unwrap();
        }
        _ => {
            let error = world.recv(&mut odd.of_mut(&mut into).unwrap(), 0, 0).unwrap_err();
            assert!(matches!(error, Error::Truncated { sent: 4, capacity: 3, .. }), "{error}");
            assert_eq!(into, [1, 9, 2, 9, 3, 9]);
            let status = world.recv(&mut odd.of_mut(&mut into).unwrap(), 0, 0).unwrap();
            assert_eq!((status.bytes, into), (1, [5, 9, 2, 9, 3, 9]));
        }
    }
}

#[selvedge::test(ranks = [2])]
fn bytes_that_are_no_values_do_not_reach_a_layout(world: World) {
    let odd = Layout::vector(3, 1, 2);
    if world.rank() == 0 {
        return world.send(&[1u8, 7, 0], 1, 0).unwrap();
    }
    let mut into = [true, false, false, false, true, false];
    let error = world.recv(&mut odd.of_mut(&mut into).unwrap(), 0, 0).unwrap_err();
    assert!(
        matches!(error, Error::Misuse(Misuse::InvalidElement { index: 1, source_rank: Some(0), .. })),
        "{error}"
    );
    assert!(into == [true, false, true, false, false, false]);
}

#[selvedge::test(ranks = [2])]
fn probed_messages_replaced_ones_and_buffered_ones_take_layouts(world: World) {
    let (me, other) = (world.rank(), 1 - world.rank());
    let odd = Layout::vector(200, 1, 2);
    let mut grid = vec![me; 400];
    let mut buffer = world.send_buffer(1 << 12);
    buffer.bsend(&odd.of(&grid).unwrap(), other, 0).unwrap();
    world.mprobe(other, 0).unwrap().recv(&mut odd.of_mut(&mut grid).unwrap()).unwrap();
    assert!(grid.chunks(2).all(|pair| pair == [other, me]));
    world.sendrecv_replace(&mut odd.of_mut(&mut grid).unwrap(), other, 1, other, 1).unwrap();
    assert_eq!(grid, vec![me; 400]);
    buffer.flush().unwrap();
}

#[test]
fn parts_that_overlap_are_refused_where_one_is_received() {
    let overlap = |error: Error| matches!(error, Error::Misuse(Misuse::Overlap { index: 2 }));
    let mut buffer = [0u8; 4];
    let twice = Layout::indexed(&[(2, 1), (0, 1), (2, 1)]);
    assert!(overlap(twice.of_mut(&mut buffer).unwrap_err()));
    assert_eq!(twice.of(&buffer).unwrap().len(), 3, "what is sent may name an element twice");
    let mut parts = Parts::of(&mut buffer);
    let (even, behind) = (Layout::vector(2, 1, 2), Layout::indexed(&[(2, 2)]));
    let _sent = (parts.lend(&even).unwrap(), parts.lend(&behind).unwrap());
    assert!(overlap(parts.lend_mut(&behind).unwrap_err()));
    assert!(parts.lend_mut(&Layout::indexed(&[(1, 1)])).is_ok());
    assert!(matches!(parts.lend(&Layout::contiguous(5)), Err(Error::Misuse(Misuse::Length { .. }))));
}

#[test]
fn neighbours_are_sent_from_where_they_are() {
    let buffer = [1u16, 2, 3, 4];
    let inner = Layout::indexed(&[(1, 1), (2, 1)]).of(&buffer).unwrap();
    assert!(std::ptr::eq(inner.as_slice().unwrap(), &buffer[1..3]));
    assert_eq!(Layout::vector(3, 1, 2).of(&[(); 5]).unwrap().as_slice().unwrap().len(), 3);
    local::run(2, |world| {
        let mut into = [0u16; 2];
        world.sendrecv(&inner_of(&buffer), 1 - world.rank(), 0, &mut into, 1 - world.rank(), 0).unwrap();
        assert_eq!(into, [2, 3]);
    });
}

fn inner_of(buffer: &[u16]) -> selvedge::View<'_, u16> {
    Layout::indexed(&[(1, 2)]).of(buffer).expect("it is inside")
}
