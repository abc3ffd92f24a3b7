//! The store in a PostgreSQL database keeps the contract.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use liner_proto::id::Class;
use liner_proto::store::Store;
use liner_store_postgres::{Options, PostgresStore};
use liner_tests::conformance::Capabilities;
use liner_tests::servers::{Postgres, PostgresOptions, Version};

const CAPS: Capabilities = Capabilities {
    persists: true,
    queues: 1000,
    cursors: 1000,
    directory: true,
    inbox: true,
    name_max: 255,
    bytes_max: usize::MAX,
};

/// The server of all tests of this process.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts")
    })
}

/// A database of its own on the server.
fn database() -> String {
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server().query(&format!("CREATE DATABASE {name}")).expect("the database is created");
    format!("postgres://postgres@{}/{name}", server().address())
}

fn open(url: &str, name: &str) -> Result<Box<dyn Store>, String> {
    let store =
        PostgresStore::open(url, &Options { name: name.to_owned() }).map_err(|error| error.to_string())?;
    assert_eq!(store.class(), Class::Power);
    assert_eq!((store.opened().damaged, store.opened().orphaned), (0, 0));
    Ok(Box::new(store))
}

fn place() -> impl FnMut() -> Box<dyn Store> {
    let url = database();
    move || open(&url, "a:b\\node").expect("the store opens")
}

liner_tests::conformance_tests!(place, CAPS);

mod shared {
    use super::*;

    fn place() -> impl FnMut(&str) -> Result<Box<dyn Store>, String> {
        let url = database();
        move |name| open(&url, name)
    }

    liner_tests::shared_conformance_tests!(place);

    #[test]
    fn whoever_is_killed_leaves_whole_commits() {
        let url = if std::env::var_os("LINER_TEST_KILLED").is_some() { String::new() } else { database() };
        liner_tests::conformance::killed::whoever_is_killed_leaves_whole_commits(
            "shared::whoever_is_killed_leaves_whole_commits",
            &url,
            |url, name| open(url, name).expect("the store opens"),
            CAPS,
        );
    }
}
