//! The store in an SQLite file keeps the contract.
#![allow(clippy::expect_used, reason = "a test may fail")]

use liner_proto::id::Class;
use liner_proto::store::Store;
use liner_store_sqlite::{Options, SqliteStore};
use liner_tests::conformance::Capabilities;

const BYTES: usize = 4 << 20;

fn place(durability: Class) -> impl FnMut() -> Box<dyn Store> {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let options = Options {
        name: "a:b\\node".to_owned(),
        durability,
        limit_bytes: Some(BYTES as u64),
        boot_id: "this run".to_owned(),
    };
    move || {
        let store = SqliteStore::open(folder.path().join("liner.db"), &options).expect("the store opens");
        assert_eq!(store.class(), durability);
        assert_eq!(store.opened().quarantined, None);
        assert_eq!((store.opened().damaged, store.opened().orphaned), (0, 0));
        Box::new(store)
    }
}

const CAPS: Capabilities = Capabilities {
    persists: true,
    queues: 1000,
    cursors: 1000,
    directory: true,
    inbox: true,
    name_max: 255,
    bytes_max: BYTES,
};

mod process {
    use super::*;

    liner_tests::conformance_tests!(|| place(Class::Process), CAPS);
}

mod power {
    use super::*;

    liner_tests::conformance_tests!(|| place(Class::Power), CAPS);
}

mod troubled {
    use super::*;
    use liner_tests::conformance::trouble;
    use rusqlite::Connection;

    fn with_file(rule: impl FnOnce(&mut dyn FnMut() -> Box<dyn Store>, &dyn Fn(&str))) {
        let folder = tempfile::tempdir().expect("a folder for the file");
        let path = folder.path().join("liner.db");
        let options = Options {
            name: "node".to_owned(),
            durability: Class::Power,
            limit_bytes: None,
            boot_id: "this run".to_owned(),
        };
        // What an operator does to the file.
        let run = |sql: &str| {
            let conn = Connection::open(&path).expect("the file opens");
            conn.execute_batch(sql).expect("it is executed");
        };
        rule(&mut || Box::new(SqliteStore::open(&path, &options).expect("the store opens")), &run);
    }

    #[test]
    fn a_damaged_record_is_told() {
        with_file(|open, run| {
            trouble::a_damaged_record_is_told(open, CAPS, &mut |number| {
                run(&format!(
                    "UPDATE segments SET records = CAST(substr(records, 1, length(records) - 1) || x'55' AS BLOB)
                     WHERE {number} BETWEEN first AND last"
                ));
            });
        });
    }

    #[test]
    fn a_turn_that_fails_leaves_nothing() {
        with_file(|open, run| {
            trouble::a_turn_that_fails_leaves_nothing(open, CAPS, &mut |keep| {
                run(if keep {
                    "CREATE TRIGGER none BEFORE INSERT ON segments BEGIN SELECT RAISE(ABORT, 'no more'); END"
                } else {
                    "DROP TRIGGER none"
                });
            });
        });
    }
}

mod shared {
    use super::*;

    fn open(path: &str, name: &str) -> Result<Box<dyn Store>, String> {
        let boot_id = "this run".to_owned();
        let options =
            Options { name: name.to_owned(), durability: Class::Process, limit_bytes: None, boot_id };
        let store = SqliteStore::open(path, &options).map_err(|error| error.to_string())?;
        Ok(Box::new(store))
    }

    fn place() -> impl FnMut(&str) -> Result<Box<dyn Store>, String> {
        let folder = tempfile::tempdir().expect("a folder for the file");
        move |name| open(&folder.path().join("liner.db").to_string_lossy(), name)
    }

    liner_tests::shared_conformance_tests!(place);
}
