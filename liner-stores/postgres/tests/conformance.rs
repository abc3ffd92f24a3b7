//! The store in a PostgreSQL database keeps the contract, on each version that liner names.
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

/// The server of all tests of a version in this process.
fn server(version: Version) -> &'static Postgres {
    static SERVERS: [OnceLock<Postgres>; 3] = [const { OnceLock::new() }; 3];
    let index = Version::ALL.iter().position(|known| *known == version).expect("it is one of them");
    SERVERS[index]
        .get_or_init(|| Postgres::start(version, &PostgresOptions::default()).expect("the server starts"))
}

/// A database of its own on the server.
fn database(version: Version) -> String {
    static DATABASES: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server(version).query(&format!("CREATE DATABASE {name}")).expect("the database is created");
    format!("postgres://postgres@{}/{name}", server(version).address())
}

fn open(url: &str, name: &str) -> Result<Box<dyn Store>, String> {
    let url = url.parse().expect("the harness makes good URLs");
    let store =
        PostgresStore::open(&url, &Options { name: name.to_owned() }).map_err(|error| error.to_string())?;
    assert_eq!(store.class(), Class::Power);
    assert_eq!((store.opened().damaged, store.opened().orphaned), (0, 0));
    Ok(Box::new(store))
}

macro_rules! on_version {
    ($module:ident, $version:expr, $killed:literal) => {
        mod $module {
            use super::*;

            fn place() -> impl FnMut() -> Box<dyn Store> {
                let url = database($version);
                move || open(&url, "a:b\\node").expect("the store opens")
            }

            liner_tests::conformance_tests!(place, CAPS);

            mod shared {
                use super::*;

                fn place() -> impl FnMut(&str) -> Result<Box<dyn Store>, String> {
                    let url = database($version);
                    move |name| open(&url, name)
                }

                liner_tests::shared_conformance_tests!(place);

                #[test]
                fn whoever_is_killed_leaves_whole_commits() {
                    let is_child = std::env::var_os("LINER_TEST_KILLED").is_some();
                    let url = if is_child { String::new() } else { database($version) };
                    liner_tests::conformance::killed::whoever_is_killed_leaves_whole_commits(
                        $killed,
                        &url,
                        |url, name| open(url, name).expect("the store opens"),
                        CAPS,
                    );
                }
            }
        }
    };
}

on_version!(v13, Version::V13, "v13::shared::whoever_is_killed_leaves_whole_commits");
on_version!(v15, Version::V15, "v15::shared::whoever_is_killed_leaves_whole_commits");
on_version!(v18, Version::V18, "v18::shared::whoever_is_killed_leaves_whole_commits");
