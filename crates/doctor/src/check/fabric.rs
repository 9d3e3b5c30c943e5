//! libfabric, the library below the network, and the roads to other hosts that it offers here.

use selvedge_ofi::Provider;
use selvedge_ofi::environment::{Severity, explain};

use super::{Ask, Finding};
use crate::scene::{Fabric, Scene};

/// Oldest libfabric that Selvedge loads.
const OLDEST: (u32, u32) = (1, 9);

/// First libfabric whose EFA provider offers `efa-direct`, which has nothing between us and the device.
const DIRECT: (u32, u32) = (2, 1);

const INSTALL: &str = "sudo apt-get install libfabric1 (Debian, Ubuntu), sudo dnf install libfabric (Fedora, Amazon Linux), \
                       or on EC2 the EFA installer, which brings its own under /opt/amazon/efa";

/// Starts of names that are libfabric's, rdma-core's or ours: what is shown when nothing hurts.
const FAMILIES: &[&str] = &["FI_", "RDMAV_", "IBV_", "SELVEDGE_"];

pub(super) fn environment(scene: &Scene, ask: &Ask) -> Finding {
    let has_efa = scene.efa_count() > 0;
    let wanted: &[Provider] = if has_efa || ask.needs_efa { &Provider::ALL } else { &[Provider::Tcp] };
    let variables = scene.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let found = explain(variables, wanted);
    // The worst comes first.
    let Some(worst) = found.first() else {
        let related = scene.variables.iter().filter(|(name, _)| FAMILIES.iter().any(|f| name.starts_with(f)));
        let related: Vec<String> = related.map(|(name, value)| format!("{name}={value}")).collect();
        let list = if related.is_empty() { "none is set".to_owned() } else { related.join(", ") };
        return Finding::pass(format!("of {}*: {list}", FAMILIES.join("*, ")));
    };
    let evidence: Vec<String> =
        found.iter().map(|f| format!("{}={}: {}", f.variable, f.value, f.effect)).collect();
    let remedies: Vec<&str> = found.iter().map(|f| f.remedy.as_str()).collect();
    let is_fatal = match worst.severity {
        Severity::Aborts => true,
        Severity::MayAbort => has_efa || ask.needs_efa,
        Severity::Excludes => ask.needs_efa,
        Severity::Slows => false,
    };
    Finding::amiss(is_fatal, evidence.join("; "), remedies.join("; "))
}

fn tried(scene: &Scene) -> Result<&Fabric, Finding> {
    scene
        .tried
        .fabric
        .as_ref()
        .ok_or_else(|| Finding::warn("it was not tried", "selvedge doctor, on the host itself"))
}

pub(super) fn libfabric(scene: &Scene, ask: &Ask) -> Finding {
    let fabric = match tried(scene) {
        Ok(fabric) => fabric,
        Err(finding) => return finding,
    };
    if let Some(trouble) = &fabric.trouble {
        let only_one_host = if ask.needs_efa { "" } else { "; jobs on one host need none" };
        let cure = fabric.remedy.clone().unwrap_or_else(|| INSTALL.to_owned());
        return Finding::amiss(ask.needs_efa, format!("{trouble}{only_one_host}"), cure);
    }
    let Some(loaded) = fabric.libraries.iter().find(|library| library.version.is_some()) else {
        return Finding::amiss(ask.needs_efa, "none was found", INSTALL);
    };
    let version = loaded.version.expect("just looked at");
    let read = format!("{}.{} ({})", version.0, version.1, loaded.path);
    if version < OLDEST {
        return Finding::amiss(ask.needs_efa, format!("{read}; Selvedge needs 1.9"), INSTALL);
    }
    if version < DIRECT && scene.verbs.iter().any(|verbs| verbs.is_efa()) {
        return Finding::warn(
            format!("{read}; before 2.1 there is no efa-direct, and messages pass a second protocol"),
            super::efa::INSTALL,
        );
    }
    Finding::pass(read)
}

pub(super) fn only_one(scene: &Scene, _ask: &Ask) -> Finding {
    let fabric = match tried(scene) {
        Ok(fabric) => fabric,
        Err(finding) => return finding,
    };
    let list: Vec<&str> = fabric.libraries.iter().map(|library| library.path.as_str()).collect();
    match list.as_slice() {
        [] => Finding::pass("none was found"),
        [one] => Finding::pass(*one),
        [taken, ..] if scene.variable("SELVEDGE_LIBFABRIC").is_some() => {
            Finding::pass(format!("{}; SELVEDGE_LIBFABRIC says which: {taken}", list.join(", ")))
        }
        [taken, others @ ..] => Finding::warn(
            format!(
                "{taken} is taken; also found: {}; another program may take another one",
                others.join(", ")
            ),
            format!("export SELVEDGE_LIBFABRIC={taken}"),
        ),
    }
}

pub(super) fn roads(scene: &Scene, ask: &Ask) -> Finding {
    let fabric = match tried(scene) {
        Ok(fabric) => fabric,
        Err(finding) => return finding,
    };
    let usable = fabric.usable.iter().map(|road| match road.nics.as_slice() {
        [] => road.provider.clone(),
        nics => format!("{} ({})", road.provider, nics.join(", ")),
    });
    let usable = usable.collect::<Vec<_>>().join(", ");
    let refused = fabric.refused.iter().map(|road| match &road.nic {
        Some(nic) => format!("{} on {nic} refused: {}", road.provider, road.reason),
        None => format!("{} refused: {}", road.provider, road.reason),
    });
    let refused: Vec<String> = refused.collect();
    let told = |usable: &str| {
        let parts: Vec<&str> = std::iter::once(usable).chain(refused.iter().map(String::as_str)).collect();
        parts.join("; ")
    };
    let cure = fabric.refused.first().map(|road| road.remedy.as_str());
    let cure = cure.or(fabric.remedy.as_deref()).unwrap_or(INSTALL);
    if fabric.usable.is_empty() {
        return Finding::amiss(
            ask.needs_efa,
            told("none: only the ranks of one host reach each other"),
            cure,
        );
    }
    let has_efa = fabric.usable.iter().any(|road| road.provider.starts_with("efa"));
    if ask.needs_efa && !has_efa {
        return Finding::fail(told(&usable), cure);
    }
    // A device that is there and is not used is what this program is for.
    if scene.efa_count() > 0 && !has_efa {
        return Finding::warn(told(&usable), cure);
    }
    Finding::pass(told(&usable))
}
