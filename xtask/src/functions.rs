//! The page that names the counterpart of every MPI function, held against a library that has them all.
//!
//! That the counterparts exist is checked by rustdoc, since they are links. This is the other direction: a function that
//! MPI has and the page does not know.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::shell::Run;

/// Where the page is, from the root of the repository.
pub const PAGE: &str = "crates/selvedge/src/guide/functions.md";

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
