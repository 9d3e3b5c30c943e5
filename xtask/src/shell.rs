//! Running other programs: shown, collected, limited in time, and never asked for input.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a program that has ended may leave its output open in the hands of what it started.
const LEFT_OPEN_MAX: Duration = Duration::from_secs(5);

/// A command to run.
pub struct Run {
    command: Command,
    shown: String,
    limit: Duration,
    echo: bool,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; `None` when a signal or the time limit ended it, or it could not be started.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub text: String,
    /// What it wrote to standard error.
    pub errors: String,
    /// Why it failed, in a line; empty when it did not.
    pub why: String,
}

impl Run {
    /// `program` with `arguments`, no input, ten minutes, and what it says shown.
    pub fn new<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Run {
        let mut command = Command::new(program);
        command.args(arguments);
        Run::of(command)
    }

    /// A command that somebody else has made, with the same limits.
    pub fn of(mut command: Command) -> Run {
        command.stdin(Stdio::null());
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
        Run { shown: shown.join(" "), command, limit: Duration::from_secs(600), echo: true }
    }

    /// Cargo, the one we were started by.
    pub fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut run = Run::new(cargo, arguments);
        let words: Vec<_> = run.command.get_args().map(|word| quoted(&word.to_string_lossy())).collect();
        run.shown = format!("cargo {}", words.join(" "));
        run
    }

    /// Runs in `folder`.
    pub fn inside(mut self, folder: &Path) -> Run {
        self.command.current_dir(folder);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.shown = format!("{name}={} {}", quoted(&value.as_ref().to_string_lossy()), self.shown);
        self.command.env(name, value);
        self
    }

    /// Collects what it says without showing it.
    pub fn quiet(mut self) -> Run {
        self.echo = false;
        self
    }

    /// Ends it after this long, with everything it started.
    pub fn at_most(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// The command as one would type it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Runs it with our own terminal, for progress bars. Nothing is collected and nothing limits it.
    pub fn in_the_open(mut self) -> Outcome {
        println!("$ {}", self.shown);
        match self.command.status() {
            Ok(status) => Outcome::of(status, String::new(), String::new()),
            Err(error) => Outcome::not_started(&self.shown, &error),
        }
    }

    /// Runs it and collects both outputs.
    pub fn collect(mut self) -> Outcome {
        if self.echo {
            println!("$ {}", self.shown);
        }
        let began = Instant::now();
        let mut child = match self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return Outcome::not_started(&self.shown, &error),
        };
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("piped"), false, sender.clone());
        read_lines(child.stderr.take().expect("piped"), true, sender);

        let (mut text, mut errors) = (String::new(), String::new());
        let (mut ended, mut overdue) = (None, false);
        loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok((is_error, line)) => {
                    if self.echo {
                        print!("{line}");
                    }
                    if is_error { errors.push_str(&line) } else { text.push_str(&line) }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if ended.is_none() && matches!(child.try_wait(), Ok(Some(_))) {
                        ended = Some(Instant::now());
                    }
                    if ended.is_some_and(|since: Instant| since.elapsed() > LEFT_OPEN_MAX) {
                        errors.push_str("something it started outlived it and keeps its output open\n");
                        break;
                    }
                }
            }
            if !overdue && began.elapsed() > self.limit {
                overdue = true;
                end_with_descendants(child.id());
            }
        }
        let status = match child.wait() {
            Ok(status) => status,
            Err(error) => return Outcome::not_started(&self.shown, &error),
        };
        let mut outcome = Outcome::of(status, text, errors);
        if overdue {
            outcome.code = None;
            outcome.why = format!("ended after {} s, its limit", self.limit.as_secs());
        }
        outcome
    }
}

impl Outcome {
    fn of(status: std::process::ExitStatus, text: String, errors: String) -> Outcome {
        let why = if status.success() { String::new() } else { status.to_string() };
        Outcome { code: status.code(), text, errors, why }
    }

    fn not_started(shown: &str, error: &std::io::Error) -> Outcome {
        let why = format!("cannot start {shown}: {error}");
        Outcome { code: None, text: String::new(), errors: String::new(), why }
    }

    /// Whether it ended with code 0.
    pub fn is_ok(&self) -> bool {
        self.why.is_empty()
    }

    /// Why it failed: the status, and the last lines it wrote to standard error that say something.
    pub fn reason(&self) -> String {
        let said = |text: &str| -> Vec<String> {
            let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(3)..].iter().map(|line| without_colours(line.trim())).collect()
        };
        let mut last = said(&self.errors);
        if last.is_empty() {
            last = said(&self.text);
        }
        format!("{}: {}", self.why, last.join(" | "))
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({})", self.shown)
    }
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_string() } else { format!("'{word}'") }
}

/// The text without the escape sequences that colour it.
fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        // `ESC [ .. letter` and `ESC ( letter` are all that terminals of today are sent.
        let is_long = chars.next() == Some('[');
        for c in chars.by_ref() {
            if !is_long || c.is_ascii_alphabetic() {
                break;
            }
        }
    }
    plain
}

fn read_lines(from: impl Read + Send + 'static, is_error: bool, to: Sender<(bool, String)>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            if to.send((is_error, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// Kills a process and everything below it, the lowest last so that nobody starts a new one meanwhile.
fn end_with_descendants(process: u32) {
    let mut doomed = vec![process];
    let parents = parents();
    let mut next = 0;
    while next < doomed.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == doomed[next]).map(|(child, _)| *child);
        doomed.extend(children.collect::<Vec<_>>());
        next += 1;
    }
    for process in doomed {
        if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
            // It may have ended by itself meanwhile; then there is nothing to do.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let of_entry = |entry: fs::DirEntry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name may contain anything, so the fields are counted from its closing bracket: state, parent.
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        Some((process, parent))
    };
    entries.flatten().filter_map(of_entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_and_the_exit_code_are_collected() {
        let outcome = Run::new("sh", ["-c", "echo out; echo err >&2; exit 3"]).quiet().collect();
        assert_eq!(
            (outcome.code, outcome.text.as_str(), outcome.errors.as_str()),
            (Some(3), "out\n", "err\n")
        );
        assert!(outcome.reason().ends_with(": err"), "{}", outcome.reason());
    }

    #[test]
    fn a_program_past_its_limit_is_ended_with_what_it_started() {
        let began = Instant::now();
        let script = "sleep 600 & sleep 600";
        let outcome = Run::new("sh", ["-c", script]).quiet().at_most(Duration::from_millis(200)).collect();
        assert!(!outcome.is_ok() && outcome.why.contains("limit"), "{outcome:?}");
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn colours_do_not_reach_the_reason() {
        assert_eq!(without_colours("\u{1b}[31;1m-fn\u{1b}(B\u{1b}[m end"), "-fn end");
    }

    #[test]
    fn a_program_that_does_not_exist_is_said_by_name() {
        let outcome = Run::new("no-such-program", ["x"]).quiet().collect();
        assert!(outcome.why.starts_with("cannot start no-such-program x"), "{}", outcome.why);
    }
}
