//! What `docs/stores.md` says of PostgreSQL: each query prints what the page says, and options and permissions are those of the code.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeSet;

use liner_store_postgres::{Url, grants};
use liner_tests::page::{blocks, code, fill, rows, section};

mod common;
use common::*;

const PAGE: &str = include_str!("../../../docs/stores.md");

/// What `psql -At` prints.
fn printed(database: &Database, sql: &str) -> String {
    let rows = server().query_in(&database.0, sql).expect(sql);
    let line = |row: &Vec<Option<String>>| {
        let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
        values.join("|") + "\n"
    };
    rows.iter().map(line).collect()
}

#[test]
fn every_query_of_the_page_prints_what_the_page_says() {
    let database = Database::new();
    fill(&mut database.open("gateway"));
    let running = database.open("w");
    let (mut asked, mut starts) = (0, 0);
    for block in blocks(PAGE) {
        if block.is("sql") || block.is("sql postgres") {
            assert_eq!(printed(&database, &block.content), block.prints, "{}", block.content);
            asked += 1;
        } else if block.is("sh start") {
            drop(database.open("gateway"));
            starts += 1;
        }
    }
    assert!(asked >= 15 && starts >= 2, "{asked} blocks and {starts} starts were found");
    drop(running);
    // The last block of all has said that the database went back in time.
    assert!(told(&mut database.open("gateway")).node.expect("it has been here").1);
}

#[test]
fn the_options_of_the_page_are_those_of_the_code() {
    let refusal = "postgres://u@h/d?no_such_option=1".parse::<Url>().expect_err("it is none").to_string();
    let (_, known) = refusal.split_once("there are ").expect("it says which there are");
    let known: BTreeSet<&str> = known.split(", ").collect();
    let table = rows(section(PAGE, "### PostgreSQL's options"));
    let named: BTreeSet<&str> = table.iter().flat_map(|row| code(row.first().expect("a cell"))).collect();
    assert_eq!(named, known);
    for row in &table {
        let example = code(row.last().expect("a cell"));
        let [example] = example[..] else { panic!("{row:?} has no example") };
        let url = format!("postgres:///?{example}");
        let url = if example.contains("user=") { url } else { format!("{url}&user=liner") };
        url.parse::<Url>().expect(example);
    }
}

#[test]
fn the_permissions_of_the_page_are_those_of_the_code() {
    let block = blocks(PAGE).into_iter().find(|block| block.is("sql grants")).expect("they stand there");
    assert_eq!(block.content.trim(), grants("public", "liner").trim());
}
