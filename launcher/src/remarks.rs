//! What the user is told of strangers who were turned away: enough to find them, and not without end.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Lines about those who were turned away; of the others the number.
const REMARKS_MAX: u32 = 16;

/// Lines that have not been taken yet, and the number of those that will not come.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    lines: VecDeque<String>,
    said: HashSet<(IpAddr, &'static str)>,
    count: u32,
    more: u64,
}

impl Remarks {
    /// Somebody was turned away. Said once for each address and sort of trouble.
    pub(crate) fn add(&mut self, from: SocketAddr, sort: &'static str, why: &str) {
        if self.said.contains(&(from.ip(), sort)) || self.count >= REMARKS_MAX {
            self.more += 1;
            return;
        }
        self.count += 1;
        self.said.insert((from.ip(), sort));
        self.lines.push_back(format!("{from} was turned away: {why}"));
    }

    /// A line about something else.
    pub(crate) fn push(&mut self, line: String) {
        self.lines.push_back(line);
    }

    /// Nobody will come any more: how many have not been named.
    pub(crate) fn end(&mut self) {
        match std::mem::take(&mut self.more) {
            0 => {}
            1 => self.lines.push_back("one more was turned away".to_owned()),
            more => self.lines.push_back(format!("{more} more were turned away")),
        }
    }

    /// The next line for the user.
    pub(crate) fn poll(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sort_of_trouble_is_said_once_and_the_rest_are_counted() {
        let mut remarks = Remarks::default();
        for port in 1..=4 {
            remarks.add(([127, 0, 0, 1], port).into(), "garbage", "it is no rank");
        }
        remarks.add(([127, 0, 0, 1], 5).into(), "late", "it is late");
        remarks.end();
        let lines: Vec<String> = std::iter::from_fn(|| remarks.poll()).collect();
        let expected = [
            "127.0.0.1:1 was turned away: it is no rank",
            "127.0.0.1:5 was turned away: it is late",
            "3 more were turned away",
        ];
        assert_eq!(lines, expected);
        remarks.end();
        assert_eq!(remarks.poll(), None);
    }
}
