//! The canonical text of a schedule: one step per line, stable, written and read back by this file only.
//!
//! ```text
//! scratch 8
//! 0: send in[0..8] -> 1 #2
//! 1: recv scratch[0..8] <- 1 #2
//! 2: reduce in[0..8] left of scratch[0..8] after 1
//! 3: copy scratch[0..8] -> out[0..8] after 2
//! ```
//!
//! Lines without text and lines that start with `//` are skipped when reading.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};

use crate::{Action, Rank, Schedule, Side, Slice, Space, StepIndex};

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            Space::Input => "in",
            Space::Output => "out",
            Space::Scratch => "scratch",
        };
        // Flaws print slices that reach behind everything.
        write!(f, "{space}[{}..{}]", self.offset, u128::from(self.offset) + u128::from(self.len))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Send { to, from, label } => write!(f, "send {from} -> {} #{label}", to.0),
            Action::Recv { from, into, label } => write!(f, "recv {into} <- {} #{label}", from.0),
            Action::Copy { from, into } => write!(f, "copy {from} -> {into}"),
            Action::Reduce { from, into, side: Side::Left } => write!(f, "reduce {from} left of {into}"),
            Action::Reduce { from, into, side: Side::Right } => write!(f, "reduce {from} right of {into}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scratch {}", self.scratch_bytes())?;
        for (step, action, after) in self.iter() {
            write!(f, "{step}: {action}")?;
            if !after.is_empty() {
                write!(f, " after")?;
            }
            for earlier in after {
                write!(f, " {earlier}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// Counted from 1; behind the last line if something is missing there.
    pub line: usize,
    /// What is wrong with it.
    pub why: ParseWhy,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseWhy {
    /// Something else, or nothing, stands where this should.
    #[error("expected {wanted}, found {found:?}")]
    Expected {
        /// What should stand there.
        wanted: &'static str,
        /// What does; empty at the end of the line.
        found: String,
    },
    /// Steps are numbered 0, 1, 2, ...
    #[error("this should be step {0}")]
    Numbering(StepIndex),
    /// A step can only run after earlier ones.
    #[error("runs after step {0}, which is not an earlier one")]
    NotEarlier(StepIndex),
}

impl FromStr for Schedule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Schedule, ParseError> {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with("//")
        });
        let (line, head) = lines.next().unwrap_or((text.lines().count() + 1, ""));
        let at = |line| move |why| ParseError { line, why };
        let mut schedule = Schedule::new(parse_head(head).map_err(at(line))?);
        let mut after = Vec::new();
        for (line, text) in lines {
            let action = parse_step(text, schedule.len(), &mut after).map_err(at(line))?;
            schedule.push(action, &after);
        }
        Ok(schedule)
    }
}

fn parse_head(line: &str) -> Result<u64, ParseWhy> {
    let mut words = Words(line.split_whitespace());
    words.literal("scratch", "`scratch` and a number of bytes")?;
    let bytes = words.parse("a number of bytes", |word| word.parse().ok())?;
    words.end()?;
    Ok(bytes)
}

fn parse_step(line: &str, steps: usize, after: &mut Vec<StepIndex>) -> Result<Action, ParseWhy> {
    let mut words = Words(line.split_whitespace());
    let number = words.parse("the number of the step and a colon", |word| {
        word.strip_suffix(':').and_then(|digits| digits.parse::<u32>().ok())
    })?;
    if number as usize != steps {
        return Err(ParseWhy::Numbering(steps as u32));
    }
    let action = parse_action(&mut words)?;
    after.clear();
    if let Some(word) = words.0.next() {
        if word != "after" {
            return Err(expected("`after` or the end of the line", word));
        }
        loop {
            let earlier = words.parse("the number of an earlier step", |word| word.parse().ok())?;
            if earlier >= number {
                return Err(ParseWhy::NotEarlier(earlier));
            }
            after.push(earlier);
            if words.0.clone().next().is_none() {
                break;
            }
        }
    }
    words.end()?;
    Ok(action)
}

fn parse_action(words: &mut Words<'_>) -> Result<Action, ParseWhy> {
    match words.0.next().unwrap_or_default() {
        "send" => {
            let from = words.slice()?;
            words.literal("->", "`->`")?;
            Ok(Action::Send { to: words.rank()?, from, label: words.label()? })
        }
        "recv" => {
            let into = words.slice()?;
            words.literal("<-", "`<-`")?;
            Ok(Action::Recv { from: words.rank()?, into, label: words.label()? })
        }
        "copy" => {
            let from = words.slice()?;
            words.literal("->", "`->`")?;
            Ok(Action::Copy { from, into: words.slice()? })
        }
        "reduce" => {
            let from = words.slice()?;
            let side = words.parse("`left of` or `right of`", |word| match word {
                "left" => Some(Side::Left),
                "right" => Some(Side::Right),
                _ => None,
            })?;
            words.literal("of", "`of`")?;
            Ok(Action::Reduce { from, into: words.slice()?, side })
        }
        word => Err(expected("send, recv, copy or reduce", word)),
    }
}

fn expected(wanted: &'static str, found: &str) -> ParseWhy {
    ParseWhy::Expected { wanted, found: found.to_owned() }
}

/// What is left of a line.
struct Words<'a>(SplitWhitespace<'a>);

impl Words<'_> {
    fn parse<T>(&mut self, wanted: &'static str, read: impl Fn(&str) -> Option<T>) -> Result<T, ParseWhy> {
        let word = self.0.next().unwrap_or_default();
        read(word).ok_or_else(|| expected(wanted, word))
    }

    fn literal(&mut self, literal: &str, wanted: &'static str) -> Result<(), ParseWhy> {
        self.parse(wanted, |word| (word == literal).then_some(()))
    }

    fn rank(&mut self) -> Result<Rank, ParseWhy> {
        self.parse("a rank", |word| word.parse().ok().map(Rank))
    }

    fn label(&mut self) -> Result<u32, ParseWhy> {
        self.parse("a label such as #2", |word| word.strip_prefix('#')?.parse().ok())
    }

    fn slice(&mut self) -> Result<Slice, ParseWhy> {
        self.parse("a slice such as out[0..64]", |word| {
            let (space, range) = word.strip_suffix(']')?.split_once('[')?;
            let space = match space {
                "in" => Space::Input,
                "out" => Space::Output,
                "scratch" => Space::Scratch,
                _ => return None,
            };
            let (start, end) = range.split_once("..")?;
            let offset: u64 = start.parse().ok()?;
            let len = end.parse::<u64>().ok()?.checked_sub(offset)?;
            Some(Slice { space, offset, len })
        })
    }

    fn end(&mut self) -> Result<(), ParseWhy> {
        match self.0.next() {
            None => Ok(()),
            Some(word) => Err(expected("the end of the line", word)),
        }
    }
}
