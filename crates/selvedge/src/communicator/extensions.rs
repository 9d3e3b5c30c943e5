//! What programs and libraries keep with a communicator (MPI 5.0 section 7.7): values found by their type.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

/// Values kept with a communicator, one of each type; MPI's attributes without keys, casts and delete functions. The type is
/// the key: a library makes one of its own. Values are shared by all threads of the rank that use the communicator, and
/// dropped with it. Local: other ranks do not see them.
///
/// ```
/// struct Calls(std::sync::atomic::AtomicUsize);
///
/// selvedge::local::run(1, |world| {
///     let calls = world.extensions().get_or_insert_with(|| Calls(0.into()));
///     calls.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///     assert_eq!(world.extensions().get::<Calls>().unwrap().0.load(std::sync::atomic::Ordering::Relaxed), 1);
///     assert!(world.dup().unwrap().extensions().get::<Calls>().is_none());
/// });
/// ```
#[derive(Default)]
pub struct Extensions {
    values: Mutex<FxHashMap<TypeId, Value>>,
}

struct Value {
    value: Arc<dyn Any + Send + Sync>,
    is_passed_on: bool,
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.values().len())
    }
}

impl Extensions {
    /// Keeps a value, and returns the one of this type that was there before (MPI_Comm_set_attr). A
    /// [`dup`](crate::Communicator::dup) begins without it (MPI_COMM_NULL_COPY_FN).
    #[doc(alias("MPI_Comm_set_attr", "MPI_COMM_NULL_COPY_FN"))]
    pub fn insert<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.put(value, false)
    }

    /// As [`Extensions::insert`]; a [`dup`](crate::Communicator::dup) shares the value (MPI_COMM_DUP_FN).
    #[doc(alias = "MPI_COMM_DUP_FN")]
    pub fn insert_passed_on<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.put(value, true)
    }

    /// The value of this type (MPI_Comm_get_attr).
    #[doc(alias = "MPI_Comm_get_attr")]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.values().get(&TypeId::of::<T>()).map(Value::typed)
    }

    /// The value of this type; makes it first if there is none. `make` must not use these extensions.
    pub fn get_or_insert_with<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.values();
        let make = || Value { value: Arc::new(make()), is_passed_on: false };
        values.entry(TypeId::of::<T>()).or_insert_with(make).typed()
    }

    /// Takes the value of this type out (MPI_Comm_delete_attr).
    ///
    /// ```
    /// selvedge::local::run(1, |world| {
    ///     world.extensions().insert("a name");
    ///     assert_eq!(world.extensions().remove::<&str>().as_deref(), Some(&"a name"));
    ///     assert!(world.extensions().get::<&str>().is_none());
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_delete_attr")]
    pub fn remove<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.values().remove(&TypeId::of::<T>()).as_ref().map(Value::typed)
    }

    /// Takes over what is passed on.
    pub(crate) fn pass_on(&self, from: &Extensions) {
        let passed_on = from.values();
        let passed_on = passed_on.iter().filter(|(_, value)| value.is_passed_on);
        self.values().extend(
            passed_on.map(|(&id, value)| (id, Value { value: Arc::clone(&value.value), is_passed_on: true })),
        );
    }

    fn put<T: Any + Send + Sync>(&self, value: T, is_passed_on: bool) -> Option<Arc<T>> {
        let value = Value { value: Arc::new(value), is_passed_on };
        self.values().insert(TypeId::of::<T>(), value).as_ref().map(Value::typed)
    }

    fn values(&self) -> MutexGuard<'_, FxHashMap<TypeId, Value>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Value {
    fn typed<T: Any + Send + Sync>(&self) -> Arc<T> {
        Arc::clone(&self.value).downcast().expect("a value is found by its own type")
    }
}
