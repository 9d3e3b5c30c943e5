//! The most frequent words of a text. Each rank counts its share of the bytes; the counts are merged up a tree, as
//! values: a `HashMap` is a message.
//!
//! `mpirun -n 4 wordcount examples/data/alice.txt --top 5`

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use selvedge::{Communicator, World};
use selvedge_examples::{Failure, agree, text};

/// Counts the words of a text file.
#[derive(clap::Parser)]
#[command(name = "wordcount")]
struct Args {
    /// Text to count in; what is not UTF-8 separates words
    text: PathBuf,
    /// How many words to print
    #[arg(long, default_value_t = 10)]
    top: usize,
}

type Counts = HashMap<String, u64>;

fn main() -> ExitCode {
    selvedge_examples::main(wordcount)
}

fn wordcount(world: &World, args: Args) -> Result<(), Failure> {
    let share = text::share(&args.text, world.rank(), world.size(), |byte| byte.is_ascii_whitespace());
    let share = share.map_err(|error| format!("cannot read {}: {error}", args.text.display()));
    let counts = merge(world, count(&agree(world, share)?))?;
    let printed = if world.rank() == 0 { print(counts, args.top) } else { Ok(()) };
    agree(world, printed)
}

/// Words are letters, digits and apostrophes within; capitals do not count.
fn count(text: &[u8]) -> Counts {
    let mut counts = Counts::new();
    for word in String::from_utf8_lossy(text).split(|c: char| !c.is_alphanumeric() && c != '\'') {
        let word = word.trim_matches('\'').to_lowercase();
        if !word.is_empty() {
            *counts.entry(word).or_default() += 1;
        }
    }
    counts
}

/// Collective: everybody's counts together, on rank 0. In round k the ranks with bit k set hand theirs to the rank with
/// that bit clear, and are done.
fn merge(world: &Communicator, mut counts: Counts) -> selvedge::Result<Counts> {
    let (rank, mut bit) = (world.rank(), 1);
    while bit < world.size() {
        if rank & bit != 0 {
            world.send_value(&counts, rank - bit, 0)?;
            return Ok(Counts::new());
        }
        if rank + bit < world.size() {
            let (theirs, _) = world.recv_value::<Counts>(rank + bit, 0)?;
            for (word, times) in theirs {
                *counts.entry(word).or_default() += times;
            }
        }
        bit *= 2;
    }
    Ok(counts)
}

/// The `top` most frequent ones, those that are equally frequent by the alphabet.
fn print(counts: Counts, top: usize) -> io::Result<()> {
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by(|(a, a_times), (b, b_times)| b_times.cmp(a_times).then(a.cmp(b)));
    let mut out = io::stdout().lock();
    let words: u64 = counts.iter().map(|(_, times)| times).sum();
    writeln!(out, "{words} words, {} different", counts.len())?;
    counts.iter().take(top).try_for_each(|(word, times)| writeln!(out, "{times:>8} {word}"))
}
