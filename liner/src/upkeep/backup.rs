//! `liner store backup`: a copy of an SQLite file, made while nodes use it.

use liner_store_sqlite::{BackupError, OpenError, backup};
use serde::Serialize;

use super::counted;
use crate::args::StoreBackupArgs;
use crate::failure::Failure;
use crate::live::Live;
use crate::out::{self, Out};

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    path: &'a str,
    bytes: u64,
    nodes: &'a [String],
}

pub(super) fn run(args: &StoreBackupArgs) -> Result<(), Failure> {
    let mut live = Live::new();
    let outcome = backup(&args.from, &args.to, &mut |done, all| {
        live.show(|| format!("{} of {} MiB copied", done >> 20, all.div_ceil(1 << 20)));
    });
    live.clear();
    let made = outcome.map_err(|error| failure(&error))?;
    let path = args.to.display().to_string();
    let nodes = counted(made.nodes.len() as u64, "node", "nodes");
    let plain = format!("{path}: {} bytes, {nodes}, checked", made.bytes);
    let line = Line { event: "backup", path: &path, bytes: made.bytes, nodes: &made.nodes };
    let mut out = Out::new(args.json);
    out.line(out::shown(&plain), &line).and_then(|()| out.flush()).map_err(|error| out::failed(&error))
}

fn failure(error: &BackupError) -> Failure {
    let words = error.to_string();
    match error {
        BackupError::Exists { .. } | BackupError::Left { .. } => Failure::Usage(words),
        BackupError::InUse { .. } | BackupError::Open(OpenError::Locked { .. }) => Failure::InUse(words),
        BackupError::Look(_) | BackupError::Open(_) | BackupError::Damaged { .. } | _ => Failure::Work(words),
    }
}
