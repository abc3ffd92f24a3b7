//! Every SQL block of `docs/operators.md`, one after another, against a store with known content: it prints what the page says.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::path::Path;

use liner_proto::effect::{DeadReason, Queue, StoreOp};
use liner_proto::wire::record::{Header, Mode, Topic};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection};
use tempfile::tempdir;

mod common;
use common::*;

const PAGE: &str = include_str!("../../../docs/operators.md");

/// What the page shows.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// Statements, and what they print.
    Sql { statements: String, prints: String },
    /// The node is started.
    Start,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let content: String =
            lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
        match (language, blocks.last_mut()) {
            ("sql", _) => blocks.push(Block::Sql { statements: content, prints: String::new() }),
            ("text", Some(Block::Sql { prints, .. })) if prints.is_empty() => *prints = content,
            ("sh", _) if content == "liner gateway\n" => blocks.push(Block::Start),
            _ => panic!("a block of `{language}` that nobody runs:\n{content}"),
        }
    }
    blocks
}

/// Fills the file of the page's gateway.
fn fill(folder: &Path) {
    let mut store = open(folder, "gateway");
    let queues = [Queue::Node("w"), Queue::Node("archive"), Queue::Topic("alarms")];
    for queue in queues {
        let topics: &[_] = match queue {
            Queue::Node("w") => &["readings"],
            Queue::Topic(topic) => &[topic],
            Queue::Node(_) | Queue::Address(_) => &["readings", "logs"],
        };
        apply(&mut store, &[StoreOp::Open { queue, epoch: EPOCH }]);
        for (number, text) in (1..).zip(topics) {
            apply(&mut store, &[StoreOp::Topic { queue, number, text }]);
        }
    }
    let payloads: [&[(u32, &str)]; 3] = [
        &[(1, "20.6"), (1, "20.7"), (1, "20.8"), (1, "2?.9")],
        &[(1, "20.6"), (2, "started")],
        &[(1, "hot"), (1, "very hot!")],
    ];
    for (queue, payloads) in queues.into_iter().zip(payloads) {
        let records = run(payloads.iter().map(|(topic, payload)| {
            message(&Header::new(Mode::All, Topic::Number(*topic)), payload.as_bytes())
        }));
        let last = payloads.len() as u64;
        apply(&mut store, &[StoreOp::Append { queue, first: 1, last, records: &records }]);
    }
    let letters =
        [("alarms", DeadReason::Quota), ("alarms", DeadReason::Quota), ("logs", DeadReason::Unsubscribed)];
    for (topic, reason) in letters {
        let record = message(&Header::new(Mode::All, Topic::Text(topic)), b"put aside");
        apply(&mut store, &[StoreOp::DeadLetter { peer: "boiler", topic, reason, record: &record }]);
    }
    let subscribe = |topic, name| StoreOp::Subscribe { topic, address: name, name };
    apply(
        &mut store,
        &[
            StoreOp::Trim { queue: Queue::Node("w"), through: 1 },
            StoreOp::Cursor { peer: "boiler", epoch: EPOCH, through: 42 },
            subscribe("readings", "@w"),
            subscribe("readings", "@archive"),
        ],
    );
}

/// What `sqlite3` prints for some statements.
fn printed(conn: &Connection, statements: &str) -> String {
    let mut lines = String::new();
    let mut batch = Batch::new(conn, statements);
    while let Some(mut statement) = batch.next().expect("it is a statement") {
        let columns = statement.column_count();
        let mut rows = statement.query([]).expect("it is asked");
        while let Some(row) = rows.next().expect("it is executed") {
            let values = (0..columns).map(|column| match row.get_ref(column).expect("a column") {
                ValueRef::Null => String::new(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            });
            lines.push_str(&values.collect::<Vec<_>>().join("|"));
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn every_statement_of_the_page_prints_what_the_page_says() {
    let blocks = blocks(PAGE);
    let folder = tempdir().expect("a folder");
    fill(folder.path());
    let mut asked = 0;
    for block in &blocks {
        match block {
            Block::Sql { statements, prints } => {
                let conn = Connection::open(folder.path().join("liner.db")).expect("it opens");
                assert_eq!(printed(&conn, statements), *prints, "{statements}");
                asked += 1;
            }
            Block::Start => drop(open(folder.path(), "gateway")),
        }
    }
    assert!(asked >= 10, "{asked} blocks were found");
}

#[test]
fn blocks_are_found_with_what_they_print() {
    let page =
        "a\n```sql\nSELECT 1;\n```\n\nb\n\n```text\n1\n```\n\n```sh\nliner gateway\n```\n```sql\nc\n```\n";
    let sql = |statements: &str, prints: &str| Block::Sql {
        statements: statements.to_owned(),
        prints: prints.to_owned(),
    };
    assert_eq!(blocks(page), [sql("SELECT 1;\n", "1\n"), Block::Start, sql("c\n", "")]);
}

#[test]
fn what_is_printed_is_told_apart() {
    let conn = Connection::open_in_memory().expect("it opens");
    assert_eq!(printed(&conn, "SELECT 1, NULL, 'a', x'62', 2.5; SELECT 3"), "1||a|b|2.5\n3\n");
}
