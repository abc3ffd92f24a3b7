//! The store in a PostgreSQL database keeps the contract, on each version that liner names.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use liner_proto::id::Class;
use liner_proto::store::Store;
use liner_store_postgres::{Options, PostgresStore};
use liner_tests::conformance::Capabilities;
use liner_tests::conformance::trouble;
use liner_tests::servers::cut::Cutter;
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

/// What an operator does to a database.
fn run(version: Version, url: &str, sql: &str) {
    let name = url.rsplit('/').next().unwrap_or_default();
    server(version).query_in(name, sql).expect("it is executed");
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

            #[test]
            fn a_damaged_record_is_told() {
                let url = database($version);
                trouble::a_damaged_record_is_told(
                    &mut || open(&url, "node").expect("the store opens"),
                    CAPS,
                    &mut |number| {
                        let other = "set_byte(payload, 1, 255 - get_byte(payload, 1))";
                        let sql =
                            format!("UPDATE conn_messages SET payload = {other} WHERE number = {number}");
                        run($version, &url, &sql);
                    },
                );
            }

            #[test]
            fn a_turn_that_fails_leaves_nothing() {
                let url = database($version);
                trouble::a_turn_that_fails_leaves_nothing(
                    &mut || open(&url, "node").expect("the store opens"),
                    CAPS,
                    &mut |keep| {
                        let how = if keep {
                            "ADD CONSTRAINT none CHECK(FALSE) NOT VALID"
                        } else {
                            "DROP CONSTRAINT none"
                        };
                        run($version, &url, &format!("ALTER TABLE conn_messages {how}"));
                    },
                );
            }

            #[test]
            fn an_answer_that_is_lost_is_found_out() {
                let cutter = Cutter::start(server($version).address()).expect("a port is free");
                let url = database($version);
                let url = url.replace(&server($version).address().to_string(), &cutter.address().to_string());
                let open = &mut || open(&url, "node").expect("the store opens");
                trouble::an_answer_that_is_lost_is_found_out(open, CAPS, &cutter);
            }

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
