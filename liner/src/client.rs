//! Clients on the stores that this crate brings along.

use std::path::PathBuf;

use liner_mio::{Class, Client, NewClientError, Store};
use liner_store_sqlite::{Options, SqliteStore};

use crate::receivers::{self, Receiver, ReceiversError};
use crate::store;
use crate::store_url::{StoreUrl, StoreUrlError};

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
    /// The URL names no store.
    #[error(transparent)]
    Url(#[from] StoreUrlError),
}

/// A client with the store that a URL names: `sqlite:PATH`, which survives a loss of power, `sqlite:PATH?durability=process`, which
/// survives the death of the process and is faster, `ram:`, which survives nothing, or that of a server, which survives what
/// its settings say ([`Sent::class`](crate::Sent::class)).
///
/// The store on a server is called in a thread of its own, `liner-store`.
///
/// `receivers_json` names others that are known from the start, as [`receivers::parse`] reads it.
///
/// # Errors
/// See [`OpenClientError`].
pub fn open(
    unique_name: &str,
    topic: &str,
    listen: &str,
    url: &str,
    receivers_json: Option<&str>,
) -> Result<Client, OpenClientError> {
    let (url, durability) = StoreUrl::with_durability(url)?;
    url.check()?;
    match url {
        StoreUrl::Sqlite(path) => sqlite_with(unique_name, topic, listen, path, durability, receivers_json),
        StoreUrl::Ram | StoreUrl::Server(_) => {
            let receivers = receivers::parse(receivers_json)?;
            let (name, is_server) = (unique_name.to_owned(), url.is_server());
            let open = move || store::open(&url, &name, None).map(|opened| opened.store);
            let client = Client::new(unique_name, topic, listen, open)?;
            client.configure(move |builder| builder.on_worker(is_server));
            Ok(with_receivers(client, &receivers))
        }
    }
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
    sqlite_with(unique_name, topic, listen, path, Class::Power, receivers_json)
}

/// The same with a file that survives what `durability` says: [`Class::Process`] does not wait for the disk.
///
/// # Errors
/// See [`OpenClientError`].
pub fn sqlite_with(
    unique_name: &str,
    topic: &str,
    listen: &str,
    path: impl Into<PathBuf>,
    durability: Class,
    receivers_json: Option<&str>,
) -> Result<Client, OpenClientError> {
    let receivers = receivers::parse(receivers_json)?;
    let options = Options { name: unique_name.to_owned(), durability, limit_bytes: None, boot_id: boot_id() };
    let path = path.into();
    let open =
        move || SqliteStore::open(&path, &options).map(|store| Box::new(store) as Box<dyn Store + Send>);
    Ok(with_receivers(Client::new(unique_name, topic, listen, open)?, &receivers))
}

fn with_receivers(client: Client, receivers: &[Receiver]) -> Client {
    for Receiver { topic, addr, client_name } in receivers {
        client.add_receiver(topic, addr, client_name);
    }
    client
}

/// Names this run of the operating system, so that a store can tell the death of a process from a loss of power. Where that cannot be
/// found out it is empty, and a loss of power looks like any other death.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_made_by_its_stores_url() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let make = |url: &str, json| open("a", "to-a", "127.0.0.1:0", url, json);
        for (url, class) in [
            (format!("sqlite:{}", file.display()), Class::Power),
            (format!("sqlite:{}?durability=process", file.display()), Class::Process),
            ("ram:".to_owned(), Class::Ram),
        ] {
            let json = r#"[{"topic":"t","addr":"127.0.0.1:9","client_name":"n"}]"#;
            for on_worker in [false, true] {
                let client = make(&url, Some(json)).unwrap();
                client.configure(move |builder| builder.on_worker(on_worker));
                client.run(|_: &liner_mio::Taken| ()).unwrap();
                let sent = client.send_to("t", b"x", liner_mio::Reliability::AtLeastOnce).unwrap();
                assert_eq!(sent.class, class, "{url}");
                client.stop().unwrap();
            }
        }
        let told = |url: &str, json| make(url, json).unwrap_err().to_string();
        assert!(told("postgres://h/d?durability=power", None).contains("settings of the server"));
        assert!(told("mysql:x", None).contains("`mysql`"));
        assert!(told(&format!("sqlite:{}", folder.path().display()), None).contains("directory"));
        assert!(told("ram:", Some("[")).contains("JSON array"));
        assert!(told("sqlite:a?durability=best", None).contains("`best`"));
        assert!(told("sqlite:a?durabilty=process", None).contains("`durabilty`"));
    }
}
