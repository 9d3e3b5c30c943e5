//! Three facts about the code that readers ask for first: how much of the unsafe code is explained, how large the
//! contract is, which files are long.

use std::fmt::Write as _;

use crate::rules::{House, LINES_MAX, TRANSPORT_METHODS_MAX};
use crate::source::{Source, UnsafeKind};

/// Files from this many lines on are listed.
const LINES_LISTED: usize = 500;

/// The facts as text, ready to be printed.
pub fn report(house: &House) -> String {
    let mut out = String::new();
    unsafe_code(house, &mut out);
    contract(house, &mut out);
    sizes(house, &mut out);
    out
}

/// Names of the methods of the trait `Transport`, in the order of the file.
pub fn transport_methods(sources: &[Source]) -> Vec<String> {
    let Some(source) = sources.iter().find(|source| source.path == "crates/transport/src/transport.rs")
    else {
        return Vec::new();
    };
    let body = source.lines.iter().skip_while(|line| !line.code.starts_with("pub trait Transport")).skip(1);
    let names = body.take_while(|line| !line.code.starts_with('}')).filter_map(|line| {
        let after = line.code.trim_start().strip_prefix("fn ")?;
        after.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
    });
    names.map(str::to_string).collect()
}

fn unsafe_code(house: &House, out: &mut String) {
    let sites: Vec<_> = house.sources.iter().flat_map(Source::unsafe_sites).collect();
    let noted = sites.iter().filter(|site| site.noted).count();
    let share = if sites.is_empty() { 100.0 } else { 100.0 * noted as f64 / sites.len() as f64 };
    let files = house.sources.iter().filter(|source| !source.unsafe_sites().is_empty());
    let count = |kind| sites.iter().filter(|site| site.kind == kind).count();
    let _ = writeln!(
        out,
        "unsafe: {noted} of {} sites carry their note ({share:.0} %): {} blocks, {} implementations, {} contracts",
        sites.len(),
        count(UnsafeKind::Block),
        count(UnsafeKind::Impl),
        count(UnsafeKind::Contract),
    );
    for source in files {
        let _ = writeln!(out, "  {:>4}  {}", source.unsafe_sites().len(), source.path);
    }
}

fn contract(house: &House, out: &mut String) {
    let methods = transport_methods(&house.sources);
    let _ = writeln!(
        out,
        "methods of Transport: {} (limit {TRANSPORT_METHODS_MAX}): {}",
        methods.len(),
        methods.join(", ")
    );
}

fn sizes(house: &House, out: &mut String) {
    let mut by_size: Vec<_> = house.sources.iter().map(|s| (s.lines.len(), s.path.as_str())).collect();
    by_size.sort_by(|a, b| b.cmp(a));
    let total: usize = by_size.iter().map(|(lines, _)| lines).sum();
    let long = by_size.iter().filter(|(lines, _)| *lines > LINES_LISTED).count();
    let _ = writeln!(
        out,
        "files: {} of Rust, {total} lines, {long} past {LINES_LISTED} lines (limit {LINES_MAX}); the largest:",
        by_size.len()
    );
    for (lines, path) in by_size.iter().take(long.max(5)) {
        let _ = writeln!(out, "  {lines:>4}  {path}");
    }
}
