//! A node writes elements of a list.

use std::time::{Duration, Instant};

use redis::{Commands as _, Connection};

fn connect(url: &str) -> Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

fn lists(connection: &mut Connection) -> Vec<String> {
    connection.scan_match::<_, String>("lnr_connection:*:messages").unwrap().map(Result::unwrap).collect()
}

pub(crate) fn insert(url: &str, batch: usize, count: u64) -> Duration {
    let mut connection = connect(url);
    let [list] = &*lists(&mut connection) else { panic!("there is one queue") };
    let elements: Vec<Vec<u8>> = connection.lrange(list, 0, -1).unwrap();
    assert_eq!(elements.len() as u64, count);
    let began = Instant::now();
    for part in elements.chunks(batch) {
        let _: u64 = connection.rpush("bare", part).unwrap();
    }
    let elapsed = began.elapsed();
    let _: u64 = connection.del("bare").unwrap();
    elapsed
}

pub(crate) fn left(url: &str) -> String {
    let mut connection = connect(url);
    let lists = lists(&mut connection);
    let elements: u64 = lists.iter().map(|list| connection.llen::<_, u64>(list).unwrap()).sum();
    let keys: u64 = redis::cmd("DBSIZE").query(&mut connection).unwrap();
    format!("{} lists with {elements} elements, {keys} keys in all", lists.len())
}
