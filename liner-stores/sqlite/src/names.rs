//! Names of the files beside the database.

use core::fmt::Write as _;
use std::path::{Path, PathBuf};

pub(crate) use liner_store::names::{composite, kind, listener, owner, parse, prefix, queue};

/// A file beside the database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

/// What the names of all lock files beside a database end with.
pub(crate) const LOCK: &str = ".lock";

/// The file whose lock stands for a node's name. Whatever could mean something to a file system is written as `%` and two
/// digits; a name too long for a file is cut and told apart by a checksum.
pub(crate) fn lock_file(path: &Path, owner: &str) -> PathBuf {
    let mut suffix = String::from(".");
    for byte in owner.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            suffix.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(suffix, "%{byte:02x}");
        }
    }
    if suffix.len() > 100 {
        suffix.truncate(80);
        let _ = write!(suffix, "%%{:08x}{:08x}", crc32c::crc32c(owner.as_bytes()), owner.len());
    }
    suffix.push_str(LOCK);
    beside(path, &suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_stay_in_the_folder() {
        let path = Path::new("/folder/db");
        assert_eq!(lock_file(path, "node-1"), Path::new("/folder/db.node-1.lock"));
        assert_eq!(lock_file(path, "../ü\0"), Path::new("/folder/db.%2e%2e%2f%c3%bc%00.lock"));
        let (one, two) = (lock_file(path, &"ü".repeat(127)), lock_file(path, &"ä".repeat(127)));
        assert_ne!(one, two);
        assert!(one.file_name().is_some_and(|name| name.len() < 120));
    }
}
