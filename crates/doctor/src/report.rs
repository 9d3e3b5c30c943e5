//! What is printed: a table for people, JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::check::{Ask, Examined, Verdict};
use crate::scene::Scene;

/// Version of the JSON. A field that goes or changes its meaning raises it; a new field does not.
const JSON_VERSION: u32 = 1;

/// Where the sections are that the names of checks lead to.
const GUIDE: &str = "docs/EC2.md";

/// Columns before the evidence: verdict, name, and the blanks between.
const INDENT: usize = 6 + 16;

/// Everything the doctor says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of this host.
    pub host: String,
    /// The instance type, on EC2.
    pub instance_type: Option<String>,
    /// What was asked.
    pub ask: Ask,
    /// The worst of all.
    pub verdict: Verdict,
    /// The checks, in order.
    pub checks: Vec<Examined>,
}

impl Report {
    /// The report on a scene whose checks have been run.
    pub fn new(scene: &Scene, ask: &Ask, checks: Vec<Examined>) -> Report {
        Report {
            host: scene.kernel.host_name.clone(),
            instance_type: scene.place.instance_type().map(str::to_owned),
            ask: *ask,
            verdict: checks.iter().map(|c| c.finding.verdict).max().unwrap_or(Verdict::Pass),
            checks,
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.finding.verdict == verdict).count()
    }
}

/// The report as one JSON object, with the facts behind it.
pub fn json(report: &Report, scene: &Scene) -> String {
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        report: &'a Report,
        facts: &'a Scene,
    }
    json_of(&Whole { report, facts: scene })
}

/// Anything as one JSON object, with the version before it.
pub(crate) fn json_of<T: Serialize>(body: &T) -> String {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        body: &'a T,
    }
    let whole = Versioned { version: JSON_VERSION, body };
    let mut text = serde_json::to_string_pretty(&whole).expect("plain data with names for keys");
    text.push('\n');
    text
}

/// The report for people, with colours where `colour` says so.
pub fn table(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    let kind = report.instance_type.as_deref().map_or(String::new(), |kind| format!(" ({kind})"));
    let for_efa = if report.ask.needs_efa { ", EFA required" } else { "" };
    // Writing to a String does not fail.
    let _ = writeln!(text, "{}{kind}, ranks on this host: {}{for_efa}\n", report.host, report.ask.ranks);
    for check in &report.checks {
        let verdict = painted(check.finding.verdict, colour);
        let evidence = wrapped(&check.finding.evidence);
        let _ = writeln!(text, "{verdict}  {:<15} {evidence}", check.id);
        if let Some(remedy) = &check.finding.remedy {
            let _ = writeln!(text, "{:>INDENT$}-> {remedy}", "");
        }
    }
    let (passed, warned, failed) =
        (report.count(Verdict::Pass), report.count(Verdict::Warn), report.count(Verdict::Fail));
    let _ = writeln!(text, "\n{passed} pass, {warned} warn, {failed} fail");
    let amiss = report.checks.iter().filter(|check| check.finding.verdict != Verdict::Pass);
    let worst = amiss.max_by_key(|check| check.finding.verdict);
    if let Some(worst) = worst {
        let _ = writeln!(text, "more on each: {GUIDE}#{} and so on", worst.id);
    }
    text
}

pub(crate) fn painted(verdict: Verdict, colour: bool) -> String {
    let (word, code) = match verdict {
        Verdict::Pass => ("pass", "32"),
        Verdict::Warn => ("warn", "33"),
        Verdict::Fail => ("FAIL", "31;1"),
    };
    if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
}

/// Breaks a sentence into lines of about 100 columns, the later ones indented. Remedies are never broken: they are
/// there to be copied.
fn wrapped(sentence: &str) -> String {
    const WIDTH: usize = 100;
    let mut text = String::new();
    let mut column = 0;
    for word in sentence.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', INDENT));
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text
}
