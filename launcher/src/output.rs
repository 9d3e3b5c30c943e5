//! Whole lines out of what many ranks write at the same time. No input or output here: chunks in, bytes to write out.
//!
//! A line of one rank is never mixed with another's. What has no end yet is held back, until its newline comes, the rank
//! is done, it grows past [`LINE_BYTES_MAX`], or a terminal has waited long enough for it (a prompt). Then it is
//! written unfinished, and whoever writes next to the same place first gets a new line.
//!
//! A job of one rank without labels is passed through untouched.

use std::collections::HashMap;
use std::time::Duration;

use crate::proto::{Member, Stream};

/// The longest line that is kept together, in bytes. What is held back is at most this for each rank and stream.
pub const LINE_BYTES_MAX: usize = 256 << 10;

/// Who writes: a rank's output or error.
type Writer = (Member, Stream);

/// Turns chunks into bytes for our own standard output and error.
#[derive(Debug)]
pub struct Printer {
    labels: bool,
    /// What stands before the lines of a rank in place of `[rank] `.
    own_labels: HashMap<Member, String>,
    /// Time since the start, to stand before lines.
    clock: Option<Duration>,
    pass_through: bool,
    one_place: bool,
    held: HashMap<Writer, Vec<u8>>,
    /// Whose unfinished line is the last thing written; to output, to error.
    pens: [Option<Writer>; 2],
}

impl Printer {
    /// A printer for a job of `ranks` ranks. `one_place`: standard output and error lead to the same place, so a line
    /// on one must not cut a line on the other.
    pub fn new(ranks: u32, labels: bool, one_place: bool) -> Printer {
        let pass_through = ranks == 1 && !labels;
        Printer {
            labels,
            own_labels: HashMap::new(),
            clock: None,
            pass_through,
            one_place,
            held: HashMap::new(),
            pens: [None; 2],
        }
    }

    /// Lines from now on start with this time since the start.
    pub fn handle_clock(&mut self, now: Duration) {
        self.clock = Some(now);
        self.pass_through = false;
    }

    /// What stands before the lines of a rank from now on, unless that is known. The time, where it is wanted, before it.
    pub fn handle_label(&mut self, rank: Member, label: impl FnOnce() -> String) {
        self.own_labels.entry(rank).or_insert_with(label);
    }

    /// There are more ranks than those of the command line.
    pub fn handle_world(&mut self) {
        self.pass_through = false;
    }

    /// What stands before a line of a rank; nothing where nobody asked for it.
    fn label(&self, rank: Member) -> Option<String> {
        let now = self.clock.map(|now| now.as_secs_f64());
        if let Some(own) = self.own_labels.get(&rank) {
            return Some(now.map_or_else(|| own.clone(), |now| format!("[{now:.3}] {own}")));
        }
        match (self.labels, now) {
            (true, None) => Some(format!("[{rank}] ")),
            (true, Some(now)) => Some(format!("[{rank} {now:.3}] ")),
            (false, Some(now)) => Some(format!("[{now:.3}] ")),
            (false, None) => None,
        }
    }

    /// A rank has written `chunk`: what to write now. May be empty.
    pub fn handle_chunk(&mut self, rank: Member, stream: Stream, chunk: &[u8]) -> Vec<u8> {
        let writer = (rank, stream);
        if self.pass_through {
            return self.write(writer, &[chunk]);
        }
        let held = self.held.remove(&writer).unwrap_or_default();
        let lines = match chunk.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if held.len() + chunk.len() > LINE_BYTES_MAX => chunk.len(),
            None => 0,
        };
        let (now, later) = chunk.split_at(lines);
        if now.is_empty() {
            let mut held = held;
            held.extend_from_slice(later);
            self.held.insert(writer, held);
            return Vec::new();
        }
        if !later.is_empty() {
            self.held.insert(writer, later.to_vec());
        }
        self.write(writer, &[&held, now])
    }

    /// A rank will write no more: its last, unfinished line. May be empty.
    pub fn handle_end(&mut self, rank: Member, stream: Stream) -> Vec<u8> {
        let writer = (rank, stream);
        let held = self.held.remove(&writer).unwrap_or_default();
        let mut out = self.write(writer, &[&held]);
        if (self.labels || self.clock.is_some()) && *self.pen(stream) == Some(writer) {
            *self.pen(stream) = None;
            out.push(b'\n');
        }
        out
    }

    /// Whether unfinished lines for this stream are held back.
    pub fn holds(&self, stream: Stream) -> bool {
        self.held.keys().any(|(_, held)| *held == stream)
    }

    /// A terminal has waited for the end of a line: the unfinished lines of this stream.
    pub fn release(&mut self, stream: Stream) -> Vec<u8> {
        let mut writers: Vec<Writer> =
            self.held.keys().copied().filter(|(_, held)| *held == stream).collect();
        writers.sort_unstable_by_key(|(rank, _)| *rank);
        let mut out = Vec::new();
        for writer in writers {
            let held = self.held.remove(&writer).unwrap_or_default();
            out.extend(self.write(writer, &[&held]));
        }
        out
    }

    /// A line of our own, for standard error.
    pub fn say(&mut self, line: &str) -> Vec<u8> {
        self.pass_on(&format!("mpirun: {line}"))
    }

    /// A line that no rank has written, as it is, for standard error.
    pub fn pass_on(&mut self, line: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if self.pen(Stream::Err).take().is_some() {
            out.push(b'\n');
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        out
    }

    fn pen(&mut self, stream: Stream) -> &mut Option<Writer> {
        let at = if self.one_place || stream == Stream::Out { 0 } else { 1 };
        &mut self.pens[at]
    }

    /// The parts, one after the other, with labels and a new line where somebody else's is unfinished.
    fn write(&mut self, writer: Writer, parts: &[&[u8]]) -> Vec<u8> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes == 0 {
            return Vec::new();
        }
        let label = self.label(writer.0);
        let pen = self.pen(writer.1);
        let mut out = Vec::with_capacity(bytes + 1);
        let mut at_start = match *pen {
            Some(unfinished) if unfinished == writer => false,
            Some(_) => {
                out.push(b'\n');
                true
            }
            None => true,
        };
        for part in parts {
            let Some(label) = &label else {
                out.extend_from_slice(part);
                continue;
            };
            for line in part.split_inclusive(|byte| *byte == b'\n') {
                if at_start {
                    out.extend_from_slice(label.as_bytes());
                }
                out.extend_from_slice(line);
                at_start = line.ends_with(b"\n");
            }
        }
        *pen = if out.ends_with(b"\n") { None } else { Some(writer) };
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stream::{Err, Out};

    fn first(rank: u32) -> Member {
        Member { world: 0, rank }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_held_until_they_are_whole() {
        let mut printer = Printer::new(2, false, false);
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"ab")), "");
        assert_eq!(text(printer.handle_chunk(first(1), Out, b"x\ny")), "x\n");
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"c\nd\ne")), "abc\nd\n");
        assert_eq!(text(printer.handle_end(first(0), Out)), "e");
        assert_eq!(text(printer.handle_end(first(1), Out)), "\ny");
    }

    #[test]
    fn labels_stand_before_every_line_and_the_last_line_gets_its_newline() {
        let mut printer = Printer::new(1, true, false);
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"a\n\nb")), "[0] a\n[0] \n");
        assert_eq!(text(printer.handle_end(first(0), Out)), "[0] b\n");
        assert_eq!(text(printer.handle_end(first(0), Err)), "");
    }

    #[test]
    fn the_time_stands_before_every_line_where_there_is_a_clock() {
        let mut printer = Printer::new(1, false, false);
        printer.handle_clock(Duration::from_millis(1500));
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"a\nb")), "[1.500] a\n");
        printer.handle_clock(Duration::from_secs(61));
        assert_eq!(text(printer.handle_end(first(0), Out)), "[61.000] b\n");
        let mut both = Printer::new(3, true, false);
        both.handle_clock(Duration::from_micros(250));
        assert_eq!(text(both.handle_chunk(first(2), Err, b"x\n")), "[2 0.000] x\n");
    }

    #[test]
    fn a_label_of_ones_own_stands_in_the_place_of_the_rank() {
        let mut printer = Printer::new(2, true, false);
        printer.handle_label(first(1), || "one: ".into());
        printer.handle_label(first(1), || "never".into());
        assert_eq!(text(printer.handle_chunk(first(1), Out, b"a\nb\n")), "one: a\none: b\n");
        printer.handle_clock(Duration::from_millis(2500));
        assert_eq!(text(printer.handle_chunk(first(1), Out, b"c\n")), "[2.500] one: c\n");
    }

    #[test]
    fn a_lone_rank_is_passed_through_untouched() {
        let mut printer = Printer::new(1, false, false);
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"prompt> ")), "prompt> ");
        assert_eq!(printer.handle_chunk(first(0), Out, &[0, 255]), [0, 255]);
        assert_eq!(text(printer.handle_end(first(0), Out)), "");
    }

    #[test]
    fn our_own_line_starts_on_a_new_one() {
        let mut printer = Printer::new(1, false, true);
        printer.handle_chunk(first(0), Out, b"unfinished");
        assert_eq!(text(printer.say("so it is")), "\nmpirun: so it is\n");
        assert_eq!(text(printer.say("and so")), "mpirun: and so\n");
        let mut apart = Printer::new(1, false, false);
        apart.handle_chunk(first(0), Out, b"unfinished");
        assert_eq!(text(apart.say("elsewhere")), "mpirun: elsewhere\n");
    }

    #[test]
    fn a_line_beyond_the_limit_is_written_in_pieces_and_nothing_of_it_is_lost() {
        let mut printer = Printer::new(2, true, false);
        let line = vec![b'z'; 3 * LINE_BYTES_MAX];
        let mut out = Vec::new();
        for chunk in line.chunks(60_000) {
            out.extend(printer.handle_chunk(first(1), Out, chunk));
            assert!(printer.held.values().all(|held| held.len() <= LINE_BYTES_MAX));
        }
        out.extend(printer.handle_chunk(first(1), Out, b"\n"));
        let expected = [&b"[1] "[..], &line, b"\n"].concat();
        assert_eq!(out.len(), expected.len());
        assert!(out == expected);
    }

    #[test]
    fn a_terminal_gets_a_prompt_and_the_others_a_new_line_after_it() {
        let mut printer = Printer::new(2, true, true);
        printer.handle_chunk(first(0), Out, b"name? ");
        assert!(printer.holds(Out) && !printer.holds(Err));
        assert_eq!(text(printer.release(Out)), "[0] name? ");
        assert_eq!(text(printer.handle_chunk(first(1), Err, b"x\n")), "\n[1] x\n");
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"thanks\n")), "[0] thanks\n");
    }

    #[test]
    fn a_line_continued_after_its_start_was_released_gets_no_second_label() {
        let mut printer = Printer::new(2, true, false);
        printer.handle_chunk(first(0), Out, b"name? ");
        assert_eq!(text(printer.release(Out)), "[0] name? ");
        assert_eq!(text(printer.handle_chunk(first(0), Out, b"thanks\n")), "thanks\n");
    }

    #[test]
    fn spawned_ranks_have_their_world_before_them_and_end_the_passing_through() {
        let mut printer = Printer::new(1, true, false);
        let child = Member { world: 2, rank: 7 };
        assert_eq!(text(printer.handle_chunk(child, Out, b"a\n")), "[2.7] a\n");
        let mut plain = Printer::new(1, false, false);
        plain.handle_world();
        assert_eq!(text(plain.handle_chunk(child, Out, b"hal")), "");
        assert_eq!(text(plain.handle_chunk(first(7), Out, b"x\n")), "x\n");
        assert_eq!(text(plain.handle_chunk(child, Out, b"f\n")), "half\n");
    }
}
