//! The stores without a disk keep the contract.

use liner_proto::store::{HeapStore, RamStore, Store};
use liner_tests::conformance::Capabilities;

mod heap {
    use super::*;

    const BYTES: usize = 1 << 22;

    fn place() -> impl FnMut() -> Box<dyn Store> {
        || Box::new(HeapStore::new(BYTES as u64).with_inbox())
    }

    liner_tests::conformance_tests!(
        place,
        Capabilities {
            persists: false,
            queues: 1000,
            cursors: 1000,
            directory: true,
            inbox: true,
            name_max: 255,
            bytes_max: BYTES,
        }
    );
}

mod ram {
    use super::*;

    const BYTES: usize = 4096;

    fn place() -> impl FnMut() -> Box<dyn Store> {
        || Box::new(RamStore::<BYTES>::new())
    }

    liner_tests::conformance_tests!(
        place,
        Capabilities {
            persists: false,
            queues: 1,
            cursors: 2,
            directory: false,
            inbox: false,
            name_max: 32,
            bytes_max: BYTES,
        }
    );
}
