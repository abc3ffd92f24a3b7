//! Long turns while connections are cut, the server is killed, and others take the name: each message is there once.
#![allow(clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "what waits in vain has to end in time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use liner_proto::effect::{GapReason, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::rng::Rng;
use liner_proto::store::Store as _;
use liner_store::byhand;
use liner_store_redis::{Options, RedisStore};
use liner_tests::servers::cut::{Cut, Cutter, Way};
use liner_tests::servers::{PATIENCE, Redis, RedisOptions, Reply};

mod common;
use common::{held, message};

const QUEUES: [Queue<'static>; 3] = [Queue::Node("a"), Queue::Node("b"), Queue::Topic("t")];

/// What a queue should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    floor: u64,
    messages: Vec<String>,
}

type Model = BTreeMap<Queue<'static>, Held>;

fn asked(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn open(url: &str) -> RedisStore {
    let begun = Instant::now();
    loop {
        match RedisStore::open(url, &Options { name: "sensor".to_owned() }) {
            Ok(store) => return store,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// A turn by chance: what it applies, and what is to be there then.
fn turn(store: &mut RedisStore, dice: &mut Rng, model: &Model, what: &str) -> Result<Model, StoreFault> {
    let mut next = model.clone();
    for (index, queue) in QUEUES.into_iter().enumerate() {
        if dice.below(8) == 0 && next.remove(&queue).is_some() {
            store.apply(&[StoreOp::Close { queue }])?;
        }
        if dice.below(4) == 0 {
            continue;
        }
        if !next.contains_key(&queue) {
            store.apply(&[StoreOp::Open { queue, epoch: Epoch(dice.next_nonzero()) }])?;
        }
        let queued = next.entry(queue).or_default();
        for _ in 0..=dice.below(2) {
            let first = queued.floor + queued.messages.len() as u64 + 1;
            let count = dice.below(200);
            let mut records = Vec::new();
            for number in first..first + count {
                let text = format!("{what} {index} {number}");
                assert!(byhand::put(&mut records, &message("t", text.as_bytes())));
                queued.messages.push(text);
            }
            if count > 0 {
                store.apply(&[StoreOp::Append {
                    queue,
                    first,
                    last: first + count - 1,
                    records: &records,
                }])?;
            }
            let gone = dice.below(queued.messages.len() as u64 * 3 / 2 + 1).min(queued.messages.len() as u64);
            let through = queued.floor + gone;
            if gone > 0 {
                if dice.below(3) == 0 {
                    store.apply(&[StoreOp::Drop { queue, through, reason: GapReason::Dropped }])?;
                } else {
                    store.apply(&[StoreOp::Trim { queue, through }])?;
                }
                queued.floor = through;
                queued.messages.drain(..gone as usize);
            }
        }
    }
    Ok(next)
}

fn check(store: &mut RedisStore, server: &Redis, model: &Model, what: &str) {
    // Its connection may have ended with the server.
    let begun = Instant::now();
    while let Err(fault) = store.inbox() {
        assert!(begun.elapsed() < PATIENCE && fault == StoreFault::Unavailable, "{what}: {fault}");
    }
    for queue in QUEUES {
        let Some(expected) = model.get(&queue) else { continue };
        let seen = held(store, queue, expected.floor);
        let texts: Vec<String> =
            seen.iter().map(|(_, _, payload)| String::from_utf8_lossy(payload).into_owned()).collect();
        assert!(
            texts == expected.messages,
            "{what} {queue:?}: {} of {}",
            texts.len(),
            expected.messages.len()
        );
    }
    let number = |words: &[&str]| server.command(words).expect("it answers");
    let Reply::List(keys) = number(&["KEYS", "lnr_connection:*:messages"]) else { panic!("a list") };
    let mut lens = 0;
    for key in keys {
        let Reply::Bytes(key) = key else { panic!("a key") };
        let Reply::Number(len) = number(&["LLEN", &String::from_utf8_lossy(&key)]) else {
            panic!("a number")
        };
        lens += len;
    }
    let expected: usize = model.values().map(|held| held.messages.len()).sum();
    assert_eq!(lens, expected as i64, "{what}: nothing else is there");
    for pattern in ["lnr_quarantine", "*:inserted", "*:orphaned", "lnr_node:sensor:dead"] {
        assert_eq!(number(&["KEYS", pattern]), Reply::List(Vec::new()), "{what}");
    }
}

/// Somewhere in the records, in the script behind them, or behind both.
fn cut_request(dice: &mut Rng) -> Cut {
    let marker = [&b"MULTI"[..], b"EVAL"][dice.below(2) as usize].to_vec();
    let near = dice.below(2) == 0;
    Cut { way: Way::Request, after: dice.below(if near { 3000 } else { 40_000 }), marker, refuse: false }
}

fn cut_reply(dice: &mut Rng) -> Cut {
    Cut { way: Way::Reply, after: dice.below(64), marker: b"MULTI".to_vec(), refuse: false }
}

/// `LINER_TEST_FAULTS=5000` for the long form.
#[test]
fn whatever_happens_each_message_of_long_turns_is_there_once() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let cutter = Cutter::start(server.address()).expect("the cutter starts");
    let url = format!("redis://{}?connect_timeout=2s&command_timeout=5s", cutter.address());
    let seed = asked("LINER_TEST_SEED", std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    println!("LINER_TEST_SEED={seed}");
    let mut dice = Rng::new([seed, 7]);
    let (mut store, mut model) = (open(&url), Model::new());
    let mut outcomes = BTreeMap::<String, u64>::new();
    for step in 0..asked("LINER_TEST_FAULTS", 120) {
        let what = format!("seed {seed} step {step}");
        let fault = dice.below(6);
        let next = turn(&mut store, &mut dice, &model, &step.to_string()).expect("it is right");
        let outcome = std::thread::scope(|scope| {
            match fault {
                0 => cutter.plan(cut_request(&mut dice)),
                1 => cutter.plan(cut_reply(&mut dice)),
                2 => {
                    let pause = Duration::from_micros(dice.below(6000));
                    let server = &server;
                    scope.spawn(move || {
                        let begun = Instant::now();
                        while begun.elapsed() < pause {}
                        server.kill().and_then(|()| server.restart()).expect("it starts again");
                    });
                }
                3 => drop(open(&url)),
                _ => {}
            }
            let mut outcome = store.commit();
            let mut in_doubt = false;
            let begun = Instant::now();
            while outcome == Err(StoreFault::Unknown) || in_doubt && outcome == Err(StoreFault::Unavailable) {
                in_doubt = true;
                assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", store.last_error());
                outcome = store.resolve();
            }
            *outcomes.entry(format!("{fault} {in_doubt} {outcome:?}")).or_default() += 1;
            outcome
        });
        cutter.spare();
        match outcome {
            Ok(()) => {
                assert!(fault != 3 || next == model, "{what}: somebody else had the name");
                model = next;
                // Of a turn without anything in it nobody is asked.
                if fault == 3 {
                    store = open(&url);
                }
            }
            Err(StoreFault::Superseded) => {
                assert_eq!(fault, 3, "{what}");
                store = open(&url);
            }
            Err(StoreFault::Unavailable) => {}
            Err(fault) => panic!("{what}: {fault} {:?}", store.last_error()),
        }
        if dice.below(10) == 0 {
            drop(store);
            store = open(&url);
        }
        check(&mut store, &server, &model, &what);
    }
    println!("{outcomes:?}");
    assert!(outcomes.keys().any(|outcome| outcome.contains("true Ok")), "nothing was ever in doubt");
}
