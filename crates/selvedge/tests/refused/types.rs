// Found while types are looked at: what is no element of a message, and what may not cross threads.
use std::cell::Cell;
use std::rc::Rc;
use std::thread;

use selvedge::{Communicator, Op, Request, Scope, Team, World};

struct Plain(u32);

#[derive(Clone, Copy)]
#[repr(C)]
struct NotDerived {
    x: u32,
}

fn a_type_that_is_not_declared(world: &Communicator) {
    let _ = world.send(&[Plain(1)], 0, 0); //~ E0277
    let _ = world.send(&[NotDerived { x: 1 }], 0, 0); //~ E0277
}

fn pointers_mean_nothing_elsewhere(world: &Communicator) {
    let value = 1;
    let _ = world.send(&[&value], 0, 0); //~ E0277
    let _ = world.send(&["text"], 0, 0); //~ E0277
    let _ = world.send(&[String::new()], 0, 0); //~ E0277
    let _ = world.send(&[vec![1u8]], 0, 0); //~ E0277
    let _ = world.send(&[Box::new(1)], 0, 0); //~ E0277
    let _ = world.send(&[std::ptr::null::<u8>()], 0, 0); //~ E0277
    let _ = world.send(&[a_type_that_is_not_declared as fn(&Communicator)], 0, 0); //~ E0277
}

fn what_has_no_fixed_bytes(world: &Communicator) {
    let _ = world.send(&[Some(1u32)], 0, 0); //~ E0277
    let _ = world.send(&[(1u8, 2u32)], 0, 0); //~ E0277
    let _ = world.send(&[Cell::new(1)], 0, 0); //~ E0277
    let mut into = [std::ops::Range { start: 1, end: 2 }];
    let _ = world.recv(&mut into, 0, 0); //~ E0277
}

fn a_receive_needs_a_buffer_that_can_be_written(world: &Communicator) {
    let into = [0u8; 4];
    let _ = world.recv(&into, 0, 0); //~ E0308
}

fn a_broadcast_needs_one_too(world: &Communicator) {
    let _ = world.broadcast(&[0u8; 4], 0); //~ E0308
}

fn both_sides_of_a_sum_have_one_type(world: &Communicator) {
    let mut sum = [0u32];
    let _ = world.allreduce(&[1u64], &mut sum, &Op::sum()); //~ E0308
}

fn what_cannot_be_added_has_no_sum(world: &Communicator) {
    let mut all = [false];
    let _ = world.allreduce(&[true], &mut all, &Op::sum()); //~ E0277
}

fn floats_have_no_bitwise_operation() {
    let _ = Op::<f64>::band(); //~ E0599
}

fn a_communicator_stays_with_its_thread(world: World) {
    thread::spawn(move || world.barrier()); //~ E0277
}

fn not_even_by_reference(world: &Communicator) {
    thread::scope(|threads| drop(threads.spawn(|| world.barrier()))); //~ E0277
}

fn nor_one_that_was_made_of_a_team(team: Team) {
    let mine = team.communicator();
    thread::spawn(move || mine.barrier()); //~ E0277
}

fn a_request_stays_too(request: Request<'static>) {
    thread::spawn(move || request.wait()); //~ E0277
}

fn and_a_scope<'scope, 'env>(scope: &'scope Scope<'scope, 'env>) {
    thread::scope(|threads| drop(threads.spawn(|| drop(scope.ibarrier())))); //~ E0277
}

fn and_a_request_that_owns_its_buffer(world: &Communicator) {
    let request = world.isend_owned(vec![1u8], 0, 0);
    thread::scope(|threads| drop(threads.spawn(move || drop(request)))); //~ E0277
}

fn and_a_message_that_was_matched(world: &Communicator) {
    let message = world.mprobe(0, 0).unwrap();
    thread::scope(|threads| drop(threads.spawn(move || message.recv(&mut [0u8])))); //~ E0277
}

fn and_what_waits_in_a_buffer(world: &Communicator) {
    let buffer = world.send_buffer(100);
    thread::scope(|threads| drop(threads.spawn(move || drop(buffer)))); //~ E0277
}

fn an_operation_runs_on_any_thread() {
    let calls = Rc::new(Cell::new(0));
    let _ = Op::commutative(move |_: &[u8], _: &mut [u8]| calls.set(calls.get() + 1)); //~ E0277
}

fn and_on_several_at_once() {
    let calls = Cell::new(0);
    let _ = Op::commutative(move |_: &[u8], _: &mut [u8]| calls.set(calls.get() + 1)); //~ E0277
}

fn what_is_not_encoded_is_no_value(world: &Communicator) {
    let _ = world.send_value(&Plain(1), 0, 0); //~ E0277
}

fn a_buffer_that_is_lent_is_not_owned(world: &Communicator) {
    let mut buffer = [0u8; 4];
    let _ = world.irecv_owned(&mut buffer[..], 0, 0); //~ E0277
}

fn an_array_of_bytes_is_not_a_bool_that_came_from_somewhere(world: &Communicator) {
    let mut bytes = [0u8; 4];
    let flags: &mut [bool] = &mut bytes; //~ E0308
    let _ = world.recv(flags, 0, 0);
}

fn and_the_sending_end_of_a_partitioned_message(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        thread::scope(|threads| drop(threads.spawn(|| drop(send.start())))); //~ E0277
    });
}

fn nor_the_request_of_its_round(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        let (_partitions, sent) = send.start();
        thread::scope(|threads| drop(threads.spawn(move || drop(sent.wait())))); //~ E0277
    });
}

fn what_is_no_datatype_is_not_partitioned(world: &Communicator) {
    let mut data = [String::new()];
    world.scope(|scope| drop(scope.psend_init(&mut data, 1, 0, 0))); //~ E0277
}
