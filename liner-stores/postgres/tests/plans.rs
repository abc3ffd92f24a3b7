//! What a queue costs does not depend on what the server knows of the table: it counts the rows that it touches.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![expect(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]

use std::time::{Duration, Instant};

use liner_proto::effect::{Loaded, StoreOp};
use liner_proto::store::Store as _;
use liner_store_postgres::PostgresStore;

mod common;
use common::*;

const MESSAGES: u64 = 40_000;

/// Messages in a page, roughly.
const PAGE: usize = 16 << 10;

/// When the server has looked at the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Analyzed {
    Never,
    WhenItWasSmall,
    WhenItWasFull,
}

#[test]
fn a_drain_touches_each_row_a_few_times_whatever_the_server_knows() {
    for analyzed in [Analyzed::Never, Analyzed::WhenItWasSmall, Analyzed::WhenItWasFull] {
        let database = Database::new();
        let mut store = database.open("sensor");
        database.run("ALTER TABLE conn_messages SET (autovacuum_enabled = off)");
        apply(&mut store, &[OPEN]);
        append(NODE, 1, 100, &mut store);
        if analyzed == Analyzed::WhenItWasSmall {
            database.run("ANALYZE conn_messages");
        }
        for first in (101..=MESSAGES).step_by(1_000) {
            append(NODE, first, (first + 999).min(MESSAGES), &mut store);
        }
        if analyzed == Analyzed::WhenItWasFull {
            database.run("ANALYZE conn_messages");
        }
        let deleted = drain(&database, &mut store);
        drop(store);
        assert_eq!(deleted, MESSAGES);
        let touched = touched(&database, deleted);
        // Each is found for its page, some twice because they had no room in it, and to be deleted; and an entry of the index counts as the
        // row does. The rest is the first deletion of all, which may look at every row.
        assert!(touched < 8 * MESSAGES, "{analyzed:?}: {touched} rows were touched");
    }
}

#[test]
fn a_hole_that_is_wider_than_a_page_is_passed_over() {
    let database = Database::new();
    let mut store = database.open("sensor");
    apply(&mut store, &[OPEN]);
    for first in (1..=20_000).step_by(1_000) {
        append(NODE, first, first + 999, &mut store);
    }
    database.run("DELETE FROM conn_messages WHERE number > 500 AND number <= 19000");
    assert_eq!(drain(&database, &mut store), 1_500);
}

/// Loads page by page, and trims each one; says how many rows are gone.
fn drain(database: &Database, store: &mut PostgresStore) -> u64 {
    let rows = || database.one("SELECT count(*) FROM conn_messages").parse::<u64>().expect("a number");
    let (before, mut into, mut through) = (rows(), vec![0; PAGE], 0);
    loop {
        match store.load(NODE, through, &mut into).expect("it is read") {
            Loaded::Records { first, last, .. } => {
                assert_eq!(first, through + 1);
                apply(store, &[StoreOp::Trim { queue: NODE, through: last }]);
                through = last;
            }
            Loaded::Nothing => return before - rows(),
            other @ (Loaded::Corrupt { .. } | Loaded::TooSmall { .. }) => panic!("{other:?}"),
        }
    }
}

/// Rows and index entries that were read, once all of what the sessions did is counted.
fn touched(database: &Database, deleted: u64) -> u64 {
    let sql = "SELECT n_tup_del, seq_tup_read + idx_tup_fetch
          + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'conn_messages')
      FROM pg_stat_user_tables WHERE relname = 'conn_messages'";
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let rows = server().query_in(&database.0, sql).expect("it is executed");
        let number = |index: usize| -> u64 {
            rows[0][index].as_deref().unwrap_or_default().parse().expect("a number")
        };
        if number(0) >= deleted {
            return number(1);
        }
        // The server counts what a session did at the latest when that ends: nothing tells of it.
        assert!(Instant::now() < deadline, "the server has counted {} of {deleted} rows", number(0));
    }
}
