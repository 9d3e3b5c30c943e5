//! Host files, in the syntaxes of both families at once:
//!
//! ```text
//! node1                           as many ranks as it has cores
//! node2:8                         hydra: 8 ranks
//! me@node3 slots=8 max_slots=16   Open MPI
//! node4:8 user=me                 hydra
//! n[05-12]:8                      eight hosts in one line
//! # a comment
//! ```

use std::path::Path;

use super::{HostWish, Slots, list};
use crate::args::Usage;

/// The hosts of a file. `path` is for what is said about it.
///
/// # Errors
/// File and line of what cannot be understood, or that there are none.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<HostWish>, Usage> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Usage::new(format!("the host file {} is not text", path.display())))?;
    let mut hosts = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        let of_line =
            line(text).map_err(|why| Usage::new(format!("{}, line {number}: {why}", path.display())))?;
        hosts.extend(of_line);
    }
    if hosts.is_empty() {
        return Err(Usage::new(format!("the host file {} names no host", path.display())));
    }
    Ok(super::merge(hosts))
}

fn line(text: &str) -> Result<Vec<HostWish>, String> {
    let text = text.split('#').next().unwrap_or_default();
    // Blanks around '=' are nobody's business.
    let text = text.split('=').map(str::trim).collect::<Vec<_>>().join("=");
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else { return Ok(Vec::new()) };
    if first == "rank" {
        return Err("this is a line of a rank file; give the file with --rankfile".to_owned());
    }
    let mut hosts = list::host(first, Slots::Cores)?;
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("{word:?}: after the host come slots=N, max_slots=N and user=NAME"));
        };
        for host in &mut hosts {
            setting(host, key, value)?;
        }
    }
    Ok(hosts)
}

fn setting(host: &mut HostWish, key: &str, value: &str) -> Result<(), String> {
    let count = || {
        list::slots(value)
            .ok_or_else(|| format!("{key}={value}: a number from 1 to {} expected", list::SLOTS_MAX))
    };
    match key {
        "slots" | "cpu" | "cpus" | "count" => match host.slots {
            Slots::Stated(before) if before != count()? => {
                return Err(format!("{}:{before} and {key}={value} contradict each other", host.name));
            }
            _ => host.slots = Slots::Stated(count()?),
        },
        "max_slots" | "max-slots" | "slots_max" | "slots-max" => host.max_slots = Some(count()?),
        "user" | "username" => {
            let named = list::host(&format!("{value}@x"), Slots::Cores)?;
            host.user = named.into_iter().next().and_then(|host| host.user);
        }
        "binding" => return Err("binding= is for all hosts at once; write --bind-to".to_owned()),
        "ifname" => return Err("ifname= is for all hosts at once; write --iface".to_owned()),
        _ => return Err(format!("{key}=: unknown; there are slots=, max_slots= and user=")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<HostWish>, Usage> {
        parse(Path::new("hosts"), text.as_bytes())
    }

    #[test]
    fn the_syntaxes_of_both_families_mix() {
        let hosts = parsed(
            "# the cluster\n\nnode1\nnode2:8\r\nme@node3 slots=8 max_slots=16 # big\n\tnode4:2 user=you\n\
             [fe80::1] slots = 4\nn[1-2]:3\n",
        )
        .unwrap();
        let named = |name: &str| HostWish::named(name);
        let stated = |name: &str, slots| HostWish { slots: Slots::Stated(slots), ..named(name) };
        assert_eq!(
            hosts,
            [
                named("node1"),
                stated("node2", 8),
                HostWish { user: Some("me".into()), max_slots: Some(16), ..stated("node3", 8) },
                HostWish { user: Some("you".into()), ..stated("node4", 2) },
                stated("fe80::1", 4),
                stated("n1", 3),
                stated("n2", 3),
            ]
        );
    }

    #[test]
    fn a_host_that_stands_there_twice_without_a_count_has_two_slots() {
        let slots = |text| parsed(text).unwrap().iter().map(|host| host.slots).collect::<Vec<_>>();
        assert_eq!(slots("a\na\nb\n"), [Slots::Mentioned(2), Slots::Cores]);
        assert_eq!(slots("a:2\na:2\n"), [Slots::Stated(4)]);
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named() {
        for (text, part) in [
            ("a\nb slots=x", "hosts, line 2: slots=x"),
            ("a 4", "slots=N"),
            ("a:2 slots=3", "contradict"),
            ("a cores=3", "cores=: unknown"),
            ("a binding=core", "--bind-to"),
            ("a user=x;y", "no place in a name"),
            ("rank 0=a slot=1", "--rankfile"),
            ("# nothing", "names no host"),
        ] {
            let why = parsed(text).expect_err(text).to_string();
            assert!(why.contains(part), "{text}: {why}");
        }
        assert!(parse(Path::new("x"), b"\xff\xfe").unwrap_err().to_string().contains("not text"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Path::new("x"), &bytes);
        }

        #[test]
        fn nearly_right_lines_are_not_either(text in "([ab:@=#\n1 ]|slots|user|max_slots|rank){0,30}") {
            let _ = parsed(&text);
        }
    }
}
