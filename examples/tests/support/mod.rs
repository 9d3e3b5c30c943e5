//! Running programs under the `mpirun` of this workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// All it wrote to standard output.
    pub(crate) stdout: String,
    /// All it wrote to standard error.
    pub(crate) stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// The standard output of a run that must have gone well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "standard output:\n{}\nstandard error:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts that it ended with `code` and that `words` were said on standard error, once.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.matches(words).count(), 1, "once `{words}` in:\n{}", self.stderr);
    }
}

/// Runs `program` on `ranks` ranks. Two minutes are a hang.
pub(crate) fn mpirun(ranks: usize, program: &str, arguments: &[&str]) -> Finished {
    let ranks = ranks.to_string();
    let mut command = Command::new(launcher());
    command.args(["--timeout", "120", "-n", &ranks, program]).args(arguments);
    command.output().expect("mpirun starts").into()
}

/// Runs `program` by itself, without a launcher.
pub(crate) fn alone(program: &str, arguments: &[&str]) -> Finished {
    Command::new(program).args(arguments).output().expect("the program starts").into()
}

/// A path for a file of this test process. `name` is unique among its tests.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
    fs::create_dir_all(&folder).expect("the target directory is writable");
    folder.join(name)
}

/// Our `mpirun`: the one that `SELVEDGE_TEST_MPIRUN` names, or the one beside the tests in the target directory. That belongs to
/// another package, so cargo has not necessarily built it: done here, once.
fn launcher() -> &'static Path {
    static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();
    LAUNCHER.get_or_init(|| {
        if let Some(given) = env::var_os("SELVEDGE_TEST_MPIRUN") {
            return given.into();
        }
        let test = env::current_exe().expect("the test knows where it is");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
        let name =
            profile.file_name().and_then(|name| name.to_str()).expect("cargo's folders have plain names");
        let name = if name == "debug" { "dev" } else { name };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--quiet", "--package", "selvedge-launcher", "--profile", name, "--target-dir"])
            .arg(profile.parent().expect("the target directory"))
            .output()
            .expect("cargo starts");
        assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
        profile.join("mpirun")
    })
}
