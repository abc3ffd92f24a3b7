//! Senders and receivers are killed at random moments, on each store: nothing is lost, nothing new is taken for a repetition, and every
//! repetition is marked.
//!
//! `LINER_E2E_BOTH_WAYS=1000` is the long form: so often each of the two is killed.

use liner_tests::servers::{Postgres, PostgresOptions, Redis, RedisOptions, Version};

use crate::party::{Pauses, end, pair};

/// How often each of the two is killed.
fn kills() -> usize {
    std::env::var("LINER_E2E_BOTH_WAYS").map_or(13, |text| text.parse().unwrap())
}

fn kill_again_and_again(store: impl Fn(&str) -> String) {
    let mut pair = pair(store);
    let mut pauses = Pauses::new();
    for kill in 0..2 * kills() {
        pauses.work(&mut pair);
        let victim = &mut pair[kill % 2];
        victim.kill();
        victim.start();
    }
    for party in end(pair) {
        assert_eq!(party.refused.len(), 0, "{}: {:?}", party.name, party.refused);
        assert!(party.sent.len() > kills(), "{} hardly sent anything", party.name);
    }
}

#[test]
fn nodes_with_files_of_their_own_are_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    kill_again_and_again(|name| format!("sqlite:{}/{name}.db?durability=process", folder.path().display()));
}

#[test]
fn nodes_that_share_a_file_are_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    kill_again_and_again(|_| format!("sqlite:{}/both.db?durability=process", folder.path().display()));
}

#[test]
fn nodes_on_a_redis_are_killed_again_and_again() {
    let redis = Redis::start(&RedisOptions::default()).unwrap();
    kill_again_and_again(|_| redis.url());
}

#[test]
fn nodes_on_a_postgres_are_killed_again_and_again() {
    let postgres = Postgres::start(Version::V15, &PostgresOptions::default()).unwrap();
    kill_again_and_again(|_| postgres.url());
}
