//! What the store in an SQLite file has after the death of its process.
//!
//! Alone in its process: a child that has been forked holds the locks of its parent until it runs its own program.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::id::Class;
use liner_store_sqlite::{Options, SqliteStore};
use liner_tests::conformance::{Capabilities, killed};

const CAPS: Capabilities = Capabilities {
    persists: true,
    queues: 1000,
    cursors: 1000,
    directory: true,
    inbox: true,
    name_max: 255,
    bytes_max: usize::MAX,
};

#[test]
fn whoever_is_killed_leaves_whole_commits() {
    let folder = tempfile::tempdir().expect("a folder for the file");
    killed::whoever_is_killed_leaves_whole_commits(
        "whoever_is_killed_leaves_whole_commits",
        &folder.path().join("liner.db").to_string_lossy(),
        |path, name| {
            let (name, boot_id) = (name.to_owned(), "this run".to_owned());
            let options = Options { name, durability: Class::Process, limit_bytes: None, boot_id };
            Box::new(SqliteStore::open(path, &options).expect("the store opens"))
        },
        CAPS,
    );
}
