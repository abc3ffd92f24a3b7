//! `liner bench`: figures, and nothing left behind.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::cli::assert_refused;
use crate::process::{Liner, run};

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_bench_gives_figures_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let table: [(&[&str], &str, &str); 3] = [
        (&[], "sqlite", "process"),
        (&["--store", "sqlite:new", "--durability", "power"], "sqlite", "power"),
        (&["--store", "ram:"], "ram", "ram"),
    ];
    for (words, store, class) in table {
        let args = [&["bench", "--count", "50", "--size", "8", "--json"], words].concat();
        let ended = run(folder, &args);
        assert_eq!((ended.code, ended.errors.len()), (Some(0), 0), "{words:?}: {:?}", ended.errors);
        let lines: Vec<Value> = ended.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [place, rate, trips] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&place["store"], &place["class"]), (&store.into(), &class.into()));
        assert_eq!((&rate["event"], &rate["messages"]), (&"rate".into(), &50.into()));
        assert!(rate["messages_per_second"].as_f64().unwrap() > 0.0, "{rate}");
        assert_eq!((&trips["event"], &trips["trips"]), (&"round_trip".into(), &50.into()));
        let micros = ["p50_us", "p99_us", "max_us"].map(|key| trips[key].as_u64().unwrap());
        assert!(micros[0] > 0 && micros.is_sorted(), "{trips}");
        assert!(is_empty(folder), "{words:?}");
    }
    let plain = run(folder, &["bench", "--count", "10", "--store", "ram:"]).lines;
    let begins = |at: usize, words: &str| plain.get(at).is_some_and(|line: &String| line.starts_with(words));
    assert!(begins(0, "messages ") && begins(1, "rate ") && begins(2, "round trip "), "{plain:?}");
}

#[test]
fn a_signal_shows_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bench = Liner::start(folder, &["bench", "--time", "1000m", "--json", "--log", "liner::bench=debug"]);
    assert_eq!(bench.json()["event"], "store");
    bench.error_with("the first message is acknowledged");
    assert_eq!(bench.line_now(), None);
    bench.signal(Signal::INT);
    let ended = bench.end();
    assert_eq!((ended.code, ended.lines.len()), (Some(4), 1), "{:?} {:?}", ended.lines, ended.errors);
    let rate: Value = serde_json::from_str(&ended.lines[0]).unwrap();
    assert_eq!(rate["event"], "rate");
    assert!(rate["messages"].as_u64().unwrap() > 0 && rate["seconds"].as_f64().unwrap() < 60.0, "{rate}");
    assert_eq!(ended.errors, ["liner: stopped: the figures are of what was done by then"]);
    assert!(is_empty(folder));
}

#[test]
fn what_is_there_is_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.db"), "mine").unwrap();
    let ended = run(folder.path(), &["bench", "--store", "sqlite:gateway.db", "--count", "1"]);
    assert_refused(&ended, 2, &["gateway.db is there already: name a new folder"]);
    assert_eq!(fs::read(folder.path().join("gateway.db")).unwrap(), b"mine");
}
