//! The secret that all hosts of a joined job share: 32 random bytes in a file, of which nobody else may know.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::{fmt, io};

use crate::args::Usage;

/// Length of a secret, in its file too: that of a key of Noise.
pub const SECRET_BYTES: usize = 32;

/// What all hosts of a job know and nobody else does. Never printed, never on a command line or in an environment.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Out of a file that belongs to us or to root and that no stranger can read or write.
    ///
    /// # Errors
    /// One sentence that names the file, what is wrong with it and what to do.
    pub fn read(path: &Path) -> Result<Secret, Usage> {
        let wrong = |what: String| Usage::new(format!("--secret-file {}: {what}", path.display()));
        // Without waiting: a pipe that nobody writes to is no secret.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => {
                    "; mpirun --new-secret makes one, which every host needs a copy of"
                }
                _ => "",
            };
            wrong(format!("{error}{hint}"))
        })?;
        let about = file.metadata().map_err(|error| wrong(error.to_string()))?;
        if !about.is_file() {
            return Err(wrong("this is no file".into()));
        }
        let own = rustix::process::geteuid().as_raw();
        if let Some(what) = distrust(about.mode() & 0o777, about.uid(), own) {
            return Err(wrong(what));
        }
        let mut bytes = Vec::new();
        let read = (&file).take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| wrong(error.to_string()))?;
        Secret::of(&bytes).map_err(wrong)
    }

    fn of(bytes: &[u8]) -> Result<Secret, String> {
        const HOW: &str = "mpirun --new-secret makes a good one";
        let Ok(secret) = <[u8; SECRET_BYTES]>::try_from(bytes) else {
            let length = match bytes.len() {
                SECRET_BYTES.. => format!("more than {SECRET_BYTES} bytes"),
                short => format!("{short} bytes"),
            };
            return Err(format!("it has {length}, and a secret has exactly {SECRET_BYTES}; {HOW}"));
        };
        if secret.iter().all(|byte| *byte == secret[0]) {
            return Err(format!("{SECRET_BYTES} equal bytes are no secret; {HOW}"));
        }
        Ok(Secret(secret))
    }

    /// Writes a new one, from the system's random numbers, to a file that there is not yet and that only we can read.
    ///
    /// # Errors
    /// One sentence; most often there is such a file already.
    pub fn create(path: &Path) -> Result<(), Usage> {
        let wrong = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::AlreadyExists => "; a secret is not written over, take another name",
                _ => "",
            };
            Usage::new(format!("--new-secret {}: {error}{hint}", path.display()))
        };
        let mut secret = [0; SECRET_BYTES];
        let random = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
        if !matches!(random, Ok(SECRET_BYTES)) {
            return Err(wrong(io::Error::other("the system gave no random numbers")));
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let write = |mut file: File| file.write_all(&secret).and_then(|()| file.sync_all());
        file.and_then(write).map_err(wrong)
    }

    /// The key.
    pub(super) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// One for tests, made of a number.
    #[cfg(test)]
    pub(crate) fn for_test(number: u8) -> Secret {
        let mut bytes = [number; SECRET_BYTES];
        bytes[0] = !number;
        Secret(bytes)
    }
}

/// Why a file with this mode and owner is not to be trusted by `own`, if so. The group may read what is not ours: that
/// is how Kubernetes gives a secret of root's to a pod that is not root (`fsGroup`).
fn distrust(mode: u32, owner: u32, own: u32) -> Option<String> {
    if owner != own && owner != 0 {
        return Some(format!("it belongs to user {owner}, who is neither you nor root"));
    }
    let allowed = if owner == own { 0o700 } else { 0o740 };
    if mode & !allowed & 0o777 != 0 {
        return Some(format!("others can read or change it (its mode is {mode:03o}); chmod 600 cures that"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("selvedge-secret-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_secret_is_ours_alone_and_never_written_over() {
        let folder = Folder::new("new");
        let path = folder.0.join("secret");
        Secret::create(&path).unwrap();
        let about = path.metadata().unwrap();
        assert_eq!((about.mode() & 0o777, about.len()), (0o600, 32));
        let first = Secret::read(&path).unwrap();
        let again = Secret::create(&path).unwrap_err().to_string();
        assert!(again.contains("not written over"), "{again}");
        assert_eq!(Secret::read(&path).unwrap().0, first.0);
        assert_eq!(format!("{first:?}"), "Secret(..)");
    }

    #[test]
    fn a_file_that_strangers_can_read_or_that_is_no_secret_is_refused() {
        let folder = Folder::new("refused");
        let path = folder.0.join("secret");
        let refusal = |bytes: &[u8], mode: u32| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Secret::read(&path).map(|_| ()).map_err(|usage| usage.to_string())
        };
        let good: Vec<u8> = (0..32).collect();
        assert_eq!(refusal(&good, 0o600), Ok(()));
        assert_eq!(refusal(&good, 0o400), Ok(()));
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            let text = refusal(&good, mode).unwrap_err();
            assert!(text.contains(&format!("{mode:o}")) && text.contains("chmod 600"), "{text}");
        }
        for (bytes, said) in [
            (&good[..31], "31 bytes"),
            (&[7; 33][..], "more than 32 bytes"),
            (&[][..], "0 bytes"),
            (&[7; 32][..], "equal bytes"),
        ] {
            let text = refusal(bytes, 0o600).unwrap_err();
            assert!(text.contains(said) && text.contains("--new-secret"), "{text}");
        }
        assert!(Secret::read(&folder.0).unwrap_err().to_string().contains("no file"));
        let missing = Secret::read(&folder.0.join("none")).unwrap_err().to_string();
        assert!(missing.contains("--new-secret"), "{missing}");
    }

    #[test]
    fn a_group_may_read_a_secret_of_roots_and_nobody_may_read_another_users() {
        assert_eq!(distrust(0o440, 0, 1000), None);
        assert!(distrust(0o440, 1000, 1000).is_some());
        assert!(distrust(0o444, 0, 1000).is_some());
        assert!(distrust(0o460, 0, 1000).is_some());
        assert!(distrust(0o600, 1001, 1000).unwrap().contains("1001"));
        assert!(distrust(0o440, 0, 0).is_some(), "root needs no group to read its own");
    }
}
