//! The inbox: what a group puts there, and what a store says of it. Taking is no request: each store has means of its own for that.

use liner_proto::effect::{Delivery, InboxHeld, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::wire::record::Mode;

use super::{Capabilities, Open, Place, View};

const EPOCH: Epoch = Epoch(0xfedc_ba98_7654_3210);

fn delivery<'a>(number: u64, payload: &'a [u8]) -> StoreOp<'a> {
    let (from, topic, mode) = ("p:\\ü", "readings", Mode::One);
    StoreOp::Deliver(Delivery { from, epoch: EPOCH, number, topic, mode, maybe_redelivered: false, payload })
}

const fn cursor(through: u64) -> StoreOp<'static> {
    StoreOp::Cursor { peer: "p:\\ü", epoch: EPOCH, through }
}

#[expect(clippy::expect_used, reason = "a test may fail")]
fn held(place: &mut Place<'_>) -> Option<InboxHeld> {
    place.store().inbox().expect("the store can be asked")
}

/// A store that keeps no inbox says so, and refuses what is to go there, with the cursor that stands in the same group.
pub fn a_store_keeps_an_inbox_or_says_that_it_does_not(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    assert_eq!(place.store().capabilities().inbox, caps.inbox, "it is declared");
    if caps.inbox {
        assert_eq!(held(&mut place), Some(InboxHeld::default()));
        return;
    }
    assert_eq!(held(&mut place), None);
    assert_eq!(place.store().apply(&[delivery(1, b"x"), cursor(1)]), Err(StoreFault::Refused));
    assert_eq!(place.view(), View::default());
}

/// What was put there is counted, message by message, and is there when the store is opened again.
pub fn what_was_delivered_stays(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    if !caps.inbox {
        return;
    }
    let texts = ("p:\\ü".len() + "readings".len()) as u64;
    for number in 1..=3 {
        let payload = vec![7; 100 * number as usize];
        place.done(&[delivery(number, &payload), cursor(number)]);
    }
    let all = InboxHeld { messages: 3, bytes: 600 + 3 * texts };
    assert_eq!(held(&mut place), Some(all));
    place.reopen();
    assert_eq!(held(&mut place), Some(all));
    // What was applied counts before it is committed.
    assert_eq!(place.store().apply(&[delivery(9, b"x")]), Ok(()));
    let all = InboxHeld { messages: 4, bytes: 601 + 4 * texts };
    assert_eq!(held(&mut place), Some(all));
    assert_eq!(place.store().commit(), Ok(()));
    place.reopen();
    assert_eq!(held(&mut place), Some(all));
    assert_eq!(place.view().cursors.get("p:\\ü"), Some(&(EPOCH, 3)));
    // No payload is one, too, and nothing else touches it.
    place.done(&[delivery(4, b"")]);
    let queue = Queue::Node("p:\\ü");
    place.done(&[StoreOp::Open { queue, epoch: EPOCH }, StoreOp::Close { queue }]);
    place.reopen();
    assert_eq!(held(&mut place), Some(InboxHeld { messages: 5, bytes: 601 + 5 * texts }));
}

/// The message and its cursor are there together or not at all.
pub fn a_failed_group_delivers_nothing(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    if !caps.inbox {
        return;
    }
    let nowhere = StoreOp::Trim { queue: Queue::Node("nobody"), through: 1 };
    for group in [[delivery(1, b"x"), cursor(1), nowhere], [nowhere, delivery(1, b"x"), cursor(1)]] {
        assert_eq!(place.store().apply(&group), Err(StoreFault::Refused));
        assert_eq!(place.store().commit(), Ok(()));
        assert_eq!(held(&mut place), Some(InboxHeld::default()));
    }
    assert_eq!(place.view(), View::default());
}

/// A full store takes nothing more into the inbox, and cursors all the same.
pub fn a_full_store_delivers_nothing(open: Open<'_>, caps: Capabilities) {
    let mut place = Place::new(open, caps);
    if !caps.inbox || !caps.is_bounded() {
        return;
    }
    let large = vec![7; caps.bytes_max / 8];
    let mut number = 0;
    let fault = loop {
        number += 1;
        assert!(number < 100, "it is never full");
        if let Err(fault) = place.try_done(&[delivery(number, &large), cursor(number)]) {
            break fault;
        }
    };
    assert_eq!(fault, StoreFault::Full);
    let before = held(&mut place);
    assert_eq!(before.map(|held| held.messages), Some(number - 1));
    place.done(&[cursor(number)]);
    place.reopen();
    assert_eq!(held(&mut place), before);
    assert_eq!(place.view().cursors.get("p:\\ü"), Some(&(EPOCH, number)));
}
