//! A gateway whose store is full: what was acknowledged is kept, what was not waits, and a subscriber gets all of it.
#![expect(clippy::unwrap_used, reason = "so a test ends")]
#![expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]

use std::path::Path;
use std::time::{Duration, Instant};

use liner_mio::{Event, Framing, HeapStore, Message, Mode, Node, SendError};
use liner_proto::effect::StoreFault;
use liner_proto::id::Class;
use liner_store_sqlite::{Options, SqliteStore};

const MESSAGES: u32 = 6000;
const LIMIT: u64 = 4 << 20;

/// A message of 1 KiB with its number.
fn payload(number: u32) -> [u8; 1024] {
    let mut payload = [0x5a; 1024];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

fn gateway(folder: &Path) -> Node {
    let options = Options {
        name: "gateway".to_owned(),
        durability: Class::Process,
        limit_bytes: Some(LIMIT),
        boot_id: "boot".to_owned(),
    };
    let store = SqliteStore::open(folder.join("gateway.db"), &options).unwrap();
    let builder = Node::builder("gateway").takes_custody(true).durable(true);
    builder.listen("127.0.0.1:0", Framing::Length).store(Box::new(store)).build().unwrap()
}

fn ignore(_: &Message<'_>) {}

#[test]
fn m12_a_full_gateway_loses_nothing_and_empties() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = gateway(folder.path());
    let address = gateway.listen_addrs()[0].to_string();
    let mut sender =
        Node::builder("sender").peer(&address).store(Box::new(HeapStore::new(64 << 20))).build().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let (mut sent, mut full) = (0, false);
    // Until the store has said that it is full, and what it took is acknowledged.
    while !full || sent < MESSAGES {
        assert!(Instant::now() < end, "{sent} sent, full: {full}");
        while sent < MESSAGES {
            match sender.send("t", &payload(sent), Mode::All) {
                Ok(_) => sent += 1,
                Err(SendError::Busy) => break,
                Err(error) => panic!("{error}"),
            }
        }
        sender.drive(Some(Duration::ZERO), &mut ignore).unwrap();
        gateway.drive(Some(Duration::from_millis(1)), &mut ignore).unwrap();
        while let Some(event) = gateway.poll_event() {
            full |= event == Event::StoreFailed(StoreFault::Full);
        }
    }
    assert!(sender.queued() > 0, "everything went into the store");

    let mut subscriber = Node::builder("w")
        .peer(&address)
        .store(Box::new(HeapStore::new(1 << 20)))
        .durable(true)
        .accept_weak_acks(true)
        .subscribe("t")
        .build()
        .unwrap();
    let mut seen: Vec<u32> = Vec::new();
    while seen.len() < MESSAGES as usize || !sender.is_idle() || !gateway.is_idle() {
        assert!(Instant::now() < end, "{} of {MESSAGES}; {} wait", seen.len(), sender.queued());
        sender.drive(Some(Duration::ZERO), &mut ignore).unwrap();
        gateway.drive(Some(Duration::ZERO), &mut ignore).unwrap();
        let mut keep = |message: &Message<'_>| {
            let number = message.payload[..4].try_into().unwrap();
            assert_eq!(message.payload, payload(u32::from_be_bytes(number)));
            assert!(!message.maybe_redelivered);
            seen.push(u32::from_be_bytes(number));
        };
        subscriber.drive(Some(Duration::from_millis(1)), &mut keep).unwrap();
    }
    assert!(seen.iter().copied().eq(0..MESSAGES), "another order, or something is missing");
}
