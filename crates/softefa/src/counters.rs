//! What a device has counted.
