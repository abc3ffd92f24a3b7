//! What blocking sends of several threads share: one client with an SQLite file at `Process` sends to another one.
//!
//! ```text
//! cargo bench -p liner-tests --bench threads
//! ```
//!
//! Runs with one thread and with eight take turns; the medians and their ratio are printed.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock, prints, and ends where its premise fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use liner_mio::{Class, Client, Reliability, Store, Taken};
use liner_store_sqlite::{Options, SqliteStore};

const RUNS: usize = 5;
const SENDS: u32 = 20_000;
const PAYLOAD: [u8; 64] = [7; 64];

fn client(dir: &Path, name: &str) -> Client {
    let path = dir.join(format!("{name}.db"));
    let options = Options {
        name: name.to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: String::new(),
    };
    let open =
        move || SqliteStore::open(&path, &options).map(|store| Box::new(store) as Box<dyn Store + Send>);
    Client::new(name, &format!("to-{name}"), "127.0.0.1:0", open).unwrap()
}

/// Messages a second that blocking sends of so many threads store.
fn rate(threads: u32) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let (to, from) = (client(dir.path(), "to"), client(dir.path(), "from"));
    let had = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&had);
    to.run(move |_: &Taken| {
        counter.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    let address = to.bound_listen_addr().unwrap();
    from.configure(move |builder| builder.peer(&address));
    from.run(|_: &Taken| ()).unwrap();
    from.send_to("to-to", &PAYLOAD, Reliability::AtLeastOnce).unwrap();
    from.wait_until_acknowledged(Duration::from_secs(10)).unwrap();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..SENDS / threads {
                    from.send_to("to-to", &PAYLOAD, Reliability::AtLeastOnce).unwrap();
                }
            });
        }
    });
    let elapsed = begin.elapsed();
    assert!(from.wait_until_acknowledged(Duration::from_secs(60)).unwrap());
    assert_eq!(had.load(Ordering::Relaxed), u64::from(SENDS / threads * threads) + 1);
    f64::from(SENDS) / elapsed.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let (mut one, mut eight) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        one.push(rate(1));
        eight.push(rate(8));
    }
    let print = |label: &str, rates: &[f64]| {
        let all: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!("  {label:10} {:9.0}   [{}]", median(rates.to_vec()), all.join(", "));
    };
    println!(
        "blocking sends of 64 B, stored at `Process` in SQLite: messages/s (median of {RUNS}; all runs)"
    );
    print("1 thread", &one);
    print("8 threads", &eight);
    println!("  ratio      {:9.2}", median(eight) / median(one));
}
