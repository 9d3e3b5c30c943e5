//! Which of the places where a library may lie it is taken from, and what is said when it is in none.

use std::fmt;
use std::path::{Path, PathBuf};

/// A library that is looked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What people call it: `libfabric`.
    pub name: &'static str,
    /// The name of its file in all versions that can be used: `libfabric.so.1`.
    pub file: &'static str,
    /// What to do when there is none, in a sentence without its full stop.
    pub remedy: &'static str,
    /// What to do when the one that was asked for cannot be used, likewise.
    pub remedy_given: &'static str,
}

/// Why a library was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    wanted: &'static Wanted,
    /// What was tried, and what each said.
    pub tried: Vec<(PathBuf, String)>,
    /// Whether a path was given, so that nothing else was tried.
    pub given: bool,
}

impl Wanted {
    /// The first that `load` can use: of `given`, a file or a folder with one in it, and then of nothing else; where nothing
    /// was given, of `places`.
    ///
    /// # Errors
    /// What was tried, what each said, and what to install.
    pub fn find<L>(
        &'static self,
        given: Option<&Path>,
        places: impl IntoIterator<Item = PathBuf>,
        load: impl Fn(&Path) -> Result<L, String>,
    ) -> Result<L, LoadError> {
        let places = given.is_none().then_some(places).into_iter().flatten();
        let mut tried = Vec::new();
        for path in given.map(|given| self.file_of(given)).into_iter().chain(places) {
            match load(&path) {
                Ok(library) => return Ok(library),
                Err(said) => tried.push((path, said)),
            }
        }
        Err(LoadError { wanted: self, tried, given: given.is_some() })
    }

    /// The file that is meant by a path: itself, or the library in that folder.
    pub fn file_of(&self, given: &Path) -> PathBuf {
        if given.is_dir() { given.join(self.file) } else { given.to_path_buf() }
    }

    /// Those of the folders that have such a file, as paths of it.
    pub fn there(
        &self,
        folders: impl IntoIterator<Item = impl AsRef<Path>>,
    ) -> impl Iterator<Item = PathBuf> {
        folders.into_iter().map(|folder| folder.as_ref().join(self.file)).filter(|path| path.exists())
    }
}

impl LoadError {
    /// What the reader can do about it, in a sentence without its full stop.
    pub fn remedy(&self) -> &'static str {
        if self.given { self.wanted.remedy_given } else { self.wanted.remedy }
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.wanted.name;
        match self.given {
            true => write!(f, "the {name} that was asked for cannot be used: ")?,
            false => write!(f, "no {name} can be used: ")?,
        }
        for (index, (path, said)) in self.tried.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{}: {said}", path.display())?;
        }
        write!(f, ". {}", self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CLOTH: Wanted = Wanted {
        name: "libcloth",
        file: "libcloth.so.1",
        remedy: "Install cloth",
        remedy_given: "Name another cloth",
    };

    fn find(given: Option<&str>, places: &[&str], usable: &str) -> Result<PathBuf, LoadError> {
        let load = |path: &Path| {
            if path.to_string_lossy() == usable { Ok(path.to_path_buf()) } else { Err("torn".to_owned()) }
        };
        CLOTH.find(given.map(Path::new), places.iter().map(PathBuf::from), load)
    }

    #[test]
    fn the_first_usable_one_is_taken() {
        assert_eq!(find(None, &["/a", "/b", "/c"], "/b").unwrap(), Path::new("/b"));
    }

    #[test]
    fn without_a_usable_one_all_are_named_with_what_they_said() {
        let error = find(None, &["/a", "/b"], "/c").unwrap_err();
        assert_eq!(error.to_string(), "no libcloth can be used: /a: torn; /b: torn. Install cloth");
        assert_eq!(error.tried.len(), 2);
    }

    #[test]
    fn a_given_path_is_the_only_one_tried() {
        let error = find(Some("/mine"), &["/a"], "/a").unwrap_err();
        let words = "the libcloth that was asked for cannot be used: /mine: torn. Name another cloth";
        assert_eq!(error.to_string(), words);
        assert_eq!(find(Some("/mine"), &[], "/mine").unwrap(), Path::new("/mine"));
    }

    #[test]
    fn a_folder_stands_for_the_library_in_it() {
        let folder = std::env::temp_dir();
        assert_eq!(CLOTH.file_of(&folder), folder.join("libcloth.so.1"));
        assert_eq!(CLOTH.there([folder]).count(), 0, "nothing of that name lies there");
    }
}
