//! Hosts as they stand in one word: `a,b:4`, `user@a`, `[fe80::1]:2`, `n[01-16]:8`, `a:*`. What Open MPI's `--host` and
//! hydra's `-hosts` take, and the compressed lists of Slurm.

use super::{HostWish, Slots, nodelist};

/// Most slots that anybody states; a larger number is a slip of the finger.
pub(super) const SLOTS_MAX: u32 = 1 << 20;

/// A list with commas. A host that is mentioned several times has so many slots.
///
/// # Errors
/// What is wrong with which part, without the option's name.
pub(crate) fn parse(text: &str) -> Result<Vec<HostWish>, String> {
    let mut hosts = Vec::new();
    for word in nodelist::split(text) {
        let of_word = host(word, Slots::Mentioned(1))?;
        if hosts.len() + of_word.len() > nodelist::HOSTS_MAX {
            return Err(format!("more than {} hosts", nodelist::HOSTS_MAX));
        }
        hosts.extend(of_word);
    }
    Ok(super::merge(hosts))
}

/// One word: `[user@]host[:slots]`, where the host may stand for several. `unsaid`: its slots where there is no count.
pub(super) fn host(word: &str, unsaid: Slots) -> Result<Vec<HostWish>, String> {
    if word.starts_with('+') {
        return Err(format!("{word:?}: hosts are not counted or picked by load here; write their names"));
    }
    if word.starts_with('^') {
        return Err(format!("{word:?}: hosts cannot be left out so; write the names of the others"));
    }
    let (user, rest) = match word.split_once('@') {
        Some(("", _)) => return Err(format!("{word:?}: the user's name is missing before '@'")),
        Some((user, rest)) => (Some(name(user, word)?.to_owned()), rest),
        None => (None, word),
    };
    let (names, count) = match rest.strip_prefix('[') {
        Some(address) => {
            let (address, after) =
                address.split_once(']').ok_or_else(|| format!("{word:?}: there is no ']' for this '['"))?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("{word:?}: {address:?} is no IPv6 address"));
            }
            let count = match after {
                "" => None,
                _ => {
                    Some(after.strip_prefix(':').ok_or_else(|| format!("{word:?}: ':' expected after ']'"))?)
                }
            };
            (vec![address.to_owned()], count)
        }
        None => {
            let (names, count) = rest.split_once(':').map_or((rest, None), |(names, n)| (names, Some(n)));
            if count.is_some_and(|count| count.contains(':')) {
                return Err(format!("{word:?}: write an IPv6 address in brackets, as [{rest}]"));
            }
            (nodelist::expand(name(names, word)?)?, count)
        }
    };
    let slots = match count {
        None => unsaid,
        Some("*") => Slots::Cores,
        Some(count) => Slots::Stated(slots(count).ok_or_else(|| {
            format!("{word:?}: after ':' comes the number of slots, 1 to {SLOTS_MAX}, or '*' for all cores")
        })?),
    };
    let wish = |name| HostWish { user: user.clone(), slots, ..HostWish::named(name) };
    Ok(names.into_iter().map(wish).collect())
}

/// A number of slots.
pub(super) fn slots(text: &str) -> Option<u32> {
    text.parse().ok().filter(|slots| (1..=SLOTS_MAX).contains(slots))
}

/// The name of a host or a user that can stand on another command line without being taken for anything else.
fn name<'a>(name: &'a str, word: &str) -> Result<&'a str, String> {
    let strange = |c: char| !(c.is_ascii_alphanumeric() || "-_.%[],".contains(c));
    match name.chars().find(|&c| strange(c)) {
        _ if name.is_empty() => Err(format!("{word:?}: the name of the host is missing")),
        _ if name.starts_with('-') => Err(format!("{word:?}: a name does not start with '-'")),
        Some(c) => Err(format!("{word:?}: {c:?} has no place in a name")),
        None => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |host: HostWish| {
            let user = host.user.map(|user| user + "@").unwrap_or_default();
            let slots = match host.slots {
                Slots::Cores => "*".to_owned(),
                Slots::Mentioned(times) => format!("x{times}"),
                Slots::Stated(slots) => slots.to_string(),
            };
            format!("{user}{} {slots}", host.name)
        };
        parse(text).expect(text).into_iter().map(show).collect()
    }

    #[test]
    fn both_families_write_counts_after_a_colon() {
        assert_eq!(shown("a,b:4,c:*"), ["a x1", "b 4", "c *"]);
    }

    #[test]
    fn a_host_that_is_mentioned_again_has_more_slots() {
        assert_eq!(shown("a,b,a"), ["a x2", "b x1"]);
        assert_eq!(shown("a:2,a:3,b,b:4"), ["a 5", "b 5"]);
        assert_eq!(shown("node1,node1.cluster,NODE1"), ["node1 x3"]);
        assert_eq!(shown("10.0.0.1,10.1.0.1"), ["10.0.0.1 x1", "10.1.0.1 x1"]);
    }

    #[test]
    fn users_addresses_and_ranges_are_understood() {
        assert_eq!(shown("me@a:2,[fe80::1]:3,[::1]"), ["me@a 2", "fe80::1 3", "::1 x1"]);
        assert_eq!(shown("me@n[08-10]:2,m"), ["me@n08 2", "me@n09 2", "me@n10 2", "m x1"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_word_it_is_in() {
        for (text, part) in [
            ("", "missing"),
            ("a,,b", "missing"),
            ("a:0", "number of slots"),
            ("a:x", "number of slots"),
            ("fe80::1", "in brackets, as [fe80::1]"),
            ("[fe80::1", "no ']'"),
            ("[node]", "no IPv6 address"),
            ("[::1]4", "':' expected"),
            ("+n1", "write their names"),
            ("+e:2", "write their names"),
            ("^a", "names of the others"),
            ("@a", "user's name"),
            ("-oProxyCommand=x", "'-'"),
            ("a b", "no place in a name"),
            ("a;b", "no place in a name"),
            ("n[1-9999999]", "hosts"),
        ] {
            let why = parse(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn nearly_right_text_is_not_either(text in "[ab1:@,\\[\\]*+-]{0,24}") {
            for host in parse(&text).unwrap_or_default() {
                prop_assert!(!host.name.is_empty() && !host.name.starts_with('-'));
            }
        }
    }
}
