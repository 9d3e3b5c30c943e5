//! The kernel, and what kind of machine or container this is.

use serde::Serialize;

use super::Tree;

/// The kernel and its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Kernel {
    /// `Linux`.
    pub system: String,
    /// As `uname -r` says it: `6.1.0-28-amd64`.
    pub release: String,
    /// Name of this host.
    pub host_name: String,
    /// Clock that clock_gettime(2) reads: `tsc`, `arch_sys_counter`, `xen`.
    pub clock_source: Option<String>,
    /// Setting of the Yama module (0 to 3); `None` without Yama.
    pub ptrace_scope: Option<u32>,
    /// Version of the loaded kernel module `efa`; empty when it is loaded and does not say.
    pub efa_module: Option<String>,
}

impl Kernel {
    pub(super) fn read(tree: &Tree) -> Kernel {
        let of = |name: &str| tree.text(&format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        let efa_loaded = tree.exists("/sys/module/efa");
        Kernel {
            system: of("ostype"),
            release: of("osrelease"),
            host_name: of("hostname"),
            clock_source: tree.text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            ptrace_scope: tree.number("/proc/sys/kernel/yama/ptrace_scope"),
            efa_module: efa_loaded.then(|| tree.text("/sys/module/efa/version").unwrap_or_default()),
        }
    }

    /// Major and minor version, for comparisons.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// What kind of machine or container this is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Place {
    /// The machine, where its firmware says.
    pub machine: Option<Machine>,
    /// The container around this process, where one shows itself.
    pub container: Option<Container>,
    /// Whether Slurm started us: its limits are those of `slurmd`.
    pub slurm: bool,
}

/// A machine by its firmware (DMI).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Who made it: `Amazon EC2`.
    pub vendor: String,
    /// What it is: on EC2 the instance type.
    pub product: String,
}

/// Kinds of containers, by how their limits are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Docker, or what behaves like it.
    Docker,
    /// Podman.
    Podman,
    /// A pod of Kubernetes.
    Kubernetes,
    /// Apptainer, formerly Singularity.
    Apptainer,
}

impl Place {
    pub(super) fn read(tree: &Tree, variables: &[(String, String)]) -> Place {
        let is_set = |name: &str| variables.iter().any(|(known, _)| known == name);
        let group = tree.text("/proc/self/cgroup").unwrap_or_default();
        let container = if is_set("KUBERNETES_SERVICE_HOST") || group.contains("kubepods") {
            Some(Container::Kubernetes)
        } else if is_set("APPTAINER_CONTAINER") || is_set("SINGULARITY_CONTAINER") {
            Some(Container::Apptainer)
        } else if tree.exists("/run/.containerenv") {
            Some(Container::Podman)
        } else if tree.exists("/.dockerenv") || group.contains("/docker") {
            Some(Container::Docker)
        } else {
            None
        };
        let dmi = |name: &str| tree.text(&format!("/sys/class/dmi/id/{name}"));
        let machine = dmi("sys_vendor")
            .map(|vendor| Machine { vendor, product: dmi("product_name").unwrap_or_default() });
        Place { machine, container, slurm: is_set("SLURM_JOB_ID") }
    }

    /// The instance type, on EC2.
    pub fn instance_type(&self) -> Option<&str> {
        let machine = self.machine.as_ref().filter(|machine| machine.vendor == "Amazon EC2")?;
        Some(machine.product.as_str())
    }
}
