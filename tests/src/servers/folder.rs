//! Folders of servers, in the folder for temporary files: each names the process it belongs to.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use super::programs::Account;

const PREFIX: &str = "liner-servers-";

static COUNT: AtomicU64 = AtomicU64::new(0);
static SWEEP: Once = Once::new();

/// A folder that is gone when it is dropped, with all that is in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        let parent = parent();
        SWEEP.call_once(|| sweep(&parent));
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let folder = Self { path };
                    // Servers that run as another user pass through it.
                    fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o755))?;
                    return Ok(folder);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder inside that only its owner may enter.
    pub(super) fn make(&self, name: &str, owner: Option<Account>) -> io::Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir(&path)?;
        give(&path, 0o700, owner)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        forget(&self.path);
    }
}

/// Sets the mode and, where it is another than this process's, the owner.
pub(super) fn give(path: &Path, mode: u32, owner: Option<Account>) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    match owner {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Copies a folder with the owners and modes of all that is in it.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    super::programs::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))
}

/// The folder for temporary files, unless other users may not enter it.
fn parent() -> PathBuf {
    let usual = std::env::temp_dir();
    let open = |path: &Path| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o001 != 0);
    if usual.ancestors().all(open) { usual } else { PathBuf::from("/tmp") }
}

/// Takes away what processes left behind that were killed.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')).map(|(id, _)| id);
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            forget(&entry.path());
        }
    }
}

fn forget(path: &Path) {
    remove_shared_memory(&path.join("data"));
    // Nobody is left to tell it to; another process sweeps it up.
    let _ = fs::remove_dir_all(path);
}

/// Takes away what the last run on these data has left about itself.
pub(super) fn clear_run(data: &Path) -> io::Result<()> {
    remove_shared_memory(data);
    remove(&data.join("postmaster.pid"))
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A PostgreSQL that was killed leaves a few bytes of System V shared memory, of which a machine has some thousands at most. The next
/// start on the same data takes them over: this is for data that is never started again.
fn remove_shared_memory(data: &Path) {
    let Ok(lock) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some((key, id)) = lock.lines().nth(6).and_then(|line| line.trim().split_once(char::is_whitespace))
    else {
        return;
    };
    let id = id.trim();
    let Ok(segments) = fs::read_to_string("/proc/sysvipc/shm") else { return };
    // The number could be another's after a restart of the machine: the key says whose it is.
    let ours = segments.lines().skip(1).any(|segment| {
        let fields: Vec<&str> = segment.split_whitespace().collect();
        let attached = fields.get(6).is_none_or(|count| *count != "0");
        same(fields.first(), key) && fields.get(1) == Some(&id) && !attached
    });
    if ours {
        let _ = super::programs::run(Command::new("ipcrm").args(["-m", id]));
    }
}

/// Keys are unsigned in the one file and signed in the other.
fn same(shown: Option<&&str>, key: &str) -> bool {
    let shown = shown.and_then(|shown| shown.parse::<i64>().ok());
    let key = key.parse::<i64>().ok();
    shown.zip(key).is_some_and(|(shown, key)| (shown ^ key) & 0xffff_ffff == 0)
}
