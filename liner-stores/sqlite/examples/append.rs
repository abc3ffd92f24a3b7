//! How fast this machine stores messages: of 64 bytes, 1,024 of them in a segment, and one by one.
//!
//! ```text
//! cargo run --release -p liner-store-sqlite --example append -- [folder] [seconds]
//! ```
//!
//! The folder is where the file is made; what `power` costs depends on its disk. Every row is one way of storing: how
//! many records an append has, and how many appends a commit. Trims follow at some distance, as acknowledgements do.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use liner_proto::effect::{Queue, StoreFault, StoreOp};
use liner_proto::id::{Class, Epoch};
use liner_proto::store::Store as _;
use liner_proto::wire::record::{Header, Mode, Topic, encode_message};
use liner_store_sqlite::{Options, SqliteStore};

const QUEUE: Queue<'static> = Queue::Node("gateway");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    say(format_args!(
        "{:>8} {:>8} {:>8} {:>14} {:>12}",
        "class", "records", "appends", "messages/s", "commits/s"
    ));
    for class in [Class::Process, Class::Power] {
        for (records, appends) in [(1, 1), (1, 1024), (1024, 1), (1024, 4), (1024, 16)] {
            let folder = tempfile::tempdir_in(&base)?;
            let (messages, commits) =
                measure(folder.path(), class, records, appends, Duration::from_secs(seconds))?;
            say(format_args!("{class:>8} {records:>8} {appends:>8} {messages:>14.0} {commits:>12.0}"));
        }
    }
    Ok(())
}

/// Messages and commits a second.
fn measure(
    folder: &Path,
    durability: Class,
    records: u64,
    appends: u64,
    time: Duration,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let (name, boot_id) = ("sensor".to_owned(), "bench".to_owned());
    let options = Options { name, durability, limit_bytes: None, boot_id };
    let mut store = SqliteStore::open(folder.join("liner.db"), &options)?;
    store.apply(&[StoreOp::Open { queue: QUEUE, epoch: Epoch(1) }])?;
    store.commit()?;
    let run = run_of(records)?;
    let distance = 16 * records * appends;
    let (mut last, mut commits) = (0_u64, 0_u32);
    let begun = now();
    while begun.elapsed() < time {
        if last > distance {
            store.apply(&[StoreOp::Trim { queue: QUEUE, through: last - distance }])?;
        }
        for _ in 0..appends {
            let (first, end) = (last + 1, last + records);
            store.apply(&[StoreOp::Append { queue: QUEUE, first, last: end, records: &run }])?;
            last = end;
        }
        store.commit()?;
        commits += 1;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    Ok((last as f64 / elapsed, f64::from(commits) / elapsed))
}

/// Records of 64 bytes of payload, one after the other.
fn run_of(records: u64) -> Result<Vec<u8>, StoreFault> {
    let mut record = [0; 80];
    let header = Header::new(Mode::One, Topic::Number(1));
    let len = encode_message(&header, &[0x5a; 64], &mut record).ok_or(StoreFault::Refused)?;
    let one = record.get(..len).unwrap_or_default();
    let mut run = Vec::new();
    for _ in 0..records {
        run.push(len as u8);
        run.extend_from_slice(one);
    }
    Ok(run)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]
fn say(line: core::fmt::Arguments<'_>) {
    println!("{line}");
}
