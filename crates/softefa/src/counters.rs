//! What a device has counted.

/// What a device has counted.
#[derive(Debug, Default)]
pub struct Counters {}
