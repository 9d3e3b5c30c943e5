// Found while borrows are looked at: buffers that operations have, and requests that are over.
use selvedge::{Communicator, Op, World};

fn read_while_a_receive_is_under_way(world: &Communicator) {
    let mut into = [0u8; 4];
    world.scope(|scope| {
        let request = scope.irecv(&mut into, 0, 0).unwrap();
        println!("{}", into[0]); //~ E0502
        request.wait().unwrap();
    });
}

fn read_after_the_wait_but_inside_the_scope(world: &Communicator) {
    let mut into = [0u8; 4];
    world.scope(|scope| {
        scope.irecv(&mut into, 0, 0).unwrap().wait().unwrap();
        println!("{}", into[0]); //~ E0502
    });
}

fn written_while_a_send_is_under_way(world: &Communicator) {
    let mut from = [0u8; 4];
    world.scope(|scope| {
        let request = scope.isend(&from, 0, 0).unwrap();
        from[0] = 1; //~ E0506
        request.wait().unwrap();
    });
}

fn two_receives_into_one_buffer(world: &Communicator) {
    let mut into = [0u8; 4];
    world.scope(|scope| {
        let first = scope.irecv(&mut into, 0, 0).unwrap();
        let second = scope.irecv(&mut into, 0, 1).unwrap(); //~ E0499
        selvedge::wait_all([first, second]).unwrap();
    });
}

fn a_send_of_what_is_being_received(world: &Communicator) {
    let mut buffer = [0u8; 4];
    world.scope(|scope| {
        let first = scope.irecv(&mut buffer, 0, 0).unwrap();
        let second = scope.isend(&buffer, 0, 0).unwrap(); //~ E0502
        selvedge::wait_all([first, second]).unwrap();
    });
}

fn parts_that_overlap(world: &Communicator) {
    let mut buffer = [0u8; 8];
    world.scope(|scope| {
        let first = scope.irecv(&mut buffer[..5], 0, 0).unwrap();
        let second = scope.irecv(&mut buffer[4..], 0, 0).unwrap(); //~ E0499
        selvedge::wait_all([first, second]).unwrap();
    });
}

fn one_buffer_for_both_sides_of_a_reduction(world: &Communicator) {
    let mut both = [1u64];
    let _ = world.allreduce(&both, &mut both, &Op::sum()); //~ E0502
}

fn the_same_without_waiting(world: &Communicator) {
    let mut both = [1u64];
    world.scope(|scope| {
        let _ = scope.iallreduce(&both, &mut both, &Op::sum()); //~ E0502
    });
}

fn a_buffer_that_ends_before_the_scope(world: &Communicator) {
    world.scope(|scope| {
        let mut into = [0u8; 4];
        drop(scope.irecv(&mut into, 0, 0)); //~ E0597
    });
}

fn a_buffer_that_is_nobodys(world: &Communicator) {
    world.scope(|scope| {
        drop(scope.irecv(&mut vec![0u8; 4], 0, 0)); //~ E0716
    });
}

fn a_request_that_outlives_its_scope(world: &Communicator) {
    let request = world.scope(|scope| scope.ibarrier().unwrap()); //~ lifetime
    request.wait().unwrap();
}

fn a_request_that_is_kept_outside_of_its_scope(world: &Communicator) {
    let mut kept = Vec::new();
    world.scope(|scope| kept.push(scope.ibarrier().unwrap())); //~ E0521
    selvedge::wait_all(kept).unwrap();
}

fn a_scope_that_is_kept(world: &Communicator) {
    let mut kept = None;
    world.scope(|scope| kept = Some(scope)); //~ E0521
    kept.unwrap().ibarrier().unwrap();
}

fn a_buffer_that_is_dropped_meanwhile(world: &Communicator) {
    let from = vec![0u8; 4];
    world.scope(|scope| {
        let request = scope.isend(&from, 0, 0).unwrap(); //~ E0597
        drop(from); //~ E0505
        request.wait().unwrap();
    });
}

fn a_buffer_that_grows_meanwhile(world: &Communicator) {
    let mut from = vec![0u8; 4];
    world.scope(|scope| {
        let request = scope.isend(&from, 0, 0).unwrap();
        from.push(1); //~ E0502
        request.wait().unwrap();
    });
}

fn a_request_that_is_waited_for_twice(world: &Communicator) {
    world.scope(|scope| {
        let request = scope.ibarrier().unwrap();
        request.wait().unwrap();
        request.wait().unwrap(); //~ E0382
    });
}

fn a_request_that_was_cancelled(world: &Communicator) {
    let mut into = [0u8; 4];
    world.scope(|scope| {
        let mut request = scope.irecv(&mut into, 0, 0).unwrap();
        request.cancel().unwrap();
        request.test().unwrap(); //~ E0382
    });
}

fn a_communicator_that_is_dropped_with_requests_open(world: World) {
    let dup = world.dup().unwrap();
    let request = dup.isend_owned(vec![1u8], 0, 0);
    drop(dup); //~ E0505
    request.wait().0.unwrap();
}

fn a_world_that_is_over(world: World) {
    drop(world);
    world.barrier().unwrap(); //~ E0382
}

fn a_buffer_that_was_given_away(world: &Communicator) {
    let buffer = vec![0u8; 4];
    let request = world.irecv_owned(buffer, 0, 0);
    println!("{}", buffer[0]); //~ E0382
    request.wait().0.unwrap();
}

fn an_owned_request_that_is_waited_for_twice(world: &Communicator) {
    let request = world.irecv_owned(vec![0u8; 4], 0, 0);
    request.wait().0.unwrap();
    request.wait().0.unwrap(); //~ E0382
}

fn a_persistent_buffer_that_is_read_during_a_round(world: &Communicator) {
    let mut into = [0u8; 4];
    world.scope(|scope| {
        let mut receive = scope.recv_init(&mut into, 0, 0).unwrap();
        let round = receive.start();
        println!("{}", receive.buffer()[0]); //~ E0502
        round.wait().unwrap();
    });
}

fn a_persistent_buffer_that_is_written_during_a_round(world: &Communicator) {
    let mut from = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.send_init(&mut from, 0, 0).unwrap();
        let round = send.start();
        send.buffer_mut()[0] = 1; //~ E0499
        round.wait().unwrap();
    });
}

fn two_rounds_at_once(world: &Communicator) {
    let mut from = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.send_init(&mut from, 0, 0).unwrap();
        let first = send.start();
        let second = send.start(); //~ E0499
        selvedge::wait_all([first, second]).unwrap();
    });
}

fn a_view_of_a_persistent_buffer_kept_into_the_next_round(world: &Communicator) {
    let mut into = [0u8; 4];
    world.scope(|scope| {
        let mut receive = scope.recv_init(&mut into, 0, 0).unwrap();
        receive.start().wait().unwrap();
        let seen = receive.buffer();
        receive.start().wait().unwrap(); //~ E0502
        println!("{}", seen[0]);
    });
}

fn the_output_of_a_persistent_collective_during_a_round(world: &Communicator) {
    let (mut mine, mut sum) = ([1u64], [0]);
    world.scope(|scope| {
        let mut total = scope.allreduce_init(&mut mine, &mut sum, &Op::sum()).unwrap();
        let round = total.start();
        println!("{}", total.output()[0]); //~ E0502
        round.wait().unwrap();
    });
}

fn a_matched_message_that_is_received_twice(world: &Communicator) {
    let message = world.mprobe(0, 7).unwrap();
    message.recv(&mut [0u8; 4]).unwrap();
    message.recv(&mut [0u8; 4]).unwrap(); //~ E0382
}

fn a_send_buffer_that_outlives_its_communicator(world: &Communicator) {
    let dup = world.dup().unwrap();
    let buffer = dup.send_buffer(100);
    drop(dup); //~ E0505
    drop(buffer);
}

fn a_partition_that_is_written_after_it_was_marked(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        let (mut partitions, _sent) = send.start();
        let mut first = partitions.next().unwrap();
        first.ready();
        first[0] = 1; //~ E0382
    });
}

fn a_partition_that_is_marked_twice(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        let (mut partitions, _sent) = send.start();
        let first = partitions.next().unwrap();
        first.ready();
        first.ready(); //~ E0382
    });
}

fn partitions_that_are_marked_one_by_one_and_all(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        let (partitions, _sent) = send.start();
        selvedge::ready_all(partitions);
        partitions.for_each(|partition| partition.ready()); //~ E0382
    });
}

fn two_partitioned_rounds_at_once(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        let (first, _) = send.start();
        let (_second, _) = send.start(); //~ E0499
        selvedge::ready_all(first);
    });
}

fn a_partitioned_message_that_is_read_during_a_round(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        let (partitions, sent) = send.start();
        println!("{}", send.buffer()[0]); //~ E0499
        selvedge::ready_all(partitions);
        sent.wait().unwrap();
    });
}

fn a_partition_that_is_kept_into_the_next_round(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut receive = scope.precv_init(&mut data, 2, 0, 0).unwrap();
        let (view, received) = receive.start();
        let seen = view.wait(0).unwrap();
        received.wait().unwrap();
        let (_view, _received) = receive.start(); //~ E0499
        println!("{}", seen[0]);
    });
}

fn a_partitioned_message_that_is_used_in_its_scope(world: &Communicator) {
    let mut data = [0u8; 4];
    world.scope(|scope| {
        let mut send = scope.psend_init(&mut data, 2, 0, 0).unwrap();
        data[0] = 1; //~ E0506
        selvedge::ready_all(send.start().0);
    });
}
