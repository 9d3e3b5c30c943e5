//! Slurm's compressed lists: `n[1-3,7],rack[0-1]node[08-10]` and `2(x3),1`.

/// Most hosts of one list: more than any job has, and few enough to be written out.
pub(super) const HOSTS_MAX: usize = 1 << 16;

/// Takes a list apart at the commas that are outside of brackets.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
}

/// All names of a list, in order.
///
/// # Errors
/// What is wrong with it.
pub(super) fn expand_list(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for word in split(text) {
        names.extend(expand(word)?);
        if names.len() > HOSTS_MAX {
            return Err(format!("more than {HOSTS_MAX} hosts"));
        }
    }
    Ok(names)
}

/// The names that one word stands for: `n[08-10]` is `n08`, `n09` and `n10`. Several brackets multiply, the last runs
/// fastest.
///
/// # Errors
/// What is wrong with it.
pub(super) fn expand(word: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = word;
    while let Some((before, from)) = rest.split_once('[') {
        let (ranges, after) = from.split_once(']').ok_or_else(|| format!("{word:?}: there is no ']'"))?;
        if before.contains([']', ',']) {
            return Err(format!("{word:?} is not the name of a host"));
        }
        let room = HOSTS_MAX / names.len();
        let numbers = numbers(ranges, room).map_err(|why| format!("{word:?}: {why}"))?;
        let longer =
            |name: &String| numbers.iter().map(move |n| format!("{name}{before}{n}")).collect::<Vec<_>>();
        names = names.iter().flat_map(longer).collect();
        rest = after;
    }
    if rest.contains([']', ',']) || word.is_empty() {
        return Err(format!("{word:?} is not the name of a host"));
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

/// `1-3,07`: 1, 2, 3, 07. A leading zero gives the width.
fn numbers(ranges: &str, room: usize) -> Result<Vec<String>, String> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = |text: &str| text.parse::<u64>().ok().filter(|_| digits(text));
        let (Some(low), Some(high)) = (parsed(first), parsed(last)) else {
            return Err(format!("{range:?} is no number and no range"));
        };
        if low > high {
            return Err(format!("the range {range:?} runs backwards"));
        }
        if high - low >= (room.saturating_sub(numbers.len())) as u64 {
            return Err(format!("more than {HOSTS_MAX} hosts"));
        }
        let width = if first.starts_with('0') { first.len().min(20) } else { 0 };
        numbers.extend((low..=high).map(|number| format!("{number:0width$}")));
    }
    Ok(numbers)
}

/// `2(x3),1` as 2, 2, 2, 1.
///
/// # Errors
/// What is wrong with it.
pub(super) fn counts(text: &str) -> Result<Vec<u32>, String> {
    let mut counts = Vec::new();
    for part in text.split(',') {
        let wrong = || format!("{part:?} is not like 2(x3)");
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')').ok_or_else(wrong)?),
            None => (part, "1"),
        };
        let count = super::list::slots(count).ok_or_else(wrong)?;
        let times: usize = times.parse().map_err(|_| wrong())?;
        if times > HOSTS_MAX - counts.len() {
            return Err(format!("more than {HOSTS_MAX} hosts"));
        }
        counts.extend(std::iter::repeat_n(count, times));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_keep_their_width_and_their_order() {
        assert_eq!(expand_list("n[1-3,7],m").unwrap(), ["n1", "n2", "n3", "n7", "m"]);
        assert_eq!(expand_list("n[098-101]").unwrap(), ["n098", "n099", "n100", "n101"]);
        assert_eq!(expand_list("r[0-1]n[1-2]-x").unwrap(), ["r0n1-x", "r0n2-x", "r1n1-x", "r1n2-x"]);
        let ip = "ip-10-0-0-[5,9].ec2.internal";
        assert_eq!(expand_list(ip).unwrap(), ["ip-10-0-0-5.ec2.internal", "ip-10-0-0-9.ec2.internal"]);
    }

    #[test]
    fn a_list_that_is_cut_or_too_long_is_refused() {
        for text in [
            "n[1-3",
            "n[3-1]",
            "n[a]",
            "n[]",
            "",
            "a,,b",
            "n1]",
            "n[0-99999999]",
            "a[0-999]b[0-999]",
            "n[+1]",
        ] {
            assert!(expand_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_repeat() {
        assert_eq!(counts("2(x3),1").unwrap(), [2, 2, 2, 1]);
        assert_eq!(counts("36").unwrap(), [36]);
        for text in ["", "2(x", "2x3", "0", "1(x99999999)", "1(x-1)"] {
            assert!(counts(text).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _ = (expand_list(&text), counts(&text));
        }

        #[test]
        fn nearly_right_text_is_not_either(text in "[n0-9,\\[\\]()x-]{0,24}") {
            let names = expand_list(&text).unwrap_or_default();
            prop_assert!(names.len() <= HOSTS_MAX);
            prop_assert!(names.iter().all(|name| !name.contains(['[', ']', ','])));
            let _ = counts(&text);
        }
    }
}
