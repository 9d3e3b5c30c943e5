//! Arrays of `pmix_info_t` that own what they point to. Filling them takes no unsafe code; only calls read the pointers.

use std::ffi::{CString, c_char};

use super::*;

/// An array of keys and values, for a call.
#[derive(Default)]
pub(crate) struct Infos {
    raw: Vec<Info>,
    // What `raw` points to. None of it moves when these vectors grow: each element holds a pointer to the heap.
    texts: Vec<CString>,
    regexes: Vec<RegexText>,
    #[allow(clippy::vec_box, reason = "libpmix holds the address of each array")]
    arrays: Vec<Box<DataArray>>,
    nested: Vec<Infos>,
}

/// The value of a key.
pub(crate) enum Item {
    Flag(bool),
    Text(String),
    Int(i32),
    U16(u16),
    U32(u32),
    Rank(u32),
    Regex(RegexText),
    Array(Infos),
}

impl Infos {
    /// None yet.
    pub(crate) fn new() -> Infos {
        Infos::default()
    }

    /// Adds a key, at the end.
    pub(crate) fn with(mut self, key: &'static str, item: Item) -> Infos {
        self.push(key, item);
        self
    }

    /// Adds a key, at the end.
    pub(crate) fn push(&mut self, key: &'static str, item: Item) {
        let (kind, data) = match item {
            Item::Flag(flag) => (PMIX_BOOL, Data { flag }),
            Item::Text(text) => (PMIX_STRING, Data { string: self.keep(text) }),
            Item::Int(int32) => (PMIX_INT, Data { int32 }),
            Item::U16(uint16) => (PMIX_UINT16, Data { uint16 }),
            Item::U32(uint32) => (PMIX_UINT32, Data { uint32 }),
            Item::Rank(uint32) => (PMIX_PROC_RANK, Data { uint32 }),
            Item::Regex(regex) => {
                let Value { kind, data } = *regex.value();
                self.regexes.push(regex);
                (kind, data)
            }
            Item::Array(infos) => (PMIX_DATA_ARRAY, Data { darray: self.keep_array(infos) }),
        };
        let mut bytes = [0; PMIX_MAX_KEYLEN + 1];
        for (to, from) in bytes.iter_mut().take(PMIX_MAX_KEYLEN).zip(key.bytes()) {
            *to = from.cast_signed() as c_char;
        }
        self.raw.push(Info { key: bytes, flags: 0, value: Value { kind, data } });
    }

    fn keep(&mut self, text: String) -> *mut c_char {
        let until_zero = text.split('\0').next().unwrap_or_default();
        let text = CString::new(until_zero).expect("it was cut at its first zero");
        let pointer = text.as_ptr().cast_mut();
        self.texts.push(text);
        pointer
    }

    fn keep_array(&mut self, mut infos: Infos) -> *mut DataArray {
        let array = infos.raw.as_mut_ptr().cast();
        let mut boxed = Box::new(DataArray { kind: PMIX_INFO, size: infos.raw.len(), array });
        let pointer: *mut DataArray = &mut *boxed;
        self.nested.push(infos);
        self.arrays.push(boxed);
        pointer
    }

    /// The array as C wants it: its address and its length. Good as long as `self` is there and nothing is added.
    pub(crate) fn as_raw(&mut self) -> (*mut Info, usize) {
        (self.raw.as_mut_ptr(), self.raw.len())
    }
}
