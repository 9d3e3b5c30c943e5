//! The guide for EC2 has a section for every check, and its table the counts that the doctor goes by.

use selvedge_doctor::{CHECKS, INSTANCES};

const GUIDE: &str = include_str!("../../../docs/EC2.md");

#[test]
fn every_check_has_its_section_and_every_section_its_check() {
    let (_, sections) = GUIDE.split_once("\n## When the doctor says").expect("the part about the checks");
    let sections = sections.split("\n## ").next().expect("at least itself");
    let mut written: Vec<&str> = sections.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut known: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    written.sort_unstable();
    known.sort_unstable();
    assert_eq!(written, known);
}

#[test]
fn names_of_checks_are_anchors_and_each_is_used_once() {
    let mut ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert!(ids.iter().all(|id| id.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), CHECKS.len());
}

#[test]
fn the_table_of_instances_shows_the_counts_that_the_doctor_goes_by() {
    for instance in INSTANCES {
        let row = format!("| `{}` | {} |", instance.name, instance.nics);
        assert!(GUIDE.contains(&row), "no row that begins with {row}");
    }
}
