//! How many EFA devices an EC2 instance type can have: to tell a host that has fewer than it could.
//!
//! Never used to tell what a device can do: that is asked of the device. A type that is not in the table is not wrong, it
//! is unknown. The table of `docs/EC2.md` shows the same counts; a test holds them together.

/// An EC2 instance type with EFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name, or the family when all sizes are alike.
    pub name: &'static str,
    /// EFA devices it can have.
    pub nics: u32,
}

const fn of(name: &'static str, nics: u32) -> Instance {
    Instance { name, nics }
}

/// The types that are known here.
pub const INSTANCES: &[Instance] = &[
    of("c5n.18xlarge", 1),
    of("c7gn.16xlarge", 1),
    of("hpc6a.48xlarge", 1),
    of("hpc6id.32xlarge", 2),
    of("hpc7a", 2),
    of("hpc7g", 1),
    of("hpc8a", 2),
    of("p4d.24xlarge", 4),
    of("p4de.24xlarge", 4),
    of("p5.48xlarge", 32),
    of("p5e.48xlarge", 32),
    of("p5en.48xlarge", 16),
    of("p6-b200.48xlarge", 8),
    of("p6-b300.48xlarge", 16),
    of("trn1.32xlarge", 8),
];

/// What is known of an instance type, `hpc7a.96xlarge` for example.
pub(crate) fn find(name: &str) -> Option<&'static Instance> {
    let family = name.split('.').next();
    INSTANCES.iter().find(|instance| instance.name == name || Some(instance.name) == family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_by_its_name_or_by_its_family() {
        assert_eq!(find("hpc7a.96xlarge").map(|i| i.nics), Some(2));
        assert_eq!(find("p5.48xlarge").map(|i| i.nics), Some(32));
        assert_eq!(find("p5.4xlarge"), None);
        assert_eq!(find("t3.micro"), None);
    }
}
