//! Message buffers that start on a page, as those of the OSU benchmarks do: the speed of a copy depends on it.

const PAGE_BYTES: usize = 4096;

/// `len` elements starting on a page boundary, all written once, so that no page is touched for the first time while a
/// clock runs.
#[derive(Debug)]
pub(crate) struct Aligned<T> {
    storage: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy> Aligned<T> {
    /// `len` times `value`.
    pub(crate) fn new(value: T, len: usize) -> Aligned<T> {
        let storage = vec![value; len + PAGE_BYTES / size_of::<T>()];
        let start = storage.as_ptr().align_offset(PAGE_BYTES);
        assert!(
            start + len <= storage.len(),
            "a power of two divides a page, so its boundary is within one page"
        );
        // `vec!` of zeros takes untouched pages from the kernel; filling touches them.
        let mut buffer = Aligned { storage, start, len };
        buffer.as_mut_slice().fill(value);
        buffer
    }

    /// The elements.
    pub(crate) fn as_slice(&self) -> &[T] {
        &self.storage[self.start..self.start + self.len]
    }

    /// The elements, to write.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_starts_on_a_page_whatever_its_length() {
        for len in [0, 1, 7, 4096, 100_000] {
            let bytes = Aligned::new(1_u8, len);
            let words = Aligned::new(1_i32, len);
            assert_eq!(bytes.as_slice().as_ptr() as usize % PAGE_BYTES, 0);
            assert_eq!(words.as_slice().as_ptr() as usize % PAGE_BYTES, 0);
            assert_eq!((bytes.as_slice().len(), words.as_slice().len()), (len, len));
        }
    }
}
