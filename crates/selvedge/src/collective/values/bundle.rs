//! Encoded values of several ranks, one behind the other.
//!
//! ```text
//! bundle = frame of each rank, in order
//! frame  = length, 8 bytes little endian; that many bytes of postcard
//!        | 2^64 - 1: this rank had nothing to give
//! ```
//!
//! Bundles of neighbouring ranks become one by being put one behind the other, so that a tree needs not look inside.

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Misuse;

/// The length of a frame without a value.
pub(crate) const NOTHING: u64 = u64::MAX;

const LENGTH_BYTES: usize = size_of::<u64>();

/// A value as bytes.
pub(crate) fn encode<V: Serialize + ?Sized>(value: &V) -> Result<Vec<u8>, Misuse> {
    postcard::to_allocvec(value)
        .map_err(|error| Misuse::Encoding(format!("the value to give cannot be encoded: {error}")))
}

/// The value of a rank.
pub(crate) fn decode<V: DeserializeOwned>(bytes: &[u8], source_rank: usize) -> Result<V, Misuse> {
    postcard::from_bytes(bytes).map_err(|error| Misuse::NoValue {
        source_rank,
        type_name: type_name::<V>(),
        why: error.to_string(),
    })
}

/// Appends the frame of a value, or of none.
pub(crate) fn push(bundle: &mut Vec<u8>, value: Option<&[u8]>) {
    let length = value.map_or(NOTHING, |bytes| bytes.len() as u64);
    bundle.extend_from_slice(&length.to_le_bytes());
    bundle.extend_from_slice(value.unwrap_or_default());
}

/// Cuts the first frame off: its bytes, or `None` for a rank that had nothing to give. `rank`: whose frame it must be.
pub(crate) fn pop<'a>(bundle: &mut &'a [u8], rank: usize) -> Result<Option<&'a [u8]>, Misuse> {
    let cut_short = || Misuse::NoValue {
        source_rank: rank,
        type_name: "value at all",
        why: "the bytes end before it does; every rank must call the same collective".to_owned(),
    };
    let (length, rest) = bundle.split_at_checked(LENGTH_BYTES).ok_or_else(cut_short)?;
    let length = u64::from_le_bytes(length.try_into().expect("that many bytes were cut off"));
    if length == NOTHING {
        *bundle = rest;
        return Ok(None);
    }
    let cut = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (value, rest) = cut.ok_or_else(cut_short)?;
    *bundle = rest;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_pushed_is_popped(values: Vec<Option<Vec<u8>>>) {
            let mut bundle = Vec::new();
            values.iter().for_each(|value| push(&mut bundle, value.as_deref()));
            let mut rest = &bundle[..];
            for value in &values {
                prop_assert_eq!(pop(&mut rest, 0).unwrap(), value.as_deref());
            }
            prop_assert!(rest.is_empty() && pop(&mut rest, 0).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while pop(&mut rest, 3).is_ok() {}
        }
    }
}
