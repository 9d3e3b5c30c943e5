//! Options that are not ours: those of other launchers with what to write instead, and slips of the finger.

use std::ffi::OsStr;

use super::Usage;
use super::table::{Flag, flags};

/// Options that others have and we do not, and why or what instead.
pub(super) const FOREIGN: &[(&[&str], &str)] = &[
    (&["ntasks"], "this is srun's; write -n N"),
    (&["nodes"], "this is srun's; write -host with as many hosts, or -ppn N"),
    (&["ntasks-per-node", "tasks-per-node"], "this is srun's; write -ppn N"),
    (&["cpus-per-task"], "this is srun's; write --map-by :PE=N"),
    (&["nodelist", "w"], "this is srun's; write -host a,b"),
    (&["cpu-bind"], "this is srun's; write --bind-to"),
    (&["distribution", "m"], "this is srun's; write --map-by node or slot"),
    (&["chdir", "D"], "this is srun's; write --wdir DIR"),
    (&["export"], "this is srun's; write -x NAME=VALUE, or -genvlist a,b"),
    (&["label"], "this is srun's; write -l"),
    (&["multi-prog"], "this is srun's; write --app FILE, with a block in each line"),
    (&["mpi"], "this is srun's; write --pmi auto, 1, 2 or x"),
    (&["kill-on-bad-exit", "K"], "a rank that fails ends the job anyway"),
    (&["bind-to-core", "bind-to-socket", "bind-to-none"], "write --bind-to core, socket or none"),
    (&["path"], "write -x PATH=DIR:$PATH"),
    (&["localhost"], "this host is known by all its names and addresses"),
    (&["membind"], "start it under numactl: mpirun -n 2 numactl --localalloc ./program"),
    (&["enable-x", "disable-x"], "write --agent 'ssh -X', or leave it out"),
    (&["launch-agent"], "write --agent-program FILE, where mpirun is on the other hosts"),
    (&["spawn-timeout"], "write --start-timeout SECONDS"),
    (&["tmpdir", "set-cwd-to-session-dir"], "there is no folder for a job; set TMPDIR, or write --wdir DIR"),
    (&["display-topo", "show-progress", "prot"], "write -v"),
    (
        &["dvm", "dvm-uri", "nameserver", "report-child-jobs-separately"],
        "each mpirun is one job with all that its ranks spawn; nothing runs before it or after it",
    ),
    (&["d", "debug-daemons"], "write --display map for places, --report text for roads"),
    (&["report-uri"], "selvedge ps lists the jobs of a host"),
    (&["get-stack-traces"], "--timeout and selvedge where say in which call each rank is"),
    (&["print-all-exitcodes"], "the first rank that fails is named on standard error"),
    (&["aps", "mps", "trace", "check_mpi"], "start the tool as the program: mpirun -n 2 aps ./program"),
    (&["disable-auto-cleanup", "enable-recovery", "continuous"], "a rank that fails ends the job here"),
    (&["rmk"], "batch systems are recognised by their variables"),
    (&["nolocal", "nolocalhost"], "name the hosts that are to be used with -host"),
    (&["seq"], "write --rankfile FILE"),
    (&["cpu-list", "cpu-set"], "write --rankfile FILE, or confine mpirun itself with taskset"),
    (&["loadbalance"], "write --map-by node"),
    (
        &["prefix", "noprefix"],
        "agents are found by mpirun's own path; PATH and LD_LIBRARY_PATH are passed on",
    ),
    (&["preload-binary", "preload-files"], "the program must be on every host; nothing is copied"),
    (
        &["tune", "am", "info", "demux", "topolib", "hetero-nodes", "novm", "order-nodes"],
        "there is nothing here that it could set",
    ),
    (
        &["xterm", "gdb", "gdba", "tv", "debug", "gtool", "gtoolfile", "stop-on-exec", "output-proctable"],
        "start the debugger as the program: mpirun -n 2 xterm -e gdb ./program",
    ),
    (&["do-not-launch", "do-not-resolve"], "--display map shows the places, and the job starts"),
    (&["ckpoint-interval", "ckpoint-prefix", "ckpointlib"], "there are no checkpoints"),
];

/// Why an option is refused, and what to write.
pub(super) fn refuse(name: &OsStr, written: &OsStr) -> Usage {
    let written = written.display();
    let name = name.to_string_lossy();
    if let Some((_, hint)) = FOREIGN.iter().find(|(names, _)| names.contains(&&*name)) {
        return Usage(format!("{written}: {hint}"));
    }
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    if let short @ ("n" | "np" | "N" | "c" | "ppn") = &name[..name.len() - digits.len()]
        && !digits.is_empty()
    {
        return Usage(format!("unknown option {written}; write -{short} {digits}"));
    }
    match nearest(&name) {
        Some(known) => {
            let known = Flag::dashed(known);
            Usage(format!(
                "unknown option {written}; is {known} meant? mpirun --help all lists those there are"
            ))
        }
        None => Usage(format!("unknown option {written}; mpirun --help all lists those there are")),
    }
}

/// The option whose name is most like this one, where there is one that is like it.
fn nearest(name: &str) -> Option<&'static str> {
    const LENGTH_MAX: usize = 40;
    let length = name.chars().count();
    if !(2..=LENGTH_MAX).contains(&length) {
        return None;
    }
    let known = flags().flat_map(|flag| flag.names.iter().copied());
    let (distance, known) = known.map(|known| (distance(name, known), known)).min_by_key(|(d, _)| *d)?;
    (distance <= length.div_ceil(3).min(3) && distance < known.len()).then_some(known)
}

/// Letters to insert, delete, replace or swap with their neighbour; case counts for nothing.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let replaced = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        refuse(OsStr::new(name), OsStr::new(&format!("--{name}"))).to_string()
    }

    #[test]
    fn the_nearest_option_is_suggested() {
        for (slip, meant) in [
            ("host-file", "-hostfile"),
            ("hosfile", "-hostfile"),
            ("mapby", "--map-by"),
            ("bind-ot", "--bind-to"),
            ("wdri", "-wdir"),
            ("oversubscribed", "--oversubscribe"),
            ("PPN", "-ppn"),
            ("time-out", "--timeout"),
        ] {
            let why = refusal(slip);
            assert!(why.contains(&format!("is {meant} meant?")), "{slip}: {why}");
        }
        for strange in ["frobnicate", "z", "", "zzz", &"x".repeat(1000)] {
            assert!(!refusal(strange).contains("meant"), "{strange}: {}", refusal(strange));
        }
    }

    #[test]
    fn options_of_other_launchers_are_refused_with_what_to_write_instead() {
        assert!(refusal("ntasks-per-node").ends_with("write -ppn N"));
        assert!(refusal("label").ends_with("write -l"));
        assert!(refusal("n4").ends_with("write -n 4"));
    }

    #[test]
    fn no_name_stands_in_two_tables() {
        let ours = flags().flat_map(|flag| flag.names);
        let mut all: Vec<_> = ours.chain(FOREIGN.iter().flat_map(|(names, _)| names.iter())).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn distances_count_slips() {
        assert_eq!(distance("host", "host"), 0);
        assert_eq!(distance("hsot", "host"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("bind", "binding"), 3);
    }
}
