//! The database's file, as the operating system has it: which one a path means, whether it may be used, whether it is still there.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::{ballast, names};

/// What every database of SQLite begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// As many links are followed as Linux would.
const LINKS_MAX: usize = 40;

/// The path without links: what lies beside the file has its name from it, as the log of SQLite has, so that all who use the
/// file find the same. There may be no file yet, at the end of a link neither.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.map_err(|source| failed(path, source)),
        }
        let folder = folder(&at);
        let name = at.file_name().unwrap_or_default();
        let missing = match fs::canonicalize(folder) {
            Ok(folder) => folder.join(name),
            Err(error) if at != path && error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::DanglingLink { path: path.to_owned(), folder: folder.to_owned() });
            }
            Err(source) => return Err(failed(path, source)),
        };
        match fs::read_link(&missing) {
            Ok(target) => at = self::folder(&missing).join(target),
            Err(_) => return Ok(missing),
        }
    }
    Err(failed(path, io::Error::other("too many links")))
}

/// Refuses what cannot be a database of ours, before anything is made beside it.
pub(crate) fn check(path: &Path) -> Result<(), OpenError> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|source| failed(path, source))?,
    };
    if !found.is_file() {
        return Err(OpenError::NotAFile { path: path.to_owned() });
    }
    // Each name of the file would have a log of its own, and the names of nodes would be locked once for each.
    let links = links(&found);
    if links > 1 {
        return Err(OpenError::HardLinks { path: path.to_owned(), links });
    }
    if found.len() == 0 || is_ours(path).map_err(|source| failed(path, source))? {
        return Ok(());
    }
    Err(OpenError::NotADatabase { path: path.to_owned() })
}

/// Whether damage to the file is damage to a database. It is not read while anybody may have it open: closing it would give up
/// the locks that SQLite holds on it for this process.
fn is_ours(path: &Path) -> io::Result<bool> {
    if names::beside(path, "-wal").exists() || ballast::path_of(path).exists() || !locks(path)?.is_empty() {
        return Ok(true);
    }
    let mut start = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start == MAGIC)
}

/// The lock files of all nodes that have ever used the database.
pub(crate) fn locks(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(file_name) = path.file_name() else { return Ok(Vec::new()) };
    let start = format!("{}.", file_name.to_string_lossy());
    let mut locks = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&start) && name.ends_with(names::LOCK) {
            locks.push(entry);
        }
    }
    Ok(locks)
}

/// The files that a connection has open: the database and its log. Once they have lost their names, what is written to them ends
/// with the process, and SQLite does not notice.
#[derive(Debug)]
pub(crate) struct Held {
    database: (PathBuf, Identity),
    log: (PathBuf, Identity),
    turns: u8,
}

/// The log is looked for in one turn of so many. What is in it comes into the database when that is closed, so that it is not
/// as urgent, and to look for a file takes a tenth of the shortest turn.
const LOG_EVERY: u8 = 4;

/// A device and a file on it; nothing where the operating system does not say.
pub(crate) type Identity = Option<(u64, u64)>;

impl Held {
    /// Those of the database at `path`, which was this one as soon as it was open.
    pub(crate) fn new(path: &Path, database: Identity) -> io::Result<Self> {
        let log = names::beside(path, "-wal");
        let log_identity = identity(&log)?;
        Ok(Self { database: (path.to_owned(), database), log: (log, log_identity), turns: 0 })
    }

    /// The file that was deleted or replaced before the end of a turn, if one was.
    pub(crate) fn lost(&mut self) -> Option<&Path> {
        self.turns = (self.turns + 1) % LOG_EVERY;
        if self.turns == 0 && is_lost(&self.log) {
            // It is looked for again in the next turn.
            self.turns = LOG_EVERY - 1;
            return Some(&self.log.0);
        }
        self.lost_since()
    }

    /// The database, if it was deleted or replaced since then.
    pub(crate) fn lost_since(&self) -> Option<&Path> {
        is_lost(&self.database).then_some(&self.database.0)
    }
}

fn is_lost((path, held): &(PathBuf, Identity)) -> bool {
    identity(path).ok() != Some(*held)
}

/// Which file it is that has this path now.
pub(crate) fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| identity_of(&found))
}

/// Which file was found.
pub(crate) fn identity_of(found: &Metadata) -> Identity {
    #[cfg(unix)]
    let identity = {
        use std::os::unix::fs::MetadataExt as _;
        Some((found.dev(), found.ino()))
    };
    #[cfg(not(unix))]
    let identity = found.is_file().then_some((0, 0));
    identity
}

fn links(found: &Metadata) -> u64 {
    #[cfg(unix)]
    let links = std::os::unix::fs::MetadataExt::nlink(found);
    #[cfg(not(unix))]
    let links = u64::from(found.is_file());
    links
}

/// For this user only.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes what happened to names in the file's folder survive a loss of power.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder(path))?.sync_all() } else { Ok(()) }
}

pub(crate) fn failed(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}
