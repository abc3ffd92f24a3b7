//! The server behind the stores of two nodes is killed and started again in mid-stream: nothing is lost, nothing comes twice, both work
//! again by themselves, and need no more memory than before.
//!
//! `LINER_E2E_SERVER_KILLS` says how often.

use std::time::{Duration, Instant};

use liner_tests::servers::{Postgres, PostgresOptions, Redis, RedisOptions, Server, Version};

use crate::party::{Party, Pauses, end, pair};

/// How often the server is killed.
fn kills() -> u32 {
    std::env::var("LINER_E2E_SERVER_KILLS").map_or(10, |text| text.parse().unwrap())
}

/// How long it may take from the moment on at which the server answers.
const BACK: Duration = Duration::from_secs(1);
/// What a busy machine may add to that in a test.
const GRACE: Duration = Duration::from_secs(9);

/// Takes what both say until each has had something that was sent after the moment at which this began.
fn until_both_work(pair: &mut [Party; 2]) -> Duration {
    let begun = Instant::now();
    let had = pair.each_ref().map(|party| party.had.len());
    let sent = pair.each_ref().map(|party| party.sent.len());
    while pair
        .iter()
        .zip(had.iter().zip(&sent))
        .any(|(party, (&had, &sent))| party.had.len() == had || party.sent.len() == sent)
    {
        assert!(begun.elapsed() < BACK + GRACE, "no traffic {:?} after the server was back", begun.elapsed());
        for party in &mut *pair {
            party.hear(Instant::now() + Duration::from_millis(5), None);
        }
    }
    begun.elapsed()
}

fn kill_again_and_again(server: &Server, restart: impl Fn(), store: impl Fn(&str) -> String) {
    let mut pair = pair(store);
    // Who starts without a server says so and ends.
    for party in &mut pair {
        while party.sent.is_empty() {
            party.hear(Instant::now() + Duration::from_millis(5), None);
        }
    }
    let mut pauses = Pauses::new();
    let mut times = Vec::new();
    let mut memory = [0; 2];
    for kill in 0..kills() {
        pauses.work(&mut pair);
        server.kill().unwrap();
        // Both try in vain for a while.
        pauses.work(&mut pair);
        restart();
        times.push(until_both_work(&mut pair));
        if kill == 1 {
            memory = pair.each_ref().map(Party::memory);
        }
    }
    let grown = [0, 1].map(|at| pair[at].memory().saturating_sub(memory[at]));
    times.sort_unstable();
    println!(
        "{} kills, back after {:?} (median) to {:?}, {grown:?} KiB more",
        kills(),
        times[times.len() / 2],
        times.last()
    );
    assert!(grown.iter().all(|grown| *grown < 8 << 10), "memory grew by {grown:?} KiB");
    for party in end(pair) {
        // Nobody has died, so that nothing comes again, not even with a mark.
        assert!(party.had.values().all(|times| *times == 1), "{}: something came twice", party.name);
        assert!(party.refused.keys().all(|words| words.contains("unavailable")), "{:?}", party.refused);
    }
}

#[test]
fn a_redis_that_is_killed_again_and_again() {
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    kill_again_and_again(&redis, || redis.restart().unwrap(), |_| redis.url());
}

#[test]
fn a_postgres_that_is_killed_again_and_again() {
    let postgres = Postgres::start(Version::V15, &PostgresOptions::default()).unwrap();
    kill_again_and_again(&postgres, || postgres.restart().unwrap(), |_| postgres.url());
}
