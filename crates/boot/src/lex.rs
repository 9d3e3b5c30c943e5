//! One PMI-1 line taken apart: `cmd=NAME key=value key=value ...`.
//!
//! Fields may come in any order, unknown ones are somebody else's business, and a word without `=` says nothing
//! (`MPI_Publish_name("my svc")` arrives from MPICH as `service=my svc`). A backslash protects the next character, so
//! `\ ` does not end a value; values are kept as they were written, backslashes included, because what was put must
//! come back byte for byte, to clients that know escapes and to clients that do not.

use std::fmt;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It is not UTF-8.
    #[error("it is not text")]
    NotText,
    /// It does not start with `cmd=`.
    #[error("it does not start with cmd=")]
    NoCommand,
    /// Nobody knows this command.
    #[error("the command {0:?} is unknown")]
    UnknownCommand(String),
    /// A field that the command needs is not there.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field that must be a number is not one, or is out of range.
    #[error("the field {field} should be a number, not {value:?}")]
    BadNumber {
        /// Name of the field.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// It does not end.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
}

/// A line that is not PMI, together with what is wrong with it. Long lines are shortened for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The start of the line.
    pub line: String,
    /// What is wrong.
    pub fault: LineFault,
}

impl Malformed {
    pub(crate) fn new(line: &[u8], fault: LineFault) -> Malformed {
        const SHOWN_BYTES_MAX: usize = 120;
        let cut = &line[..line.len().min(SHOWN_BYTES_MAX)];
        let mut shown = String::from_utf8_lossy(cut).into_owned();
        if cut.len() < line.len() {
            shown.push_str("...");
        }
        Malformed { line: shown, fault }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed PMI line {:?}: {}", self.line, self.fault)
    }
}

impl std::error::Error for Malformed {}

/// The fields of one line. Looking one up walks the line: it has a handful of them.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    command: &'a str,
    rest: &'a str,
}

impl<'a> Fields<'a> {
    /// Takes a line without its newline apart.
    pub(crate) fn of(line: &'a str) -> Result<Fields<'a>, LineFault> {
        // A blank at the end may be a protected one, and belongs to its value.
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start_matches(' ');
        let (first, rest) = line.split_at(token_len(line));
        match first.split_once('=') {
            Some(("cmd", command)) if !command.is_empty() => Ok(Fields { command, rest }),
            _ => Err(LineFault::NoCommand),
        }
    }

    pub(crate) fn command(&self) -> &'a str {
        self.command
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.rest;
        loop {
            rest = rest.trim_start_matches(' ');
            if rest.is_empty() {
                return None;
            }
            let (token, tail) = rest.split_at(token_len(rest));
            match token.split_once('=') {
                Some((key, value)) if key == name => return Some(value),
                _ => rest = tail,
            }
        }
    }

    pub(crate) fn needed(&self, name: &'static str) -> Result<&'a str, LineFault> {
        self.text(name).ok_or(LineFault::Missing(name))
    }

    pub(crate) fn number<N: std::str::FromStr>(&self, name: &'static str) -> Result<Option<N>, LineFault> {
        self.text(name).map(|value| parse_number(name, value)).transpose()
    }

    pub(crate) fn needed_number<N: std::str::FromStr>(&self, name: &'static str) -> Result<N, LineFault> {
        parse_number(name, self.needed(name)?)
    }
}

pub(crate) fn parse_number<N: std::str::FromStr>(field: &'static str, value: &str) -> Result<N, LineFault> {
    value.parse().map_err(|_| LineFault::BadNumber { field, value: value.chars().take(40).collect() })
}

/// Bytes up to the first blank that no backslash protects. At least 1 where `text` starts with something else.
fn token_len(text: &str) -> usize {
    let mut protected = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if protected => protected = false,
            b'\\' => protected = true,
            b' ' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Makes any text fit to be a value: blanks and backslashes protected, control characters (newlines) turned to blanks.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if matches!(c, ' ' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Undoes [`escape`].
pub(crate) fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_found_by_name_in_any_order_and_unknown_ones_are_ignored() {
        let fields = Fields::of("cmd=get_result found=TRUE value=a=b lonely rc=0 ").unwrap();
        assert_eq!(fields.command(), "get_result");
        assert_eq!(fields.text("value"), Some("a=b"));
        assert_eq!(fields.text("rc"), Some("0"));
        assert_eq!(fields.text("lonely"), None);
    }

    #[test]
    fn a_protected_blank_does_not_end_a_value_and_the_value_stays_as_written() {
        let fields = Fields::of(r"cmd=put key=k value=a\ b c=d").unwrap();
        assert_eq!(fields.text("value"), Some(r"a\ b"));
        assert_eq!(fields.text("c"), Some("d"));
    }

    #[test]
    fn a_line_without_a_command_is_refused() {
        for line in ["", " ", "cmd=", "cmd", "put key=k", "mcmd=spawn"] {
            assert!(matches!(Fields::of(line), Err(LineFault::NoCommand)), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_escape_and_lexer(text in "[^\\p{Cc}]{1,40}") {
            let line = format!("cmd=abort message={} exitcode=1", escape(&text));
            let fields = Fields::of(&line).unwrap();
            prop_assert_eq!(unescape(fields.text("message").unwrap()), text);
            prop_assert_eq!(fields.text("exitcode"), Some("1"));
        }

        #[test]
        fn the_lexer_never_panics(line in "\\PC*") {
            if let Ok(fields) = Fields::of(&line) {
                let _ = fields.text("rc");
            }
        }
    }
}
