//! The store in a Redis server keeps the contract.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use liner_proto::store::Store;
use liner_store_redis::{Options, RedisStore};
use liner_tests::conformance::{Capabilities, trouble};
use liner_tests::servers::cut::Cutter;
use liner_tests::servers::{Redis, RedisOptions, Reply};

const CAPS: Capabilities = Capabilities {
    persists: true,
    queues: 1000,
    cursors: 1000,
    directory: true,
    inbox: true,
    name_max: 255,
    bytes_max: 1 << 30,
};

/// One for all tests, each of which has a database of its own. The user may do what the store says that it needs, and nothing else.
static SERVER: LazyLock<Redis> = LazyLock::new(|| {
    let settings = vec!["databases 256".to_owned()];
    let users = vec![format!("liner on >secret {}", liner_store_redis::ACL)];
    Redis::start(&RedisOptions { settings, users, ..RedisOptions::default() }).expect("the server starts")
});
static NEXT: AtomicU32 = AtomicU32::new(0);

fn url() -> String {
    let db = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("redis://liner:secret@{}/{db}", SERVER.address())
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

mod troubled {
    use super::*;

    /// A server of its own, which an operator meddles with.
    fn start() -> Redis {
        let users = vec![format!("liner on >secret {}", liner_store_redis::ACL)];
        Redis::start(&RedisOptions { users, ..RedisOptions::default() }).expect("the server starts")
    }

    fn url(address: impl core::fmt::Display) -> String {
        format!("redis://liner:secret@{address}")
    }

    fn opened(url: &str) -> Box<dyn Store> {
        open(url, "node").expect("the store opens")
    }

    #[test]
    fn a_damaged_record_is_told() {
        let server = start();
        let url = url(server.address());
        trouble::a_damaged_record_is_told(&mut || opened(&url), CAPS, &mut |number| {
            let script = format!(
                "local list = redis.call('KEYS', 'lnr_connection:*:messages')[1]
                 local e = redis.call('LINDEX', list, {number} - 1)
                 redis.call('LSET', list, {number} - 1, string.sub(e, 1, -2) .. string.char(255 - string.byte(e, -1)))"
            );
            server.command(&["EVAL", &script, "0"]).expect("it is executed");
        });
    }

    #[test]
    fn a_turn_that_fails_leaves_nothing() {
        let server = start();
        let url = url(server.address());
        trouble::a_turn_that_fails_leaves_nothing(&mut || opened(&url), CAPS, &mut |keep| {
            let permission = if keep { "-rpush" } else { "+rpush" };
            server.command(&["ACL", "SETUSER", "liner", permission]).expect("it is executed");
        });
    }

    #[test]
    fn an_answer_that_is_lost_is_found_out() {
        let server = start();
        let cutter = Cutter::start(server.address()).expect("a port is free");
        let url = url(cutter.address());
        trouble::an_answer_that_is_lost_is_found_out(&mut || opened(&url), CAPS, &cutter);
    }
}

mod shared {
    use super::*;

    fn place() -> impl FnMut(&str) -> Result<Box<dyn Store>, String> {
        let url = url();
        move |name| open(&url, name)
    }

    liner_tests::shared_conformance_tests!(place);
}

mod full {
    use super::*;

    const BYTES: usize = 4 << 20;

    /// Each has a server of its own, which has so much room beyond what it takes when it is empty.
    fn place() -> impl FnMut() -> Box<dyn Store> {
        let server = Redis::start(&RedisOptions::default()).expect("the server starts");
        let used = server.command(&["MEMORY", "STATS"]).expect("it answers");
        let Reply::List(used) = used else { unreachable!("a list of numbers") };
        let mut used = used.iter().skip_while(|&it| *it != Reply::Bytes(b"total.allocated".to_vec()));
        let Some(&Reply::Number(used)) = used.nth(1) else { unreachable!("a number") };
        let most = (used as usize + BYTES).to_string();
        server.command(&["CONFIG", "SET", "maxmemory", &most]).expect("it can be set");
        move || open(&server.url(), "node").expect("the store opens")
    }

    macro_rules! tests {
        ($($rule:ident,)*) => {
            $(
                #[test]
                fn $rule() {
                    let caps = Capabilities { bytes_max: BYTES, ..CAPS };
                    liner_tests::conformance::full::$rule(&mut place(), caps);
                }
            )*
        };
    }

    tests!(full_leaves_no_trace, acks_go_on_when_it_is_full, a_move_within_a_full_store_succeeds,);

    #[test]
    fn a_full_store_delivers_nothing() {
        let caps = Capabilities { bytes_max: BYTES, ..CAPS };
        liner_tests::conformance::inbox::a_full_store_delivers_nothing(&mut place(), caps);
    }
}

#[test]
fn whoever_is_killed_leaves_whole_commits() {
    // The process that is killed gets the place of the one that kills it.
    let place = if std::env::var_os("LINER_TEST_KILLED").is_some() { String::new() } else { url() };
    liner_tests::conformance::killed::whoever_is_killed_leaves_whole_commits(
        "whoever_is_killed_leaves_whole_commits",
        &place,
        |url, name| open(url, name).expect("the store opens"),
        CAPS,
    );
}
