//! What a store must do that several nodes use at the same time, each under its own name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use liner_proto::effect::{DeadReason, Loaded, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::router::{DirectoryRows, Standing};
use liner_proto::store::Store;

use super::View;
use super::records::{message, numbered, run};

/// Opens the store of one place for the node of this name.
pub type OpenAs<'a> = &'a mut dyn FnMut(&str) -> Result<Box<dyn Store>, String>;

const NODE: Queue<'static> = Queue::Node("gateway");
const EPOCH: Epoch = Epoch(11);

#[expect(clippy::panic, reason = "a test may fail")]
fn open(open: OpenAs<'_>, name: &str) -> Box<dyn Store> {
    open(name).unwrap_or_else(|words| panic!("{name}: {words}"))
}

#[expect(clippy::panic, reason = "a test may fail")]
fn done(store: &mut dyn Store, group: &[StoreOp<'_>]) {
    let outcome = store.apply(group).and_then(|()| store.commit());
    if let Err(fault) = outcome {
        panic!("{group:?}: {fault} ({})", store.last_error().unwrap_or_default());
    }
}

/// Queues, cursors, dead letters and the inbox epoch of one node are nobody else's, whatever the names.
pub fn nodes_are_apart(open_as: OpenAs<'_>) {
    let names = ["a", "a:", "a\\", ":a", "b"];
    let mut stores: Vec<_> = names.iter().map(|name| open(open_as, name)).collect();
    for (index, store) in (1..).zip(&mut stores) {
        let records = numbered(1, index);
        done(
            &mut **store,
            &[
                StoreOp::Inbox { epoch: Epoch(index) },
                StoreOp::Open { queue: NODE, epoch: Epoch(index) },
                StoreOp::Append { queue: NODE, first: 1, last: index, records: &records },
                StoreOp::Cursor { peer: "p", epoch: EPOCH, through: index },
            ],
        );
        for _ in 1..index {
            let record = &message(b"letter");
            done(
                &mut **store,
                &[StoreOp::DeadLetter { peer: "p", topic: "t", reason: DeadReason::Quota, record }],
            );
        }
    }
    // What one of them closes is the others' no less.
    done(&mut *stores.remove(2), &[StoreOp::Close { queue: NODE }]);
    drop(stores);
    for (index, name) in (1..).zip(names) {
        let mut store = open(open_as, name);
        let view = View::of(&mut *store);
        assert_eq!((view.inbox, view.dead_letters), (Some(Epoch(index)), index - 1), "{name}");
        assert_eq!(view.cursors, BTreeMap::from([("p".to_owned(), (EPOCH, index))]), "{name}");
        if name == "a\\" {
            assert!(view.queues.is_empty());
            continue;
        }
        let records = numbered(1, index);
        let mut into = vec![0; 1000];
        let loaded = store.load(NODE, 0, &mut into);
        assert_eq!(loaded, Ok(Loaded::Records { first: 1, last: index, len: records.len() }), "{name}");
        assert_eq!(into.get(..records.len()), Some(&*records), "{name}");
    }
}

/// Both know the rows that either wrote, at once after the commit, and when they are opened again.
pub fn the_directory_is_everybodys(open_as: OpenAs<'_>) {
    let (mut one, mut other) = (open(open_as, "one"), open(open_as, "other"));
    let subscribe = |topic, address, name| StoreOp::Subscribe { topic, address, name };
    let _ = other.directory();
    assert!(matches!(other.directory(), Ok(None)), "nothing has changed");
    done(&mut *one, &[subscribe("t", "h:1", "one"), subscribe("u", "h:1", "one")]);
    assert!(matches!(other.directory(), Ok(Some(_))), "a row has come");
    assert!(matches!(other.directory(), Ok(None)), "it was told");
    done(&mut *other, &[subscribe("t", "h:2", "other"), subscribe("u", "h:1", "renamed")]);
    assert!(matches!(one.directory(), Ok(Some(_))), "a row has come, and a name has changed");
    // The row is another node's now.
    done(&mut *one, &[StoreOp::Unsubscribe { topic: "u", address: "h:1", name: "one" }]);
    done(&mut *one, &[StoreOp::Unsubscribe { topic: "t", address: "h:1", name: "one" }]);
    assert!(matches!(other.directory(), Ok(Some(_))), "a row has gone");
    drop((one, other));
    let row =
        |topic: &str, address: &str, name: &str| ((topic.to_owned(), address.to_owned()), name.to_owned());
    let expected = BTreeMap::from([row("t", "h:2", "other"), row("u", "h:1", "renamed")]);
    for name in ["one", "other", "third"] {
        assert_eq!(View::of(&mut *open(open_as, name)).directory, expected, "{name}");
    }
}

/// Who runs has a lease, whose end is known at once if it ends by itself; what was written by hand has none.
pub fn the_directory_tells_who_runs(open_as: OpenAs<'_>) {
    let (mut one, mut other) = (open(open_as, "one"), open(open_as, "other"));
    assert!(one.capabilities().shared, "it is declared");
    if !one.capabilities().leases {
        return;
    }
    // A node reads the directory from its start on, which is when it renews its lease.
    let _ = other.directory();
    let subscribe = |address, name| StoreOp::Subscribe { topic: "t", address, name };
    done(&mut *other, &[subscribe("h:1", "other"), subscribe("h:2", "by-hand")]);
    let told = rows(&mut *one).map(|rows| (rows.standing("other"), rows.standing("by-hand")));
    assert_eq!(told, Some((Standing::Up, Standing::Unleased)));
    assert_eq!(rows(&mut *one), None, "it was told");
    drop(other);
    assert_eq!(rows(&mut *one).map(|rows| rows.standing("other")), Some(Standing::Away), "it has ended");
    let mut other = open(open_as, "other");
    let _ = other.directory();
    assert_eq!(rows(&mut *one).map(|rows| rows.standing("other")), Some(Standing::Up), "it is back");
}

#[expect(clippy::expect_used, reason = "a test may fail")]
fn rows(store: &mut dyn Store) -> Option<DirectoryRows> {
    store.directory().expect("the directory can be read")
}

/// Where word of changes comes from at all, it comes of each, once the change is there to be read; and a wait for it can be ended.
#[expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]
pub fn word_of_changes_comes(open_as: OpenAs<'_>) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (mut one, mut other) = (open(open_as, "one"), open(open_as, "other"));
    let Some(mut notices) = one.notices() else { return };
    assert!(one.notices().is_none(), "there is one for each store");
    let interrupt = notices.interrupter();
    let mut expected = DirectoryRows::default();
    for port in 1..=20 {
        let address = format!("h:{port}");
        done(&mut *other, &[StoreOp::Subscribe { topic: "t", address: &address, name: "other" }]);
        expected.push("t", &address, "other");
        let begun = Instant::now();
        let mut is_known = false;
        while !is_known {
            assert!(begun.elapsed() < PATIENCE, "no word of row {port}");
            if let Some(told) = notices.wait(PATIENCE).then(|| rows(&mut *one)).flatten() {
                for name in ["one", "other"] {
                    expected.set_standing(name, told.standing(name));
                }
                is_known = told == expected;
            }
        }
    }
    // What is left of the latest changes does not count.
    while notices.wait(Duration::ZERO) {}
    for _ in 0..3 {
        // Nobody waits yet.
        interrupt();
        let begun = Instant::now();
        while notices.wait(PATIENCE) {}
        assert!(begun.elapsed() < PATIENCE / 2, "the wait was not ended");
    }
}

/// A name is used once: whoever has it keeps it and the newcomer is refused, or the newcomer has it and the older one can do nothing more.
/// In neither case is anything of the other's work lost.
pub fn a_name_is_used_once(open_as: OpenAs<'_>) {
    let append = |number, records| StoreOp::Append { queue: NODE, first: number, last: number, records };
    let one = run([message(b"one")]);
    let mut older = open(open_as, "n");
    done(&mut *older, &[StoreOp::Open { queue: NODE, epoch: EPOCH }, append(1, &one)]);
    let Ok(mut newer) = open_as("n") else {
        done(&mut *older, &[append(2, &one)]);
        drop(older);
        assert_eq!(View::of(&mut *open(open_as, "n")).queue(NODE).messages, 2);
        return;
    };
    assert_eq!(View::of(&mut *newer).queue(NODE).messages, 1);
    let refused = older.apply(&[append(2, &one)]).and_then(|()| older.commit());
    assert_eq!(refused, Err(StoreFault::Superseded));
    done(&mut *newer, &[append(2, &one)]);
    let refused = older.apply(&[StoreOp::Trim { queue: NODE, through: 2 }]).and_then(|()| older.commit());
    assert_eq!(refused, Err(StoreFault::Superseded));
    // Its end takes nothing from the newer one.
    drop(older);
    done(&mut *newer, &[append(3, &one)]);
    drop(newer);
    assert_eq!(View::of(&mut *open(open_as, "n")).queue(NODE).messages, 3);
}

/// Makes a test of each rule for a store that is shared. `$place` is an expression for a closure that makes a fresh place whenever it is
/// called, and gives the closure that opens it under a name.
#[macro_export]
macro_rules! shared_conformance_tests {
    ($place:expr) => {
        $crate::shared_conformance_tests!(@each $place;
            nodes_are_apart,
            the_directory_is_everybodys,
            the_directory_tells_who_runs,
            word_of_changes_comes,
            a_name_is_used_once,
        );
    };
    (@each $place:expr; $($rule:ident,)*) => {
        $(
            #[test]
            fn $rule() {
                let mut open = ($place)();
                $crate::conformance::shared::$rule(&mut open);
            }
        )*
    };
}
