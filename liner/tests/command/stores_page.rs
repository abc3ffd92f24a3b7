//! What `docs/stores.md` shows of `liner store` is what it prints.

use liner::store::open;
use liner_tests::page::{blocks, fill, section};
use liner_tests::servers::{Postgres, PostgresOptions, Redis, RedisOptions, Version};

use crate::process::run;

const PAGE: &str = include_str!("../../../docs/stores.md");

/// The same with every release of Redis.
fn without_release(text: &str) -> String {
    let Some((before, rest)) = text.split_once("Redis ") else { return text.to_owned() };
    let rest = rest.trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
    format!("{before}Redis{rest}")
}

#[test]
fn stores_are_copied_and_checked_as_the_page_shows() {
    let folder = tempfile::tempdir().unwrap();
    let redis =
        Redis::start(&RedisOptions { appendfsync: Some("everysec"), ..RedisOptions::default() }).unwrap();
    let postgres = Postgres::start(Version::V15, &PostgresOptions::default()).unwrap();
    let file = format!("sqlite:{}", folder.path().join("gateway.db").display());
    for url in [&file, &redis.url()] {
        fill(&mut *open(&url.parse().unwrap(), "gateway", None).unwrap().store);
    }
    let places = [
        ("sqlite:/var/lib/liner/gateway.db", &file),
        ("postgres://liner@db.example/liner", &postgres.url()),
        ("redis://127.0.0.1", &redis.url()),
    ];
    let shown: Vec<_> =
        blocks(section(PAGE, "## Moving house")).into_iter().filter(|block| block.is("sh")).collect();
    assert_eq!(shown.len(), 2);
    for block in shown {
        let call = places.iter().fold(block.content.clone(), |call, (from, to)| call.replace(from, to));
        let words: Vec<&str> = call.split_whitespace().skip(1).collect();
        let ended = run(folder.path(), &words);
        let printed: String = ended.lines.iter().flat_map(|line| [line, "\n"]).collect();
        let printed = places.iter().fold(printed, |printed, (to, from)| printed.replace(&**from, to));
        assert_eq!(without_release(&printed), without_release(&block.prints), "{call}: {:?}", ended.errors);
        assert_eq!(ended.code, Some(0));
    }
}
