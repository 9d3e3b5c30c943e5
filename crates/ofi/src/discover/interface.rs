//! Which interface tcp goes by. A host has many, and the first in a list is as often as not a bridge of docker that leads
//! nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// An interface that a provider offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Its name.
    pub(crate) interface: String,
    /// One of its addresses.
    pub(crate) address: Option<IpAddr>,
}

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The interface with this address.
    Address(IpAddr),
    /// The interface of this name.
    Name(String),
}

impl Wanted {
    /// What the user's word means.
    pub(crate) fn of(word: &str) -> Wanted {
        word.parse().map_or_else(|_| Wanted::Name(word.to_owned()), Wanted::Address)
    }
}

/// Which of the offers to take, as an index. Their order does not count.
///
/// Without a wish: the one with the address that packets to far places would have (`route`); where there is no
/// such route, one that looks like a cable, IPv4 first, by name; else the host's own loop.
///
/// # Errors
/// What there is instead of what is wanted, in a sentence.
pub(crate) fn choose(
    offers: &[Offer],
    wanted: Option<&Wanted>,
    route: Option<IpAddr>,
) -> Result<usize, String> {
    let best = |fits: &dyn Fn(&Offer) -> bool| {
        let fitting = offers.iter().enumerate().filter(|(_, offer)| fits(offer));
        fitting.min_by_key(|(_, offer)| rank(offer)).map(|(index, _)| index)
    };
    let found = match wanted {
        Some(Wanted::Address(address)) => best(&|offer| offer.address == Some(*address)),
        Some(Wanted::Name(name)) => best(&|offer| offer.interface == *name),
        None => {
            route.and_then(|route| best(&|offer| offer.address == Some(route))).or_else(|| best(&|_| true))
        }
    };
    found.ok_or_else(|| nothing(offers, wanted))
}

fn nothing(offers: &[Offer], wanted: Option<&Wanted>) -> String {
    let mut there: Vec<&str> = offers.iter().map(|offer| offer.interface.as_str()).collect();
    there.sort_unstable();
    there.dedup();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    match wanted {
        Some(Wanted::Address(address)) => {
            format!("no interface has the address {address}; there are: {there}")
        }
        Some(Wanted::Name(name)) => format!("no interface is called {name}; there are: {there}"),
        None => "no interface has an address".to_owned(),
    }
}

/// How good an offer is without further knowledge, the best first.
fn rank(offer: &Offer) -> (u8, bool, &str, Option<IpAddr>) {
    let class = match offer.address {
        None => 4,
        Some(address) if address.is_loopback() => 2,
        Some(address) if is_link_local(address) => 3,
        Some(_) if is_made_of_software(&offer.interface) => 1,
        Some(_) => 0,
    };
    let is_ipv6 = offer.address.is_some_and(|address| address.is_ipv6());
    (class, is_ipv6, &offer.interface, offer.address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether the name is one that bridges, tunnels and containers give to interfaces that do not lead to other hosts.
fn is_made_of_software(interface: &str) -> bool {
    const NAMES: [&str; 14] = [
        "docker", "virbr", "veth", "br-", "cni", "flannel", "cali", "lxc", "podman", "ifb", "dummy", "tun",
        "tap", "vnet",
    ];
    NAMES.iter().any(|name| interface.starts_with(name))
}

/// The address that packets to far places would have, if there is a way there. Sends nothing: connecting a datagram socket only
/// asks the kernel for the route.
pub(crate) fn route() -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): nobody has a route of its own to them.
    let far_ipv4 = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 1), 9));
    let far_ipv6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    let own = |far: SocketAddr| {
        let any: IpAddr =
            if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    own(far_ipv4).or_else(|| own(far_ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> Vec<Offer> {
        let offer = |interface: &str, address: &str| Offer {
            interface: interface.to_owned(),
            address: Some(address.parse().unwrap()),
        };
        vec![
            offer("docker0", "172.17.0.1"),
            offer("lo", "127.0.0.1"),
            offer("eth1", "fe80::1"),
            offer("eth1", "fd00::7"),
            offer("eth1", "10.1.0.7"),
            offer("eth0", "10.0.0.7"),
            offer("lo", "::1"),
        ]
    }

    fn chosen(wanted: Option<&str>, route: Option<&str>) -> String {
        let (wanted, route) = (wanted.map(Wanted::of), route.map(|route| route.parse().unwrap()));
        // Every order gives the same.
        let mut offers = offers();
        let mut answers = Vec::new();
        for _ in 0..offers.len() {
            offers.rotate_left(1);
            let answer = choose(&offers, wanted.as_ref(), route);
            answers.push(answer.map_or_else(|said| said, |index| offers[index].address.unwrap().to_string()));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    #[test]
    fn without_a_wish_it_is_the_interface_of_the_route() {
        assert_eq!(chosen(None, Some("10.1.0.7")), "10.1.0.7");
    }

    #[test]
    fn without_a_route_it_is_a_cable_and_neither_docker_nor_the_loop() {
        assert_eq!(chosen(None, None), "10.0.0.7");
        assert_eq!(
            chosen(None, Some("192.0.2.9")),
            "10.0.0.7",
            "a route by an interface that is not offered"
        );
    }

    #[test]
    fn a_name_gets_the_ipv4_address_of_that_interface() {
        assert_eq!(chosen(Some("eth1"), Some("10.0.0.7")), "10.1.0.7");
        assert_eq!(chosen(Some("docker0"), None), "172.17.0.1");
    }

    #[test]
    fn an_address_gets_that_address() {
        assert_eq!(chosen(Some("127.0.0.1"), Some("10.0.0.7")), "127.0.0.1");
        assert_eq!(chosen(Some("::1"), None), "::1");
    }

    #[test]
    fn a_wish_that_cannot_be_met_says_what_there_is() {
        assert_eq!(
            chosen(Some("ib0"), None),
            "no interface is called ib0; there are: docker0, eth0, eth1, lo"
        );
        assert!(chosen(Some("10.9.9.9"), None).starts_with("no interface has the address 10.9.9.9"));
    }

    #[test]
    fn a_host_with_nothing_but_itself_goes_by_its_loop() {
        let only = [Offer { interface: "lo".into(), address: Some(Ipv4Addr::LOCALHOST.into()) }];
        assert_eq!(choose(&only, None, None), Ok(0));
        assert!(choose(&[], None, None).is_err());
    }
}
