//! Two endpoints of one process, over tcp on the loop of this host.

use std::time::{Duration, Instant};

use super::*;
use crate::info::{Abilities, Hints};
use crate::load::Library;
use crate::rail::fabric::{Access, Fabric, MemoryRegion};

const SIZES: Sizes = Sizes { operations: 8, completions: 64, peers: 4 };

/// The libfabric of the test run: that of the distribution, or the one that `SELVEDGE_LIBFABRIC` names.
fn library() -> Library {
    let given = std::env::var_os("SELVEDGE_LIBFABRIC").map(std::path::PathBuf::from);
    Library::open(given.as_deref()).unwrap_or_else(|error| panic!("install libfabric1: {error}"))
}

fn tcp_on_loopback() -> Info {
    let library = library();
    let provider = if library.version() >= (2, 0) { "tcp" } else { "tcp;ofi_rxm" };
    let hints = Hints {
        provider,
        source: Some("127.0.0.1"),
        caps: sys::FI_MSG | sys::FI_RMA,
        mode: sys::FI_CONTEXT | sys::FI_CONTEXT2,
        mr_mode: sys::FI_MR_LOCAL | sys::FI_MR_VIRT_ADDR | sys::FI_MR_ALLOCATED | sys::FI_MR_PROV_KEY,
        ..Hints::default()
    };
    let infos = Info::query(&library, &hints).expect("tcp is in every libfabric of a distribution");
    infos.into_iter().next().expect("an offer")
}

fn leaked(byte: u8, len: usize) -> Buf {
    Buf::leaked(vec![byte; len].leak())
}

fn open_pair(info: &Info) -> [Endpoint; 2] {
    let fabric = Fabric::open(info).unwrap();
    let [one, two] = [0, 1].map(|_| {
        let domain = Domain::open(&fabric, info).unwrap();
        Endpoint::open(&domain, info, SIZES, true).unwrap().enable().unwrap()
    });
    [one, two]
}

/// Polls both until one of them has completed something.
fn next(endpoints: &mut [Endpoint; 2]) -> (usize, Completion) {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            match endpoint.poll() {
                Polled::Nothing => {}
                Polled::Done(completion) => return (index, completion),
                other => panic!("endpoint {index}: {other:?}"),
            }
        }
    }
    panic!("nothing completes");
}

/// Repeats a call that is told to come later.
fn insist(endpoints: &mut [Endpoint; 2], mut call: impl FnMut(&mut Endpoint) -> Result<(), Code>) {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(code) = call(&mut endpoints[0]) {
        assert!(code == Code::AGAIN && Instant::now() < until, "{code:?}");
        for endpoint in endpoints.iter_mut() {
            assert!(matches!(endpoint.poll(), Polled::Nothing));
        }
    }
}

fn register(endpoint: &Endpoint, buf: Buf, access: Access, key: u64) -> MemoryRegion {
    endpoint.domain().register(buf, access, key).unwrap()
}

#[test]
fn a_packet_arrives_with_the_number_that_was_sent_beside_it_over_tcp() {
    let mut pair = open_pair(&tcp_on_loopback());
    let address = pair[1].address().unwrap();
    let to = pair[0].addresses().insert(&address).unwrap();
    let (packet, room) = (leaked(7, 300), leaked(0, 512));
    let memory = register(&pair[0], packet, Access::PACKETS, 1);
    let memory_there = register(&pair[1], room, Access::PACKETS, 1);
    pair[1].receive(room, memory_there.descriptor(), 5).unwrap();
    insist(&mut pair, |endpoint| endpoint.send(to, packet, memory.descriptor(), 0xABCD_1234, 3));
    for _ in 0..2 {
        let (who, completion) = next(&mut pair);
        match who {
            0 => assert_eq!(completion.operation, Some(3)),
            _ => {
                assert_eq!((completion.operation, completion.bytes), (Some(5), 300));
                assert_eq!(completion.data, 0xABCD_1234);
            }
        }
    }
    let mut seen = vec![0; 512];
    room.copy_to(&mut seen);
    assert_eq!((&seen[..300], &seen[300..]), (&[7; 300][..], &[0; 212][..]));
}

#[test]
fn memory_of_a_peer_is_read_and_written_over_tcp() {
    let info = tcp_on_loopback();
    let Abilities { memory_by_address, .. } = info.abilities();
    let mut pair = open_pair(&info);
    let address = pair[1].address().unwrap();
    let peer = pair[0].addresses().insert(&address).unwrap();
    let (here, there) = (leaked(1, 4096), leaked(2, 4096));
    let local = register(&pair[0], here, Access::READ_INTO.and(Access::WRITE_FROM), 9);
    let remote = register(&pair[1], there, Access::REMOTE_READ.and(Access::REMOTE_WRITE), 17);
    let base = if memory_by_address { there.as_ptr() as u64 } else { 0 };
    let key = remote.key().unwrap();
    let (front, back) = (here.slice(0..1024), here.slice(1024..2048));
    insist(&mut pair, |e| e.read(peer, (base, key), front, local.descriptor(), 0));
    assert_eq!(next(&mut pair).1.operation, Some(0));
    insist(&mut pair, |e| e.write(peer, (base + 2048, key), back, local.descriptor(), 1));
    assert_eq!(next(&mut pair).1.operation, Some(1));
    let mut seen = vec![0; 4096];
    here.copy_to(&mut seen);
    assert_eq!((seen[1023], seen[1024]), (2, 1));
    there.copy_to(&mut seen);
    assert_eq!((seen[2047], seen[2048], seen[3071], seen[3072]), (2, 1, 1, 2));
}

#[test]
fn an_endpoint_that_is_not_enabled_sends_nothing_and_says_so() {
    let info = tcp_on_loopback();
    let fabric = Fabric::open(&info).unwrap();
    let domain = Domain::open(&fabric, &info).unwrap();
    let mut endpoint = Endpoint::open(&domain, &info, SIZES, false).unwrap();
    assert_eq!(endpoint.receive(leaked(0, 8), Descriptor::NONE, 0), Err(Code::NOT_ENABLED));
    assert_eq!(endpoint.contexts.in_flight(), 0, "what was refused is not in flight");
}

#[test]
fn an_address_of_another_length_is_refused() {
    let mut pair = open_pair(&tcp_on_loopback());
    let error = pair[0].addresses().insert(&[1, 2, 3]).unwrap_err();
    assert_eq!((error.call, error.code), ("fi_av_insert", libc::EINVAL));
}

#[test]
fn handles_dropped_in_the_wrong_order_are_closed_in_the_right_one() {
    let info = tcp_on_loopback();
    let fabric = Fabric::open(&info).unwrap();
    let domain = Domain::open(&fabric, &info).unwrap();
    let endpoint = Endpoint::open(&domain, &info, SIZES, false).unwrap();
    let region = register(&endpoint, leaked(0, 64), Access::PACKETS, 3);
    drop(info);
    drop(fabric);
    drop(domain);
    drop(endpoint);
    drop(region);
}
