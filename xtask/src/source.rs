//! Rust source seen line by line, code and comment apart: enough to count unsafe sites and to search for words
//! without being fooled by strings and comments.
//!
//! It is a scanner, not a parser. It knows comments (nested ones too), strings (raw ones too), characters and
//! lifetimes; everything else is code. What it says about unsafe sites is checked a second time by clippy's
//! `undocumented_unsafe_blocks`, which does parse.

use std::fs;
use std::path::{Path, PathBuf};

/// One line of source: its code with the text of strings blanked out, and its comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The code. String and character literals are empty quotes.
    pub code: String,
    /// The comment, its slashes or stars included.
    pub comment: String,
}

/// A Rust file of the repository.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// Its lines, first line first.
    pub lines: Vec<Line>,
}

/// Where `unsafe` stands, and whether the reader is told why it is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsafeSite {
    /// Line number, from 1.
    pub line: usize,
    /// What it is.
    pub kind: UnsafeKind,
    /// Whether a note stands directly above: `SAFETY:` for blocks and implementations, `# Safety` for functions.
    pub noted: bool,
}

/// The forms of `unsafe` that carry a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsafeKind {
    /// `unsafe { .. }` and `unsafe extern { .. }`: the author answers for it.
    Block,
    /// `unsafe impl`: the author answers for it.
    Impl,
    /// `unsafe fn` and `unsafe trait`: the author says what others must answer for.
    Contract,
}

impl Source {
    /// Scans `text`, which stands at `path`.
    pub fn new(path: impl Into<String>, text: &str) -> Source {
        Source { path: path.into(), lines: scan(text) }
    }

    /// Line numbers (from 1) where `word` stands in code, not inside a longer name.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let has = |(index, line): (usize, &Line)| contains_word(&line.code, word).then_some(index + 1);
        self.lines.iter().enumerate().filter_map(has).collect()
    }

    /// Every place where `unsafe` opens a block, an implementation or a contract. Types (`unsafe fn(..)`) and
    /// attributes (`#[unsafe(no_mangle)]`) are not sites.
    pub fn unsafe_sites(&self) -> Vec<UnsafeSite> {
        let mut sites = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            for start in word_positions(&line.code, "unsafe") {
                let after = self.code_from(index, start + "unsafe".len());
                if let Some(kind) = unsafe_kind(&after) {
                    sites.push(UnsafeSite { line: index + 1, kind, noted: self.is_noted(index, kind) });
                }
            }
        }
        sites
    }

    /// The code from a place on, to the end of the next line that has any.
    fn code_from(&self, index: usize, column: usize) -> String {
        let mut text = self.lines[index].code[column..].trim().to_string();
        let mut next = index + 1;
        while text.split_whitespace().count() < 3 && next < self.lines.len() && next < index + 4 {
            text.push(' ');
            text.push_str(self.lines[next].code.trim());
            next += 1;
        }
        text.trim_start().to_string()
    }

    /// Looks upwards from an unsafe site for its note, as far as its own statement and the comment above it reach.
    fn is_noted(&self, index: usize, kind: UnsafeKind) -> bool {
        let note = if kind == UnsafeKind::Contract { "# Safety" } else { "SAFETY:" };
        if self.lines[index].comment.contains(note) {
            return true;
        }
        for line in self.lines[..index].iter().rev() {
            let code = line.code.trim();
            if line.comment.contains(note) {
                return true;
            }
            let is_comment = code.is_empty() && !line.comment.is_empty();
            let is_attribute = code.starts_with("#[") || code.ends_with(")]");
            let statement_goes_on = !code.is_empty() && !code.ends_with([';', '{', '}', ',']);
            if !(is_comment || is_attribute || statement_goes_on) {
                return false;
            }
        }
        false
    }
}

/// All Rust files under `root`, in order of path. Build output and hidden folders are left out.
///
/// # Panics
/// When the tree cannot be read: there is nothing to check then.
pub fn rust_sources(root: &Path) -> Vec<Source> {
    files(root)
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| {
            let text = read(root, &path);
            Source::new(path, &text)
        })
        .collect()
}

/// All files under `root` as paths from it, with `/`, in order. Leaves out `.git` and every `target` folder.
pub fn files(root: &Path) -> Vec<String> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("reading {}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("a readable directory entry").path();
            let name = path.file_name().unwrap_or_default();
            if path.is_symlink() || name == ".git" || name == "target" {
                continue;
            }
            if path.is_dir() {
                visit(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(root, &mut found);
    let relative = |path: &PathBuf| {
        let inside = path.strip_prefix(root).expect("found under the root");
        inside.to_string_lossy().replace('\\', "/")
    };
    let mut paths: Vec<String> = found.iter().map(relative).collect();
    paths.sort();
    paths
}

/// The text of a file of the repository; bytes that are not UTF-8 are replaced.
///
/// # Panics
/// When it cannot be read.
pub fn read(root: &Path, path: &str) -> String {
    let bytes = fs::read(root.join(path)).unwrap_or_else(|e| panic!("reading {path}: {e}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether `word` stands in `code` and is not a part of a longer name.
pub fn contains_word(code: &str, word: &str) -> bool {
    !word_positions(code, word).is_empty()
}

fn word_positions(code: &str, word: &str) -> Vec<usize> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let stands_alone = |&start: &usize| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        let open_end = word.ends_with(|c: char| !is_name(c));
        !before.is_some_and(is_name) && (open_end || !after.is_some_and(is_name))
    };
    code.match_indices(word).map(|(start, _)| start).filter(stands_alone).collect()
}

fn unsafe_kind(after: &str) -> Option<UnsafeKind> {
    let mut words = after.split_whitespace();
    let first = words.next()?;
    if first.starts_with('{') {
        return Some(UnsafeKind::Block);
    }
    if first.starts_with("impl") {
        return Some(UnsafeKind::Impl);
    }
    if first == "trait" || first == "auto" || first == "fn" {
        return Some(UnsafeKind::Contract);
    }
    if first.starts_with("extern") {
        // `unsafe extern "C" {` is a block, `unsafe extern "C" fn name` a contract, `unsafe extern "C" fn(` a type.
        return match words.find(|word| !word.starts_with('"')) {
            Some(word) if word.starts_with('{') => Some(UnsafeKind::Block),
            Some("fn") => Some(UnsafeKind::Contract),
            _ => None,
        };
    }
    None
}

/// What the scanner is inside of.
enum Inside {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
}

fn scan(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        if rest[0] == '\n' {
            if matches!(inside, Inside::LineComment) {
                inside = Inside::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let line = lines.last_mut().expect("there is always a line");
        at += match &mut inside {
            Inside::Code => {
                let (next, taken) = scan_code(rest, line);
                inside = next;
                taken
            }
            Inside::LineComment => {
                line.comment.push(rest[0]);
                1
            }
            Inside::BlockComment { depth } => {
                let taken = scan_block_comment(rest, line, depth);
                if *depth == 0 {
                    inside = Inside::Code;
                }
                taken
            }
            Inside::Text { hashes } => {
                let (closed, taken) = scan_text(rest, *hashes);
                if closed {
                    line.code.push('"');
                    inside = Inside::Code;
                }
                taken
            }
        };
    }
    lines
}

/// One step in code: what we are inside of afterwards, and how many characters it took.
fn scan_code(rest: &[char], line: &mut Line) -> (Inside, usize) {
    if rest.starts_with(&['/', '/']) {
        line.comment.push_str("//");
        return (Inside::LineComment, 2);
    }
    if rest.starts_with(&['/', '*']) {
        line.comment.push_str("/*");
        return (Inside::BlockComment { depth: 1 }, 2);
    }
    let in_name = line.code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest[0] == '"' {
        line.code.push('"');
        return (Inside::Text { hashes: None }, 1);
    }
    if rest[0] == 'r' && (!in_name || line.code.ends_with('b') || line.code.ends_with('c')) {
        let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            line.code.push('"');
            return (Inside::Text { hashes: Some(hashes) }, 2 + hashes);
        }
    }
    if rest[0] == '\''
        && let Some(length) = character_length(rest)
    {
        line.code.push_str("''");
        return (Inside::Code, length);
    }
    line.code.push(rest[0]);
    (Inside::Code, 1)
}

/// Length of a character literal, or `None` where the quote begins a lifetime.
fn character_length(rest: &[char]) -> Option<usize> {
    if rest.get(1) == Some(&'\\') {
        let close = rest.iter().skip(3).position(|c| *c == '\'')?;
        return Some(close + 4);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

fn scan_block_comment(rest: &[char], line: &mut Line, depth: &mut usize) -> usize {
    for (mark, deeper) in [(['/', '*'], true), (['*', '/'], false)] {
        if rest.starts_with(&mark) {
            *depth = if deeper { *depth + 1 } else { *depth - 1 };
            line.comment.extend(mark);
            return 2;
        }
    }
    line.comment.push(rest[0]);
    1
}

/// One step in a string: whether it closed, and how many characters it took.
fn scan_text(rest: &[char], hashes: Option<usize>) -> (bool, usize) {
    match hashes {
        None if rest[0] == '\\' && rest.get(1) != Some(&'\n') => (false, 2),
        None => (rest[0] == '"', 1),
        Some(count) => {
            let closes = rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= count;
            (closes, if closes { 1 + count } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        Source::new("a.rs", text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn words_in_strings_and_comments_are_not_code() {
        assert_eq!(code("let a = \"unsafe {\"; // unsafe {"), ["let a = \"\"; "]);
        assert_eq!(code("r#\"a \" unsafe\"# b /* x /* y */ unsafe */ c"), ["\"\" b  c"]);
        assert_eq!(code("br\"\\\" + b\"\\\"x\""), ["b\"\" + b\"\""]);
    }

    #[test]
    fn a_lifetime_does_not_open_a_character() {
        assert_eq!(
            code("fn f<'a>(x: &'a str, q: char) { q == '\\'' || q == '\"' }"),
            ["fn f<'a>(x: &'a str, q: char) { q == '' || q == '' }"]
        );
    }

    #[test]
    fn a_string_over_two_lines_keeps_the_line_numbers() {
        let source = Source::new("a.rs", "let a = \"x\ny\";\nlet unsafe_ = thread::sleep(d);");
        assert_eq!(source.lines_with("thread::sleep"), [3]);
        assert!(source.lines_with("unsafe").is_empty());
    }

    #[test]
    fn a_block_with_its_note_directly_above_is_noted() {
        let text =
            "// SAFETY: checked above.\n#[allow(x)]\nlet a =\n    unsafe { f() };\nlet b = unsafe { f() };";
        let sites = Source::new("a.rs", text).unsafe_sites();
        assert_eq!(
            sites,
            [
                UnsafeSite { line: 4, kind: UnsafeKind::Block, noted: true },
                UnsafeSite { line: 5, kind: UnsafeKind::Block, noted: false },
            ]
        );
    }

    #[test]
    fn contracts_implementations_and_types_are_told_apart() {
        let text = "/// # Safety\n/// None.\npub unsafe fn f() {}\nunsafe impl Send for A {}\n\
                    type F = unsafe extern \"C\" fn(i32);\n#[unsafe(no_mangle)]\nunsafe extern \"C\" {\n}";
        let kinds: Vec<_> =
            Source::new("a.rs", text).unsafe_sites().iter().map(|s| (s.kind, s.noted)).collect();
        assert_eq!(
            kinds,
            [(UnsafeKind::Contract, true), (UnsafeKind::Impl, false), (UnsafeKind::Block, false)]
        );
    }
}
