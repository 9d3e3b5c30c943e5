//! What `--help` and `--help all` say. Everything about options comes out of the table.

use super::table::{Flag, SECTIONS};

/// Columns of a terminal.
const WIDTH: usize = 100;
/// Where descriptions start in the short help, and how far text is indented in the long one.
const COLUMN: usize = 26;
const INDENT: usize = 4;

const USAGE: &str = "mpirun [options] program [arguments] [: [options] program [arguments]]...";

/// The text of `--help`: the options that most people need, one line each where that is enough.
pub(crate) fn short() -> String {
    let mut text = format!(
        "Usage: {USAGE}\n\nStarts the ranks of a parallel program, on this host or on many, and waits for them.\n"
    );
    for section in SECTIONS {
        let common: Vec<&Flag> = section.flags.iter().filter(|flag| flag.is_common).collect();
        if common.is_empty() {
            continue;
        }
        text += &format!("\n{}\n", section.title);
        for flag in common {
            let head = flag.head();
            let first = if head.len() + 3 <= COLUMN {
                format!("{head:width$}", width = COLUMN - 2)
            } else {
                String::new()
            };
            let lines = wrapped(flag.summary(), COLUMN);
            match first.is_empty() {
                true => text += &format!("  {head}\n{lines}"),
                false => text += &format!("  {first}{}", lines.trim_start()),
            }
        }
    }
    text + "\nmpirun --help all has the other options, the variables, the exit codes and examples.\n"
}

/// The text of `--help all`: a page as of a manual.
pub(crate) fn long() -> String {
    let mut text = String::new();
    let paragraph = |text: &mut String, words: &str| {
        text.push_str(&wrapped(words, INDENT));
        text.push('\n');
    };
    text += "NAME\n";
    paragraph(&mut text, "mpirun, mpiexec - start the ranks of a parallel program");
    text += &format!(
        "SYNOPSIS\n    {USAGE}\n    mpirun [options] --app FILE\n    mpirun --join ADDRESS [options] program [arguments]\n\n"
    );
    text += "DESCRIPTION\n";
    DESCRIPTION.iter().for_each(|words| paragraph(&mut text, words));
    for section in SECTIONS {
        text += &format!("{}\n", section.title.to_uppercase());
        for flag in section.flags {
            text += &format!("    {}\n{}", flag.head(), wrapped(flag.about, 2 * INDENT));
        }
        text.push('\n');
    }
    for (title, rows) in [("VARIABLES", VARIABLES), ("EXIT CODE", EXIT_CODES)] {
        text += &format!("{title}\n");
        for (what, about) in rows {
            text += &format!("    {what}\n{}", wrapped(about, 2 * INDENT));
        }
        text.push('\n');
    }
    text += "EXAMPLES\n";
    for (command, about) in EXAMPLES {
        text += &format!("    {command}\n{}", wrapped(about, 2 * INDENT));
    }
    text += "\nSEE ALSO\n";
    paragraph(
        &mut text,
        "selvedge ps, selvedge where, selvedge doctor; docs/guide-launcher.md, docs/FAILURES.md",
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

const DESCRIPTION: &[&str] = &[
    "mpirun starts the ranks of a program, gives each its place by PMI, passes on what they read and write, and ends with the \
     exit code of the first that fails. Parts of a line that are separated by a colon are programs of one job. Whoever \
     dies, nothing is left behind.",
    "Options take one dash or two, and their value as the next word or after '='. Those of Open MPI's mpirun and of hydra's \
     mpiexec are understood; docs/guide-launcher.md has them side by side. The case of letters counts. An option that there \
     is not is refused with the nearest that there is, and nothing is started. The first word that is no option is the \
     program, and what follows is its own.",
    "Without hosts on the line they come from HYDRA_HOST_FILE or from the batch system: Slurm, PBS, LSF, Grid Engine, \
     Cobalt. Else all ranks are on this host.",
    "Signals INT, TERM, HUP, QUIT, USR1, USR2, TSTP and CONT go to all ranks; a second INT, TERM, HUP or QUIT kills them. \
     Lines of different ranks are never mixed.",
];

const VARIABLES: &[(&str, &str)] = &[
    ("HYDRA_HOST_FILE, I_MPI_HYDRA_HOST_FILE", "A host file, where the line names no hosts."),
    (
        "SLURM_JOB_NODELIST, PBS_NODEFILE, LSB_MCPU_HOSTS, PE_HOSTFILE, COBALT_NODEFILE",
        "The hosts that a batch system has given us.",
    ),
    ("MPIEXEC_TIMEOUT", "As --timeout, where the line has none."),
    ("OMPI_MCA_orte_default_hostfile", "As --default-hostfile. Kubernetes' MPI operator sets it."),
    ("SELVEDGE_LIBPMIX", "The libpmix for programs that speak PMIx, where it is not found by its name."),
    (
        "SELVEDGE_TRANSPORT, SELVEDGE_REQUIRE, SELVEDGE_REPORT, SELVEDGE_QUIET, SELVEDGE_INTERFACE",
        "What --transport, --require, --report, --quiet and -iface set for the ranks.",
    ),
    ("PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS", "What scripts find that are started as ranks."),
    ("TMPDIR", "Where folders for PMIx are made, and taken away."),
];

const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "All ranks left with 0."),
    ("the rank's own", "The first rank that failed left with it, or gave it to abort (0 becomes 1)."),
    ("128 + N", "The first rank that failed died of signal N, or mpirun was asked to end by it."),
    ("1", "mpirun's own trouble; a rank that left without MPI_Finalize."),
    ("2", "A command line that cannot be followed; nothing was started."),
    ("69", "No road that --transport and --require allow."),
    ("124", "The time limit is over."),
    ("126, 127", "The program cannot be executed; it is not found."),
];

const EXAMPLES: &[(&str, &str)] = &[
    ("mpirun -n 4 ./program", "Four ranks on this host."),
    ("mpirun -H node1:8,node2:8 ./program", "Sixteen ranks on two hosts, by ssh."),
    ("mpirun -n 1 ./server : -n 8 ./client --fast", "Two programs, one job."),
    (
        "mpirun -n 8 --map-by socket --bind-to core --report-bindings ./program",
        "Sockets by turns, a core each, and say so.",
    ),
    (
        "mpirun -n 4 -genv OMP_NUM_THREADS 2 --output tag,timestamp ./program",
        "A variable, and marked output.",
    ),
    (
        "mpirun -n 4 -outfile-pattern 'out.%r' --timeout 600 ./program",
        "A file for each rank, ten minutes at most.",
    ),
    ("mpirun -ppn 8 -f hosts --require efa ./program", "Eight on each host, over EFA or not at all."),
];

/// Lines of words, each after so many blanks. Ends with a newline.
fn wrapped(words: &str, indent: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::super::table::flags;
    use super::*;

    #[test]
    fn the_long_help_has_every_name_of_every_option() {
        let text = long();
        for name in flags().flat_map(|flag| flag.names) {
            assert!(text.contains(&Flag::dashed(name)), "{name}");
        }
    }

    #[test]
    fn the_short_help_fits_two_screens_and_every_line_a_terminal() {
        assert!(short().lines().count() <= 60, "{}", short());
        for text in [short(), long()] {
            assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
            assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        }
    }

    #[test]
    fn descriptions_are_sentences() {
        for flag in flags() {
            assert!(flag.about.ends_with('.') && !flag.about.contains("  "), "{flag:?}");
            assert!(flag.summary().len() <= 90, "{flag:?}");
        }
    }

    #[test]
    fn lines_are_broken_between_words_only() {
        assert_eq!(wrapped("a b", 2), "  a b\n");
        let long = ["word"; 40].join(" ");
        assert_eq!(wrapped(&long, 4).split_whitespace().count(), 40);
    }
}
