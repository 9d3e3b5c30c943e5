//! The page that names the counterpart of every MPI function, held against a library that has them all.
//!
//! That the counterparts exist is checked by rustdoc, since they are links. This is the other direction: a function that
//! MPI has and the page does not know.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::rules::House;
use crate::shell::Run;
use crate::source;

/// Where the page is, from the root of the repository.
pub const PAGE: &str = "crates/selvedge/src/guide/functions.md";

/// Where it says which calls the storm does not make, in the first column of its last table.
const STORM_PAGE: &str = "docs/STORM.md";

/// Where the storm is.
const STORM: &str = "benches/src/bin/storm/";

impl House {
    /// Calls on the page that no file of the storm makes and that its page does not name as one that it leaves out.
    pub fn calls_that_no_storm_makes(&self) -> Vec<String> {
        let files = self.sources.iter().filter(|source| source.path.starts_with(STORM));
        let storm: String = files.map(|file| source::read(&self.workspace.root, &file.path)).collect();
        let [page, left_out] = [PAGE, STORM_PAGE].map(|path| source::read(&self.workspace.root, path));
        not_made(&page, &storm, &left_out)
    }
}

/// Methods that `page` links to which `storm` does not call, and the last table of `left_out` does not name.
fn not_made(page: &str, storm: &str, left_out: &str) -> Vec<String> {
    let links =
        page.split("[`").skip(1).filter_map(|rest| Some(rest.split_once("`]")?.0.rsplit_once("::")?.1));
    let last_table = left_out.rsplit("\n## ").next().unwrap_or_default();
    let rows = last_table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let named: BTreeSet<&str> = rows.flat_map(|column| column.split('`')).collect();
    let is_made = |call: &str| {
        [".", "::"]
            .iter()
            .any(|from| ["(", "::<"].iter().any(|to| storm.contains(&format!("{from}{call}{to}"))))
    };
    let is_function = |call: &&str| call.starts_with(|c: char| c.is_ascii_lowercase());
    let calls: BTreeSet<&str> = links.filter(is_function).collect();
    calls.into_iter().filter(|call| !is_made(call) && !named.contains(call)).map(str::to_owned).collect()
}

/// Whether the page in the repository at `root` mentions every function that `library`, a libmpi, exports.
///
/// # Errors
/// Which it does not, or which are none.
pub fn check(root: &Path, library: &Path) -> Result<(), String> {
    let page = fs::read_to_string(root.join(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let symbols =
        Run::new("nm", ["-D".as_ref(), "--defined-only".as_ref(), library.as_os_str()]).quiet().collect();
    if !symbols.is_ok() {
        return Err(format!("nm (package binutils) on {}: {}", library.display(), symbols.reason()));
    }
    match unmentioned(&page, &symbols.text)? {
        missing if missing.is_empty() => Ok(()),
        missing => Err(format!("{PAGE} does not mention {}", missing.join(", "))),
    }
}

/// Functions among `symbols`, as nm prints them, which `page` does not mention. The forms for large counts, whose names end
/// in `_c`, are one with the others.
///
/// # Errors
/// No function at all, or a page that mentions one which is not among them.
fn unmentioned(page: &str, symbols: &str) -> Result<Vec<String>, String> {
    let there = exported(symbols);
    if there.is_empty() {
        return Err("the library exports no MPI function".to_owned());
    }
    let mentioned = mentioned(page);
    let unknown: Vec<_> = mentioned.iter().filter(|name| !is_covered(name, &there)).cloned().collect();
    if !unknown.is_empty() {
        return Err(format!("{PAGE} mentions what MPI does not have: {}", unknown.join(", ")));
    }
    Ok(there.into_iter().filter(|name| !mentioned.iter().any(|mention| covers(mention, name))).collect())
}

/// `MPI_Send` is a function, `MPI_UNWEIGHTED` is not.
fn exported(symbols: &str) -> BTreeSet<String> {
    let names = symbols.lines().filter_map(|line| line.rsplit(' ').next());
    let names =
        names.filter(|name| name.starts_with("MPI_") && name.contains(|c: char| c.is_ascii_lowercase()));
    names.map(|name| name.strip_suffix("_c").unwrap_or(name).to_owned()).collect()
}

/// Names in the first column of the page's tables, and families such as `MPI_File_*`.
fn mentioned(page: &str) -> BTreeSet<String> {
    let first_columns = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names = first_columns.flat_map(|column| column.split('`'));
    names.filter(|name| name.starts_with("MPI_")).map(str::to_owned).collect()
}

fn covers(mention: &str, name: &str) -> bool {
    mention.strip_suffix('*').map_or(mention == name, |family| name.starts_with(family))
}

fn is_covered(mention: &str, names: &BTreeSet<String>) -> bool {
    names.iter().any(|name| covers(mention, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "01 T MPI_Send\n02 T MPI_Send_c\n03 W MPI_File_open\n04 T MPI_T_init_thread\n05 D MPI_UNWEIGHTED\n06 T PMPI_Recv\n";

    #[test]
    fn a_call_that_the_storm_neither_makes_nor_leaves_out_is_found() {
        let page =
            "[`Group::size`], [`World`], [`Scope::isend`] and [`Communicator::spawn`], [`Status::count`]";
        let storm = "kept.size(); scope.isend::<u8>(); word_count()";
        let left_out = "| `count` | not the last table |\n\n## Left out\n\n| `spawn`, `other` | `count` |\n";
        assert_eq!(not_made(page, storm, left_out), ["count"]);
    }

    #[test]
    fn a_function_without_a_row_is_found_and_constants_are_none() {
        let page = "| `MPI_File_*` | later |\n";
        assert_eq!(unmentioned(page, LIBRARY).expect("a page"), ["MPI_Send", "MPI_T_init_thread"]);
    }

    #[test]
    fn a_row_may_name_several_functions_and_only_its_first_column_counts() {
        let page = "| `MPI_Send`, `MPI_T_init_thread` | see `MPI_Bsend` |\n| `MPI_File_*` | later |\n";
        assert!(unmentioned(page, LIBRARY).expect("a page").is_empty());
    }

    #[test]
    fn a_function_that_does_not_exist_is_refused() {
        let complaint = unmentioned("| `MPI_Sent` | ? |\n", LIBRARY).expect_err("no such function");
        assert!(complaint.contains("MPI_Sent"), "{complaint}");
        assert!(unmentioned("", "07 T main\n").is_err());
    }
}
