//! Clients on the stores that this crate brings along.

use std::path::PathBuf;

use liner_mio::{Class, Client, NewClientError, Store};
use liner_store_sqlite::{Options, SqliteStore};

use crate::receivers::{self, Receiver, ReceiversError};

/// Why a client could not be made on a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenClientError {
    /// Its name, topic or address are not in order, or its store cannot be opened.
    #[error(transparent)]
    Client(#[from] NewClientError),
    /// The receivers cannot be read.
    #[error(transparent)]
    Receivers(#[from] ReceiversError),
}

/// A client with an SQLite file, which is made if it is not there. Several clients, of several processes, may have one file: they find
/// each other by it. What is stored survives a loss of power ([`Class::Power`]).
///
/// `receivers_json` names others that are known from the start, as [`receivers::parse`] reads it. They are kept in the file, one for
/// each topic and address.
///
/// # Errors
/// See [`OpenClientError`].
pub fn new_sqlite(
    unique_name: &str,
    topic: &str,
    listen: &str,
    path: impl Into<PathBuf>,
    receivers_json: Option<&str>,
) -> Result<Client, OpenClientError> {
    sqlite_with(unique_name, topic, listen, (path.into(), Class::Power), receivers_json)
}

/// The same with a file that survives what `durability` says: [`Class::Process`] does not wait for the disk.
///
/// # Errors
/// See [`OpenClientError`].
pub fn sqlite_with(
    unique_name: &str,
    topic: &str,
    listen: &str,
    (path, durability): (PathBuf, Class),
    receivers_json: Option<&str>,
) -> Result<Client, OpenClientError> {
    let receivers = receivers::parse(receivers_json)?;
    let options = Options { name: unique_name.to_owned(), durability, limit_bytes: None, boot_id: boot_id() };
    let open =
        move || SqliteStore::open(&path, &options).map(|store| Box::new(store) as Box<dyn Store + Send>);
    let client = Client::new(unique_name, topic, listen, open)?;
    for Receiver { topic, addr, client_name } in receivers {
        client.add_receiver(&topic, &addr, &client_name);
    }
    Ok(client)
}

/// Names this run of the operating system, so that a store can tell the death of a process from a loss of power.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
