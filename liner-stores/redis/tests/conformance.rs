//! The store in a Redis server keeps the contract.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::sync::atomic::{AtomicU32, Ordering};

use liner_proto::store::Store;
use liner_store_redis::{Options, RedisStore};
use liner_tests::conformance::Capabilities;

const CAPS: Capabilities = Capabilities {
    persists: true,
    queues: 1000,
    cursors: 1000,
    directory: true,
    inbox: true,
    name_max: 255,
    bytes_max: 1 << 30,
};

static NEXT: AtomicU32 = AtomicU32::new(0);

fn url() -> String {
    let base = std::env::var("LINER_REDIS").expect("a server");
    let db = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{base}/{db}")
}

fn open(url: &str, name: &str) -> Result<Box<dyn Store>, String> {
    let store =
        RedisStore::open(url, &Options { name: name.to_owned() }).map_err(|error| error.to_string())?;
    Ok(Box::new(store))
}

fn place() -> impl FnMut() -> Box<dyn Store> {
    let url = url();
    move || open(&url, "a:b\\node").expect("the store opens")
}

liner_tests::conformance_tests!(place, CAPS);

mod shared {
    use super::*;

    fn place() -> impl FnMut(&str) -> Result<Box<dyn Store>, String> {
        let url = url();
        move |name| open(&url, name)
    }

    liner_tests::shared_conformance_tests!(place);
}
