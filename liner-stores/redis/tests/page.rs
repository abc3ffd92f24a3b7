//! What `docs/stores.md` says of Redis: each command prints what the page says, and options and permissions are those of the code.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;

use liner_proto::effect::Recovered;
use liner_proto::store::Store as _;
use liner_store_redis::{ACL, Options, RedisStore, Url, UrlError};
use liner_tests::page::{blocks, code, fill, rows, section};
use liner_tests::servers::{Redis, RedisOptions};

const PAGE: &str = include_str!("../../../docs/stores.md");

fn open(server: &Redis, name: &str) -> RedisStore {
    RedisStore::open(&server.url(), &Options { name: name.to_owned() }).expect("the store opens")
}

#[test]
fn every_command_of_the_page_prints_what_the_page_says() {
    let server = Redis::start(&RedisOptions::default()).expect("the server starts");
    let mut store = open(&server, "gateway");
    store.directory().expect("it takes a lease");
    fill(&mut store);
    drop(store);
    let mut running = open(&server, "w");
    running.directory().expect("it takes a lease");
    let (mut asked, mut starts) = (0, 0);
    for block in blocks(PAGE) {
        if block.is("sh redis") {
            assert_eq!(server.shell(&block.content).expect("it is run"), block.prints, "{}", block.content);
            asked += 1;
        } else if block.is("sh start") {
            drop(open(&server, "gateway"));
            starts += 1;
        }
    }
    assert!(asked >= 14 && starts >= 2, "{asked} blocks and {starts} starts were found");
    // What the page says of a server that was started again while its node was not there.
    server.restart().expect("it starts again");
    let mut regressed = None;
    let mut store = open(&server, "gateway");
    let recovered = store.recover(&mut |fact| {
        if let Recovered::Node { regressed: said, .. } = fact {
            regressed = Some(said);
        }
    });
    assert_eq!((recovered, regressed), (Ok(()), Some(true)));
}

#[test]
fn the_options_of_the_page_are_those_of_the_code() {
    let known = |url: &str| match url.parse::<Url>() {
        Err(UrlError::Option { known, .. }) => known.split(", ").collect::<BTreeSet<_>>(),
        other => panic!("{other:?}"),
    };
    let table = rows(section(PAGE, "### Redis's options"));
    let named: BTreeSet<&str> = table.iter().flat_map(|row| code(row.first().expect("a cell"))).collect();
    assert_eq!(named, known("rediss://h?no_such_option=1"));
    assert!(named.is_superset(&known("redis://h?no_such_option=1")));
    for row in &table {
        let example = code(row.last().expect("a cell"));
        let [example] = example[..] else { panic!("{row:?} has no example") };
        format!("rediss://h?{example}").parse::<Url>().expect(example);
    }
}

#[test]
fn the_permissions_of_the_page_are_those_of_the_code() {
    let block = blocks(PAGE).into_iter().find(|block| block.is("conf acl")).expect("they stand there");
    assert_eq!(block.content.trim(), format!("user liner on >PASSWORD {ACL}"));
}
