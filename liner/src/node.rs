//! Opens the store that a URL names, and builds nodes on it, with failures in the command's words.

use liner::store::{self, OpenError, Opened};
use liner_mio::{BuildError, Builder, Class, DriveError, Node, StopError, Store};
use liner_proto::effect::StoreFault;

use crate::failure::Failure;
use crate::out::{self, tell, warn};
use crate::store_url::StoreUrl;

/// Opens it for the node of this name. What was unusual about it is told on standard error.
pub(crate) fn open(
    url: &StoreUrl,
    name: &str,
    asked: Option<Class>,
) -> Result<Box<dyn Store + Send>, Failure> {
    let Opened { store, notices } = store::open(url, name, asked).map_err(|error| open_failure(&error))?;
    for notice in notices {
        if notice.is_warning { warn(notice.words) } else { tell(notice.words) }
    }
    tracing::debug!(target: "liner::store", "{url} is open for {name}, at class {}", store.class());
    Ok(store)
}

/// Opens it, and has the builder keep it: what a server keeps on a worker thread, anything else in the loop's own.
pub(crate) fn keep(builder: Builder, url: &StoreUrl, name: &str) -> Result<Builder, Failure> {
    let store = open(url, name, None)?;
    Ok(if url.is_server() { builder.store_on_worker(store) } else { builder.store(store) })
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
    let words = error.to_string();
    match error {
        OpenError::InUse(_) => Failure::InUse(words),
        OpenError::Url(_) | OpenError::BadUrl(_) | OpenError::Weak { .. } => Failure::Usage(words),
        OpenError::Failed(_) | _ => Failure::Work(words),
    }
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
