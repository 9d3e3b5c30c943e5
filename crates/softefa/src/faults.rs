//! Faults that are made on purpose.

/// The faults that one queue pair makes. All chances are drawn from one seed.
#[derive(Clone, Debug, Default)]
pub struct Faults {}
