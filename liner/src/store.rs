//! Opens the store that a URL names, and builds nodes on it, with failures in the command's words.

use liner::client::boot_id;
use liner_mio::{BuildError, Builder, Class, DriveError, HeapStore, Node, StopError, Store};
use liner_proto::effect::StoreFault;
use liner_store_sqlite::{OpenError, Options, SqliteStore};

use crate::failure::Failure;
use crate::out::{self, tell, warn};
use crate::store_url::StoreUrl;

/// What `ram:` holds at most.
const RAM_BYTES: u64 = 256 * 1024 * 1024;

/// Opens it for the node of this name. What was unusual about it is told on standard error.
pub(crate) fn open(url: &StoreUrl, name: &str, durability: Class) -> Result<Box<dyn Store + Send>, Failure> {
    url.check().map_err(|error| Failure::Usage(error.to_string()))?;
    let Some(path) = url.path() else { return Ok(Box::new(HeapStore::new(RAM_BYTES))) };
    let options = Options { name: name.to_owned(), durability, limit_bytes: None, boot_id: boot_id() };
    let store = SqliteStore::open(path, &options).map_err(|error| open_failure(&error))?;
    let opened = store.opened();
    if let Some(aside) = &opened.quarantined {
        warn(format_args!(
            "{} was damaged: it is now {}, and a new one was made",
            path.display(),
            aside.display()
        ));
    }
    if let Some(schema) = opened.upgraded_from {
        tell(format_args!("{} was upgraded from schema {schema}", path.display()));
    }
    if opened.damaged > 0 {
        warn(format_args!(
            "{} damaged rows were taken out of {}, which said how far queues and peers had come: \
             messages may come twice, and what is missing is told",
            opened.damaged,
            path.display()
        ));
    }
    if opened.orphaned > 0 {
        warn(format_args!("{} messages whose stream is gone are now dead letters", opened.orphaned));
    }
    if let Some(bytes) = opened.needs_free {
        warn(format_args!(
            "the disk of {} is too full: until {} MiB are free on it, new messages are taken only where acknowledged ones were",
            path.display(),
            bytes.div_ceil(1 << 20)
        ));
    }
    tracing::debug!("{url} is open for {name}, at class {}", store.class());
    Ok(Box::new(store))
}

/// Builds the node.
pub(crate) fn build(builder: Builder) -> Result<Node, Failure> {
    builder.build().map_err(|error| build_failure(&error))
}

/// The words of the library are for whoever writes a program: these are for whoever runs one.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever comes later is a failure of the work")]
pub(crate) fn drive_failure(error: &DriveError) -> Failure {
    match error {
        DriveError::Handler(error) => {
            Failure::Work(format!("{}: what was not written is not acknowledged", out::failed(error)))
        }
        DriveError::Store { fault: StoreFault::Regressed, said } => {
            let said = said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default();
            Failure::Work(format!(
                "{}: see whether the store is the right one, then start the program again{said}",
                StoreFault::Regressed
            ))
        }
        DriveError::Store { fault: StoreFault::Superseded, .. } => {
            Failure::InUse(format!("{}: give one of the two another name", StoreFault::Superseded))
        }
        DriveError::Loop(error) => Failure::io("the event loop failed, start the program again", error),
        DriveError::Store { fault, said: Some(said) } => {
            Failure::Work(format!("{fault}: start the program again ({said})"))
        }
        DriveError::Store { fault, said: None } => Failure::Work(format!("{fault}: start the program again")),
        DriveError::StoreWorkerGone => {
            Failure::Work("the store's thread has ended: start the program again".to_owned())
        }
        _ => Failure::Work(error.to_string()),
    }
}

pub(crate) fn stop_failure(error: &StopError) -> Failure {
    if let StopError::Drive(error) = error {
        return drive_failure(error);
    }
    Failure::Work(error.to_string())
}

fn open_failure(error: &OpenError) -> Failure {
    if matches!(error, OpenError::NameInUse { .. } | OpenError::DamagedInUse { .. }) {
        return Failure::InUse(error.to_string());
    }
    Failure::Work(error.to_string())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever comes later is a failure of the work")]
pub(crate) fn build_failure(error: &BuildError) -> Failure {
    match error {
        BuildError::Insecure { addr } => Failure::Usage(format!(
            "other machines can connect to {addr} and nothing asks them who they are yet: \
             listen on 127.0.0.1, or add --insecure if the network is trusted"
        )),
        BuildError::Address { .. }
        | BuildError::Name { .. }
        | BuildError::Topic { .. }
        | BuildError::Line(_)
        | BuildError::LineTwice { .. } => Failure::Usage(error.to_string()),
        BuildError::AddressInUse { .. } => Failure::InUse(error.to_string()),
        _ => Failure::Work(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_runs_the_program_is_told_to_start_it_again() {
        let store = |said: Option<&str>| DriveError::Store {
            fault: StoreFault::Unknown,
            said: said.map(str::to_owned),
        };
        let told = drive_failure(&store(Some("disk I/O error"))).to_string();
        assert_eq!(told, "the outcome of the commit is not known: start the program again (disk I/O error)");
        let of = |fault| DriveError::Store { fault, said: Some("at 127.0.0.1:1".to_owned()) };
        let told = drive_failure(&of(StoreFault::Regressed)).to_string();
        let expected = "the store has lost what it had committed: see whether the store is the right one, \
                        then start the program again (at 127.0.0.1:1)";
        assert_eq!(told, expected);
        let told = drive_failure(&of(StoreFault::Superseded)).to_string();
        let expected = "another instance has taken over this node's name: give one of the two another name";
        assert_eq!(told, expected);
        for error in [store(None), DriveError::StoreWorkerGone, DriveError::Loop(std::io::Error::other("x"))]
        {
            let told = stop_failure(&StopError::Drive(error)).to_string();
            assert!(told.contains("start the program again") && !told.contains("anew"), "{told}");
        }
    }
}
