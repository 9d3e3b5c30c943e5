//! What callgrind counted, by object, without what was done in and below one of them.
//!
//! A profile is a list of costs, each under the object (`ob=`), file and function it belongs to; a call is written as
//! `calls=`, and the line behind it is the cost of everything the call did (valgrind manual, callgrind format, version 1). So
//! what a device library costs with all that it calls in turn is the sum of the calls that lead into it from outside.

use std::collections::BTreeMap;
use std::collections::HashMap;

/// Instructions of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    /// By file name of the object, whoever called it.
    own: BTreeMap<String, u64>,
    /// In the left-out object, and below it.
    below: u64,
}

impl Profile {
    /// Reads a profile; `left_out` is how the file name of the object to be left out begins.
    ///
    /// # Errors
    /// The line that is not understood.
    pub(super) fn parse(text: &str, left_out: Option<&str>) -> Result<Profile, String> {
        let is_left_out = |object: &str| left_out.is_some_and(|start| object.starts_with(start));
        let mut profile = Profile::default();
        let mut names = HashMap::new();
        let (mut object, mut called, mut is_call) = (String::new(), None, false);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("ob=") {
                object = resolve(&mut names, name)?;
            } else if let Some(name) = line.strip_prefix("cob=") {
                called = Some(resolve(&mut names, name)?);
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
                let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
                let cost = cost.ok_or_else(|| format!("no cost in {line:?}"))?;
                match (is_call, called.take()) {
                    (false, _) => *profile.own.entry(object.clone()).or_default() += cost,
                    (true, Some(called)) if is_left_out(&called) && !is_left_out(&object) => {
                        profile.below += cost;
                    }
                    (true, _) => {}
                }
                is_call = false;
            }
        }
        if profile.own.is_empty() { Err("it has no costs".to_string()) } else { Ok(profile) }
    }

    /// Of all objects whose file name begins like this.
    pub(super) fn of(&self, starts: &[&str]) -> u64 {
        let matches = |object: &str| starts.iter().any(|start| object.starts_with(start));
        self.own.iter().filter(|(object, _)| matches(object)).map(|(_, cost)| cost).sum()
    }

    /// Everywhere but in the left-out object and below it.
    pub(super) fn outside(&self) -> u64 {
        self.own.values().sum::<u64>().saturating_sub(self.below)
    }

    /// In the left-out object, and below it.
    pub(super) fn below(&self) -> u64 {
        self.below
    }
}

/// The file name behind `(7) /path/to/file`, or behind `(7)` when it was named before.
fn resolve(names: &mut HashMap<String, String>, text: &str) -> Result<String, String> {
    let (key, path) = text.split_once(')').ok_or_else(|| format!("no number in {text:?}"))?;
    if !path.trim().is_empty() {
        let name = path.trim().rsplit('/').next().unwrap_or_default();
        names.insert(key.to_string(), name.to_string());
    }
    names.get(key).cloned().ok_or_else(|| format!("{text} was never named"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program (10) calls the library (20), which calls the device (30), which calls libc (5); the program calls
    /// libc too (7).
    const TEXT: &str = "\
# callgrind format
version: 1
positions: line
events: Ir
summary: 72

ob=(1) /a/osu
fl=(1) ???
fn=(1) main
0 6
+3 4
cob=(2) /b/libmpi.so.12
cfn=(2) send
calls=3 0
* 65
cob=(4) /c/libc.so.6
cfn=(4) memcpy
calls=1 0
0 7

ob=(2)
fn=(2)
0 20
cob=(3) /d/libsoftefa.so
cfn=(3) post
calls=3 0
0 35

ob=(3)
fn=(3)
0 12
cfn=(5) flush
calls=3 0
0 23

fn=(5)
0 18
cob=(4)
cfn=(4)
calls=3 0
0 5

ob=(4)
fn=(4)
0 12
totals: 72
";

    #[test]
    fn what_a_device_does_and_calls_is_left_out() {
        let profile = Profile::parse(TEXT, Some("libsoftefa")).expect("well formed");
        assert_eq!((profile.below(), profile.outside()), (35, 37));
        assert_eq!((profile.of(&["osu", "libmpi"]), profile.of(&["libfabric"])), (30, 0));
        let all = Profile::parse(TEXT, None).expect("well formed");
        assert_eq!((all.below(), all.outside()), (0, 72));
    }

    #[test]
    fn what_is_not_a_profile_is_refused() {
        assert!(Profile::parse("", None).is_err());
        assert!(Profile::parse("ob=(1)\n0 6\n", None).expect_err("no name").contains("never named"));
        assert!(Profile::parse("ob=(1) a\n0\n", None).expect_err("no cost").contains("no cost"));
    }
}
