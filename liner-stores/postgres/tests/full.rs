//! A server whose disk is full: what needs room is refused, acknowledgements go on, and all works again when there is room.
#![allow(clippy::expect_used, reason = "a test may fail")]

mod turns;

use liner_proto::effect::{StoreFault, StoreOp};
use liner_proto::store::Store as _;
use liner_tests::conformance::View;
use liner_tests::conformance::records::numbered;
use liner_tests::servers::{Postgres, PostgresOptions, Version};
use turns::{QUEUE, begin, open, persist};

/// The server says what it says when a table cannot be extended; the disk need not be filled for that.
const FILL: &str = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON conn_messages FOR EACH ROW EXECUTE FUNCTION no_room()";

#[test]
fn acknowledgements_go_on_when_the_disk_is_full() {
    let server = Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts");
    let mut store = open(&server.url(), "node").expect("the store opens");
    begin(&mut store);
    (1..=6).for_each(|number| persist(&mut store, number));
    server.query(FILL).expect("the disk is full");
    let records = numbered(7, 7);
    let append = StoreOp::Append { queue: QUEUE, first: 7, last: 7, records: &records };
    assert_eq!(store.apply(&[append]).and_then(|()| store.commit()), Err(StoreFault::Full));
    assert!(store.last_error().expect("it says why").contains("No space left on device"));
    // What grows takes nothing with it any more that gives up.
    for through in 4..=6 {
        assert_eq!(store.apply(&[append]), Err(StoreFault::Full));
        store.apply(&[StoreOp::Trim { queue: QUEUE, through }]).expect("it needs no room");
        store.commit().expect("it needs no room");
        assert_eq!(View::of(&mut store).queue(QUEUE).trimmed, through);
    }
    server.query("DROP TRIGGER no_room ON conn_messages").expect("there is room");
    let stored = (0..100).any(|_| store.apply(&[append]).and_then(|()| store.commit()).is_ok());
    assert!(stored, "it is not tried again");
    let queue = View::of(&mut store).queue(QUEUE).clone();
    assert_eq!((queue.last, queue.trimmed, queue.messages), (7, 6, 1));
}
