//! Pages of the documentation that tests hold to what is true: blocks that are run, tables, and the store that examples are about.

use liner_proto::effect::{DeadReason, Queue, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store;
use liner_proto::wire::record::{Header, Mode, Topic, encode_message, message_len};

use crate::conformance::records::run;

/// A block of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The words behind the sign that begins it: a language, and whose it is.
    pub words: Vec<String>,
    /// What stands in it.
    pub content: String,
    /// What stands in the block of text right behind it: what it prints.
    pub prints: String,
}

impl Block {
    /// Whether these are its words.
    pub fn is(&self, words: &str) -> bool {
        self.words.join(" ") == words
    }
}

/// All blocks of a page but those of text, in their order.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut lines, mut follows) = (page.lines(), false);
    while let Some(line) = lines.next() {
        let Some(words) = line.strip_prefix("```") else {
            follows &= line.is_empty();
            continue;
        };
        let content: String =
            lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
        match blocks.last_mut().filter(|_| follows && words == "text") {
            Some(block) => block.prints = content,
            None if words == "text" => {}
            None => {
                let words = words.split_whitespace().map(str::to_owned).collect();
                blocks.push(Block { words, content, prints: String::new() });
            }
        }
        follows = words != "text";
    }
    blocks
}

/// What stands under a heading, up to the next one that is not below it.
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let level = heading.split(' ').next().unwrap_or_default().len();
    let begin = format!("\n{heading}\n");
    let Some((_, rest)) = page.split_once(&begin) else { return "" };
    let ends = rest.match_indices("\n#").map(|(at, _)| at + 1).find(|at| {
        let signs = rest.get(*at..).unwrap_or_default();
        signs.bytes().take_while(|byte| *byte == b'#').count() <= level
    });
    ends.and_then(|end| rest.get(..end)).unwrap_or(rest)
}

/// The rows of the tables in a part of a page that begin with code, by their cells.
pub fn rows(part: &str) -> Vec<Vec<String>> {
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| format!("`{row}").split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The pieces of code in a text.
pub fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

const EPOCH: Epoch = Epoch(7);

/// Fills the store of the gateway that the examples of the pages are about.
///
/// # Panics
/// If the store does not take it.
#[expect(clippy::expect_used, reason = "a test fails then")]
pub fn fill(store: &mut dyn Store) {
    let mut apply = |group: &[StoreOp<'_>]| {
        store.apply(group).and_then(|()| store.commit()).expect("the store takes it");
    };
    apply(&[StoreOp::Inbox { epoch: Epoch(9) }]);
    for (queue, topics, payloads) in [
        (Queue::Node("w"), &["readings"][..], &[(1, "20.6"), (1, "20.7"), (1, "20.8"), (1, "2?.9")][..]),
        (Queue::Node("archive"), &["readings", "logs"], &[(1, "20.6"), (2, "started")]),
        (Queue::Topic("alarms"), &["alarms"], &[(1, "hot"), (1, "very hot!")]),
    ] {
        apply(&[StoreOp::Open { queue, epoch: EPOCH }]);
        for (number, text) in (1..).zip(topics) {
            apply(&[StoreOp::Topic { queue, number, text }]);
        }
        let records = payloads
            .iter()
            .map(|(topic, payload)| message(&Header::new(Mode::All, Topic::Number(*topic)), payload));
        let (last, records) = (payloads.len() as u64, run(records));
        apply(&[StoreOp::Append { queue, first: 1, last, records: &records }]);
    }
    for (topic, reason) in
        [("alarms", DeadReason::Quota), ("alarms", DeadReason::Quota), ("logs", DeadReason::Unsubscribed)]
    {
        let record = message(&Header::new(Mode::All, Topic::Text(topic)), "put aside");
        apply(&[StoreOp::DeadLetter { peer: "boiler", topic, reason, record: &record }]);
    }
    let subscribe = |address, name| StoreOp::Subscribe { topic: "readings", address, name };
    apply(&[
        StoreOp::Trim { queue: Queue::Node("w"), through: 1 },
        StoreOp::Cursor { peer: "boiler", epoch: EPOCH, through: 42 },
        subscribe("192.0.2.5:7420", "w"),
        subscribe("@archive", "archive"),
    ]);
}

fn message(header: &Header<'_>, payload: &str) -> Vec<u8> {
    let mut record = vec![0; message_len(header, payload.len())];
    encode_message(header, payload.as_bytes(), &mut record);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_what_they_print() {
        let page = "a\n```sql\nSELECT 1;\n```\n\n```text\n1\n```\n\n```text\nno\n```\n```sh redis\nc\nd\n```\nb\n```text\nno\n```\n";
        let block = |words: &[&str], content: &str, prints: &str| Block {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            content: content.to_owned(),
            prints: prints.to_owned(),
        };
        let found = blocks(page);
        assert_eq!(found, [block(&["sql"], "SELECT 1;\n", "1\n"), block(&["sh", "redis"], "c\nd\n", "")]);
        assert!(found[1].is("sh redis") && !found[1].is("sh"));
    }

    #[test]
    fn tables_are_found_under_their_heading() {
        let page = "# A\n\n## B\n\n| `a` | 1 |\n### C\n| x | 2 |\n| `b`, `c` | a | b |\n## D\n| `d` | 3 |\n";
        assert_eq!(rows(section(page, "## B")), [vec!["`a`", "1"], vec!["`b`, `c`", "a", "b"]]);
        assert_eq!(rows(section(page, "### C")), [["`b`, `c`", "a", "b"]]);
        assert_eq!((section(page, "## E"), code("`b`, `c`")), ("", vec!["b", "c"]));
    }
}
