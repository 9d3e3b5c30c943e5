//! The house rules, each as a function that returns what breaks it. `tests/house.rs` runs them as tests.
//!
//! A rule that is not a function here is a wish. Adding one: write it, give it a test named by its sentence.

use std::collections::BTreeSet;
use std::path::Path;

use crate::manifests::{self, Workspace};
use crate::source::{self, Source};
use crate::{facts, peers, stages};

/// Most lines a file may have. Past 500 it is listed by `cargo xtask facts`.
pub const LINES_MAX: usize = 1_000;

/// Most methods the trait `Transport` may have. The contract is what a new network costs; ten is the aim.
pub const TRANSPORT_METHODS_MAX: usize = 14;

/// The floor of every package, from the ground up. An arrow must lead to a lower floor, so packages of the same floor
/// have no doors between them. `selvedge-macros` is a tool of the compiler: it may be used from floor 3 and uses nothing.
/// `selvedge-testbed` is the ground that tests of every floor may stand on.
const FLOORS: &[(&str, u32)] = &[
    ("selvedge-transport", 1),
    ("selvedge-gate", 1),
    ("selvedge-dlopen", 1),
    ("selvedge-coll", 2),
    ("selvedge-engine", 2),
    ("selvedge-ofi", 2),
    ("selvedge-shm", 2),
    ("selvedge-boot", 2),
    ("selvedge-pmix", 2),
    ("selvedge-macros", 2),
    ("selvedge", 3),
    ("selvedge-capi", 4),
    ("selvedge-launcher", 4),
    ("selvedge-doctor", 4),
    ("selvedge-examples", 4),
    ("selvedge-benches", 4),
    ("selvedge-softefa", 4),
    ("selvedge-testbed", 0),
    ("xtask", 5),
];

/// Packages that may use fewer floors than lie below them, and what they may use.
const NARROW: &[(&str, &[&str])] = &[
    ("selvedge-boot", &[]),
    ("selvedge-pmix", &["selvedge-dlopen"]),
    ("selvedge-macros", &[]),
    ("selvedge-launcher", &["selvedge-boot", "selvedge-pmix"]),
    ("selvedge-examples", &["selvedge"]),
    ("selvedge-softefa", &[]),
    ("selvedge-testbed", &[]),
    ("xtask", &["selvedge-testbed"]),
];

/// Nobody's dependency: test apparatus and tools.
const STANDS_APART: &[&str] = &["selvedge-softefa", "xtask"];

/// What tests and `xtask` depend on, and nothing that is shipped.
const FOR_TESTS: &[&str] = &["selvedge-testbed"];

/// Crates that forbid unsafe code.
const PURE: &[&str] = &["crates/coll", "crates/engine", "crates/boot"];

/// Where clock, randomness, environment and threads enter as arguments only. Their tests and examples may have a clock.
const TIMELESS: &[&str] = &["crates/transport/src/", "crates/coll/src/", "crates/engine/src/"];

/// What must not be said there.
const OUTSIDE_WORLD: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "env::var",
    "env::var_os",
    "env::vars",
    "env::args",
    "thread::sleep",
    "thread::spawn",
    "thread::scope",
    "thread::park",
    "thread::yield_now",
    "thread::Builder",
];

/// The repository, read once.
#[derive(Debug)]
pub struct House {
    /// What cargo knows.
    pub workspace: Workspace,
    /// Every Rust file.
    pub sources: Vec<Source>,
    /// Every file.
    pub files: Vec<String>,
}

impl House {
    /// Reads the repository this crate was built in.
    pub fn load() -> House {
        let workspace = Workspace::load();
        let sources = source::rust_sources(&workspace.root);
        let files = source::files(&workspace.root);
        House { workspace, sources, files }
    }

    fn root(&self) -> &Path {
        &self.workspace.root
    }

    /// Arrows that do not point down, doors between rooms of one floor, packages without a floor.
    pub fn arrows_that_do_not_point_down(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for package in self.workspace.packages.values() {
            let Some(floor) = floor(&package.name) else {
                broken.push(format!("{} has no floor: name it in xtask/src/rules.rs", package.name));
                continue;
            };
            for used in package.uses.union(&package.uses_in_tests) {
                // What only tests use need not be in the narrow list: real ranks under mpirun. It still has to be below.
                let narrow = NARROW.iter().find(|(name, _)| *name == package.name);
                let allowed = match narrow.filter(|_| package.uses.contains(used)) {
                    Some((_, list)) => list.contains(&used.as_str()),
                    None => floor > self::floor(used).unwrap_or(u32::MAX),
                };
                let is_shipped = package.uses.contains(used) && package.name != "xtask";
                let is_out_of_place = is_shipped && FOR_TESTS.contains(&used.as_str());
                if !allowed || is_out_of_place || STANDS_APART.contains(&used.as_str()) {
                    broken.push(format!("{} must not use {used}", package.name));
                }
            }
        }
        broken
    }

    /// Pure crates whose root does not forbid unsafe code.
    pub fn pure_crates_that_allow_unsafe(&self) -> Vec<String> {
        let forbids = |folder: &str| {
            let root = format!("{folder}/src/lib.rs");
            let source = self.sources.iter().find(|source| source.path == root);
            source.is_some_and(|s| s.lines.iter().any(|line| line.code.contains("#![forbid(unsafe_code)]")))
        };
        PURE.iter().filter(|folder| !forbids(folder)).map(|folder| folder.to_string()).collect()
    }

    /// Files with unsafe code that the table of `docs/ARCHITECTURE.md` does not name, and names in it that are stale.
    pub fn unsafe_outside_the_table(&self) -> Vec<String> {
        let table = self.unsafe_table();
        let with_unsafe = self.sources.iter().filter(|source| !source.unsafe_sites().is_empty());
        let found: BTreeSet<String> = with_unsafe.map(|source| source.path.clone()).collect();
        let unnamed =
            found.difference(&table).map(|path| format!("{path} has unsafe code and is not in the table"));
        let stale =
            table.difference(&found).map(|path| format!("{path} is in the table and has no unsafe code"));
        unnamed.chain(stale).collect()
    }

    /// The files that `docs/ARCHITECTURE.md` allows unsafe code in.
    pub fn unsafe_table(&self) -> BTreeSet<String> {
        let page = source::read(self.root(), "docs/ARCHITECTURE.md");
        let section = page.lines().skip_while(|line| *line != "## Where unsafe code lives").skip(1);
        let rows =
            section.take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next())
            .filter(|path| path.ends_with(".rs"))
            .map(str::to_string)
            .collect()
    }

    /// Unsafe blocks, implementations and contracts without their note.
    pub fn unsafe_without_a_note(&self) -> Vec<String> {
        let of = |source: &Source| -> Vec<String> {
            let bare = source.unsafe_sites().into_iter().filter(|site| !site.noted);
            bare.map(|site| format!("{}:{}: {:?}", source.path, site.line, site.kind)).collect()
        };
        self.sources.iter().flat_map(of).collect()
    }

    /// Clocks, environment and threads on floors 1 and 2, outside `ofi`, `shm` and `boot`.
    pub fn clocks_and_threads_below(&self) -> Vec<String> {
        let timeless =
            self.sources.iter().filter(|s| TIMELESS.iter().any(|folder| s.path.starts_with(folder)));
        let mut broken = Vec::new();
        for source in timeless {
            for word in OUTSIDE_WORLD {
                let lines = source.lines_with(word);
                broken.extend(lines.iter().map(|line| format!("{}:{line}: {word}", source.path)));
            }
        }
        broken
    }

    /// Files in which a second thing has moved in.
    pub fn files_past_the_limit(&self) -> Vec<String> {
        let long = self.sources.iter().filter(|source| source.lines.len() > LINES_MAX);
        long.map(|source| format!("{}: {} lines", source.path, source.lines.len())).collect()
    }

    /// Third-party dependencies without a reason.
    pub fn dependencies_without_a_reason(&self) -> Vec<String> {
        manifests::dependencies_without_a_reason(self.root())
    }

    /// Whether the trait `Transport` has grown past its limit.
    pub fn transport_past_its_limit(&self) -> Vec<String> {
        let methods = facts::transport_methods(&self.sources);
        if methods.is_empty() {
            return vec!["trait Transport was not found in crates/transport/src/transport.rs".to_string()];
        }
        let extra = methods.get(TRANSPORT_METHODS_MAX..).unwrap_or_default();
        extra.iter().map(|name| format!("Transport::{name} is one method too many")).collect()
    }

    /// Paths of somebody's machine and hosts of package registries in files people read.
    pub fn paths_and_hosts_of_one_machine(&self) -> Vec<String> {
        // Written in pieces, so that this file does not break its own rule.
        let words = [
            concat!("/wo", "rk/main"),
            concat!("/wo", "rk/shared"),
            concat!("/ro", "ot/"),
            concat!("/ho", "me/"),
            concat!("crates", ".io"),
            concat!("py", "pi.org"),
            concat!("python", "hosted.org"),
            concat!("npm", "js.org"),
            concat!("deb.deb", "ian.org"),
        ];
        let mut broken = Vec::new();
        for path in self.files.iter().filter(|path| is_text(path)) {
            for (index, line) in source::read(self.root(), path).lines().enumerate() {
                let found = words.iter().filter(|word| line.contains(**word));
                broken.extend(found.map(|word| format!("{path}:{}: {word}", index + 1)));
            }
        }
        broken
    }

    /// Commands in the pages for readers that name a program, a command of xtask or a stage that does not exist.
    pub fn commands_that_do_not_exist(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for page in self.files.iter().filter(|path| path.ends_with(".md")) {
            let text = source::read(self.root(), page);
            let of_page = shell_lines(&text).into_iter().chain(number_commands(page, &text));
            broken.extend(
                of_page.filter_map(|command| Some(format!("{page}: {}", self.wrong_with(&command)?))),
            );
        }
        broken
    }

    /// Rows of `docs/NUMBERS.md` that do not say how to repeat them.
    pub fn numbers_without_a_command(&self) -> Vec<String> {
        let text = source::read(self.root(), "docs/NUMBERS.md");
        let rows: Vec<&str> = text.lines().filter(|line| is_figure(line)).collect();
        if rows.is_empty() {
            return vec!["docs/NUMBERS.md has no rows".to_string()];
        }
        rows.into_iter().filter(|row| row_commands(row).is_empty()).map(str::to_string).collect()
    }

    fn wrong_with(&self, command: &str) -> Option<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let programs = self.workspace.programs();
        let last_part = |word: &str| word.rsplit('/').next().unwrap_or_default().to_string();
        match words.as_slice() {
            ["cargo", "xtask", rest @ ..] => wrong_with_xtask(rest, command),
            ["cargo" | "git" | "cd" | "sudo" | "apt-get" | "source" | "export" | "salloc", ..] | [] => None,
            [first, rest @ ..] if last_part(first) == "mpirun" || last_part(first) == "mpiexec" => {
                let named = rest.iter().any(|w| programs.contains(last_part(w).as_str()) || *w == "python");
                let own = rest.iter().any(|w| last_part(w) == "program" || w.starts_with("./my"));
                let known = programs.contains(last_part(first).as_str()) && (named || own);
                (!known).then(|| format!("no program of ours in: {command}"))
            }
            [first, ..] => {
                (!programs.contains(last_part(first).as_str())).then(|| format!("no program: {command}"))
            }
        }
    }
}

fn floor(package: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == package).map(|(_, floor)| *floor)
}

fn is_text(path: &str) -> bool {
    path != "Cargo.lock" && ![".png", ".jpg", ".gz"].iter().any(|end| path.ends_with(end))
}

/// The commands of a page's `sh` blocks, without prompts, comments and continuation marks.
fn shell_lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = line.trim() == "```sh";
        } else if inside {
            let command = line.split(" # ").next().unwrap_or_default().trim();
            if !command.starts_with('#') {
                lines.push(command.to_string());
            }
        }
    }
    lines
}

/// A row of a table, head and rule left out.
fn is_figure(line: &str) -> bool {
    line.starts_with('|')
        && !line.starts_with("| what")
        && !line.starts_with("|---")
        && !line.starts_with("| -")
}

fn number_commands(page: &str, text: &str) -> Vec<String> {
    if page != "docs/NUMBERS.md" {
        return Vec::new();
    }
    text.lines().filter(|line| is_figure(line)).flat_map(row_commands).collect()
}

/// What stands in back quotes in the last cell of a row of `docs/NUMBERS.md`.
fn row_commands(row: &str) -> Vec<String> {
    let cell = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    cell.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

fn wrong_with_xtask(rest: &[&str], command: &str) -> Option<String> {
    match rest {
        ["test", "--only", stage, ..] if *stage == "STAGE" || stages::is_stage(stage) => None,
        ["test"] | ["test", "--list"] | ["demo"] | ["facts"] | ["interop"] => None,
        ["starts"] | ["cluster"] => None,
        ["cluster", "--hosts", "2" | "4" | "32"] => None,
        ["interop", "--hosts", "1" | "2"] => None,
        ["peers", options @ ..] if peers::are_options(options) => None,
        _ => Some(format!("no such command of xtask: {command}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::Package;

    fn house(packages: &[(&str, &[&str])], sources: &[(&str, &str)]) -> House {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
        let package = |(name, uses): &(&str, &[&str])| Package {
            name: name.to_string(),
            folder: String::new(),
            uses: names(uses),
            uses_in_tests: BTreeSet::new(),
            programs: names(&["osu", "mpirun"]),
        };
        let packages = packages.iter().map(|p| (p.0.to_string(), package(p))).collect();
        let workspace = Workspace { root: "/".into(), target: "/".into(), packages };
        let sources = sources.iter().map(|(path, text)| Source::new(*path, text)).collect();
        House { workspace, sources, files: Vec::new() }
    }

    #[test]
    fn tests_of_the_launcher_may_use_the_library_and_the_launcher_may_not() {
        let shipped = house(&[("selvedge-launcher", &["selvedge"])], &[]);
        assert_eq!(shipped.arrows_that_do_not_point_down(), ["selvedge-launcher must not use selvedge"]);
        let mut tested = house(&[("selvedge-launcher", &[])], &[]);
        for package in tested.workspace.packages.values_mut() {
            package.uses_in_tests = ["selvedge".to_string()].into();
        }
        assert!(tested.arrows_that_do_not_point_down().is_empty());
    }

    #[test]
    fn tests_and_xtask_may_use_the_testbed_and_nothing_that_is_shipped_may() {
        let shipped = house(&[("selvedge-doctor", &["selvedge-testbed"])], &[]);
        assert_eq!(
            shipped.arrows_that_do_not_point_down(),
            ["selvedge-doctor must not use selvedge-testbed"]
        );
        let mut tested = house(&[("selvedge-doctor", &[]), ("xtask", &["selvedge-testbed"])], &[]);
        for package in tested.workspace.packages.values_mut() {
            package.uses_in_tests = ["selvedge-testbed".to_string()].into();
        }
        assert!(tested.arrows_that_do_not_point_down().is_empty());
    }

    #[test]
    fn a_door_between_two_rooms_and_an_arrow_that_points_up_are_found() {
        let sound = house(&[("selvedge-shm", &["selvedge-transport"]), ("selvedge", &["selvedge-shm"])], &[]);
        assert!(sound.arrows_that_do_not_point_down().is_empty());
        let door = house(&[("selvedge-shm", &["selvedge-engine"])], &[]);
        assert_eq!(door.arrows_that_do_not_point_down(), ["selvedge-shm must not use selvedge-engine"]);
        let upwards = house(&[("selvedge-engine", &["selvedge"])], &[]);
        assert_eq!(upwards.arrows_that_do_not_point_down().len(), 1);
        let narrow = house(&[("selvedge-launcher", &["selvedge"]), ("selvedge-benches", &["xtask"])], &[]);
        assert_eq!(narrow.arrows_that_do_not_point_down().len(), 2);
        assert_eq!(house(&[("selvedge-attic", &[])], &[]).arrows_that_do_not_point_down().len(), 1);
    }

    #[test]
    fn a_clock_in_a_pure_room_is_found_and_one_next_door_is_not() {
        let text = "fn f() {\n    let t = std::time::Instant::now();\n}";
        let broken = house(&[], &[("crates/engine/src/a.rs", text), ("crates/shm/src/a.rs", text)]);
        assert_eq!(broken.clocks_and_threads_below(), ["crates/engine/src/a.rs:2: Instant::now"]);
    }

    #[test]
    fn commands_are_held_against_what_there_is() {
        let house = house(&[("selvedge-benches", &[])], &[]);
        assert_eq!(house.wrong_with("mpirun -n 2 osu latency"), None);
        assert_eq!(house.wrong_with("cargo xtask test --only storm"), None);
        assert!(house.wrong_with("mpirun -n 2 iosu latency").is_some());
        assert_eq!(house.wrong_with("cargo xtask peers --road efa --instructions"), None);
        assert!(house.wrong_with("cargo xtask peers --road ib").is_some());
        assert!(house.wrong_with("cargo xtask tset").is_some());
        assert!(house.wrong_with("cargo xtask test --only wind").is_some());
    }
}
