//! Where the servers' programs are, and as whom they run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user who runs what refuses to run as root.
const USER: &str = "postgres";

/// Where everything is built that version control leaves out, as the scripts see it.
pub(super) fn build_root() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace.join(folder),
        None => workspace.join("target"),
    }
}

/// A program, with the links of its folder followed: what they stand in may be closed to the user who runs it. A link in place of the
/// program itself stays, since some are told by their name what they are.
pub(super) fn find(path: &Path) -> io::Result<PathBuf> {
    let missing = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("{} is not there ({error}): run scripts/servers", path.display()),
        )
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let program = fs::canonicalize(folder).map_err(missing)?.join(path.file_name().unwrap_or_default());
    fs::metadata(&program).map_err(missing)?;
    Ok(program)
}

/// Another user than the one of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Who runs what refuses to run as root; none if this process is not root's, and runs it itself.
    pub(super) fn instead_of_root() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let account = users.lines().find_map(|line| {
            let mut fields = line.strip_prefix(USER)?.strip_prefix(':')?.split(':').skip(1);
            Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        });
        account
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("there is no user {USER}: run scripts/servers")))
    }
}

/// A command that the kernel kills as soon as the thread that started it is gone, with nothing of the caller's environment.
pub(super) fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(Account { uid, gid }) = account {
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    // The caller's folder may be closed to the other user.
    command.current_dir("/");
    command
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(io::Error::other(format!("{command:?}: {}\n{said}", output.status)))
}
