//! SIGINT and SIGTERM while the command has no time for them.

use std::path::Path;

use rustix::process::Signal;

use crate::process::Liner;

#[test]
fn a_signal_ends_a_start_that_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--store", "sqlite:a.db", "--name", "w"];
    let gateway =
        [&["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"], &args[..]].concat();
    let first = Liner::start(folder.path(), &gateway);
    assert!(first.line().is_some());
    first.signal(Signal::TERM);
    assert_eq!(first.end().code, Some(0));

    // Somebody else writes to the file, which is waited for.
    let database = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sub = [&["sub", "t"], &args[..]].concat();
    for command in [gateway, sub] {
        let liner = Liner::start(folder.path(), &command);
        wait_for(&liner, &folder.path().join("a.db.w.lock"));
        liner.signal(Signal::TERM);
        assert_eq!(liner.end().code, None, "{command:?} is not ended by the signal itself");
    }
}

/// Until it has opened the file.
fn wait_for(liner: &Liner, file: &Path) {
    while !liner.has_open(file) {
        std::thread::yield_now();
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let sub = Liner::start(folder.path(), &["sub", "t", "--listen", "127.0.0.1:0"]);
    sub.error_with("listening on ");
    sub.freeze();
    sub.signal(Signal::INT);
    sub.signal(Signal::TERM);
    sub.thaw();
    let code = sub.end().code;
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}
