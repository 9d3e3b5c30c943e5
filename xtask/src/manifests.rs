//! The manifests of the workspace: who depends on whom, which programs there are, which dependencies have a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::source;

/// A package of this workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name, as in its manifest.
    pub name: String,
    /// Folder, from the root of the repository.
    pub folder: String,
    /// Names of the packages of this workspace it depends on, build and test dependencies left out.
    pub uses: BTreeSet<String>,
    /// The same for its tests.
    pub uses_in_tests: BTreeSet<String>,
    /// Names of the programs it builds, examples left out.
    pub programs: BTreeSet<String>,
}

/// The workspace as cargo sees it.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its root folder.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// Its packages by name.
    pub packages: BTreeMap<String, Package>,
}

impl Workspace {
    /// Asks cargo. Needs no network.
    ///
    /// # Panics
    /// When cargo cannot read the manifests.
    pub fn load() -> Workspace {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo can be started");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Workspace::parse(&serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON"))
    }

    fn parse(metadata: &Value) -> Workspace {
        let root = PathBuf::from(text(&metadata["workspace_root"]));
        let target = PathBuf::from(text(&metadata["target_directory"]));
        let listed = metadata["packages"].as_array().expect("cargo metadata lists packages");
        let names: BTreeSet<String> = listed.iter().map(|package| text(&package["name"])).collect();
        let packages = listed.iter().map(|package| Package::parse(package, &root, &names));
        Workspace { packages: packages.map(|p| (p.name.clone(), p)).collect(), root, target }
    }

    /// Names of all programs the workspace builds.
    pub fn programs(&self) -> BTreeSet<&str> {
        self.packages.values().flat_map(|package| package.programs.iter().map(String::as_str)).collect()
    }

    /// A program of the release build.
    pub fn release(&self, program: &str) -> PathBuf {
        self.target.join("release").join(program)
    }
}

impl Package {
    fn parse(package: &Value, root: &Path, ours: &BTreeSet<String>) -> Package {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest
            .parent()
            .and_then(|f| f.strip_prefix(root).ok())
            .expect("a package inside the workspace");
        let empty = Vec::new();
        let dependencies = package["dependencies"].as_array().unwrap_or(&empty);
        let of_kind = |for_tests: bool| {
            let wanted = |d: &&Value| (d["kind"].as_str() == Some("dev")) == for_tests;
            let names = dependencies.iter().filter(wanted).map(|d| text(&d["name"]));
            names.filter(|name| ours.contains(name)).collect()
        };
        let targets = package["targets"].as_array().unwrap_or(&empty);
        let is_program =
            |target: &&Value| target["kind"].as_array().is_some_and(|k| k.contains(&"bin".into()));
        Package {
            name: text(&package["name"]),
            folder: folder.to_string_lossy().into_owned(),
            uses: of_kind(false),
            uses_in_tests: of_kind(true),
            programs: targets.iter().filter(is_program).map(|t| text(&t["name"])).collect(),
        }
    }
}

/// Dependencies of the root manifest that stand there without a reason: lines of `[workspace.dependencies]` with no
/// comment behind them. Our own (those with a path) need none.
pub fn dependencies_without_a_reason(root: &Path) -> Vec<String> {
    let manifest = source::read(root, "Cargo.toml");
    let section = manifest.lines().skip_while(|line| line.trim() != "[workspace.dependencies]").skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .filter(|line| !line.contains("path = ") && !line.contains(" # "))
        .map(str::to_string)
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string in cargo metadata").to_string()
}
