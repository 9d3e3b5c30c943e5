//! The one PMI-1 request of many lines: start more processes.
//!
//! `count` blocks, each from `mcmd=spawn` to `endcmd`, the last of them where `spawnssofar` equals `totspawns`. The
//! order of the lines in a block varies between clients; a value runs to the end of its line, blanks included.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::BootError;
use crate::lex::{LineFault, parse_number};

/// A spawn: more processes to start, as a job of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRequest {
    /// What to start; the place in this list is the appnum of its processes.
    pub commands: Vec<SpawnCommand>,
    /// Pairs to be in the new job's store before it starts, each key once (Intel repeats them in every block).
    pub preput: Vec<(String, String)>,
}

/// What a launcher has made of a [`SpawnRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// Name of the new job.
    pub job: String,
    /// An error code for each process asked for, 0 for those that were started.
    pub codes: Vec<i32>,
}

/// One of the commands of a spawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnCommand {
    /// How many processes to start.
    pub processes: u32,
    /// The program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Wishes such as `wdir`.
    pub info: Vec<(String, String)>,
}

impl SpawnRequest {
    /// The lines for it, one block for each command.
    ///
    /// # Errors
    /// [`BootError::Spawn`] for what no line can carry: nothing to start, a line break or a zero in a word, blanks or `=` in a
    /// key.
    pub fn encode(&self) -> Result<String, BootError> {
        let total = self.commands.len();
        let mut lines = Lines::default();
        if total == 0 {
            return Err(BootError::Spawn { word: String::new() });
        }
        for (index, command) in self.commands.iter().enumerate() {
            lines.text.push_str("mcmd=spawn\n");
            lines.add("nprocs", &command.processes.to_string())?;
            lines.add("execname", &command.program)?;
            lines.add("totspawns", &total.to_string())?;
            lines.add("spawnssofar", &(index + 1).to_string())?;
            lines.add("argcnt", &command.args.len().to_string())?;
            for (index, arg) in command.args.iter().enumerate() {
                lines.add(&format!("arg{}", index + 1), arg)?;
            }
            lines.pairs("preput", &self.preput)?;
            lines.pairs("info", &command.info)?;
            lines.text.push_str("endcmd\n");
        }
        Ok(lines.text)
    }

    pub(crate) fn add(&mut self, command: SpawnCommand, preput: Vec<(String, String)>) {
        self.commands.push(command);
        for (key, value) in preput {
            if !self.preput.iter().any(|(known, _)| *known == key) {
                self.preput.push((key, value));
            }
        }
    }
}

/// The lines of a request under construction.
#[derive(Debug, Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn add(&mut self, key: &str, value: &str) -> Result<(), BootError> {
        if value.contains(['\n', '\r', '\0']) {
            return Err(BootError::Spawn { word: value.to_owned() });
        }
        self.text.push_str(&format!("{key}={value}\n"));
        Ok(())
    }

    fn pairs(&mut self, what: &str, pairs: &[(String, String)]) -> Result<(), BootError> {
        self.add(&format!("{what}_num"), &pairs.len().to_string())?;
        for (index, (key, value)) in pairs.iter().enumerate() {
            if key.is_empty() || key.contains([' ', '=']) {
                return Err(BootError::Spawn { word: key.clone() });
            }
            self.add(&format!("{what}_key_{index}"), key)?;
            self.add(&format!("{what}_val_{index}"), value)?;
        }
        Ok(())
    }
}

/// Collects the lines of a spawn. Bounded: the caller limits the bytes of a request.
#[derive(Debug, Default)]
pub struct SpawnReader {
    request: SpawnRequest,
    fields: BTreeMap<String, String>,
}

/// No command line has more arguments, and no request more pairs; the bytes of a request are bounded as well.
const PAIRS_MAX: u32 = 1 << 16;

impl SpawnReader {
    /// Whether this line starts a spawn.
    pub fn starts_with(line: &str) -> bool {
        line.trim_end_matches(['\r', ' ']) == "mcmd=spawn"
    }

    /// Takes the next line of a block, without its newline; the request when it was the last.
    ///
    /// # Errors
    /// What is wrong with the block; the reader is then of no more use.
    pub fn handle_line(&mut self, line: &str) -> Result<Option<SpawnRequest>, LineFault> {
        if SpawnReader::starts_with(line) {
            self.fields.clear();
            return Ok(None);
        }
        if line != "endcmd" {
            if let Some((key, value)) = line.split_once('=') {
                self.fields.insert(key.to_owned(), value.to_owned());
            }
            return Ok(None);
        }
        let total: u32 = self.number("totspawns")?.unwrap_or(1);
        let so_far = self.number("spawnssofar")?.unwrap_or(1);
        let command = SpawnCommand {
            processes: self.number("nprocs")?.ok_or(LineFault::Missing("nprocs"))?,
            program: self.fields.get("execname").ok_or(LineFault::Missing("execname"))?.clone(),
            args: self.list("argcnt", |i| format!("arg{}", i + 1))?,
            info: self.pairs("info_num", "info_key_", "info_val_")?,
        };
        let preput = self.pairs("preput_num", "preput_key_", "preput_val_")?;
        self.fields.clear();
        self.request.add(command, preput);
        Ok((so_far >= total).then(|| std::mem::take(&mut self.request)))
    }

    fn number(&self, name: &'static str) -> Result<Option<u32>, LineFault> {
        self.fields.get(name).map(|value| parse_number(name, value)).transpose()
    }

    fn list(&self, count: &'static str, key: impl Fn(u32) -> String) -> Result<Vec<String>, LineFault> {
        let items = self.number(count)?.unwrap_or(0);
        if items > PAIRS_MAX {
            return Err(LineFault::BadNumber { field: count, value: items.to_string() });
        }
        (0..items).map(|i| self.fields.get(&key(i)).cloned().ok_or(LineFault::Missing(count))).collect()
    }

    fn pairs(&self, count: &'static str, key: &str, value: &str) -> Result<Vec<(String, String)>, LineFault> {
        let keys = self.list(count, |i| format!("{key}{i}"))?;
        Ok(keys.into_iter().zip(self.list(count, |i| format!("{value}{i}"))?).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_are_read_whatever_the_order_of_their_lines() {
        let text = "mcmd=spawn\nnprocs=2\nexecname=./worker\ntotspawns=2\nspawnssofar=1\nargcnt=1\narg1=a b=c\n\
                    preput_num=1\npreput_key_0=PARENT_ROOT_PORT_NAME\npreput_val_0=tag#0$x\ninfo_num=0\nendcmd\n\
                    mcmd=spawn\narg1=x\nargcnt=1\ninfo_key_0=wdir\ninfo_val_0=/tmp\ninfo_num=1\nexecname=b\nnprocs=1\n\
                    totspawns=2\nspawnssofar=2\nendcmd\n";
        let mut reader = SpawnReader::default();
        let mut done = None;
        for line in text.lines() {
            assert!(done.is_none(), "complete only after the last line");
            done = reader.handle_line(line).unwrap();
        }
        let SpawnRequest { commands, preput } = done.unwrap();
        assert_eq!(commands.len(), 2);
        assert_eq!((commands[0].processes, commands[0].args[0].as_str()), (2, "a b=c"));
        assert_eq!(preput, [("PARENT_ROOT_PORT_NAME".into(), "tag#0$x".into())]);
        assert_eq!(commands[1].info, [("wdir".into(), "/tmp".into())]);
    }

    #[test]
    fn words_that_no_line_carries_are_refused() {
        let command = |program: &str, key: &str| SpawnRequest {
            commands: vec![SpawnCommand {
                processes: 1,
                program: program.to_owned(),
                args: Vec::new(),
                info: vec![(key.to_owned(), "x".to_owned())],
            }],
            preput: Vec::new(),
        };
        for request in
            [command("a\nendcmd", "wdir"), command("a", "a b"), command("a", ""), SpawnRequest::default()]
        {
            assert!(matches!(request.encode(), Err(BootError::Spawn { .. })), "{request:?}");
        }
    }

    #[test]
    fn a_block_that_lies_about_its_counts_is_refused() {
        let mut reader = SpawnReader::default();
        for line in ["mcmd=spawn", "nprocs=1", "execname=a", "argcnt=4000000000"] {
            assert_eq!(reader.handle_line(line), Ok(None));
        }
        assert!(matches!(reader.handle_line("endcmd"), Err(LineFault::BadNumber { field: "argcnt", .. })));
        let mut reader = SpawnReader::default();
        for line in ["mcmd=spawn", "nprocs=1", "execname=a", "argcnt=2", "arg1=x"] {
            assert_eq!(reader.handle_line(line), Ok(None));
        }
        assert_eq!(reader.handle_line("endcmd"), Err(LineFault::Missing("argcnt")));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            commands in prop::collection::vec((1..9_u32, "[ -~]{1,20}", prop::collection::vec("[ -~]{0,20}", 0..4)), 1..4),
            preput in prop::collection::btree_map("[a-z.]{1,9}", "[ -~]{0,20}", 0..3),
        ) {
            let commands = commands.into_iter().map(|(processes, program, args)| {
                let info = vec![("wdir".to_owned(), program.clone())];
                SpawnCommand { processes, program, args, info }
            });
            let request = SpawnRequest { commands: commands.collect(), preput: preput.into_iter().collect() };
            let text = request.encode().unwrap();
            let mut reader = SpawnReader::default();
            let read: Vec<SpawnRequest> = text.lines().filter_map(|line| reader.handle_line(line).unwrap()).collect();
            prop_assert_eq!(read, [request]);
        }

        #[test]
        fn random_lines_never_panic(lines in prop::collection::vec("(mcmd=spawn|endcmd|[a-z_0-9]{0,12}=?[0-9a-z]{0,8})", 0..30)) {
            let mut reader = SpawnReader::default();
            for line in lines {
                let _ = reader.handle_line(&line);
            }
        }
    }
}
