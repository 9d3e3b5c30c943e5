//! What pages for readers promise, held against the tree: examples that are not longer than others', and a running example
//! of every public item.

use std::collections::BTreeSet;

use crate::rules::House;
use crate::source::{self, Line, Source, contains_word};

/// Where examples of the `mpi` crate stand beside ours.
const BESIDE: &str = "crates/selvedge/src/guide/rsmpi_examples.md";

/// How many there are to be.
const BESIDE_COUNT: usize = 12;

/// Widest line of an example that stands beside another: that of rustfmt, which theirs are formatted by.
const WIDTH_MAX: usize = 100;

/// The crate whose public items are shown.
const SHOWN: &str = "crates/selvedge/src/";

/// Modules of it with what users do not call, each with those below it: what the storm drives, and what is `pub` inside only.
const HIDDEN: &[&str] = &[
    "message/channel",
    "communicator/contexts",
    "collective/executor",
    "communicator/members",
    "collective/plan",
    "world/routes",
    "runtime",
    "datatype/signature",
    "message/staged",
    "world/watch",
];

/// Public items that have no running example, each with the reason.
const NOT_SHOWN: &[(&str, &str)] =
    &[("abort", "ends the process it runs in"), ("reducer", "for the storm"), ("Reducer", "for the storm")];

impl House {
    /// Examples beside those of the `mpi` crate that are longer, or not as long as their page says.
    pub fn examples_longer_than_others(&self) -> Vec<String> {
        longer_than_others(&source::read(&self.workspace.root, BESIDE))
    }

    /// Public items of the library that have no running example of their own, and that no other one shows.
    pub fn public_items_without_an_example(&self) -> Vec<String> {
        let of_library = || self.sources.iter().filter(|source| source.path.starts_with(SHOWN));
        let mut shown = String::new();
        for source in of_library() {
            shown += &running_code(&comments(source));
        }
        for page in self.files.iter().filter(|path| path.starts_with(SHOWN) && path.ends_with(".md")) {
            shown += &running_code(&source::read(&self.workspace.root, page));
        }
        let is_public = |source: &&Source| !HIDDEN.iter().any(|module| is_of_module(&source.path, module));
        let items: BTreeSet<String> = of_library().filter(is_public).flat_map(public_items).collect();
        let lines: Vec<&str> = shown.lines().collect();
        let is_shown = |item: &str| lines.iter().any(|line| contains_word(line, item));
        items
            .into_iter()
            .filter(|item| !is_shown(item) && NOT_SHOWN.iter().all(|(name, _)| name != item))
            .collect()
    }
}

/// Whether a file of the library belongs to a module.
fn is_of_module(path: &str, module: &str) -> bool {
    let rest = path.strip_prefix(SHOWN).and_then(|path| path.strip_prefix(module));
    rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// What is wrong with the table of the page, and with the examples below it.
fn longer_than_others(page: &str) -> Vec<String> {
    let (head, sections) = page.split_once("\n## ").unwrap_or((page, ""));
    let mut broken = Vec::new();
    let mut found = 0;
    for row in head.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_end_matches('`')).collect();
        let (Some(theirs), Some(said)) = (number(cells.get(1)), number(cells.get(2))) else { continue };
        found += 1;
        let name = cells[0];
        let section = sections.split("\n## ").find(|section| section.lines().next() == Some(name));
        let code = section.map(visible_code).unwrap_or_default();
        let ours = code.len();
        if ours == 0 || ours != said || ours > theirs {
            broken.push(format!("{name}: {ours} lines, the page says {said}, theirs has {theirs}"));
        }
        let wide = code.iter().filter(|line| line.chars().count() > WIDTH_MAX);
        broken.extend(wide.map(|line| format!("{name}: more than {WIDTH_MAX} columns: {line}")));
    }
    if found < BESIDE_COUNT {
        broken.push(format!("{found} examples, there are to be {BESIDE_COUNT}"));
    }
    broken
}

fn number(cell: Option<&&str>) -> Option<usize> {
    cell?.parse().ok()
}

/// Lines with code that a reader sees and that run.
fn visible_code(section: &str) -> Vec<String> {
    let code = running_code(section);
    let is_code = |line: &&str| !matches!(line.trim(), "" | "#") && !line.trim().starts_with("//");
    code.lines().filter(is_code).filter(|line| !line.starts_with("# ")).map(str::to_string).collect()
}

/// The code of all blocks that are compiled and run; also of those that want a launcher and are compiled only.
fn running_code(page: &str) -> String {
    let (mut code, mut block) = (String::new(), None);
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(kind), None) => {
                block = Some(matches!(kind.trim(), "" | "rust" | "should_panic" | "no_run"))
            }
            (None, Some(true)) => code = code + line + "\n",
            (None, _) => {}
        }
    }
    code
}

/// The documentation in a file, as a page.
fn comments(source: &Source) -> String {
    let text = |comment: &str| {
        let text = comment.strip_prefix("///").or(comment.strip_prefix("//!"))?;
        Some(text.strip_prefix(' ').unwrap_or(text).to_owned() + "\n")
    };
    source.lines.iter().filter_map(|line| text(line.comment.trim())).collect()
}

/// Names of what is `pub` in a file, functions, types, traits and constants, where no example stands above. A type is shown by
/// what is done with it: by any example of its file.
fn public_items(source: &Source) -> Vec<String> {
    let types_are_shown = !running_code(&comments(source)).is_empty();
    let item = |(index, line): (usize, &Line)| {
        let (is_type, name) = public_item(&line.code)?;
        let is_shown = is_type && types_are_shown || has_own_example(source, index);
        (!is_shown).then(|| name.to_owned())
    };
    source.lines.iter().enumerate().filter_map(item).collect()
}

/// The public item that begins in a line: whether it is a type or trait, and its name.
fn public_item(code: &str) -> Option<(bool, &str)> {
    let words = code.trim().strip_prefix("pub ")?.split(|c: char| !c.is_alphanumeric() && c != '_');
    let mut words = words.filter(|word| !matches!(*word, "" | "unsafe" | "async"));
    match words.next()? {
        "fn" => Some((false, words.next()?)),
        "const" => Some((false, words.find(|word| *word != "fn")?)),
        "struct" | "enum" | "trait" | "type" => Some((true, words.next()?)),
        _ => None,
    }
}

/// Whether the documentation above a line has a block that runs.
fn has_own_example(source: &Source, line: usize) -> bool {
    let above = source.lines[..line].iter().rev();
    let is_above =
        |line: &&Line| line.comment.trim().starts_with("///") || line.code.trim().starts_with("#[");
    let mut own: Vec<Line> = above.take_while(is_above).cloned().collect();
    own.reverse();
    !running_code(&comments(&Source { path: String::new(), lines: own })).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_items_are_found_by_name_and_fields_are_none() {
        let text = "pub fn send() {}\npub(crate) fn hidden() {}\n    pub const fn sum() {}\npub const ANY: u8 = 0;\n\
                    pub unsafe trait Datatype {}\npub struct World {\n    pub source: usize,\n}\npub mod local;\n";
        let items = public_items(&Source::new("a.rs", text));
        assert_eq!(items, ["send", "sum", "ANY", "Datatype", "World"]);
        let shown = "/// Text.\n///\n/// ```\n/// one();\n/// ```\n#[inline]\npub fn one() {}\n";
        assert!(public_items(&Source::new("a.rs", shown)).is_empty());
    }

    #[test]
    fn only_blocks_that_run_are_examples() {
        let page =
            "```\nlet a;\n```\n```text\nlet b;\n```\n```compile_fail,E0277\nlet c;\n```\n```sh\nd\n```\n";
        assert_eq!(running_code(page), "let a;\n");
    }

    #[test]
    fn an_example_that_grew_past_another_is_found() {
        let page = |theirs: usize| {
            format!(
                "| `a.rs` | {theirs} | 2 | x |\n\n## a.rs\n```text\nx\ny\nz\n```\n```\n# hidden\none();\n\n// why\ntwo();\n```\n"
            )
        };
        let broken =
            |theirs| longer_than_others(&page(theirs)).iter().filter(|it| it.starts_with("a.rs")).count();
        assert_eq!((broken(2), broken(1)), (0, 1));
    }
}
