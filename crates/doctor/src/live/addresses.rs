//! The addresses of all interfaces, asked of the kernel by netlink (rtnetlink(7)): no file tells which interface has which.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

/// Message types (linux/rtnetlink.h, linux/netlink.h).
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

/// A request that asks for all (`NLM_F_REQUEST | NLM_F_DUMP`).
const REQUEST_ALL: u16 = 0x001 | 0x300;

/// Attributes of an address (linux/if_addr.h).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Bytes of the headers: of a message, of an address in it, of an attribute.
const MESSAGE_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ATTRIBUTE_HEADER: usize = 4;

/// Everything the kernel sends at once fits (`NLMSG_GOODSIZE` and the larger dumps of newer kernels).
const ANSWER_BYTES: usize = 64 << 10;

/// Answers that are read at most: a kernel that never says "done" does not hold us.
const ANSWERS_MAX: usize = 256;

/// Index of the interface and address, for all addresses of this network namespace; none when the kernel does not tell.
pub(crate) fn addresses() -> Vec<(u32, IpAddr)> {
    ask().unwrap_or_default()
}

fn ask() -> rustix::io::Result<Vec<(u32, IpAddr)>> {
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(std::time::Duration::from_secs(1)),
    )?;
    rustix::net::send(&socket, &request(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; ANSWER_BYTES];
    for _ in 0..ANSWERS_MAX {
        let (bytes, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if read_answer(&buffer[..bytes], &mut found) {
            break;
        }
    }
    Ok(found)
}

/// "All addresses of all families": a message header and an address header of zeros.
fn request() -> Vec<u8> {
    let length = (MESSAGE_HEADER + ADDRESS_HEADER) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(RTM_GETADDR.to_ne_bytes());
    bytes.extend(REQUEST_ALL.to_ne_bytes());
    bytes.resize(length as usize, 0);
    bytes
}

/// Takes the addresses out of one answer. Whether it was the last.
fn read_answer(mut bytes: &[u8], found: &mut Vec<(u32, IpAddr)>) -> bool {
    while let Some((kind, payload, rest)) = next_part(bytes, MESSAGE_HEADER, 4) {
        match kind {
            NLMSG_DONE => return true,
            RTM_NEWADDR => found.extend(read_address(payload)),
            _ => {}
        }
        bytes = rest;
    }
    // What is no message is no reason to wait for another one.
    !bytes.is_empty()
}

fn read_address(payload: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32::from_ne_bytes(payload.get(4..ADDRESS_HEADER)?.try_into().ok()?);
    let mut bytes = &payload[ADDRESS_HEADER..];
    let (mut local, mut any) = (None, None);
    while let Some((kind, value, rest)) = next_part(bytes, ATTRIBUTE_HEADER, 2) {
        match kind {
            // On a line between two hosts IFA_ADDRESS is the other one.
            IFA_LOCAL => local = parse(value),
            IFA_ADDRESS => any = parse(value),
            _ => {}
        }
        bytes = rest;
    }
    Some((index, local.or(any)?))
}

fn parse(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(value).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// The first part of a row of messages (length in 4 bytes) or attributes (length in 2): its type, what is in it, and the
/// parts behind it, which begin at a multiple of 4.
fn next_part(bytes: &[u8], header: usize, length_bytes: usize) -> Option<(u16, &[u8], &[u8])> {
    let number = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = match length_bytes {
        2 => usize::from(number(0)?),
        _ => u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize,
    };
    let kind = number(length_bytes)?;
    let payload = bytes.get(header..length)?;
    Some((kind, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_the_loopback_address() {
        assert!(addresses().iter().any(|(_, address)| *address == IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn of_a_line_between_two_hosts_the_near_end_is_taken() {
        let attribute =
            |kind: u16, value: [u8; 4]| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value].concat();
        let header = [&[2, 32, 0, 0][..], &7_u32.to_ne_bytes()].concat();
        let payload =
            [header, attribute(IFA_ADDRESS, [10, 0, 0, 2]), attribute(IFA_LOCAL, [10, 0, 0, 1])].concat();
        assert_eq!(read_address(&payload), Some((7, IpAddr::from([10, 0, 0, 1]))));
    }

    #[test]
    fn no_answer_however_damaged_makes_it_read_past_the_end() {
        let mut found = Vec::new();
        for length in 0..=255_u32 {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(RTM_NEWADDR.to_ne_bytes());
            bytes.resize(40, length as u8);
            read_answer(&bytes, &mut found);
            for cut in 0..bytes.len() {
                read_answer(&bytes[..cut], &mut found);
            }
        }
    }
}
