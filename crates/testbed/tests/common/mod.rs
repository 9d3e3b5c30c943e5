//! What the tests of this crate have in common.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What a command writes, without white space at the ends. It must succeed.
#[track_caller]
pub fn text_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// The numbers of the networks of a testbed.
pub fn networks_of(folder: &Path) -> Vec<u64> {
    let list = fs::read_to_string(folder.join("networks")).unwrap();
    list.lines().map(|line| line.parse().unwrap()).collect()
}

/// Processes that are on one of these networks or hold it open. Where nobody does, the kernel has taken it apart.
pub fn everything_that_refers_to(networks: &[u64]) -> Vec<String> {
    let names: Vec<String> = networks.iter().map(|number| format!("net:[{number}]")).collect();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let links = open.map(|entry| entry.path()).chain([process.path().join("ns/net")]);
        for link in links {
            let target = fs::read_link(&link).unwrap_or_default();
            if names.iter().any(|name| target == Path::new(name)) {
                found.push(format!("{} is {}", link.display(), target.display()));
            }
        }
    }
    found
}
