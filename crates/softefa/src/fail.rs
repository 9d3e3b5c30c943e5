//! Calls that fail on purpose: what a program makes of a device that is broken in one place.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::Failure;

/// The failures that were asked for, and how often each place was passed.
#[derive(Debug, Default)]
pub struct Failures {
    list: Vec<(Failure, AtomicU64)>,
}

impl Failures {
    /// From the settings.
    pub fn new(list: &[Failure]) -> Failures {
        Failures { list: list.iter().map(|failure| (failure.clone(), AtomicU64::new(0))).collect() }
    }

    /// Whether this pass of the place called `name` is to fail.
    pub fn strike(&self, name: &str) -> bool {
        let mut strikes = false;
        for (failure, passed) in self.list.iter().filter(|(failure, _)| failure.name == name) {
            let pass = passed.fetch_add(1, Ordering::Relaxed) + 1;
            strikes |= if failure.once { pass == failure.first } else { pass >= failure.first };
        }
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_call_fails_and_the_others_do_not() {
        let failures = Failures::new(&["open:3".parse().expect("sound"), "close:2+".parse().expect("sound")]);
        let strikes = |name| [1, 2, 3, 4].map(|_| failures.strike(name));
        assert_eq!(strikes("open"), [false, false, true, false]);
        assert_eq!(strikes("close"), [false, true, true, true]);
        assert_eq!(strikes("query"), [false; 4]);
    }
}
