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
