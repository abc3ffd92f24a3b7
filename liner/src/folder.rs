//! Folders for stores that are not to stay.

use std::fs::DirBuilder;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::store_url::StoreUrl;

/// A folder of its owner alone, gone with this value.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// In the folder for such things.
    pub(crate) fn temporary(what: &str) -> Result<Self, Failure> {
        let random = RandomState::new().hash_one(std::process::id());
        Self::make(std::env::temp_dir().join(format!("liner-{what}-{random:016x}")))
    }

    /// Where there is nothing yet.
    pub(crate) fn make(path: PathBuf) -> Result<Self, Failure> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Usage(format!(
                "{} is there already: name a new folder, as it is deleted at the end",
                path.display()
            ))),
            Err(error) => Err(Failure::io(&format!("cannot make the folder {}", path.display()), &error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn store(&self, file: &str) -> StoreUrl {
        StoreUrl::Sqlite(self.path.join(file))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A temporary one is cleared away with the rest if it cannot be removed; of the other it is known where it is.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_its_owner() {
        let folder = Folder::temporary("test").unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        assert!(Folder::make(path.clone()).is_err(), "what is there is left alone");
        drop(folder);
        assert!(!path.exists());
    }
}
