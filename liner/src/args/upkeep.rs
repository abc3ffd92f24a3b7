//! The command line of `liner store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{LogArgs, LookArgs};
use crate::store_url::{StoreUrl, StoreUrlError};

#[derive(Debug, Args)]
#[command(after_help = STORE_HELP)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) action: StoreAction,
}

const STORE_HELP: &str = "\
A store is sqlite:PATH, or on a server: redis://HOST, rediss://HOST, unix:///PATH or postgres://HOST/DATABASE. Passwords are not shown in
what this program prints; what stands on a command line `ps` shows to everybody on the machine.

Examples:
  liner store check sqlite:/var/lib/liner/gateway.db
  liner store backup /var/lib/liner/gateway.db /var/backups/gateway.db
  liner store copy sqlite:/var/lib/liner/gateway.db postgres://liner@db/liner";

#[derive(Debug, Subcommand)]
pub(crate) enum StoreAction {
    /// Copy all that nodes have in a store into another one, of whatever kind, while they are stopped
    Copy(StoreCopyArgs),
    /// Say what a store is, what it holds and what to do about it, beside its nodes
    Check(StoreCheckArgs),
    /// Copy an SQLite file while nodes use it
    Backup(StoreBackupArgs),
}

#[derive(Debug, Args)]
#[command(after_help = STORE_COPY_HELP)]
pub(crate) struct StoreCopyArgs {
    /// The store that is copied. It stays as it is
    #[arg(value_name = "FROM")]
    pub(crate) from: StoreUrl,
    /// The store that it is copied into, which may hold other nodes
    #[arg(value_name = "TO")]
    pub(crate) to: StoreUrl,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

const STORE_COPY_HELP: &str = "\
Queues with their numbers and epochs, dead letters, inboxes, what was taken from whom, and the directory come over as they are, so that the
nodes go on in TO as if nothing had been. It does not begin while one of the nodes runs, or if TO has another node of the same name, and it
fails if one is started on FROM meanwhile. What was interrupted is started again with the same words: nodes that are there already are left
alone, and half of one is made anew.

A line is `NAME copied: Q queues with M messages (B bytes), D dead letters, I in its inbox, P peers`. A record that does not pass its check
becomes a gap, which its receiver is told of, and is told here.

Start the nodes on TO afterwards, and none of them on FROM again: there would be two with one name and one past.

Examples:
  liner store copy sqlite:liner-gateway.db redis://127.0.0.1
  liner store copy redis://127.0.0.1 sqlite:back.db";

#[derive(Debug, Args)]
#[command(after_help = STORE_CHECK_HELP)]
pub(crate) struct StoreCheckArgs {
    /// The store, instead of --store
    #[arg(value_name = "URL")]
    pub(crate) url: Option<StoreUrl>,
    #[command(flatten)]
    pub(crate) look: LookArgs,
}

const STORE_CHECK_HELP: &str = "\
It says what commits survive there, its release and that of its tables, which nodes have used it and which of them run, what waits and what
was put aside; then what is not as it should be, a sentence each, with what to do. An SQLite file is read as a whole.

Exit codes: 0 if it can be used, 1 if it is damaged or cannot be read, 3 if another program holds it.

Examples:
  liner store check
  liner store check sqlite:/var/lib/liner/gateway.db --json";

#[derive(Debug, Args)]
#[command(after_help = STORE_BACKUP_HELP)]
pub(crate) struct StoreBackupArgs {
    /// The file, with or without sqlite: before it
    #[arg(value_name = "PATH", value_parser = file)]
    pub(crate) from: PathBuf,
    /// Where the copy is to be; nothing may be there yet, and no log of a file that was there (TO-wal)
    #[arg(value_name = "TO", value_parser = file)]
    pub(crate) to: PathBuf,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

const STORE_BACKUP_HELP: &str = "\
The copy is one file, as the original was at the beginning of the backup, and is checked before it gets its name. Nodes go on meanwhile.

To restore it, stop the nodes, move the file and what lies beside it (PATH-wal, PATH-shm) away, and copy the backup to PATH. Each node finds
out at its start that it has gone back in time: its queues begin new epochs, and what it may have sent before comes again, marked. What was
stored since the backup is lost.

Examples:
  liner store backup liner-gateway.db gateway-backup.db
  liner store backup sqlite:/var/lib/liner/gateway.db /var/backups/gateway.db";

/// A file's path, or its URL.
fn file(text: &str) -> Result<PathBuf, String> {
    if !text.contains(':') {
        return Ok(PathBuf::from(text));
    }
    match text.parse::<StoreUrl>() {
        Ok(StoreUrl::Sqlite(path)) => Ok(path),
        Ok(StoreUrl::Ram) => Err("ram: is in the memory of its node alone: name an SQLite file".to_owned()),
        Ok(StoreUrl::Server(server)) => Err(format!(
            "a server has means of its own for backups: name an SQLite file, or copy {} into one with `liner store copy`",
            server.kind().name()
        )),
        // A path may hold a colon.
        Err(StoreUrlError::UnknownScheme(_)) if !text.contains("://") => Ok(PathBuf::from(text)),
        Err(error) => Err(error.to_string()),
    }
}
