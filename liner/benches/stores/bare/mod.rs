//! The same rows once more, without a node: into empty tables as the store makes them.

mod postgres;
mod redis;
mod sqlite;

use std::time::Duration;

use crate::place::Place;

/// Inserts what a node has stored, `count` messages, once more, so many of them in a transaction. Tells how long that took.
pub(crate) fn insert(place: &Place, batch: usize, count: u64) -> Duration {
    match place {
        Place::Sqlite { folder, class } => sqlite::insert(folder.path(), *class, batch, count),
        Place::Redis(redis) => redis::insert(&redis.url(), batch, count),
        Place::Postgres(server) => postgres::insert(server, batch, count),
    }
}

/// What the store still has of the queue, in words.
pub(crate) fn left(place: &Place) -> String {
    match place {
        Place::Sqlite { folder, .. } => sqlite::left(folder.path()),
        Place::Redis(redis) => redis::left(&redis.url()),
        Place::Postgres(server) => postgres::left(server),
    }
}
